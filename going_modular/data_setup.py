"""Images on disk: from a folder, or a data set's name, to splits, transforms and dataloaders.

How files, folders and splits are read is in `pictures`. Nothing here knows which model will look at
the images, except by the name whose pretrained weights say how they want them prepared.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification  # what weights.transforms() returns

from going_modular import utils
from going_modular.models import weights as pretrained
from going_modular.pictures import downloads, folders, splits, tables
from going_modular.pictures.dataset import ImageDataset
from going_modular.pictures.image import load_image
from going_modular.utils import printable

__all__ = [
    "DATA_SETS",
    "ImageDataset",
    "ImageSplits",
    "create_dataloader",
    "create_dataloaders",
    "create_transform",
    "find_folder",
    "load",
    "load_image",
    "load_split",
]

RESIZES = "crop", "squash", "pad"
AUGMENTATIONS = "none", "light", "trivial"
DATA_SETS = {"charts": utils.data_folder() / "charts"}

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
        """Return `how`, and a table of the images in each split and class."""
        counts = [Counter(split.targets) for split in (self.train, self.val, self.test)]
        rows = [("", "train", "val", "test")]
        if len(self.class_names) <= 20:
            for label, name in enumerate(self.class_names):
                rows.append((printable(name), *(str(count[label]) for count in counts)))
        else:
            spans = (f"{min(count.values())}-{max(count.values())}" for count in counts)
            rows.append((f"each of {len(self.class_names)} classes", *spans))
        rows.append(("all", *(str(count.total()) for count in counts)))
        lines = [f"{printable(self.source)}: {self.how}", *_aligned(rows), self.imbalance()]
        return "\n".join(filter(None, lines))

    def imbalance(self) -> str:
        """Say in one line which class is rare in train, where one has under a third of another."""
        counts = Counter(self.train.targets).most_common()
        (most, many), (least, few) = counts[0], counts[-1]
        if many <= 3 * few:
            return ""
        rare, common = (printable(self.class_names[label]) for label in (least, most))
        share = self.val.targets.count(most) / len(self.val)
        return (
            f"unbalanced: {few} images of {rare}, {many} of {common}. Answering {common} every "
            f"time would be right for {share:.3f} of val: look at balanced accuracy"
        )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *cells in rows:
        numbers = (f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        lines.append(f"{name:<{first}}{''.join(numbers)}")
    return lines


def load(
    data: str | Path,
    *,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 42,
    groups: str | None = None,
    labels: str | Path | None = None,
) -> ImageSplits:
    """Read a data set by name or from a folder, as train, val and test.

    The names are "charts", which is here already, and those of `downloads.DATA_SETS`, which are
    downloaded when they are first asked for (write ./NAME for a folder that is named like one).
    A folder holds train, val and test folders of class folders, or some of them, or class folders
    only. What is missing is taken from the images of train, or of all: `val_fraction` and
    `test_fraction` of each class, at least one. Which image goes where depends on its content
    and the seed alone, so that copies of an image stay together.

    `groups` keeps more together, such as all images of one patient, camera or burst: "folder" goes
    by the folder that an image lies in, any other text is a regular expression that finds the
    group's name in the file's name, as in "(patient[0-9]+)_". Fractions are then of groups.

    `labels` is a table with a row for each image, where folders do not say the classes; see
    `tables.read`.

    Warns about files that cannot be used, and about an image that is in two splits or classes.
    Raises FileNotFoundError or ValueError if there is nothing to learn from, and ConnectionError
    if a data set cannot be downloaded.
    """
    folder = find_folder(data)
    if labels:
        class_names, listed, source = tables.read(labels, folder)
        given, roots = {}, {"train": folder}
        samples, hashes = splits.usable({"train": listed})
    else:
        given = folders.find_splits(folder)
        roots = given or {"train": folder}
        class_names = folders.find_class_names(roots["train"])
        samples, hashes = splits.read(roots, class_names)
        source = ""
    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {name: fractions[name] for name in fractions if name not in given}
    if missing:
        together = hashes if groups is None else splits.group(samples["train"], groups)
        samples |= splits.carve(
            samples["train"], class_names, together, missing, seed, roots["train"]
        )
    splits.check(samples, class_names, roots, hashes)
    return ImageSplits(
        class_names,
        **{name: ImageDataset(samples[name], class_names) for name in folders.SPLITS},
        source=str(data),
        how="; ".join(
            filter(
                None,
                [
                    source,
                    _describe(folder, given, missing, seed, hashes),
                    f"groups by {groups} stay together" if groups and missing else "",
                ],
            )
        ),
        folder=folder,
    )


def load_split(
    folder: str | Path, class_names: list[str], *, all_classes: bool = True
) -> ImageDataset:
    """Read one folder of class folders, with labels as in `class_names`.

    For images beside the three splits: `load_split(splits.folder / "shifted", class_names)`.
    Raises ValueError for a class that is not in `class_names`, where there is no image, and with
    `all_classes` where a class has none.
    """
    folder = find_folder(folder)
    roots = {folder.name: folder}
    samples, hashes = splits.read(roots, class_names)
    found = {label for _, label in samples[folder.name]}
    if not found:
        raise ValueError(f"{printable(folder)} has no usable image of {splits.first(class_names)}")
    if all_classes:
        splits.check(samples, class_names, roots, hashes)
    return ImageDataset(samples[folder.name], class_names)


def find_folder(data: str | Path) -> Path:
    """Return the folder of a data set, given by its name or as a folder; download it if need be."""
    if isinstance(data, str) and data in downloads.DATA_SETS:
        return downloads.prepare(data)
    known = DATA_SETS.get(data) if isinstance(data, str) else None
    folder = known or Path(data).expanduser()
    if folder.is_dir():
        return folder
    if known:
        raise FileNotFoundError(
            f"{printable(known)} is missing: draw it with python data/draw_{data}.py"
        )
    if folder.exists():
        raise ValueError(
            f"{printable(folder)} is a file: unpack it, and give the folder that holds the images"
        )
    names = ", ".join([*DATA_SETS, *downloads.DATA_SETS])
    raise FileNotFoundError(
        f"{printable(data)} is neither a data set known by name ({names}) nor a folder: "
        f"there is nothing at {printable(folder.absolute())}"
    )


def _describe(
    folder: Path,
    given: dict[str, Path],
    missing: dict[str, float],
    seed: int,
    images: Iterable[Path],
) -> str:
    percents = [f"{split} is {fraction:.0%} of each class" for split, fraction in missing.items()]
    parts = []
    if given:
        parts.append(f"{', '.join(given)} as given")
    if percents:
        origin = " of train" if given else ""
        parts.append(f"{', '.join(percents)}{origin}, chosen with seed {seed}")
    tops = {path.relative_to(folder).parts[0] for path in given.values()}
    others = [path.name for path in folders.subfolders(folder) if path.name not in tops]
    if given and others:
        parts.append(f"not used: {splits.first(others)}")
    if links := folders.links_outside(folder, images):
        parts.append(f"links to other places ({len(links)}): {splits.first(links)}")
    return "; ".join(parts)


# --- Transforms and dataloaders -----------------------------------------------------------------


def create_transform(
    name: str,
    weights: Any = "DEFAULT",
    *,
    size: int | None = None,
    augment: bool | str = False,
    mirror: bool = True,
    resize: str = "crop",
) -> ImageClassification | v2.Compose:
    """Return the transform that a model's pretrained weights expect.

    `name` and `weights` are those that `model_builder.create_model` was given.
    `size` is the side of the crop in pixels; the resize before it keeps the weights' proportion.
    `augment`, for training only: "light" or True varies crop, side and colour a little; "trivial"
    adds one random change of random strength to each image (https://arxiv.org/abs/2103.10158).
    `mirror=False` never swaps left and right, for images where that changes the class.
    `resize` says what becomes of an image that is not square: "crop" keeps the middle, as the
    weights had it, "squash" squeezes all of it into the square, "pad" puts bars beside it.
    """
    preset = pretrained.preset(name, weights, size)
    if resize not in RESIZES:
        raise ValueError(f"resize={resize!r}: use one of {', '.join(RESIZES)}")
    if resize != "crop":
        side = preset.crop_size[0]
        described = utils.describe_transform(preset) | {"resize_size": [side, side]}
        preset = utils.build_transform(described | {"pad": resize == "pad"})
    if augment not in (True, False, *AUGMENTATIONS):
        raise ValueError(f"augment={augment!r}: use one of {', '.join(AUGMENTATIONS)}")
    if augment in (False, "none"):
        return preset
    flip = [v2.RandomHorizontalFlip()] if mirror else []
    vary = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    if augment == "trivial":
        vary = v2.TrivialAugmentWide(interpolation=preset.interpolation)
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                preset.crop_size[0],
                scale=(0.5, 1.0),
                ratio=(3 / 4, 4 / 3),
                interpolation=preset.interpolation,
                antialias=True,
            ),
            *flip,
            vary,
            v2.PILToTensor(),
            v2.ToDtype(torch.float, scale=True),
            v2.Normalize(preset.mean, preset.std),
        ]
    )


def default_num_workers() -> int:
    """Return how many processes should read images beside the one that trains.

    Without a CUDA GPU, none: they would take the cores that train. On macOS and Windows, none:
    they start slowly, and fail in a script that has no `if __name__ == "__main__"`.
    """
    if not (torch.cuda.is_available() and sys.platform == "linux"):
        return 0
    return min(8, len(os.sched_getaffinity(0)))


def create_dataloader(
    images: ImageDataset,
    transform: Callable,
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    num_workers: int | None = None,
    seed: int | None = None,
) -> DataLoader:
    """Return batches of `images`, as `transform` makes them: (N, 3, H, W) and labels (N,).

    `num_workers` None: no extra process where each image is decoded once only, else
    `default_num_workers()`. A `seed` fixes the shuffled order whatever else draws random numbers.
    """
    dataset = ImageDataset(images.samples, images.class_names, transform)
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
    roots = {"train": find_folder(train_dir), "test": find_folder(test_dir)}
    class_names = folders.find_class_names(roots["train"])
    samples, hashes = splits.read(roots, class_names)
    splits.check(samples, class_names, roots, hashes)
    train_dataloader, test_dataloader = (
        create_dataloader(
            ImageDataset(samples[name], class_names),
            transform,
            batch_size=batch_size,
            shuffle=name == "train",
            num_workers=num_workers,
        )
        for name in ("train", "test")
    )
    return train_dataloader, test_dataloader, class_names
