"""What somebody else made in order to harm: saved models, pictures, names, folders, requests."""

import io
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from going_modular import audit, data_setup, demo, evaluation, model_builder, predict, utils

ROOT = Path(__file__).parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files or names")


def one_line(error: Exception, name: str = "") -> str:
    """Return an error's message, which must be one line that names the file."""
    text = str(error)
    assert text.isprintable() and name in text and len(text) < 1000
    return text


class Evil:
    """A pickle that makes a folder where it is opened carelessly."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_weights_that_somebody_put_into_the_cache_are_not_run(tmp_path, monkeypatch):
    # torchvision opens them with weights_only=False, and hashes only what it downloads itself.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = Path(torch.hub.get_dir(), "checkpoints", "resnet18-f37072fd.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Evil(tmp_path / "evil"), 2))
    with pytest.raises(model_builder.WeightsError, match=r"resnet18-f37072fd\.pth is damaged"):
        model_builder.create_model("resnet18", 3)
    torch.save({"weights": Evil(tmp_path / "evil")}, path)
    with pytest.raises(model_builder.WeightsError, match=r"resnet18-f37072fd\.pth is damaged"):
        model_builder.create_model("resnet18", 3)
    assert not (tmp_path / "evil").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# --- Pictures -----------------------------------------------------------------------------------


def picture(number: int, size: tuple[int, int] = (80, 70)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    """Make a folder of two classes with 6 pictures each."""
    for name, first in (("ants", 0), ("bees", 10)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            picture(first + i).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Write a PNG's header and data by hand, whatever is in them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("width", "height", "match"),
    [
        (60_000, 60_000, "exceeds limit"),
        (2**31 - 1, 1, "exceeds limit"),
        (1, 40_000, "over 100 times as long as wide"),  # resized: 224 x 8,960,000
        (13_000, 13_000, "truncated|broken"),
    ],
)
def test_a_picture_that_would_fill_the_memory_is_refused(width, height, match, folder):
    path = folder / "ants" / "bomb.png"
    path.write_bytes(png(width, height, bytes(40_000 * 4 if width == 1 else 1000)))
    with pytest.raises(ValueError, match=match) as error:
        data_setup.load_image(path)
    one_line(error.value, "bomb.png")
    with pytest.warns(UserWarning, match=r"left out \(1\).*bomb.png"):
        data_setup.load(folder)
    assert path in audit.scan(folder).unusable


@pytest.mark.parametrize(
    "kind", ["EPS", "TGA", "PCX", "ICO", "ICNS", "SGI", "DDS", "JPEG2000", "IM"]
)
def test_formats_that_no_photo_has_are_not_decoded(kind, tmp_path, monkeypatch):
    picture(1, (64, 64)).save(tmp_path / "picture.jpg", kind)
    with Image.open(tmp_path / "picture.jpg") as image:
        assert image.format == kind
    with pytest.raises(ValueError, match=r"picture\.jpg .*no picture inside"):
        data_setup.load_image(tmp_path / "picture.jpg")


def test_a_phones_heic_gets_a_hint(folder):
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    (folder / "ants" / "a.jpg").write_bytes(content)
    (folder / "bees" / "b.HEIC").write_bytes(content)
    with pytest.warns(UserWarning, match=r"b\.HEIC \(.*JPEG\).*a\.jpg \(.*JPEG\)"):
        data_setup.load(folder)


def test_one_of_many_broken_pictures_at_a_time(tmp_path):
    # A few of each kind; tests/by_hand/fuzz_images.py tries thousands, within limits.
    rng = np.random.default_rng(0)
    for suffix in (".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".ppm"):
        picture(1).save(tmp_path / f"good{suffix}")
        content = (tmp_path / f"good{suffix}").read_bytes()
        for i in range(30):
            spoilt = bytearray(content[: rng.integers(1, len(content))] if i % 3 else content)
            for place in rng.integers(0, min(len(spoilt), 200), 4):
                spoilt[place] = rng.integers(256)
            path = tmp_path / f"spoilt{suffix}"
            path.write_bytes(spoilt)
            try:
                assert data_setup.load_image(path).mode == "RGB"
            except ValueError as error:
                one_line(error, path.name)


def test_nothing_among_the_photos_is_imported_and_odd_ones_are_read_in_silence(folder):
    for name in ("torch", "numpy", "PIL", "csv", "argparse"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported from among the photos')")
    told = struct.pack(">HHI", 0x010E, 2, 40)
    for i in range(20):
        exif, content = Image.Exif(), io.BytesIO()
        exif[0x010E] = "x" * 39
        picture(100 + i).save(content, "JPEG", exif=exif)
        assert content.getvalue().count(told) == 1
        # The description claims to be longer than the file, each by another length.
        longer = content.getvalue().replace(told, struct.pack(">HHI", 0x010E, 2, 60_000 + i))
        (folder / "ants" / f"odd{i}.jpg").write_bytes(longer)
    command = [sys.executable, "-m", "going_modular.audit", "."]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == ""
    assert "32 of them can be read" in run.stdout


# --- Folders ------------------------------------------------------------------------------------


@POSIX
def test_pipes_sockets_devices_and_endless_files_are_left_out(folder, monkeypatch):
    ants = folder / "ants"
    os.mkfifo(ants / "pipe.jpg")
    (ants / "zero.jpg").symlink_to("/dev/zero")
    (ants / "itself.jpg").symlink_to("itself.jpg")
    (ants / "folder.jpg").mkdir()
    monkeypatch.chdir(ants)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    with (ants / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    names = {"pipe.jpg", "zero.jpg", "itself.jpg", "socket.jpg", "huge.jpg"}
    with pytest.warns(UserWarning, match=r"left out \(5\)") as seen:
        splits = data_setup.load(folder)
    assert all(name in str(seen[0].message) for name in names)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 12
    assert {path.name for path in audit.scan(folder).unusable} == names
    for name in names:
        with pytest.raises(ValueError, match=name) as error:
            data_setup.load_image(ants / name)
        one_line(error.value)


@POSIX
def test_links_that_multiply_are_followed_once(folder):
    (folder / "ants" / "0").mkdir()
    for i in range(40):  # 2 ** 40 ways to the last of them
        (folder / "ants" / f"{i + 1}").mkdir()
        for name in ("left", "right"):
            (folder / "ants" / f"{i}" / name).symlink_to(folder / "ants" / f"{i + 1}")
    shutil.copy(folder / "ants" / "0.png", folder / "ants" / "40" / "last.png")
    splits = data_setup.load(folder)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 13


@POSIX
def test_links_out_of_the_folder_are_told(folder, tmp_path, capsys):
    (tmp_path / "private").mkdir()
    picture(77).save(tmp_path / "private" / "me.png")
    (folder / "ants" / "linked.png").symlink_to(tmp_path / "private" / "me.png")
    (folder / "bees" / "more").symlink_to(tmp_path / "private")
    (folder / "bees" / "inside.png").symlink_to(folder / "bees" / "0.png")
    with pytest.warns(UserWarning, match="two classes"):
        how = data_setup.load(folder).how
    assert "2 pictures are links to other places: ants/linked.png is " in how
    assert "inside" not in how and str(tmp_path / "private" / "me.png") in how
    assert audit.main([str(folder)]) == 0
    assert "links to other places: 2\n  ants/linked.png is" in capsys.readouterr().out


# --- Names --------------------------------------------------------------------------------------

NAMES = [
    "\u202egpj.exe",
    "=1+1",
    "$x_{",
    "<script>alert(1)</script>" if os.name == "posix" else "&",
]
NAMES = [name.replace("/", "\u2215") for name in NAMES]
if os.name == "posix":
    NAMES += ["a\nb", "\x1b]0;c\x07\x1b[2J", "\rover"]
if sys.platform == "linux":  # elsewhere names must be valid text
    NAMES += [os.fsdecode(b"\xff\xfe")]


@pytest.fixture
def named(tmp_path):
    """Make a folder whose classes and pictures have odd names, with a broken picture in each."""
    for i, name in enumerate(NAMES):
        (tmp_path / "odd" / name).mkdir(parents=True)
        for j in range(4):
            picture(10 * i + j).save(tmp_path / "odd" / name / f"{name}{j}.png", "PNG")
        (tmp_path / "odd" / name / f"{name}.jpg").write_bytes(b"broken")
    return tmp_path / "odd"


def assert_printable(text: str) -> None:
    assert text and text.replace("\n", "").replace("\t", "").isprintable()
    text.encode()  # as a terminal or a file needs it


def test_names_stay_on_their_line(named, capsys):
    with pytest.warns(UserWarning) as seen:
        splits = data_setup.load(named)
    for warning in seen:
        assert_printable(str(warning.message))
        assert "\n" not in str(warning.message)
    summary = splits.summary()
    assert_printable(summary)
    assert len(summary.splitlines()) == len(NAMES) + 3
    table = evaluation.per_class_table(splits.test.targets, splits.test.targets, splits.class_names)
    assert_printable(table)
    assert len(table.splitlines()) == len(NAMES) + 1
    assert audit.main([str(named), "--all"]) == 0
    assert_printable(capsys.readouterr().out)
    for path in named.rglob("*.jpg"):
        with pytest.raises(ValueError) as error:
            data_setup.load_image(path)
        one_line(error.value)


def test_a_plot_shows_names_as_they_are(named, tmp_path):
    names = [path.name for path in named.iterdir()]
    probabilities = torch.eye(len(names))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * len(names)
        utils.plot_predictions(images, range(len(names)), probabilities, names)
        plt.savefig(tmp_path / "plot.png")
        evaluation.plot_grad_cam([torch.zeros(3, 8, 8)], [torch.zeros(8, 8)], ["$x_{"])
        plt.savefig(tmp_path / "plot.png")
    plt.close("all")


@pytest.fixture
def oddly_named(vit_tiny, tmp_path):
    """Save a model that knows the odd names as classes."""
    model = model_builder.create_model(vit_tiny, len(NAMES), weights=None)
    transform = get_model_weights(vit_tiny).DEFAULT.transforms()
    return utils.save_model(model, tmp_path, "m.pt", class_names=NAMES, transform=transform)


def test_predict_prints_one_line_a_photo(named, oddly_named, capsys):
    photos = [str(path) for path in named.rglob("*.png")]
    arguments = [str(oddly_named), *photos, str(next(named.rglob("*.jpg"))), "--top", "99"]
    assert predict.main(arguments) == 1
    printed = capsys.readouterr()
    assert_printable(printed.out)
    assert_printable(printed.err)
    lines = printed.out.splitlines()
    assert len(lines) == len(photos)
    assert {len(line.split("\t")) for line in lines} == {1 + 2 * len(NAMES)}


def test_the_path_of_a_saved_model_stays_on_its_line(tmp_path, capsys):
    for name in NAMES:
        path = tmp_path / f"{name}.pt"
        for make in (lambda path: None, lambda path: path.write_bytes(b"no model")):
            make(path)
            assert predict.main([str(path), "photo.jpg"]) == 1
            assert demo.main([str(path)]) == 1
            printed = capsys.readouterr()
            assert_printable(printed.err)
            assert printed.err.count("\n") == 2
