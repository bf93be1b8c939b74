"""Saved models: they come back as they were, and what would harm or not work is refused."""

import ast
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel
from torchvision.models import get_model_weights, resnet18

from going_modular import utils
from going_modular.model_builder import create_model, head, load_model

ROOT = Path(__file__).parent.parent
CLASS_NAMES = ["ants", "bees", "wasps"]


def transform_of(name):
    return get_model_weights(name).DEFAULT.transforms()


def save(model, folder, **options):
    options = {"class_names": CLASS_NAMES, "transform": transform_of("resnet18"), **options}
    return utils.save_model(model, folder, "good.pt", **options)


def small_mlp():
    return nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def tiny(vit_tiny):
    """A model of a few thousand weights."""
    return create_model(vit_tiny, len(CLASS_NAMES), weights=None).eval()


@pytest.fixture
def saved(tiny, tmp_path):
    return save(tiny, tmp_path, transform=transform_of("vit_tiny"), metrics={"accuracy": 0.5})


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(ValueError, match=match) as error:
        load_model(path)
    text = str(error.value)
    assert text.isprintable() and path.name in text and len(text) < 1000


# --- Round trips ----------------------------------------------------------------------------------

NETWORKS = {  # and the smallest images that they take
    "efficientnet_lite0": 32,
    "resnet18": 32,
    "googlenet": 64,
    "inception_v3": 75,
    "mnasnet0_5": 32,
    "swin_v2_t": 64,
    "squeezenet1_1": 32,
    "regnet_y_400mf": 32,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_model_gives_the_same_logits(name, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 3, weights=None).eval().to(memory_format=torch.channels_last)
    for buffer in model.buffers():  # as after some training
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    path = save(model, tmp_path / "new" / "folder", transform=transform_of(name))
    assert path == tmp_path / "new" / "folder" / "good.safetensors" and path.is_file()
    loaded, description = load_model(path)
    assert description["architecture"] == name and not loaded.training
    images = torch.randn(2, 3, NETWORKS[name], NETWORKS[name])
    with torch.no_grad():
        logits = model(images)
        assert torch.equal(loaded.to(memory_format=torch.channels_last)(images), logits)
    states = model.state_dict(), loaded.state_dict()  # the auxiliary heads are in them, too
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_what_a_file_says_about_its_model(tiny, tmp_path):
    transform = get_model_weights("efficientnet_lite0").DEFAULT.transforms(
        crop_size=96, resize_size=110
    )
    training = {"strategy": "partial", "lr": np.float64(0.1), "seeds": torch.arange(2)}
    path = save(
        tiny,
        tmp_path,
        transform=transform,
        metrics={"accuracy": np.float32(0.5), "loss": torch.tensor(2.0), "undefined": np.nan},
        training=training | {"data": Path("photos"), "augmented": True},
    )
    _, description = load_model(path)
    assert description["config"] == {"image_size": 32}
    assert description["class_names"] == CLASS_NAMES
    assert np.isnan(description["metrics"].pop("undefined"))
    assert description["metrics"] == {"accuracy": 0.5, "loss": 2.0}
    assert description["training"] == {
        "strategy": "partial",
        "lr": 0.1,
        "seeds": [0, 1],
        "data": "photos",
        "augmented": True,
    }
    assert description["versions"]["torch"] == str(torch.__version__)
    image = torch.rand(3, 120, 130)
    assert torch.equal(description["transform"](image), transform(image))


@pytest.mark.parametrize(("weights", "size"), [("SMALL", 32), ("LARGE", 48), (None, 32)])
def test_a_model_for_larger_images_comes_back_as_large(weights, size, vit_tiny, tmp_path):
    # As ViT does with SWAG_E2E weights: the position embedding is as large as their images.
    transform = get_model_weights(vit_tiny)[weights or "DEFAULT"].transforms()
    model = create_model(vit_tiny, 3, weights=weights).eval()
    loaded, description = load_model(save(model, tmp_path, transform=transform))
    images = description["transform"](torch.rand(2, 3, 60, 70))
    assert images.shape == (2, 3, size, size)
    assert torch.equal(loaded(images), model(images))


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_model_with_a_head_of_its_own(by_hand, tmp_path):
    model = create_model("resnet18", 3, weights=None, head=None if by_hand else small_mlp()).eval()
    if by_hand:
        model.fc = small_mlp()
    path = save(model, tmp_path)
    loaded, _ = load_model(path, head=small_mlp())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))
    refused(path, "does not fit.*Missing key.*fc.weight.*head=")


