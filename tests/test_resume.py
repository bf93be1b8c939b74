"""What was interrupted goes on as if it had not been, and nothing that was saved is lost."""

import csv
import errno
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset

from going_modular import engine, train, utils
from going_modular.training import resuming

# A server that has imported everything forks processes in milliseconds; Windows has none.
METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
CONTEXT.set_forkserver_preload(["going_modular.train"])
RESULTS = {"curves.png", "history.csv", "model.safetensors"}
QUICK = ["--epochs", "2", "--size", "32", "--batch-size", "5", "--device", "cpu"]


# --- engine.train, as in a notebook --------------------------------------------------------------


class Pictures(Dataset):
    """20 random pictures that stop the run when they have been read `limit` times."""

    def __init__(self, limit=10**9, augment=False):
        self.images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        self.limit, self.augment, self.read = limit, augment, []

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.read.append(index)
        if len(self.read) > self.limit:
            raise KeyboardInterrupt
        image = self.images[index]
        return image + torch.randn(3, 8, 8) if self.augment else image, index % 3


def cell(path, limit=10**9, augment=False, schedule=None, lr=0.05, freeze=False, **options):
    """Run a notebook's cells from the top; return what was trained."""
    utils.seed_everything(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Dropout(0.3),
        nn.Linear(144, 3),
    )
    model[0].requires_grad_(not freeze)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr)
    data = Pictures(limit, augment)
    history = engine.train(
        model,
        DataLoader(data, 6, shuffle=True),
        DataLoader(Pictures(), 6),
        optimizer,
        epochs=options.pop("epochs", 4),
        device="cpu",
        scheduler=schedule(optimizer) if schedule else None,
        checkpoint=path and resuming.Checkpoint(path, save_every=0),
        verbose=options.pop("verbose", False),
        **options,
    )
    history.pop("seconds")
    return history, history.best_epoch, model.state_dict(), data.read


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
def test_a_cell_that_is_run_again_goes_on(schedule, tmp_path):
    options = {"schedule": SCHEDULES[schedule], "keep_best": "loss"}
    expected = cell(None, **options)
    for limit in (4, 15, 23, 46, 79):  # in a first batch, in the middle, in the last
        path = tmp_path / f"{limit}.pt"
        with pytest.raises(KeyboardInterrupt):
            cell(path, limit, **options)
        assert_same(cell(path, **options), expected)
        assert_same(cell(path, **options), expected)  # nothing is left to do
        assert cell(path, **options)[3] == []


@pytest.mark.parametrize("options", [{"augment": True}, {"freeze": True, "cache_frozen": True}])
def test_it_goes_on_with_augmentation_and_with_cached_outputs(options, tmp_path, monkeypatch):
    expected = cell(None, **options)
    for step in (2, 7):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_loss", stop_at(step, engine._loss))
            with pytest.raises(KeyboardInterrupt):
                cell(tmp_path / f"{step}.pt", **options)
        assert_same(cell(tmp_path / f"{step}.pt", **options), expected)


def stop_at(number, function):
    """Return `function`, interrupted when it is called for that time."""
    calls = []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call


def test_batches_that_were_seen_are_not_read_again(tmp_path):
    expected = cell(None)[3]
    with pytest.raises(KeyboardInterrupt):
        cell(tmp_path / "run.pt", 33)  # in the third batch of the second epoch
    assert cell(tmp_path / "run.pt")[3] == expected[32:]


def test_patience_is_kept(tmp_path):
    options = {"patience": 2, "epochs": 9, "lr": 1.0}
    expected = cell(None, **options)
    assert len(expected[0]["val_loss"]) < 9
    with pytest.raises(KeyboardInterrupt):
        cell(tmp_path / "run.pt", 55, **options)
    assert_same(cell(tmp_path / "run.pt", **options), expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lr": 0.1}, "its lr of parameter group 1 was 0.05, and now it is 0.1"),
        ({"freeze": True}, "its trained part was"),
        ({"keep_best": "acc"}, "its keep_best was None, and now it is 'acc'"),
        ({"schedule": SCHEDULES["steps"]}, "its scheduler was 'NoneType'"),
    ],
)
def test_another_run_is_not_gone_on_with(other, message, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cell(tmp_path / "run.pt", 33)
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt holds the state of another run") as error:
        cell(tmp_path / "run.pt", **other)
    assert message in str(error.value)
    assert (tmp_path / "run.pt").read_bytes() == before


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path):
    path, expected = tmp_path / "run.pt", cell(None)
    with pytest.raises(KeyboardInterrupt):
        cell(path, 33)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, which torch.load lets pass
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"run\.pt is damaged"):
        assert_same(cell(path), expected)
    for file in (path, path.with_name("run.pt.before")):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"run\.pt is damaged: delete"):
        cell(path)


def test_a_state_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    resuming.Checkpoint(tmp_path / "run.pt").write({"format": 1, "about": Evil()})
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        cell(tmp_path / "run.pt")
    assert not (tmp_path / "made").exists()


def full_disk(monkeypatch, name):
    """Let every file that is called like `name` take 100 bytes, then no more."""
    write = Path.write_bytes

    def write_bytes(path, content):
        if name not in path.name:
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    expected = cell(None)
    with pytest.raises(KeyboardInterrupt):
        cell(tmp_path / "run.pt", 33)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("run.pt*")}
    with monkeypatch.context() as patch:
        full_disk(patch, "run.pt")
        with pytest.raises(OSError, match=r"cannot be written to .*No space left"):
            cell(tmp_path / "run.pt")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("run.pt*")} == before
    assert not list(tmp_path.glob(".run.pt.*[!k]"))
    assert_same(cell(tmp_path / "run.pt"), expected)


