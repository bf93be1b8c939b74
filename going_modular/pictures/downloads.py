"""Known data sets, downloaded on first use: from a name to an ordinary folder of split folders.

It knows addresses, archives and where the pictures lie in them. It does not read pictures for
training: that is `data_setup`, for which a folder made here is like any other.
"""

import errno
import itertools
import os
import re
import shutil
import socket
import ssl
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from PIL import Image
from requests.exceptions import ConnectTimeout, ProxyError
from torchvision import datasets
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ProtocolError

from going_modular import utils

MB = 10**6
CHUNK = 2**16
WAITS = (1, 2, 4, 8)  # seconds between attempts of which none brings anything new
TIMEOUT = (5, 30)  # seconds: to connect to one address, and between two pieces of the answer
FIRST_BYTES = {".zip": b"PK", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b", ".mat": b"MATLAB"}
ZIP_TYPES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, OSError)


# --- The data sets ------------------------------------------------------------------------------

CIFAR10, PETS = datasets.CIFAR10, datasets.OxfordIIITPet
FLOWERS, FOOD = datasets.Flowers102, datasets.Food101


class Archive(NamedTuple):
    """A file to download; `folder` is where torchvision keeps and unpacks it, below its root."""

    url: str
    md5: str | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


class DataSet(NamedTuple):
    """Where a data set comes from, and what it must be when it is complete."""

    archives: Callable[[], list[Archive]]
    open: Callable[[Path, str], datasets.VisionDataset] | None  # a split; None: plain folders
    counts: dict[str, int]  # pictures in each split
    megabytes: int  # on disk while it is put in order, without the archives


TUTORIAL = "https://download.pytorch.org/tutorial/"
COURSE = "https://github.com/mrdbourke/pytorch-deep-learning/raw/main/data/"

# Addresses and checksums are those of torchvision's classes, asked for when they are needed. For
# the first two no checksum is published: the archive's own must do, and a look at each picture.
DATA_SETS = {
    "hymenoptera": DataSet(
        lambda: [Archive(TUTORIAL + "hymenoptera_data.zip")],
        None,
        {"train": 244, "val": 153},
        60,
    ),
    "pizza_steak_sushi": DataSet(
        lambda: [Archive(COURSE + "pizza_steak_sushi.zip")],
        None,
        {"train": 225, "test": 75},
        30,
    ),
    "cifar10": DataSet(
        lambda: [Archive(CIFAR10.url, CIFAR10.tgz_md5)],
        lambda root, split: CIFAR10(root, train=split == "train"),
        {"train": 50_000, "test": 10_000},
        500,
    ),
    "oxford_pets": DataSet(
        lambda: [Archive(url, md5, "oxford-iiit-pet") for url, md5 in PETS._RESOURCES],
        lambda root, split: PETS(root, "trainval" if split == "train" else split),
        {"train": 3_680, "test": 3_669},
        1_000,
    ),
    "flowers102": DataSet(
        lambda: [
            Archive(FLOWERS._download_url_prefix + name, md5, "flowers-102")
            for name, md5 in FLOWERS._file_dict.values()
        ],
        FLOWERS,
        {"train": 1_020, "val": 1_020, "test": 6_149},
        400,
    ),
    "food101": DataSet(
        lambda: [Archive(FOOD._URL, FOOD._MD5)],
        FOOD,
        {"train": 75_750, "test": 25_250},
        5_500,
    ),
}


# --- From a name to a folder --------------------------------------------------------------------


