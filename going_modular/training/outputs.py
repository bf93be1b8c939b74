"""What a frozen trunk gave for a data set: an array in memory, or an `.npy` file.

Knows tensors and a folder; not which model or which images they come from.
"""

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import torch
from platformdirs import user_cache_path
from torch import Tensor
from torch.utils.data import Dataset

from going_modular.training import processes
from going_modular.utils import replacing

ABANDONED_SECONDS = 24 * 3600  # since the last write to a temporary file


class CannotKeep(OSError):
    """The cache folder cannot take what should be kept; the message says what to do."""


class TrunkOutputs(Dataset):
    """What a trunk made of a data set, in its order; indexed by a list, it gives a batch.

    `rows` has a row for each image (see `to_rows`); `path` is the file where a later run finds
    them, and `reused` tells that an earlier run wrote it.
    """

    def __init__(self, rows: np.ndarray, path: Path | None = None, reused: bool = False) -> None:
        self.rows, self.path, self.reused = rows, path, reused

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        labels, *values = (_tensor(self.rows[name][indices]) for name in self.rows.dtype.names)
        return values, labels


def to_rows(values: Sequence[Tensor], labels: Tensor) -> np.ndarray:
    """Put a batch together as (B,): of each image its label, then what the trunk gave for it."""
    parts = {"label": _array(labels)}
    parts |= {f"value {number}": _array(value) for number, value in enumerate(values)}
    rows = np.empty(len(labels), [(name, a.dtype, a.shape[1:]) for name, a in parts.items()])
    for name, part in parts.items():
        rows[name] = part
    return rows


def _array(batch: Tensor) -> np.ndarray:
    # NumPy has no bfloat16.
    return (batch.view(torch.uint16) if batch.dtype == torch.bfloat16 else batch).numpy()


def _tensor(array: np.ndarray) -> Tensor:
    batch = torch.from_numpy(array)
    return batch.view(torch.bfloat16) if batch.dtype == torch.uint16 else batch


def find_or_keep(
    path: Callable[[], Path | None], batches: Iterator[np.ndarray], count: int
) -> TrunkOutputs:
    """Return what an earlier run kept in `path()`, or keep the `count` rows of all `batches`.

    In memory, where they fit `memory_budget()`; else in that file, or without a path in one that
    goes with this process. Raises CannotKeep where the cache folder does not take them.
    """
    place = found = None
    if any(cache_folder().glob("*.npy")):  # else the path, which depends on all data, may wait
        place = path()
        found = place and find(place)
    if not processes.any(not found):  # each process has found them
        return found

    first = next(batches)
    batches = itertools.chain([first], batches)
    if not processes.any(first.itemsize * count > memory_budget()):
        return TrunkOutputs(np.concatenate([*batches]))
    place, found = place or path(), None
    if place and not processes.is_first_on_this_machine():
        for _ in batches:  # another process keeps them, and needs this one's share
            pass
    else:
        found = _in_file(place, batches, first.dtype, count)
    processes.barrier()
    return found or find(place)


def memory_budget() -> int:
    """Return how many bytes of outputs are kept in memory: a quarter of what is free.

    They are there twice while the batches are put together.
    """
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container may have less than the machine
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()) // 2)
    return free // 4 // processes.local_world_size()


# --- files ---------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return GOING_MODULAR_CACHE, or else a folder where the system keeps a user's caches."""
    chosen = os.environ.get("GOING_MODULAR_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("going_modular", False)


def _in_file(
    path: Path | None, batches: Iterator[np.ndarray], dtype: np.dtype, count: int
) -> TrunkOutputs:
    folder, size = cache_folder(), count * dtype.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, size)
        if path is None:
            return TrunkOutputs(_write(tempfile.TemporaryFile(dir=folder), batches, dtype, count))
        with replacing(path) as temporary, temporary.open("wb+") as file:
            _write(file, batches, dtype, count)
    except OSError as error:
        if path and (outputs := find(path)):  # another run wrote it meanwhile, and has it open
            return outputs
        raise CannotKeep(
            f"{size / 1e6:.3g} MB cannot be written to {folder} ({error}); the environment "
            "variable GOING_MODULAR_CACHE names another folder"
        ) from error
    return TrunkOutputs(np.load(path, mmap_mode="r"), path)


def _write(
    file: BinaryIO, batches: Iterator[np.ndarray], dtype: np.dtype, count: int
) -> np.ndarray:
    """Write an `.npy` file and return a map of its rows."""
    # Written, not mapped: a full disk is then an error and not the end of the process.
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_2_0(file, header)
    start = file.tell()
    for batch in batches:
        file.write(batch.view(np.uint8))
    file.flush()
    return np.memmap(file, dtype, "r", start, (count,))


def find(path: Path) -> TrunkOutputs | None:
    """Open what an earlier run wrote; None where there is nothing, or nothing whole."""
    try:
        rows = np.load(path, mmap_mode="r")
        os.utime(path)  # as used last, for _make_room
    except (OSError, ValueError, EOFError):
        return None
    return TrunkOutputs(rows, path, reused=True)


def _make_room(folder: Path, needed: int) -> None:
    """Remove what was used longest ago, so that half of the free disk is left to others."""
    for path in folder.glob(".*.npy.*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:  # by a run that crashed
            path.unlink(missing_ok=True)
    kept = {path: path.stat() for path in folder.glob("*.npy")}
    used = sum(stat.st_size for stat in kept.values())
    limit = (shutil.disk_usage(folder).free + used) // 2
    if needed > limit:
        raise OSError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {limit / 1e6:.3g} MB may be used"
        )
    for path in sorted(kept, key=lambda path: kept[path].st_mtime):
        if used + needed <= limit:
            break
        with contextlib.suppress(PermissionError):  # Windows, while another run reads it
            path.unlink(missing_ok=True)
            used -= kept[path].st_size
