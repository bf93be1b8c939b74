"""Seeds, device and precision, saving and loading, plots: what has nothing to do with any model."""

import contextlib
import glob
import os
import platform
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from going_modular import guard

CHECKPOINT_FORMAT = 2  # 1 had no "config"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# --- seeds, device, precision --------------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on all devices, so that two runs draw the same numbers."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def draws_random_numbers(dataset: Dataset, collate_fn: Callable = default_collate) -> bool:
    """Tell whether reading a batch draws random numbers, as an augmenting transform does."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        collate_fn([dataset[0], dataset[0]])  # MixUp, for one, is done to whole batches
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()
        return (
            not torch.equal(before[0], after[0])
            or before[1] != after[1]
            or not np.array_equal(before[2][1], after[2][1])
            or before[2][2] != after[2][2]
        )
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


def pick_device() -> torch.device:
    """Choose the fastest device present: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(device: torch.device | str) -> torch.dtype:
    """Choose the number format for matrix products: the fastest that `device` computes in hardware.

    bfloat16 or float16 on CUDA; bfloat16 on a processor that has its instructions; else float32.
    The environment variable GOING_MODULAR_PRECISION (float32, bfloat16, float16) overrides this.
    """
    chosen = os.environ.get("GOING_MODULAR_PRECISION")
    if chosen:
        if chosen not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise ValueError(f"GOING_MODULAR_PRECISION={chosen!r}: use one of {names}.")
        return PRECISIONS[chosen]
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    # PyTorch also emulates bfloat16, slower than float32, so its general "supported" will not do.
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(has and has())


def autocast(device: torch.device | str, dtype: torch.dtype) -> torch.autocast:
    """Run matrix products and convolutions in `dtype`; the rest stays in float32."""
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)


def to_device(data: Any, device: torch.device | str) -> Any:
    """Move a tensor, or a list or tuple of them, to `device`; images in channels_last order.

    channels_last is the layout in which convolutions run fastest on CPUs and recent GPUs.
    """
    if isinstance(data, (list, tuple)):
        return [to_device(item, device) for item in data]
    if data.ndim == 4 and torch.device(device).type != "mps":
        return data.to(device, memory_format=torch.channels_last, non_blocking=True)
    return data.to(device, non_blocking=True)


def model_to_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Move `model` to `device`, its convolution weights in channels_last order."""
    if torch.device(device).type == "mps":
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)


def is_offline() -> bool:
    """Tell whether the environment variable GOING_MODULAR_OFFLINE forbids downloads."""
    return os.environ.get("GOING_MODULAR_OFFLINE", "").upper() in ("1", "ON", "TRUE", "YES")


def is_watched() -> bool:
    """Tell whether somebody sees progress bars: in a notebook or a terminal, not in a log file.

    TQDM_DISABLE=1 says no; tqdm itself heeds it in a terminal only.
    """
    if os.environ.get("TQDM_DISABLE"):
        return False
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel") or sys.stderr.isatty()


def printable(name: object) -> str:
    """Write a file's name so that it stays one line and cannot steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


def shell_command(command: Sequence[object]) -> str:
    """Write a command as it can be typed here: quoted where needed, paths below here shortened."""
    words = [
        os.path.relpath(word) if Path(word).is_relative_to(Path.cwd()) else str(word)
        for word in command
    ]
    return printable(subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words))


def one_line(error: object, most: int = 200) -> str:
    """Write an error's message as one line that cannot steer the terminal, cut where it is long."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


# --- saving and loading --------------------------------------------------------------------------


def save_model(
    model: nn.Module,
    target_dir: str | Path,
    model_name: str,
    *,
    class_names: Sequence[str] | None = None,
    transform: ImageClassification | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Save `model` as `target_dir/model_name`, which ends in .pt or .pth, and return that path.

    With `class_names` and `transform` the file holds all that is needed to use the model again
    (see `load_checkpoint`); the model must come from `model_builder.create_model`, which notes its
    architecture. Without them it holds the state_dict alone.
    The file is written under a temporary name and then moved: a crash leaves the old one whole.
    """
    if not model_name.endswith((".pt", ".pth")):
        raise ValueError(f"model_name={model_name!r} should end with .pt or .pth.")
    content: dict[str, Any] = model.state_dict()
    if class_names is not None or transform is not None:
        content = _checkpoint(model, class_names, transform, metrics or {})
    path = Path(target_dir) / model_name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"{printable(path)} cannot be written ({reason}): what was there before still is; "
            "is the disk full?"
        ) from error
    return path


