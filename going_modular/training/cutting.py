"""Frozen work done once: find where gradients begin, run what comes before over the data one time.

Knows a model only by its modules and their `requires_grad` flags, and data only as a DataLoader.
"""

import hashlib
import itertools
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate
from torchvision.ops import StochasticDepth

from going_modular.training import folding, processes
from going_modular.training.outputs import (
    FORMAT,
    SUFFIX,
    Batch,
    Layout,
    TrunkOutputs,
    cache_folder,
    into_file,
    into_memory,
    open_file,
)
from going_modular.utils import autocast, draws_random_numbers, to_device

RANDOM_MODULES = (nn.modules.dropout._DropoutNd, StochasticDepth)

# Four pictures of 224 x 224: EfficientNet-Lite0 and ResNet-18 took 1.4 to 2 times as long for
# each picture in batches of 32, whose tensors no longer fit into a core's own cache.
PIXELS_A_THREAD = 4 * 224 * 224


class CannotSplit(Exception):
    """A model or its data do not allow frozen work to be done once; the message says why."""


def is_frozen(module: nn.Module) -> bool:
    """Tell whether a module has parameters and none of them is trainable."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def set_train_mode(model: nn.Module) -> None:
    """Put `model` in training mode, but every part whose parameters are all frozen in eval mode.

    `requires_grad=False` alone does not freeze a BatchNorm: in training mode its running mean and
    variance, which are buffers, go on moving, and dropout and stochastic depth stay random.
    """
    model.train()
    parts = [model]
    while parts:
        part = parts.pop()
        if is_frozen(part):
            part.eval()
        else:
            parts.extend(part.children())


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the part of `model.state_dict()` that training can change."""
    fixed = tuple(f"{name}." for name, module in model.named_modules() if is_frozen(module))
    return {k: value for k, value in model.state_dict().items() if not k.startswith(fixed)}


