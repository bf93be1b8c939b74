"""`python -m going_modular.predict`: what it prints, and how it answers what is no image file."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from going_modular import data_setup, model_builder, predict, utils
from going_modular.models import onnx

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
        ("album", "album: a folder without images"),
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
    assert "1 of 2 images not readable" in printed.err
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
    expected = predict.classify(model, image[None])
    assert torch.equal(predict.classify(model.train(), image[None]), expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- many images ---------------------------------------------------------------------------------


def test_the_answers_are_in_order_and_no_thread_setting_stays(saved):
    model, info = model_builder.load_model(saved)
    charts = [str(path) for path in sorted(CHART.parent.parent.rglob("*.png"))[:37]]
    charts.insert(11, "absent.png")
    threads = torch.get_num_threads()
    answers = list(predict.answers(model, info, charts))
    assert [path for path, _ in answers] == charts and torch.get_num_threads() == threads
    assert isinstance(answers[11][1], FileNotFoundError)
    for path, answer in answers[:11] + answers[12:]:
        image = info["transform"](data_setup.load_image(path))
        torch.testing.assert_close(answer, predict.classify(model, image[None])[0])
    stopped = predict.answers(model, info, charts)
    next(stopped)
    stopped.close()
    assert torch.get_num_threads() == threads


@pytest.fixture
def album(tmp_path):
    """Make a folder of 11 images in two levels, one of them broken, and a file that is none."""
    rng = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "album" / ("one" if number < 5 else "two/deep")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "album" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "album" / "notes.txt").write_text("no image")
    return tmp_path / "album"


def answered(text):
    return [line.split("\t")[0] for line in text.splitlines()]


def test_a_folder_stands_for_all_images_in_it(saved, album, capsys):
    assert predict.main([str(saved), str(album)]) == 1
    printed = capsys.readouterr()
    assert sorted(answered(printed.out)) == sorted(map(str, album.rglob("*.png")))
    assert "broken.jpg cannot be read" in printed.err and "1 of 11 images" in printed.err


def test_a_pattern_and_a_list_stand_for_the_same(saved, album, capsys, monkeypatch):
    one = sorted(map(str, (album / "one").iterdir()))
    assert predict.main([str(saved), str(album / "one" / "*.png")]) == 0
    by_pattern = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("\r\n".join(one) + "\n\n"))
    assert predict.main([str(saved), "-"]) == 0
    assert capsys.readouterr().out == by_pattern and answered(by_pattern) == one


def test_an_image_has_the_same_answer_alone_and_among_others(saved, album, capsys):
    assert predict.main([str(saved), str(album / "one"), "--json", "--top", "12"]) == 0
    together = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for answer in together:
        assert predict.main([str(saved), answer["path"], "--json", "--top", "12"]) == 0
        alone = json.loads(capsys.readouterr().out)
        for a, b in zip(answer["classes"], alone["classes"], strict=True):
            assert a["class"] == b["class"]
            assert a["probability"] == pytest.approx(b["probability"], abs=2e-6)


def test_a_table_goes_on_after_an_interruption(saved, album, tmp_path, capsys):
    table = tmp_path / "out" / "answers.csv"
    assert predict.main([str(saved), str(album / "one"), "--csv", str(table)]) == 0
    whole = table.read_text()
    assert len(whole.splitlines()) == 6
    table.write_text(whole[: whole.rindex(",") - 20])  # a crash in the middle of the last line
    assert predict.main([str(saved), str(album / "one"), "--csv", str(table), "--resume"]) == 0
    assert table.read_text() == whole
    assert "answers written: 1" in capsys.readouterr().out


def test_an_earlier_table_is_not_overwritten(saved, album, tmp_path, capsys):
    table = tmp_path / "answers.csv"
    table.write_text("mine\n1\n")
    assert predict.main([str(saved), str(album), "--csv", str(table)]) == 1
    assert "exists: --resume continues it" in capsys.readouterr().err
    assert predict.main([str(saved), str(album), "--csv", str(table), "--resume"]) == 1
    assert "is not a table of this command" in capsys.readouterr().err
    assert table.read_text() == "mine\n1\n"


def test_below_the_threshold_an_answer_is_unsure(saved, capsys):
    assert predict.main([str(saved), str(CHART)]) == 0
    _, name, probability = capsys.readouterr().out.strip().split("\t")
    above, below = float(probability) + 0.002, float(probability) - 0.002
    assert predict.main([str(saved), str(CHART), "--threshold", str(below)]) == 0
    assert capsys.readouterr().out.split("\t")[1] == name
    assert predict.main([str(saved), str(CHART), "--threshold", str(above)]) == 0
    printed = capsys.readouterr()
    assert printed.out.split("\t")[1:3] == ["unsure", name]
    assert "1 of 1 images below the threshold" in printed.err


# --- by ONNX Runtime -----------------------------------------------------------------------------


def test_many_images_are_answered_by_onnx_runtime_and_the_same(saved, album, capsys, monkeypatch):
    monkeypatch.setattr(onnx, "WORTH", 5)
    asked = [str(saved), str(album / "one"), "--json", "--top", "12"]
    answers = []
    for options in ([], ["--no-onnx"]):
        assert predict.main(asked + options) == 0
        printed = capsys.readouterr()
        answers.append([json.loads(line) for line in printed.out.splitlines()])
        assert ("ONNX Runtime answers" in printed.err) == (options == [])
    for a, b in zip(*answers, strict=True):
        assert a["path"] == b["path"]
        for x, y in zip(a["classes"], b["classes"], strict=True):
            assert x["class"] == y["class"]
            assert x["probability"] == pytest.approx(y["probability"], abs=2e-6)


@pytest.mark.parametrize("images", [4, 5])
def test_a_model_that_onnx_cannot_run_answers_itself(images, saved, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(onnx, "WORTH", 5)
    monkeypatch.setattr(onnx, "write", fail)
    model, _ = model_builder.load_model(saved)
    chosen, note = onnx.faster(model, 32, images)
    assert chosen is model
    assert note == ("" if images < 5 else "PyTorch answers, ONNX Runtime cannot: no such operation")


def test_a_graph_that_answers_otherwise_is_not_used(saved, monkeypatch):
    monkeypatch.setattr(onnx, "WORTH", 1)
    monkeypatch.setattr(onnx, "write", lambda *_: None)
    monkeypatch.setattr(onnx, "runner", lambda *_: lambda images: torch.randn(len(images), 3))
    model, _ = model_builder.load_model(saved)
    chosen, note = onnx.faster(model, 32, 1)
    assert chosen is model and "does not answer as the model does" in note