def prepare(name: str) -> Path:
    """Return the folder of a data set in `DATA_SETS`; download it and put it in order, if need be.

    It is in `data` beside this package, or in the folder that the environment variable
    GOING_MODULAR_DATA names. A folder that is there is used as it is. A new one appears whole or
    not at all: until then everything is in a hidden folder beside it, where a later run goes on.
    Raises ConnectionError, ValueError or OSError, saying what to do by hand.
    """
    default = Path(__file__).resolve().parent.parent.parent / "data"
    root = Path(os.environ.get("GOING_MODULAR_DATA") or default).expanduser().absolute()
    folder, work = root / name, root / f".{name}"
    if folder.is_dir() and not work.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".{name}.lock")  # which the system releases if the process is killed
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        _say(f"{name}: waiting for another process that prepares it")
        held = lock.acquire()
    with held:
        if not folder.is_dir():
            _make(name, root, work).rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _make(name: str, root: Path, work: Path) -> Path:
    """Return a folder in `work` that holds the data set, complete and in order."""
    data_set, files = DATA_SETS[name], []
    archives = data_set.archives()
    unpacked, ready = work / "unpacked", work / "ready"
    most = 4 * sum(data_set.counts.values()) + 1000
    try:
        for archive in archives:
            files.append(_find(name, archive, root, work))
        _require_space(root, data_set.megabytes * MB)
        for path in (unpacked, ready):
            shutil.rmtree(path, ignore_errors=True)  # left by a run that was interrupted
            path.mkdir(parents=True)
        for archive, path in zip(archives, files, strict=True):
            _check_md5(path, archive.md5)
            unpack(path, unpacked / archive.folder, 2 * data_set.megabytes * MB, most)
        for split in data_set.counts:
            if data_set.open:
                _place(data_set.open(unpacked, split), ready / split)
            else:
                _place_folder(unpacked, ready / split)
        _check_pictures(ready, data_set.counts, decode=not archives[0].md5)
    except (ConnectionError, ValueError) as error:
        lines = [f"{name}: {error}."]
        if isinstance(error, ValueError):
            shutil.rmtree(work)  # with what was downloaded: no later run shall trust it
            given = ", ".join(str(path) for path in files if path.is_file())
            done = f"Replace or delete {given}" if given else "The download is deleted; try again"
            lines.append(f"{done}.")
        lines.append("To download it by hand, save")
        lines += [f"  {item.url}\n  as {root / item.folder / item.name}" for item in archives]
        lines.append(f"and try again, or put the pictures into {root / name / 'train'}, one folder")
        lines.append("a class. The data set charts needs no download.")
        raise type(error)("\n".join(lines)) from error
    return ready


def _find(name: str, archive: Archive, root: Path, work: Path) -> Path:
    """Return the file that somebody put beside the data sets, or else a download in `work`."""
    path = root / archive.folder / archive.name
    if path.is_file():
        _say(f"{name}: using {path}")
        return path
    path = work / archive.name
    if not path.is_file():
        if utils.is_offline():
            raise ConnectionError(f"it is not in {root} yet, and GOING_MODULAR_OFFLINE is set")
        _say(f"{name}: downloading {archive.url}")
        fetch(archive.url, path, DATA_SETS[name].megabytes * MB)
    return path


def _place_folder(unpacked: Path, folder: Path) -> None:
    """Move the split folder of an archive that is laid out like ours, perhaps in one folder."""
    for root in (unpacked, *unpacked.iterdir()):
        if (root / folder.name).is_dir():
            (root / folder.name).rename(folder)
            break
    # The PyTorch tutorial's archive has it among the ants; its ImageFolder reads no GIF.
    for placeholder in folder.rglob("imageNotFound.gif"):
        placeholder.unlink()


def _place(pictures: datasets.VisionDataset, folder: Path) -> None:
    """Move the files that torchvision lists into class folders; write arrays as PNG files."""
    # torchvision before 0.21 has no names for the flowers.
    names = getattr(pictures, "classes", [f"flower {i:03}" for i in range(1, 103)])
    folders = [folder / re.sub(r'[<>:"/\\|?*]', "", name) for name in names]  # as Windows allows
    is_cifar10 = isinstance(pictures, CIFAR10)
    labels = pictures.targets if is_cifar10 else pictures._labels
    for label in set(labels):
        folders[label].mkdir(parents=True)
    if is_cifar10:
        labelled = zip(pictures.data, labels, strict=True)
        bar = _bar(labelled, f"Writing {folder.name}", len(labels), unit=" pictures")
        for i, (pixels, label) in enumerate(bar):
            Image.fromarray(pixels).save(folders[label] / f"{i:05}.png", compress_level=1)
    else:
        paths = pictures._images if isinstance(pictures, PETS) else pictures._image_files
        for path, label in zip(paths, labels, strict=True):
            path.rename(folders[label] / path.name)


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"{folder} has {free / MB:,.0f} MB free and {size / MB:,.0f} MB are needed: "
            "make room, or set GOING_MODULAR_DATA to a folder on another disk"
        )


