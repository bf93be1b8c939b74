"""Several processes that train one model: what each does alone, and what they exchange.

`torchrun` starts them. Each takes its share of every batch: rows 0, N, 2N... belong to the first of
N processes, rows 1, N+1... to the second. They exchange what must be computed over a whole batch:
the gradients' mean, BatchNorm's statistics, the sums of the metrics.

The same as in one process, up to rounding: the batches and their order, the gradients, BatchNorm,
and every loss and accuracy. Not the same: what is drawn at random for each example. Dropout,
stochastic depth and augmentation draw other numbers in each process, from the same distribution.

Without torchrun nothing here does anything: there is one process, and its share is the whole.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from going_modular.training import batch_norm
from going_modular.utils import seed_everything

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


def any(flag: bool) -> bool:
    """Tell whether `flag` is true in any process."""
    return all_reduce(flag)[0] > 0


def barrier() -> None:
    """Wait until all processes have come here."""
    all_reduce(0)


def broadcast(value: Any) -> Any:
    """Return what the first process says."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@contextlib.contextmanager
def first_on_this_machine() -> Iterator[None]:
    """Let one process of each machine go first: what it downloads is there for the others."""
    is_first = is_first_on_this_machine()
    if not is_first:
        barrier()
    yield
    if is_first:
        barrier()


def gather(rows: Tensor) -> Tensor:
    """Put a batch together, in its order, of which each process holds its share of the rows."""
    if world_size() == 1:
        return rows
    shares: list[Any] = [None] * world_size()
    dist.all_gather_object(shares, rows)
    batch = rows.new_empty(sum(map(len, shares)), *rows.shape[1:])
    for number, theirs in enumerate(shares):
        batch[number :: world_size()] = theirs
    return batch


# --- each process's share of the data ------------------------------------------------------------


def share(dataloader: DataLoader) -> DataLoader:
    """Return a loader of the same batches, of which this process gets its share.

    A share may have no rows, where the last batch is smaller than the number of processes. A
    stream is left as it is: it has to give each process other examples, in equally many batches.
    """
    if world_size() == 1 or isinstance(dataloader.dataset, (IterableDataset, _Shares)):
        return dataloader
    by_batches = dataloader.batch_sampler is None  # already indexed by lists
    return DataLoader(
        _Shares(dataloader),
        batch_size=None,
        sampler=_AsFirst(dataloader.sampler if by_batches else dataloader.batch_sampler),
        num_workers=dataloader.num_workers,
        pin_memory=dataloader.pin_memory,
        timeout=dataloader.timeout,
        worker_init_fn=dataloader.worker_init_fn,
        multiprocessing_context=dataloader.multiprocessing_context,
        # It seeds the workers, too: of its own in each process.
        generator=dataloader.generator if is_main() else None,
        prefetch_factor=dataloader.prefetch_factor,
    )


class _Shares(Dataset):
    """This process's rows of each batch, as the loader would put them together."""

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataset, self.collate = dataloader.dataset, dataloader.collate_fn
        self.gives_batches = dataloader.batch_sampler is None
        self.rank, self.world_size = rank(), world_size()  # which a worker could not ask for

    def __getitem__(self, indices: list[int]) -> Any:
        mine = indices[self.rank :: self.world_size]
        rows = self._read(mine or indices[:1])
        return rows if mine else _none_of(rows)

    def _read(self, indices: list[int]) -> Any:
        if self.gives_batches:
            return self.dataset[indices]
        if hasattr(self.dataset, "__getitems__"):
            return self.collate(self.dataset.__getitems__(indices))
        return self.collate([self.dataset[index] for index in indices])


def _none_of(rows: Any) -> Any:
    if isinstance(rows, (list, tuple)):
        return [_none_of(part) for part in rows]
    return rows[:0]


class _AsFirst(Sampler):
    """Batches that are the same in all processes: the first draws an epoch's for all."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        yield from broadcast(list(self.sampler) if is_main() else None)


# --- the model -----------------------------------------------------------------------------------


def parallel(model: nn.Module) -> nn.Module:
    """Return a model that trains `model` together with the other processes; its weights are shared.

    Its gradients are those of the mean loss over the whole batch, whatever each process's share.
    From here on each process draws random numbers of its own, the first as if it were alone.
    """
    if world_size() == 1:
        return model
    if not is_main():
        seed_everything(int(torch.randint(2**31, ())) + rank())
    return _Parallel(model)


class _Parallel(DistributedDataParallel):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.broadcast_buffers = False  # from here on, all compute them alike

    def forward(self, images: Any) -> Any:
        mine = len(images[0] if isinstance(images, (list, tuple)) else images)
        rows = all_reduce(mine)[0]
        with batch_norm.OverAllProcesses():
            outputs = super().forward(images)
        # The processes' gradients are averaged, and each comes from a mean over its own rows.
        weight = mine * world_size() / rows
        for head in [outputs] if isinstance(outputs, Tensor) else outputs:
            if head is not None and head.requires_grad:
                head.register_hook(lambda gradient: gradient * weight)
        return outputs
