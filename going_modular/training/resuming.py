"""A run's resume state on disk: after an interruption it goes on from the last finished epoch.

Knows models, optimizers and schedulers by their state_dicts, and random numbers; not what an epoch
does.
"""

import contextlib
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import DatasetFolder

from going_modular.training import cutting, processes
from going_modular.training.identity import digest, fingerprint
from going_modular.utils import one_line, printable, remove_half_written, replacing

FORMAT = 3  # of the file, counted up where an older one cannot be gone on with

# --- what a run is -------------------------------------------------------------------------------


def describe(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    loss_fn: nn.Module,
    train_dataloader: DataLoader,
    val_dataloader: DataLoader | None,
) -> dict[str, object]:
    """Say what a run is, so that it does not go on as another one.

    Data are the same where labels and contents are, wherever the files lie.
    """
    trained = cutting.trained_state(model)
    fixed = [value for name, value in model.state_dict().items() if name not in trained]
    about = {
        "model": f"{type(model).__name__} of {len(model.state_dict())} tensors",
        "trained part": [tuple(value.shape) for value in trained.values()],
        "frozen part": digest(fixed),
        "optimizer": type(optimizer).__name__,
        "scheduler": type(scheduler).__name__,
        "loss": (type(loss_fn).__name__, cutting.settings(loss_fn)),
    }
    for name, loader in (("training", train_dataloader), ("validation", val_dataloader)):
        if loader is not None:
            with contextlib.suppress(TypeError):  # a stream has no length
                about[f"{name} data"] = f"{len(loader.dataset)} examples in {len(loader)} batches"
            about[f"content of the {name} data"] = _content(loader.dataset)
    for number, group in enumerate(optimizer.param_groups, start=1):
        settings = {key: value for key, value in group.items() if key != "params"}
        about |= {f"{key} of parameter group {number}": v for key, v in settings.items()}
    return about


def _content(dataset: Dataset) -> str | None:
    """Return a hash of all examples in their order; None where their number must do."""
    if isinstance(dataset, DatasetFolder):  # of torchvision, and its ImageFolder
        files = (Path(path).read_bytes() for path, _ in dataset.samples)
        return digest(itertools.chain([dataset.targets], files))
    if (found := fingerprint(dataset)) is None and hasattr(dataset, "content_key"):
        return dataset.content_key()  # where a transform cannot be told
    return found


# --- following a run -----------------------------------------------------------------------------


@contextlib.contextmanager
def follow(
    path: str | Path | None, parts: Mapping[str, Any], about: Mapping[str, object]
) -> Iterator["Run"]:
    """Bring `parts` to where an interrupted run left them in `path`, which then follows the run.

    Each of them has a state_dict, or is a dict, a random generator or None.
    On one process the result is that of an uninterrupted run, bit for bit; not so with
    `persistent_workers`, whose random numbers nobody sees. Without a `path` nothing is saved.

    Raises ValueError where `about`, which says what the run is, differs from what it was, or where
    the file holds no resume state; OSError where another live run uses it, or the disk is full.
    """
    written = {key: repr(value) for key, value in about.items()}
    run = Run(path and Path(path), parts, written)
    if path is None:
        yield run
        return
    main, lock = processes.is_main(), run.path.with_name(f".{run.path.name}.lock")
    with locked(lock, printable(path)) if main else contextlib.nullcontext():
        state = processes.broadcast(run.read() if main else None)
        if state is not None:
            run.restore(state)
        yield run


@dataclass
class Run:
    """Where a training run is: its next epoch, and all that training changes."""

    path: Path | None
    parts: Mapping[str, Any]
    about: Mapping[str, str]
    epoch: int = 1

    def greeting(self, epochs: int) -> str:
        """Say where the run goes on; nothing where it begins."""
        if self.epoch == 1:
            return ""
        if self.epoch > epochs:
            return f"{printable(self.path)}: all {epochs} epochs are already done."
        return f"{printable(self.path)}: continuing with epoch {self.epoch}."

    def finish_epoch(self) -> None:
        """Count an epoch as done, and save all that it has changed."""
        self.epoch += 1
        if self.path is not None and processes.is_main():
            self._save()

    def read(self) -> dict[str, Any] | None:
        """Return the state that is there, None where there is none; nothing in it is run."""
        remove_half_written(self.path)
        if not self.path.exists():
            return None
        name = printable(self.path)
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # what a damaged file leads torch's reader to
            raise ValueError(
                f"{name} cannot be read as a resume state ({one_line(error)}): to start afresh, "
                "move it away or choose another file"
            ) from error
        if not isinstance(state, dict) or state.get("resume state") != FORMAT:
            raise ValueError(
                f"{name} holds something else, or the resume state of another version of "
                "going_modular: continue with that version, or choose another file"
            )
        for key, value in self.about.items():
            was = state["about"].get(key)
            if was != value:
                raise ValueError(
                    f"{name} holds the state of another run: its {key} was {was} and is now "
                    f"{value}. Continue with what it was, or choose another file"
                )
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Bring everything to where `state` was saved."""
        for name, part in self.parts.items():
            _load_into(part, state["parts"][name])
        self.epoch = state["epoch"]
        _set_random_state(state["random"])

    def _save(self) -> None:
        state = {
            "resume state": FORMAT,
            "about": self.about,
            "epoch": self.epoch,
            "random": _random_state(),
            "parts": {name: _state_of(part) for name, part in self.parts.items()},
        }
        try:
            with replacing(self.path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
            kept = "; the one before is still there" if self.path.exists() else ""
            raise OSError(
                f"the resume state cannot be written to {printable(self.path)} "
                f"({one_line(error)}): is the disk full?{kept}"
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
            f"{what} is in use by another run that is still going: wait for it to end, or choose "
            "another place"
        ) from None


# --- the parts, and random numbers ---------------------------------------------------------------


def _state_of(part: Any) -> Any:
    if isinstance(part, nn.Module):
        return cutting.trained_state(part)  # what is frozen is there when the run goes on
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, dict):
        return dict(part)
    return None if part is None else part.state_dict()


def _load_into(part: Any, state: Any) -> None:
    if part is None or state is None:
        return
    if isinstance(part, nn.Module):
        part.load_state_dict(state, strict=False)
    elif isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, dict):
        part.update(state)
    else:
        part.load_state_dict(state)


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),  # arrays are not read with weights_only=True
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state, device)
