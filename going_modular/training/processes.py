"""Several processes that train one model: what each of them does alone, and what they exchange.

`torchrun` starts them. Each goes through the same batches as a single process would and takes its
share of every one: rows 0, N, 2N... belong to the first of N, rows 1, N+1... to the second. What
has to be computed over a whole batch is exchanged: the gradients' mean, BatchNorm's statistics,
sums of the metrics. So the result is that of one process, to the rounding of float32. Random
augmentation is the exception: each process draws its own.

Without torchrun nothing here does anything: there is one process, and its share is the whole.
"""

import contextlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from going_modular.utils import draws_random_numbers

# --- the processes -------------------------------------------------------------------------------


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun has started; only the first of them prints.

    Where one fails, torchrun ends the others, and only that one raises its error.
    """
    if not is_launched() or dist.is_initialized():
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))
    # torchrun may keep its store from one start to the next, and in it the addresses of the dead.
    store = dist.PrefixStore(f"attempt {_environment('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(_environment("LOCAL_RANK", 0))
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        with contextlib.nullcontext() if is_main() else _silence():
            yield
    except Exception:
        if not _is_first(store):
            raise SystemExit(1) from None  # that another process was lost is no news
        raise
    except KeyboardInterrupt:
        if not is_main():
            raise SystemExit(130) from None
        raise
    else:
        dist.destroy_process_group()


def is_launched() -> bool:
    """Tell whether torchrun has started this process, as one of several or alone."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def is_restarted() -> bool:
    """Tell whether torchrun has started this process again, after one was lost."""
    return is_launched() and _environment("TORCHELASTIC_RESTART_COUNT", 0) > 0


def rank() -> int:
    """Return the number of this process, counted from 0 over all machines."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes there are, over all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world_size() -> int:
    """Return how many processes share this machine's memory and processors."""
    return _environment("LOCAL_WORLD_SIZE", 1) if dist.is_initialized() else 1


def is_main() -> bool:
    """Tell whether this is the one process that prints and writes files."""
    return rank() == 0


def is_first_on_this_machine() -> bool:
    """Tell whether this process downloads and writes what its machine's processes share."""
    return not dist.is_initialized() or _environment("LOCAL_RANK", 0) == 0


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


def _is_first(store: dist.Store) -> bool:
    try:
        return store.add("processes that failed", 1) == 1
    except RuntimeError:  # the store went with the process that held it, and that failed
        return False


# --- what they tell each other -------------------------------------------------------------------


def all_reduce(*numbers: float) -> list[float]:
    """Add up each number over all processes."""
    if world_size() == 1:
        return list(numbers)
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def broadcast(value: Any) -> Any:
    """Return what the first process says."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def on_main(function: Callable, *arguments: Any) -> Any:
    """Call `function` in the first process only and return its result in all."""
    return broadcast(function(*arguments) if is_main() else None)


@contextlib.contextmanager
def first_on_this_machine() -> Iterator[None]:
    """Let one process of each machine go first: what it downloads is there for the others."""
    others_wait = world_size() > 1
    is_first = is_first_on_this_machine()
    if others_wait and not is_first:
        dist.barrier()
    yield
    if others_wait and is_first:
        dist.barrier()


def gather(rows: Tensor) -> Tensor:
    """Put a batch together, in its order, of which each process holds its share of the rows."""
    if world_size() == 1:
        return rows
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    most = int(counts.max())
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    shares = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(shares, padded)
    present = torch.arange(most)[:, None] < counts  # (most, processes)
    return torch.stack(shares, dim=1)[present.to(rows.device)]


# --- each process's share of the data ------------------------------------------------------------


def share(dataloader: DataLoader) -> DataLoader:
    """Return a loader of the same batches, of which this process gets its share.

    A share may have no rows, where the last batch is smaller than the number of processes. A
    stream is left as it is: it has to give each process other examples, in equally many batches.
    """
    if world_size() == 1 or isinstance(dataloader.dataset, (IterableDataset, _Shares)):
        return dataloader
    shares = _Shares(dataloader, rank(), world_size())
    return by_batches(dataloader, shares, _InStep(batches(dataloader), dataloader.generator))


def batches(dataloader: DataLoader) -> Sampler:
    """Return what draws a loader's batches, as lists of indices."""
    return dataloader.sampler if dataloader.batch_sampler is None else dataloader.batch_sampler


