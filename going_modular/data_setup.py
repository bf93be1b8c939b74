"""Pictures on disk: from a folder, or a data set's name, to splits, transforms and dataloaders.

It knows files, classes and pixels. It does not know which model will look at them, except by the
name whose pretrained weights say how they want their pictures prepared.
"""

import contextlib
import hashlib
import os
import random
import stat
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.models import get_model_weights
from torchvision.transforms import functional as F
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification  # what weights.transforms() returns
from tqdm import tqdm

from going_modular import utils
from going_modular.pictures import downloads
from going_modular.utils import one_line, printable

DATA_SETS = {"charts": Path(__file__).parent.parent / "data" / "charts"}

IMAGE_EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .avif .tif .tiff .ppm .pgm .pbm .pnm".split()
)
# Pillow reads forty more kinds, that no camera writes: old code, and Ghostscript for EPS.
Image.init()
FORMATS = [name for name in "JPEG PNG GIF BMP WEBP AVIF TIFF PPM".split() if name in Image.OPEN]
# Of odd files that it reads all the same it warns with a line for each, in every epoch.
warnings.filterwarnings("ignore", module=r"PIL\.")
MOST_BYTES = 2**30  # a TIFF of 170 million pixels in 16 bits
LARGE = 32 * 10**6  # pixels of a picture that is decoded alone, so that eight do not take 24 GB
LONGEST = 100  # times as long as wide: resized to 224 pixels, it is 22,400 pixels long
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# What operating systems leave behind in folders; names that begin with a dot are ignored too.
CLUTTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "icon\r"})

Sample = tuple[Path, int]


# --- One picture --------------------------------------------------------------------------------


