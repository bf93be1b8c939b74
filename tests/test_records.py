"""What a run leaves behind: run.json, which repeats it, the card, and rare classes made visible."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from going_modular import data_setup, evaluate, model_builder, train
from going_modular.training import losses
from going_modular.training.run_folder import MODEL

QUICK = ["--size", "32", "--batch-size", "8", "--device", "cpu", "--epochs", "2"]


def run(folder, out, *options):
    return train.main(["--data", str(folder), "--out", str(out), *QUICK, *options])


def history_of(out):
    with (out / "history.csv").open(newline="") as file:
        return [[v for k, v in row.items() if k != "seconds"] for row in csv.DictReader(file)]


def test_a_run_is_repeated_from_its_record(photo_folder, tmp_path, monkeypatch, capsys):
    options = ["--strategy", "feature_extraction", "--lr", "0.02", "--seed", "7"]
    monkeypatch.chdir(photo_folder.parent)
    assert run(photo_folder.name, tmp_path / "a", *options) == 0
    monkeypatch.chdir("/")
    assert train.main(["--like", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    assert history_of(tmp_path / "a") == history_of(tmp_path / "b")
    a, b = (model_builder.load_model(tmp_path / name / MODEL)[0] for name in "ab")
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key])
    assert "the images are not those of" not in capsys.readouterr().err
    # What is said beside it counts more.
    changed = ["--like", str(tmp_path / "a"), "--seed", "8", "--out", str(tmp_path / "c")]
    assert train.main(changed) == 0
    assert json.loads((tmp_path / "c" / "run.json").read_text())["options"]["seed"] == 8
    assert history_of(tmp_path / "a") != history_of(tmp_path / "c")


def test_of_few_images_enough_steps_are_made_and_full_varies_them(
    photo_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "LEAST_STEPS", 10)
    options = ["--data", str(photo_folder), "--out", str(tmp_path / "a"), *QUICK[:6]]
    assert train.main([*options, "--strategy", "full", "--batch-size", "24"]) == 0
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["strategy"]["augment"] == "light" and record["strategy"]["epochs"] == 10
    assert len(history_of(tmp_path / "a")) == 10  # of one step each
    assert train.main(["--like", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    assert history_of(tmp_path / "a") == history_of(tmp_path / "b")
    # A record of before there was a choice.
    for augment, meant in ((True, "light"), (False, "none")):
        record["options"] |= {"augment": augment, "epochs": 1}
        (tmp_path / "a" / "run.json").write_text(json.dumps(record))
        out = tmp_path / f"{augment}"
        assert train.main(["--like", str(tmp_path / "a"), "--out", str(out)]) == 0
        assert json.loads((out / "run.json").read_text())["strategy"]["augment"] == meant


def test_other_images_are_noticed(photo_folder, tmp_path, capsys):
    options = ["--strategy", "feature_extraction"]
    assert run(photo_folder, tmp_path / "a", *options) == 0
    content = json.loads((tmp_path / "a" / "run.json").read_text())["data"]["splits"]
    assert {split: sum(map(len, c.values())) for split, c in content.items()} == {
        "train": 24,
        "val": 8,
        "test": 8,
    }
    # Another name is the same image; another image is not.
    (photo_folder / "dark" / "00.jpg").rename(photo_folder / "dark" / "renamed.jpg")
    assert train.main(["--like", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    assert "the images are not those" not in capsys.readouterr().err
    Image.new("RGB", (50, 50), (10, 200, 30)).save(photo_folder / "dark" / "renamed.jpg")
    assert train.main(["--like", str(tmp_path / "a"), "--out", str(tmp_path / "c")]) == 0
    assert "the images are not those of" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"options": {}}'])
def test_what_is_no_record_is_refused(content, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    assert train.main(["--like", str(tmp_path)]) == 1
    assert "is not the record of a run" in capsys.readouterr().err
    assert train.main(["--like", str(tmp_path / "absent")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_both_stages_of_lp_ft_are_in_the_history(photo_folder, tmp_path):
    assert run(photo_folder, tmp_path / "a", "--strategy", "lp_ft") == 0
    rows = history_of(tmp_path / "a")
    assert [row[0] for row in rows] == [str(n) for n in range(1, 23)]
    assert [row[-1] for row in rows] == ["head"] * 20 + ["layers"] * 2


def test_the_record_and_the_command_agree(photo_folder, tmp_path, capsys):
    assert run(photo_folder, tmp_path / "a", "--strategy", "feature_extraction", "--test") == 0
    result = json.loads((tmp_path / "a" / "run.json").read_text())["results"]["test"]
    capsys.readouterr()
    assert evaluate.main([str(tmp_path / "a" / MODEL), "--data", str(photo_folder)]) == 0
    printed = capsys.readouterr().out
    assert f"({result['correct']} of {result['images']};" in printed
    card = (tmp_path / "a" / "card.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\n")
    assert f"| test | 8 | {result['accuracy']:.3f} [" in card and "dark, light" in card


# --- rare classes --------------------------------------------------------------------------------


def test_a_rare_class_is_named_when_the_data_are_read(photo_folder, capsys):
    assert "unbalanced" not in data_setup.load(photo_folder).summary()
    for path in sorted((photo_folder / "light").iterdir())[5:]:
        path.unlink()
    summary = data_setup.load(photo_folder).summary()
    assert "unbalanced: 3 images of light, 12 of dark" in summary
    assert "dark every time would be right for 0.800 of val" in summary


def test_the_table_holds_accuracy_against_the_baseline(photo_folder, tmp_path, capsys):
    for path in sorted((photo_folder / "light").iterdir())[5:]:
        path.unlink()
    assert run(photo_folder, tmp_path / "a", "--strategy", "feature_extraction") == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("validation"))
    assert line.split()[-1] == "0.800"


def test_class_weights_make_every_class_count_the_same():
    logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    loss = losses.cross_entropy("weights", [5, 2, 1])(logits, labels)
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    by_class = torch.stack([each[labels == label].mean() for label in range(3)])
    torch.testing.assert_close(loss, by_class.mean())


def test_adjusted_logits_learn_the_likelihoods_without_the_shares():
    # One feature with three values; class 0 is nine times as frequent. Bayes' rule says what the
    # logits are where no class is more frequent than another.
    table = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])  # P(value | class)
    counts = (torch.tensor([[900.0], [100.0]]) * table).round().int()
    values = torch.cat([torch.arange(3).repeat_interleave(row) for row in counts])
    labels = torch.arange(2).repeat_interleave(torch.tensor([900, 100]))
    logits = torch.zeros(3, 2, requires_grad=True)
    loss_fn = losses.cross_entropy("logits", [900, 100])
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = loss_fn(logits[values], labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = table.T / table.T.sum(dim=1, keepdim=True)
    torch.testing.assert_close(logits.detach().softmax(dim=1), expected, atol=0.01, rtol=0)


def test_balanced_training_finds_the_rare_class(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, base, number in (("dark", 100, 60), ("light", 112, 6)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(number):
            pixels = rng.normal(base + rng.normal(0, 6), 20, (48, 56, 3)).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / "photos" / name / f"{index}.png")
    recalls = {}
    for balance in ("none", "logits"):
        out = tmp_path / balance
        options = ["--strategy", "feature_extraction", "--balance", balance, "--epochs", "6"]
        assert run(tmp_path / "photos", out, *options) == 0
        model = [str(out / MODEL), "--data", str(tmp_path / "photos"), "--split", "all"]
        capsys.readouterr()
        assert evaluate.main([*model, "--out", str(out / "measured")]) == 0
        with (out / "measured" / "answers.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["true class"] == "light"]
        recalls[balance] = sum(row["class"] == "light" for row in rows)
    assert recalls["logits"] > recalls["none"]


def test_a_run_folder_can_be_moved(photo_folder, tmp_path):
    assert run(photo_folder, tmp_path / "a", "--strategy", "feature_extraction") == 0
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert train.main(["--like", str(tmp_path / "b"), "--out", str(tmp_path / "c")]) == 0
    assert history_of(tmp_path / "b") == history_of(tmp_path / "c")
