"""Exported files, run by what runs them elsewhere, against the model that they come from."""

import importlib.util
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import MobileNetV3, get_model_weights
from torchvision.models.mobilenetv3 import InvertedResidualConfig

from going_modular import data_setup, export, model_builder, utils
from going_modular.models import onnx as onnx_wing
from going_modular.models.efficientnet_lite import EfficientNetLite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

CHARTS = sorted((data_setup.DATA_SETS["charts"] / "val").rglob("*.png"))[::30]
CLASS_NAMES = ["área", "bar", "line"]


def make_model(name):
    """Build a model whose random layers tell pictures apart: BatchNorm as if it were trained."""
    torch.manual_seed(0)
    if name == "mobilenet_v3":
        model = small_mobilenet()
    elif name == "efficientnet_lite0":
        model = short_lite0()
    else:
        model = model_builder.create_model(name, len(CLASS_NAMES), weights=None)
    nn.init.normal_(model_builder.head(model).weight, std=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(prepare(transform_of(name)))
    return model.eval()


def small_mobilenet():
    """Two blocks with all that MobileNet v3 has: squeeze-and-excite, hard swish, strides."""
    blocks = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        InvertedResidualConfig(16, 5, 40, 24, True, "HS", 2, 1, 1.0),
    ]
    return MobileNetV3(blocks, last_channel=64, num_classes=len(CLASS_NAMES))


def short_lite0():
    """The first four of EfficientNet-Lite0's blocks: both kernel sizes, both strides, residuals."""
    model = EfficientNetLite(num_classes=len(CLASS_NAMES))
    model.features = model.features[:4]
    model.classifier[1] = nn.Linear(40, len(CLASS_NAMES))
    return model


def transform_of(name):
    if name == "vit_tiny":
        return get_model_weights(name).DEFAULT.transforms()
    return get_model_weights("resnet18").DEFAULT.transforms(crop_size=64, resize_size=72)


def prepare(transform):
    return torch.stack([transform(data_setup.load_image(path)) for path in CHARTS])


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """Export a ResNet-18 once; return it, its transform and the files' folder."""
    model, transform = make_model("resnet18"), transform_of("resnet18")
    folder = tmp_path_factory.mktemp("export")
    return model, transform, export.export_model(model, transform, CLASS_NAMES, folder)


def assert_same_logits(model, transform, exported):
    """Run both files alone and in batches, and compare with the model."""
    images = prepare(transform)
    with torch.no_grad():
        expected = model(images)
    assert expected.std(dim=0).min() > 0.02  # else any function would do
    program = torch.export.load(exported / export.PROGRAM).module()
    session = onnxruntime.InferenceSession(
        exported / export.ONNX, providers=["CPUExecutionProvider"]
    )
    for count in (1, 2, len(images)):
        with torch.no_grad():
            logits = program(images[:count])
        torch.testing.assert_close(logits, expected[:count], rtol=1e-3, atol=1e-3)
        (logits,) = session.run(["logits"], {"images": images[:count].numpy()})
        np.testing.assert_allclose(logits, expected[:count].numpy(), rtol=1e-3, atol=1e-3)


def test_resnet18_gives_the_same_logits(resnet18):
    assert_same_logits(*resnet18)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v3", "vit_tiny"])
