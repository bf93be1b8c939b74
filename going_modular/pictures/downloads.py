"""Known data sets, downloaded on first use: from a name to an ordinary folder of split folders.

It knows addresses, archives and where the images lie in them. It does not read images for training:
that is `data_setup`, for which a folder made here is like any other.
"""

import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pooch
import requests
from filelock import FileLock
from torchvision.datasets import CIFAR10, Flowers102, Food101, OxfordIIITPet, VisionDataset
from tqdm.auto import tqdm

from going_modular import utils

RETRIES = 3  # of a download that breaks off: after 1, 2 and 3 seconds
TIMEOUT = (5, 30)  # seconds to connect, and between two pieces of the answer
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, ValueError)


class DataSet(NamedTuple):
    """Where a data set's files are, their checksums, and how torchvision opens each split."""

    base_url: str
    registry: dict[str, str | None]  # file -> checksum, as pooch takes them
    folder: str = ""  # below which torchvision looks for what is in the files
    splits: dict[str, Callable[..., VisionDataset]] | None = None  # None: a zip of split folders


DATA_SETS = {  # addresses and checksums are torchvision's; for the two zips none is published
    "hymenoptera": DataSet(
        "https://download.pytorch.org/tutorial/",
        {"hymenoptera_data.zip": None},
    ),
    "pizza_steak_sushi": DataSet(
        "https://github.com/mrdbourke/pytorch-deep-learning/raw/main/data/",
        {"pizza_steak_sushi.zip": None},
    ),
    "cifar10": DataSet(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"},
        splits={"train": partial(CIFAR10, train=True), "test": partial(CIFAR10, train=False)},
    ),
    "oxford_pets": DataSet(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/",
        {
            "images.tar.gz": "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "annotations.tar.gz": "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
        },
        "oxford-iiit-pet",
        {"train": OxfordIIITPet, "test": partial(OxfordIIITPet, split="test")},
    ),
    "flowers102": DataSet(
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        {
            "102flowers.tgz": "md5:52808999861908f626f3c1f4e79d11fa",
            "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
            "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
        },
        "flowers-102",
        {split: partial(Flowers102, split=split) for split in ("train", "val", "test")},
    ),
    "food101": DataSet(
        "http://data.vision.ee.ethz.ch/cvl/",
        {"food-101.tar.gz": "md5:85eeb15f3717b99a5da872d97d918f87"},
        splits={split: partial(Food101, split=split) for split in ("train", "test")},
    ),
}


def prepare(name: str) -> Path:
    """Return the folder of a data set in `DATA_SETS`; download and unpack it if need be.

    It is in `download_folder()`; if it is there already, it is used as it is. A new one appears
    whole or not at all: until then everything is in a hidden folder beside it, where a later run
    finds the files that have arrived. Raises ConnectionError if a file cannot be downloaded and
    ValueError if one is broken, saying what to do by hand.
    """
    data_set, root = DATA_SETS[name], download_folder()
    folder, work = root / name, root / f".{name}"
    if folder.is_dir() and not work.is_dir():
        return folder
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / f".{name}.lock"):  # two commands at once download once
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=work) as temporary:
                    _make(data_set, root, work, Path(temporary)).rename(folder)
            shutil.rmtree(work, ignore_errors=True)
    except (ConnectionError, ValueError) as error:
        place = root / data_set.folder
        files = (f"  {data_set.base_url}{file}\n  as {place / file}" for file in data_set.registry)
        raise type(error)(
            f"{name}: {error}.\nTo download it by hand, save\n" + "\n".join(files) + "\nand try "
            f"again, or put the images into {folder / 'train'}, one folder per class. "
            "The data set charts needs no download."
        ) from error
    return folder


def download_folder() -> Path:
    """Return where data sets are kept: GOING_MODULAR_DATA, `data` in a checkout, or the cache."""
    checkout = Path(__file__).resolve().parents[2]
    is_checkout = (checkout / "pyproject.toml").is_file()
    default = checkout / "data" if is_checkout else pooch.os_cache("going_modular")
    return Path(os.environ.get("GOING_MODULAR_DATA") or default).expanduser().absolute()


def _make(data_set: DataSet, root: Path, work: Path, temporary: Path) -> Path:
    """Return a folder of split folders, made in `temporary` from files in `root` or `work`."""
    unpacked, ready = temporary / "unpacked", temporary / "ready"
    for file in data_set.registry:
        given = root / data_set.folder / file
        path = given if given.is_file() else work / file
        try:
            _fetch(data_set, path)
            _unpack(path, unpacked / data_set.folder)
            if data_set.splits is None:
                return _find_splits(unpacked)
        except BROKEN as error:
            if path == given:
                raise ValueError(f"{path} is broken ({error}): save it again") from error
            path.unlink(missing_ok=True)
            raise ValueError(f"{data_set.base_url}{file} arrived broken ({error})") from error
    for split, open_split in data_set.splits.items():
        _place(open_split(unpacked), ready / split)
    return ready


def _fetch(data_set: DataSet, path: Path) -> None:
    """Download a file, unless it is there, and compare its checksum."""
    if utils.is_offline() and not path.is_file():
        raise ConnectionError(f"{path.name} is not there yet, and GOING_MODULAR_OFFLINE is set")
    source = pooch.create(
        path.parent,
        data_set.base_url,
        registry=data_set.registry,
        retry_if_failed=RETRIES,
        allow_updates=False,  # what a user put there is not replaced
    )
    downloader = pooch.HTTPDownloader(utils.is_watched(), chunk_size=2**16, timeout=TIMEOUT)
    try:
        if not path.is_file():
            source.is_available(path.name, downloader)  # raises at once where no network is
        source.fetch(path.name, downloader=downloader)
    except requests.RequestException as error:
        reason = utils.one_line(error)
        raise ConnectionError(f"cannot get {source.get_url(path.name)} ({reason})") from error


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a .zip or .tar.gz into `folder`, and nothing outside it; copy any other file there."""
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    elif path.suffix in (".gz", ".tgz"):
        has_filter = hasattr(tarfile, "data_filter")  # since Python 3.10.12 and 3.11.4
        with tarfile.open(path) as archive:
            archive.extractall(folder, **({"filter": "data"} if has_filter else {}))
    else:
        shutil.copy(path, folder)


def _find_splits(unpacked: Path) -> Path:
    """Return the folder that holds the train folder: `unpacked`, or one in it."""
    for folder in (unpacked, *unpacked.iterdir()):
        if (folder / "train").is_dir():
            # The PyTorch tutorial's archive has this among the ants; its ImageFolder skips GIFs.
            (folder / "train" / "ants" / "imageNotFound.gif").unlink(missing_ok=True)
            return folder
    raise ValueError("it holds no train folder")


def _place(images: VisionDataset, folder: Path) -> None:
    """Move the files that torchvision lists into class folders; write CIFAR-10's arrays as PNG."""
    classes = [folder / re.sub(r'[<>:"/\\|?*]', "", name) for name in images.classes]  # for Windows
    for path in classes:
        path.mkdir(parents=True)
    if isinstance(images, CIFAR10):
        bar = tqdm(images, f"Writing {folder.name}", leave=False, disable=not utils.is_watched())
        for i, (image, label) in enumerate(bar):
            image.save(classes[label] / f"{i:05}.png", compress_level=1)
        return
    # Private, but reading and writing each image, the public way, would change its pixels.
    paths = images._images if isinstance(images, OxfordIIITPet) else images._image_files
    for path, label in zip(paths, images._labels, strict=True):
        path.rename(classes[label] / path.name)
