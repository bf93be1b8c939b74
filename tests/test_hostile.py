"""What somebody else made in order to harm: saved models, pictures, names, folders, requests."""

import ast
import io
import os
import pickle
import socket
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import httpx
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from going_modular import audit, data_setup, demo, evaluation, guard, model_builder, predict, utils

ROOT = Path(__file__).parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files or names")


def one_line(error: Exception, name: str = "") -> str:
    """Return an error's message, which must be one line that names the file."""
    text = str(error)
    assert text.isprintable() and name in text and len(text) < 1000
    return text


# --- What the package itself calls --------------------------------------------------------------


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )


def test_nothing_in_the_package_reads_what_can_carry_code():
    modules = sorted((ROOT / "going_modular").rglob("*.py"))
    loads = 0
    for path in modules:
        for name, words in calls(path):
            if name.endswith("torch.load"):
                assert words.get("weights_only") == "True", f"{path}: {name}"
                loads += 1
            last = name.rpartition(".")[2]
            assert last not in {"Unpickler", "load_state_dict_from_url", "read_pickle"}, path
            assert name not in {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load"}, path
            assert words.get("allow_pickle", "False") == "False", f"{path}: {name}"
            assert name != "torch.export.load" or path.name == "export.py", path
    assert loads >= 2


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


# --- Saved models -------------------------------------------------------------------------------


class Evil:
    """A pickle that makes a folder where it is opened carelessly."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


CLASS_NAMES = ["ants", "bees", "wasps"]


@pytest.fixture
def saved(vit_tiny, tmp_path):
    """Save a small model; return its path."""
    model = model_builder.create_model(vit_tiny, len(CLASS_NAMES), weights=None)
    transform = get_model_weights(vit_tiny).DEFAULT.transforms()
    return utils.save_model(
        model, tmp_path, "good.pt", class_names=CLASS_NAMES, transform=transform, metrics={"a": 0.5}
    )


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(ValueError, match=match) as error:
        model_builder.load_model(path)
    one_line(error.value, path.name)


def test_the_good_model_is_read(saved):
    model, checkpoint = model_builder.load_model(saved)
    assert checkpoint["class_names"] == CLASS_NAMES and checkpoint["metrics"] == {"a": 0.5}
    content = torch.load(saved, weights_only=True)
    assert content["state_dict"].keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, content["state_dict"][key])


def test_any_kind_of_model_passes_the_guard(tmp_path):
    tensors = {
        str(dtype): torch.ones(2, 3, dtype=dtype)
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    }
    tensors["channels last"] = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tensors["part"] = torch.rand(10)[2:5]
    tensors["scalar"], tensors["empty"] = torch.tensor(1.0), torch.zeros(0, 4)
    tensors["tied"] = tensors["part"]
    numbers = {
        "big": 2**40,
        "negative": -1,
        "small": 1e-300,
        "none": None,
        "yes": True,
        3: [1, (2,)],
    }
    torch.save(tensors | numbers | {"many": list(range(3000))}, tmp_path / "any.pt")
    outline = guard.outline(tmp_path / "any.pt")
    assert outline | tensors == tensors | numbers | {"many": list(range(3000))}
    assert outline["channels last"].shape == (2, 3, 4, 4) and outline["empty"].shape == (0, 4)
    model = model_builder.create_model("mobilenet_v3_small", 2, weights=None)
    torch.save(model.state_dict(), tmp_path / "any.pt")
    assert guard.outline(tmp_path / "any.pt").keys() == model.state_dict().keys()


CODE = {
    "in a value": lambda path, evil: torch.save({"state_dict": evil}, path),
    "as the file": lambda path, evil: torch.save(evil, path),
    "a bare pickle": lambda path, evil: path.write_bytes(pickle.dumps(evil)),
    "the format of 2018": lambda path, evil: torch.save(
        {"a": evil}, path, _use_new_zipfile_serialization=False
    ),
    "a later protocol": lambda path, evil: torch.save({"a": evil}, path, pickle_protocol=4),
    "a whole model": lambda path, evil: torch.save(torch.nn.Linear(1, 1), path),
    "an object": lambda path, evil: torch.save({"a": Path("x")}, path),
}


@pytest.mark.parametrize("kind", CODE)
def test_code_in_a_saved_model_is_not_run(kind, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("PyTorch was asked to open it")

    path, marker = tmp_path / "evil.pt", tmp_path / "evil"
    CODE[kind](path, Evil(marker))
    monkeypatch.setattr(torch, "load", never)
    refused(path, "evil.pt cannot be read as a saved model")
    assert not marker.exists()


def test_torchscript_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    refused(tmp_path / "script.pt", "cannot be read")


def test_a_file_that_was_cut_is_refused(saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 1, len(content) - 1, *rng.integers(2, len(content), 200)]:
        saved.write_bytes(content[:length])
        refused(saved)


def test_a_file_with_other_bytes_is_refused_or_the_same(saved):
    content = saved.read_bytes()
    model = model_builder.load_model(saved)[0].state_dict()
    rng, times = np.random.default_rng(0), 0
    for _ in range(200):
        spoilt = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            spoilt[place] ^= 1 << rng.integers(8)
        saved.write_bytes(spoilt)
        try:
            loaded = model_builder.load_model(saved)[0].state_dict()
        except ValueError as error:
            one_line(error, saved.name)
            times += 1
        else:  # the bytes were of no use: padding, dates
            assert all(torch.equal(loaded[key], model[key]) for key in model)
    assert times > 100


NESTED = [[]]
for _ in range(100):
    NESTED = [NESTED, NESTED]  # written out, 2 ** 100 brackets

CONTENT = {
    "another network": ({"architecture": "resnet18"}, "do not fit resnet18 with 3 classes"),
    "an unknown network": ({"architecture": "vit_tin"}, "Did you mean vit_tiny"),
    "a network's name that steers": ({"architecture": "\x1b[2J\nvit"}, r"\\x1b\[2J\\nvit"),
    "no network's name": ({"architecture": 3}, "its architecture is not what"),
    "a later format": ({"format": 99}, "format 99, and this version"),
    "a text as format": ({"format": "2"}, "format unknown"),
    "an endless format": ({"format": NESTED}, "format unknown"),
    "fewer classes": ({"class_names": ["a", "b"]}, "do not fit vit_tiny with 2 classes"),
    "more classes": ({"class_names": list("abcd")}, "do not fit vit_tiny with 4 classes"),
    "very many classes": ({"class_names": ["a"] * 10**5}, "do not fit vit_tiny with 100000"),
    "numbers as classes": ({"class_names": [1, 2, 3]}, "its class_names is not what"),
    "a text as classes": ({"class_names": "abc"}, "its class_names is not what"),
    "endless classes": ({"class_names": [NESTED, "a", "b"]}, "its class_names is not what"),
    "a huge name": ({"class_names": ["a" * 10**6, "b", "c"]}, "its class_names is not what"),
    "numbers as metrics": ({"metrics": {1: 2}}, "its metrics is not what"),
    "texts in metrics": ({"metrics": {"accuracy": "all"}}, "its metrics is not what"),
    "a list of metrics": ({"metrics": [0.5]}, "its metrics is not what"),
    "an absurd setting": ({"config": {"image_size": 10**9}}, "its config is not what"),
    "a large setting": ({"config": {"image_size": 2048}}, "do not fit vit_tiny"),
    "an unknown setting": ({"config": {"num_layers": 2000}}, "no setting 'num_layers'"),
    "a setting of code": ({"config": {"norm_layer": "os.system"}}, "no setting 'norm_layer'"),
    "no preprocessing": ({"transform": None}, "its transform is not what"),
    "a value as weight": ({"state_dict": {"a": 1}}, "its state_dict is not what"),
    "a number as weight's name": ({"state_dict": {1: torch.ones(1)}}, "its state_dict is not"),
    "no weights": ({"state_dict": {}}, "do not fit vit_tiny"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_model_that_would_not_work_is_refused(kind, saved):
    changes, match = CONTENT[kind]
    torch.save(torch.load(saved, weights_only=True) | changes, saved)
    refused(saved, match)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resize_size", [-1]),
        ("resize_size", [10**9]),
        ("resize_size", [36.5]),
        ("crop_size", []),
        ("crop_size", 32),
        ("mean", ["0", "0", "0"]),
        ("mean", [0.5]),
        ("std", [0.0, 0.0, 0.0]),
        ("std", [float("nan")] * 3),
        ("interpolation", "sharpest"),
        ("interpolation", NESTED),
        ("antialias", "warn"),
        ("colour", True),
    ],
)
def test_absurd_preprocessing_is_refused(key, value, saved):
    content = torch.load(saved, weights_only=True)
    content["transform"][key] = value
    torch.save(content, saved)
    refused(saved, "its transform is not what")


def test_missing_and_surplus_weights_and_keys_are_refused(saved):
    content = torch.load(saved, weights_only=True)
    key = next(iter(content["state_dict"]))
    weight = content["state_dict"].pop(key)
    torch.save(content, saved)
    refused(saved, "do not fit vit_tiny.*Missing key")
    content["state_dict"] |= {key: weight, "\x1b[2J\nmore": weight}
    torch.save(content, saved)
    refused(saved, "do not fit vit_tiny.*Unexpected key")
    del content["class_names"]
    torch.save(content, saved)
    refused(saved, "holds weights alone")
    for other in (None, [1], torch.ones(3), "text"):
        torch.save(other, saved)
        refused(saved, "holds weights alone")


# What only a hand-made file has: instructions and sizes.


def repack(path: Path, pickled: bytes, **options) -> None:
    """Put another data.pkl into a saved model."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else content)


def pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))


