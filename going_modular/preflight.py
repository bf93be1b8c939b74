"""Tell what this machine has for the notebooks, what is missing, and how long each will take.

`python -m going_modular.preflight`, or `preflight.show()` in a notebook. Where PyTorch itself is
missing, `python going_modular/preflight.py` still runs, and says so.
"""

import os
import re
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent
LIST = PACKAGE.parent / "requirements.txt"  # in a checkout
# Measured from top to bottom on a machine with 2 cores and no GPU, whose speed is the one below.
NOTEBOOK_SECONDS = {"01": 40, "02": 75, "03": 65, "04": 80, "05": 54, "06": 60, "07": 69}
NOTEBOOK_SECONDS |= {"08": 44, "09": 29}
REFERENCE_SPEED = 75.0  # images a second, as `measure_speed` says on that machine
PYTHON = (3, 10)
GB = 10**9


class Machine(NamedTuple):
    """What the notebooks run on. What cannot be found out is None."""

    python: tuple[int, ...]
    versions: dict[str, str]  # of going_modular, torch and torchvision, as far as they are there
    missing: list[str]  # requirements that are not met
    cores: int
    memory: float | None  # bytes, in all
    disk: float  # bytes, free in the current folder
    device: str | None = None
    precision: str | None = None  # of matrix products
    speed: float | None = None  # images a second


def show() -> None:
    """Measure for a second and print what was found."""
    print(report(look()))


def look(seconds: float = 1.0) -> Machine:
    """Find out about this machine; measure its speed where PyTorch is there."""
    own = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text("utf-8"))[1]
    libraries = {name: _version(name) for name in ("torch", "torchvision")}
    machine = Machine(
        python=sys.version_info[:3],
        versions={"going_modular": own} | {name: v for name, v in libraries.items() if v},
        missing=missing(requirements()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory=_memory(),
        disk=shutil.disk_usage(Path.cwd()).free,
    )
    if None in libraries.values():
        return machine
    from going_modular import utils

    device = utils.pick_device()
    precision = str(utils.pick_precision(device)).removeprefix("torch.")
    return machine._replace(
        device=str(device), precision=precision, speed=measure_speed(seconds, device)
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
        Requirement = None  # so nearly everything is missing, and versions do not matter
    found = []
    for line in lines:
        version = _version(re.match(r"[\w.-]+", line)[0])
        if version is None or (
            Requirement and not Requirement(line).specifier.contains(version, prereleases=True)
        ):
            found.append(line)
    return found


def measure_speed(seconds: float, device: object) -> float:
    """Return how many images a second the embedded network trains on here, at 96 pixels."""
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


def estimate(speed: float) -> dict[str, float]:
    """Return each notebook's seconds on a machine that trains on `speed` images a second.

    It takes all of a notebook to scale with training, so beside a GPU it promises too much.
    """
    return {name: s * REFERENCE_SPEED / speed for name, s in NOTEBOOK_SECONDS.items()}


def problems(machine: Machine) -> list[str]:
    """Say in words what is missing or too small, and what to do about it."""
    found = []
    if machine.python < PYTHON:
        found.append(
            f"Python {_dotted(machine.python)} is too old: install {_dotted(PYTHON)} or newer."
        )
    if machine.missing:
        named = " ".join(f'"{requirement}"' for requirement in machine.missing)
        what = f"-r {LIST.name}" if LIST.is_file() else named
        found.append(
            f"Missing or too old: {', '.join(machine.missing)}. Install with: "
            f"python -m pip install {what}"
        )
    if machine.disk < GB:
        found.append(
            f"Only {_gigabytes(machine.disk)} of disk are free: make room for 1 GB, or downloads "
            "and saved models will not fit."
        )
    if machine.memory is not None and machine.memory < 4 * GB:
        found.append(
            f"Only {_gigabytes(machine.memory)} of memory: close other programs, and shut down "
            "a notebook before you open the next one."
        )
    if machine.cores == 1 and machine.device in (None, "cpu"):
        found.append("There is only one core: close other programs, and let each cell finish.")
    return found


def report(machine: Machine) -> str:
    """Return the facts, the estimates and the problems as lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines = [
        f"versions    Python {_dotted(machine.python)}, {versions}",
        f"device      {machine.device or 'unknown'}, {machine.precision or 'unknown precision'}",
        f"cores       {machine.cores}",
        f"memory      {'unknown' if machine.memory is None else _gigabytes(machine.memory)}",
        f"free disk   {_gigabytes(machine.disk)}",
    ]
    if machine.speed:
        times = estimate(machine.speed).items()
        lines += [
            f"speed       {machine.speed:.0f} images a second in training",
            "",
            "Each notebook takes about:",
            "   ".join(f"{name}: {_time(seconds)}" for name, seconds in times),
        ]
    return "\n".join([*lines, "", *(problems(machine) or ["Nothing is missing."])])


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
