"""Several processes train as one does: the same history and weights, whatever each one's share."""

import csv
import multiprocessing
import os
import queue
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from going_modular import engine, train, utils
from going_modular.model_builder import load_model
from going_modular.training import outputs, processes
from going_modular.training.run_folder import MODEL

ROOT = Path(__file__).parent.parent
# A server that has imported everything forks processes in milliseconds; Windows has none.
METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
CONTEXT.set_forkserver_preload(["going_modular.train"])


class Small(nn.Module):
    """What mixes the rows of a batch: BatchNorm, over images and over features."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.head = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images):
        values = self.trunk(images)
        return self.head((values + self.block(values)).mean(dim=(2, 3)))


class Loss(nn.CrossEntropyLoss):
    """Cross-entropy that fails when it is asked for that time."""

    def __init__(self, fails_at):
        super().__init__()
        self.left = [fails_at]

    def forward(self, logits, labels):
        self.left[0] -= 1
        if not self.left[0]:
            raise RuntimeError("stopped")
        return super().forward(logits, labels)


def fit(dtype=torch.float64, freeze=False, optimizer=torch.optim.SGD, fails_at=0, **options):
    """Train on 26 examples in batches of 8, 8, 8 and 2: the third process has none of the last."""
    utils.seed_everything(3)
    model = Small().to(dtype)
    model.trunk.requires_grad_(not freeze)
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(26) % 3
    images = torch.randn(26, 3, 12, 12, generator=generator) + labels[:, None, None, None] - 1.0
    data = TensorDataset(images.to(dtype), labels)
    train_dataloader = DataLoader(data, 8, shuffle=True, generator=generator)
    optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr=0.05)
    if options.pop("schedule", False):
        options["scheduler"] = engine.warmup_cosine(optimizer, 16, warmup_steps=4)
    if options.pop("large", False):  # too large to be kept in memory
        outputs.memory_budget = lambda: 0
    history = engine.train(
        model,
        train_dataloader,
        DataLoader(data, 7),
        optimizer,
        Loss(fails_at),
        epochs=4,
        device="cpu",
        dtype=torch.float32,  # no autocast
        verbose=False,
        **options,
    )
    del history["seconds"]
    predictions = engine.predict(model, DataLoader(data, 7), dtype=torch.float32)
    weights = torch.cat([v.double().flatten() for v in model.state_dict().values()])
    return {
        "history": torch.tensor(list(history.values()), dtype=torch.float64).numpy(),
        "best": history.best_epoch,
        "weights": weights.numpy(),
        "logits": predictions.logits.numpy(),
        "labels": predictions.labels.numpy(),
    }


SCENARIOS = {
    "full": {},
    "clipped, with a schedule": {"schedule": True, "max_grad_norm": 0.5},
    "AdamW, the best epoch": {"optimizer": torch.optim.AdamW, "keep_best": "loss", "patience": 2},
    "frozen work cached": {"freeze": True, "cache_frozen": True},
    "frozen work in a file": {"freeze": True, "cache_frozen": True, "large": True},
    "frozen work of an earlier run": {"freeze": True, "cache_frozen": True},
    "float32": {"dtype": torch.float32},
}


def all_scenarios(cache):
    os.environ["GOING_MODULAR_CACHE"] = str(cache)
    return {name: fit(**options) for name, options in SCENARIOS.items()}


def _process(rank, count, port, work, arguments, results):
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        with processes.process_group():
            result = work(*arguments)
    except BaseException as error:
        result = repr(error)
    results.put((rank, result))


def launch(count, work, *arguments):
    """Call `work` in `count` processes, as torchrun would start them; return what each returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=_process, args=(rank, count, port, work, arguments, results))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=300) for _ in processes)
    except queue.Empty:
        raise AssertionError([process.exitcode for process in processes]) from None
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    return [found[rank] for rank in range(count)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    caches = {count: tmp_path_factory.mktemp("cache") for count in (1, 2, 3)}
    results = {count: launch(count, all_scenarios, cache) for count, cache in caches.items()}
    assert [len(list(cache.iterdir())) for cache in caches.values()] == [2, 2, 2]  # train and val
    return results


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_what_one_gives(runs, count, scenario):
    expected, exact = runs[1][0][scenario], scenario != "float32"
    for result in (rank[scenario] for rank in runs[count]):
        for name in ("history", "weights", "logits"):
            assert result[name] == pytest.approx(expected[name], abs=1e-6 if exact else 1e-3), name
        assert (result["labels"] == expected["labels"]).all()
        assert result["best"] == expected["best"]


def resumable_fit(path, fails_at=0):
    return fit(resume_from=path, fails_at=fails_at)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1)])