def load_image(path: str | Path) -> Image.Image:
    """Read a picture as 8-bit RGB, upright; of an animation, its first frame.

    Transparent pixels become white; 16-bit grey is scaled to 8 bits. Raises ValueError naming the
    file if it cannot be decoded, or is none of `FORMATS` whatever its name says.
    """
    try:
        with _open(path) as file:
            return _decode(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise ValueError(
            f"{printable(path)} cannot be read as a picture ({problem(path, error)}): "
            "replace or delete it"
        ) from error


def _open(path: str | Path) -> BinaryIO:
    """Open a file, but nothing that could make its reader wait, or read for ever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a folder, pipe, socket or device")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES / 1e9:.1f} GB")
    return open(path, "rb")


_turn = threading.Lock()


def _decode(file: BinaryIO, draft: bool = False) -> Image.Image:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if max(width, height) > LONGEST * min(width, height):
            raise ValueError(f"{width} x {height} pixels: over {LONGEST} times as long as wide")
        if draft:
            image.draft(None, (1, 1))  # JPEG only: all of the file is read, at 1/8 of the size
        with _turn if image.width * image.height > LARGE else contextlib.nullcontext():
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)


def is_readable(path: str | Path) -> bool:
    """Tell whether a file begins like a picture that `load_image` reads; it may still be broken."""
    try:
        with _open(path) as file, Image.open(file, formats=FORMATS):
            return True
    except Exception:  # as in load_image
        return False


def problem(path: str | Path, error: Exception) -> str:
    """Say in a few words why a file is no picture."""
    if not isinstance(error, UnidentifiedImageError):
        return one_line(error)
    with _open(path) as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return "HEIC or a video: save it as JPEG"
    return "no picture inside" if start else "empty file"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers of unknown range")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip all above 255 to white
        grey = np.asarray(image).clip(0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


# --- A set of pictures --------------------------------------------------------------------------


class ImageDataset(Dataset):
    """Labelled pictures on disk; without a transform, an item is a PIL image and its label.

    With a transform that comes from pretrained weights, each picture is decoded, resized and
    cropped once and its bytes are kept, as long as the whole set fits into `memory_budget()`:
    later reads only normalise, with a result that is the same bit for bit.
    """

    def __init__(
        self, samples: Iterable[Sample], class_names: list[str], transform: Callable | None = None
    ):
        self.samples = list(samples)
        self.class_names = list(class_names)
        self.transform = transform

    @property
    def transform(self) -> Callable | None:
        return self._transform

    @transform.setter
    def transform(self, transform: Callable | None) -> None:
        self._transform = transform
        self._pixels = {}  # path -> uint8 (3, H, W), made by this transform and no other

    @property
    def classes(self) -> list[str]:
        return self.class_names

    @property
    def targets(self) -> list[int]:
        return [label for _, label in self.samples]

    @property
    def is_kept_in_memory(self) -> bool:
        """Whether pictures are decoded once only; each worker process keeps its own."""
        if type(self.transform) is not ImageClassification:
            return False
        worker = get_worker_info()
        copies = worker.num_workers if worker else 1
        return copies * len(self) * 3 * self.transform.crop_size[0] ** 2 <= memory_budget()

    def few(self, per_class: int, seed: int = 42) -> "ImageDataset":
        """Return that many pictures of each class; a smaller number is part of a larger one."""
        rng = random.Random(seed)
        order = sorted(self.samples, key=lambda _: rng.random())
        taken, chosen = Counter(), []
        for path, label in order:
            if taken[label] < per_class:
                taken[label] += 1
                chosen.append((path, label))
        for label, name in enumerate(self.class_names):
            if taken[label] < per_class:
                raise ValueError(f"class {name!r} has {taken[label]} pictures, not {per_class}")
        return ImageDataset(chosen, self.class_names, self.transform)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple:
        path, label = self.samples[index]
        if self.is_kept_in_memory:
            if path not in self._pixels:
                self._pixels[path] = self._prepare(path)
            return _normalize(self._pixels[path], self.transform), label
        image = load_image(path)
        return (self.transform(image) if self.transform else image), label

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        """Return a batch's items, as a DataLoader asks for them: those to be kept in threads."""
        if self.is_kept_in_memory and get_worker_info() is None:
            paths = list({self.samples[index][0] for index in indices} - self._pixels.keys())
            if len(paths) > 1:
                with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                    self._pixels |= zip(paths, pool.map(self._prepare, paths), strict=True)
        return [self[index] for index in indices]

    def _prepare(self, path: Path) -> torch.Tensor:
        return _resize_and_crop(load_image(path), self.transform)

    def content_key(self) -> str:
        """Return a hash of all items in their order: files and labels, whatever the transform."""
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            files = list(pool.map(hash_file, (path for path, _ in self.samples)))
        return _sha256(repr((self.targets, files)))

    def fingerprint(self) -> str | None:
        """Return a hash of what a dataloader gets: `content_key()` and the transform.

        None with a transform other than that of pretrained weights: what it does cannot be told.
        """
        if type(self.transform) is not ImageClassification:
            return None
        self._pixels = {}  # what is kept may be older than the files are now
        return _sha256(repr((utils.describe_transform(self.transform), self.content_key())))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pixels": {}}  # a worker process decodes what it is asked for

    def __repr__(self) -> str:
        return f"ImageDataset({len(self)} pictures, {len(self.class_names)} classes)"


# The two halves of ImageClassification.forward, as torchvision has it.


def _resize_and_crop(image: Image.Image, preset: ImageClassification) -> torch.Tensor:
    image = F.resize(image, preset.resize_size, preset.interpolation, antialias=preset.antialias)
    return F.pil_to_tensor(F.center_crop(image, preset.crop_size)).contiguous()


def _normalize(pixels: torch.Tensor, preset: ImageClassification) -> torch.Tensor:
    image = F.convert_image_dtype(pixels, torch.float)
    return F.normalize(image, preset.mean, preset.std, inplace=True)


def memory_budget() -> int:
    """Return how many bytes of pictures a data set may keep: 1/8 of the memory, at most 2 GB."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        physical = 8 * 2**30
    return min(physical // 8, 2 * 2**30)


# --- Splits -------------------------------------------------------------------------------------


@dataclass
class ImageSplits:
    """The three splits of a data set; `how` says in one line where each comes from."""

    class_names: list[str]
    train: ImageDataset
    val: ImageDataset
    test: ImageDataset
    source: str
    how: str
    folder: Path

    def summary(self) -> str:
        """Return `how`, and a table of the pictures in each split and class."""
        counts = [Counter(split.targets) for split in (self.train, self.val, self.test)]
        rows = [("", "train", "val", "test")]
        if len(self.class_names) <= 20:
            for label, name in enumerate(self.class_names):
                rows.append((printable(name), *(str(count[label]) for count in counts)))
        else:
            spans = (f"{min(count.values())}-{max(count.values())}" for count in counts)
            rows.append((f"each of {len(self.class_names)} classes", *spans))
        rows.append(("all", *(str(count.total()) for count in counts)))
        return "\n".join([f"{printable(self.source)}: {self.how}", *_aligned(rows)])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *cells in rows:
        numbers = (f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        lines.append(f"{name:<{first}}{''.join(numbers)}")
    return lines


def load(
    data: str | Path, *, val_fraction: float = 0.2, test_fraction: float = 0.2, seed: int = 42
) -> ImageSplits:
    """Read a data set by name or from a folder, as train, val and test.

    The names are "charts", which is here already, and those of `downloads.DATA_SETS`, which are
    downloaded when they are first asked for (write ./NAME for a folder that is named like one).
    A folder holds train, val and test folders of class folders, or some of them, or class folders
    only. What is missing is taken from the pictures of train, or of all: `val_fraction` and
    `test_fraction` of each class, at least one. Which picture goes where depends on its content
    and the seed alone, so that copies of a picture stay together.

    Warns about files that cannot be used, and about a picture that is in two splits or classes.
    Raises FileNotFoundError or ValueError if there is nothing to learn from, and ConnectionError
    if a data set cannot be downloaded.
    """
    folder = _find_folder(data)
    given = _split_folders(folder)
    root = given.get("train", folder)
    class_names = _find_class_names(root)
    splits, hashes = _read({"train": root} | given, class_names)
    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {name: fractions[name] for name in fractions if name not in given}
    if missing:
        splits |= _carve(splits["train"], class_names, hashes, missing, seed, root)
    for name, samples in splits.items():
        _require_every_class(samples, class_names, given.get(name, root))
    _warn_of_copies(splits, hashes)
    return ImageSplits(
        class_names,
        **{name: ImageDataset(splits[name], class_names) for name in SPLIT_NAMES},
        source=str(data),
        how=_describe(folder, given, missing, seed, hashes),
        folder=folder,
    )


def load_split(folder: str | Path, class_names: list[str]) -> ImageDataset:
    """Read one folder of class folders, with labels as in `class_names`.

    For pictures beside the three splits: `load_split(splits.folder / "shifted", class_names)`.
    """
    folder = _find_folder(folder)
    splits, _ = _read({folder.name: folder}, class_names)
    samples = splits[folder.name]
    _require_every_class(samples, class_names, folder)
    return ImageDataset(samples, class_names)


def list_files(data: str | Path) -> tuple[Path, list[tuple[str, str, Path]]]:
    """Return the folder of a data set, and (split, class, path) of each file that load looks at.

    The files need not be pictures. "" is the split where there are no split folders, and the class
    of a file that is in no class folder.
    """
    folder = _find_folder(data)
    files = []
    for split, root in (_split_folders(folder) or {"": folder}).items():
        for path in _visible(root):
            if path.is_dir():
                files += [(split, path.name, file) for file in _walk(path)]
            else:
                files.append((split, "", path))
    return folder, files


def _find_folder(data: str | Path) -> Path:
    if isinstance(data, str) and data in downloads.DATA_SETS:
        return downloads.prepare(data)
    known = DATA_SETS.get(data) if isinstance(data, str) else None
    folder = known or Path(data).expanduser()
    if folder.is_dir():
        return folder
    if known:
        raise FileNotFoundError(
            f"{printable(known)} is missing: draw it with python -m going_modular.{data}"
        )
    if folder.exists():
        raise ValueError(
            f"{printable(folder)} is a file: give the folder that holds the pictures, unpacked"
        )
    names = ", ".join([*DATA_SETS, *downloads.DATA_SETS])
    raise FileNotFoundError(
        f"{printable(data)} is neither a data set known by name ({names}) nor a folder: "
        f"there is nothing at {printable(folder.absolute())}"
    )


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder in the order of its names, the same on every system."""
    entries = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in CLUTTER
    ]
    return sorted(entries, key=lambda path: path.name)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS


