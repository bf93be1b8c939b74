"""Classify images: `python -m going_modular.predict MODEL PATH...`.

A path is an image, a folder, a pattern, or - for a list on standard input. Images are read and
answered batch by batch, so any number of them fits into memory.
"""

import argparse
import contextlib
import csv
import glob
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from going_modular import model_builder, utils
from going_modular.models import onnx
from going_modular.pictures import folders
from going_modular.pictures.image import load_image
from going_modular.training.fusing import fused

UNSURE = "unsure"
Answer = tuple[str, list[tuple[str, float]]]  # path, and classes with their probabilities


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 0, or 1 where anything could not be read."""
    options = _parse(arguments)
    try:
        return run(options)
    except KeyboardInterrupt:
        hint = ": --resume continues" if options.csv else ""
        print(f"\npredict: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"predict: error: {utils.printable(error)}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    device = utils.pick_device()
    model, info = model_builder.load_model(options.model, device)
    with _writer(options) as (write, done):
        paths = [path for path in find_images(options.images) if path not in done]
        if not options.no_onnx:
            model, note = onnx.faster(model, info["transform"].crop_size[0], len(paths), threads=1)
            if note:
                print(f"predict: {note}", file=sys.stderr)
        top = min(options.top, len(info["class_names"]))
        show = sys.stderr.isatty() and len(paths) > 100
        failed = unsure = 0
        for path, answer in tqdm(
            answers(model, info, paths), total=len(paths), unit="image", disable=not show
        ):
            if isinstance(answer, Exception):
                tqdm.write(f"predict: {utils.printable(answer)}", file=sys.stderr)
                failed += 1
                continue
            probabilities, classes = (values.tolist() for values in answer.topk(top))
            names = [info["class_names"][index] for index in classes]
            is_unsure = probabilities[0] < options.threshold
            unsure += is_unsure
            write(path, list(zip(names, probabilities, strict=True)), is_unsure)
    if failed:
        print(f"predict: {failed} of {len(paths)} images not readable", file=sys.stderr)
    if unsure:
        print(f"predict: {unsure} of {len(paths)} images below the threshold", file=sys.stderr)
    if options.csv:
        known = f" ({len(done)} were there before)" if done else ""
        print(f"answers written: {len(paths) - failed}, to {utils.printable(options.csv)}{known}")
    return 1 if failed else 0


# --- what is to be answered ----------------------------------------------------------------------


def find_images(given: Iterable[str]) -> Iterator[str]:
    """Yield the paths of all images that are meant: of folders, patterns and the list on stdin.

    What is none of these is yielded as it is; reading it will say what is wrong.
    """
    for text in given:
        path = Path(text)
        if text == "-":
            yield from find_images(filter(None, (line.rstrip("\r\n") for line in sys.stdin)))
        elif path.is_dir():
            yield from [str(f) for f in folders.walk(path) if folders.is_image(f)] or [text]
        elif not path.exists() and glob.has_magic(text):  # PowerShell leaves patterns to us
            yield from sorted(glob.glob(text, recursive=True)) or [text]
        else:
            yield text


def answers(
    model: nn.Module, info: dict, paths: Sequence[str]
) -> Iterator[tuple[str, Tensor | Exception]]:
    """Yield each path with its probabilities (classes,), or with why it cannot be read.

    `info` is what `model_builder.load_model` returns beside the model. Each thread reads a batch
    and answers it alone, so that no processor waits for another.
    """
    # Eight images at once fit into a processor's caches; a GPU wants more to do, but its memory
    # does not hold the batches of many threads.
    threads = torch.get_num_threads()
    on_cpu = next(model.parameters()).device.type == "cpu"
    at_once, workers = (8, threads) if on_cpu else (64, min(8, threads))
    answer = partial(_answer_batch, fused(model.eval()), info["transform"])
    ahead: deque[Future] = deque()
    try:
        with ThreadPoolExecutor(workers, initializer=partial(torch.set_num_threads, 1)) as pool:
            for start in range(0, len(paths), at_once):
                ahead.append(pool.submit(answer, paths[start : start + at_once]))
                if len(ahead) > 2 * workers:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
    finally:
        torch.set_num_threads(threads)  # new threads begin with what was set last


def _answer_batch(
    model: nn.Module, transform: Callable, paths: Sequence[str]
) -> list[tuple[str, Tensor | Exception]]:
    images = [_try_read(transform, path) for path in paths]
    sound = [image for image in images if isinstance(image, Tensor)]
    probabilities = iter(classify(model, torch.stack(sound)) if sound else [])
    return [
        (path, next(probabilities) if isinstance(image, Tensor) else image)
        for path, image in zip(paths, images, strict=True)
    ]


def _try_read(transform: Callable, path: str) -> Tensor | Exception:
    if Path(path).is_dir():
        return ValueError(f"{path}: a folder without images")
    try:
        return transform(load_image(path))
    except (ValueError, OSError) as error:
        return error


def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Return the probabilities (N, classes) of prepared images (N, 3, H, W), in eval mode.

    In float32, so that every machine gives the same answer.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model.eval()(utils.to_device(images, device)).softmax(dim=1).cpu()


# --- how it is told ------------------------------------------------------------------------------


@contextlib.contextmanager
def _writer(options: argparse.Namespace) -> Iterator[tuple[Callable, set[str]]]:
    """Yield a function that writes an answer, and the paths that were answered before."""
    if options.csv is None:
        yield (_print_json if options.json else _print_row), set()
        return
    done = _answered(options.csv) if options.resume else set()
    if options.csv.exists() and not options.resume:
        raise FileExistsError(f"{options.csv} exists: --resume continues it; or give another name")
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("a", newline="", encoding="utf-8", buffering=1) as file:
        table = csv.writer(file)
        if file.tell() == 0:
            table.writerow(["path", "class", "probability", "is_unsure"])

        def write(path: str, found: list[tuple[str, float]], is_unsure: bool) -> None:
            others = [
                f"{cell:.6f}" if isinstance(cell, float) else cell for c in found for cell in c
            ]
            table.writerow([path, *others[:2], int(is_unsure), *others[2:]])

        yield write, done


def _answered(path: Path) -> set[str]:
    """Return the paths in a table, from which a half-written last line is cut off."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    with path.open("rb+") as file:
        file.truncate(content.rfind(b"\n") + 1)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if rows and header[:1] != ["path"]:
        raise ValueError(f"{path} is not a table of this command: give another name")
    return {row[0] for row in rows}