def _checkpoint(
    model: nn.Module,
    class_names: Sequence[str] | None,
    transform: ImageClassification | None,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    if class_names is None or transform is None:
        raise ValueError("Give both class_names and transform, or neither (state_dict alone).")
    architecture = getattr(model, "architecture", None)
    if architecture is None:
        raise ValueError(
            "The model does not say which architecture it is: build it with "
            "model_builder.create_model, or set model.architecture to torchvision's name for it."
        )
    return {
        "format": CHECKPOINT_FORMAT,
        "architecture": architecture,
        "config": dict(getattr(model, "config", {})),
        "class_names": list(class_names),
        "transform": describe_transform(transform),
        "metrics": dict(metrics),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        "state_dict": model.state_dict(),
    }


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there once the block has succeeded."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # Windows syncs no file that is open for reading only
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_half_written(path: Path) -> None:
    """Remove what `replacing` could not, where the process was killed; a lock on `path` stays."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix != ".lock":
            left.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file that `save_model` wrote with class names and transform; nothing in it is run.

    The keys: architecture, config (its constructor's arguments beside the number of classes),
    class_names, transform (ready to call), metrics, versions, state_dict.
    Raises FileNotFoundError, or ValueError for a file that is something else or damaged.
    """
    path = Path(path)
    name = printable(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file. Train first, or check the path.")
    try:
        outline = guard.outline(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{name} cannot be read as a saved model: it is damaged, or not a file of "
            f"utils.save_model ({one_line(error)})."
        ) from error
    needed = {"format", "architecture", "class_names", "transform", "state_dict"}
    if not isinstance(outline, dict) or not needed <= outline.keys():
        raise ValueError(
            f"{name} holds weights alone: save the model with class_names=... and transform=... "
            "so that it can be used without the code that made it."
        )
    number = outline["format"]
    if type(number) is not int or number not in range(1, CHECKPOINT_FORMAT + 1):
        shown = one_line(number) if type(number) is int else "unknown"
        raise ValueError(
            f"{name} has checkpoint format {shown}, and this version of going_modular reads "
            f"formats 1 to {CHECKPOINT_FORMAT}: use the version that wrote it."
        )
    for key in guard.wrong_values(outline):
        raise ValueError(
            f"{name} cannot be used: its {key} is not what utils.save_model writes. "
            "Ask for the file again where it comes from."
        )
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return {"config": {}, **checkpoint, "transform": build_transform(checkpoint["transform"])}


def describe_transform(transform: ImageClassification) -> dict[str, Any]:
    """Write down the preprocessing that `weights.transforms()` returns, as plain values."""
    if not isinstance(transform, ImageClassification):
        raise TypeError(
            f"Only the preprocessing of pretrained weights can be saved with a model, not "
            f"{type(transform).__name__}: pass what weights.transforms() or "
            "data_setup.create_transform() returns, without augmentation."
        )
    return {
        "resize_size": list(transform.resize_size),
        "crop_size": list(transform.crop_size),
        "mean": list(transform.mean),
        "std": list(transform.std),
        "interpolation": transform.interpolation.value,
        "antialias": transform.antialias,
    }


def build_transform(description: Mapping[str, Any]) -> ImageClassification:
    """Rebuild the preprocessing that `describe_transform` wrote down."""
    values = dict(description)
    values["interpolation"] = InterpolationMode(values["interpolation"])
    # The preset wraps sizes in a list of its own.
    values["resize_size"] = values["resize_size"][0]
    values["crop_size"] = values["crop_size"][0]
    return ImageClassification(**values)


# --- plots ---------------------------------------------------------------------------------------
# They draw with pyplot: a notebook shows the figure below the cell, `plt.savefig` keeps it.

# Okabe and Ito's palette: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def plot_curves(history: Mapping[str, Sequence[float]]) -> None:
    """Draw loss, accuracy and learning rate over the epochs, from the history of engine.train."""
    watched = "val" if "val_loss" in history else "test"
    epochs = range(1, len(history["train_loss"]) + 1)
    _, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axis, quantity, title in zip(axes, ("loss", "acc"), ("Loss", "Accuracy"), strict=False):
        axis.plot(epochs, history[f"train_{quantity}"], "o-", color=BLUE, label="train")
        if history.get(f"{watched}_{quantity}"):
            name = "validation" if watched == "val" else watched
            axis.plot(epochs, history[f"{watched}_{quantity}"], "s--", color=ORANGE, label=name)
        axis.set(title=title, xlabel="Epoch")
        axis.legend()
    axes[2].plot(epochs, history["lr"], "o-", color=GREEN)
    axes[2].set(title="Learning rate (largest)", xlabel="Epoch")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)


def plot_images(
    images: Sequence[Any],
    titles: Sequence[str],
    colors: Sequence[str] | None = None,
    columns: int = 6,
) -> None:
    """Draw PIL images or uint8 tensors (3, H, W) in a grid, a title above each."""
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns, 1.8 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    colors = colors or ["black"] * len(images)
    for axis, image, title, color in zip(axes.flat, images, titles, colors, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image)
        axis.set_title(title, fontsize=8, color=color, parse_math=False)  # $ is a name's own


def plot_predictions(
    images: Sequence[Any],
    labels: Sequence[int],
    probabilities: Tensor,
    class_names: Sequence[str],
    columns: int = 6,
) -> None:
    """Draw images with what the model says, its probability, and the truth where it is wrong.

    `probabilities` is (N, classes), row by row for `images`.
    """
    titles, colors = [], []
    for label, row in zip(labels, probabilities, strict=True):
        top = int(row.argmax())
        right = top == int(label)
        truth = "" if right else f"\nis {printable(class_names[label])}"
        titles.append(f"{printable(class_names[top])} {row[top]:.0%}{truth}")
        colors.append(BLUE if right else RED)
    plot_images(images, titles, colors, columns)