@pytest.fixture
def thousand(tmp_path):
    """Save a tensor of 1,000 numbers; return its path."""
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "thousand.pt")
    return tmp_path / "thousand.pt"


def measured(function, *arguments):
    """Return how many bytes Python took at most while a file was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            function(*arguments)
        one_line(error.value, Path(arguments[0]).name)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("which", [0, 1], ids=["values", "shape"])
@pytest.mark.parametrize("number", [1001, 2**31 - 1], ids=["one more", "8 GB"])
def test_a_tensor_that_claims_more_than_its_bytes_is_refused(which, number, thousand):
    pickled, said = pickle_of(thousand), b"M" + struct.pack("<H", 1000)
    assert pickled.count(said) == 2
    place = [i for i in range(len(pickled)) if pickled.startswith(said, i)][which]
    new = pickled[:place] + b"J" + struct.pack("<i", number) + pickled[place + 3 :]
    repack(thousand, new)
    refused(thousand, "thousand.pt cannot be read")
    repack(thousand, pickled)
    assert guard.outline(thousand)["a"].shape == (1000,)


HAND_MADE = {
    "ten gigabytes of nothing": b"cbuiltins\nbytearray\n(J\0\xe4\x0bTtR.",
    "a key so deep that hashing it ends Python": b"}" + b")" + b"\x85" * 10**5 + b"K\x01s.",
    "items of a list": b"]X\x01\0\0\0aK\x01s.",
    "items of a tensor": b"(K\x01K\x02tK\0K\x01s.",
    "attributes of a dictionary": b"}}X\x05\0\0\0itemsK\x01sb.",
    "a call without a function": b"K\x01)R.",
    "a shape of millions": b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"K\x01" * 10**5 + b"tR.",
    "a memory of nothing": b"h\x05.",
    "a mark that is not there": b"u.",
    "an end that does not come": b"}" * 1000,
    "nothing": b"",
    "a tensor from elsewhere": b"(X\x07\0\0\0storagectorch\nFloatStorage\n"
    b"X\x04\0\0\0../0X\0\0\0\0K\x01tQ.",
    "a subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n.",
    "too long": b"}" + b"0" * 2**21 + b".",
}


@pytest.mark.parametrize("kind", HAND_MADE)
def test_instructions_that_no_saved_model_needs_are_refused(kind, thousand):
    repack(thousand, b"\x80\x02" + HAND_MADE[kind])
    refused(thousand, "thousand.pt cannot be read")


def bomb(path: Path, gigabytes: int, lies: bool) -> None:
    """Write a saved model with a member of zeros that expands to so much, in an instant."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = piece * (1000 * gigabytes) + packer.flush()
    size = 1000 if lies else min(10**9 * gigabytes, 2**32 - 2)
    name = b"x/data.pkl"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, 0, len(packed), size, len(name), *[0] * 6
    )
    start = len(local) + len(name) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central) + len(name), start, 0)
    path.write_bytes(local + name + packed + central + name + end)


