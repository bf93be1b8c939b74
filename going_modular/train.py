"""Train a model on a data set from the command line: `python -m going_modular.train --help`.

It puts data, model, strategy and engine together, and writes a run folder; it computes nothing.
"""

import argparse
import contextlib
import csv
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

# The charts are drawn at about this size, and at 128 px full fine-tuning fits a lesson; photos are
# read at the size that the weights were trained at.
DEFAULT_SIZES = {"charts": 128}


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
    options = _parse(arguments)
    try:
        run(options)
    except KeyboardInterrupt:
        print("\ntrain: interrupted; nothing was saved.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError, RuntimeError) as error:
        if os.environ.get("GOING_MODULAR_DEBUG"):
            raise
        print(f"train: error: {error}", file=sys.stderr)
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
    add("--batch-size", type=_positive(int), default=32, help="images a step")
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
    options = parser.parse_args(arguments)
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
    out = _claim_folder(options)
    try:
        _train_into(out, options)
    finally:
        with contextlib.suppress(OSError):
            out.rmdir()  # only an empty one: nothing was saved
    return out


def _train_into(out: Path, options: argparse.Namespace) -> None:
    strategy = STRATEGIES[options.strategy]
    utils.seed_everything(options.seed)
    device = utils.pick_device() if options.device is None else torch.device(options.device)
    print(f"device     {device}, {str(utils.pick_precision(device)).removeprefix('torch.')}")

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
        _fit(model, STRATEGIES["feature_extraction"], loaders, device, options)
        print("the head is ready; now all layers train")
    _unfreeze(model, options, strategy)
    chosen = {"epochs": options.epochs, "lr": options.lr, "trunk_lr": options.trunk_lr}
    strategy = replace(strategy, **{key: value for key, value in chosen.items() if value})
    history = _fit(model, strategy, loaders, device, options)

    results = {"validation": engine.evaluate(model, val_dataloader, device)}
    if options.test:
        test_dataloader = data_setup.create_dataloader(splits.test, transform, **loader)
        results["test"] = engine.evaluate(model, test_dataloader, device)
    print(_table(results))
    _write(out, model, splits.class_names, transform, history, results)


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


def _claim_folder(options: argparse.Namespace) -> Path:
    """Make the run folder; raise FileExistsError rather than touch an earlier run."""
    if options.out is None:
        name = f"{Path(options.data).resolve().name}-{options.strategy}"
        number = 1
        while True:
            out = Path("runs", name if number == 1 else f"{name}-{number}")
            try:
                out.mkdir(parents=True)
                return out
            except FileExistsError:
                number += 1
    if options.out.is_dir() and any(options.out.iterdir()) and not options.overwrite:
        raise FileExistsError(
            f"{options.out} holds an earlier run: give another --out, or --overwrite to replace it"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    return options.out


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
        model, out, "model.pt", class_names=class_names, transform=transform, metrics=metrics
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
    print(f"\nsaved      {out / 'model.pt'}, {out / 'history.csv'}, {out / 'curves.png'}")
    print(f"predict    {_python()} -m going_modular.predict {out / 'model.pt'} PHOTO...")
    print(f"learn      {_python()} -m jupyterlab notebooks")


def _python() -> str:
    """Name this Python as short as it can be typed here."""
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
