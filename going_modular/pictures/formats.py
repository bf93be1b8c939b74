"""Which parts of an image file decide its pixels, and which kinds are refused by name.

It knows bytes. Metadata is left out before a decoder sees the file, so that it can neither stop the
reading nor cause a warning. What Pillow would open but read wrongly is refused here.
"""

import contextlib
import re
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from PIL.ExifTags import Base as Tag


class Unsupported(ValueError):
    """A file may be sound, but is not of a kind that is read."""


class Essentials(NamedTuple):
    """A file without its metadata, its EXIF block, and the bits per colour."""

    content: bytes
    exif: bytes = b""
    bits: int = 8


MARKER = re.compile(rb"\xff+([\x01-\xfe])")
WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xDA)])
# All but JFIF's and Adobe's blocks, on which the colours depend.
METADATA = frozenset([*range(0xE1, 0xEE), 0xEF, 0xFE])
FRAMES = (  # kinds of JPEG at which decoders give up, or crash
    dict.fromkeys((0xC3, 0xCB), "lossless")
    | dict.fromkeys((0xC9, 0xCA), "arithmetic-coded")
    | dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical")
)


def _jpeg(content: bytes) -> Essentials:
    parts, exif, place, is_adobe = [content[:2]], b"", 2, False
    while match := MARKER.search(content, place):
        marker, place = match[1][0], match.end()
        if marker in WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, place)
        data = content[place + 2 : place + length]
        if marker in FRAMES:
            raise Unsupported(f"a JPEG of a rare kind ({FRAMES[marker]}): save it as PNG")
        if marker in (0xC0, 0xC1, 0xC2):
            if data[0] != 8:
                raise Unsupported(f"a JPEG of {data[0]} bits: save it as PNG with 8 bits")
            if data[5] == 4 and not is_adobe:
                raise Unsupported("a CMYK JPEG that may be inverted: save it as RGB")
        if marker == 0xDA:
            parts.append(content[match.start() :])
            break
        is_adobe |= marker == 0xEE and data.startswith(b"Adobe")
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            exif = exif or data
        if marker not in METADATA:
            parts.append(content[match.start() : place + length])
        place += length
    return Essentials(b"".join(parts), exif)


def _png(content: bytes) -> Essentials:
    parts, exif, place = [content[:8]], b"", 8
    if content[12:16] != b"IHDR":
        raise Unsupported("a PNG that does not begin with its size: save it again as PNG")
    depth, colours = struct.unpack_from("2B", content, 24)
    while place + 8 <= len(content) and content[place + 4 : place + 8] != b"IEND":
        length, name = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        if name == b"eXIf":
            exif = chunk[8:-4]
        if name == b"tRNS" and colours != 3 and depth not in (1, 8):
            raise Unsupported(f"a PNG of {depth} bits with a transparent colour: save it with 8")
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            parts.append(chunk)
        place += len(chunk)
    return Essentials(b"".join([*parts, content[place : place + 12]]), exif, depth)


def _avif(content: bytes) -> Essentials:
    # The file itself says how it is turned. Pillow reads its EXIF block all the same, and gives up
    # at a malformed one: so no item is of that kind any more.
    place = 0
    while place < len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        end = place + size if size > 1 else len(content)
        if name == b"meta":
            items = content[place:end].replace(b"Exif", b"none")
            return Essentials(content[:place] + items + content[end:])
        place = end
    return Essentials(content)


# --- TIFF, and EXIF, which is one ---------------------------------------------------------------

TYPES = {1: "B", 3: "H", 4: "I", 7: "B"}  # bytes, short and long numbers, data of any kind
# What the pixels depend on: fields that are checked here alone, and those that Pillow reads.
FOR_US = (Tag.NewSubfileType, Tag.InkSet)
FOR_PILLOW = (
    *(Tag.ImageWidth, Tag.ImageLength, Tag.BitsPerSample, Tag.SamplesPerPixel, Tag.ExtraSamples),
    *(Tag.PhotometricInterpretation, Tag.ColorMap, Tag.SampleFormat, Tag.YCbCrSubSampling),
    *(Tag.Compression, Tag.Predictor, Tag.JPEGTables, Tag.FillOrder, Tag.PlanarConfiguration),
    *(Tag.StripOffsets, Tag.StripByteCounts, Tag.RowsPerStrip),
    *(Tag.TileOffsets, Tag.TileByteCounts, Tag.TileWidth, Tag.TileLength),
)
MOST_VALUES = 2**20  # of a field: strips, or entries of a palette
COLOURS = {0: "grey, white is zero", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
FAX, JPEG = (2, 3, 4), 7
COMPRESSIONS = (1, *FAX, 5, JPEG, 8, 32773, 32946)  # none, fax, LZW, JPEG, deflate, PackBits
LAYOUTS = frozenset(  # photometric, bits, samples, meaning of the extra samples
    [(grey, bits, 1, ()) for grey in (0, 1) for bits in (1, 2, 4, 8)]
    + [(1, 16, 1, ()), (1, 8, 2, (2,)), (5, 8, 4, ()), (6, 8, 3, ())]
    + [(2, bits, 3, ()) for bits in (8, 16)]
    + [(2, bits, 4, (extra,)) for bits in (8, 16) for extra in (0, 1, 2)]
    + [(3, bits, 1, ()) for bits in (1, 2, 4, 8)]
)


def _directory(data: bytes) -> tuple[str, int]:
    """Return a TIFF's byte order and where its first directory begins."""
    order = ">" if data.startswith(b"MM") else "<"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    return order, start


def _entries(data: bytes, wanted: Collection[int]) -> Iterator[tuple[int, tuple, bytes]]:
    """Yield tag, values and bytes of the wanted entries of a TIFF's first directory."""
    order, start = _directory(data)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, place)
        if tag in wanted and kind in TYPES and number <= MOST_VALUES:
            form, where = f"{order}{number}{TYPES[kind]}", place + 8
            if struct.calcsize(form) > 4:
                (where,) = struct.unpack_from(f"{order}I", data, where)
            yield tag, struct.unpack_from(form, data, where), data[place : place + 12]


