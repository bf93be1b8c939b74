"""Frozen work done once: the trunk of a model, run over the data one time.

Knows how to run a trunk and to tell whether an earlier run did the same; `cutting` finds the trunk,
`outputs` keeps what it gave.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from going_modular.training import outputs, processes
from going_modular.training.cutting import CannotCut, cut, settings
from going_modular.training.fusing import fused
from going_modular.training.identity import digest, fingerprint
from going_modular.training.reporting import progress_bar, say
from going_modular.utils import autocast, to_device

# Four images of 224 x 224: EfficientNet-Lite0 and ResNet-18 took 1.4 to 2 times as long for each
# image in batches of 32, whose tensors no longer fit into a core's own cache.
PIXELS_A_THREAD = 4 * 224 * 224


def run_once(
    model: nn.Module,
    train_dataloader: DataLoader,
    val_dataloader: DataLoader | None,
    device: torch.device,
    dtype: torch.dtype,
    verbose: bool = False,
) -> tuple[nn.Module, nn.Module, DataLoader, DataLoader | None]:
    """Return what is left of a model to train and to evaluate, and loaders of what its trunk gave.

    Where that is not exact, all is returned as it came. `verbose` says what was done, or why not.
    """
    start, tails, loaders = time.perf_counter(), [], []
    try:
        for dataloader, training in ((train_dataloader, True), (val_dataloader, False)):
            parts = cut(model, training)
            tails.append(parts.tail)
            if dataloader is not None:
                dataloader = run_trunk(parts.trunk, dataloader, device, dtype, verbose)
            loaders.append(dataloader)
    except CannotCut as reason:
        say(f"Nothing can be computed only once: {reason}. The plain loop runs.", verbose)
        return model, model, train_dataloader, val_dataloader
    done = [loader.dataset for loader in loaders if loader is not None]
    reused = ", in an earlier run" if all(one.reused for one in done) else ""
    files = "".join(f" Kept: {one.path}." for one in done if one.path)
    say(
        f"The frozen part ran once over {sum(map(len, done))} images{reused} "
        f"({time.perf_counter() - start:.1f} s); the epochs below train the rest on its outputs."
        f"{files}",
        verbose,
    )
    return *tails, *loaders


def run_trunk(
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
    verbose: bool = False,
) -> DataLoader:
    """Run `trunk` over the data once and return a DataLoader of its outputs.

    The new loader draws the same batches as `dataloader` would, and the same random numbers for
    it. What is too large for memory goes to a file, which a later run reads instead of running the
    trunk, if model, data, precision and torch are the same. Raises CannotCut where the data is a
    stream, where its images differ from one reading to the next, and where the file cannot be
    written.
    """
    dataset = dataloader.dataset
    if isinstance(dataset, IterableDataset) or dataloader.batch_sampler is None:
        raise CannotCut("the data is a stream, which cannot be read by index")
    if differs_each_time(dataset, dataloader.collate_fn):
        raise CannotCut("the images are augmented, so they differ in every epoch")
    batches = _compute(trunk, dataloader, device, dtype, verbose)  # none, if the file is there
    path = partial(_path, trunk, dataloader, device, dtype)
    try:
        found = outputs.find_or_keep(path, batches, len(dataset))
    except outputs.CannotKeep as error:
        if processes.world_size() > 1:  # the others cannot know; this ends all
            raise
        raise CannotCut(f"its outputs cannot be kept: {error}") from error
    return DataLoader(
        found, batch_size=None, sampler=dataloader.batch_sampler, generator=dataloader.generator
    )


def differs_each_time(dataset: Dataset, collate_fn: Callable = default_collate) -> bool:
    """Tell whether reading a batch again gives another, as with augmentation.

    Two equal batches may be chance: who draws from the global random numbers counts, too.
    """
    before = _random_state()
    try:
        # MixUp, for one, is done to whole batches.
        first, again = (digest(collate_fn([dataset[0], dataset[0]])) for _ in range(2))
        return first != again or digest(before) != digest(_random_state())
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


def _random_state() -> tuple[Tensor, tuple, tuple]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _compute(
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
    verbose: bool,
) -> Iterator[np.ndarray]:
    """Yield what `trunk` gives for the data, in its own order, in batches of `outputs.to_rows`."""
    in_order = DataLoader(
        dataloader.dataset,
        batch_size=dataloader.batch_size or 32,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        generator=torch.Generator(),  # leaves the caller's random state alone
    )
    if dtype == torch.bfloat16:  # float32 stays exact: training on top can make a digit grow
        trunk = fused(trunk, dtype)
    for images, labels in progress_bar(processes.share(in_order), "frozen part", verbose):
        parts = []
        for part in _parts(images, device):
            with torch.inference_mode(), autocast(device, dtype):
                parts.append(trunk(to_device(part, device)))
            rows = (len(part) if isinstance(part, Tensor) else len(labels),)
            if not all(isinstance(v, Tensor) and v.shape[:1] == rows for v in parts[-1]):
                raise CannotCut("not all that crosses the cut has one row per image")
        values = [processes.gather(torch.cat(part).cpu()) for part in zip(*parts, strict=True)]
        yield outputs.to_rows(values, processes.gather(labels))


def _parts(images: Tensor, device: torch.device) -> Sequence[Tensor]:
    """Divide a batch into what a processor's caches hold: twice as fast as 32 images at once."""
    if device.type != "cpu" or not isinstance(images, Tensor) or images.ndim != 4:
        return [images]
    at_once = PIXELS_A_THREAD * torch.get_num_threads() // math.prod(images.shape[2:])
    return images.split(max(1, at_once))


# --- the file's name: all that its content depends on --------------------------------------------


def _path(
    trunk: nn.Module, dataloader: DataLoader, device: torch.device, dtype: torch.dtype
) -> Path | None:
    """Return where these outputs are kept; None where one cannot tell if they would differ."""
    data = fingerprint(dataloader.dataset) if dataloader.collate_fn is default_collate else None
    try:
        flat = fx.symbolic_trace(trunk)  # as calls of torch's own layers and functions
    except Exception:  # whatever a model's own forward raises when it meets a proxy
        return None
    if data is None:
        return None
    made_of = [torch.__version__, torchvision.__version__, device.type, dtype, data, flat.code]
    for name, module in flat.named_modules():
        made_of += [name, type(module).__qualname__, settings(module)]
    for name, tensor in itertools.chain(flat.named_parameters(), flat.named_buffers()):
        made_of += [name, tensor]
    return outputs.cache_folder() / f"{digest(made_of)}.npy"