# --- splitting a model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """A model in two: `trunk` maps images to a tuple of tensors, `tail` maps those to the output.

    Both share the model's own modules: training `tail` trains the model.
    """

    trunk: nn.Module
    tail: nn.Module


def split(model: nn.Module, training: bool) -> Split:
    """Split `model` where gradients begin, as it computes in training or in eval mode.

    The trunk is all that depends on no trainable parameter and on nothing random; the tail is the
    rest. Raises CannotSplit where torch.fx cannot trace the model, or where nothing is frozen.
    """
    if training:
        set_train_mode(model)
    else:
        model.eval()
    graph = _trace(model)
    live = _live_nodes(model, graph)
    frozen_modules = [n for n in graph.nodes if n.op == "call_module" and n not in live]
    if not any(is_frozen(model.get_submodule(node.target)) for node in frozen_modules):
        raise CannotSplit("no part of the model before its first trainable layer is frozen")
    crossing = [
        node
        for node in graph.nodes
        if node not in live and any(user in live or user.op == "output" for user in node.users)
    ]
    return Split(_trunk(model, graph, live, crossing), _tail(model, graph, live, crossing))


class _Tracer(fx.Tracer):
    """Looks only inside modules that mix frozen and trainable parts; all others stay whole."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        flags = {p.requires_grad for p in module.parameters()}
        return len(flags) < 2 or super().is_leaf_module(module, qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    if not any(p.requires_grad for p in model.parameters()):
        raise CannotSplit("the model has no trainable parameter")
    parameters = signature(model.forward).parameters.values()
    optional = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        return _Tracer().trace(model, concrete_args=optional)  # else `mask is not None` holds
    except Exception as error:  # whatever a model's own forward raises when it meets a proxy
        raise CannotSplit(f"torch.fx cannot trace {type(model).__name__}: {error}") from error


def _live_nodes(model: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """Collect what the tail computes: what is trainable or random, and all that follows from it."""
    live: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output":
            continue
        if _changes(model, node) or any(source in live for source in node.all_input_nodes):
            live.add(node)
    return live | _fixed_nodes(graph, live)


def _fixed_nodes(graph: fx.Graph, live: set[fx.Node]) -> set[fx.Node]:
    """Collect what the live part needs and no image changes, such as the angles of a RoPE.

    It has no row for each image, so it is worked out again instead of kept.
    """
    from_images: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(n in from_images for n in node.all_input_nodes):
            from_images.add(node)
    fixed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node not in from_images | live and any(n in live | fixed for n in node.users):
            fixed.add(node)
    return fixed


def _changes(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        if list(module.parameters()):
            return not is_frozen(module)
        return _is_random(module)
    if node.op == "get_attr":
        owner, _, name = node.target.rpartition(".")
        return getattr(model.get_submodule(owner), name).requires_grad
    return node.op == "call_function" and (
        "dropout" in str(node.target) or node.kwargs.get("training") is True
    )


def _is_random(module: nn.Module) -> bool:
    """Tell whether a module without parameters can give another output for the same input."""
    return any(map(_varies, module.modules()))


def _varies(module: nn.Module) -> bool:
    if isinstance(module, RANDOM_MODULES):
        return module.p > 0
    library = type(module).__module__.partition(".")[0]
    if library == "timm" and (getattr(module, "drop_prob", 0) or getattr(module, "prob", 0)):
        return True
    known = library in ("torch", "torchvision", "timm")
    return bool(list(module.buffers(recurse=False))) or not known


def _trunk(
    model: nn.Module, graph: fx.Graph, live: set[fx.Node], crossing: list[fx.Node]
) -> nn.Module:
    trunk, copies = fx.Graph(), {}
    for node in graph.nodes:
        if node not in live and node.op != "output":
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(tuple(copies[node] for node in crossing))
    return fx.GraphModule(model, trunk)


def _tail(
    model: nn.Module, graph: fx.Graph, live: set[fx.Node], crossing: list[fx.Node]
) -> nn.Module:
    tail = fx.Graph()
    values = tail.placeholder("values")
    copies = {
        node: tail.call_function(operator.getitem, (values, i)) for i, node in enumerate(crossing)
    }
    for node in graph.nodes:
        if node in live or node.op == "output":
            copies[node] = tail.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, tail)


# --- running the trunk over the data, once -------------------------------------------------------


def run_trunk(
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
    *,
    budget: int | None = None,
    progress: Callable[[DataLoader], Iterable] = iter,
) -> DataLoader:
    """Run `trunk` over the data once and return a DataLoader of its outputs.

    The new loader draws the same batches as `dataloader` would, and the same random numbers for
    it. Outputs of more than `budget` bytes (by default `memory_budget()`) go to a file, which a
    later run reads instead of running the trunk, if model, data, precision and torch are the same.
    `progress` wraps the loader of pictures. Raises CannotSplit where the data is a stream, where
    its pictures differ from one reading to the next, and where the file cannot be written.
    """
    dataset = dataloader.dataset
    if isinstance(dataset, IterableDataset) or dataloader.batch_sampler is None:
        raise CannotSplit("the data is a stream, which cannot be read by index")
    if draws_random_numbers(dataset, dataloader.collate_fn):
        raise CannotSplit("the pictures are augmented, so they differ in every epoch")
    outputs = _outputs(trunk, dataloader, device, dtype, budget, progress)
    return DataLoader(
        outputs,
        batch_size=None,
        sampler=dataloader.batch_sampler,
        collate_fn=_as_it_is,
        generator=dataloader.generator,
    )


def memory_budget() -> int:
    """Return how many bytes of outputs are kept in memory: a quarter of what is free."""
    return _free_memory() // 4 // processes.local_world_size()


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):  # no Linux: half of the memory, or of 8 GB on Windows
        has_sysconf = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
        pages = os.sysconf("SC_PHYS_PAGES") if has_sysconf else 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages else 4 * 2**30
    try:  # a container may have less than the machine
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()) // 2)
    except (OSError, ValueError):  # no container, or no limit, which is spelled "max"
        return free


