"""What a frozen trunk gave for a data set: in memory, or in a file that a later run reads.

Knows tensors, bytes and a folder; not which model or which pictures they come from.
"""

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from going_modular.utils import replacing

Batch = tuple[list[Tensor], Tensor]  # what a trunk gave for some pictures, and their labels

FORMAT = 1  # to be raised when what is computed or written changes
SUFFIX = ".outputs"
HEADER_BYTES = 4096
ABANDONED_SECONDS = 24 * 3600  # since the last write to a temporary file


def cache_folder() -> Path:
    """Return GOING_MODULAR_CACHE, or else a folder where the system keeps a user's caches."""
    chosen = os.environ.get("GOING_MODULAR_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "going_modular")


@dataclass(frozen=True)
class _Tensors:
    """Many tensors of one form: of the values of one node, or of the labels."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def like(cls, batch: Tensor) -> "_Tensors":
        shape = tuple(batch.shape[1:])
        # In memory channels come last: the tail's convolutions need not reorder them.
        return cls((*shape[1:], shape[0]) if len(shape) == 3 else shape, batch.dtype)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def to_rows(self, batch: Tensor) -> np.ndarray:
        """Return the bytes of (B, ...) tensors, as (B, bytes)."""
        batch = batch.permute(0, 2, 3, 1) if batch.ndim == 4 else batch
        return batch.contiguous().view(len(batch), -1).view(torch.uint8).numpy()

    def from_rows(self, rows: np.ndarray) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(rows)).view(self.dtype)
        batch = batch.view(len(rows), *self.shape)
        return batch.permute(0, 3, 1, 2) if batch.ndim == 4 else batch

    def describe(self) -> dict:
        return {"shape": self.shape, "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def of(cls, description: dict) -> "_Tensors":
        return cls(tuple(description["shape"]), getattr(torch, description["dtype"]))


@dataclass(frozen=True)
class Layout:
    """Of each picture the values, one after the other, make a row; the labels come after all."""

    pictures: int
    values: tuple[_Tensors, ...]
    labels: _Tensors

    @classmethod
    def of_batch(cls, batch: Batch, pictures: int) -> "Layout":
        values, labels = batch
        if any(value.shape[:1] != labels.shape[:1] for value in values):
            raise ValueError("the tensors do not have one row per picture")
        return cls(pictures, tuple(map(_Tensors.like, values)), _Tensors.like(labels))

    @property
    def row_bytes(self) -> int:
        return sum(tensors.bytes for tensors in self.values)

    @property
    def rows_bytes(self) -> int:
        return self.pictures * self.row_bytes

    def to_rows(self, values: Sequence[Tensor]) -> np.ndarray:
        parts = [tensors.to_rows(v) for tensors, v in zip(self.values, values, strict=True)]
        return np.concatenate(parts, axis=1)

    def from_rows(self, rows: np.ndarray) -> list[Tensor]:
        ends = np.cumsum([tensors.bytes for tensors in self.values])[:-1]
        parts = np.split(rows, ends, axis=1)
        return [tensors.from_rows(part) for tensors, part in zip(self.values, parts, strict=True)]

    def empty_labels(self) -> np.ndarray:
        """Make room for all labels at once, as (pictures, bytes).

        Small tensors that are kept batch by batch would lie between the large ones that are not,
        and the memory of these could not be used again: 2 GB for 25,000 pictures of 96 pixels.
        """
        return np.empty((self.pictures, self.labels.bytes), np.uint8)

    def header(self, key: str) -> bytes:
        content = {
            "format": FORMAT,
            "key": key,
            "pictures": self.pictures,
            "values": [tensors.describe() for tensors in self.values],
            "labels": self.labels.describe(),
        }
        return json.dumps(content).encode().ljust(HEADER_BYTES)


class TrunkOutputs(Dataset):
    """What a trunk made of a data set, in its order; indexed by a list, it gives a batch.

    `rows` are in memory, or `file` holds them; `path` names it where a later run can find it, and
    `reused` tells that an earlier run wrote it.
    """

    def __init__(
        self,
        layout: Layout,
        labels: Tensor,
        rows: np.ndarray | None = None,
        file: BinaryIO | None = None,
        path: Path | None = None,
        reused: bool = False,
    ) -> None:
        self.layout, self.labels, self.rows, self.file = layout, labels, rows, file
        self.path, self.reused = path, reused

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        rows = self._map() if self.rows is None else self.rows
        values = self.layout.from_rows(np.take(rows, indices, axis=0))
        return values, self.labels[torch.as_tensor(indices)]

    def _map(self) -> np.ndarray:
        # Anew for each batch: what one mapping has touched stays in the process's memory.
        shape = (self.layout.pictures, self.layout.row_bytes)
        return np.asarray(np.memmap(self.file, np.uint8, "r", HEADER_BYTES, shape))


def into_memory(layout: Layout, batches: Iterable[Batch]) -> TrunkOutputs:
    """Keep the outputs of all batches in memory."""
    rows = np.empty((layout.pictures, layout.row_bytes), np.uint8)
    labels, start = layout.empty_labels(), 0
    for values, batch_labels in batches:
        stop = start + len(batch_labels)
        rows[start:stop] = layout.to_rows(values)
        labels[start:stop] = layout.labels.to_rows(batch_labels)
        start = stop
    return TrunkOutputs(layout, layout.labels.from_rows(labels), rows=rows)


def into_file(
    path: Path | None, folder: Path, layout: Layout, batches: Iterable[Batch]
) -> TrunkOutputs:
    """Write the outputs to `path`, or without one to a file that goes when it is closed.

    Raises OSError where `folder` cannot take them; what was there before is then unharmed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, layout.rows_bytes)
        if path is None:
            file = tempfile.TemporaryFile(dir=folder)
            labels = _write(file, layout, "", batches)
            return TrunkOutputs(layout, labels, file=file)
        with replacing(path) as temporary, temporary.open("wb") as file:
            _write(file, layout, path.stem, batches)
    except OSError as error:
        if path and (outputs := open_file(path)):  # another run wrote it meanwhile, and has it open
            return outputs
        raise OSError(
            f"{layout.rows_bytes / 1e6:.3g} MB cannot be written to {folder} ({error}); "
            "the environment variable GOING_MODULAR_CACHE names another folder"
        ) from error
    outputs = open_file(path)
    if outputs is None:
        raise OSError(f"{path} was removed as soon as it was written")
    outputs.reused = False
    return outputs