@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_a_zip_bomb_is_not_unpacked(lies, tmp_path):
    bomb(tmp_path / "bomb.pt", 10, lies)
    assert (tmp_path / "bomb.pt").stat().st_size < 20 * 10**6
    assert measured(model_builder.load_model, tmp_path / "bomb.pt") < 2**20


def test_a_saved_model_that_was_packed_or_padded_is_refused(saved):
    pickled, content = pickle_of(saved), saved.read_bytes()
    repack(saved, pickled, compression=zipfile.ZIP_DEFLATED)
    refused(saved, "is packed")
    for other in (content + b"PK\5\6" + bytes(18), b"MZ" + content):  # two archives, a program
        saved.write_bytes(other)
        refused(saved, "cannot be read")
    saved.write_bytes(content)
    with zipfile.ZipFile(saved, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(archive.namelist()[0].upper(), b"another")
    refused(saved, "cannot be read")


def test_parts_that_share_their_bytes_are_refused(tmp_path):
    size, count = 10**6, 1000
    names = [f"x/data/{i}".encode() for i in range(count)]
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, size, size, len(names[0]), 0)
    central = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, size, size, len(n), *[0] * 6)
        + n
        for n in names
    )
    start = len(local) + len(names[0]) + size
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(central), start, 0)
    (tmp_path / "many.pt").write_bytes(local + names[0] + bytes(size) + central + end)
    refused(tmp_path / "many.pt", "declares 1,000,000,000 bytes")