def test_a_run_goes_on_with_as_many_processes_or_others(runs, before, after, tmp_path):
    path = tmp_path / "run.pt"
    failed = launch(before, resumable_fit, path, 7)  # in the second epoch
    assert "RuntimeError('stopped')" in failed
    assert torch.load(path, weights_only=True)["epoch"] == 2
    expected = runs[1][0]["full"]
    for result in launch(after, resumable_fit, path):
        assert result["history"] == pytest.approx(expected["history"], abs=1e-6)
        assert result["weights"] == pytest.approx(expected["weights"], abs=1e-6)


class Noisy(torch.utils.data.Dataset):
    """Images that are other ones each time they are read."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.rand(4), index


def augmented_batches(workers):
    """Return each image's number and first pixel, and the mask that dropout drew for a batch."""
    utils.seed_everything(0)
    model = processes.parallel(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)))
    generator = torch.Generator().manual_seed(0)
    options = {"num_workers": workers, "generator": generator}
    if workers and "fork" in METHODS:  # milliseconds, instead of an import of torch
        options["multiprocessing_context"] = "fork"
    loader = DataLoader(Noisy(), 4, shuffle=True, **options)
    read = {}
    for images, numbers in processes.share(loader):
        read |= dict(zip(numbers.tolist(), images[:, 0].tolist(), strict=True))
    return read, model.module[0](torch.ones(64)).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_each_process_draws_its_own_and_no_image_is_read_twice(workers):
    (first, mask), (second, other_mask) = launch(2, augmented_batches, workers)
    assert sorted([*first, *second]) == list(range(12))
    assert len({*first.values(), *second.values()}) == 12
    assert mask != other_mask


def fail_in_one():
    if processes.rank() == 1:
        raise ValueError("photo.jpg cannot be read")
    processes.barrier()


def test_only_the_process_that_failed_says_so():
    assert launch(2, fail_in_one) == ["SystemExit(1)", "ValueError('photo.jpg cannot be read')"]


def tell_each_other():
    number = float(processes.rank())
    return (
        processes.all_reduce(1, number),
        processes.any(number == 1),
        processes.any(number == 2),
        processes.broadcast(f"from {number:.0f}"),
        processes.gather(torch.arange(5)[processes.rank() :: 2]).tolist(),
    )


def test_what_processes_tell_each_other():
    expected = ([2.0, 1.0], True, False, "from 0", [0, 1, 2, 3, 4])
    assert launch(2, tell_each_other) == [expected, expected]


# Process 1 is killed in the first attempt, as soon as there is a state to go on from. Without
# dropout, the only thing that is random here.
WORKER = """
import os, signal, sys, threading, time
from pathlib import Path
import torch
from going_modular import train

torch.nn.functional.dropout = lambda features, *options: features

def kill():
    while not Path(sys.argv[-1], "resume.pt").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    threading.Thread(target=kill, daemon=True).start()
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_killed_worker_is_started_again_and_goes_on(photo_folder, tmp_path, monkeypatch):
    command = ["--data", str(photo_folder), "--strategy", "feature_extraction", "--no-cache"]
    command += ["--epochs", "4", "--size", "32", "--batch-size", "5", "--device", "cpu"]
    monkeypatch.setattr(nn.functional, "dropout", lambda features, *options: features)
    assert train.main([*command, "--out", str(tmp_path / "one")]) == 0
    (tmp_path / "worker.py").write_text(WORKER)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2", "--max-restarts", "1", str(tmp_path / "worker.py")]
    command += ["--out", str(tmp_path / "two")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*launcher, *command], capture_output=True, text=True, env=environment, timeout=400
    )
    assert result.returncode == 0, result.stderr
    assert "continuing with epoch" in result.stdout
    assert result.stdout.count("saved      ") == 1  # one process prints and writes
    assert not list((tmp_path / "two").glob("resume*"))
    one, two = (load_model(tmp_path / name / MODEL)[0].state_dict() for name in ("one", "two"))
    assert max((two[name] - value).abs().max() for name, value in one.items()) < 1e-5
    one, two = (numbers(tmp_path / name / "history.csv") for name in ("one", "two"))
    assert len(one) == 4
    for before, after in zip(one, two, strict=True):
        assert after == pytest.approx(before, abs=1e-5)


def numbers(history):
    """Return the numbers of each epoch, but for the seconds."""
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [[float(v) for k, v in row.items() if k not in ("seconds", "stage")] for row in rows]