def _print_row(path: str, found: list[tuple[str, float]], is_unsure: bool) -> None:
    cells = [UNSURE] if is_unsure else []
    cells += [f"{utils.printable(name)}\t{probability:.3f}" for name, probability in found]
    print("\t".join([utils.printable(path), *cells]), flush=True)


def _print_json(path: str, found: list[tuple[str, float]], is_unsure: bool) -> None:
    classes = [{"class": name, "probability": round(p, 6)} for name, p in found]
    print(json.dumps({"path": path, "is_unsure": is_unsure, "classes": classes}), flush=True)


# --- options -------------------------------------------------------------------------------------


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.predict",
        description="Print the most probable classes of each image, prepared as in training. "
        "A file that cannot be read is reported and skipped.",
    )
    add = parser.add_argument
    add("model", type=Path, help="a file that going_modular.train wrote")
    add("images", nargs="+", metavar="PATH", help="images, folders, patterns, or - for a list")
    add("--top", type=_positive, default=1, help="classes to print for each image")
    add(
        "--threshold",
        type=_share,
        default=0.0,
        help='mark answers below this probability as "unsure"; choose it on validation images',
    )
    add("--csv", type=Path, help="write a table here; an earlier one is never overwritten")
    add("--json", action="store_true", help="print one JSON object per line")
    add("--resume", action="store_true", help="continue the table of --csv")
    add(
        "--no-onnx",
        action="store_true",
        help=f"let PyTorch answer, which from {onnx.WORTH:,} images on is the slower way on a CPU",
    )
    options = parser.parse_args(arguments)
    if options.csv and options.json:
        parser.error("--csv and --json: choose one")
    if options.resume and not options.csv:
        parser.error("--resume goes with --csv FILE, the table to continue")
    return options


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")


if __name__ == "__main__":
    sys.exit(main())
