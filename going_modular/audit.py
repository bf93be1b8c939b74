"""Look at a folder of class folders before anybody trains on it: `python -m going_modular.audit`.

It reads images as data_setup does and knows no model: features are passed in. It changes nothing:
what is left after cleaning can be copied to a new folder.
"""

import argparse
import contextlib
import re
import shutil
import statistics
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from going_modular import data_setup
from going_modular.pictures import copies, folders
from going_modular.pictures.copies import difference_hash, similar_pairs
from going_modular.pictures.image import hash_file, map_files, try_load
from going_modular.utils import printable

__all__ = [
    "copy_clean",
    "difference_hash",
    "how",
    "look",
    "main",
    "scan",
    "similar_pairs",
    "suspicious_labels",
]

SMALL = 64  # pixels of the shorter side; most models are trained on 224
LONG = 3  # times as long as wide: the square that a model sees then shows a third
FLAT = 8  # levels of brightness, of 256: an image that spans fewer shows nothing
MANY = 5  # files with one and the same image: what a site sends in place of lost ones
PLACEHOLDER_NAME = re.compile(
    r"(not|un)[ _-]?(found|available)|(?<![a-z])no[ _-]?(image|photo|picture)|placeholder", re.I
)
NEARLY = 0.85  # similarity of two hashes
KEPT_FIRST = ("test", "val", "train", "")  # of copies in several splits


class Picture(NamedTuple):
    """A file that can be read, with hashes of its bytes, of its pixels and of how it looks."""

    path: Path
    split: str  # "" where the folder has no train folder
    class_name: str
    size: tuple[int, int]  # width and height, upright
    bytes_hash: str
    pixels_hash: str
    is_flat: bool
    look: np.ndarray


@dataclass
class Report:
    """What an audit found: files with the reason, and groups of copies, the one to keep first."""

    folder: Path
    pictures: list[Picture]  # all that can be read, placeholders and copies too
    unusable: dict[Path, str]
    placeholders: dict[Path, str]
    odd_sizes: dict[Path, str]
    copies: list[list[Picture]]

    def leave_out(self) -> dict[Path, str]:
        """Return the files that nobody should train on, with the reasons.

        Of copies one stays: that in test, else in val, else the largest. Where they bear different
        labels none stays, for only a person can tell which is right.
        """
        files = self.unusable | self.placeholders
        for group in self.copies:
            kept, *others = group
            if len({picture.class_name for picture in group}) > 1:
                files |= {picture.path: f"copies, {how(group)}" for picture in group}
            else:
                text = f"copy of {self.name(kept.path)}, {how(group)}"
                files |= {picture.path: text for picture in others}
        return files

    def name(self, path: Path) -> str:
        """Write a file's name, relative to the folder and safe to print."""
        return printable(path.relative_to(self.folder).as_posix())

    def summary(self, most: int | None = 10) -> str:
        """Write the report as text, with at most `most` files of a kind; None stands for all."""
        return "\n".join([*_counts(self), *_findings(self, most)])


def how(group: list[Picture]) -> str:
    """Tell what copies have in common, and which classes and splits they are in."""
    text = "same file" if len({picture.bytes_hash for picture in group}) == 1 else "same pixels"
    if len({picture.pixels_hash for picture in group}) > 1:
        text = "nearly the same"
    for names in ({p.class_name for p in group}, {p.split for p in group}):
        text += f", in {printable(' and '.join(sorted(names)))}" if len(names) > 1 else ""
    return text


# --- Looking at files ---------------------------------------------------------------------------


