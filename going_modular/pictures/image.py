"""One image file: which kinds are read, which are refused by name, and the pixels as upright RGB.

It knows bytes and pixels, not folders or labels; `formats` knows the insides of files.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from going_modular.pictures.formats import ESSENTIALS, Essentials, Unsupported, orientation
from going_modular.utils import is_watched, one_line, printable

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .avif .heic .heif .tif .tiff".split()
    + ".ppm .pgm .pbm .pnm".split()
)
MOST_BYTES = 2**30  # a TIFF of 170 million pixels in 16 bits
LARGE = 32 * 10**6  # bytes or pixels of an image that is read alone: eight would take 24 GB
LONGEST = 100  # times as long as wide: resized to 224 pixels, it is 22,400 pixels long

KINDS = {  # Pillow's name for a format, and how its files begin
    "Jpeg": rb"\xff\xd8\xff",
    "Png": rb"\x89PNG\r\n\x1a\n",
    "Gif": rb"GIF8[79]a",
    "Bmp": rb"BM",
    "WebP": rb"RIFF....WEBP",
    "Avif": rb"....ftyp(avi[fs]|mi[af]\d.{4,60}avif)",
    "Heif": rb"....ftyp(hei[cxms]|mi[af]\d.{4,60}heic)",  # a phone's photo
    "Tiff": rb"II\*\0|MM\0\*",
    "Ppm": rb"P[1-6]\s",
}
OTHERS = {  # what else is found under an image's name
    rb"$": "empty file",
    rb"....ftyp": "a video, or an image of a kind that is not read: save it as JPEG",
    rb"\0\0\0\x0c(jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a": "JPEG 2000 or JPEG XL: save it as PNG",
    rb"II\+\0|MM\0\+": "BigTIFF: save it as PNG",
    rb"P[7Ff]\s": "a PAM or PFM file: save it as PNG",
    rb"8BPS": "a Photoshop document: save it as PNG",
    rb"%PDF|%!PS": "a document to print: save its images as PNG",
    rb"(\xef\xbb\xbf)?\s*<": "a web page, an SVG drawing or other markup",
    rb"(\xef\xbb\xbf)?\s*\{": "JSON, perhaps a server's error message",
    rb"version https://git-lfs": "a pointer of Git LFS: run git lfs pull",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z": "an archive: unpack it",
}


def load_image(path: str | Path) -> Image.Image:
    """Read an image as upright 8-bit RGB, as its EXIF orientation says; of several, the first.

    Transparent pixels become white; 16 bits are scaled to 8. Raises FileNotFoundError, or
    ValueError for a file that is damaged, or of a kind whose pixels could come out wrong: the
    message says what it is and how to convert it.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        pattern = ": a pattern that stands for no file" if re.search(r"[*?[]", str(path)) else ""
        raise FileNotFoundError(f"{printable(path)}: no such file{pattern}") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        message = f"{printable(path)} cannot be read as an image: {_reason(error)}"
        if not isinstance(error, (Unsupported, MemoryError)) and not _from_system(error):
            message += ". It is damaged; if a viewer can show it all the same, save it there as PNG"
        raise ValueError(message) from error


def try_load(path: str | Path) -> tuple[Image.Image | None, str]:
    """Return what `load_image` does and "", or None and in a few words why it cannot be read."""
    try:
        return _load(path), ""
    except Exception as error:  # as in load_image
        return None, _reason(error)


def _load(path: str | Path) -> Image.Image:
    with _alone(_stat(path).st_size):
        return _decode(Path(path).read_bytes())


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, MemoryError):
        return "not enough memory: make it smaller"
    of_bytes = struct.error, IndexError, KeyError  # Pillow wraps its own into a SyntaxError
    if isinstance(error, of_bytes) or isinstance(error.__cause__, of_bytes):
        return "its header is cut off or broken"
    return _from_system(error) or one_line(error)


