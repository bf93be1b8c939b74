"""`python -m going_modular.evaluate`: what it counts, beside scikit-learn, and what it refuses."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix
from torchvision.models import get_model_weights

from going_modular import data_setup, evaluate, evaluation, model_builder, utils

CLASS_NAMES = ["dark", "light", "mid"]


@pytest.fixture
def folder(photo_folder):
    """Make three classes of photos of different sizes: 20, 20 and 5."""
    rng = np.random.default_rng(1)
    (photo_folder / "mid").mkdir()
    for index in range(5):
        pixels = rng.normal(120, 20, size=(48, 56, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photo_folder / "mid" / f"{index}.jpg")
    return photo_folder


def save(vit_tiny, path, seed=0, class_names=CLASS_NAMES):
    torch.manual_seed(seed)
    model = model_builder.create_model(vit_tiny, len(class_names), weights=None)
    torch.nn.init.normal_(model_builder.head(model).weight)
    transform = get_model_weights(vit_tiny).DEFAULT.transforms()
    return utils.save_model(
        model, path.parent, path.name, class_names=class_names, transform=transform
    )


@pytest.fixture
def saved(vit_tiny, tmp_path):
    return save(vit_tiny, tmp_path / "a.safetensors")


def by_hand(saved, samples):
    """Predict one image after the other."""
    model, info = model_builder.load_model(saved)
    with torch.no_grad():
        return [
            int(model(info["transform"](data_setup.load_image(path))[None]).argmax())
            for path, _ in samples
        ]


def test_the_report_counts_what_scikit_learn_counts(saved, folder, capsys):
    assert evaluate.main([str(saved), "--data", str(folder), "--split", "all"]) == 0
    printed = capsys.readouterr().out
    images = data_setup.load_split(folder, CLASS_NAMES)
    predicted, labels = by_hand(saved, images.samples), images.targets
    right = round(accuracy_score(labels, predicted) * 45)
    assert f"accuracy   {evaluation.format_accuracy(right, 45)}" in printed
    assert f"balanced   {balanced_accuracy_score(labels, predicted):.3f}" in printed
    assert f"baseline   {20 / 45:.3f}  (answering dark every time)" in printed


def test_the_test_split_is_that_of_training(saved, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate.main([str(saved), "--data", str(folder), "--out", str(out)]) == 0
    with (out / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = data_setup.load(folder).test
    assert [row["path"] for row in rows] == [str(path) for path, _ in test.samples]
    assert [row["class"] for row in rows] == [
        CLASS_NAMES[answer] for answer in by_hand(saved, test.samples)
    ]
    with (out / "confusion.csv").open(newline="") as file:
        (_, *names), *table = csv.reader(file)
    assert names == CLASS_NAMES == [row[0] for row in table]
    expected = confusion_matrix(test.targets, by_hand(saved, test.samples), labels=range(3))
    assert [[int(cell) for cell in row[1:]] for row in table] == expected.tolist()
    for name in ("confusion.png", "most_wrong.png"):
        with Image.open(out / name) as image:
            assert min(image.size) > 200


def test_two_models_are_compared_on_the_same_images(vit_tiny, saved, folder, tmp_path, capsys):
    other = save(vit_tiny, tmp_path / "b.safetensors", seed=5)
    options = ["--data", str(folder), "--split", "all", "--compare", str(other)]
    assert evaluate.main([str(saved), *options]) == 0
    printed = capsys.readouterr().out
    images = data_setup.load_split(folder, CLASS_NAMES)
    a, b = (np.equal(by_hand(path, images.samples), images.targets) for path in (saved, other))
    assert f"difference {evaluation.format_difference(a, b)}" in printed
    assert f"{(a & ~b).sum()} the first alone, {(b & ~a).sum()} the second alone" in printed
    assert evaluate.main([str(saved), *options[:-1], str(saved)]) == 0
    assert "no difference that these images show" in capsys.readouterr().out


def test_some_classes_of_the_model_may_have_no_images(saved, folder, capsys):
    shutil.rmtree(folder / "mid")
    assert evaluate.main([str(saved), "--data", str(folder), "--split", "all"]) == 0
    assert "no images" in capsys.readouterr().out  # beside the class
    assert evaluate.main([str(saved), "--data", str(folder)]) == 0


@pytest.mark.parametrize("split", ["test", "all"])
def test_a_class_that_the_model_does_not_know_is_named(split, saved, folder, capsys):
    (folder / "mid").rename(folder / "zebra")
    assert evaluate.main([str(saved), "--data", str(folder), "--split", split]) == 1
    assert "zebra" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(vit_tiny, saved, folder, tmp_path, capsys):
    other = save(vit_tiny, tmp_path / "b.safetensors", class_names=["dark", "light"])
    options = [str(saved), "--data", str(folder)]
    assert evaluate.main([*options, "--compare", str(other)]) == 1
    assert "has other classes than" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main([*options, "--out", str(tmp_path)])
    assert "exists: give a new folder" in capsys.readouterr().err
    assert evaluate.main([str(saved), "--data", "charts", "--split", "all"]) == 1
    assert "holds splits: give --split test" in capsys.readouterr().err