def scan(data: str | Path, nearly: float = NEARLY) -> Report:
    """Read every file of a data set, given as for data_setup.load, and report what is odd.

    `nearly` is the similarity of `difference_hash` from which two images count as the same one,
    mirrored or not. At 0.85 it finds copies that were resized, saved anew with loss, darkened, and
    most that were brightened; it misses crops (5 % is too much), rotated copies, and other shots of
    the same scene. At 0.4 it also finds most cropped photos, but takes drawings for one another.
    """
    folder = data_setup.find_folder(data)
    roots = folders.find_splits(folder) or {"": folder}
    files = [(split, *file) for split, root in roots.items() for file in folders.files(root)]
    seen = map_files(look, files, "Looking at files")
    found = dict(zip((path for _, _, path in files), seen, strict=True))
    pictures = [seen for seen in found.values() if isinstance(seen, Picture)]
    placeholders = _find_placeholders(pictures)
    return Report(
        folder,
        pictures,
        {path: seen for path, seen in found.items() if isinstance(seen, str)},
        placeholders,
        {picture.path: text for picture in pictures if (text := _odd_size(*picture.size))},
        _find_copies([p for p in pictures if p.path not in placeholders], nearly),
    )


def look(file: tuple[str, str, Path]) -> Picture | str:
    """Return what there is to know of (split, class, path), or why the file cannot be used."""
    split, class_name, path = file
    if not class_name:
        return "in no class folder"
    if not folders.is_image(path):
        return "not a type that is read"
    image, reason = try_load(path)
    if image is None:
        return reason
    return Picture(
        path,
        split,
        class_name,
        image.size,
        hash_file(path),
        copies.hash_pixels(image),
        max(high - low for low, high in image.getextrema()) < FLAT,
        difference_hash(image),
    )


def _odd_size(width: int, height: int) -> str:
    if min(width, height) < SMALL:
        return f"{width} x {height}: under {SMALL} pixels"
    if max(width, height) > LONG * min(width, height):
        return f"{width} x {height}: one side over {LONG} times the other"
    return ""


def _find_placeholders(pictures: list[Picture]) -> dict[Path, str]:
    times, found = Counter(picture.pixels_hash for picture in pictures), {}
    for picture in pictures:
        if picture.is_flat:
            found[picture.path] = "one flat colour"
        elif times[picture.pixels_hash] >= MANY:
            found[picture.path] = f"the same image {times[picture.pixels_hash]} times"
        elif PLACEHOLDER_NAME.search(picture.path.stem):
            found[picture.path] = "named like a placeholder"
    return found


def _find_copies(pictures: list[Picture], nearly: float) -> list[list[Picture]]:
    def rank(picture: Picture) -> tuple:
        width, height = picture.size
        return KEPT_FIRST.index(picture.split), -width * height, str(picture.path)

    hashes, looks = [p.pixels_hash for p in pictures], [p.look for p in pictures]
    groups = copies.group_copies(hashes, looks, nearly)
    return [sorted((pictures[i] for i in group), key=rank) for group in groups]


# --- Labels -------------------------------------------------------------------------------------


