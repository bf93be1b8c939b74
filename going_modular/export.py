"""Turn a trained model into files for use without this package, and check and time them.

`python -m going_modular.export runs/NAME/model.safetensors` writes model.pt2 (torch.export),
model.onnx, and preprocessing.json, which tells a program in any language what to do with an image.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from going_modular import data_setup, model_builder, utils
from going_modular.models import onnx

PROGRAM, ONNX, PREPROCESSING = FILES = ("model.pt2", "model.onnx", "preprocessing.json")
BATCH = 32


class Comparison(NamedTuple):
    """One format's size, speed, and distance from the PyTorch model in memory."""

    format: str
    file: str
    megabytes: float
    milliseconds: float  # for one image, the median of many runs
    images_per_second: float  # in batches of 32
    same_class: int
    total: int
    largest_difference: float  # of any probability of any image


# --- writing -------------------------------------------------------------------------------------


def export_model(
    model: nn.Module,
    transform: ImageClassification,
    class_names: Sequence[str],
    folder: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write model.pt2, model.onnx and preprocessing.json into `folder`, and return it.

    Both models map float32 images (N, 3, H, W), prepared by `transform`, to logits (N, classes);
    N is free, H and W are the transform's. `model` itself stays as it is.

    Raises FileExistsError rather than replace a file, and ImportError where packages are missing.
    """
    folder = Path(folder)
    if missing := onnx.missing_packages():
        raise ModuleNotFoundError(f"Export needs packages: run `pip install {' '.join(missing)}`.")
    taken = [str(folder / name) for name in FILES if (folder / name).exists()]
    if taken and not overwrite:
        files = ", ".join(taken)
        raise FileExistsError(
            f"{files}: exported already. Give another folder with --out, or --overwrite."
        )
    description = describe_preprocessing(transform, class_names)
    folder.mkdir(parents=True, exist_ok=True)
    # Written beside their places and then moved: a crash leaves no half of a file.
    with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as temporary:
        _write_models(model, transform.crop_size[0], Path(temporary))
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        Path(temporary, PREPROCESSING).write_text(text, encoding="utf-8")
        for path in Path(temporary).iterdir():  # beyond 2 GB, ONNX keeps its weights in one more
            os.replace(path, folder / path.name)
    return folder


def _write_models(model: nn.Module, size: int, folder: Path) -> None:
    program = onnx.trace(model, size)
    torch.export.save(program, folder / PROGRAM)
    onnx.write(program, folder / ONNX)


def describe_preprocessing(
    transform: ImageClassification, class_names: Sequence[str]
) -> dict[str, Any]:
    """Say in words and numbers what turns an image into the model's input, and logits into a class.

    The words are exact: a program that follows them gets what `transform` gives, to the last bit of
    the 8-bit pixels.
    """
    values = utils.describe_transform(transform)
    resize, (crop,) = values["resize_size"][0], values["crop_size"]
    filter_ = values["interpolation"]
    how = (
        f"Filter: {filter_}, as in Pillow: antialiased, that is, its support grows with the factor "
        "of reduction; for bicubic, a = -0.5. Round to 8 bits."
    )
    to_square = [
        f"Resize it so that its shorter side has {resize} pixels (resize_size); the longer one "
        f"gets floor({resize} * longer / shorter). {how}",
        f"Cut out the central square of {crop} pixels (crop_size). Its left edge is at "
        f"(width - {crop}) / 2, its top edge at (height - {crop}) / 2, halves rounded to the "
        f"even number. An image smaller than {crop} pixels is first padded with black, on "
        "each side with half of what is missing, an odd pixel at the right and bottom.",
    ]
    fit = {}
    if len(values["resize_size"]) == 2:  # nothing is cut off
        fit = {"resize": "squash"}
        to_square = [f"Resize it to {resize} x {resize} pixels, whatever its shape. {how}"]
    if isinstance(transform, utils.Padded):
        fit = {"resize": "pad", "bar_color": list(transform.bar_color)}
        to_square.insert(
            0,
            f"Put bars of the colour {transform.bar_color} beside it or above and below, on each "
            "side half of what it lacks to a square, an odd pixel at the right or the bottom.",
        )
    return {
        "class_names": list(class_names),
        "steps": [
            "Decode the image to 8-bit RGB, upright as its EXIF orientation says, transparent "
            "pixels over white.",
            *to_square,
            "Divide by 255.",
            "Subtract mean and divide by std, channel by channel.",
            "Order as (batch, channel, row, column), float32.",
            "The model gives logits (batch, class); the softmax over classes gives probabilities, "
            "in the order of class_names.",
        ],
        **(fit or {"resize": "crop"}),
        "resize_size": resize,
        "crop_size": crop,
        "interpolation": filter_,
        "antialias": True,  # Pillow always does, whatever the transform says
        "mean": values["mean"],
        "std": values["std"],
        "input": {"name": "images", "shape": ["batch", 3, crop, crop], "type": "float32"},
        "output": {"name": "logits", "shape": ["batch", len(class_names)], "type": "float32"},
    }


# --- checking and timing -------------------------------------------------------------------------


def compare(model: nn.Module, folder: str | Path, images: Tensor) -> list[Comparison]:
    """Run the model and its files in `folder` on `images` (N, 3, H, W), on the CPU in float32.

    One row for PyTorch, torch.export and ONNX Runtime each, timed with as many threads as
    PyTorch has.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    program, graph = Path(folder, PROGRAM), Path(folder, ONNX)
    in_memory = sum(tensor.nbytes for tensor in model.state_dict().values())
    runners = {
        "PyTorch": ("in memory", in_memory, model),
        "torch.export": (PROGRAM, _size(program), torch.export.load(program).module()),
        "ONNX Runtime": (ONNX, _size(graph), onnx.runner(graph)),
    }
    batch = images[torch.arange(BATCH) % len(images)]
    rows = []
    with torch.inference_mode():
        expected = _probabilities(model, images)
        for name, (file, size, run) in runners.items():
            probabilities = _probabilities(run, images)
            rows.append(
                Comparison(
                    name,
                    file,
                    size / 1e6,
                    1000 * _seconds(run, images[:1]),
                    BATCH / _seconds(run, batch),
                    int((probabilities.argmax(dim=1) == expected.argmax(dim=1)).sum()),
                    len(images),
                    float((probabilities - expected).abs().max()),
                )
            )
    return rows


def _size(path: Path) -> int:
    parts = path.parent.glob(f"{path.name}*")  # model.onnx.data too, where there is one
    return sum(part.stat().st_size for part in parts)


def _probabilities(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return (N, classes); the first image goes alone, so that two batch sizes are tried."""
    parts = [images[:1], *images[1:].split(BATCH)]
    return torch.cat([run(part).softmax(dim=1) for part in parts if len(part)])


def _seconds(run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Return the median time of a call, of as many as half a second takes."""
    run(images)  # the first one also prepares
    times = []
    while len(times) < 3 or sum(times) < 0.5:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(rows: Sequence[Comparison]) -> str:
    """Write comparisons as an aligned table."""
    lines = [
        f"{'format':<12}  {'file':<10}  {'MB':>6}  {'ms/image':>8}  {'images/s':>8}"
        f"  {'same class':>10}  largest difference"
    ]
    for row in rows:
        same = f"{row.same_class}/{row.total}"
        lines.append(
            f"{row.format:<12}  {row.file:<10}  {row.megabytes:>6.1f}  {row.milliseconds:>8.1f}"
            f"  {row.images_per_second:>8.1f}  {same:>10}  {row.largest_difference:.1e}"
        )
    return "\n".join(lines)


# --- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 1 where a file is not as good as the model."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.export",
        description="Write a model as model.pt2, model.onnx and preprocessing.json, check both on "
        "real images and time them on this machine's CPU.",
    )
    parser.add_argument("model", type=Path, help="a file that going_modular.train wrote")
    parser.add_argument("--out", type=Path, help="folder for the files; by default the model's")
    parser.add_argument(
        "--images", type=Path, nargs="+", help="images to check with; by default 64 charts"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files exported before")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"export: error: {utils.printable(error)}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    model, checkpoint = model_builder.load_model(options.model)
    transform, class_names = checkpoint["transform"], checkpoint["class_names"]
    paths = options.images or _charts()
    images = torch.stack([transform(data_setup.load_image(path)) for path in paths])
    out = options.out or options.model.parent
    export_model(model, transform, class_names, out, overwrite=options.overwrite)
    for name in FILES:
        print(f"wrote  {utils.printable(out / name)}")
    threads = torch.get_num_threads()
    print(f"\nchecked on the CPU in float32: images {len(images)}, threads {threads}")
    rows = compare(model, out, images)
    print(table(rows))
    wrong = [row for row in rows if not row.largest_difference <= onnx.TOLERANCE]  # catches NaN too
    for row in wrong:
        print(
            f"export: error: {utils.printable(out / row.file)} differs from the model by up to "
            f"{row.largest_difference:.1e} in probability (at most {onnx.TOLERANCE:.0e} is "
            "rounding): do not use it.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _charts() -> list[Path]:
    folder = data_setup.DATA_SETS["charts"] / "val"
    paths = sorted(folder.rglob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no images to check with: give some with --images.")
    return paths[:: max(1, len(paths) // 64)][:64]


if __name__ == "__main__":
    sys.exit(main())
