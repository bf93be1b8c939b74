"""Train a model on a data set from the command line: `python -m going_modular.train --help`.

It puts data, model, strategy and engine together, and writes a run folder; it computes nothing.
"""

import argparse
import contextlib
import csv
import json
import os
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.training import processes, resuming

# The charts are drawn at about this size, and at 128 px full fine-tuning fits a lesson; photos are
# read at the size that the weights were trained at.
DEFAULT_SIZES = {"charts": 128}


# In a run's folder until its results are there: its options, and where it is.
UNFINISHED = "unfinished.json"
RESULTS = ("model.safetensors", "history.csv", "curves.png")
STATES = {"head": "resume-head.pt", "all": "resume.pt"}
# What may change when an interrupted run goes on: none of it changes the result.
MAY_DIFFER = {"out", "overwrite", "resume", "save_every", "workers", "device", "no_cache", "test"}


@dataclass(frozen=True)
class Strategy:
    """Which share of the trunk's blocks trains, for how long and how fast."""

    share: float
    epochs: int
    lr: float
    trunk_lr: float | None = None
    pretrained: bool = True
    probe_first: bool = False  # train the head on the frozen trunk before all the rest


STRATEGIES = {
    "scratch": Strategy(share=1, epochs=12, lr=2e-3, pretrained=False),
    "feature_extraction": Strategy(share=0, epochs=20, lr=3e-3),
    "partial": Strategy(share=1 / 3, epochs=8, lr=2e-3, trunk_lr=5e-4),
    "full": Strategy(share=1, epochs=8, lr=2e-3, trunk_lr=5e-4),
    "lp_ft": Strategy(share=1, epochs=8, lr=5e-4, trunk_lr=5e-4, probe_first=True),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    matplotlib.use("Agg")  # pictures go to files; no window
    warnings.showwarning = _show_warning
    try:
        with processes.process_group():
            run(_parse(arguments))
    except KeyboardInterrupt:
        print("\ntrain: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError, RuntimeError) as error:
        if os.environ.get("GOING_MODULAR_DEBUG"):
            raise
        print(f"train: error: {_plain(error)}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.train",
        description="Train an image classifier. Without arguments: the last blocks of the "
        "embedded model, on the embedded charts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="charts", help="a data set's name, or a folder of class folders")
    add("--model", default="efficientnet_lite0", help="a torchvision classification model")
    add("--strategy", default="partial", choices=STRATEGIES, help="what to train")
    add("--last", type=int, help="blocks to train before the head; a third of them by default")
    add("--epochs", type=_positive(int), help="times over the data; by default the strategy's")
    add("--batch-size", type=_positive(int), default=32, help="images a step, of all processes")
    add("--lr", type=_positive(float), help="learning rate of the head, or of all of scratch")
    add("--trunk-lr", type=_positive(float), help="learning rate of the pretrained part")
    add("--weight-decay", type=float, default=1e-4, help="AdamW's decay of weight matrices")
    add("--label-smoothing", type=float, default=0.0, help="share of each label spread over all")
    add("--size", type=_positive(int), help="side of the images in pixels; else the weights' own")
    add("--augment", action="store_true", help="vary crop, side and colour of training images")
    add("--keep-best", action="store_true", help="end with the epoch of the lowest val loss")
    add("--patience", type=_positive(int), help="stop after so many epochs without a better one")
    add("--seed", type=int, default=42, help="of the new layers and the batches")
    add("--workers", type=int, help="processes that read images; by default what fits")
    add("--device", help="cpu, cuda, cuda:1, mps; by default the fastest present")
    add("--no-cache", action="store_true", help="run frozen layers again in every epoch")
    add("--test", action="store_true", help="measure the test split too, once, at the end")
    add("--out", type=Path, help="run folder; by default a new one in runs/")
    add("--overwrite", action="store_true", help="replace an earlier run in --out")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --out that was interrupted, "
        "or with the newest one in runs/ that fits the other options",
    )
    add(
        "--save-every",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how often a run is saved, for --resume, beside the end of each epoch",
    )
    options = parser.parse_args(arguments)
    blank = argparse.Namespace(**dict.fromkeys(vars(options)))
    given = vars(parser.parse_args(arguments, blank))  # which defaults do not touch
    options.given = [name for name, value in given.items() if value is not None]
    if options.last is not None and options.strategy != "partial":
        parser.error(f"--last goes with --strategy partial, not with {options.strategy}")
    if options.trunk_lr is not None and STRATEGIES[options.strategy].trunk_lr is None:
        parser.error(
            f"--trunk-lr goes with partial, full and lp_ft; {options.strategy} has one rate"
        )
    return options


def _positive(kind: type) -> object:
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = kind.__name__
    return parse


def run(options: argparse.Namespace) -> Path:
    """Train as `options` say, print the result and return the run folder."""
    with contextlib.ExitStack() as held:
        out, options = processes.on_main(_claim_folder, options, held)
        try:
            _train_into(out, options)
        except BaseException:
            _leave(out)
            raise
    return out


def _train_into(out: Path, options: argparse.Namespace) -> None:
    strategy = STRATEGIES[options.strategy]
    utils.seed_everything(options.seed)
    device = utils.pick_device() if options.device is None else torch.device(options.device)
    print(f"device     {device}, {str(utils.pick_precision(device)).removeprefix('torch.')}")

    with processes.first_on_this_machine():  # what is downloaded is downloaded once
        splits = data_setup.load(options.data)
        print(splits.summary())
        model = _create_model(options, strategy, len(splits.class_names))
    size = _choose_size(options, model)
    transform = data_setup.create_transform(options.model, size=size)
    train_transform = transform
    if options.augment:
        train_transform = data_setup.create_transform(options.model, size=size, augment=True)
    loader = {"batch_size": options.batch_size, "num_workers": options.workers}
    train_dataloader = data_setup.create_dataloader(
        splits.train, train_transform, shuffle=True, seed=options.seed, **loader
    )
    val_dataloader = data_setup.create_dataloader(splits.val, transform, **loader)

    loaders = train_dataloader, val_dataloader
    if strategy.probe_first:
        model_builder.freeze(model)
        _fit(model, STRATEGIES["feature_extraction"], loaders, device, options, out, "head")
        print("the head is ready; now all layers train")
    _unfreeze(model, options, strategy)
    chosen = {"epochs": options.epochs, "lr": options.lr, "trunk_lr": options.trunk_lr}
    strategy = replace(strategy, **{key: value for key, value in chosen.items() if value})
    history = _fit(model, strategy, loaders, device, options, out, "all")

    results = {"validation": engine.evaluate(model, val_dataloader, device)}
    if options.test:
        test_dataloader = data_setup.create_dataloader(splits.test, transform, **loader)
        results["test"] = engine.evaluate(model, test_dataloader, device)
    print(_table(results))
    processes.on_main(_write, out, model, splits.class_names, transform, history, results)


def _create_model(options: argparse.Namespace, strategy: Strategy, classes: int) -> nn.Module:
    weights = "DEFAULT" if strategy.pretrained else None
    model = model_builder.create_model(options.model, classes, weights=weights)
    _unfreeze(model, options, strategy)
    trainable, total = model_builder.count_parameters(model)
    print(f"model      {options.model}, {options.strategy}: {trainable:,} of {total:,} trainable")
    return model


def _unfreeze(model: nn.Module, options: argparse.Namespace, strategy: Strategy) -> None:
    last = last_blocks(model, strategy) if options.last is None else options.last
    model_builder.unfreeze(model, last=last)


def last_blocks(model: nn.Module, strategy: Strategy) -> int:
    """Return how many blocks before the head a strategy trains: of a third, at least one."""
    count = len(model_builder.blocks(model))
    return min(count, max(1, int(strategy.share * count))) if strategy.share else 0


def _fit(
    model: nn.Module,
    strategy: Strategy,
    loaders: tuple[DataLoader, DataLoader],
    device: torch.device,
    options: argparse.Namespace,
    out: Path,
    phase: str,
) -> engine.History:
    """Train what is trainable with the strategy's rates; warm up, then follow a cosine."""
    groups = model_builder.parameter_groups(
        model, strategy.lr, trunk_lr=strategy.trunk_lr, weight_decay=options.weight_decay
    )
    optimizer = torch.optim.AdamW(groups, fused=True)  # all parameters in one pass over memory
    steps = strategy.epochs * len(loaders[0])
    some_frozen = not all(parameter.requires_grad for parameter in model.parameters())
    return engine.train(
        model,
        *loaders,
        optimizer,
        nn.CrossEntropyLoss(label_smoothing=options.label_smoothing),
        strategy.epochs,
        device,
        scheduler=engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10),
        keep_best="loss" if options.keep_best else None,
        patience=options.patience,
        cache_frozen=some_frozen and not options.no_cache and not options.augment,
        checkpoint=resuming.Checkpoint(out / STATES[phase], options.save_every),
    )


def _choose_size(options: argparse.Namespace, model: nn.Module) -> int | None:
    """Return the side of the images in pixels, None standing for the weights' own."""
    size = options.size or DEFAULT_SIZES.get(options.data)
    if size is None:
        return None
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:  # a ViT takes one size only
        if options.size is None:
            return None
        raise ValueError(
            f"{options.model} does not take images of {size} x {size} pixels ({error}): "
            "leave --size out to use the size that its weights were trained at"
        ) from error
    return size


def _claim_folder(
    options: argparse.Namespace, held: contextlib.ExitStack
) -> tuple[Path, argparse.Namespace]:
    """Choose the run folder and lock it while `held`; return it, and the options of the run.

    Raises FileExistsError rather than touch an earlier run, and OSError where one is going on.
    """
    found = None
    if options.resume or processes.is_restarted():
        found = _find_interrupted(options)
        if found is None and options.resume:
            raise FileNotFoundError(
                "runs/ holds no interrupted run that fits these options: name its folder with "
                "--out, or leave out --resume to begin one"
            )
    out, options = found or (options.out or _new_folder(options), options)
    held.enter_context(resuming.locked(out / ".lock", f"the run folder {out}"))
    if found is None:
        _make_ready(out, options)
    return out, options


def _find_interrupted(options: argparse.Namespace) -> tuple[Path, argparse.Namespace] | None:
    """Return the folder of an interrupted run, and its options; None where none is found."""
    if options.out is None:
        files = Path("runs").glob(f"*/{UNFINISHED}")
        folders = [file.parent for file in sorted(files, key=os.path.getmtime, reverse=True)]
    elif (options.out / UNFINISHED).exists():
        folders = [options.out]
    elif processes.is_restarted():
        return None
    else:
        state = "a finished run" if (options.out / RESULTS[0]).exists() else "no interrupted run"
        raise FileNotFoundError(f"{options.out} holds {state}: there is nothing to go on with")
    for folder in folders:
        was = json.loads((folder / UNFINISHED).read_text())
        now = {name: getattr(options, name) for name in options.given}
        other = [name for name in now if name not in MAY_DIFFER and now[name] != was[name]]
        if not other:
            free = {name: vars(options)[name] for name in MAY_DIFFER}
            return folder, argparse.Namespace(**was | free)
        if options.out is not None:
            option = "--" + other[0].replace("_", "-")
            raise ValueError(
                f"{folder} was begun with {option} {was[other[0]]}, not {now[other[0]]}: leave "
                f"{option} out to go on with it, or give another --out to begin a new run"
            )
    return None


def _new_folder(options: argparse.Namespace) -> Path:
    name = f"{Path(options.data).resolve().name}-{options.strategy}"
    number = 1
    while True:
        out = Path("runs", name if number == 1 else f"{name}-{number}")
        try:
            out.mkdir(parents=True)
            return out
        except FileExistsError:
            number += 1


def _make_ready(out: Path, options: argparse.Namespace) -> None:
    """Write down the options of a new run, in a folder that is empty or may be overwritten."""
    if not options.overwrite and any(path.name != ".lock" for path in out.iterdir()):
        if (out / UNFINISHED).exists():
            raise FileExistsError(
                f"{out} holds an interrupted run: --resume goes on with it, --overwrite replaces "
                "it, another --out leaves it alone"
            )
        raise FileExistsError(
            f"{out} holds an earlier run: give another --out, or --overwrite to replace it"
        )
    _remove_states(out)
    kept = {name: value for name, value in vars(options).items() if name not in MAY_DIFFER}
    with utils.replacing(out / UNFINISHED) as path:
        path.write_text(json.dumps(kept, indent=1))


def _leave(out: Path) -> None:
    """Say how an interrupted run goes on, or remove its folder if it had not begun."""
    if not processes.is_main():
        return
    if any((out / name).exists() for name in STATES.values()):
        command = f"{_python()} -m going_modular.train --resume --out {utils.printable(out)}"
        print(f"\ntrain: what is done is kept; to go on: {command}", file=sys.stderr)
        return
    _remove_states(out)
    (out / ".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()  # only an empty one: nothing was saved


def _remove_states(out: Path) -> None:
    for name in STATES.values():
        resuming.Checkpoint(out / name).remove()
    for name in (*RESULTS, UNFINISHED):
        utils.remove_half_written(out / name)
    (out / UNFINISHED).unlink(missing_ok=True)  # the last: until it is gone, --resume cleans up


def _table(results: dict[str, engine.Evaluation]) -> str:
    lines = [f"\n{'split':<10}  {'images':>6}  {'correct':>7}  {'accuracy':>8}  95 % interval"]
    for name, result in results.items():
        low, high = evaluation.wilson_interval(result.correct, result.total)
        lines.append(
            f"{name:<10}  {result.total:>6}  {result.correct:>7}  {result.accuracy:>8.3f}"
            f"  {low:.3f} to {high:.3f}"
        )
    return "\n".join(lines)


def _write(
    out: Path,
    model: nn.Module,
    class_names: list[str],
    transform: object,
    history: engine.History,
    results: dict[str, engine.Evaluation],
) -> None:
    metrics = {f"{name}_accuracy": result.accuracy for name, result in results.items()}
    utils.save_model(
        model, out, RESULTS[0], class_names=class_names, transform=transform, metrics=metrics
    )
    with utils.replacing(out / "history.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        writer.writerows(
            [epoch, *row] for epoch, row in enumerate(zip(*history.values(), strict=True), start=1)
        )
    with utils.replacing(out / "curves.png") as path:
        utils.plot_curves(history)
        plt.savefig(path, dpi=120, format="png")
        plt.close()
    _remove_states(out)
    folder = Path(utils.printable(out))
    print("\nsaved      " + ", ".join(str(folder / name) for name in RESULTS))
    print(f"predict    {_python()} -m going_modular.predict {folder / RESULTS[0]} PHOTO...")
    print(f"learn      {_python()} -m jupyterlab notebooks")


def _python() -> str:
    """Name this Python as short as it can be typed here."""
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {_plain(message)}", file=sys.stderr)


def _plain(message: object) -> str:
    """Make a message, which may hold a file's name, safe for the terminal."""
    return "\n".join(map(utils.printable, str(message).splitlines()))


if __name__ == "__main__":
    sys.exit(main())
