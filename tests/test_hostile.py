"""What somebody else made in order to harm: weights and names."""

import os
import pickle
import sys
import warnings
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


def picture(number: int, size: tuple[int, int] = (80, 70)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


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