def test_a_new_last_layer_by_hand_needs_nothing(tiny, tmp_path):
    tiny.heads.head = nn.Linear(16, 3)
    loaded, _ = load_model(save(tiny, tmp_path))
    assert torch.equal(head(loaded).weight, tiny.heads.head.weight)


NAMES = [*CLASS_NAMES[:1], "🐝", "$x_{", "a\nb", 'x"\\', "\udcff", "\x1b[2J", "", "蜂"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NAMES, NAMES),
        (tuple("ab"), ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.str_("a"), np.str_("b")], ["a", "b"]),
        ({"a": 0, "b": 1}, ["a", "b"]),  # class_to_idx
        ([0, 1, 2], ["0", "1", "2"]),
        (torch.arange(2), ["0", "1"]),
    ],
)
def test_class_names_come_back_as_text(given, expected, vit_tiny, tmp_path):
    model = create_model(vit_tiny, len(expected), weights=None)
    assert load_model(save(model, tmp_path, class_names=given))[1]["class_names"] == expected


WRAPPED = {
    "torch.compile": torch.compile,
    "compiled in processes": lambda model: torch.compile(nn.DataParallel(model)),
    "averaged": AveragedModel,
    "16 bits": lambda model: model.bfloat16(),
    "tied weights": lambda model: tie(model),
}


def tie(model):
    first, second = model.encoder.layers
    first.ln_1.weight = first.ln_2.weight = second.ln_1.weight
    first.ln_1.bias.data = torch.randn(64)[7:23]  # a part of something larger
    return model


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_model_is_saved_as_itself(kind, tiny, tmp_path):
    wrapped = WRAPPED[kind](tiny)
    inner = tiny if kind != "averaged" else wrapped.module
    loaded = load_model(save(wrapped, tmp_path))[0].state_dict()
    for key, value in inner.state_dict().items():
        assert torch.equal(loaded[key], value.float())
    alone = torch.load(utils.save_model(wrapped, tmp_path, "m.pth"), weights_only=True)
    assert alone.keys() == loaded.keys()


# --- What could not be loaded is not saved --------------------------------------------------------


def changed(change):
    def apply(model):
        change(model)
        return model

    return apply