def _split_folders(folder: Path) -> dict[str, Path]:
    found = {}
    for path in _folders(folder):
        for split, names in SPLIT_NAMES.items():
            if path.name.lower() in names:
                if split in found:
                    pair = f"{printable(found[split])} and {printable(path)}"
                    raise ValueError(f"{pair} are both {split}: remove one")
                found[split] = path
    if found and "train" not in found:
        (split, path), *_ = found.items()
        raise ValueError(
            f"{printable(folder)} has {path.name}, which is read as {split}, but no train folder: "
            f"add one (or rename {path.name}, if it is a class)"
        )
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _find_class_names(root: Path) -> list[str]:
    folders = _folders(root)
    if len(folders) > 1:
        return [path.name for path in folders]
    if not folders:
        raise ValueError(
            f"{printable(root)} holds no class folders: put the pictures of each class into a "
            "folder of its own, named like the class"
        )
    hint = f", or did you mean {printable(folders[0])}?" if _folders(folders[0]) else ""
    raise ValueError(
        f"{printable(root)} holds one class folder only, {folders[0].name!r}: there is nothing to "
        f"tell apart. Add a folder for a second class{hint}"
    )


def _read(
    folders: dict[str, Path], class_names: list[str]
) -> tuple[dict[str, list[Sample]], dict[Path, str]]:
    """Return the usable samples of each folder, and a hash of each picture's file."""
    unused = []
    listed = {name: _list_pictures(path, class_names, unused) for name, path in folders.items()}
    hashes = _hash_pictures([path for samples in listed.values() for path, _ in samples], unused)
    if unused:
        files = _first([f"{path} ({reason})" for path, reason in unused])
        warnings.warn(f"files left out ({len(unused)}): {files}", stacklevel=3)
    usable = {
        name: [(path, label) for path, label in samples if path in hashes]
        for name, samples in listed.items()
    }
    return usable, hashes


