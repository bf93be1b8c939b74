"""Turn a trained model into files for use without this package, and check and time them.

`python -m going_modular.export runs/NAME/model.safetensors` writes model.pt2 (torch.export),
model.onnx, and preprocessing.json, which tells a program in any language what to do with a picture.
"""

import argparse
import copy
import importlib.util
import inspect
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

# ONNX Runtime reports its use to its maker since 1.29, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

FILES = ("model.pt2", "model.onnx", "preprocessing.json")
OPSET = 18  # the one PyTorch's exporter is written for; ONNX Runtime reads it since 1.14 (2023)
TOLERANCE = 1e-4  # in probability; float32 sums in another order differ by about 1e-6
BATCH = 32
MEASURE_SECONDS = 3  # at most, for each figure
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Exported(NamedTuple):
    """The files that `export_model` wrote."""

    program: Path
    onnx: Path
    preprocessing: Path


class Comparison(NamedTuple):
    """One format's size, speed, and distance from the PyTorch model in memory."""

    format: str
    file: str
    megabytes: float
    milliseconds: float  # for one picture, the median of many runs
    images_per_second: float  # in batches of 32
    same_class: int
    total: int
    largest_difference: float  # of any probability of any picture


# --- writing -------------------------------------------------------------------------------------


def export_model(
    model: nn.Module,
    transform: ImageClassification,
    class_names: Sequence[str],
    folder: str | Path,
    *,
    overwrite: bool = False,
) -> Exported:
    """Write model.pt2, model.onnx and preprocessing.json into `folder`.

    Both models map float32 images (N, 3, H, W), prepared by `transform`, to logits (N, classes);
    N is free, H and W are the transform's. `model` itself stays as it is.

    Raises FileExistsError rather than replace a file, and ImportError where packages are missing.
    """
    folder = Path(folder)
    _check_packages()
    _check_free(folder, overwrite)
    description = describe_preprocessing(transform, class_names)
    folder.mkdir(parents=True, exist_ok=True)
    # Written beside their places and then moved: a crash leaves no half of a file.
    with tempfile.TemporaryDirectory(prefix=".export.", dir=folder) as temporary:
        program = _export_program(model, transform.crop_size[0])
        torch.export.save(program, Path(temporary, "model.pt2"))
        _export_onnx(program, Path(temporary, "model.onnx"))
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        Path(temporary, "preprocessing.json").write_text(text, encoding="utf-8")
        for path in Path(temporary).iterdir():  # beyond 2 GB, ONNX keeps its weights in one more
            os.replace(path, folder / path.name)
    return Exported(*(folder / name for name in FILES))


def _check_packages() -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise ModuleNotFoundError(f"Export to ONNX needs: run `pip install {names}`.", name=names)
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        raise ImportError(
            f"Export to ONNX needs PyTorch 2.5 or newer, and this is {torch.__version__}: "
            "run `pip install --upgrade torch torchvision`."
        )


def _check_free(folder: Path, overwrite: bool) -> None:
    taken = [str(folder / name) for name in FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise FileExistsError(
            f"{', '.join(taken)}: exported before. Give another folder, or overwrite."
        )


def _export_program(model: nn.Module, size: int) -> torch.export.ExportedProgram:
    """Trace a copy of the model on the CPU, in eval mode, with a free batch size."""
    model = copy.deepcopy(model).to("cpu", torch.float32, memory_format=torch.contiguous_format)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # an activation in place takes ONNX's translation twice as long
    images = torch.zeros(2, 3, size, size)  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # PyTorch 2.7 still exports frozen attention as one fused operation, which ONNX does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        program = torch.export.export(
            model.eval(), (images,), dynamic_shapes=({0: batch},), strict=False
        )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


def _export_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.onnx.export(
        program,
        (),
        path,
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),  # the name of the program's free dimension
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )


def describe_preprocessing(
    transform: ImageClassification, class_names: Sequence[str]
) -> dict[str, Any]:
    """Tell in words and numbers what turns a picture into the model's input, and back into a class.

    The words are exact: a program that follows them gets what `transform` gives, to the last bit of
    the 8-bit pixels.
    """
    values = utils.describe_transform(transform)
    (resize,), (crop,) = values["resize_size"], values["crop_size"]
    low, high = (
        [(bound - mean) / std for mean, std in zip(values["mean"], values["std"], strict=True)]
        for bound in (0, 1)
    )
    filter_ = values["interpolation"]
    return {
        "class_names": list(class_names),
        "steps": [
            "Decode the picture to 8-bit RGB, upright as its EXIF orientation says, transparent "
            "pixels over white.",
            f"Resize it so that its shorter side has {resize} pixels (resize_size); the longer one "
            f"gets floor({resize} * longer / shorter). Filter: {filter_}, as in Pillow: "
            "antialiased, that is, its support grows with the factor of reduction; for bicubic, "
            "a = -0.5. Round to 8 bits.",
            f"Cut out the central square of {crop} pixels (crop_size). Its left edge is at "
            f"(width - {crop}) / 2, its top edge at (height - {crop}) / 2, halves rounded to the "
            f"even number. A picture smaller than {crop} pixels is first padded with black, on "
            "each side with half of what is missing, an odd pixel at the right and bottom.",
            "Divide by 255.",
            "Subtract mean and divide by std, channel by channel.",
            "Order as (batch, channel, row, column), float32.",
            "The model gives logits (batch, class); the softmax over classes gives probabilities, "
            "in the order of class_names.",
        ],
        "resize_size": resize,
        "crop_size": crop,
        "interpolation": filter_,
        "antialias": True,  # Pillow always does, whatever the transform says
        "mean": values["mean"],
        "std": values["std"],
        "input": {
            "name": "images",
            "shape": ["batch", 3, crop, crop],
            "layout": "NCHW",
            "channels": "RGB",
            "type": "float32",
            "range": {"before_normalisation": [0, 1], "low": low, "high": high},
        },
        "output": {
            "name": "logits",
            "shape": ["batch", len(class_names)],
            "type": "float32",
            "probabilities": "softmax over the last axis",
        },
    }