def suspicious_labels(
    features: ArrayLike, labels: ArrayLike, folds: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return all positions, the most suspicious label first, and probabilities (N, classes).

    The probabilities of an image come from a linear probe on `features` (N, F) that learned from
    the other folds; the less probable the given label (0 to classes - 1), the more suspicious: the
    ranking of confident learning, https://arxiv.org/abs/1911.00068.
    """
    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        raise ValueError("a class has fewer than 2 images: its labels cannot be judged")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    cv = StratifiedKFold(min(folds, smallest), shuffle=True, random_state=seed)
    probabilities = cross_val_predict(probe, features, labels, cv=cv, method="predict_proba")
    return np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable"), probabilities


# --- A cleaned copy, the report as text, the command line ---------------------------------------


def copy_clean(report: Report, folder: str | Path) -> Path:
    """Copy the images that are worth keeping, in their class folders, to a new folder."""
    folder, left_out = Path(folder).expanduser(), report.leave_out()
    if folder.exists() or folder.resolve().is_relative_to(report.folder.resolve()):
        raise FileExistsError(f"{folder} exists, or is inside {report.folder}: give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and then moved: an interruption leaves no half of a data set there.
    with tempfile.TemporaryDirectory(prefix=".audit.", dir=folder.parent) as temporary:
        copy = Path(temporary, "copy")
        copy.mkdir()
        for picture in report.pictures:
            if picture.path not in left_out:
                target = copy / picture.path.relative_to(report.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(picture.path, target)
        copy.rename(folder)
    return folder


def _counts(report: Report) -> Iterator[str]:
    pictures = report.pictures
    files = len(pictures) + len(report.unusable)
    yield f"{printable(report.folder)}: {files} files, {len(pictures)} of them can be read"
    counts = Counter((printable(p.class_name), p.split) for p in pictures)
    splits = [split for split in reversed(KEPT_FIRST) if split in {p.split for p in pictures}]
    names = sorted({name for name, _ in counts})
    for name in [""] * any(splits) + names:
        cells = (f"{counts[name, split] if name else split:>6}" for split in splits)
        yield f"{name:<{max(map(len, names))}} {' '.join(cells)}"
    for side, name in enumerate(("width", "height") if pictures else ()):
        values = [picture.size[side] for picture in pictures]
        yield f"{name:<6} {min(values)} to {max(values)}, median {statistics.median(values):.0f}"


def _findings(report: Report, most: int | None) -> Iterator[str]:
    for title, found in {
        "cannot be used": report.unusable,
        "placeholders": report.placeholders,
        "odd sizes": report.odd_sizes,
    }.items():
        yield f"{title}: {len(found) or 'none'}"
        yield from _listed((f"{report.name(path)}: {why}" for path, why in found.items()), most)
    yield f"copies: {len(report.copies) or 'none'}"
    groups = ((how(group), [report.name(p.path) for p in group]) for group in report.copies)
    yield from _listed((f"{text}: {' = '.join(names)}" for text, names in groups), most)
    if links := folders.links_outside(report.folder, (p.path for p in report.pictures)):
        yield f"links to other places: {len(links)}"
        yield from _listed(map(printable, links), most)
    left_out = report.leave_out()
    stay = len(report.pictures) + len(report.unusable) - len(left_out)
    yield f"to leave out: {len(left_out)} files; {stay} images stay"


def _listed(lines: Iterable[str], most: int | None) -> Iterator[str]:
    found = list(lines)
    yield from (f"  {line}" for line in found[:most])
    if found[:most] != found:
        yield f"  and {len(found) - len(found[:most])} more"


def what_train_does(data: str | Path, **options: str | None) -> tuple[bool, str]:
    """Tell whether training would begin with this data, and what it would say: it is asked.

    `options` are those of data_setup.load.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            splits = data_setup.load(data, **options)
        except (ValueError, OSError) as error:
            return False, f"would refuse: {printable(error)}"
    said = [printable(warning.message) for warning in caught] + [splits.imbalance()]
    said = [f"\n  {text}" for text in said if text]
    sizes = f"{len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test"
    return True, f"would begin, with {sizes}{', and warn:' if said else ''}{''.join(said)}"


def _similarity(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, and at most 1")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 0 where train would begin with these data."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.audit",
        description="Count and measure the images of a data set, and report files that cannot "
        "be used, placeholders and copies. Nothing is changed.",
    )
    parser.add_argument("data", help="name of a data set, or folder of class folders")
    parser.add_argument("--all", action="store_true", help="list all files, not ten of a kind")
    parser.add_argument(
        "--nearly",
        type=_similarity,
        default=NEARLY,
        help="how similar images must be to count as copies",
    )
    parser.add_argument("--labels", metavar="FILE[:COLUMN]", help="as train will be given it")
    parser.add_argument("--groups", metavar="folder|PATTERN", help="as train will be given it")
    parser.add_argument("--copy-to", type=Path, help="new folder for copies of the good images")
    options = parser.parse_args(arguments)
    try:
        report = scan(options.data, options.nearly)
        print(report.summary(None if options.all else 10))
        if options.copy_to:
            print(f"copied to {printable(copy_clean(report, options.copy_to))}")
        is_accepted, verdict = what_train_does(
            options.data, labels=options.labels, groups=options.groups
        )
        print(f"\ntrain      {verdict}")
    except (ValueError, OSError) as error:
        print(f"audit: error: {printable(error)}", file=sys.stderr)
        return 1
    return 0 if is_accepted else 1


if __name__ == "__main__":
    sys.exit(main())