def _list_pictures(
    root: Path, class_names: list[str], unused: list[tuple[Path, str]]
) -> list[Sample]:
    """Return the pictures under each class folder; add to `unused` what is no picture."""
    loose = [path for path in _visible(root) if _is_picture(path) and not path.is_dir()]
    if loose and not _folders(root):
        raise ValueError(
            f"{printable(root)} holds pictures ({len(loose)}) but no class folders, so their "
            "classes are unknown: put them into class folders, or move them elsewhere"
        )
    unused += [(path, "in no class folder") for path in loose]
    samples, labels = [], {name: label for label, name in enumerate(class_names)}
    for class_folder in _folders(root):
        for path in _walk(class_folder):
            if not _is_picture(path):
                unused.append((path, _not_read(path)))
            elif class_folder.name in labels:
                samples.append((path, labels[class_folder.name]))
            else:
                raise ValueError(
                    f"{printable(class_folder)} is a class unknown to train, which has "
                    f"{_first(class_names)}: rename or remove it"
                )
    return samples


def _not_read(path: Path) -> str:
    heic = path.suffix.lower() in (".heic", ".heif")
    hint = ", save it as JPEG" if heic else ""
    return f"{printable(path.suffix) or 'no extension'}: not a type that is read{hint}"


def _walk(folder: Path) -> Iterable[Path]:
    """Yield the files below a folder, in the order of their names, each real folder's once.

    Links to folders could lead back up, or to one another in more ways than can be counted.
    """
    ahead, seen = [folder], set()
    while ahead:
        path = ahead.pop()
        if not path.is_dir():
            yield path
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            ahead += reversed(_visible(path))


def _hash_pictures(paths: list[Path], unused: list[tuple[Path, str]]) -> dict[Path, str]:
    """Return a hash of each file's bytes; add to `unused` those that cannot be decoded.

    Every file is read and decoded here, so that a broken one is known now and not in epoch 3.
    It costs less than reading the set once in training: JPEGs at 1/8 of their size, in threads.
    """
    hashes = {}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        options = {"leave": False, "delay": 2} if utils.is_watched() else {"disable": True}
        checks = tqdm(pool.map(_hash_picture, paths), "Checking pictures", len(paths), **options)
        for path, (digest, problem) in zip(paths, checks, strict=True):
            if problem:
                unused.append((path, problem))
            else:
                hashes[path] = digest
    return hashes