# --- checking and timing -------------------------------------------------------------------------


def compare(
    model: nn.Module, exported: Exported, images: Tensor, runs: int = 50
) -> list[Comparison]:
    """Run the model and its exported files on `images` (N, 3, H, W), on the CPU in float32.

    One row for PyTorch, torch.export and ONNX Runtime each. Times are medians of `runs` calls, or
    of what fits into 3 seconds, after a warm-up, with as many threads as PyTorch has.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    runners = {
        "PyTorch": ("in memory", _megabytes(model), model),
        "torch.export": (*_file(exported.program), torch.export.load(exported.program).module()),
        "ONNX Runtime": (*_file(exported.onnx), _onnx_runner(exported.onnx)),
    }
    rows = []
    with torch.inference_mode():
        expected = _probabilities(model, images)
        for name, (file, megabytes, run) in runners.items():
            probabilities = _probabilities(run, images)
            rows.append(
                Comparison(
                    name,
                    file,
                    megabytes,
                    1000 * _seconds(run, images[:1], runs),
                    BATCH / _seconds(run, _batch(images), max(1, runs // 10)),
                    int((probabilities.argmax(dim=1) == expected.argmax(dim=1)).sum()),
                    len(images),
                    float((probabilities - expected).abs().max()),
                )
            )
    return rows


def _file(path: Path) -> tuple[str, float]:
    parts = path.parent.glob(f"{path.name}*")  # model.onnx.data too, where there is one
    return path.name, sum(part.stat().st_size for part in parts) / 1e6


def _megabytes(model: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    _check_packages()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # it warns of each device that it does not find
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _probabilities(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return (N, classes); the first image goes alone, so that two batch sizes are tried."""
    parts = [images[:1], *images[1:].split(BATCH)]
    return torch.cat([run(part).softmax(dim=1) for part in parts if len(part)])


def _batch(images: Tensor) -> Tensor:
    """Return 32 images, repeated where there are fewer."""
    return images[torch.arange(BATCH) % len(images)]


def _seconds(run: Callable[[Tensor], Tensor], images: Tensor, runs: int) -> float:
    """Return the median time of a call, over `runs` calls or as many as fit into some seconds."""
    for _ in range(2):
        run(images)  # what the first calls prepare is not counted
    times, end = [], time.perf_counter() + MEASURE_SECONDS
    while len(times) < runs and (len(times) < 3 or time.perf_counter() < end):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(rows: Sequence[Comparison]) -> str:
    """Write comparisons as an aligned table."""
    lines = [
        f"{'format':<12}  {'file':<10}  {'MB':>6}  {'ms/picture':>10}  {'pictures/s':>10}"
        f"  {'same class':>10}  largest difference"
    ]
    for row in rows:
        same = f"{row.same_class}/{row.total}"
        lines.append(
            f"{row.format:<12}  {row.file:<10}  {row.megabytes:>6.1f}  {row.milliseconds:>10.1f}"
            f"  {row.images_per_second:>10.1f}  {same:>10}  {row.largest_difference:.1e}"
        )
    return "\n".join(lines)


# --- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 1 where a file is not as good as the model."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.export",
        description="Write a model as model.pt2, model.onnx and preprocessing.json, check both on "
        "real pictures and time them on this machine's CPU.",
    )
    parser.add_argument("model", type=Path, help="a file that going_modular.train wrote")
    parser.add_argument("--out", type=Path, help="folder for the files; by default the model's")
    parser.add_argument(
        "--photos", type=Path, nargs="+", help="pictures to check with; by default 64 charts"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files exported before")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("GOING_MODULAR_DEBUG"):
            raise
        print(f"export: error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    model, checkpoint = model_builder.load_model(options.model)
    transform, class_names = checkpoint["transform"], checkpoint["class_names"]
    photos = options.photos or _charts()
    images = torch.stack([transform(data_setup.load_image(photo)) for photo in photos])
    out = options.model.parent if options.out is None else options.out
    exported = export_model(model, transform, class_names, out, overwrite=options.overwrite)
    for path in exported:
        print(f"wrote  {path}")
    threads = torch.get_num_threads()
    print(f"\nchecked on the CPU in float32: pictures {len(images)}, threads {threads}")
    rows = compare(model, exported, images)
    print(table(rows))
    wrong = [row for row in rows if not row.largest_difference <= TOLERANCE]  # catches NaN too
    for row in wrong:
        print(
            f"export: error: {out / row.file} differs from the model by up to "
            f"{row.largest_difference:.1e} in probability (at most {TOLERANCE:.0e} is rounding): "
            "do not use it.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _charts() -> list[Path]:
    folder = data_setup.DATA_SETS["charts"] / "val"
    paths = sorted(folder.rglob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no pictures to check with: give some to --photos.")
    return paths[:: max(1, len(paths) // 64)][:64]


if __name__ == "__main__":
    sys.exit(main())