def _check_md5(path: Path, md5: str | None) -> None:
    found = md5 and datasets.utils.calculate_md5(path)
    if found != md5:
        raise ValueError(f"{path.name} has the MD5 sum {found}, and {md5} is published")


def _check_pictures(folder: Path, counts: dict[str, int], decode: bool) -> None:
    files = {
        split: [path for path in (folder / split).glob("*/*") if not path.name.startswith(".")]
        for split in counts
    }
    for split, paths in files.items():
        if len(paths) != counts[split]:
            raise ValueError(f"it has {len(paths)} {split} pictures instead of {counts[split]}")
    for path in (path for paths in files.values() for path in paths if decode):
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
            raise ValueError(f"{path.name} in it is no readable picture ({error})") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bar(items: Iterable | None, name: str, total: int | None = None, **options: object) -> tqdm:
    if not utils.is_watched():
        options["disable"] = True
    return tqdm(items, name, total, leave=False, **options)


# --- Download -----------------------------------------------------------------------------------


class _TryAgain(Exception):
    """An answer that another attempt may better, in `wait` seconds if the server says when."""

    def __init__(self, reason: str, wait: str = ""):
        super().__init__(reason)
        self.wait = min(60, int(wait)) if wait.isdigit() else 0


def fetch(url: str, path: Path, spare: int = 0) -> None:
    """Download a file, going on with what an earlier attempt or run left in `path`.part.

    `spare` is how many bytes of disk must remain. Raises ConnectionError if the file cannot be
    had: at once if its host cannot be reached at all, or sends a page instead of the file.
    """
    part = path.with_name(f"{path.name}.part")
    failures, most = 0, _size(part)
    for attempt in itertools.count(1):
        try:
            headers = _resume(part)
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                _receive(response, part, spare)
            break
        except (requests.ConnectionError, requests.Timeout, HTTPError, _TryAgain) as error:
            causes = list(_causes(error))
            reason = getattr(causes[-1], "strerror", None) or causes[-1]
            if attempt == 1 and any(_is_out_of_reach(cause) for cause in causes):
                raise ConnectionError(f"cannot reach {urlsplit(url).hostname}: {reason}") from error
            if _size(part) > most:
                failures, most = 0, _size(part)
            if failures == len(WAITS):
                raise ConnectionError(
                    f"gave up {url} after {attempt} attempts: {reason}. "
                    "What has arrived is kept; try again to go on"
                ) from error
            wait = max(WAITS[failures], getattr(error, "wait", 0))
            failures += 1
            _say(f"{path.name}: {reason}; trying again in {wait:g} s")
            time.sleep(wait)
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note(part: Path) -> Path:
    """Return the file that says of which version of the file on the server `part` is."""
    return part.with_name(f"{part.name}.version")


def _resume(part: Path) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if _size(part) and _note(part).is_file():
        headers["Range"] = f"bytes={_size(part)}-"
        headers["If-Range"] = _note(part).read_text("latin-1")
    return headers