def test_two_notebooks_do_not_share_a_checkpoint(tmp_path):
    checkpoint = resuming.Checkpoint(tmp_path / "run.pt")
    with checkpoint.locked():
        with pytest.raises(OSError, match=r"run\.pt is in use by another run"):
            cell(tmp_path / "run.pt")
    cell(tmp_path / "run.pt")


# --- the command line ----------------------------------------------------------------------------


def command(folder, out, *options):
    return ["--data", str(folder), "--out", str(out), *QUICK, "--save-every", "0", *options]


def result(out):
    with (out / "history.csv").open() as file:
        history = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return history, load_file(out / "model.safetensors")


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


@pytest.mark.parametrize(
    "options",
    [["--strategy", "lp_ft", "--keep-best"], ["--strategy", "full", "--augment"]],
    ids=["lp_ft", "augment"],
)
def test_killed_at_any_moment_it_goes_on(options, photo_folder, tmp_path):
    began = time.monotonic()
    process = start(command(photo_folder, tmp_path / "whole", *options), tmp_path)
    process.join()
    took, killed = time.monotonic() - began, 0
    assert process.exitcode == 0
    moments = random.Random(len(options))
    arguments, out = command(photo_folder, tmp_path / "out", *options), tmp_path / "out"
    for _ in range(3):
        process = start(arguments, tmp_path)
        process.join(moments.uniform(0.3, 0.9) * took)
        killed += process.is_alive()
        process.kill()
        process.join()
        if (out / train.UNFINISHED).exists():
            arguments = ["--resume", "--out", str(out), "--save-every", "0"]
    if (out / train.UNFINISHED).exists() or not (out / "model.safetensors").exists():
        process = start(arguments, tmp_path)
        process.join()
        assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    assert killed
    (history, weights), (expected, same) = result(out), result(tmp_path / "whole")
    assert history == expected
    assert all(torch.equal(value, weights[name]) for name, value in same.items())
    assert {path.name for path in out.iterdir()} - {".lock"} == RESULTS


@pytest.mark.parametrize(
    "place", ["model.safetensors", "history.csv", "curves.png", "unfinished.json"]
)
def test_killed_while_it_saves_it_saves_again(place, photo_folder, tmp_path):
    out = tmp_path / "out"
    arguments = command(photo_folder, out, "--strategy", "feature_extraction")
    process = CONTEXT.Process(target=_die_at, args=(place, arguments, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (out / train.UNFINISHED).exists()
    assert (out / "model.safetensors").exists() == (place != "model.safetensors")
    process = start(["--resume", "--out", str(out)], tmp_path)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    assert {path.name for path in out.iterdir()} == RESULTS


def _die_at(place, arguments, tmp_path):
    """Run, and leave as if killed when the file `place` is to be written, or removed at the end."""
    replace, unlink = os.replace, Path.unlink

    def die_replacing(source, target):
        if Path(target).name == place != train.UNFINISHED:
            os._exit(9)
        replace(source, target)

    def die_unlinking(path, **options):
        if path.name == place and (path.parent / "model.safetensors").exists():
            os._exit(9)
        unlink(path, **options)

    os.replace, Path.unlink = die_replacing, die_unlinking
    _run(arguments, tmp_path / "cache", tmp_path / "log.txt")


@pytest.fixture
def interrupted(photo_folder, tmp_path, monkeypatch, capsys):
    """Leave a run that was interrupted in its second epoch in tmp_path/runs/photos-partial."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "test_step", stop_at(2, engine.test_step))
        options = ["--data", str(photo_folder), *QUICK, "--strategy", "partial"]
        assert train.main(options) == 130
    printed = capsys.readouterr().err
    assert "interrupted" in printed and "--resume --out runs/photos-partial" in printed
    return tmp_path / "runs" / "photos-partial", options


def test_an_interrupted_run_goes_on(interrupted, tmp_path, capsys):
    out, options = interrupted
    assert train.main([*options, "--out", str(out)]) == 1
    assert "--resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    assert train.main([*options, "--out", str(tmp_path / "whole")]) == 0
    assert train.main(["--resume"]) == 0  # the newest in runs/
    assert "going on with epoch 2" in capsys.readouterr().out
    (history, weights), (expected, same) = result(out), result(tmp_path / "whole")
    assert history == expected and all(torch.equal(same[n], v) for n, v in weights.items())
    assert train.main(["--resume", "--out", str(out)]) == 1
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "full"], "begun with --strategy partial, not full"),
        (["--batch-size", "4"], "begun with --batch-size 5, not 4"),
        (["--data", "charts"], "begun with --data"),
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


def test_a_picture_that_was_added_is_noticed(interrupted, photo_folder, capsys):
    out, _ = interrupted
    (photo_folder / "dark" / "a.jpg").write_bytes((photo_folder / "dark" / "00.jpg").read_bytes())
    assert train.main(["--resume", "--out", str(out)]) == 1
    assert "holds the state of another run" in capsys.readouterr().err


def test_a_run_folder_has_one_live_run(interrupted, capsys):
    out, _ = interrupted
    with resuming.locked(out / ".lock", "it"):
        assert train.main(["--resume", "--out", str(out)]) == 1
    assert "is in use by another run, which is still going" in capsys.readouterr().err
    assert json.loads((out / train.UNFINISHED).read_text())["strategy"] == "partial"


@pytest.mark.parametrize("place", ["a file", "a full disk"])
def test_where_nothing_can_be_written_one_line_says_so(
    place, photo_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run" if place == "a file" else tmp_path / "run"
    if place == "a full disk":
        full_disk(monkeypatch, "resume.pt")
    assert train.main(command(photo_folder, out, "--strategy", "feature_extraction")) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("train: error:") and printed.count("\n") == 1
    assert not out.exists() and not (tmp_path / "runs").exists()
