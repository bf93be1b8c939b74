"""What was interrupted goes on as if it had not been, and nothing that was saved is lost."""

import csv
import errno
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder

from going_modular import data_setup, engine, model_builder, train, utils
from going_modular.training import resuming, run_folder

# A server that has imported everything forks processes in milliseconds; Windows has none.
METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
CONTEXT.set_forkserver_preload(["going_modular.train"])
RESULTS = {"model.safetensors", "history.csv", "curves.png", "run.json", "card.md"}
QUICK = ["--epochs", "2", "--size", "32", "--batch-size", "5", "--device", "cpu"]


# --- engine.train, as in a notebook --------------------------------------------------------------


class Images(Dataset):
    """20 random images, which are other ones each time if they are augmented."""

    def __init__(self, augment=False):
        self.images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        self.augment, self.read = augment, 0

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.read += 1
        image = self.images[index]
        return image + torch.randn(3, 8, 8) if self.augment else image, index % 3


class Loss(nn.CrossEntropyLoss):
    """Cross-entropy that is interrupted when it is asked for that time."""

    def __init__(self, stop):
        super().__init__()
        self.left = [stop]

    def forward(self, logits, labels):
        self.left[0] -= 1
        if not self.left[0]:
            raise KeyboardInterrupt
        return super().forward(logits, labels)


EPOCH = 5  # times that the loss is asked for: in four batches, and for the validation set


def cell(path, stop=0, augment=False, schedule=None, lr=0.05, freeze=False, **options):
    """Run a notebook's cells from the top; return what was trained."""
    utils.seed_everything(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Dropout(0.3),
        nn.Linear(144, 3),
    )
    model[0].requires_grad_(not freeze)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr)
    data = Images(augment)
    loader = {"num_workers": options.pop("workers", 0), "generator": options.pop("generator", None)}
    history = engine.train(
        model,
        DataLoader(data, 6, shuffle=True, **loader),
        DataLoader(Images(), 6),
        optimizer,
        Loss(stop),
        epochs=options.pop("epochs", 4),
        device="cpu",
        scheduler=schedule(optimizer) if schedule else None,
        resume_from=path,
        verbose=False,
        **options,
    )
    history.pop("seconds")
    return history, history.best_epoch, model.state_dict(), data.read


def interrupted_cell(path, stop, **options):
    with pytest.raises(KeyboardInterrupt):
        cell(path, stop, **options)


def assert_same(one, other):
    assert one[:2] == other[:2]
    assert all(torch.equal(value, other[2][name]) for name, value in one[2].items())


SCHEDULES = {
    "none": None,
    "warm-up and cosine": lambda o: engine.warmup_cosine(o, 16, warmup_steps=3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=16),
    "steps": lambda o: lr_scheduler.StepLR(o, 1, gamma=0.5),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.CosineAnnealingLR(o, 3)], [1]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cell_that_is_run_again_goes_on_from_the_last_finished_epoch(schedule, tmp_path):
    options = {"schedule": SCHEDULES[schedule], "keep_best": "loss"}
    expected = cell(None, **options)
    assert expected[3] == 4 * 20
    for epoch, stop in ((0, 2), (1, EPOCH + 3), (3, 4 * EPOCH)):
        path = tmp_path / f"{stop}.pt"
        interrupted_cell(path, stop, **options)
        result = cell(path, **options)
        assert_same(result, expected)
        assert result[3] == (4 - epoch) * 20  # no finished epoch is trained again
        assert_same(result := cell(path, **options), expected)
        assert result[3] == 0


@pytest.mark.parametrize(
    "options",
    [{"augment": True}, {"augment": True, "workers": 2}, {"freeze": True, "cache_frozen": True}],
    ids=["augmented", "augmented in workers", "cached"],
)
def test_random_numbers_go_on_where_they_were(options, tmp_path):
    results = []
    for name, stop in (("whole", 0), ("run", 2 * EPOCH + 2), ("run", 0)):
        options["generator"] = torch.Generator().manual_seed(4)
        if stop:
            interrupted_cell(tmp_path / name, stop, **options)
        else:
            results.append(cell(tmp_path / name, **options))
    assert_same(*results)


