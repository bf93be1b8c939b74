"""One image: right pixels whatever its kind, or a refusal that says what it is.

The oracles are NumPy arrays, from which the tests build files byte by byte.
"""

import importlib.util
import io
import itertools
import os
import socket
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from going_modular import data_setup

RED, WHITE = (255, 0, 0), (255, 255, 255)
HEIGHT, WIDTH = 23, 37
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files or names")


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def read(tmp_path):
    """Read bytes as a file, in which nothing may cause a warning: (H, W, 3)."""

    def read(content: bytes, name: str = "image.jpg") -> np.ndarray:
        (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = data_setup.load_image(tmp_path / name)
        assert image.mode == "RGB"
        return np.asarray(image)

    return read


@pytest.fixture
def refused(read):
    """Return the message with which bytes are refused: one line that names the file."""

    def refused(content: bytes, name: str = "image.jpg") -> str:
        with pytest.raises(ValueError) as error:
            read(content, name)
        text = str(error.value)
        assert name in text and text.isprintable() and len(text) < 500
        assert "delete" not in text
        return text

    return refused


def samples(bits: int, count: int, seed: int = 0) -> np.ndarray:
    """Return random samples (H, W, count) that use all of the range."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, count))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def in_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Return grey or RGB samples as (H, W, 3) from 0 to 255."""
    return np.broadcast_to(values * 255 / (2**bits - 1), (HEIGHT, WIDTH, 3))


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colours * alpha + 255 * (1 - alpha)


def packed(values: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Write rows of samples, each row from a byte of its own."""
    rows = values.reshape(len(values), -1)
    if bits >= 8:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    ones = rows[:, :, None] >> np.arange(bits)[::-1] & 1
    return np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()


def assert_near(found: np.ndarray, expected: np.ndarray, tolerance: float = 1) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


# --- TIFF ---------------------------------------------------------------------------------------


def tiff(
    values: np.ndarray,
    bits: int,
    photometric: int,
    order: str = "<",
    compression: int = 1,
    strip: int = HEIGHT,
    tile: int = 0,
    **tags,
) -> bytes:
    """Write a TIFF by hand; further tags as t338=(2,), all of short numbers."""
    if tile:
        padding = [(0, -len(values) % tile), (0, -values.shape[1] % tile), (0, 0)]
        whole = np.pad(values, padding)
        corners = itertools.product(*(range(0, side, tile) for side in whole.shape[:2]))
        parts = [whole[y : y + tile, x : x + tile] for y, x in corners]
    else:
        parts = [values[y : y + strip] for y in range(0, len(values), strip)]
    parts = [packed(part, bits, order) for part in parts]
    if compression == 8:
        parts = [zlib.compress(part) for part in parts]
    parts = [part + b"\0" * (len(part) % 2) for part in parts]
    starts = 8 + np.cumsum([0] + [len(part) for part in parts])
    content = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (bits,) * values.shape[2],
        259: (compression,),
        262: (photometric,),
        277: (values.shape[2],),
        **({322: (tile,), 323: (tile,)} if tile else {278: (strip,)}),
        324 if tile else 273: starts[:-1],
        325 if tile else 279: [len(part) for part in parts],
        **{int(name[1:]): value for name, value in tags.items()},
    }
    entries, more = b"", b""
    after = starts[-1] + 2 + 12 * len(content) + 4
    for tag, numbers in sorted(content.items()):
        is_long = tag in (273, 279, 324, 325)
        data = struct.pack(f"{order}{len(numbers)}{'I' if is_long else 'H'}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 4 if is_long else 3, len(numbers))
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", after + len(more))
            more += data + b"\0" * (len(data) % 2)
    mark = {"<": b"II", ">": b"MM"}[order]
    return (
        struct.pack(f"{order}2sHI", mark, 42, starts[-1])
        + b"".join(parts)
        + struct.pack(f"{order}H", len(content))
        + entries
        + bytes(4)
        + more
    )


FORMS = [
    {"order": order, "compression": compression} | geometry
    for order in "<>"
    for compression in (1, 8)
    for geometry in ({}, {"strip": 5}, {"tile": 16})
]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_and_palette_tiffs_keep_their_values(read, bits):
    values = samples(bits, 1)
    grey = in_8_bits(values, bits)
    palette = np.random.default_rng(1).integers(0, 2**16, (2**bits, 3))
    for form in FORMS:
        assert_near(read(tiff(values, bits, 1, **form)), grey)
        if bits <= 8:
            assert_near(read(tiff(values, bits, 0, **form)), 255 - grey)
            content = tiff(values, bits, 3, t320=palette.T.ravel(), **form)
            assert_near(read(content), palette[values[..., 0]] / 257)


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_tiffs_keep_their_values_and_lie_on_white(read, bits):
    values = samples(bits, 4)
    colours, alpha = in_8_bits(values[..., :3], bits), values[..., 3:] / (2**bits - 1)
    weighted = np.concatenate([values[..., :3] * alpha, values[..., 3:]], axis=2).astype(int)
    for form in FORMS:
        assert_near(read(tiff(values[..., :3], bits, 2, **form)), colours)
        assert_near(read(tiff(values, bits, 2, t338=(0,), **form)), colours)
        found = read(tiff(values, bits, 2, t338=(2,), **form))
        assert_near(found, over_white(colours, alpha), 3)
        found = read(tiff(weighted, bits, 2, t338=(1,), **form))
        assert_near(found, over_white(colours, alpha), 4)
        if bits == 8:
            found = read(tiff(values[..., 2:], 8, 1, t338=(2,), **form))
            assert_near(found, over_white(in_8_bits(values[..., 2:3], 8), alpha), 3)
            assert_near(read(tiff(values, 8, 5, **form)), (255 - values[..., :3]) * (1 - alpha), 2)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "packbits", "jpeg"])
def test_tiffs_as_scanners_write_them_are_read(read, compression):
    image = noise(1, (9, 7)).resize((90, 70), Image.Resampling.BICUBIC)
    image = image.convert("1" if "group" in compression else "RGB")
    found = read(encoded(image, "TIFF", compression=compression))
    tolerance = 80 if compression == "jpeg" else 0
    assert_near(found, np.asarray(image.convert("RGB"), int), tolerance)
    assert np.abs(found - np.asarray(image.convert("RGB"), int)).mean() < 8


GREY = samples(8, 1)
REFUSED = {
    "signed": (tiff(samples(16, 1), 16, 1, t339=(2,)), "a TIFF of signed"),
    "floating": (tiff(samples(32, 1), 32, 1, t339=(3,)), "floating-point"),
    "8 bits, signed": (tiff(GREY, 8, 1, t339=(2,)), "signed"),
    "32 bits": (tiff(samples(32, 1), 32, 1), "of 32 bits"),
    "12 bits": (tiff(GREY, 8, 1, t258=(12,)), "of 12 bits"),
    "bits that differ": (tiff(samples(8, 3), 8, 2, t258=(5, 6, 5)), "of 6 bits"),
    "white is zero": (tiff(samples(16, 1), 16, 0), "16 bits.*white is zero"),
    "planes": (tiff(samples(16, 3), 16, 2, t284=(2,)), "a plane for each colour"),
    "a fourth sample": (tiff(samples(8, 4), 8, 2), "4 samples per pixel"),
    "CMYK of 16 bits": (tiff(samples(16, 4), 16, 5), "16 bits.*CMYK"),
    "other inks": (tiff(samples(8, 4), 8, 5, t332=(2,)), "unusual"),
    "YCbCr": (tiff(samples(8, 3), 8, 6), "YCbCr"),
    "Lab": (tiff(samples(8, 3), 8, 8), "colours of kind 8"),
    "raw from a camera": (tiff(samples(8, 1), 8, 32803), "colours of kind 32803"),
    "a preview": (tiff(samples(8, 3), 8, 2, t254=(1,)), "small preview"),
    "old JPEG": (tiff(samples(8, 3), 8, 2, t259=(6,)), "compression 6"),
    "bits reversed": (tiff(GREY, 8, 1, t266=(2,)), "fill order"),
    "a palette of 8 bits": (tiff(GREY, 8, 3, t320=[*range(256)] * 3), "palette has 8 bits"),
    "no palette": (tiff(GREY, 8, 3), "palette"),
    "12 bits in 16": (tiff(samples(12, 1), 16, 1), "at most 12 are used"),
    "colours of 12 bits in 16": (tiff(samples(12, 3), 16, 2), "at most 12 are used"),
    "BigTIFF": (encoded(noise(1), "TIFF", big_tiff=True), "BigTIFF: save it as PNG"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tiff_that_could_be_read_wrongly_is_refused_by_name(refused, kind):
    content, reason = REFUSED[kind]
    message = refused(content, "scan.tif")
    assert all(part in message for part in reason.split(".*")) and "save it" in message


# --- PNG and PPM --------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(values: np.ndarray, bits: int, colours: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by hand."""
    header = struct.pack(">IIBBBBB", *values.shape[1::-1], bits, colours, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row[None], bits) for row in values)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_pngs_keep_their_values_and_lie_on_white(read, refused, bits):
    values = samples(bits, 4)
    grey, alpha = in_8_bits(values[..., :1], bits), values[..., 3:] / (2**bits - 1)
    assert_near(read(png(values[..., :1], bits, 0)), grey)
    see_through = png(values[..., :1], bits, 0, (b"tRNS", struct.pack(">H", values[3, 3, 0])))
    if bits in (1, 8):
        expected = np.where(values[..., :1] == values[3, 3, 0], 255, grey)
        assert_near(read(see_through), expected)
    else:
        assert f"a PNG of {bits} bits with a transparent colour" in refused(see_through)
    if bits <= 8:
        palette = np.random.default_rng(1).integers(0, 256, (2**bits, 4), np.uint8)
        entries, index = (b"PLTE", palette[:, :3].tobytes()), values[..., 0]
        assert_near(read(png(values[..., :1], bits, 3, entries)), palette[index][..., :3])
        found = read(png(values[..., :1], bits, 3, entries, (b"tRNS", palette[:, 3].tobytes())))
        expected = over_white(palette[index][..., :3].astype(float), palette[index][..., 3:] / 255)
        assert_near(found, expected, 2)
    if bits >= 8:
        colours = in_8_bits(values[..., :3], bits)
        assert_near(read(png(values[..., :3], bits, 2)), colours)
        assert_near(read(png(values, bits, 6)), over_white(colours, alpha), 3)
        expected = over_white(in_8_bits(values[..., 2:3], bits), alpha)
        assert_near(read(png(values[..., 2:], bits, 4)), expected, 3)
    if bits == 16:
        assert "at most 12 are used" in refused(png(samples(12, 1), 16, 0))
        assert "at most 12 are used" in refused(png(samples(12, 3), 16, 2))
        assert "transparent" in refused(png(values[..., :3], 16, 2, (b"tRNS", bytes(6))))


@pytest.mark.parametrize("most", [1, 15, 255, 4095, 65535])
def test_portable_maps_are_scaled_by_what_they_say(read, most):
    bits = most.bit_length()
    values, grey = samples(bits, 3), samples(bits, 1)
    for kind, numbers in (("P6", values), ("P5", grey)):
        header = f"{kind}\n{WIDTH} {HEIGHT}\n{most}\n".encode()
        content = header + numbers.astype(">u2" if most > 255 else "u1").tobytes()
        assert_near(read(content), in_8_bits(numbers, bits))
    plain = f"P3\n{WIDTH} {HEIGHT}\n{most}\n{' '.join(map(str, values.ravel()))}\n"
    assert_near(read(plain.encode()), in_8_bits(values, bits))


# --- JPEG ---------------------------------------------------------------------------------------


def with_frame(marker: int, content: bytes) -> bytes:
    """Return a JPEG whose header says that it is of another kind."""
    assert content.count(b"\xff\xc0") == 1
    return content.replace(b"\xff\xc0", bytes([0xFF, marker]))


@pytest.mark.parametrize("marker", sorted({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}))
def test_a_jpeg_that_decoders_do_not_take_is_refused_before_they_see_it(refused, marker):
    message = refused(with_frame(marker, encoded(noise(1), "JPEG")))
    assert "a JPEG of a rare kind (" in message and "save it as PNG" in message
    inside = with_frame(marker, encoded(noise(1), "TIFF", compression="jpeg"))
    assert "a JPEG of a rare kind (" in refused(inside)


def test_a_lossless_jpeg_is_left_out_and_the_folder_read(tmp_path):
    # Scaled to 1/8, as a quick check would have it, it ends the process.
    def part(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    header = struct.pack(">BHHB", 8, 512, 512, 1) + bytes([1, 0x11, 0])
    tables = part(0xC4, bytes([0, 1] + [0] * 15 + [0])) + part(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    lossless = b"\xff\xd8" + part(0xC3, header) + tables + bytes(2**15) + b"\xff\xd9"
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        for i in range(3):
            noise(9 * ord(name[0]) + i, (8, 8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "ants" / "lossless.jpg").write_bytes(lossless)
    with pytest.warns(UserWarning, match=r"lossless\.jpg \(a JPEG of a rare kind \(lossless\)"):
        assert len(data_setup.load(tmp_path).train) == 2


def test_jpegs_keep_their_colours(read, refused):
    image = noise(1, (9, 7)).resize((90, 70), Image.Resampling.BICUBIC)
    for mode in ("RGB", "L", "CMYK"):
        content = encoded(image.convert(mode), "JPEG", quality=98)
        expected = np.asarray(image.convert(mode).convert("RGB"), int)
        assert np.abs(read(content) - expected).mean() < 3
    assert "may be inverted" in refused(content.replace(b"Adobe", b"Abode"))
    assert "of 12 bits" in refused(
        encoded(image, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    )


# --- Metadata -----------------------------------------------------------------------------------


def exif_block(*entries: bytes) -> bytes:
    entries = sorted(entries, key=lambda entry: struct.unpack("<H", entry[:2]))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<4I", 72, 1, 72, 1)


TURNED = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
ODD_ENTRIES = {
    "resolution as bytes": struct.pack("<HHI4s", 0x11A, 7, 4, b"72dp"),
    "width as a fraction": struct.pack("<HHII", 0x100, 5, 1, 38),
    "maker as a fraction": struct.pack("<HHII", 0x10F, 5, 1, 38),
    "a short above 65535": struct.pack("<HHII", 0x213, 4, 1, 99_999),
    "longer than the file": struct.pack("<HHII", 0x10E, 2, 60_000, 38),
    "a directory that is not there": struct.pack("<HHII", 0x8769, 4, 1, 10**6),
    "a type that is not one": struct.pack("<HHII", 0x131, 99, 1, 0),
}


def with_exif(exif: bytes, kind: str) -> bytes:
    """Return an image of (32, 64) that EXIF turns to (64, 32), or leaves where it is rubbish."""
    image = Image.fromarray(np.full((32, 64, 3), RED, np.uint8))
    content = encoded(image, kind)
    if kind == "JPEG":
        segment = b"Exif\0\0" + exif
        length = struct.pack(">H", len(segment) + 2)
        return content[:2] + b"\xff\xe1" + length + segment + content[2:]
    if kind == "PNG":
        return content[:33] + chunk(b"eXIf", exif) + content[33:]
    return encoded(image, kind, exif=b"Exif\0\0" + exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("odd", ODD_ENTRIES)
def test_an_odd_field_beside_it_does_not_keep_an_image_from_standing_upright(read, odd, kind):
    content = with_exif(exif_block(ODD_ENTRIES[odd], TURNED), kind)
    assert read(content).shape == (64, 32, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"rubbish",
        b"",
        b"II*\0\xff\xff\xff\xff",
        exif_block(struct.pack("<HHIHH", 0x112, 3, 1, 99, 0)),
        exif_block(struct.pack("<HHI4s", 0x112, 2, 2, b"6\0\0\0")),
        exif_block(struct.pack("<HHII", 0x112, 3, 2**31, 10**9)),
    ],
    ids=["rubbish", "nothing", "no directory", "a turn of 99", "a turn as text", "endless"],
)
def test_an_orientation_that_cannot_be_read_leaves_the_image_as_it_is(read, exif, kind):
    found = read(with_exif(exif, kind))
    assert found.shape == (32, 64, 3) and np.abs(found - np.array(RED)).max() < 6


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_malformed_exif_block_in_an_avif_does_not_matter(read):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "described"
    content = encoded(noise(1, (64, 32)), "AVIF", exif=exif)
    assert read(content).shape == (64, 32, 3)
    start = max(content.rfind(b"II*\0"), content.rfind(b"MM\0*"))
    assert 0 < start < content.find(b"described")
    spoilt = content[:start] + b"rubbish!" + content[start + 8 :]
    assert (read(spoilt) == read(content)).all()


def test_no_other_metadata_matters_either(read):
    image = np.asarray(noise(1))
    rubbish = [
        (b"iCCP", b"name\0\x09rubbish"),
        (b"pHYs", b"short"),
        (b"tEXt", b"Raw profile type exif\0\nexif\n  12\nxyz"),
        (b"acTL", b"short"),
        (b"gAMA", b""),
    ]
    content = png(image, 8, 2, *rubbish)
    assert (read(content) == image).all()
    wrong_checksum = content.replace(chunk(b"gAMA", b""), b"\0\0\0\0gAMA1234")
    assert (read(wrong_checksum) == image).all()
    plain = encoded(noise(1), "JPEG")
    segment = b"MPF\0" + b"rubbish" * 9
    more = b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment
    assert (read(plain[:2] + more + plain[2:]) == read(plain)).all()
    odd = tiff(samples(8, 3), 8, 2, t305=(7, 7, 7), t274=(1, 1, 1), t282=(9,), t700=(1, 2, 3))
    assert_near(read(odd), samples(8, 3))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_stands_upright(read, orientation, kind):
    upright = noise(1, (20, 10))
    turned_back = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored, exif = upright, Image.Exif()
    for operation in turned_back:
        stored = stored.transpose(operation)
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (read(encoded(stored, kind, exif=exif, **options)) == np.asarray(upright)).all()


# --- Other kinds --------------------------------------------------------------------------------


def palette_with_a_hole() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    return image


def test_kinds_that_pillow_writes_become_rgb(read):
    assert tuple(read(encoded(Image.new("RGB", (8, 8), RED), "BMP"))[4, 4]) == RED
    assert tuple(read(encoded(Image.new("1", (8, 8), 1), "BMP"))[4, 4]) == WHITE
    for kind in ("GIF", "PNG"):
        found = read(encoded(palette_with_a_hole(), kind, transparency=0))
        assert tuple(found[0, 0]) == WHITE and tuple(found[4, 4]) == RED
    half = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 155)), "WEBP", lossless=True)
    assert tuple(read(half)[4, 4]) == (100, 100, 100)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_images_the_first_is_read(read, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = read(content)[8, 8]
    assert red > 240 and blue < 15


def heic(image, **options):
    content = io.BytesIO()
    pillow_heif.from_pillow(image).save(content, quality=-1, **options)
    return content.getvalue()


def test_a_phones_photo_is_read_upright(read):
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise: left becomes top
    found = read(heic(image, exif=exif.tobytes()))
    assert found.shape == (64, 32, 3)
    assert found[4, 16, 2] > 200 > 60 > found[4, 16, 0] and found[60, 16, 0] > 200


def test_a_phones_photo_without_metadata_is_read_as_it_is(read):
    assert read(heic(Image.new("RGB", (64, 32), "red"))).shape == (32, 64, 3)


def test_without_its_package_a_phones_photo_is_named_with_the_command(refused, monkeypatch):
    content = heic(Image.new("RGB", (64, 32)))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pillow_heif" else find_spec(name)
    )
    assert "HEIC: python -m pip install pillow-heif, or save it as JPEG" in refused(content)


OTHERS = {
    "a phone's film": (b"\0\0\0\x18ftypqt  \0\0\0\0qt  ", "a video, or an image of a kind"),
    "a page": (b"\xef\xbb\xbf\n <!DOCTYPE html><title>404</title>", "a web page"),
    "a message": (b'{"message": "rate limit"}', "JSON"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "nothing": (b"", "empty file"),
    "an archive": (b"PK\3\4" + bytes(50), "an archive: unpack it"),
    "text": (b"ants to the left", "not an image of a kind that can be read"),
    "bytes": (bytes(range(200)), "not an image of a kind that can be read"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_image_is_named(refused, what):
    content, reason = OTHERS[what]
    assert reason in refused(content)


@pytest.mark.parametrize(
    "kind", ["EPS", "TGA", "PCX", "ICO", "ICNS", "SGI", "DDS", "JPEG2000", "IM", "PFM"]
)
def test_formats_that_no_photo_has_are_not_decoded(refused, kind):
    image = noise(1, (64, 64)).convert("F" if kind == "PFM" else "RGB")
    message = refused(encoded(image, kind.replace("PFM", "PPM")))
    assert "save" in message or "not an image of a kind that can be read" in message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_damaged_image_is_not_called_another_kind(refused, kind):
    content = encoded(noise(1), kind)
    message = refused(content[: len(content) // 2])
    assert "It is damaged; if a viewer can show it all the same, save it there as PNG" in message


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (60_000, 60_000, "make it smaller"),
        (2**31 - 1, 1, "make it smaller"),
        (1, 40_000, "over 100 times as long as wide"),  # resized: 224 x 8,960,000
        (13_000, 13_000, "damaged"),
    ],
)
def test_an_image_that_would_fill_the_memory_is_refused(refused, width, height, reason):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(40_000 * 4 if width == 1 else 1000))
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    assert reason in refused(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def test_one_of_many_broken_images_at_a_time(read, refused):
    # A few of each kind; tests/by_hand/fuzz_images.py tries thousands, within limits.
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        good = encoded(noise(1), kind)
        for i in range(20):
            spoilt = bytearray(good[: rng.integers(1, len(good))] if i % 3 else good)
            for place in rng.integers(0, min(len(spoilt), 200), 4):
                spoilt[place] = rng.integers(256)
            try:
                read(spoilt)
            except ValueError:
                refused(spoilt)


# --- Files --------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_a_pattern_and_a_folder_have_their_own_messages(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg: no such file$"):
        data_setup.load_image(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"\*\.jpg: no such file: a pattern"):
        data_setup.load_image(f"{tmp_path}/*.jpg")
    with pytest.raises(ValueError, match="it is a folder: give an image file"):
        data_setup.load_image(tmp_path)


@POSIX
def test_pipes_sockets_devices_and_endless_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    os.mkfifo("pipe.jpg")
    Path("zero.jpg").symlink_to("/dev/zero")
    Path("itself.jpg").symlink_to("itself.jpg")
    with open("huge.jpg", "wb") as file:
        file.truncate(2**40)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    for name in ("pipe.jpg", "zero.jpg", "itself.jpg", "huge.jpg", "socket.jpg"):
        with pytest.raises(ValueError, match=name) as error:
            data_setup.load_image(name)
        assert "damaged" not in str(error.value)


def test_odd_images_are_read_in_silence_in_threads(tmp_path):
    paths = []
    for i in range(16):
        told = struct.pack("<HHII", 0x10E, 2, 60_000 + i, 38)  # longer than the file
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(with_exif(exif_block(told, TURNED), "JPEG"))
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        assert {image.size for image in pool.map(data_setup.load_image, paths)} == {(32, 64)}
    assert seen == [] and warnings.filters == filters


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jpg", b"\xff\xd8\xff\xe0" + bytes(50)),
        ("cut.gif", b"GIF89a"),
        ("cut.bmp", b"BM12"),
        ("cut.tif", b"II*\0"),
    ],
)
def test_a_cut_off_header_is_told_without_a_decoders_jargon(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be .*: its header is cut off or broken"):
        data_setup.load_image(tmp_path / name)