def test_other_models_give_the_same_logits_and_stay_as_they_were(name, vit_tiny, tmp_path):
    model, transform = make_model(name), transform_of(name)
    # Half frozen and in training mode; older PyTorch exports frozen attention as one fused op.
    model_builder.unfreeze(model, last=0 if name == "vit_tiny" else 1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = [p.requires_grad for p in model.parameters()]
    exported = export.export_model(model, transform, CLASS_NAMES, tmp_path)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert_same_logits(model.eval(), transform, exported)


def test_the_onnx_file_is_valid_and_alone(resnet18):
    _, _, exported = resnet18
    assert sorted(path.name for path in exported.iterdir()) == sorted(export.FILES)
    content = onnx.load(exported / export.ONNX)
    onnx.checker.check_model(content, full_check=True)
    (images,), (logits,) = content.graph.input, content.graph.output
    sizes = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert images.name == "images" and sizes[1:] == [3, 64, 64]
    assert isinstance(sizes[0], str)  # its name, "batch" from PyTorch 2.7 on
    sizes = [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]
    assert logits.name == "logits" and isinstance(sizes[0], str) and sizes[1:] == [3]


def test_the_files_do_not_tell_whose_machine_made_them(resnet18):
    _, _, exported = resnet18
    with zipfile.ZipFile(exported / export.PROGRAM) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    contents += [(exported / name).read_bytes() for name in export.FILES[1:]]
    folders = [Path(export.__file__).parent.parent, Path(torch.__file__).parent, Path.home()]
    for folder in folders:
        assert not any(str(folder).encode() in content for content in contents)


# Preprocessing: written for a reader who has the file and no PyTorch


def prepare_as_described(picture: Image.Image, description: dict) -> np.ndarray:
    """Follow the steps in preprocessing.json with Pillow and NumPy alone."""
    resize, crop = description["resize_size"], description["crop_size"]
    if description["resize"] == "pad":
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(description["bar_color"]))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = square
    short, long = sorted(picture.size)
    other = resize * long // short
    size = (resize, other) if picture.width <= picture.height else (other, resize)
    if description["resize"] == "squash":
        size = (resize, resize)
    filter_ = Image.Resampling[description["interpolation"].upper()]
    pixels = np.asarray(picture.resize(size, filter_))
    missing = [max(0, crop - side) for side in pixels.shape[:2]]
    padding = [(side // 2, side - side // 2) for side in missing]
    pixels = np.pad(pixels, [*padding, (0, 0)])
    top, left = (round((side - crop) / 2) for side in pixels.shape[:2])
    pixels = pixels[top : top + crop, left : left + crop] / 255
    images = (pixels - description["mean"]) / description["std"]
    return images.transpose(2, 0, 1).astype(description["input"]["type"])


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("size", [(141, 100), (100, 143), (97, 97), (300, 31), (20, 21)])
@pytest.mark.parametrize("sizes", [(72, 64), (33, 64)])
def test_the_description_is_enough_to_prepare_a_picture(name, size, sizes):
    resize_size, crop_size = sizes
    transform = get_model_weights(name).DEFAULT.transforms(
        crop_size=crop_size, resize_size=resize_size
    )
    description = json.loads(json.dumps(export.describe_preprocessing(transform, CLASS_NAMES)))
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    images = prepare_as_described(picture, description)
    np.testing.assert_allclose(images, transform(picture).numpy(), atol=1e-5)
    assert list(images.shape) == description["input"]["shape"][1:]


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("size", [(141, 100), (100, 143), (97, 97), (300, 31), (20, 21)])
def test_the_description_is_enough_where_nothing_is_cut_off(resize, size):
    transform = data_setup.create_transform("resnet18", size=64, resize=resize)
    description = json.loads(json.dumps(export.describe_preprocessing(transform, CLASS_NAMES)))
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    images = prepare_as_described(picture, description)
    np.testing.assert_allclose(images, transform(picture).numpy(), atol=1e-5)


def test_the_description_is_written_beside_the_models(resnet18):
    _, transform, exported = resnet18
    text = (exported / export.PREPROCESSING).read_text(encoding="utf-8")
    assert json.loads(text) == export.describe_preprocessing(transform, CLASS_NAMES)
    assert "área" in text


# Checking and timing


def test_comparison_measures_all_three(resnet18):
    model, transform, exported = resnet18
    rows = export.compare(model, exported, prepare(transform))
    assert [row.format for row in rows] == ["PyTorch", "torch.export", "ONNX Runtime"]
    assert all(row.same_class == row.total == len(CHARTS) for row in rows)
    assert rows[0].largest_difference == 0
    assert all(row.largest_difference < onnx_wing.TOLERANCE for row in rows)
    assert all(row.milliseconds > 0 and row.images_per_second > 0 for row in rows)
    sizes = [(exported / name).stat().st_size for name in export.FILES[:2]]
    assert [row.megabytes for row in rows[1:]] == [size / 1e6 for size in sizes]
    assert rows[0].megabytes == pytest.approx(rows[1].megabytes, rel=0.1)
    header, *lines = export.table(rows).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert header.index("MB") + 2 == lines[0].index(f"{rows[0].megabytes:.1f}") + 4


def test_comparison_finds_files_of_another_model(resnet18):
    _, transform, exported = resnet18
    other = make_model("resnet18")
    nn.init.normal_(other.fc.weight, std=0.5)
    _, *rows = export.compare(other, exported, prepare(transform)[:1])  # one is enough
    assert all(row.largest_difference > 0.01 and row.total == 1 for row in rows)


def test_onnx_runtime_is_imported_without_telemetry_and_nothing_stays_set(monkeypatch, tmp_path):
    text = "import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')"
    (tmp_path / "onnxruntime.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert onnx_wing.import_onnxruntime().seen == "1"
    assert "ORT_DISABLE_TELEMETRY" not in os.environ


# The command


@pytest.fixture
def saved(resnet18, tmp_path):
    model, transform, _ = resnet18
    return utils.save_model(
        model, tmp_path / "run", "model.safetensors", class_names=CLASS_NAMES, transform=transform
    )


@pytest.fixture
def quick(resnet18, monkeypatch):
    """Let the command copy what was exported before, and time nothing twice."""
    _, _, exported = resnet18

    def copy(model, size, folder):
        for name in export.FILES[:2]:
            shutil.copy(exported / name, folder)

    monkeypatch.setattr(export, "_write_models", copy)
    monkeypatch.setattr(export, "_seconds", lambda *_: 0.01)


def test_command_writes_checks_and_prints(saved, quick, tmp_path, capsys):
    photos = [str(path) for path in CHARTS[:3]]
    arguments = [str(saved), "--out", str(tmp_path / "new" / "out"), "--images", *photos]
    assert export.main(arguments) == 0
    printed = capsys.readouterr()
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == set(export.FILES)
    assert printed.out.count("3/3") == 3 and "images 3" in printed.out
    assert printed.err == ""


def test_command_overwrites_only_when_told(saved, quick, capsys):
    assert export.main([str(saved)]) == 0
    assert "64/64" in capsys.readouterr().out  # charts, where no photos are given
    photo = ["--images", str(CHARTS[0])]
    path = saved.parent / "preprocessing.json"
    path.write_text("mine")
    (saved.parent / "model.onnx").unlink()
    assert export.main([str(saved), *photo]) == 1
    assert "preprocessing.json: exported already" in capsys.readouterr().err
    assert path.read_text() == "mine" and not (saved.parent / "model.onnx").exists()
    assert export.main([str(saved), *photo, "--overwrite"]) == 0
    assert json.loads(path.read_text(encoding="utf-8"))["class_names"] == CLASS_NAMES
    assert {p.name for p in saved.parent.iterdir()} == {"model.safetensors", *export.FILES}


def test_a_file_that_disagrees_is_an_error(saved, quick, capsys):
    model, checkpoint = model_builder.load_model(saved)
    model.fc.bias.data += torch.tensor([1.0, 0.0, 0.0])
    options = {key: checkpoint[key] for key in ("class_names", "transform")}
    utils.save_model(model, saved.parent, saved.name, **options)
    assert export.main([str(saved), "--images", *map(str, CHARTS)]) == 1
    printed = capsys.readouterr()
    assert "model.onnx differs from the model by up to" in printed.err
    assert "model.pt2 differs" in printed.err and "ONNX Runtime" in printed.out


def test_mistakes_get_one_line(saved, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    for arguments, message in [
        ([str(tmp_path / "absent.pt")], "absent.pt: no such file"),
        ([str(saved), "--images", str(tmp_path / "text.png")], "text.png cannot be read"),
    ]:
        assert export.main(arguments) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("export: error: ") and message in printed
        assert printed.count("\n") == 1
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]


def test_missing_packages_are_named_with_the_line_to_run(saved, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name)
    )
    assert export.main([str(saved), "--images", str(CHARTS[0])]) == 1
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]
