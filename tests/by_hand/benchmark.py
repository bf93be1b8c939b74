"""Time the plain loop of tutorials against the engine: `python tests/by_hand/benchmark.py -h`.

Run by hand, on a machine that does nothing else. Each measurement is a process of its own, so that
its peak memory is its own; plain loop and engine take turns. Seconds run from the making of the
data loaders to the last epoch's validation: decoding and the engine's preparations are included,
imports and the listing of the folder are not.

The floor is one forward pass of the same images, already decoded, in this machine's best setting.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# torch is imported by the measuring processes alone: on Linux a process's peak memory is at least
# that of the process which started it.

sys.path.insert(0, str(Path(__file__).parent.parent.parent))


@dataclass(frozen=True)
class Task:
    """A model and how many of its blocks before the head are trained; None means all."""

    model: str
    last: int | None
    weights: str | None = "DEFAULT"


TASKS = {
    "feature_extraction": Task("efficientnet_lite0", last=0),
    "partial_resnet18": Task("resnet18", last=1, weights=None),  # time does not depend on weights
    "partial_lite0": Task("efficientnet_lite0", last=3),
    "full": Task("efficientnet_lite0", last=None),
}
LR, BATCH_SIZE, FLOOR_IMAGES = 1e-3, 32, 256


def main() -> None:
    """Measure what the options ask for and print it as a table."""
    options = _parse()
    if options.measure:
        print(json.dumps(_measure(options)))
    elif options.scale:
        _print_scale(options)
    else:
        _print_comparison(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="charts", help="a data set's name, or a folder of class folders")
    add("--size", type=int, help="side of the images in pixels; by default the weights' own")
    add("--epochs", type=int, default=5, help="times over the data")
    add("--what", nargs="+", default=list(TASKS), choices=TASKS, help="what to train")
    add("--scale", help="image counts, such as 250,2500,25000: growth of time and memory")
    add("--no-bfloat16", action="store_true", help="let the engine compute in float32")
    add("--repeats", type=int, default=1, help="runs of each variant; medians are printed")
    add(
        "--workers", type=int, default=os.cpu_count(), help="processes that read for the plain loop"
    )
    add(
        "--budget",
        type=float,
        help="MB that the engine keeps in memory of outputs, and of pictures",
    )
    add("--images", type=int, help="train on so many, repeating pictures under new names")
    add("--measure", choices=("plain", "engine", "floor"), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- tables --------------------------------------------------------------------------------------

HEADS = ("task", "images", "variant", "seconds", "images/s", "memory MB", "accuracy", "ratio")
WIDTHS = (-18, 7, -8, 8, 8, 9, -22, -0)


def _print_comparison(options: argparse.Namespace) -> None:
    _print_row(*HEADS)
    for task in options.what:
        runs = {"plain": [], "engine": []}
        for _ in range(options.repeats):
            for variant, results in runs.items():
                results.append(_start(options, task, variant, options.images))
        floor = _start(options, task, "floor", options.images)
        plain, engine = (median(run["seconds"] for run in runs[name]) for name in runs)
        _print_result(task, "plain", runs["plain"], "")
        _print_result(task, "engine", runs["engine"], f"{plain / engine:.1f} times faster")
        _print_result(task, "floor", [floor], f"engine / floor {engine / floor['seconds']:.2f}")


def _print_scale(options: argparse.Namespace) -> None:
    """The plain loop is measured at the smallest count only: it grows with the count."""
    _print_row(*HEADS)
    for task in options.what:
        counts = sorted(int(count) for count in options.scale.split(","))
        plain = [_start(options, task, "plain", counts[0])]
        _print_result(task, "plain", plain, "")
        for count in counts:
            engine = _start(options, task, "engine", count)
            kept = f"outputs {engine['outputs_mb']:.0f} MB in {engine['where']}"
            _print_result(task, "engine", [engine], kept)


def _print_result(task: str, variant: str, runs: list[dict], ratio: str) -> None:
    run = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    speed = run["passes"] / run["seconds"]
    memory = f"{run['memory_mb']:.0f}" if run["memory_mb"] else "-"
    seconds = f"{run['seconds']:.1f}"
    _print_row(
        task, run["images"], variant, seconds, f"{speed:.0f}", memory, run["accuracy"], ratio
    )


def _print_row(*cells: object) -> None:
    padded = (
        f"{cell!s:<{-width}}" if width <= 0 else f"{cell!s:>{width}}"
        for cell, width in zip(cells, WIDTHS, strict=True)
    )
    print("  ".join(padded).rstrip(), flush=True)


def _start(options: argparse.Namespace, task: str, variant: str, images: int | None) -> dict:
    """Measure in a new process, with a cache of its own."""
    command = [sys.executable, __file__, "--measure", variant, "--what", task]
    command += ["--data", options.data, "--epochs", str(options.epochs)]
    command += ["--workers", str(options.workers)]
    for name, value in (("size", options.size), ("budget", options.budget), ("images", images)):
        command += [f"--{name}", str(value)] if value is not None else []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GOING_MODULAR_CACHE": folder}
        if options.no_bfloat16:
            environment["GOING_MODULAR_PRECISION"] = "float32"
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"benchmark: {' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


# --- one measurement -----------------------------------------------------------------------------


def _measure(options: argparse.Namespace) -> dict:
    from going_modular import data_setup, evaluation, model_builder, utils

    (task,) = (TASKS[name] for name in options.what)
    splits = data_setup.load(options.data)
    transform = data_setup.create_transform(task.model, size=options.size)
    utils.seed_everything(0)
    model = model_builder.create_model(task.model, len(splits.class_names), weights=task.weights)
    model_builder.unfreeze(model, last=task.last)
    with tempfile.TemporaryDirectory() as folder:
        train = splits.train
        if options.images:
            samples = _repeat(train.samples, options.images, Path(folder))
            train = data_setup.ImageDataset(samples, train.class_names)
        run = {"plain": _plain, "engine": _engine, "floor": _floor}[options.measure]
        result = run(model, train, splits.val, transform, options)
    result |= {"images": len(train), "memory_mb": _peak_memory_mb(), "accuracy": ""}
    if "correct" in result:
        low, high = evaluation.wilson_interval(result["correct"], len(splits.val))
        accuracy = result["correct"] / len(splits.val)
        result["accuracy"] = f"{accuracy:.3f} ({low:.3f}-{high:.3f})"
        if task.weights is None:  # a frozen trunk of random weights has nothing to reuse
            result["accuracy"] = "random weights"
    return result


def _repeat(samples: list, count: int, folder: Path) -> list:
    """Return `count` samples, the pictures repeated under new names in `folder`."""
    repeated = []
    for index in range(count):
        path, label = samples[index % len(samples)]
        copy = folder / f"{index}{path.suffix}"
        try:
            os.link(path, copy)
        except OSError:  # another disk
            shutil.copyfile(path, copy)
        repeated.append((copy, label))
    return repeated


def _plain(model, train, val, transform, options) -> dict:
    """The loop as tutorials write it."""
    import torch
    from torch.utils.data import DataLoader

    from going_modular import data_setup

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, samples):
            self.samples = samples

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            path, label = self.samples[index]
            return transform(data_setup.load_image(path)), label

    start = time.perf_counter()
    workers = {"num_workers": options.workers}
    train_dataloader = DataLoader(Pictures(train.samples), BATCH_SIZE, shuffle=True, **workers)
    val_dataloader = DataLoader(Pictures(val.samples), BATCH_SIZE, **workers)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=LR)
    loss_fn = torch.nn.CrossEntropyLoss()
    for _ in range(options.epochs):
        model.train()
        for images, labels in train_dataloader:
            loss = loss_fn(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.inference_mode():
            for images, labels in val_dataloader:
                correct += int((model(images).argmax(dim=1) == labels).sum())
    passes = options.epochs * (len(train) + len(val))
    return {"seconds": time.perf_counter() - start, "correct": correct, "passes": passes}


def _engine(model, train, val, transform, options) -> dict:
    import torch

    from going_modular import data_setup, engine
    from going_modular.training import outputs, trunk

    if options.budget is not None:
        outputs.memory_budget = data_setup.memory_budget = lambda: int(options.budget * 1e6)
    computed = []
    run_trunk = trunk.run_trunk

    def noting(*arguments, **keywords):
        loader = run_trunk(*arguments, **keywords)
        computed.append(loader.dataset)
        return loader

    trunk.run_trunk = noting
    start = time.perf_counter()
    train_dataloader = data_setup.create_dataloader(
        train, transform, batch_size=BATCH_SIZE, shuffle=True
    )
    val_dataloader = data_setup.create_dataloader(val, transform, batch_size=BATCH_SIZE)
    trainable = (p for p in model.parameters() if p.requires_grad)
    optimizer = torch.optim.Adam(trainable, lr=LR, fused=True)
    history = engine.train(
        model,
        train_dataloader,
        val_dataloader,
        optimizer,
        epochs=options.epochs,
        device="cpu",
        cache_frozen=not all(p.requires_grad for p in model.parameters()),
        verbose=False,
    )
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "correct": round(history["val_acc"][-1] * len(val)),
        "passes": options.epochs * (len(train) + len(val)),
        "outputs_mb": sum(kept.rows.nbytes for kept in computed) / 1e6,
        "where": "a file" if any(kept.path for kept in computed) else "memory",
    }


def _floor(model, train, val, transform, options) -> dict:
    """One forward pass in the fastest of some settings, measured on some of the images."""
    import torch

    from going_modular import data_setup, utils

    total = len(train) + len(val)
    samples = (train.samples + val.samples)[:FLOOR_IMAGES]
    images = torch.stack([transform(data_setup.load_image(path)) for path, _ in samples])
    images = images.contiguous(memory_format=torch.channels_last)
    utils.model_to_device(model.eval(), "cpu")

    def seconds_for(images: torch.Tensor, batch_size: int, dtype: torch.dtype) -> float:
        start = time.perf_counter()
        with torch.inference_mode(), utils.autocast("cpu", dtype):
            for batch in images.split(batch_size):
                model(batch)
        return time.perf_counter() - start

    settings = [
        (size, dtype)
        for dtype in {torch.float32, utils.pick_precision("cpu")}
        for size in (2, 4, 8, 16, 32, 64)
    ]
    for setting in settings:
        seconds_for(images[:64], *setting)  # warm up
    best = min(settings, key=lambda setting: seconds_for(images[:64], *setting))
    seconds = min(seconds_for(images, *best) for _ in range(3))
    return {"seconds": seconds / len(images) * total, "passes": total}


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


if __name__ == "__main__":
    main()
