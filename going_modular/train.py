"""Train a model on a data set from the command line: `python -m going_modular.train --help`.

It puts data, model, strategy and engine together, and writes a run folder; it computes nothing.
"""

import argparse
import importlib.util
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import torch
from torch import nn
from torch.utils.data import DataLoader

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.models.weights import listing
from going_modular.pictures import downloads
from going_modular.training import losses, processes, records, run_folder
from going_modular.training.strategies import LEAST_STEPS, STRATEGIES, Strategy

# The charts are drawn at about this size, and at 128 px full fine-tuning fits a lesson; photos are
# read at the size that the weights were trained at.
DEFAULT_SIZES = {"charts": 128}
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NOT_KEPT = ("given", "like", "list_models")  # of the options, in a run's record
WHAT_TRAINS = (
    "what trains: the head (feature_extraction), also the last blocks (partial), everything "
    "(full), the head and then everything (lp_ft), or everything from random weights (scratch)"
)
MISTAKES = (ValueError, OSError, ImportError, FloatingPointError, model_builder.WeightsError)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    matplotlib.use("Agg")  # figures go to files; no window
    try:
        with warnings.catch_warnings(), processes.process_group():
            warnings.showwarning = _show_warning
            options = _parse(arguments)
            if options.list_models:
                print(listing(options.list_models))
            else:
                run(options)
    except KeyboardInterrupt:
        print("\ntrain: interrupted.", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        reason = utils.one_line(error)
        print(f"train: error: give a smaller --batch-size or --size: {reason}", file=sys.stderr)
        return 1
    except MISTAKES as error:  # of the user; anything else is ours, and needs its traceback
        print(f"train: error: {_plain(error)}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> Path:
    """Train as `options` say, print the result and return the run folder."""
    with run_folder.claimed(options) as (out, options):
        _train_into(out, options)
    return out


def last_blocks(model: nn.Module, strategy: Strategy) -> int:
    """Return how many blocks before the head a strategy trains: of a third, at least one."""
    count = len(model_builder.blocks(model))
    return min(count, max(1, int(strategy.share * count))) if strategy.share else 0


# --- options -------------------------------------------------------------------------------------


class _WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default only where it is informative: the help texts explain None and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if not action.default else super()._get_help_string(action)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; `given` lists the options that were written there."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.train",
        description="Train an image classifier. Without arguments: the last blocks of the "
        "embedded model, on the embedded charts.",
        formatter_class=_WithDefaults,
    )
    add = parser.add_argument
    add("--data", default="charts", help="name of a data set, or folder of class folders")
    add(
        "--labels",
        metavar="FILE[:COLUMN]",
        help="a table with one row per image, if the images are not in class folders",
    )
    add(
        "--groups",
        metavar="folder|PATTERN",
        help="keep images of one folder, or with the same match of this pattern in their names, in "
        "one split: those of one patient, camera or burst",
    )
    add("--model", default="efficientnet_lite0", help="a torchvision model, or timm:NAME")
    add(
        "--list-models",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help='list the models, such as "resnet*" or "timm:*dinov2*", and do nothing else',
    )
    add("--strategy", default="partial", choices=STRATEGIES, help=WHAT_TRAINS)
    add("--last", type=_from_0(int), help="how many blocks to train; by default a third")
    add(
        "--epochs",
        type=_above_0(int),
        help="passes over the data (lp_ft: of its second phase); by default the strategy's, and of "
        f"few images as many as make {LEAST_STEPS} steps",
    )
    add("--batch-size", type=_above_0(int), default=32, help="images per step, over all processes")
    add("--lr", type=_above_0(float), help="learning rate of the head; of all layers with scratch")
    add("--trunk-lr", type=_above_0(float), help="learning rate of the pretrained part")
    add(
        "--layer-decay",
        type=_above_0(float),
        help="instead of --trunk-lr: each block learns at this share of the rate of the block "
        "after it, such as 0.7",
    )
    add(
        "--weight-decay",
        type=_from_0(float),
        default=1e-4,
        help="AdamW's, for weight matrices only",
    )
    add(
        "--balance",
        choices=losses.BALANCES,
        default="none",
        help="let rare classes count as much as common ones: by weights in the loss, or by "
        "adjusted logits (which did better on our data)",
    )
    add(
        "--label-smoothing",
        type=_from_0(float, below=1),
        default=0.0,
        help="share of each label that is spread evenly over all classes",
    )
    add("--size", type=_above_0(int), help="side of the images in pixels; else what weights expect")
    add(
        "--resize",
        choices=data_setup.RESIZES,
        default="crop",
        help="of an image that is not square: crop keeps the middle, as the weights had it; squash "
        "and pad keep all of it",
    )
    add(
        "--augment",
        nargs="?",
        const="light",
        choices=data_setup.AUGMENTATIONS,
        help="vary the training images at random: crop, mirror and recolour them a little (light), "
        "or also change each in one random way, of any strength (trivial); by default light where "
        "all layers train, as in full and lp_ft, else none",
    )
    add(
        "--no-mirror",
        action="store_true",
        help="never mirror, for images whose class depends on left and right",
    )
    add("--keep-best", action="store_true", help="keep the epoch with the lowest validation loss")
    add(
        "--patience",
        type=_above_0(int),
        help="stop after this many epochs without a lower validation loss",
    )
    add(
        "--seed",
        type=_from_0(int, below=2**32),
        default=42,
        help="for new layers and for the order of the images",
    )
    add("--workers", type=_from_0(int), help="processes that read images; by default automatic")
    add("--device", type=_device, help="cpu, cuda, cuda:1, mps; by default the fastest present")
    add("--no-cache", action="store_true", help="run frozen layers again in every epoch")
    add("--test", action="store_true", help="also measure the test split, once, at the end")
    add(
        "--like",
        type=Path,
        metavar="RUN",
        help="repeat a run folder, except for options given here",
    )
    add("--tensorboard", action="store_true", help="also write the epochs for TensorBoard")
    add("--out", type=Path, help="run folder; by default a new one in runs/")
    add("--overwrite", action="store_true", help="replace an earlier run in --out")
    add(
        "--resume",
        action="store_true",
        help="continue the interrupted run in --out from its last finished epoch; without --out, "
        "the newest one in runs/ that fits the other options",
    )
    options = parser.parse_args(arguments)
    if options.like:
        parser.set_defaults(**_options_of(options.like))
        options = parser.parse_args(arguments)
    blank = argparse.Namespace(**dict.fromkeys(vars(options)))
    given = vars(parser.parse_args(arguments, blank))  # without the defaults
    options.given = [name for name, value in given.items() if value is not None]
    if options.last is not None and options.strategy != "partial":
        parser.error(f"--last goes with --strategy partial, not with {options.strategy}")
    for name in ("trunk_lr", "layer_decay"):
        if getattr(options, name) and STRATEGIES[options.strategy].trunk_lr is None:
            option = f"--{name.replace('_', '-')}"
            parser.error(
                f"{option} goes with partial, full and lp_ft; {options.strategy} has one rate"
            )
    if options.trunk_lr and options.layer_decay:
        parser.error("--trunk-lr and --layer-decay both set the trunk's rate: give one")
    return options


def _options_of(run: Path) -> dict[str, object]:
    """Return the options of an earlier run that decide its result."""
    options = records.read(run)["options"]
    if isinstance(options.get("augment"), bool):  # of a run before there was a choice
        options["augment"] = "light" if options["augment"] else "none"
    return {name: value for name, value in options.items() if name not in run_folder.MAY_DIFFER}


def _above_0(kind: type) -> Callable[[str], float]:
    return _number(kind, lambda value: 0 < value < math.inf, "above 0")


def _from_0(kind: type, below: float = math.inf) -> Callable[[str], float]:
    wanted = "0 or more" if below == math.inf else f"at least 0 and below {below}"
    return _number(kind, lambda value: 0 <= value < below, wanted)


def _number(kind: type, is_right: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not is_right(value):
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    parse.__name__ = kind.__name__  # for argparse's "invalid int value"
    return parse


def _device(text: str) -> torch.device:
    try:
        torch.zeros(1, device=text).item()
    except (RuntimeError, AssertionError) as error:
        reason = utils.one_line(str(error).partition("\n")[0])
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a device of this machine: {reason}"
        ) from None
    return torch.device(text)


# --- one run -------------------------------------------------------------------------------------


def _train_into(out: Path, options: argparse.Namespace) -> None:
    start = time.perf_counter()
    strategy = STRATEGIES[options.strategy]
    utils.seed_everything(options.seed)
    device = options.device or utils.pick_device()
    precision = str(utils.pick_precision(device)).removeprefix("torch.")
    print(f"device     {device}, {precision}")

    data_setup.create_transform(options.model)  # says at once where there is no such model
    with processes.first_on_this_machine():  # what is downloaded is downloaded once
        splits = data_setup.load(options.data, groups=options.groups, labels=options.labels)
        print(splits.summary())
        model = _create_model(options, strategy, len(splits.class_names))
    content = records.splits_by_content(
        {name: getattr(splits, name) for name in ("train", "val", "test")}
    )
    if options.like:
        _compare_data(options.like, content)
    size = _choose_size(options, model)
    prepared = {"size": size, "resize": options.resize}
    transform = data_setup.create_transform(options.model, **prepared)
    loader = {"batch_size": options.batch_size, "num_workers": options.workers}
    val_dataloader = data_setup.create_dataloader(splits.val, transform, **loader)

    def fit(strategy: Strategy, state: str, stage: str) -> None:
        varied = data_setup.create_transform(
            options.model, augment=strategy.augment, mirror=not options.no_mirror, **prepared
        )
        train_dataloader = data_setup.create_dataloader(
            splits.train, varied, shuffle=True, seed=options.seed, **loader
        )
        report.stage = stage
        loaders = train_dataloader, val_dataloader
        _fit(model, strategy, loaders, device, options, out / state, report)

    report = _Report(out, options.tensorboard)
    if strategy.probe_first:
        model_builder.freeze(model)
        probe = STRATEGIES["feature_extraction"]
        probe = replace(probe, augment=options.augment or probe.augment)
        fit(probe, run_folder.HEAD_STATE, "head")
        print("the head is trained; now all layers train")
        _unfreeze(model, options, strategy)
    names = "epochs", "lr", "trunk_lr", "augment"
    chosen = {name: getattr(options, name) for name in names}
    if not options.epochs:
        steps = math.ceil(len(splits.train) / options.batch_size)
        chosen["epochs"] = max(strategy.epochs, math.ceil(LEAST_STEPS / steps))
    strategy = replace(strategy, **{name: value for name, value in chosen.items() if value})
    if options.layer_decay:
        strategy = replace(strategy, trunk_lr=None)
    fit(strategy, run_folder.STATE, "layers" if strategy.probe_first else "")

    # In float32, as the saved model is used: every machine measures the same again.
    measured = {"validation": engine.predict(model, val_dataloader, device, dtype=torch.float32)}
    if options.test:
        test_dataloader = data_setup.create_dataloader(splits.test, transform, **loader)
        measured["test"] = engine.predict(model, test_dataloader, device, dtype=torch.float32)
    results = {name: _result(predictions) for name, predictions in measured.items()}
    print(_table(results))
    if processes.is_main():
        path = utils.save_model(
            model,
            out,
            run_folder.MODEL,
            class_names=splits.class_names,
            transform=transform,
            metrics={f"{name}_accuracy": result["accuracy"] for name, result in results.items()},
            training=_how(options, strategy) | {"data": records.fingerprint(content)},
        )
        trainable, parameters = model_builder.count_parameters(model)
        record = {
            "options": _kept(options),
            "strategy": asdict(strategy),
            "transform": utils.describe_transform(transform),
            "trainable": trainable,
            "parameters": parameters,
            "device": str(device),
            "precision": precision,
            "seconds": round(time.perf_counter() - start, 1),
            "finished": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "versions": records.versions(),
            "results": results,
            "data": {"how": splits.how, "fingerprint": records.fingerprint(content)}
            | {"splits": content},
        }
        records.write(out, record)
        report.finish()
        run_folder.finish(out)
        _print_what_next(path)


class _Report:
    """What grows with the epochs of a run: history.csv and, where it is asked for, TensorBoard."""

    def __init__(self, out: Path, tensorboard: bool) -> None:
        self.out, self.stage, self.stages, self.writer = out, "", {}, None
        if tensorboard and processes.is_main():
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    "--tensorboard needs a package: python -m pip install tensorboard"
                ) from error
            self.writer = SummaryWriter(str(out / "tensorboard"))

    def after_epoch(self, epoch: int, model: nn.Module, history: engine.History) -> None:
        self.stages[self.stage] = history
        if processes.is_main():
            run_folder.write_history(self.out, self.stages)
        if self.writer:
            for name, values in history.items():
                self.writer.add_scalar(f"{self.stage}/{name}".lstrip("/"), values[-1], epoch)
            self.writer.flush()

    def finish(self) -> None:
        run_folder.write_history(self.out, self.stages)  # none, where all epochs were there
        run_folder.write_curves(self.out, self.stages[self.stage])
        if self.writer:
            self.writer.close()