def by_batches(dataloader: DataLoader, dataset: Dataset, sampler: Sampler) -> DataLoader:
    """Return a loader with the settings of another, whose data set is indexed by whole batches."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=dataloader.num_workers,
        collate_fn=_as_it_is,
        pin_memory=dataloader.pin_memory,
        timeout=dataloader.timeout,
        worker_init_fn=dataloader.worker_init_fn,
        multiprocessing_context=dataloader.multiprocessing_context,
        generator=dataloader.generator,
        prefetch_factor=dataloader.prefetch_factor,
        persistent_workers=dataloader.persistent_workers,
    )


class Batches(Dataset):
    """A loader's data set, indexed by lists: each gives a batch, as the loader would put it."""

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataset, self.collate = dataloader.dataset, dataloader.collate_fn
        self.gives_batches = dataloader.batch_sampler is None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indices: list[int]) -> Any:
        if self.gives_batches:
            return self.dataset[indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.collate(self.dataset.__getitems__(indices))
        return self.collate([self.dataset[index] for index in indices])


class _Shares(Batches):
    """This process's rows of each batch."""

    def __init__(self, dataloader: DataLoader, number: int, count: int) -> None:
        super().__init__(dataloader)
        self.number, self.count = number, count
        self.draws = not self.gives_batches and draws_random_numbers(self.dataset, self.collate)

    def __getitem__(self, indices: list[int]) -> Any:
        mine = indices[self.number :: self.count]
        with _own_random_numbers(self.number) if self.draws else contextlib.nullcontext():
            rows = super().__getitem__(mine or indices[:1])
        return rows if mine else _none_of(rows)


class _InStep(Sampler):
    """Batches that are the same in all processes: all draw them as the first would."""

    def __init__(self, sampler: Sampler, generator: torch.Generator | None) -> None:
        self.sampler, self.generator = sampler, generator

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for generator in (torch.default_generator, self.generator):
            if generator is not None:
                state = generator.get_state()
                dist.broadcast(state, src=0)
                generator.set_state(state)
        yield from self.sampler


@contextlib.contextmanager
def _own_random_numbers(number: int) -> Iterator[None]:
    """Draw other random numbers than the other processes, which go on in step afterwards."""
    seed = int(torch.randint(2**31, ())) + number
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _none_of(rows: Any) -> Any:
    if isinstance(rows, (list, tuple)):
        return [_none_of(part) for part in rows]
    return rows[:0]


def _as_it_is(batch: Any) -> Any:
    return batch


# --- the model -----------------------------------------------------------------------------------


def parallel(model: nn.Module) -> nn.Module:
    """Return a model that trains `model` together with the other processes; its weights are shared.

    Its gradients are those of the mean loss over the whole batch, whatever each process's share.
    """
    return model if world_size() == 1 else _Parallel(model)


def bytes_per_step(model: nn.Module) -> int:
    """Return the size of the gradients that each process contributes after every batch.

    Frozen parameters have none. A ring of N processes sends, and receives, 2 (N - 1) / N of it.
    """
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


class _Parallel(DistributedDataParallel):
    def __init__(self, model: nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*broadcast_buffers")  # renamed in torch 2.14
            super().__init__(model, broadcast_buffers=False)  # all compute them alike

    def forward(self, images: Any) -> Any:
        mine = len(images[0] if isinstance(images, (list, tuple)) else images)
        rows = int(all_reduce(mine)[0])
        with _AsOneBatch(mine, rows):
            outputs = super().forward(images)
        # The processes' gradients are averaged, and each comes from a mean over its own rows.
        weight = mine * world_size() / rows
        for head in [outputs] if isinstance(outputs, Tensor) else outputs:
            if head is not None and head.requires_grad:
                head.register_hook(lambda gradient: gradient * weight)
        return outputs


class _AsOneBatch(TorchFunctionMode):
    """Compute what mixes rows, or draws random numbers for them, as for the batch of `rows` rows.

    That is BatchNorm in training, dropout and stochastic depth; all else goes row by row, and here
    there are `mine`.
    """

    def __init__(self, mine: int, rows: int) -> None:
        self.mine, self.rows = mine, rows

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d):
            return self._dropout(func, *args, **kwargs)
        if func is Tensor.bernoulli_:  # how torchvision draws for stochastic depth
            return self._bernoulli(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, function, images, p=0.5, training=True, inplace=False) -> Tensor:
        if not training or p == 0:
            return images
        mask = _ones(self.rows, images)
        mask = function(mask, p)[rank() :: world_size()]
        return images.mul_(mask) if inplace else images * mask

    def _bernoulli(self, noise: Tensor, p: float, **kwargs) -> Tensor:
        if len(noise) != self.mine:  # no number for each row, but one for the batch
            return noise.bernoulli_(p, **kwargs)
        drawn = _ones(self.rows, noise).bernoulli_(p, **kwargs)
        return noise.copy_(drawn[rank() :: world_size()])


def _ones(rows: int, like: Tensor) -> Tensor:
    """Make a tensor for the whole batch, in the memory order in which numbers are drawn for it."""
    ones = like.new_ones(rows, *like.shape[1:])
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        ones = ones.contiguous(memory_format=torch.channels_last)
    return ones


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what F.batch_norm does, with the statistics of the whole batch."""
    if not training:
        return F.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
    channels = images.shape[1]
    exact = torch.promote_types(images.dtype, torch.float32)
    count = images.numel() // channels
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=images.device)
    if count:
        with torch.no_grad():
            mean, variance = torch.batch_norm_update_stats(images.to(exact), None, None, 0.0)
        mean, variance = mean.double(), variance.double()
        sums = torch.cat([mean * count, (variance + mean**2) * count, sums[-1:] + count])
    dist.all_reduce(sums)
    count = sums[-1].item()
    if count < 2:
        raise ValueError(
            f"BatchNorm cannot train on one value per channel: the batch gives {count:.0f}"
        )
    mean, mean_of_squares = (sums[:-1] / count).split(channels)
    variance = mean_of_squares - mean**2
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    if weight is None:
        weight = torch.ones(channels, dtype=exact, device=images.device)
        bias = torch.zeros_like(weight)
    return _Normalize.apply(images, weight, bias, mean.to(exact), variance.to(exact), count, eps)


class _Normalize(torch.autograd.Function):
    """Normalize by statistics to which the images of all processes have contributed."""

    @staticmethod
    def forward(ctx, images, weight, bias, mean, variance, count, eps):
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient):
        images, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        sums = mean.new_zeros(2, len(mean))
        direct = gradient
        if len(images):  # as if mean and variance were constants
            direct, *own = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, mean, variance, mean, scale, False, ctx.eps, [True] * 3
            )
            sums = torch.stack(own)
        of_weight, of_bias = sums.clone()
        dist.all_reduce(sums)
        # They are not: all images moved them, so all share what the gradients have in common.
        by_scale, by_shift = sums * weight * scale / ctx.count
        slope = by_scale * scale
        offset = by_shift - mean * slope
        shape = (1, -1) + (1,) * (images.ndim - 2)
        common = torch.addcmul(offset.view(shape), images, slope.view(shape))
        return (direct - common).to(images.dtype), of_weight, of_bias, None, None, None, None
