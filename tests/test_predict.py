"""`python -m going_modular.predict`: what it prints, and how it answers what is no image file."""

import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from going_modular import data_setup, model_builder, predict, utils

CHART = data_setup.DATA_SETS["charts"] / "val" / "pie" / "03.png"
CLASS_NAMES = ["area", "bar", "pie"]


@pytest.fixture
def saved(vit_tiny, tmp_path):
    torch.manual_seed(0)
    model = model_builder.create_model(vit_tiny, len(CLASS_NAMES), weights=None)
    transform = get_model_weights(vit_tiny).DEFAULT.transforms()
    return utils.save_model(
        model, tmp_path / "run", "model.pt", class_names=CLASS_NAMES, transform=transform
    )


def test_classes_come_with_the_models_own_probabilities(saved, capsys):
    assert predict.main([str(saved), str(CHART), "--top", "99"]) == 0
    name, *answers = capsys.readouterr().out.split()
    model, checkpoint = model_builder.load_model(saved)
    with Image.open(CHART) as image, torch.no_grad():
        expected = model(checkpoint["transform"](image.convert("RGB"))[None]).softmax(dim=1)[0]
    order = expected.argsort(descending=True)
    assert name == str(CHART)
    assert answers[::2] == [CLASS_NAMES[label] for label in order]
    assert [float(answer) for answer in answers[1::2]] == pytest.approx(
        expected[order].tolist(), abs=0.0006
    )


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("album", "album cannot be read as an image: it is a folder: give an image file"),
        ("absent.jpg", "absent.jpg: no such file\n"),
        ("*.jpg", "*.jpg: no such file: a pattern that stands for no file"),
        ("absent/[ab].jpg", "[ab].jpg: no such file: a pattern"),
    ],
)
def test_what_is_no_file_is_answered_in_its_own_words(given, answer, saved, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    assert predict.main([str(saved), str(tmp_path / given), str(CHART)]) == 1
    printed = capsys.readouterr()
    assert answer in printed.err and "replace or delete" not in printed.err
    assert "1 of 2 images not read" in printed.err
    assert printed.out.startswith(f"{CHART}\t")  # the others are answered all the same


def test_a_name_with_brackets_is_a_file_if_it_is_there(saved, tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo [1].png")
    assert predict.main([str(saved), str(tmp_path / "photo [1].png")]) == 0


@pytest.mark.parametrize("top", ["0", "-1", "2.5", "all"])
def test_top_is_a_whole_number_of_at_least_1(top, saved, capsys):
    with pytest.raises(SystemExit) as exit_:
        predict.main([str(saved), str(CHART), "--top", top])
    assert exit_.value.code == 2
    assert f"--top: {top} is not a whole number of at least 1" in capsys.readouterr().err


def test_one_image_is_classified_in_eval_mode(saved):
    model, info = model_builder.load_model(saved)
    image = info["transform"](data_setup.load_image(CHART))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = predict.classify(model, image)
    assert torch.equal(predict.classify(model.train(), image), expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
