"""The folder of a run: claimed for one live run, found again by its options, filled with results.

Knows options and files by their names; not what they mean to training.
"""

import contextlib
import csv
import itertools
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from going_modular import utils
from going_modular.training import processes, resuming
from going_modular.training.records import CARD, RECORD

MODEL, HISTORY, CURVES = "model.safetensors", "history.csv", "curves.png"
UNFINISHED = "unfinished.json"  # the options of a run, until its results are there
HEAD_STATE, STATE = "resume-head.pt", "resume.pt"  # where it is: training its head, or at last
# What may change when an interrupted run goes on: none of it changes the result.
MAY_DIFFER = {"given", "out", "overwrite", "resume", "workers", "device", "no_cache", "test"}
MAY_DIFFER |= {"like", "list_models", "tensorboard"}


@contextlib.contextmanager
def claimed(options: Namespace) -> Iterator[tuple[Path, Namespace]]:
    """Choose a run's folder and keep other runs from it; yield it, and the run's options.

    These are the options of an interrupted run, where it goes on. A run that fails before anything
    is worth keeping leaves nothing behind.
    Raises FileExistsError rather than touch an earlier run, FileNotFoundError where there is none
    to go on with, and OSError where one is going on.
    """
    if not processes.is_main():
        yield processes.broadcast(None)
        return
    found = _find_interrupted(options) if options.resume or processes.is_restarted() else None
    out, options = found or (options.out or _new_folder(options), options)
    lock = resuming.locked(out / ".lock", f"the run folder {utils.printable(out)}")
    with _removed_if_empty(out), lock:
        if found is None:
            _require_free(out, options.overwrite)
        if found is None or not _has_state(out):
            _begin(out, options)
        try:
            yield processes.broadcast((out, options))
        except BaseException:
            _leave(out)
            raise


def write_history(out: Path, stages: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write what was measured in each epoch as a table; a run has one stage or two."""
    names = list(dict.fromkeys(name for history in stages.values() for name in history))
    with utils.replacing(out / HISTORY) as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *names, "stage"])
        epoch = itertools.count(1)
        for stage, history in stages.items():
            for row in zip(*(history[name] for name in names), strict=True):
                writer.writerow([next(epoch), *row, stage])


def write_curves(out: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Draw loss and accuracy of each epoch."""
    with utils.replacing(out / CURVES) as path:
        utils.plot_curves(history)
        plt.savefig(path, dpi=120, format="png")
        plt.close()


def finish(out: Path) -> None:
    """Remove what only an interrupted run needs."""
    for name in (HEAD_STATE, STATE):
        (out / name).unlink(missing_ok=True)
    for name in (HEAD_STATE, STATE, MODEL, HISTORY, CURVES, RECORD, CARD, UNFINISHED):
        utils.remove_half_written(out / name)
    (out / UNFINISHED).unlink(missing_ok=True)  # the last: until it is gone, --resume cleans up


# --- where ---------------------------------------------------------------------------------------


def _find_interrupted(options: Namespace) -> tuple[Path, Namespace] | None:
    """Return the folder of the interrupted run that is meant, and its options.

    In --out, data may have another path than before: their content is compared later.
    """
    if options.out is None:
        files = Path("runs").glob(f"*/{UNFINISHED}")
    else:
        files = [file for file in [options.out / UNFINISHED] if file.exists()]
    for file in sorted(files, key=os.path.getmtime, reverse=True):
        was = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name in options.given if not _may_go_on(name, options, was)]
        if not other:
            now = {name: getattr(options, name) for name in MAY_DIFFER | {*options.given}}
            return file.parent, Namespace(**was | now)
        if options.out is not None:
            option = "--" + other[0].replace("_", "-")
            raise ValueError(
                f"{utils.printable(options.out)} was started with {option} {was.get(other[0])}, "
                f"not {getattr(options, other[0])}: leave {option} out to continue it, or give "
                "another --out to start a new run"
            )
    if processes.is_restarted():
        return None
    if options.out is None:
        raise FileNotFoundError(
            "runs/ holds no interrupted run that fits these options: name its folder with --out, "
            "or leave out --resume to start one"
        )
    state = "a finished run" if (options.out / MODEL).exists() else "no interrupted run"
    raise FileNotFoundError(
        f"{utils.printable(options.out)} holds {state}: there is nothing to continue"
    )


def _may_go_on(name: str, options: Namespace, was: Mapping[str, object]) -> bool:
    now = getattr(options, name)
    if name == "data":
        return options.out is not None or Path(now).resolve() == Path(was["data"]).resolve()
    return name in MAY_DIFFER or now == was.get(name)


def _new_folder(options: Namespace) -> Path:
    name = f"{Path(options.data).resolve().name}-{options.strategy}"
    folder, number = Path("runs", name), 1
    while folder.exists():
        number += 1
        folder = Path("runs", f"{name}-{number}")
    return folder


# --- beginning and leaving -----------------------------------------------------------------------


def _require_free(out: Path, overwrite: bool) -> None:
    if overwrite or all(path.name == ".lock" for path in out.iterdir()):
        return
    name = utils.printable(out)
    if (out / UNFINISHED).exists():
        raise FileExistsError(
            f"{name} holds an interrupted run: --resume continues it, --overwrite replaces it, "
            "another --out leaves it alone"
        )
    raise FileExistsError(
        f"{name} holds an earlier run: give another --out, or --overwrite to replace it"
    )


def _begin(out: Path, options: Namespace) -> None:
    finish(out)
    kept = {name: value for name, value in vars(options).items() if name not in MAY_DIFFER}
    with utils.replacing(out / UNFINISHED) as path:
        path.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _has_state(out: Path) -> bool:
    return any((out / name).exists() for name in (HEAD_STATE, STATE))


def _leave(out: Path) -> None:
    """Say how to continue an interrupted run, or remove what it wrote if it had not begun."""
    if not _has_state(out):
        finish(out)
        return
    words = [sys.executable, "-m", "going_modular.train", "--resume", "--out", out]
    print(
        f"\ntrain: finished epochs are kept; continue with: {utils.shell_command(words)}",
        file=sys.stderr,
    )


@contextlib.contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Leave none of the folders behind that are missing now, unless something is in them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # it holds something, or is not there
                path.rmdir()