def _outputs(
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
    budget: int | None,
    progress: Callable[[DataLoader], Iterable],
) -> TrunkOutputs:
    """Find the outputs of an earlier run, or compute them, into memory or into a file."""
    folder = cache_folder()
    path = outputs = None
    if any(folder.glob(f"*{SUFFIX}")):  # else the key, which reads all pictures, may be needless
        path = _cache_path(folder, trunk, dataloader, device, dtype)
        outputs = path and open_file(path)
    if not processes.any(not outputs):  # each process has found them
        return outputs

    ready = folding.ready(trunk, dtype)
    batches = _compute(ready, dataloader, device, dtype, progress)
    first = next(batches)
    batches = itertools.chain([first], batches)
    try:
        layout = Layout.of_batch(first, len(dataloader.dataset))
    except ValueError as error:
        raise CannotSplit(f"what crosses the cut cannot be kept: {error}") from error
    too_large = layout.rows_bytes > (memory_budget() if budget is None else budget)
    if not processes.any(too_large):
        return into_memory(layout, batches)
    path = path or _cache_path(folder, trunk, dataloader, device, dtype)
    outputs = None
    try:
        if path and not processes.is_first_on_this_machine():
            for _ in batches:  # another process keeps them, and needs this one's share
                pass
        else:
            outputs = into_file(path, folder, layout, batches)
    except OSError as error:
        if processes.world_size() > 1:  # the others cannot know; this ends all
            raise
        raise CannotSplit(f"its outputs cannot be kept: {error}") from error
    processes.barrier()  # they are written, when all have come here
    return outputs or open_file(path)


def _compute(
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[DataLoader], Iterable],
) -> Iterator[Batch]:
    in_order = DataLoader(
        dataloader.dataset,
        batch_size=dataloader.batch_size or 32,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        generator=torch.Generator(),  # leaves the caller's random state alone
    )
    for images, labels in progress(processes.share(in_order)):
        with torch.inference_mode(), autocast(device, dtype):
            parts = [trunk(to_device(part, device)) for part in _parts(images, device)]
        for values in parts:
            if not all(isinstance(value, Tensor) for value in values):
                raise CannotSplit("what crosses the cut is not one tensor row per picture")
        values = [torch.cat(values).cpu() for values in zip(*parts, strict=True)]
        yield [processes.gather(value) for value in values], processes.gather(labels)


def _parts(images: Tensor, device: torch.device) -> Sequence[Tensor]:
    """Cut a batch into what a processor's caches hold: twice as fast as 32 pictures at once."""
    if device.type != "cpu" or not isinstance(images, Tensor) or images.ndim != 4:
        return [images]
    pictures = PIXELS_A_THREAD * torch.get_num_threads() // math.prod(images.shape[2:])
    return images.split(max(1, pictures))


def _as_it_is(batch: object) -> object:
    return batch


# --- the file's name: all that its content depends on --------------------------------------------


def _cache_path(
    folder: Path,
    trunk: nn.Module,
    dataloader: DataLoader,
    device: torch.device,
    dtype: torch.dtype,
) -> Path | None:
    """Return where these outputs are kept; None where one cannot tell if they would differ."""
    flat = folding.flatten(trunk)
    if flat is None or dataloader.collate_fn is not default_collate:
        return None
    data = _fingerprint(dataloader.dataset)
    if data is None:
        return None
    digest = hashlib.sha256()
    versions = (FORMAT, torch.__version__, torchvision.__version__)
    digest.update(repr((*versions, device.type, dtype, data, flat.code)).encode())
    for name, module in flat.named_modules():
        digest.update(repr((name, type(module).__qualname__, settings(module))).encode())
    for name, tensor in itertools.chain(flat.named_parameters(), flat.named_buffers()):
        digest.update(name.encode())
        _add(digest, tensor)
    return folder / f"{digest.hexdigest()}{SUFFIX}"


def settings(module: nn.Module) -> list[tuple[str, object]]:
    """List a layer's own settings; repr leaves some out, such as an attention's heads."""
    plain = (bool, int, float, str, tuple, type(None))
    return sorted((name, v) for name, v in vars(module).items() if isinstance(v, plain))


def _fingerprint(dataset: Dataset) -> str | None:
    """Return a hash of all examples in their order; None where the data set cannot give one."""
    if hasattr(dataset, "fingerprint"):
        return dataset.fingerprint()
    if type(dataset) is not TensorDataset:
        return None
    digest = hashlib.sha256()
    for tensor in dataset.tensors:
        _add(digest, tensor)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", tensor: Tensor) -> None:
    digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
