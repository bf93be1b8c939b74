"""`python -m going_modular.train` and `.predict` as a user runs them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from going_modular import engine, model_builder, predict, train, utils
from going_modular.training.run_folder import MODEL

ROOT = Path(__file__).parent.parent
QUICK = ["--epochs", "2", "--size", "32", "--batch-size", "8", "--device", "cpu"]


@pytest.fixture
def trained(photo_folder, tmp_path, capsys):
    """Train on the dark and the light photos; return the run folder and what was printed."""
    out = tmp_path / "run"
    arguments = ["--data", str(photo_folder), "--out", str(out), "--lr", "0.02", "--test", *QUICK]
    arguments += ["--strategy", "feature_extraction"]
    arguments += ["--epochs", "8"]
    assert train.main(arguments) == 0
    return out, capsys.readouterr().out


def test_train_writes_a_run_folder_and_a_table(trained):
    out, printed = trained
    names = {"curves.png", "history.csv", "run.json", "card.md", MODEL}
    assert {path.name for path in out.iterdir()} == names
    assert "2,562 of 3,373,570 trainable" in printed
    assert "The frozen part ran once over 32 images" in printed
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert rows["validation"][1:4] == ["8", "8", "1.000"]
    assert rows["test"][1] == "8"
    with (out / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == [str(epoch) for epoch in range(1, 9)]
    assert history[7]["val_acc"] == "1.0"
    with Image.open(out / "curves.png") as image:
        assert image.size[0] > 600
    training = model_builder.load_model(out / MODEL)[1]["training"]
    assert (training["strategy"], training["epochs"]) == ("feature_extraction", 8)
    assert (training["lr"], training["trunk_lr"]) == (0.02, None)


def test_predict_names_each_photo_and_reports_the_unreadable(trained, tmp_path, capsys):
    out, _ = trained
    photos = tmp_path / "photos"
    (tmp_path / "broken.jpg").write_bytes((photos / "dark" / "00.jpg").read_bytes()[:300])
    arguments = [
        str(out / MODEL),
        str(photos / "dark" / "01.jpg"),
        str(tmp_path / "broken.jpg"),
        str(photos / "light" / "01.jpg"),
    ]
    assert predict.main(arguments) == 1
    printed = capsys.readouterr()
    assert [line.split("\t")[1] for line in printed.out.splitlines()] == ["dark", "light"]
    assert "broken.jpg" in printed.err and "1 of 3 images not readable" in printed.err
    assert predict.main([*arguments[:2], "--top", "2"]) == 0
    _, first, probability, second, rest = capsys.readouterr().out.split()
    assert {first, second} == {"dark", "light"}
    assert float(probability) + float(rest) == pytest.approx(1, abs=0.002)


def test_prediction_is_prepared_as_in_training(trained, tmp_path, capsys):
    # A photo of another size goes through the saved transform, whatever the model was trained on.
    out, _ = trained
    Image.new("RGBA", (500, 90), (255, 255, 255, 0)).save(tmp_path / "transparent.PNG")
    assert predict.main([str(out / MODEL), str(tmp_path / "transparent.PNG")]) == 0
    assert "light" in capsys.readouterr().out


def test_an_earlier_run_is_never_overwritten_unasked(trained, photo_folder, capsys):
    out, _ = trained
    before = (out / MODEL).read_bytes()
    arguments = ["--data", str(photo_folder), "--out", str(out), *QUICK]
    assert train.main(arguments) == 1
    assert "holds an earlier run" in capsys.readouterr().err
    assert (out / MODEL).read_bytes() == before
    assert train.main([*arguments, "--overwrite"]) == 0
    assert (out / MODEL).read_bytes() != before


def test_runs_get_new_folders_by_default(photo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train.main(["--data", str(photo_folder), *QUICK, "--epochs", "1"]) == 0
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == ["photos-partial", "photos-partial-2"]


@pytest.mark.parametrize("strategy", ["scratch", "partial", "full", "lp_ft"])
def test_every_strategy_runs(strategy, photo_folder, tmp_path, capsys):
    arguments = ["--data", str(photo_folder), "--strategy", strategy, "--out", str(tmp_path / "r")]
    assert train.main([*arguments, *QUICK]) == 0
    assert ("ran once" in capsys.readouterr().out) == (strategy in ("partial", "lp_ft"))


def test_augmentation_and_friends_run(photo_folder, tmp_path, capsys):
    options = ["--augment", "--keep-best", "--patience", "1", "--label-smoothing", "0.1"]
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "r"), *QUICK, *options]
    assert train.main(arguments) == 0
    assert "Kept the weights of epoch" in capsys.readouterr().out


def test_mirroring_can_be_refused_and_early_layers_slowed(photo_folder, tmp_path):
    options = ["--augment", "trivial", "--no-mirror", "--layer-decay", "0.5", "--strategy", "full"]
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "r"), *QUICK, *options]
    assert train.main(arguments) == 0
    how = model_builder.load_model(tmp_path / "r" / MODEL)[1]["training"]
    assert how["augment"] == "trivial" and how["layer_decay"] == 0.5 and how["trunk_lr"] is None
    card = (tmp_path / "r" / "card.md").read_text()
    assert "head at 0.002, each block at 0.5 of the next, augmentation: trivial" in card


@pytest.mark.parametrize(
    ("strategy", "rates"),
    [
        ("scratch", "all layers at 0.002"),
        ("feature_extraction", "head at 0.003"),
        ("partial", "head at 0.002, trunk at 0.0005"),
    ],
)
def test_the_card_tells_the_rates(strategy, rates, photo_folder, tmp_path):
    arguments = ["--data", str(photo_folder), "--strategy", strategy, "--out", str(tmp_path / "r")]
    assert train.main([*arguments, *QUICK]) == 0
    assert f"2 epochs, {rates}, augmentation: none;" in (tmp_path / "r" / "card.md").read_text()


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_the_way_to_resize_travels_with_the_model(resize, photo_folder, tmp_path):
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "r"), *QUICK]
    assert train.main([*arguments, "--resize", resize]) == 0
    transform = model_builder.load_model(tmp_path / "r" / MODEL)[1]["transform"]
    wide = Image.new("RGB", (300, 100))
    wide.paste("red", (0, 0, 60, 100))  # outside the square in the middle
    assert (transform(wide)[0] - transform(wide)[1]).max() > 0.5
    assert transform(wide).shape[-2:] == (32, 32)


def test_same_command_same_history(photo_folder, tmp_path):
    histories = []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = ["--data", str(photo_folder), "--out", str(out), "--strategy", "partial"]
        assert train.main([*arguments, *QUICK]) == 0
        with (out / "history.csv").open() as file:
            histories.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--model", "resnet81"], "Did you mean"),
        (["--model", "alexnet", "--strategy", "scratch"], "alexnet does not take images of 32"),
        (["--lr", "1e30", "--strategy", "full"], "learning rate"),
    ],
)
@pytest.mark.parametrize("out", ["--out=a/b/run", "--seed=1"])  # or the default
def test_mistakes_get_one_line_and_leave_nothing(
    arguments, message, out, photo_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--data", str(photo_folder), out, *QUICK, *arguments]) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("train: error:")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_full_gpu_is_no_bug(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "train", fail(torch.OutOfMemoryError("CUDA out of memory.")))
    assert train.main(["--data", str(photo_folder), "--out", str(tmp_path / "run"), *QUICK]) == 1
    assert "give a smaller --batch-size or --size: CUDA out of memory." in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "train", fail(RuntimeError("mat1 and mat2 cannot be multiplied")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train.main(["--data", str(photo_folder), "--out", str(tmp_path / "run"), *QUICK])
    assert not (tmp_path / "run").exists()


def fail(error):
    def raising(*arguments, **options):
        raise error

    return raising


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--lr", "-1"],
        ["--lr", "nan"],
        ["--trunk-lr", "inf"],
        ["--weight-decay", "-0.1"],
        ["--label-smoothing", "1"],
        ["--last", "-1"],
        ["--workers", "-1"],
        ["--seed", "-1"],
        ["--device", "gpu"],
        ["--device", "meta"],
        ["--device", "cuda:99"],
        ["--strategy", "magic"],
        ["--last", "2", "--strategy", "full"],
        ["--trunk-lr", "0.1", "--strategy", "scratch"],
        ["--layer-decay", "0.5", "--strategy", "feature_extraction"],
        ["--layer-decay", "0.5", "--trunk-lr", "0.1"],
        ["--augment", "wild"],
        ["--resize", "stretch"],
    ],
)
def test_wrong_options_are_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(arguments)
    assert exit_.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_model_file_of_something_else_is_refused(tmp_path, capsys):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    assert predict.main([str(tmp_path / "other.pt"), "photo.jpg"]) == 1
    assert "other.pt holds weights alone" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows file names cannot hold control characters")
def test_a_file_name_cannot_steer_the_terminal(trained, tmp_path, capsys):
    out, _ = trained
    photo = tmp_path / "a\x1b[31m\nb.png"
    Image.new("RGB", (40, 40)).save(photo)
    assert predict.main([str(out / MODEL), str(photo)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "\x1b" not in printed and r"a\x1b[31m\nb.png" in printed


def test_runs_as_a_module_from_anywhere_and_its_commands_can_be_typed(
    photo_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    photo_folder.rename(tmp_path / "My Photos")
    command = [sys.executable, "-m", "going_modular.train", "--data", "My Photos", *QUICK]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "\r" not in result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if " -m " in line)
    assert lines["learn"].endswith(f"-m jupyterlab {utils.shell_command([train.NOTEBOOKS])}")
    typed = lines["predict"].replace("PHOTO...", '"My Photos/dark/00.jpg"')
    result = subprocess.run(typed, shell=True, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert b"00.jpg\t" in result.stdout


def test_lessons_that_are_not_there_are_not_offered(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "NOTEBOOKS", tmp_path / "notebooks")
    assert train.main(["--data", str(photo_folder), "--out", str(tmp_path / "run"), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "\npredict " in printed and "\nlearn " not in printed


def test_models_are_listed_with_size_and_accuracy(capsys):
    assert train.main(["--list-models", "resnet*"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "resnet101" and "44.5 million" in first and "0.819" in first
    assert len(others) == 4 and all("224 px" in line for line in others)
    assert train.main(["--list-models", "timm:*dinov2*"]) == 0
    assert "timm:vit_small_patch14_dinov2" in capsys.readouterr().out.splitlines()
    assert train.main(["--list-models", "none*"]) == 0
    assert "no model's name fits" in capsys.readouterr().out


def test_an_unknown_model_is_told_before_the_data_are_read(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert train.main(["--data", str(tmp_path / "empty"), "--model", "resnet19"]) == 1
    assert "Unknown model 'resnet19'. Did you mean" in capsys.readouterr().err
