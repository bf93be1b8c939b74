"""A training run's state on disk: what was interrupted goes on as if nothing had happened.

Knows models, optimizers and schedulers by their state_dicts, and random numbers. A state is written
whole before it takes the place of the one before, which stays beside it; both carry a checksum.
"""

import contextlib
import hashlib
import io
import os
import random
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, Sampler

from going_modular.training import cutting, processes
from going_modular.utils import draws_random_numbers, remove_half_written, replacing

FORMAT = 1
SHARE_OF_TIME = 0.05  # that saving may take, at most
DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """A file that follows a run: written after an epoch, and every `save_every` seconds within one.

    Less often, where saving would take more than a twentieth of the time.
    """

    def __init__(self, path: str | Path, save_every: float = 30.0) -> None:
        self.path, self.save_every = Path(path), save_every

    @property
    def before(self) -> Path:
        """The state before the last one, for the case that the last one is damaged."""
        return self.path.with_name(self.path.name + ".before")

    def remove(self) -> None:
        """Delete what was saved."""
        for path in (self.path, self.before):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from this file."""
        with locked(self.path.with_name(f".{self.path.name}.lock"), str(self.path)):
            remove_half_written(self.path)
            yield

    def read(self) -> bytes | None:
        """Return the newest state that is whole; None where there is none at all."""
        found = [path for path in (self.path, self.before) if path.exists()]
        for path in found:
            content = path.read_bytes()
            digest, state = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            if hashlib.sha256(state).digest() == digest:
                return state
            warnings.warn(f"{path} is damaged and is left out", stacklevel=2)
        if found:
            raise ValueError(f"{found[0]} is damaged: delete it to start from the beginning")
        return None

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state; where that fails, the ones before are still there."""
        content = io.BytesIO()
        torch.save(state, content)
        content = content.getvalue()
        try:
            with replacing(self.path) as temporary:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
                if self.path.exists():
                    os.replace(self.path, self.before)
        except OSError as error:
            kept = "the one before is still there" if self.path.exists() else "there was none yet"
            raise OSError(
                f"the state of the run cannot be written to {self.path} ({error}); {kept}: run it "
                "again when there is room"
            ) from error


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold `path`'s lock, which the system releases if the process is killed.

    Raises OSError, which calls it `what`, where another live run holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path).acquire(timeout=0):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows removes no open file
                    path.unlink(missing_ok=True)
    except Timeout:
        raise OSError(
            f"{what} is in use by another run, which is still going: wait for it, or choose "
            "another place"
        ) from None


# --- one call of engine.train --------------------------------------------------------------------


def describe(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: nn.Module,
    train_dataloader: DataLoader,
    watched: DataLoader | None,
) -> dict[str, object]:
    """Say what a run is, so that it does not go on as another one."""
    trained = cutting.trained_state(model)
    fixed = [value for name, value in model.state_dict().items() if name not in trained]
    about = {
        "model": f"{type(model).__name__} of {len(model.state_dict())} tensors",
        "trained part": [tuple(value.shape) for value in trained.values()],
        "frozen part": _digest(*map(_bytes, fixed)),
        "optimizer": type(optimizer).__name__,
        "loss": (type(loss_fn).__name__, cutting.settings(loss_fn)),
    }
    for name, loader in (("training", train_dataloader), ("validation", watched)):
        if loader is not None:
            about[f"{name} data"] = f"{len(loader.dataset)} examples in {len(loader)} batches"
            samples = getattr(loader.dataset, "samples", None)  # paths and labels, if it has files
            about[f"{name} files"] = _digest(repr(samples).encode())
    for number, group in enumerate(optimizer.param_groups, start=1):
        settings = {key: value for key, value in group.items() if key != "params"}
        about |= {f"{key} of parameter group {number}": v for key, v in settings.items()}
    return about


@contextlib.contextmanager
def follow(
    checkpoint: Checkpoint | str | Path | None,
    parts: Mapping[str, Any],
    seen: Any,
    dataloader: DataLoader,
    about: Mapping[str, object],
) -> Iterator["Run"]:
    """Bring `parts` to where an interrupted run left them, and write down where they get to.

    `seen` is what an epoch sums up, at its beginning. Raises ValueError where `about`, which says
    what the run is, differs from what it was; OSError where another run uses the file.
    """
    if checkpoint is None:
        yield Run(None, parts, seen, dataloader, about)
        return
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    with checkpoint.locked() if processes.is_main() else contextlib.nullcontext():
        run = Run(checkpoint, parts, seen, dataloader, about)
        state = processes.on_main(checkpoint.read)
        if state is not None:
            run.restore(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))
        yield run