def _compare_data(like: Path, content: dict[str, dict[str, list[str]]]) -> None:
    """Warn where an earlier run saw other images, or had them in other splits."""
    before = records.read(like)["data"]
    if before["fingerprint"] == records.fingerprint(content):
        return
    old, new = (
        {(split, name, file) for split in c for name in c[split] for file in c[split][name]}
        for c in (before["splits"], content)
    )
    warnings.warn(
        f"the images are not those of {utils.printable(like)}: {len(new - old)} are new or have "
        f"moved, {len(old - new)} are gone",
        stacklevel=2,
    )


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
            f"{options.model} does not take images of {size} x {size} pixels "
            f"({utils.one_line(error)}): leave --size out to use the size that its weights were "
            "trained at"
        ) from error
    return size


def _fit(
    model: nn.Module,
    strategy: Strategy,
    loaders: tuple[DataLoader, DataLoader],
    device: torch.device,
    options: argparse.Namespace,
    state: Path,
    report: "_Report",
) -> None:
    """Train what is trainable with the strategy's rates; warm up, then follow a cosine."""
    groups = model_builder.parameter_groups(
        model,
        strategy.lr,
        trunk_lr=strategy.trunk_lr,
        layer_decay=options.layer_decay,
        weight_decay=options.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)  # all parameters in one pass over memory
    steps = strategy.epochs * len(loaders[0])
    some_frozen = not all(parameter.requires_grad for parameter in model.parameters())
    images = Counter(loaders[0].dataset.targets)
    counts = [images[label] for label in range(len(loaders[0].dataset.class_names))]
    history = engine.train(
        model,
        *loaders,
        optimizer,
        losses.cross_entropy(options.balance, counts, options.label_smoothing),
        strategy.epochs,
        device,
        scheduler=engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10),
        keep_best="loss" if options.keep_best else None,
        patience=options.patience,
        cache_frozen=some_frozen and not options.no_cache and strategy.augment == "none",
        resume_from=state,
        after_epoch=report.after_epoch,
    )
    report.stages[report.stage] = history  # also where all epochs were there already