def test_patience_is_kept(tmp_path):
    options = {"patience": 2, "epochs": 9, "lr": 0.0}  # nothing gets better
    expected = cell(None, **options)
    assert len(expected[0]["val_loss"]) == 3
    interrupted_cell(tmp_path / "run.pt", 2 * EPOCH + 3, **options)
    assert_same(cell(tmp_path / "run.pt", **options), expected)
    assert_same(cell(tmp_path / "run.pt", **options), expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lr": 0.1}, "its lr of parameter group 1 was 0.05 and is now 0.1"),
        ({"freeze": True}, "its trained part was"),
        ({"keep_best": "acc"}, "its keep_best was None and is now 'acc'"),
        ({"schedule": SCHEDULES["steps"]}, "its scheduler was 'NoneType'"),
    ],
)
def test_another_run_is_not_gone_on_with(other, message, tmp_path):
    path = tmp_path / "run.pt"
    interrupted_cell(path, EPOCH + 1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt holds the state of another run") as error:
        cell(path, **other)
    assert message in str(error.value)
    assert path.read_bytes() == before


def image_folder(folder):
    return ImageFolder(folder)


def image_dataset(folder):
    return data_setup.load_split(folder, ["dark", "light"])


@pytest.mark.parametrize("read", [image_folder, image_dataset])
def test_data_are_the_same_where_contents_and_labels_are(read, photo_folder, tmp_path, monkeypatch):
    model, loss_fn = nn.Linear(1, 1), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters())

    def describe(folder):
        loader = DataLoader(read(folder), 4)
        return resuming.describe(model, optimizer, None, loss_fn, loader, loader)

    expected = describe(photo_folder)
    monkeypatch.chdir(tmp_path)
    assert describe(Path("photos")) == expected
    shutil.move(photo_folder, tmp_path / "moved")
    assert describe(tmp_path / "moved") == expected
    with Image.open(tmp_path / "moved" / "dark" / "00.jpg") as image:
        image.rotate(180).save(tmp_path / "moved" / "dark" / "00.jpg")
    assert (changed := describe(tmp_path / "moved")) != expected
    (tmp_path / "moved" / "dark" / "19.jpg").rename(tmp_path / "moved" / "light" / "!.jpg")
    assert describe(tmp_path / "moved") not in (changed, expected)


