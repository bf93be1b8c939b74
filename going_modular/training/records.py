"""What a run leaves to be read: run.json, which repeats it, and a card that describes its model.

Knows what training reports as plain values; it trains and measures nothing.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from going_modular import utils
from going_modular.pictures.image import hash_file
from going_modular.training.identity import digest

RECORD, CARD = "run.json", "card.md"


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }


def splits_by_content(splits: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Return the first half of each file's SHA-256, by split and class: names do not matter."""
    found = {}
    for name, images in splits.items():
        classes = found[name] = {class_name: [] for class_name in images.class_names}
        for path, label in images.samples:
            classes[images.class_names[label]].append(hash_file(path)[:32])
    return found


def fingerprint(content: Mapping[str, Mapping[str, list[str]]]) -> str:
    """Return one hash of `splits_by_content`, whatever the order of the files."""
    return digest(
        (split, name, *sorted(files))
        for split, classes in sorted(content.items())
        for name, files in sorted(classes.items())
    )[:32]


def write(out: Path, record: Mapping[str, Any]) -> None:
    """Write run.json and card.md into a run folder."""
    for name, text in ((RECORD, json.dumps(record, indent=1, default=str)), (CARD, card(record))):
        with utils.replacing(out / name) as path:
            path.write_text(text + "\n", encoding="utf-8")


def read(place: str | Path) -> dict[str, Any]:
    """Return the record of a run folder, or of the file itself; ValueError where it is none."""
    path = Path(place)
    path = path / RECORD if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{utils.printable(path)}: no such file. It is written with a run.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["options"]["data"], record["data"]["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{utils.printable(path)} is not the record of a run") from error
    return record


def card(record: Mapping[str, Any]) -> str:
    """Write a model card as model hubs read it: a header in YAML, then Markdown."""
    options, strategy, data = record["options"], record["strategy"], record["data"]
    counts = {split: sum(map(len, c.values())) for split, c in data["splits"].items()}
    names = list(data["splits"]["train"])
    rows = [
        f"| {split} | {result['images']} | {result['accuracy']:.3f} "
        f"[{result['low']:.3f}, {result['high']:.3f}] | {result['balanced']:.3f} "
        f"| {result['baseline']:.3f} |"
        for split, result in record["results"].items()
    ]
    header = [
        "library_name: pytorch",
        "pipeline_tag: image-classification",
        "tags: [image-classification, transfer-learning]",
        "metrics: [accuracy]",
        f"base_model: {json.dumps(options['model'])}",
    ]
    sees = record["transform"]
    side = sees["crop_size"][0]
    return "\n".join(
        [
            *("---", *header, "---", ""),
            f"# {options['model']}, trained on {_plain(Path(options['data']).name)}",
            "",
            f"Names one of {len(names)} classes: {', '.join(map(_plain, names))}. It gives one of",
            "them for every image, also for one that shows none of them.",
            "",
            "## Data",
            "",
            f"{', '.join(f'{count} images for {split}' for split, count in counts.items())}; "
            f"{_plain(data['how'])}. Fingerprint `{data['fingerprint']}`.",
            "",
            "Describe here where the images come from, who labelled them, and what may be done "
            "with them.",
            "",
            "## Training",
            "",
            f"Strategy `{options['strategy']}`: {strategy['epochs']} epochs, "
            f"{_rates(options, strategy)}, augmentation: {strategy['augment']}; "
            f"{record['trainable']:,} of {record['parameters']:,} parameters trained, in "
            f"{record['seconds']:.0f} s on {record['device']} ({record['precision']}). "
            "`run.json` has all options: `python -m going_modular.train --like FOLDER` repeats it.",
            "",
            "## How it was measured",
            "",
            "| split | images | accuracy, 95 % interval | balanced accuracy | commonest class |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Choices are made on validation, whose accuracy flatters a little. Only the test split",
            "is an honest estimate, once all choices are made.",
            "",
            "## Limits",
            "",
            f"It sees the middle {side} x {side} pixels of an image whose shorter side is resized "
            f"to {sees['resize_size'][0]}.",
            "Images of another kind than the training's are answered with confidence all the same.",
            "Write here what the model must not be used for.",
        ]
    )


def _plain(name: str) -> str:
    """Return a name that Markdown shows as it is, on one line."""
    text = utils.printable(name)
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|" else sign for sign in text)


def _rates(options: Mapping[str, Any], strategy: Mapping[str, Any]) -> str:
    if options["layer_decay"]:
        return f"head at {strategy['lr']:g}, each block at {options['layer_decay']:g} of the next"
    if strategy["trunk_lr"]:
        return f"head at {strategy['lr']:g}, trunk at {strategy['trunk_lr']:g}"
    return f"{'all layers' if strategy['share'] else 'head'} at {strategy['lr']:g}"