# --- what is told --------------------------------------------------------------------------------


def _how(options: argparse.Namespace, strategy: Strategy) -> dict[str, object]:
    """Say how the model was trained, for its file; no path of this machine is in it."""
    names = "strategy groups batch_size no_mirror layer_decay balance keep_best seed".split()
    rates = {name: getattr(strategy, name) for name in ("epochs", "lr", "trunk_lr", "augment")}
    return {name: getattr(options, name) for name in names} | rates


def _kept(options: argparse.Namespace) -> dict[str, object]:
    """Return the options as --like takes them, from whatever folder."""
    known = {*data_setup.DATA_SETS, *downloads.DATA_SETS}
    data = options.data if options.data in known else str(Path(options.data).resolve())
    kept = {name: value for name, value in vars(options).items() if name not in NOT_KEPT}
    return kept | {"data": data}


def _result(predictions: engine.Predictions) -> dict[str, float]:
    """Return an accuracy with its interval, and what to hold it against."""
    labels, total = predictions.labels, len(predictions.labels)
    low, high = evaluation.wilson_interval(predictions.correct, total)
    return {
        "images": total,
        "correct": predictions.correct,
        "accuracy": predictions.accuracy,
        "low": low,
        "high": high,
        "balanced": evaluation.balanced_accuracy(labels, predictions.predicted),
        "baseline": int(labels.bincount().max()) / total,
    }