def _hash_picture(path: Path) -> tuple[str, str]:
    try:
        digest = hash_file(path)
        with _open(path) as file:
            _decode(file, draft=True)
    except Exception as error:  # as in load_image
        return "", problem(path, error)
    return digest, ""


def _carve(
    samples: list[Sample],
    class_names: list[str],
    hashes: dict[Path, str],
    fractions: dict[str, float],
    seed: int,
    root: Path,
) -> dict[str, list[Sample]]:
    """Split samples into train and the splits of `fractions`, class by class."""
    if min(fractions.values()) <= 0 or sum(fractions.values()) >= 1:
        raise ValueError(f"fractions must be above 0 and below 1 in all, not {fractions}")
    split_of = {}  # hash -> split, over all classes: one picture may be found in two
    for label, name in enumerate(class_names):
        distinct = {hashes[path] for path, label_ in samples if label_ == label}
        if len(distinct) <= len(fractions):
            raise ValueError(
                f"class {name!r} in {printable(root)} has {len(distinct)} different pictures, and "
                f"at least {len(fractions) + 1} are needed, one for each of train, "
                f"{' and '.join(fractions)}: add pictures (types read: "
                f"{' '.join(sorted(IMAGE_EXTENSIONS))}) or remove the class"
            )
        # A shuffle that depends on content and seed only: a picture that is added, renamed or
        # listed in another order moves no other far.
        order = sorted(distinct, key=lambda digest: _sha256(f"{seed} {digest}"))
        placed = Counter(split_of[digest] for digest in order if digest in split_of)
        free = [digest for digest in order if digest not in split_of]
        for split, number in _sizes(len(distinct), fractions).items():
            number = max(0, number - placed[split])
            split_of |= dict.fromkeys(free[:number], split)
            free = free[number:]
        split_of |= dict.fromkeys(free, "train")
    return {
        split: [(path, label) for path, label in samples if split_of[hashes[path]] == split]
        for split in ("train", *fractions)
    }


