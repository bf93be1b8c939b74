"""Saving and loading, seeds, device and precision, plots."""

import errno
import os
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms._presets import ImageClassification

from going_modular import data_setup, model_builder, utils


@pytest.fixture
def model():
    return model_builder.create_model("efficientnet_lite0", 2, weights=None)


def transform_of(name, **sizes):
    return get_model_weights(name).DEFAULT.transforms(**sizes)


@pytest.fixture
def options():
    """What makes a file one that can be used by itself."""
    return {"class_names": ["ant", "bee"], "transform": transform_of("resnet18")}


def test_without_names_it_saves_the_state_dict_alone(model, tmp_path):
    path = utils.save_model(model=model, target_dir=str(tmp_path), model_name="m.pth")
    assert path == tmp_path / "m.pth"
    state = torch.load(path, weights_only=True)
    assert state.keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.safetensors", "m"])
def test_no_suffix_is_refused_at_the_end_of_a_training(name, model, tmp_path, options):
    path = utils.save_model(model, tmp_path, name, **options)
    assert path == tmp_path / "m.safetensors" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "efficientnet_b0", "inception_v3"])
def test_transforms_survive_being_written_down(name):
    transform = transform_of(name)
    again = utils.build_transform(utils.describe_transform(transform))
    assert isinstance(again, ImageClassification) and vars(again) == vars(transform)


@pytest.mark.parametrize("resize", data_setup.RESIZES)
def test_the_way_to_resize_travels_with_the_model(resize, model, tmp_path):
    transform = data_setup.create_transform("resnet18", size=40, resize=resize)
    options = {"class_names": ["ant", "bee"], "transform": transform}
    path = utils.save_model(model, tmp_path, "m.safetensors", **options)
    _, info = model_builder.load_model(path)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 77, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(info["transform"](image), transform(image))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
@pytest.mark.parametrize("alone", [True, False])
def test_a_full_disk_leaves_the_old_file(alone, model, tmp_path, options):
    import resource

    options = {} if alone else options
    path = utils.save_model(model, tmp_path, "model.pt", **options)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"{path.name} cannot be written \(.*disk full"):
            utils.save_model(model, tmp_path, "model.pt", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_saved_files_are_as_readable_as_others(model, tmp_path, options):
    (tmp_path / "other").touch()
    for extra in ({}, options):
        path = utils.save_model(model, tmp_path, "model.pt", **extra)
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="Windows itself refuses")
def test_a_file_is_synced_as_windows_wants_it(model, tmp_path, monkeypatch):
    import fcntl

    synced = []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    path = utils.save_model(model, tmp_path, "model.pt")
    assert synced == [path.stat().st_size]


def test_what_cannot_be_saved_is_explained(model, tmp_path, options):
    with pytest.raises(ValueError, match=r"should end with \.pt or \.pth"):
        utils.save_model(model, tmp_path, "model.zip")
    with pytest.raises(TypeError, match="preprocessing of pretrained weights"):
        utils.save_model(model, tmp_path, "m.pt", **options | {"transform": torch.nn.ReLU()})
    assert not os.listdir(tmp_path)


def test_one_seed_for_all_generators():
    draws = []
    for _ in range(2):
        utils.seed_everything(3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_precision_is_chosen_in_one_place(monkeypatch):
    monkeypatch.setenv("GOING_MODULAR_PRECISION", "bfloat16")
    assert utils.pick_precision("cpu") == torch.bfloat16
    monkeypatch.setenv("GOING_MODULAR_PRECISION", "int8")
    with pytest.raises(ValueError, match="int8"):
        utils.pick_precision("cpu")
    monkeypatch.delenv("GOING_MODULAR_PRECISION")
    monkeypatch.setattr(utils, "_cpu_has_bfloat16", lambda: False)
    assert utils.pick_precision("cpu") == torch.float32
    assert utils.pick_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("splits", [["train"], ["train", "val"], ["train", "test"]])
@pytest.mark.parametrize("lr", [{}, {"lr": [0.1, 0.01]}, {"lr": [0.1, 0.1]}])
def test_curves_show_what_the_history_holds(splits, lr):
    losses = {f"{split}_loss": [1.0 + i, 0.5 + i] for i, split in enumerate(splits)}
    accuracies = {f"{split}_acc": [0.5 - i / 10, 0.8] for i, split in enumerate(splits)}
    utils.plot_curves({"val_loss": [], "val_acc": []} | losses | accuracies | lr)
    panels = [[list(line.get_ydata()) for line in axis.lines] for axis in plt.gcf().axes]
    changing_lr = {} if lr.get("lr") == [0.1, 0.1] else lr  # no axis that shows a constant
    assert panels == [list(drawn.values()) for drawn in (losses, accuracies, changing_lr) if drawn]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_class_names_are_drawn_as_they_are(tmp_path):
    names = ["$x_{", "🐝", "a\nb"]
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 3
    utils.plot_predictions(images, [0, 1, 2], torch.eye(3), names)
    plt.savefig(tmp_path / "plot.png")
    titles = [axis.get_title() for axis in plt.gcf().axes[:3]]
    assert titles == ["$x_{ 100%", "🐝 100%", "a\\nb 100%"]


def test_prediction_grid_marks_what_is_wrong():
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 3
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    utils.plot_predictions(images, [0, 1, 1], probabilities, ["ant", "bee"])
    titles = [axis.get_title() for axis in plt.gcf().axes[:3]]
    assert titles == ["ant 90%", "ant 60%\nis bee", "bee 80%"]


def test_an_image_without_a_title_is_no_grid():
    with pytest.raises(ValueError, match="shorter"):
        utils.plot_images([torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2, ["one"])
    plt.close("all")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_depthwise_convolutions_train_in_float32_under_bfloat16_on_a_cpu(groups):
    layer = torch.nn.Conv2d(4, 8, 3, groups=groups)
    images = torch.randn(2, 4, 6, 6)
    with utils.autocast("cpu", torch.bfloat16):
        logits = layer(images)
    assert logits.dtype == (torch.float32 if groups == 4 else torch.bfloat16)
    torch.testing.assert_close(logits.float(), layer(images), atol=0.05, rtol=0.05)
    with torch.no_grad(), utils.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16