def _table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        f"\n{'split':<10}  {'images':>6}  {'correct':>7}  {'accuracy':>8}  95 % interval   "
        "balanced  baseline"
    ]
    for name, result in results.items():
        lines.append(
            f"{name:<10}  {result['images']:>6}  {result['correct']:>7}  "
            f"{result['accuracy']:>8.3f}  {result['low']:.3f} to {result['high']:.3f}"
            f"  {result['balanced']:>8.3f}  {result['baseline']:>8.3f}"
        )
    lines.append("(balanced: mean recall of the classes; baseline: always the commonest class)")
    return "\n".join(lines)


def _print_what_next(model: Path) -> None:
    names = (run_folder.HISTORY, run_folder.CURVES, records.RECORD, records.CARD)
    files = [model, *(model.with_name(name) for name in names)]
    print(f"\nsaved      {', '.join(map(utils.printable, files))}")
    python = [sys.executable, "-m"]
    predict = utils.shell_command([*python, "going_modular.predict", model])
    print(f"predict    {predict} PHOTO...")
    if NOTEBOOKS.is_dir() and importlib.util.find_spec("jupyterlab"):
        print(f"learn      {utils.shell_command([*python, 'jupyterlab', NOTEBOOKS])}")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {_plain(message)}", file=sys.stderr)


def _plain(message: object) -> str:
    """Make a message, which may hold a file's name, safe for the terminal."""
    return "\n".join(map(utils.printable, str(message).splitlines()))


if __name__ == "__main__":
    sys.exit(main())