def _sizes(count: int, fractions: dict[str, float]) -> dict[str, int]:
    """Return how many of `count` pictures each split gets, leaving one at least for the others."""
    sizes = {}
    for i, (split, fraction) in enumerate(fractions.items(), start=1):
        most = count - sum(sizes.values()) - (len(fractions) - i) - 1
        sizes[split] = min(max(1, round(count * fraction)), most)
    return sizes


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, of which few are in memory at a time."""
    digest = hashlib.sha256()
    with _open(path) as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _require_every_class(samples: list[Sample], class_names: list[str], folder: Path) -> None:
    present = {label for _, label in samples}
    absent = [name for label, name in enumerate(class_names) if label not in present]
    if absent:
        raise ValueError(
            f"{printable(folder)} has no usable picture of {_first(absent)}: add some "
            f"(types read: {' '.join(sorted(IMAGE_EXTENSIONS))}), or remove the class everywhere"
        )


def _warn_of_copies(splits: dict[str, list[Sample]], hashes: dict[Path, str]) -> None:
    first, shared, relabelled = {}, [], []
    for split, samples in splits.items():
        for path, label in samples:
            path_, label_, split_ = first.setdefault(hashes[path], (path, label, split))
            if split != split_:
                shared.append(f"{path_} = {path}")
            if label != label_:
                relabelled.append(f"{path_} = {path}")
    if shared:
        warnings.warn(
            f"the same picture in two splits ({len(shared)}), which makes results look better "
            f"than they are; delete one of each: {_first(shared)}",
            stacklevel=3,
        )
    if relabelled:
        warnings.warn(
            f"the same picture in two classes ({len(relabelled)}); delete the wrong one of each: "
            f"{_first(relabelled)}",
            stacklevel=3,
        )


def _first(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + rest


def _describe(
    folder: Path,
    given: dict[str, Path],
    missing: dict[str, float],
    seed: int,
    pictures: Iterable[Path],
) -> str:
    percents = [f"{split} is {fraction:.0%} of each class" for split, fraction in missing.items()]
    parts = []
    if given:
        parts.append(f"{', '.join(given)} as given")
    if percents:
        origin = " of train" if given else ""
        parts.append(f"{', '.join(percents)}{origin}, chosen with seed {seed}")
    others = [path.name for path in _folders(folder) if path not in given.values()]
    if given and others:
        parts.append(f"not used: {_first(others)}")
    if links := links_outside(folder, pictures):
        parts.append(f"{len(links)} pictures are links to other places: {_first(links)}")
    return "; ".join(parts)


def links_outside(folder: Path, pictures: Iterable[Path]) -> list[str]:
    """Describe the pictures that lie elsewhere than in the folder that leads to them."""
    top, pictures = folder.resolve(), list(pictures)
    places = {parent: parent.resolve() for parent in {path.parent for path in pictures}}
    found = []
    for path in pictures:
        real = path.resolve() if path.is_symlink() else places[path.parent] / path.name
        if not real.is_relative_to(top):
            found.append(f"{path.relative_to(folder)} is {real}")
    return found


# --- Transforms and dataloaders -----------------------------------------------------------------


def create_transform(
    model: str, *, size: int | None = None, augment: bool = False
) -> ImageClassification | v2.Compose:
    """Return the transform that a model's pretrained weights expect.

    `size` is the side of the crop in pixels; the resize before it keeps the weights' proportion.
    `augment` varies crop, side and colour a little, for training only, in the same value range.
    """
    weights = get_model_weights(model).DEFAULT
    preset = weights.transforms()
    if not isinstance(preset, ImageClassification):
        raise ValueError(f"{model} is not an image classification model: choose one that is")
    if size is not None:
        resize_size = round(size * preset.resize_size[0] / preset.crop_size[0])
        preset = weights.transforms(crop_size=size, resize_size=resize_size)
    return _augmented(preset) if augment else preset


def _augmented(preset: ImageClassification) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                preset.crop_size[0],
                scale=(0.5, 1.0),
                ratio=(3 / 4, 4 / 3),
                interpolation=preset.interpolation,
                antialias=True,
            ),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            v2.PILToTensor(),
            v2.ToDtype(torch.float, scale=True),
            v2.Normalize(preset.mean, preset.std),
        ]
    )


def default_num_workers() -> int:
    """Return how many processes should read pictures beside the one that trains.

    Without a CUDA GPU, none: they would take the cores that train. On macOS and Windows, none:
    they start slowly, and fail in a script that has no `if __name__ == "__main__"`.
    """
    if not (torch.cuda.is_available() and sys.platform == "linux"):
        return 0
    return min(8, len(os.sched_getaffinity(0)))


def create_dataloader(
    pictures: ImageDataset,
    transform: Callable,
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    num_workers: int | None = None,
    seed: int | None = None,
) -> DataLoader:
    """Return batches of `pictures`, as `transform` makes them: (N, 3, H, W) and labels (N,).

    `num_workers` None: no extra process where each picture is decoded once only, else
    `default_num_workers()`. A `seed` fixes the shuffled order whatever else draws random numbers.
    """
    dataset = ImageDataset(pictures.samples, pictures.class_names, transform)
    if num_workers is None:
        num_workers = 0 if dataset.is_kept_in_memory else default_num_workers()
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        pin_memory=torch.cuda.is_available(),
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )


def create_dataloaders(
    train_dir: str | Path,
    test_dir: str | Path,
    transform: Callable,
    batch_size: int,
    num_workers: int | None = None,
) -> tuple[DataLoader, DataLoader, list[str]]:
    """Return (train_dataloader, test_dataloader, class_names) of two folders of class folders.

    What is looked at after every epoch, and chosen by, is a validation set: give its folder as
    `test_dir`, and keep a test set for the end. `load` makes all three.
    """
    folders = {"train": _find_folder(train_dir), "test": _find_folder(test_dir)}
    class_names = _find_class_names(folders["train"])
    splits, hashes = _read(folders, class_names)
    for name, samples in splits.items():
        _require_every_class(samples, class_names, folders[name])
    _warn_of_copies(splits, hashes)
    train_dataloader, test_dataloader = (
        create_dataloader(
            ImageDataset(splits[name], class_names),
            transform,
            batch_size=batch_size,
            shuffle=name == "train",
            num_workers=num_workers,
        )
        for name in ("train", "test")
    )
    return train_dataloader, test_dataloader, class_names
