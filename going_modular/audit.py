"""Look at a folder of class folders before anybody trains on it: `python -m going_modular.audit`.

It reads images as data_setup does and knows no model: features are passed in. It changes nothing:
what is left after cleaning can be copied to a new folder.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from going_modular import data_setup
from going_modular.pictures import folders
from going_modular.pictures.image import ImageError, hash_file, load_image
from going_modular.utils import printable

SMALL = 64  # pixels of the shorter side; most models are trained on 224
LONG = 3  # times as long as wide: the square that a model sees then shows a third
FLAT = 8  # levels of brightness, of 256: an image that spans fewer shows nothing
MANY = 5  # files with one and the same image: what a site sends in place of lost ones
PLACEHOLDER_NAME = re.compile(
    r"(not|un)[ _-]?(found|available)|(?<![a-z])no[ _-]?(image|photo|picture)|placeholder", re.I
)
GRID = 16  # cells of a difference hash, in each direction
NOISE = 2  # levels of brightness, of 256, that do not count as a difference
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
        return "\n".join(_lines(self, most))


def how(group: list[Picture]) -> str:
    """Tell what copies have in common, and which classes and splits they are in."""
    text = "same file" if len({picture.bytes_hash for picture in group}) == 1 else "same pixels"
    if len({picture.pixels_hash for picture in group}) > 1:
        text = "nearly the same"
    for names in ({p.class_name for p in group}, {p.split for p in group}):
        text += f", in {printable(' and '.join(sorted(names)))}" if len(names) > 1 else ""
    return text


# --- looking at files ---------------------------------------------------------------------------


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
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(pool.map(_look, files), "Looking at files", len(files), leave=False, delay=2)
        found = dict(zip((path for _, _, path in files), bar, strict=True))
    pictures = [look for look in found.values() if isinstance(look, Picture)]
    placeholders = _find_placeholders(pictures)
    return Report(
        folder,
        pictures,
        {path: look for path, look in found.items() if isinstance(look, str)},
        placeholders,
        {picture.path: text for picture in pictures if (text := _odd_size(*picture.size))},
        _find_copies([p for p in pictures if p.path not in placeholders], nearly),
    )


def _look(file: tuple[str, str, Path]) -> Picture | str:
    """Return what there is to know of an image, or why the file cannot be used."""
    split, class_name, path = file
    if not class_name:
        return "in no class folder"
    if not folders.is_image(path):
        return "not a type that is read"
    try:
        image = load_image(path)
    except FileNotFoundError:
        return "no such file"
    except ImageError as error:
        return error.reason
    bytes_hash = hash_file(path)
    pixels_hash = _hash_pixels(image)
    is_flat = max(high - low for low, high in image.getextrema()) < FLAT
    look = difference_hash(image)
    return Picture(path, split, class_name, image.size, bytes_hash, pixels_hash, is_flat, look)


def _hash_pixels(image: Image.Image) -> str:
    digest = hashlib.sha256(repr(image.size).encode())
    for top in range(0, image.height, 256):  # in strips: a second copy could take 500 MB
        strip = (0, top, image.width, min(top + 256, image.height))
        digest.update(image.crop(strip).tobytes())
    return digest.hexdigest()


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


# --- copies -------------------------------------------------------------------------------------


def difference_hash(image: Image.Image) -> np.ndarray:
    """Tell where a tiny grey version gets lighter (1), darker (-1) or neither (0): (2, 512).

    From left to right, and from top to bottom; the second row is that of the mirror image.
    """
    side = GRID + 1
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS), np.int16)
    return np.stack([_signs(grey), _signs(grey[:, ::-1])])


def _signs(grey: np.ndarray) -> np.ndarray:
    right, down = np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1]
    steps = np.concatenate([right.ravel(), down.ravel()])
    return (np.sign(steps) * (abs(steps) > NOISE)).astype(np.int8)


def similar_pairs(
    vectors: ArrayLike, threshold: float, others: ArrayLike | None = None
) -> np.ndarray:
    """Return (pairs, 2): the i < j where row i, and row j of `others` if given, are so similar.

    The similarity is the cosine, of difference hashes or of any features (N, F).
    """
    vectors = _normalized(vectors)
    others = vectors if others is None else _normalized(others)
    pairs = [np.empty((0, 2), int)]
    for start in range(0, len(vectors), 1024):  # 50,000 images have a billion pairs
        near = vectors[start : start + 1024] @ others[start:].T >= threshold
        pairs.append(np.argwhere(np.triu(near, 1)) + start)
    return np.concatenate(pairs)


def _normalized(vectors: ArrayLike) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


def _find_copies(pictures: list[Picture], nearly: float) -> list[list[Picture]]:
    if not pictures:
        return []
    first = {}  # where each distinct image is met first
    links = np.array([(i, first.setdefault(p.pixels_hash, i)) for i, p in enumerate(pictures)])
    distinct = np.array(list(first.values()))
    same, mirrored = np.stack([pictures[i].look for i in distinct], axis=1)
    pairs = [similar_pairs(same, nearly), similar_pairs(same, nearly, mirrored)]
    rows, columns = np.concatenate([links, *(distinct[p] for p in pairs)]).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), [len(pictures)] * 2)
    groups = {}
    for picture, group in zip(pictures, connected_components(graph, False)[1], strict=True):
        groups.setdefault(group, []).append(picture)
    return [sorted(group, key=_rank) for group in groups.values() if len(group) > 1]


def _rank(picture: Picture) -> tuple:
    width, height = picture.size
    return KEPT_FIRST.index(picture.split), -width * height, str(picture.path)


# --- labels -------------------------------------------------------------------------------------


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
        raise ValueError("a class has fewer than 2 images: nothing can judge its labels")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    cv = StratifiedKFold(min(folds, smallest), shuffle=True, random_state=seed)
    probabilities = cross_val_predict(probe, features, labels, cv=cv, method="predict_proba")
    return np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable"), probabilities


# --- a cleaned copy, the report as text, the command line ---------------------------------------


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


def _lines(report: Report, most: int | None) -> Iterator[str]:
    pictures, left_out = report.pictures, report.leave_out()
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
    for title, found in {
        "cannot be used": [f"{report.name(path)}: {why}" for path, why in report.unusable.items()],
        "placeholders": [
            f"{report.name(path)}: {why}" for path, why in report.placeholders.items()
        ],
        "odd sizes": [f"{report.name(path)}: {size}" for path, size in report.odd_sizes.items()],
        "copies": [
            f"{how(group)}: {' = '.join(report.name(picture.path) for picture in group)}"
            for group in report.copies
        ],
    }.items():
        yield f"{title}: {len(found) or 'none'}"
        yield from _listed(found, most)
    if links := folders.links_outside(report.folder, (p.path for p in pictures)):
        yield f"links to other places: {len(links)}"
        yield from _listed([printable(link) for link in links], most)
    yield f"to leave out: {len(left_out)} files; {files - len(left_out)} images stay"


def _listed(found: list[str], most: int | None) -> Iterator[str]:
    yield from (f"  {line}" for line in found[:most])
    if found[:most] != found:
        yield f"  and {len(found) - len(found[:most])} more"


def _similarity(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, and at most 1")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 1 where there was nothing to look at."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.audit",
        description="Count and measure the images of a data set, and report files that cannot "
        "be used, placeholders and copies. Nothing is changed.",
    )
    parser.add_argument("data", help="a data set's name, or a folder of class folders")
    parser.add_argument("--all", action="store_true", help="list all files, not ten of a kind")
    parser.add_argument(
        "--nearly", type=_similarity, default=NEARLY, help="how similar copies are, 0 to 1"
    )
    parser.add_argument("--copy-to", type=Path, help="new folder for copies of what stays")
    options = parser.parse_args(arguments)
    try:
        report = scan(options.data, options.nearly)
        print(report.summary(None if options.all else 10))
        if options.copy_to:
            print(f"copied to {printable(copy_clean(report, options.copy_to))}")
    except (ValueError, OSError) as error:
        print(f"audit: error: {printable(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