def _receive(response: requests.Response, part: Path, spare: int) -> None:
    have, status, headers = _size(part), response.status_code, response.headers
    answer, place = _printable(f"{status} {response.reason}"), headers.get("Content-Range", "")
    version = headers.get("ETag", "W/")
    if version.startswith("W/"):  # a weak tag does not vouch for every byte
        version = headers.get("Last-Modified", "")
    if status == 416 and place == f"bytes */{have}":
        return  # all of it had arrived
    if status in (408, 425, 429) or status >= 500:
        raise _TryAgain(f"the server answers {answer}", headers.get("Retry-After", ""))
    if status not in (200, 206, 416):
        raise ConnectionError(f"{response.url} answers {answer}")
    if status != 200:
        asked = response.request.headers.get("If-Range")
        if not place.startswith(f"bytes {have}-") or version not in ("", asked):
            part.unlink(missing_ok=True)
            raise _TryAgain("the file on the server has changed")
    start = have if status == 206 else 0
    length = response.raw.length_remaining  # None where the server does not say
    part.parent.mkdir(parents=True, exist_ok=True)
    _require_space(part.parent, (length or 0) + spare)
    if not start:
        part.unlink(missing_ok=True)
        _note(part).unlink(missing_ok=True)
        if version:
            _note(part).write_text(version, "latin-1")
    total = None if length is None else start + length
    bar = _bar(None, part.stem, total, initial=start, unit="B", unit_scale=True)
    with part.open("ab") as file, bar:
        try:
            # Raw, because some servers call a .tar.gz an encoding, and it would be undone here.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                if not file.tell():
                    _check_kind(chunk, part.stem, response.url)
                file.write(chunk)
                bar.update(len(chunk))
        except ProtocolError:
            if total is None:
                raise
        file.flush()
        os.fsync(file.fileno())
    if total not in (None, _size(part)):
        raise _TryAgain(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _check_kind(start: bytes, name: str, url: str) -> None:
    if start.startswith(FIRST_BYTES.get(Path(name).suffix, b"")):
        return
    title = re.search(rb"<title[^>]*>(.*?)</title>", start, re.IGNORECASE | re.DOTALL)
    shown = _printable((title[1] if title else start[:60]).decode("utf-8", "replace"))
    what = "a web page titled" if title else "something that starts with"
    raise ConnectionError(f"{url} sends no {Path(name).suffix} file but {what} {shown!r}")


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:80]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _is_out_of_reach(cause: BaseException) -> bool:
    kinds = socket.gaierror, ssl.SSLCertVerificationError, ConnectTimeout, ProxyError
    codes = errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN
    return isinstance(cause, kinds) or getattr(cause, "errno", None) in codes


# --- Unpack -------------------------------------------------------------------------------------


def unpack(path: Path, target: Path, limit: int, most: int) -> None:
    """Unpack a .zip or .tar.gz of at most `limit` bytes and `most` members; copy any other file.

    Raises ValueError if it is broken, or holds anything but files and folders that belong below
    `target`. What it says of its own sizes is not relied on.
    """
    try:
        members = _bar(_members(path, target), f"Unpacking {path.name}", unit=" files")
        for name, is_folder, size, opener in members:
            place = target / name
            (place if is_folder else place.parent).mkdir(parents=True, exist_ok=True)
            most -= 1
            if most < 0 or size > limit:
                raise ValueError("holds more than it should")
            if is_folder:
                continue
            with opener() as source, place.open("wb") as file:
                while chunk := source.read(CHUNK):
                    limit -= len(chunk)
                    if limit < 0:
                        raise ValueError("holds more than it should")
                    file.write(chunk)
    except BROKEN as error:
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise  # the disk's fault, not the archive's
        raise ValueError(f"{path.name} is no whole archive ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path.name} {error}") from error


def _members(path: Path, target: Path) -> Iterator[tuple[Path, bool, int, Callable[[], BinaryIO]]]:
    """Yield each member's path below `target`, whether it is a folder, its size, its opener."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name, kind = _safe(info.filename), stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ValueError(f"holds {info.filename!r}, which is no file or folder")
                if info.flag_bits & 1 or info.compress_type not in ZIP_TYPES:
                    raise ValueError(f"holds {info.filename!r} in a form that is not read")
                yield name, info.is_dir(), info.file_size, partial(archive.open, info)
    elif path.suffix in (".gz", ".tgz"):
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = _safe(member.name)
                if not (member.isreg() or member.isdir()):
                    raise ValueError(f"holds {member.name!r}, which is no file or folder")
                if hasattr(tarfile, "data_filter"):  # Python 3.10.12, 3.11.4, 3.12
                    tarfile.data_filter(member, target)
                opener = partial(archive.extractfile, member)
                yield name, member.isdir(), member.size, opener
            while archive.fileobj.read(CHUNK):  # tarfile ends early; the checksum is at the end
                pass
    else:
        yield Path(path.name), False, path.stat().st_size, partial(path.open, "rb")


def _safe(name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable() or set(name) & set("\\:"):
        raise ValueError(f"holds a file named {name!r}, which is refused")
    return Path(*path.parts)