def _from_system(error: Exception) -> str:
    """Return what the operating system says; "" for another error."""
    return getattr(error, "strerror", None) or ""


def map_files(function: Callable, files: Sequence, title: str) -> list:
    """Return what a function of one file says about each, in order; a bar shows a long wait."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        options = {"leave": False, "delay": 2} if is_watched() else {"disable": True}
        return list(tqdm(pool.map(function, files), title, len(files), **options))


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes; a file that did not change is read only once."""
    status = _stat(path)
    return _hash(Path(path).absolute(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=2**18)
def _hash(path: Path, *_: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _stat(path: str | Path) -> os.stat_result:
    """Return a file's size and dates; refuse what could make its reader wait, or read for ever."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise Unsupported("it is a folder: give an image file")
    if not stat.S_ISREG(status.st_mode):
        raise Unsupported("it is a pipe, a socket or a device")
    if status.st_size > MOST_BYTES:
        raise Unsupported(f"it is larger than {MOST_BYTES / 1e9:.1f} GB: make it smaller")
    return status


_turn = threading.RLock()


def _alone(size: int) -> contextlib.AbstractContextManager:
    return _turn if size > LARGE else contextlib.nullcontext()


# --- From bytes to pixels -----------------------------------------------------------------------

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _decode(content: bytes) -> Image.Image:
    image, exif, bits = _open(content)
    with _alone(image.width * image.height):
        rgb = _to_rgb(image, bits)
        turn = TURNS.get(orientation(exif))
        return rgb if turn is None else rgb.transpose(turn)


def _open(content: bytes) -> tuple[Image.Image, bytes, int]:
    """Return an image whose pixels are not decoded yet, its EXIF block and its bits per colour."""
    kind = _kind(content[:200])
    content, exif, bits = ESSENTIALS.get(kind, Essentials)(content)
    # Image.open would load the code of forty more formats, and warn of large images.
    module = "pillow_heif" if kind == "Heif" else f"PIL.{kind}ImagePlugin"
    plugin = importlib.import_module(module)
    image = getattr(plugin, f"{kind}ImageFile")(BytesIO(content))
    width, height = image.size
    most = 2 * (Image.MAX_IMAGE_PIXELS or 2**60)  # where Image.open gives up, too: 179 million
    if width * height > most:
        raise Unsupported(f"{width} x {height} pixels: over {most:,}; make it smaller")
    if max(width, height) > LONGEST * min(width, height):
        raise Unsupported(f"{width} x {height} pixels: over {LONGEST} times as long as wide")
    return image, exif or image.info.get("exif") or b"", bits


def _kind(start: bytes) -> str:
    for kind, signature in KINDS.items():
        if re.match(signature, start, re.DOTALL):
            if kind == "Avif" and not importlib.util.find_spec("PIL.AvifImagePlugin"):
                raise Unsupported("AVIF, which needs Pillow 11.3 or newer: update it")
            if kind == "Heif" and not importlib.util.find_spec("pillow_heif"):
                raise Unsupported("HEIC: python -m pip install pillow-heif, or save it as JPEG")
            return kind
    for signature, what in OTHERS.items():
        if re.match(signature, start, re.DOTALL):
            raise Unsupported(what)
    raise Unsupported("not an image of a kind that can be read")


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion would clip all above 255 to white
        grey = np.asarray(image)
        _require_full_range(int(grey.max()) >> 8, bits)
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if bits == 16:
        _require_full_range(max(high for _, high in image.getextrema()[:3]), bits)
    if "transparency" in image.info or image.mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "CMYK"):
        raise Unsupported(f"pixels of kind {image.mode}: save it as PNG with 8 bits per colour")
    return image.convert("RGB")


def _require_full_range(brightest: int, bits: int) -> None:
    if bits == 16 and brightest < 16:
        raise Unsupported(
            "16 bits of which at most 12 are used: nobody can tell how bright it should be; "
            "save it with 8 bits"
        )