@POSIX
def test_a_saved_model_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(FileNotFoundError, match=r"pipe\.pt: no such file"):
        model_builder.load_model(tmp_path / "pipe.pt")


# --- Images -------------------------------------------------------------------------------------


def picture(number: int, size: tuple[int, int] = (80, 70)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Write a PNG's header and data by hand, whatever is in them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


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


# --- The web page -------------------------------------------------------------------------------


@pytest.fixture
def page(oddly_named, tmp_path, monkeypatch):
    """Serve the page of an oddly named model; yield a client, and the folder for uploads."""
    gradio = pytest.importorskip("gradio")
    started = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    for name in ("no_proxy", "NO_PROXY", "GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda page: started.append(page))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    demo.serve(oddly_named, port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client, tmp_path / "uploads"
    started[0].close(verbose=False)


def upload(client, name: str, content: bytes, **headers) -> httpx.Response:
    return client.post("/gradio_api/upload", files={"files": (name, content)}, headers=headers)


def test_the_page_keeps_pictures_only_and_serves_nothing_to_run(page, capsys):
    client, uploads = page
    content = io.BytesIO()
    picture(1).save(content, "GIF")
    gif = content.getvalue()
    script = b"<script>alert(1)</script>"
    for name, sent in {
        "page.html": b"<html>" + script,
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'>" + script + b"</svg>",
        "page.png": b"<html>" + script,
        "../../../up.py": b"raise SystemExit",
        "run.sh": b"#!/bin/sh\n",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "data.jpg": b"",
    }.items():
        (path,) = upload(client, name, sent).json()
        assert Path(path).resolve().is_relative_to(uploads.resolve())
        assert client.get(f"/gradio_api/file={path}").status_code == 403
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    # A picture that is a page too is kept, and served as what no browser runs.
    for name in ("polyglot.html", "polyglot.gif", "polyglot.svg", "polyglot.txt"):
        (path,) = upload(client, name, gif + script).json()
        answer = client.get(f"/gradio_api/file={path}")
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in ("image/gif", "application/octet-stream", "text/plain")
        assert (
            kind == "image/gif"
            or name.endswith(".txt")
            or "attachment" in answer.headers["content-disposition"]
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"
    assert upload(client, "large.png", bytes(21_000_000)).status_code == 413


def test_the_page_gives_no_other_file_and_no_other_page(page):
    client, uploads = page
    (inside,) = upload(client, "a.png", png(1, 1, bytes(4))).json()
    secret = uploads.parent / "m.pt"
    assert client.get(f"/gradio_api/file={inside}").status_code == 200
    for path in (
        f"{secret}",
        f"{Path(inside).parent}/../../m.pt",
        f"{Path(inside).parent}/..%2f..%2fm.pt",
        f"{Path(inside).parent}/....//....//m.pt",
        f"file://{secret}",
        f"{ROOT / 'README.md'}",
        "/etc/passwd",
        "C:/Windows/win.ini",
        "http://127.0.0.1:1/",
    ):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    for headers in (
        {"Host": "evil.example"},  # a name that leads here
        {"Host": f"evil.example:{client.base_url.port}"},
        {"Origin": "http://evil.example"},  # a page elsewhere in the same browser
        {"Origin": "null"},
        {"Host": "["},
    ):
        assert client.get("/", headers=headers).status_code in (400, 403), headers
        assert upload(client, "a.png", png(1, 1, bytes(4)), **headers).status_code in (400, 403)
    origin = f"http://localhost:{client.base_url.port}"
    assert client.get("/", headers={"Origin": origin}).status_code == 200


def test_names_on_the_page_are_text(page):
    client, _ = page
    html = client.get("/").text
    assert "<script>alert" not in html
    config = client.get("/config").json()
    assert "\\u202e" in str(config["components"]) and "\u202e" not in str(config["components"])