class Run:
    """Where a training run is: its epoch, what that has `seen`, and all that training changes."""

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        parts: Mapping[str, Any],
        seen: Any,
        dataloader: DataLoader,
        about: Mapping[str, object],
    ) -> None:
        self.checkpoint, self.parts, self.seen = checkpoint, parts, seen
        self.generator = getattr(dataloader, "generator", None)
        self.about = {key: repr(value) for key, value in about.items()}
        self.epoch, self.resumed = 1, None
        self.saved_at, self.cost = time.monotonic(), 0.0
        self.whole_epochs = checkpoint is not None and _draws_in_workers(dataloader)

    def epochs(self, last: int) -> Iterator[int]:
        """Yield the numbers of the epochs that remain, and save after each."""
        while self.epoch <= last:
            self.started = time.perf_counter()
            if self.resumed:
                self.started -= self.resumed["seconds"]
            elif self.checkpoint:
                self.start = self._random_state()
            yield self.epoch
            self.epoch, self.seen, self.resumed = self.epoch + 1, type(self.seen)(), None
            if self.checkpoint and self.epoch > last:
                self._save()
            elif self.checkpoint:
                self._save_after(0)

    def greeting(self, last: int) -> str:
        """Say where the run goes on; nothing where it begins."""
        if self.resumed is None:
            return ""
        if self.epoch > last:
            return f"{self.checkpoint.path}: all {last} epochs were done before."
        batches = f", after batch {self.seen.batches}" if self.seen.batches else ""
        return f"{self.checkpoint.path}: going on with epoch {self.epoch}{batches}."

    def seconds(self) -> float:
        """Return how long this epoch has taken, without the time between two processes."""
        return time.perf_counter() - self.started

    def rest(self, dataloader: DataLoader) -> DataLoader:
        """Return a loader of the batches that this epoch has not seen; no others are read."""
        if self.resumed is None or not self.seen.batches:
            return dataloader
        rest = _Rest(processes.batches(dataloader), self.seen.batches, self.resumed["random"])
        dataset = dataloader.dataset
        if not isinstance(dataset, processes.Batches):  # which a share of them is already
            dataset = processes.Batches(dataloader)
        return processes.by_batches(dataloader, dataset, rest)

    def save_if_due(self) -> None:
        """Save within an epoch, if the last time is long enough ago."""
        if self.checkpoint and not self.whole_epochs:
            self._save_after(self.checkpoint.save_every)

    def _save_after(self, seconds: float) -> None:
        pause = max(seconds, self.cost / SHARE_OF_TIME) if self.checkpoint.save_every else 0
        due = time.monotonic() - self.saved_at >= pause
        if processes.all_reduce(due)[0]:
            self._save()

    def _save(self) -> None:
        start = time.monotonic()
        seen = self.seen.of_all_processes()
        if processes.is_main():
            now = self._random_state()
            state = {
                "format": FORMAT,
                "about": self.about,
                "epoch": self.epoch,
                "seen": vars(seen),
                "seconds": self.seconds() if seen.batches else 0.0,
                "start": self.start if seen.batches else now,
                "random": now,
                "parts": {name: _state_of(part) for name, part in self.parts.items()},
            }
            self.checkpoint.write(state)
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - start

    def restore(self, state: Mapping[str, Any]) -> None:
        """Bring everything to where `state` was saved."""
        self._compare(state)
        for name, part in self.parts.items():
            _load_into(part, state["parts"][name])
        self.epoch, self.resumed, self.start = state["epoch"], state, state["start"]
        self.seen = type(self.seen)(**state["seen"])
        if not processes.is_main():
            self.seen = self.seen.without_sums()
        _set_random_state(self.start, self.generator)

    def _compare(self, state: Mapping[str, Any]) -> None:
        path = self.checkpoint.path
        if state["format"] != FORMAT:
            raise ValueError(f"{path} was written by another version: delete it to start anew")
        for key, value in self.about.items():
            was = state["about"].get(key)
            if was != value:
                raise ValueError(
                    f"{path} holds the state of another run: its {key} was {was}, and now it is "
                    f"{value}. Go on with what it was, or choose another file"
                )

    def _random_state(self) -> dict[str, Any]:
        state = {
            "python": random.getstate(),
            "numpy": _plain(np.random.get_state()),
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state


class _Rest(Sampler):
    """The batches of a sampler after the first few; then the random numbers are as they were."""

    def __init__(self, sampler: Sampler, seen: int, state: Mapping[str, Any]) -> None:
        self.sampler, self.seen, self.state = sampler, seen, state

    def __len__(self) -> int:
        return len(self.sampler) - self.seen

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.sampler)
        for _ in range(self.seen):
            next(batches)
        _set_random_state(self.state)
        yield from batches


def _draws_in_workers(dataloader: DataLoader) -> bool:
    """Tell whether random numbers are drawn where their state cannot be seen."""
    if isinstance(dataloader.dataset, IterableDataset):
        return True
    indexed_by_batches = dataloader.batch_sampler is None
    if indexed_by_batches or not dataloader.num_workers:
        return False
    return draws_random_numbers(dataloader.dataset, dataloader.collate_fn)


def _set_random_state(state: Mapping[str, Any], generator: torch.Generator | None = None) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "generator" in state and generator is not None:
        generator.set_state(state["generator"])


def _plain(numpy_state: tuple) -> tuple:
    kind, keys, *rest = numpy_state
    return kind, torch.from_numpy(keys.astype(np.int64)), *rest


def _state_of(part: Any) -> Any:
    if part is None:
        return None
    if isinstance(part, nn.Module):
        return cutting.trained_state(part)
    if isinstance(part, dict):
        return dict(part)
    return part.state_dict() if hasattr(part, "state_dict") else vars(part)


def _load_into(part: Any, state: Any) -> None:
    if part is None:
        return
    if isinstance(part, nn.Module):
        part.load_state_dict(state, strict=False)  # what is frozen is there already
    elif isinstance(part, dict):
        part.update(state)
    elif hasattr(part, "load_state_dict"):
        part.load_state_dict(state)
    else:
        vars(part).update(state)


def _bytes(tensor: Tensor) -> Any:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()


def _digest(*contents: Any) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:12]