def _write(file: BinaryIO, layout: Layout, key: str, batches: Iterable[Batch]) -> Tensor:
    # Written, not mapped: a full disk is then an error and not the end of the process.
    file.write(layout.header(key))
    labels, start = layout.empty_labels(), 0
    for values, batch_labels in batches:
        stop = start + len(batch_labels)
        file.write(layout.to_rows(values))
        labels[start:stop] = layout.labels.to_rows(batch_labels)
        start = stop
    file.write(labels)
    file.flush()
    return layout.labels.from_rows(labels)


def open_file(path: Path) -> TrunkOutputs | None:
    """Open what an earlier run wrote; None where there is nothing, or nothing whole."""
    try:
        file = path.open("rb")
        content = json.loads(file.read(HEADER_BYTES))
        if (content["format"], content["key"]) != (FORMAT, path.stem):
            return None
        values = tuple(map(_Tensors.of, content["values"]))
        layout = Layout(content["pictures"], values, _Tensors.of(content["labels"]))
        file.seek(layout.rows_bytes, os.SEEK_CUR)
        expected = layout.pictures * layout.labels.bytes
        labels = file.read()
        if len(labels) != expected:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # as used last, for _make_room
    labels = np.frombuffer(labels, np.uint8).reshape(layout.pictures, -1).copy()
    return TrunkOutputs(layout, layout.labels.from_rows(labels), file=file, path=path, reused=True)


def _make_room(folder: Path, needed: int) -> None:
    """Remove what was used longest ago, so that half of the free disk is left to others."""
    for path in folder.glob(f".*{SUFFIX}.*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:  # by a run that crashed
            path.unlink(missing_ok=True)
    kept = {path: path.stat() for path in folder.glob(f"*{SUFFIX}")}
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