def orientation(exif: bytes) -> int:
    """Return how an image is turned, 1 to 8; 1, as it is, where that cannot be read."""
    with contextlib.suppress(struct.error, IndexError):
        for _, values, _ in _entries(exif.removeprefix(b"Exif\0\0"), {Tag.Orientation}):
            return values[0]
    return 1


def _tiff(content: bytes) -> Essentials:
    found = {entry[0]: entry for entry in _entries(content, FOR_US + FOR_PILLOW)}
    tags = {tag: values for tag, values, _ in found.values() if values}
    if fault := _tiff_fault(tags):
        raise Unsupported(f"a TIFF {fault}: save it as PNG with 8 bits per colour")
    if tags.get(Tag.Compression) == (JPEG,):
        _jpeg(bytes(tags.get(Tag.JPEGTables, b"")))
        places = tags.get(Tag.StripOffsets, ()) + tags.get(Tag.TileOffsets, ())
        sizes = tags.get(Tag.StripByteCounts, ()) + tags.get(Tag.TileByteCounts, ())
        for place, size in zip(places, sizes, strict=True):
            _jpeg(content[place : place + size])
    # The directory again, of those entries alone, and no further one after it.
    order, start = _directory(content)
    kept = [found[tag][2] for tag in sorted(tags.keys() & FOR_PILLOW)]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    stripped = content[:start] + directory + content[start + len(directory) :]
    return Essentials(stripped, content, max(tags.get(Tag.BitsPerSample, (1,))))


def _tiff_fault(tags: dict[int, tuple[int, ...]]) -> str:
    """Say what about a TIFF may be read wrongly; "" if all is as in `LAYOUTS`."""
    one = {tag: values[0] for tag, values in tags.items()}
    bits, samples = set(tags.get(Tag.BitsPerSample, (1,))), one.get(Tag.SamplesPerPixel, 1)
    colour, compression = one.get(Tag.PhotometricInterpretation), one.get(Tag.Compression, 1)
    deep = max(bits)
    if one.get(Tag.NewSubfileType, 0) & 1:
        return "that begins with a small preview, as of a camera's raw data"
    if set(tags.get(Tag.SampleFormat, (1,))) != {1}:
        return "of signed, complex or floating-point numbers"
    if one.get(Tag.PlanarConfiguration, 1) != 1 and samples > 1:
        return "with a plane for each colour"
    if len(bits) > 1 or (colour, deep, samples, tags.get(Tag.ExtraSamples, ())) not in LAYOUTS:
        name = COLOURS.get(colour, f"colours of kind {colour}")
        return f"of {deep} bits, {samples} samples per pixel, {name}"
    if compression not in COMPRESSIONS or one.get(Tag.Predictor, 1) not in (1, 2):
        return f"of compression {compression}"
    is_odd = (
        (compression in FAX and deep > 1)
        or (compression == JPEG and (deep != 8 or colour not in (1, 2, 6) or samples > 3))
        or (colour == 6 and compression != JPEG)
        or (one.get(Tag.FillOrder, 1) != 1 and deep > 1)
        or (one.get(Tag.InkSet, 1) != 1)
    )
    if is_odd:
        return f"of {COLOURS[colour]} in an unusual compression, fill order or ink"
    if colour == 3 and (
        len(tags.get(Tag.ColorMap, ())) != 3 << deep or max(tags[Tag.ColorMap]) < 256
    ):
        return "whose palette has 8 bits instead of 16"
    return ""


ESSENTIALS = {"Jpeg": _jpeg, "Png": _png, "Tiff": _tiff, "Avif": _avif}