UNFIT = {
    "fewer names": (None, {"class_names": ["a", "b"]}, "with 2 class_names.* must give 2 logits"),
    "one name": (None, {"class_names": ["a"]}, "its class_names must be two names or more"),
    "a text as names": (None, {"class_names": "abc"}, "class_names is a str: give a list"),
    "a set of names": (None, {"class_names": set("abc")}, "class_names is a set: give a list"),
    "no transform": (None, {"transform": None}, "both class_names and transform"),
    "metrics alone": (None, {"transform": None, "class_names": None, "metrics": {}}, "both"),
    "a matrix as metric": (
        None,
        {"metrics": {"all": np.eye(3)}},
        "its metrics must be single numbers",
    ),
    "a text as metric": (None, {"metrics": {"all": "good"}}, "its metrics must be single numbers"),
    "endless notes": (
        None,
        {"training": {"files": "x" * 2**22}},
        "Shorten class_names or training",
    ),
    "a pruned head": (
        changed(lambda model: prune.l1_unstructured(head(model), "weight", 0.3)),
        {},
        r"prune\.remove",
    ),
    "a parametrized trunk": (
        changed(
            lambda model: parametrize.register_parametrization(model, "class_token", nn.ReLU())
        ),
        {},
        r"parametrize\.remove_parametrizations",
    ),
    "a layer more": (
        changed(lambda model: model.add_module("extra", nn.Linear(2, 2))),
        {},
        "Unexpected key.*extra.weight",
    ),
    "no head": (
        changed(lambda model: setattr(model, "heads", nn.Identity())),
        {},
        "no attribute `head`",
    ),
    "a model of torchvision's": (lambda model: resnet18(), {}, "build it with model_builder"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_could_not_be_loaded_is_not_saved(kind, tiny, tmp_path):
    change, options, match = UNFIT[kind]
    with pytest.raises(ValueError, match=match):
        save(change(tiny) if change else tiny, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


# --- Files that are something else, or damaged ----------------------------------------------------


def checksum(text: str, tensors: dict[str, torch.Tensor]) -> str:
    """Compute what a file must say, independently."""
    parts = [text.encode()]
    for name in sorted(tensors):
        tensor = tensors[name]
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        parts.append(tensor.numpy().tobytes())
    return f"{zlib.crc32(b''.join(parts)):08x}"


def rewrite(path: Path, changes=None, weights=None) -> None:
    """Write a file by hand: other values in its description, other weights, a right checksum."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["going_modular"])
    text = json.dumps({**description, **(changes or {})})
    tensors = load_file(path) if weights is None else weights
    save_file(tensors, path, {"going_modular": text, "crc32": checksum(text, tensors)})


def test_a_file_by_hand_is_read(saved, tiny):
    rewrite(saved)  # so that the tests below fail for the reason that they name
    loaded, description = load_model(saved)
    assert description["metrics"] == {"accuracy": 0.5}
    assert torch.equal(head(loaded).weight, head(tiny).weight)


def test_a_file_that_was_cut_is_refused(saved):
    content = saved.read_bytes()
    places = np.random.default_rng(0).integers(2, len(content), 50)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *places]:
        saved.write_bytes(content[:length])
        refused(saved, "cannot be read as a saved model: it is damaged")


@pytest.mark.parametrize("part", ["length", "header", "weights"])
def test_a_changed_byte_is_noticed(part, saved):
    content = saved.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    low, high = {"length": (0, 8), "header": (8, start), "weights": (start, len(content))}[part]
    rng = np.random.default_rng(0)
    for place in range(8) if part == "length" else rng.integers(low, high, 100):
        if content[place : place + 1] == b" ":
            continue  # padding
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        saved.write_bytes(spoilt)
        refused(saved)


def test_weights_alone_get_the_line_that_loads_them(tiny, tmp_path):
    path = utils.save_model(tiny, tmp_path, "m.pth")
    refused(path, r"m\.pth holds weights alone.*torch\.load\(path, weights_only=True\)")
    save_file(tiny.state_dict(), tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", r"holds weights alone.*safetensors\.torch\.load_file")


def test_other_files_are_refused_with_their_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such file"):
        load_model(tmp_path / "absent.pt")
    for content in (b"not a model", b"\x10" + bytes(40), pickle.dumps({"a": 1}), bytes(100)):
        (tmp_path / "other.pt").write_bytes(content)
        refused(tmp_path / "other.pt", "cannot be read as a saved model")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(FileNotFoundError, match=r"pipe\.pt: no such file"):
        load_model(tmp_path / "pipe.pt")


# --- Files that somebody made in order to harm ----------------------------------------------------

CONTENT = {
    "another network": ({"architecture": "resnet18"}, "not those of resnet18 with 3 classes"),
    "an unknown network": ({"architecture": "vit_tin"}, "Did you mean vit_tiny"),
    "a network's name that steers": ({"architecture": "\x1b[2J\nvit"}, r"\\x1b\[2J\\nvit"),
    "no network's name": ({"architecture": 3}, "its architecture is not"),
    "a later format": ({"format": 99}, "format 99, and this version"),
    "an endless format": ({"format": 10**4000}, "has format 1000.*, and this version"),
    "an earlier format": ({"format": 2}, "its format is not 3"),
    "a text as format": ({"format": "3"}, "its format is not 3"),
    "fewer classes": ({"class_names": ["a", "b"]}, "not those of vit_tiny with 2 classes"),
    "more classes": ({"class_names": list("abcd")}, "not those of vit_tiny with 4 classes"),
    "very many classes": ({"class_names": ["a"] * 10**6}, "vit_tiny with 1000000 classes"),
    "numbers as classes": ({"class_names": [1, 2, 3]}, "its class_names is not"),
    "a text as classes": ({"class_names": "abc"}, "its class_names is not"),
    "texts in metrics": ({"metrics": {"accuracy": "all"}}, "its metrics is not"),
    "a list of metrics": ({"metrics": [0.5]}, "its metrics is not"),
    "a list as training": ({"training": [1]}, "its training is not"),
    "an absurd setting": ({"config": {"image_size": 10**9}}, "its config is not"),
    "a large setting": ({"config": {"image_size": 2048}}, "not those of vit_tiny"),
    "a setting that cannot be": ({"config": {"image_size": 41}}, "not those of vit_tiny"),
    "an unknown setting": ({"config": {"num_layers": 2000}}, "no setting 'num_layers'"),
    "a setting of code": ({"config": {"norm_layer": "os.system"}}, "its config is not"),
    "no preprocessing": ({"transform": None}, "its transform is not"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_a_description_that_would_not_work_is_refused(kind, saved):
    changes, match = CONTENT[kind]
    rewrite(saved, changes)
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
        ("mean", [0.5, 0.5]),
        ("std", [0.0, 0.0, 0.0]),
        ("std", [float("nan")] * 3),
        ("interpolation", "sharpest"),
        ("interpolation", []),
        ("colour", True),
    ],
)
def test_absurd_preprocessing_is_refused(key, value, saved):
    with safe_open(saved, "pt") as file:
        transform = json.loads(file.metadata()["going_modular"])["transform"]
    rewrite(saved, {"transform": transform | {key: value}})
    refused(saved, "its transform is not")


def test_missing_surplus_and_odd_weights_are_refused(saved):
    weights = load_file(saved)
    key, value = next(iter(weights.items()))
    rewrite(saved, weights={name: tensor for name, tensor in weights.items() if name != key})
    refused(saved, f"Missing key.*{key}")
    rewrite(saved, weights=weights | {"\x1b[2J\nmore": value.clone()})
    refused(saved, "Unexpected key.*more")
    rewrite(saved, weights=weights | {key: torch.zeros(3, 2, 1)})
    refused(saved, rf"size mismatch for {key}.*\[3, 2, 1\]")
    rewrite(saved, weights={})
    refused(saved, "Missing key")


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":{"going_modular":"' + b"[" * 10**6 + b'"}}',
        b'{"__metadata__":{"going_modular":"[3]"}}',
        b'{"__metadata__":{"going_modular":"{\\"format\\": 3}"}}',
        b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400000000000]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"{" * 1000,
    ],
    ids=["deep", "a list", "little", "absurd shape", "beyond the end", "shared bytes", "no JSON"],
)
def test_headers_that_no_saved_model_has_are_refused(header, saved):
    saved.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(saved, "cannot be")


def test_a_header_that_would_fill_the_memory_is_not_read(saved):
    with saved.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(90_000_008)
    refused(saved, "its header is too large")


class Evil:
    """A pickle that makes a folder where it is opened carelessly."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(zipped, tmp_path):
    evil = {"weights": Evil(tmp_path / "evil")}
    torch.save(evil, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "evil.pt", "evil.pt (holds weights alone|cannot be read)")
    assert not (tmp_path / "evil").exists()


def test_nothing_in_the_package_reads_what_can_carry_code():
    loads = 0
    for path in sorted((ROOT / "going_modular").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name.endswith("torch.load"):
                assert words.get("weights_only") == "True", f"{path}: {name}"
                loads += 1
            last = name.rpartition(".")[2]
            assert last not in {"Unpickler", "load_state_dict_from_url", "read_pickle"}, path
            assert name not in {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load"}, path
            assert words.get("allow_pickle", "False") == "False", f"{path}: {name}"
            assert name != "torch.export.load" or path.name == "export.py", path
    assert loads >= 1
