"""Seeds, device and precision, saving and loading, plots: what has nothing to do with any model."""

import contextlib
import functools
import glob
import os
import random
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as images
from torchvision.transforms._presets import ImageClassification

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# --- seeds, device, precision --------------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on all devices, so that two runs draw the same numbers."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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


@contextlib.contextmanager
def autocast(device: torch.device | str, dtype: torch.dtype) -> Iterator[None]:
    """Run matrix products and convolutions in `dtype`; the rest stays in float32.

    So do depthwise convolutions that train on a CPU: bfloat16 slows them down, and three blocks of
    EfficientNet-Lite0 train in 0.78 of the time.
    """
    kind = torch.device(device).type
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(kind, dtype, enabled=dtype != torch.float32))
        if kind == "cpu" and dtype != torch.float32 and torch.is_grad_enabled():
            stack.enter_context(_DepthwiseInFloat32())
        yield


class _DepthwiseInFloat32(TorchFunctionMode):
    """One more operation on autocast's own list of those that stay in float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not F.conv2d or not _is_depthwise(*args, **kwargs):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            args = [a.float() if isinstance(a, Tensor) else a for a in args]
            kwargs = {k: a.float() if isinstance(a, Tensor) else a for k, a in kwargs.items()}
            return function(*args, **kwargs)


def _is_depthwise(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    return groups == input.shape[1] > 1


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


def data_folder() -> Path:
    """Return the folder of the data that comes along: in the installed package, or the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


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
    class_names: Iterable[Any] | None = None,
    transform: ImageClassification | None = None,
    metrics: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Save `model` in the folder `target_dir`, and return the file's path.

    Alone, it is the state_dict, as `torch.save` writes it; `model_name` ends in .pt or .pth.
    With `class_names` and `transform` it is all that `model_builder.load_model` needs, for a model
    of `model_builder.create_model`; .safetensors takes the place of .pt or .pth in the name. The
    file keeps `metrics`, numbers by name, and `training`: what is worth knowing about how it
    was trained.

    Raises ValueError where the model could not be loaded again, before anything is written. The
    file is written under a temporary name and then moved: a crash leaves the old one whole.
    """
    model, path = unwrap(model), Path(target_dir) / model_name
    if all(item is None for item in (class_names, transform, metrics, training)):
        if path.suffix not in (".pt", ".pth"):
            raise ValueError(
                f"model_name={model_name!r} should end with .pt or .pth, which hold weights alone. "
                "With class_names=... and transform=... the file is .safetensors."
            )
        write = functools.partial(torch.save, model.state_dict())
    elif class_names is None or transform is None:
        raise ValueError("Give both class_names and transform, or neither (state_dict alone).")
    elif not hasattr(model, "blueprint"):
        raise ValueError(
            "The model does not say how to build it again: build it with model_builder."
            "create_model, or save its state_dict alone, without class_names and transform."
        )
    else:
        # The blueprint brings the code that knows saved models; this module knows none.
        tensors, header = model.blueprint.pack(
            model, class_names, transform, metrics or {}, training or {}
        )
        write = functools.partial(save_file, tensors, metadata=header)
        known = path.suffix in (".pt", ".pth", ".safetensors")
        path = path.with_name(f"{path.stem if known else path.name}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError, SafetensorError) as error:  # the writers' own, on a full disk
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"{printable(path)} cannot be written ({reason}): an earlier file there is unchanged; "
            "is the disk full?"
        ) from error
    return path


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model that torch.compile, AveragedModel or DistributedDataParallel wrapped."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, wrappers) else model._orig_mod
    return model


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there once the block has succeeded."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb+") as file:  # Windows syncs no file that is open for reading only
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors lets nobody but the owner read its files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_half_written(path: Path) -> None:
    """Remove what `replacing` could not, where the process was killed; a lock on `path` stays."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix != ".lock":
            left.unlink(missing_ok=True)


class Padded(ImageClassification):
    """The preprocessing of pretrained weights for an image that is padded to a square first."""

    def forward(self, image: Any) -> Tensor:
        return super().forward(self.pad(image))

    @property
    def bar_color(self) -> tuple[int, ...]:
        return tuple(round(255 * channel) for channel in self.mean)

    def pad(self, image: Image.Image) -> Image.Image:
        """Put bars of the weights' mean colour on both sides of what is not square."""
        _, height, width = images.get_dimensions(image)
        across, down = max(height - width, 0), max(width - height, 0)
        bars = [across // 2, down // 2, across - across // 2, down - down // 2]
        return images.pad(image, bars, self.bar_color)


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
        **({"pad": True} if isinstance(transform, Padded) else {}),
    }


def build_transform(description: Mapping[str, Any]) -> ImageClassification:
    """Rebuild the preprocessing that `describe_transform` wrote down."""
    values = dict(description)
    values["interpolation"] = InterpolationMode(values["interpolation"])
    # The preset wraps sizes in a list of its own.
    resize_size, values["resize_size"] = list(values["resize_size"]), values["resize_size"][0]
    values["crop_size"] = values["crop_size"][0]
    transform = Padded(**values) if values.pop("pad", False) else ImageClassification(**values)
    transform.resize_size = resize_size  # two sizes squash
    return transform


# --- plots ---------------------------------------------------------------------------------------
# They draw with pyplot: a notebook shows the figure below the cell, `plt.savefig` keeps it.

# Okabe and Ito's palette: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
CURVES = [
    ("train", "train", "o-", BLUE),
    ("val", "validation", "s--", ORANGE),
    ("test", "test", "^:", RED),
]


def plot_curves(history: Mapping[str, Sequence[float]]) -> None:
    """Draw loss, accuracy and, where it changes, the learning rate over the epochs.

    Keys: train_loss and train_acc, the same of "val" or "test" or both, and "lr".
    """
    rates = history.get("lr", ())
    rate_changes = len(set(rates)) > 1
    columns = 3 if rate_changes else 2
    _, axes = plt.subplots(1, columns, figsize=(3.7 * columns, 3), layout="constrained")
    for axis, quantity, title in zip(axes, ("loss", "acc"), ("Loss", "Accuracy"), strict=False):
        for split, name, style, color in CURVES:
            values = history.get(f"{split}_{quantity}", ())
            if len(values):
                axis.plot(range(1, len(values) + 1), values, style, color=color, label=name)
        axis.set_title(title)
        axis.legend()
    if rate_changes:
        axes[2].plot(range(1, len(rates) + 1), rates, "o-", color=GREEN)
        axes[2].set_title("Learning rate (largest)")
    for axis in axes:
        axis.set_xlabel("Epoch")
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
    drawn = zip(images, titles, colors or ["black"] * len(images), strict=True)
    for axis, (image, title, color) in zip(axes.flat, drawn, strict=False):
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
