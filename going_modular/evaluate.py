"""Measure a saved model on labelled images: `python -m going_modular.evaluate MODEL --data FOLDER`.

It predicts and counts; it trains nothing and chooses nothing.
"""

import argparse
import csv
import sys
import warnings
from collections import Counter
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.data_setup import ImageDataset
from going_modular.models import onnx
from going_modular.pictures import folders
from going_modular.training.metrics import Predictions
from going_modular.utils import printable

SPLITS = ("train", "val", "test", "all")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    matplotlib.use("Agg")  # figures go to files; no window
    options = _parse(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(
                f"warning: {printable(message)}", file=sys.stderr
            )
            run(options)
    except KeyboardInterrupt:
        print("\nevaluate: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"evaluate: error: {printable(error)}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    device = utils.pick_device()
    model, info = model_builder.load_model(options.model, device)
    other = model_builder.load_model(options.compare, device) if options.compare else None
    class_names = info["class_names"]
    if other and other[1]["class_names"] != class_names:
        raise ValueError(f"{options.compare} has other classes than {options.model}")
    groups = info["training"].get("groups")
    images, how = read(options.data, options.split, class_names, groups, options.labels)
    print(f"data       {printable(options.data)}: {how}, {len(images)} images")
    result = predict(model, info, images, options.no_onnx)
    print(report(result, class_names))
    if other:
        print(_comparison(options, result, predict(*other, images, options.no_onnx)))
    if options.out:
        write(options.out, result, images)
        print(f"\nwritten    {', '.join(str(path) for path in sorted(options.out.iterdir()))}")


def read(
    data: str,
    split: str,
    class_names: list[str],
    groups: str | None = None,
    table: str | None = None,
) -> tuple[ImageDataset, str]:
    """Return the images of a split, labelled as the model's classes are, and say what they are.

    "all" takes every image of a folder of class folders, for images that no training has seen; the
    other splits are those that `data_setup.load` makes, and so the ones that training made.
    """
    if split == "all" and not table:
        folder = data_setup.find_folder(data)
        if folders.find_splits(folder):
            raise ValueError(f"{folder} holds splits: give --split test, val or train")
        return data_setup.load_split(folder, class_names, all_classes=False), "every image"
    splits = data_setup.load(data, groups=groups, labels=table)
    parts = ("train", "val", "test") if split == "all" else (split,)
    chosen = [sample for part in parts for sample in getattr(splits, part).samples]
    labels = {folders.normalized(name): label for label, name in enumerate(class_names)}
    unknown = [name for name in splits.class_names if name not in labels]
    if unknown:
        raise ValueError(
            f"{data} has a class {printable(unknown[0])!r} that the model does not know: it names "
            f"{', '.join(map(printable, class_names))}"
        )
    samples = [(path, labels[splits.class_names[label]]) for path, label in chosen]
    return ImageDataset(samples, class_names), f"split {split} ({splits.how})"


def predict(
    model: torch.nn.Module, info: dict, images: ImageDataset, no_onnx: bool = False
) -> Predictions:
    """Run a model over images as it was saved to prepare them.

    In float32: the same file gives the same numbers on every machine.
    """
    dataloader = data_setup.create_dataloader(images, info["transform"], batch_size=8)
    if not no_onnx:
        model, note = onnx.faster(model, info["transform"].crop_size[0], len(images))
        if note:
            print(f"engine     {note}")
    return engine.predict(model, dataloader, dtype=torch.float32)


# --- what is told --------------------------------------------------------------------------------


def report(result: Predictions, class_names: list[str]) -> str:
    """Write accuracy and what to compare it with, each class, calibration and the confusions."""
    labels, predicted, total = result.labels, result.predicted, len(result.labels)
    (majority, most), *_ = Counter(labels.tolist()).most_common(1)
    confidence = result.probabilities.max(dim=1).values.mean()
    lines = [
        f"accuracy   {evaluation.format_accuracy(result.correct, total)}"
        f"  ({result.correct} of {total}; in brackets the 95 % interval)",
        f"balanced   {evaluation.balanced_accuracy(labels, predicted):.3f}"
        "  (mean recall of the classes)",
        f"baseline   {most / total:.3f}  (answering {printable(class_names[majority])} every time)",
        f"confidence {confidence:.3f}  (on average; calibration error "
        f"{evaluation.expected_calibration_error(result.probabilities, labels):.3f})",
        "",
        evaluation.per_class_table(labels, predicted, class_names),
    ]
    pairs = Counter(
        (int(label), int(answer))
        for label, answer in zip(labels, predicted, strict=True)
        if label != answer
    )
    if pairs:
        lines += ["", "most often confused"]
    for (label, answer), count in pairs.most_common(5):
        of, called = printable(class_names[label]), printable(class_names[answer])
        lines.append(f"  {count:>4}  {of} called {called}")
    return "\n".join(lines)


def _comparison(options: argparse.Namespace, a: Predictions, b: Predictions) -> str:
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    low, high = evaluation.bootstrap_difference(right_a, right_b)
    verdict = "no difference that these images show"
    if low > 0 or high < 0:
        verdict = f"{printable(options.model if low > 0 else options.compare)} is better"
    return "\n".join(
        [
            f"\ncompared   {printable(options.model)} with {printable(options.compare)}, on the "
            "same images",
            f"accuracy   {a.accuracy:.3f} and {b.accuracy:.3f}, difference "
            f"{evaluation.format_difference(right_a, right_b)}",
            f"right      {only_a} the first alone, {only_b} the second alone "
            f"(McNemar p = {evaluation.mcnemar(right_a, right_b):.2g})",
            f"so         {verdict}",
        ]
    )


def write(folder: Path, result: Predictions, images: ImageDataset) -> None:
    """Write the confusion matrix as a figure and a table, each answer, and the worst mistakes."""
    folder.mkdir(parents=True)  # an earlier one is not touched
    names = [printable(name) for name in images.class_names]
    matrix = confusion_matrix(result.labels, result.predicted, labels=range(len(names)))
    _write_table(
        folder / "confusion.csv", ["true class", *names], zip(names, *matrix.T, strict=True)
    )
    side = max(5, 0.45 * len(names))
    _, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    shown = {"cmap": "Blues", "colorbar": False, "xticks_rotation": 60}
    ConfusionMatrixDisplay(matrix, display_labels=names).plot(ax=axis, **shown)
    plt.savefig(folder / "confusion.png", dpi=120)
    plt.close()

    confidence, predicted = result.probabilities.max(dim=1)
    rows = zip(
        (path for path, _ in images.samples),
        (names[label] for label in result.labels),
        (names[answer] for answer in predicted),
        (f"{value:.6f}" for value in confidence),
        strict=True,
    )
    _write_table(folder / "answers.csv", ["path", "true class", "class", "probability"], rows)
    wrong = (predicted != result.labels).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:24].tolist()
    if worst:
        pictures = [images[index][0] for index in worst]
        utils.plot_predictions(
            pictures, result.labels[worst], result.probabilities[worst], images.class_names
        )
        plt.savefig(folder / "most_wrong.png", dpi=120)
        plt.close()


def _write_table(path: Path, header: list[str], rows: object) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


# --- options -------------------------------------------------------------------------------------


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.evaluate",
        description="Measure a saved model on labelled images: accuracy with its interval, each "
        "class, and what is confused. With --compare, test two models on the same images.",
    )
    add = parser.add_argument
    add("model", type=Path, help="a file that going_modular.train wrote")
    add("--data", required=True, help="a data set's name, or a folder of class folders")
    add(
        "--split",
        choices=SPLITS,
        default="test",
        help="test (the default), val and train are what training set aside; all takes every "
        "image, for a folder that training has not seen",
    )
    add("--labels", metavar="FILE[:COLUMN]", help="a table with a row for each image")
    add("--compare", type=Path, metavar="MODEL", help="another model with the same classes")
    add("--no-onnx", action="store_true", help="let PyTorch answer, whatever their number")
    add("--out", type=Path, help="new folder for the confusion matrix, answers and worst mistakes")
    options = parser.parse_args(arguments)
    if options.out and options.out.exists():
        parser.error(f"--out: {options.out} exists: give a new folder")
    return options


if __name__ == "__main__":
    sys.exit(main())
