"""Saving and loading, seeds, device and precision, plots."""

import errno
import os
import random
import stat

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torchvision.models import get_model_weights, resnet18
from torchvision.transforms._presets import ImageClassification

from going_modular import model_builder, utils


@pytest.fixture
def model():
    return model_builder.create_model("efficientnet_lite0", 2, weights=None)


def transform_of(name, **sizes):
    return get_model_weights(name).DEFAULT.transforms(**sizes)


def test_saved_model_comes_back_with_all_that_it_needs(model, tmp_path):
    transform = transform_of("efficientnet_lite0", crop_size=96, resize_size=110)
    path = utils.save_model(
        model,
        tmp_path / "new" / "folder",
        "model.pt",
        class_names=["ant", "bee"],
        transform=transform,
        metrics={"validation_accuracy": 0.9},
    )
    loaded, checkpoint = model_builder.load_model(path)
    assert checkpoint["class_names"] == ["ant", "bee"]
    assert checkpoint["metrics"] == {"validation_accuracy": 0.9}
    assert checkpoint["versions"]["torch"] == str(torch.__version__)
    images = torch.rand(2, 3, 120, 130)
    prepared = transform(images)
    assert torch.equal(checkpoint["transform"](images), prepared)
    with torch.no_grad():
        assert torch.equal(loaded(prepared), model.eval()(prepared))


def test_without_names_it_saves_the_state_dict_alone(model, tmp_path):
    path = utils.save_model(model=model, target_dir=str(tmp_path), model_name="m.pth")
    state = torch.load(path, weights_only=True)
    assert state.keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="holds weights alone"):
        utils.load_checkpoint(path)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "efficientnet_b0", "inception_v3"])
def test_transforms_survive_being_written_down(name):
    transform = transform_of(name)
    again = utils.build_transform(utils.describe_transform(transform))
    assert isinstance(again, ImageClassification) and vars(again) == vars(transform)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])  # torch's own writer raises the second
def test_a_full_disk_leaves_the_old_file(kind, model, tmp_path, monkeypatch):
    path = utils.save_model(model, tmp_path, "model.pt")
    before = path.read_bytes()

    def crash(content, file):
        file.write_bytes(b"half")
        raise kind("No space left on device")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match=r"model.pt cannot be written \(No space left on device\)"):
        utils.save_model(model, tmp_path, "model.pt")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.pt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_saved_files_are_as_readable_as_others(model, tmp_path):
    path = utils.save_model(model, tmp_path, "model.pt")
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


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


def test_what_cannot_be_saved_is_explained(model, tmp_path):
    transform = transform_of("resnet18")
    with pytest.raises(ValueError, match=r"should end with \.pt or \.pth"):
        utils.save_model(model, tmp_path, "model.zip")
    with pytest.raises(ValueError, match="both class_names and transform"):
        utils.save_model(model, tmp_path, "m.pt", class_names=["a", "b"])
    with pytest.raises(ValueError, match="which architecture it is"):
        utils.save_model(resnet18(), tmp_path, "m.pt", class_names=["a"], transform=transform)
    with pytest.raises(TypeError, match="preprocessing of pretrained weights"):
        utils.save_model(model, tmp_path, "m.pt", class_names=["a", "b"], transform=torch.nn.ReLU())


def test_bad_files_are_refused_with_their_name(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such file"):
        utils.load_checkpoint(tmp_path / "absent.pt")
    path = utils.save_model(
        model, tmp_path, "m.pt", class_names=["a", "b"], transform=transform_of("resnet18")
    )
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:50_000])
    (tmp_path / "text.pt").write_text("not a model")
    for name in ("cut.pt", "text.pt"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a saved model"):
            utils.load_checkpoint(tmp_path / name)


def test_a_file_that_carries_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt cannot be read"):
        utils.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "evil").exists()


def test_a_later_format_is_refused(model, tmp_path):
    torch.save(
        dict.fromkeys(("architecture", "class_names", "transform", "state_dict")) | {"format": 99},
        tmp_path / "m.pt",
    )
    with pytest.raises(ValueError, match="checkpoint format 99"):
        utils.load_checkpoint(tmp_path / "m.pt")


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


@pytest.mark.parametrize("watched", ["val", "test"])
def test_curves_show_what_the_history_holds(watched):
    history = {
        "train_loss": [1.0, 0.5],
        "train_acc": [0.5, 0.8],
        f"{watched}_loss": [1.1, 0.7],
        f"{watched}_acc": [0.4, 0.7],
        "lr": [0.1, 0.01],
    }
    utils.plot_curves(history)
    loss, accuracy, lr = plt.gcf().axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0, 0.5], [1.1, 0.7]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.5, 0.8], [0.4, 0.7]]
    assert list(lr.lines[0].get_ydata()) == [0.1, 0.01]


def test_prediction_grid_marks_what_is_wrong():
    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 3
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    utils.plot_predictions(images, [0, 1, 1], probabilities, ["ant", "bee"])
    titles = [axis.get_title() for axis in plt.gcf().axes[:3]]
    assert titles == ["ant 90%", "ant 60%\nis bee", "bee 80%"]