def test_tensors_are_compared_by_content():
    model = nn.Linear(1, 1)
    optimizer, images = torch.optim.SGD(model.parameters()), torch.ones(4, 1)

    def describe(*tensors):
        loader = DataLoader(TensorDataset(*tensors))
        return resuming.describe(model, optimizer, None, nn.CrossEntropyLoss(), loader, None)

    expected = describe(images, torch.arange(4))
    assert describe(images.clone(), torch.arange(4)) == expected
    assert describe(2 * images, torch.arange(4)) != expected
    assert describe(images, torch.zeros(4, dtype=torch.int64)) != expected


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_what_is_no_resume_state_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.pt"
    interrupted_cell(path, EPOCH + 1)
    path.write_bytes(path.read_bytes()[:-100])
    torch.save({"resume state": Evil(tmp_path / "made")}, tmp_path / "evil.pt")
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "model.pt")
    for name, message in {
        "run.pt": "cannot be read as a resume state",
        "evil.pt": "cannot be read as a resume state",
        "model.pt": "holds something else",
    }.items():
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=f"{name} {message}"):
            cell(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert not (tmp_path / "made").exists()


def full_disk(monkeypatch):
    """Let what torch saves take 100 bytes, then no more."""

    def save(state, path):
        Path(path).write_bytes(bytes(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save)


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    interrupted_cell(path, EPOCH + 1)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(OSError, match=r"run\.pt \(.*No space left.*the one before is still"):
            cell(path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert path.read_bytes() == before
    assert_same(cell(path), cell(None))


def test_two_notebooks_do_not_share_a_file(tmp_path):
    with resuming.follow(tmp_path / "run.pt", {}, {}):
        with pytest.raises(OSError, match=r"run\.pt is in use by another run"):
            cell(tmp_path / "run.pt")
    cell(tmp_path / "run.pt")


# --- the command line ----------------------------------------------------------------------------


def command(folder, out, *options):
    return ["--data", str(folder), "--out", str(out), *QUICK, *options]


def result(out):
    with (out / "history.csv").open() as file:
        history = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return history, model_builder.load_model(out / run_folder.MODEL)[0].state_dict()


def _run(arguments, cache, log):
    torch.set_num_threads(1)
    os.environ |= {"GOING_MODULAR_PRECISION": "float32", "GOING_MODULAR_CACHE": str(cache)}
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    raise SystemExit(train.main(arguments))


def start(arguments, tmp_path):
    log = tmp_path / "log.txt"
    process = CONTEXT.Process(target=_run, args=(arguments, tmp_path / "cache", log))
    process.start()
    return process


def test_killed_again_and_again_it_goes_on(photo_folder, tmp_path):
    options = ["--strategy", "lp_ft", "--keep-best", "--augment"]
    process = start(command(photo_folder, tmp_path / "whole", *options), tmp_path)
    process.join()
    assert process.exitcode == 0
    arguments, out = command(photo_folder, tmp_path / "out", *options), tmp_path / "out"
    for name in (run_folder.UNFINISHED, run_folder.HEAD_STATE, run_folder.STATE):
        process = start(arguments, tmp_path)
        while not (out / name).exists():
            assert process.is_alive(), (tmp_path / "log.txt").read_text()
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode != 0
        arguments = ["--resume", "--out", str(out)]
    process = start(arguments, tmp_path)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    (history, weights), (expected, same) = result(out), result(tmp_path / "whole")
    assert history == expected
    assert all(torch.equal(value, weights[name]) for name, value in same.items())
    assert {path.name for path in out.iterdir()} - {".lock"} == RESULTS


@pytest.mark.parametrize("place", [run_folder.MODEL, "curves.png", run_folder.UNFINISHED])
def test_killed_while_it_saves_it_saves_again(place, photo_folder, tmp_path):
    out = tmp_path / "out"
    arguments = command(photo_folder, out, "--strategy", "feature_extraction")
    process = CONTEXT.Process(target=_die_at, args=(place, arguments, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (out / run_folder.UNFINISHED).exists()
    assert (out / run_folder.MODEL).exists() == (place != run_folder.MODEL)
    process = start(["--resume", "--out", str(out)], tmp_path)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    assert {path.name for path in out.iterdir()} == RESULTS


def _die_at(place, arguments, tmp_path):
    """Run, and leave as if killed when the file `place` is to be written, or removed at the end."""
    replace, unlink = os.replace, Path.unlink

    def die_replacing(source, target):
        if Path(target).name == place != run_folder.UNFINISHED:
            os._exit(9)
        replace(source, target)

    def die_unlinking(path, **options):
        if path.name == place and (path.parent / run_folder.MODEL).exists():
            os._exit(9)
        unlink(path, **options)

    os.replace, Path.unlink = die_replacing, die_unlinking
    _run(arguments, tmp_path / "cache", tmp_path / "log.txt")


def stop_at(number, function):
    """Return `function`, interrupted when it is called for that time."""
    calls = []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call


@pytest.fixture
def interrupted(photo_folder, tmp_path, monkeypatch, capsys):
    """Leave a run, interrupted while it saved its second epoch, in tmp_path/runs/photos-partial."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stop_at(2, torch.save))
        options = ["--data", str(photo_folder), *QUICK, "--strategy", "partial"]
        assert train.main(options) == 130
    printed = capsys.readouterr().err
    assert "interrupted" in printed and "--resume --out runs/photos-partial" in printed
    return tmp_path / "runs" / "photos-partial", options


def test_an_interrupted_run_goes_on(interrupted, tmp_path, capsys):
    out, options = interrupted
    assert train.main([*options, "--out", str(out)]) == 1
    assert "--resume continues it, --overwrite replaces it" in capsys.readouterr().err
    assert train.main([*options, "--out", str(tmp_path / "whole")]) == 0
    assert train.main(["--resume"]) == 0  # the newest in runs/
    assert "continuing with epoch 2" in capsys.readouterr().out
    (history, weights), (expected, same) = result(out), result(tmp_path / "whole")
    assert history == expected and all(torch.equal(same[n], v) for n, v in weights.items())
    assert train.main(["--resume", "--out", str(out)]) == 1
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "full"], "started with --strategy partial, not full"),
        (["--batch-size", "4"], "started with --batch-size 5, not 4"),
    ],
)
def test_options_that_contradict_the_run_are_refused(interrupted, options, message, capsys):
    out, _ = interrupted
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert train.main(["--resume", "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert train.main(["--resume", *options]) == 1
    assert "no interrupted run that fits these options" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("path", ["photos/", "../photos", "moved"])
def test_a_folder_that_is_spelled_or_called_otherwise_is_the_same(
    path, interrupted, photo_folder, tmp_path, monkeypatch, capsys
):
    out, _ = interrupted
    if path == "moved":
        photo_folder.rename("moved")
    if path.startswith(".."):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert train.main(["--resume", "--data", path, "--out", str(out)]) == 0
    assert "continuing with epoch 2" in capsys.readouterr().out


def test_the_newest_run_is_found_by_the_place_of_its_data(interrupted, tmp_path, capsys):
    assert train.main(["--resume", "--data", "charts"]) == 1
    assert "no interrupted run that fits these options" in capsys.readouterr().err
    assert train.main(["--resume", "--data", "./photos"]) == 0


@pytest.mark.parametrize("change", ["an image more", "another data set"])
def test_other_data_are_noticed(change, interrupted, photo_folder, capsys):
    out, _ = interrupted
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = ["--resume", "--out", str(out)]
    if change == "an image more":
        with Image.open(photo_folder / "dark" / "00.jpg") as image:
            image.rotate(180).save(photo_folder / "dark" / "a.jpg")
    else:
        again += ["--data", "charts"]
    assert train.main(again) == 1
    assert "holds the state of another run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_folder_has_one_live_run(interrupted, capsys):
    out, _ = interrupted
    with resuming.locked(out / ".lock", "it"):
        assert train.main(["--resume", "--out", str(out)]) == 1
    assert "is in use by another run that is still going" in capsys.readouterr().err
    assert json.loads((out / run_folder.UNFINISHED).read_text())["strategy"] == "partial"


@pytest.mark.parametrize("place", ["a file", "a full disk"])
def test_where_nothing_can_be_written_one_line_says_so(
    place, photo_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run" if place == "a file" else tmp_path / "run"
    if place == "a full disk":
        full_disk(monkeypatch)
    assert train.main(command(photo_folder, out, "--strategy", "feature_extraction")) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("train: error:") and printed.count("\n") == 1
    assert not out.exists() and not (tmp_path / "runs").exists()
