"""Tell what this machine has for the notebooks, what is missing, and how long each will take.

`python -m going_modular.preflight`, or `preflight.show()` in a notebook. Where PyTorch itself is
missing, `python going_modular/preflight.py` still runs, and says so.
"""

from __future__ import annotations  # so that an old Python gets as far as to be told

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parent
LIST = PACKAGE.parent / "requirements.txt"  # in a checkout
# Measured from top to bottom on a machine with 2 cores and no GPU, whose speed is the one below.
NOTEBOOK_SECONDS = {"01": 41, "02": 69, "03": 87, "04": 129, "05": 35, "06": 53, "07": 76}
NOTEBOOK_SECONDS |= {"08": 50, "09": 32, "10": 36, "11": 58}
REFERENCE_SPEED = 70.0  # images per second, as `measure_speed` says on that machine
PYTHON = (3, 10)
GB = 10**9


class Machine(NamedTuple):
    """What the notebooks run on."""

    python: tuple[int, ...]
    versions: dict[str, str | None]  # of going_modular, torch and torchvision
    missing: list[str]  # requirements that are not met
    cores: int
    memory: float | None  # bytes, in all; None is unknown
    disk: float  # bytes, free in the current folder
    device: str
    precision: str  # of matrix products
    speed: float | None  # images per second; None without PyTorch


def show() -> None:
    """Measure for a second and print what was found."""
    print(report(look()))


def look(seconds: float = 1.0) -> Machine:
    """Find out about this machine; measure its speed where PyTorch is there."""
    own = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text("utf-8"))[1]
    libraries = {name: _version(name) for name in ("torch", "torchvision")}
    device, precision, speed = "unknown", "unknown", None
    if all(libraries.values()):
        from going_modular import utils

        device = utils.pick_device()
        precision = str(utils.pick_precision(device)).removeprefix("torch.")
        speed = measure_speed(seconds, device)
    return Machine(
        python=sys.version_info[:3],
        versions={"going_modular": own, **libraries},
        missing=missing(requirements()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory=_memory(),
        disk=shutil.disk_usage(Path.cwd()).free,
        device=str(device),
        precision=precision,
        speed=speed,
    )


def requirements() -> list[str]:
    """Return what requirements.txt lists in a checkout, else what the installed package needs."""
    if LIST.is_file():
        return [line for line in LIST.read_text("utf-8").splitlines() if re.match(r"\w", line)]
    return [line for line in metadata.requires("going-modular") if "extra ==" not in line]


def missing(lines: list[str]) -> list[str]:
    """Return the requirements that are not installed, or too old."""
    try:
        from packaging.requirements import Requirement  # comes with matplotlib
    except ImportError:
        return lines
    return [line for line in lines if not _is_met(Requirement(line))]


def _is_met(requirement: Any) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def measure_speed(seconds: float, device: object) -> float:
    """Return how many images per second the embedded network trains on here, at 96 pixels."""
    import torch
    from torchvision.models import get_model

    from going_modular import utils

    def step() -> None:
        with utils.autocast(device, precision):
            loss = model(images).float().square().mean()
        loss.backward()
        loss.item()  # waits for the GPU

    with torch.random.fork_rng():  # a lesson's random numbers are the same with and without this
        model = utils.model_to_device(get_model("efficientnet_lite0", num_classes=12), device)
        images = utils.to_device(torch.randn(16, 3, 96, 96), device)
        precision = utils.pick_precision(device)
        step()  # the first one is slow
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            step()
            steps += 1
        return steps * len(images) / (time.perf_counter() - start)


def problems(machine: Machine) -> Iterator[str]:
    """Say in words what is missing or too small, and what to do about it."""
    if machine.python < PYTHON:
        yield f"Python {_dotted(machine.python)} is too old: install {_dotted(PYTHON)} or newer."
    if machine.missing:
        named = " ".join(f'"{requirement}"' for requirement in machine.missing)
        what = f"-r {LIST.name}" if LIST.is_file() else named
        yield (
            f"Missing or too old: {', '.join(machine.missing)}. Install with: "
            f"python -m pip install {what}"
        )
    if machine.disk < GB:
        yield (
            f"Only {_gigabytes(machine.disk)} of disk space is free: make room for 1 GB, or "
            "downloads and saved models will not fit."
        )
    if machine.memory and machine.memory < 4 * GB:
        yield (
            f"Only {_gigabytes(machine.memory)} of memory: close other programs, and shut down "
            "a notebook before you open the next one."
        )
    if machine.cores == 1 and machine.device in ("unknown", "cpu"):
        yield "There is only one core: close other programs, and let each cell finish."


def report(machine: Machine) -> str:
    """Return the facts, the estimates and the problems as lines of text.

    The estimates assume that all of a notebook scales with training speed; with a GPU they promise
    too much.
    """
    versions = (f"{name} {version or 'missing'}" for name, version in machine.versions.items())
    lines = [
        f"versions    Python {', '.join([_dotted(machine.python), *versions])}",
        f"device      {machine.device}, {machine.precision}",
        f"cores       {machine.cores}",
        f"memory      {_gigabytes(machine.memory) if machine.memory else 'unknown'}",
        f"free disk   {_gigabytes(machine.disk)}",
    ]
    if machine.speed:
        factor = REFERENCE_SPEED / machine.speed
        times = (f"{name}: {_time(factor * s)}" for name, s in NOTEBOOK_SECONDS.items())
        lines += [
            f"speed       {machine.speed:.0f} images per second in training",
            "",
            "Each notebook takes about:",
            "   ".join(times),
        ]
    return "\n".join([*lines, "", *(list(problems(machine)) or ["Nothing is missing."])])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> float | None:
    try:
        import psutil  # comes with Jupyter
    except ImportError:
        return None
    return psutil.virtual_memory().total


def _gigabytes(size: float) -> str:
    return f"{size / GB:.1f} GB"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    sys.path[0] = str(PACKAGE.parent)  # instead of the package's folder, where this file was found
    show()
