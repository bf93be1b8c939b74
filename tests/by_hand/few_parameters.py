"""Measure ways to train few parameters, and to average weights; write one row per network to a CSV.

Run by hand; it takes about half an hour on one core:
`python tests/by_hand/few_parameters.py --out data/ladder_few_parameters.csv`.
What the file has already is not measured again, so `--minutes 4` can be repeated until nothing is
left. Each row says which images were named rightly, so that two networks can be compared paired.
"""

import argparse
import copy
import csv
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, Subset, TensorDataset

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from going_modular import data_setup, engine, model_builder, utils

SIZE, PER_CLASS, EPOCHS, HEAD_RATE = 80, 20, 6, 3e-3
SEEDS = range(5)
START = {  # where each grid of rates begins; it grows while its best rate is at an edge
    "probe": (3e-3, 1e-2, 3e-2),
    "biases": (1e-3, 1e-2, 1e-1),
    "affine": (1e-3, 1e-2, 1e-1),
    "affine, still": (1e-3, 1e-2, 1e-1),
    "LoRA": (1e-3, 1e-2, 1e-1),
    "last three": (3e-3, 1e-2, 3e-2),
    "full": (1e-3, 3e-3, 1e-2),
    "full, still": (3e-4, 1e-3, 3e-3),
    "last three from probe": (3e-4, 3e-3, 3e-2),
    "last three, still from probe": (3e-4, 1e-3, 3e-3),
}
STEPS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
# Of which blocks the inputs are kept: of the head, the last three, or (all others) the first.
LAST = {"probe": 0, "LoRA": 3, "last three": 3, "last three, still": 3}
ALPHAS = (0.25, 0.5, 0.75)


# --- the networks ---------------------------------------------------------------------------------


class StillBatchNorm(nn.BatchNorm2d):
    """A BatchNorm whose running statistics stay, whether or not its weight and bias train."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


class LoRA(nn.Module):
    """A frozen 1x1 convolution, and beside it a trainable detour of low rank, zero at first."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.conv = conv
        self.down = nn.Conv2d(conv.in_channels, rank, 1, bias=False)
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.up(self.down(x))


def add_lora(part: nn.Module, rank: int) -> None:
    for module in list(part.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1):
                setattr(module, name, LoRA(child, rank))


def build(method: str, seed: int) -> nn.Module:
    """Return a pretrained network with a new head, ready to train what the method trains."""
    utils.seed_everything(seed)
    model = model_builder.create_model("efficientnet_lite0", 12)
    return choose_parameters(model, method.removesuffix(" from probe"))


def choose_parameters(model: nn.Module, method: str) -> nn.Module:
    last = {"last three": 3, "last three, still": 3, "full": None, "full, still": None}
    model_builder.unfreeze(model, last.get(method, 0))
    if method.endswith(", still"):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = StillBatchNorm
    if method == "LoRA":
        add_lora(model.features[-3:], rank=4)
    if method.startswith(("biases", "affine", "statistics")):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.requires_grad = True
                module.weight.requires_grad = method != "biases"
    return model


def blocks_of(method: str) -> int:
    return LAST.get(method.removesuffix(" from probe"), 9)


def tail(model: nn.Module, last: int) -> nn.Module:
    """Return what comes after the blocks whose outputs are kept: the same modules."""
    if last == 0:
        return model.classifier
    return nn.Sequential(*model.features[-last:], model.avgpool, nn.Flatten(), model.classifier)


# --- images, and what the frozen blocks give for them ---------------------------------------------


class Inputs:
    """Of each split, what the network's last blocks take in."""

    def __init__(self) -> None:
        self.splits = data_setup.load("charts")
        folder, names = self.splits.folder, self.splits.class_names
        parts = {name: getattr(self.splits, name) for name in ("train", "val", "test")}
        parts["shifted"] = data_setup.load_split(folder / "shifted", names)
        transform = data_setup.create_transform("efficientnet_lite0", size=SIZE)
        self.outputs: dict[tuple[str, int], TensorDataset] = {}
        model = model_builder.create_model("efficientnet_lite0", 12)
        for name, part in parts.items():
            loader = data_setup.create_dataloader(part, transform)
            images, labels = (torch.cat(tensors) for tensors in zip(*loader, strict=True))
            self.outputs[name, 9] = TensorDataset(images, labels)
            for last in (0, 3):
                frozen = model_builder.unfreeze(model, last)
                self.outputs[name, last] = engine.extract_features(frozen, loader, "cpu")

    def drawn(self, seed: int, last: int) -> Subset:
        """Return the training images that `seed` draws: as many of each class."""
        drawn = self.splits.train.few(PER_CLASS, seed=seed).samples
        places = [self.splits.train.samples.index(sample) for sample in drawn]
        return Subset(self.outputs["train", last], places)

    def right(self, part: nn.Module, last: int, splits: tuple[str, ...]) -> dict[str, str]:
        """Write for each image whether it was named rightly, as "1" or "0"."""
        said = {}
        for name in splits:
            result = engine.predict(part, DataLoader(self.outputs[name, last], 60), "cpu")
            right = (result.predicted == result.labels).tolist()
            said[f"{name}_right"] = "".join("01"[answer] for answer in right)
        return said


def fit(
    model: nn.Module,
    images: Subset,
    last: int,
    rate: float,
    order: int,
    constant: bool = False,
    after_step: Callable[..., None] | None = None,
) -> float:
    """Train what is trainable, the trunk at `rate`, and return the seconds."""
    utils.seed_everything(order)
    loader = DataLoader(images, batch_size=32, shuffle=True)
    lr = rate if last == 0 else HEAD_RATE
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=lr, trunk_lr=rate))
    if after_step:
        optimizer.register_step_post_hook(after_step)
    scheduler = engine.warmup_cosine(optimizer, EPOCHS * len(loader), warmup_steps=len(loader))
    history = engine.train(
        tail(model, last),
        loader,
        None,
        optimizer,
        epochs=EPOCHS,
        device="cpu",
        scheduler=None if constant else scheduler,
        verbose=False,
    )
    return sum(history["seconds"])


def mix(a: dict[str, Tensor], b: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) a + alpha b, of weights and running statistics."""
    return {k: a[k].lerp(b[k], alpha) if a[k].is_floating_point() else b[k] for k in a}


# --- the table ------------------------------------------------------------------------------------


class Table:
    KEY = ("method", "rate", "seed", "weights")
    COLUMNS = (*KEY, "trainable", "seconds", "val_right", "test_right", "shifted_right")

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.end = path, time.monotonic() + 60 * minutes
        self.rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []

    def find(self, *key: object) -> dict[str, str] | None:
        wanted = [str(part) for part in key]
        return next((row for row in self.rows if [row[k] for k in self.KEY] == wanted), None)

    def add(self, key: tuple[object, ...], **columns: object) -> None:
        row = dict(zip(self.KEY, map(str, key), strict=True))
        row |= {name: str(columns.get(name, "")) for name in self.COLUMNS[4:]}
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        self.rows.append(row)
        shares = {n: row[n].count("1") / len(row[n]) for n in self.COLUMNS[6:] if row[n]}
        print(list(row.values())[:6], shares, flush=True)

    def close_what_was_not_chosen(self, chosen: dict[str, str]) -> None:
        """Leave out test and shifted images of rates that validation did not choose."""
        for row in self.rows:
            if chosen.get(row["method"], row["rate"]) != row["rate"]:
                row["test_right"] = ""
                if "from probe" not in row["method"]:  # of these we look at all curves
                    row["shifted_right"] = ""
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def check_time(self) -> None:
        if time.monotonic() > self.end:
            raise SystemExit("time is up: run it again to go on")


def measure(table: Table, inputs: Inputs, method: str, rate: float, seed: int) -> None:
    """Train one network and write its row, unless it is there."""
    key = (method, f"{rate:g}", seed, "last")
    if table.find(*key):
        return
    table.check_time()
    last, model = blocks_of(method), build(method, seed)
    if method.endswith(" from probe"):
        model.classifier.load_state_dict(probe(table, inputs, seed).classifier.state_dict())
    start = copy.deepcopy(model.state_dict())
    trainable, _ = model_builder.count_parameters(model)
    seconds = fit(model, inputs.drawn(seed, last), last, rate, seed)
    right = inputs.right(tail(model, last), last, ("val", "test", "shifted"))
    table.add(key, trainable=trainable, seconds=f"{seconds:.2f}", **right)
    if not method.endswith(" from probe"):
        return
    end = copy.deepcopy(model.state_dict())
    for alpha in ALPHAS:  # WiSE-FT
        model.load_state_dict(mix(start, end, alpha))
        right = inputs.right(tail(model, last), last, ("val", "test", "shifted"))
        table.add((*key[:3], f"alpha {alpha:g}"), **right)
    if "still" not in method:  # the middle again, with statistics that fit its weights
        model.load_state_dict(mix(start, end, 0.5))
        update_bn(DataLoader(inputs.drawn(seed, last), 60, shuffle=True), tail(model, last))
        right = inputs.right(tail(model, last), last, ("val", "test", "shifted"))
        table.add((*key[:3], "alpha 0.5, refreshed"), **right)


def probe(table: Table, inputs: Inputs, seed: int) -> nn.Module:
    model = build("probe", seed)
    fit(model, inputs.drawn(seed, 0), 0, best_rate(table, "probe"), seed)
    return model


def accuracy(row: dict[str, str], split: str = "val") -> float:
    return row[f"{split}_right"].count("1") / len(row[f"{split}_right"])


def rates(table: Table, method: str, seeds: tuple[int, ...]) -> dict[float, float]:
    """Return the mean validation accuracy at each rate that all these seeds have tried."""
    means = {}
    for rate in STEPS:
        rows = [table.find(method, f"{rate:g}", seed, "last") for seed in seeds]
        if all(rows):
            means[rate] = sum(map(accuracy, rows)) / len(rows)
    return means


GRID_SEEDS = (0, 1, 2)


def best_rate(table: Table, method: str) -> float:
    means = rates(table, method, GRID_SEEDS)
    return max(means, key=means.get)


def search(table: Table, inputs: Inputs, method: str) -> None:
    """Try a grid of rates with three seeds, and let it grow; then all seeds at the best."""
    wanted = set(START[method])
    while True:
        for rate in sorted(wanted):
            for seed in GRID_SEEDS:
                measure(table, inputs, method, rate, seed)
        place = STEPS.index(best_rate(table, method))
        around = set(STEPS[max(0, place - 1) : place + 2])
        if around <= wanted:
            break
        wanted |= around
    for seed in SEEDS:
        measure(table, inputs, method, best_rate(table, method), seed)


def average_steps(table: Table, inputs: Inputs, seed: int) -> None:
    """EMA of the last three blocks' weights, while the rate falls along a cosine or stays."""
    rate = best_rate(table, "last three")
    for method in ("last three", "last three, constant"):
        constant = method.endswith("constant")
        if table.find(method, f"{rate:g}", seed, "EMA 0.9"):
            continue
        table.check_time()
        model = build("last three", seed)
        part = tail(model, 3)
        averages = {
            decay: AveragedModel(part, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            for decay in (0.9, 0.999)
        }

        def update(*_: object, part: nn.Module = part, averages: dict = averages) -> None:
            for average in averages.values():
                average.update_parameters(part)

        fit(model, inputs.drawn(seed, 3), 3, rate, seed, constant, update)
        networks = {"last": part} if constant else {}
        networks |= {f"EMA {decay}": average.module for decay, average in averages.items()}
        for name, network in networks.items():
            right = inputs.right(network, 3, ("val", "test", "shifted"))
            table.add((method, f"{rate:g}", seed, name), **right)


def cook(table: Table, inputs: Inputs, seed: int) -> None:
    """Average networks that begin at one probe and see the same images: soups, and an ensemble.

    Source: Wortsman et al. 2022, https://arxiv.org/abs/2203.05482.
    """
    best = best_rate(table, "last three from probe")
    key = ("soup", f"{best:g}", seed)
    if table.find(*key, "greedy"):
        return
    table.check_time()
    head = probe(table, inputs, seed).classifier.state_dict()
    pots, places = [], [STEPS.index(best) - 1, STEPS.index(best)]
    for order in range(3):
        for rate in (STEPS[place] for place in places):
            model = build("last three", seed)
            model.classifier.load_state_dict(head)
            fit(model, inputs.drawn(seed, 3), 3, rate, 1000 * (order + 1) + seed)
            pots.append((inputs.right(tail(model, 3), 3, ("val",)), model))
    pots.sort(key=lambda pot: -pot[0]["val_right"].count("1"))
    soup, kept = pots[0][1].state_dict(), 1
    taste, tasted = build("last three", seed), pots[0][0]["val_right"].count("1")
    for _, model in pots[1:]:
        taste.load_state_dict(mix(soup, model.state_dict(), 1 / (kept + 1)))
        correct = inputs.right(tail(taste, 3), 3, ("val",))["val_right"].count("1")
        if correct >= tasted:
            soup, kept, tasted = copy.deepcopy(taste.state_dict()), kept + 1, correct
    splits = ("val", "test", "shifted")
    table.add((*key, "best alone"), **inputs.right(tail(pots[0][1], 3), 3, splits))
    everything = pots[0][1].state_dict()
    for i, (_, model) in enumerate(pots[1:], start=1):
        everything = mix(everything, model.state_dict(), 1 / (i + 1))
    taste.load_state_dict(everything)
    table.add((*key, "all"), **inputs.right(tail(taste, 3), 3, splits))
    table.add((*key, "ensemble"), **inputs.right(Ensemble(m for _, m in pots), 3, splits))
    taste.load_state_dict(soup)
    right = inputs.right(tail(taste, 3), 3, splits)
    table.add((*key, "greedy"), trainable=kept, **right)


class Ensemble(nn.Module):
    """Several networks that run beside each other; their probabilities are averaged."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(tail(model, 3) for model in models)

    def forward(self, x: Tensor) -> Tensor:
        return (
            torch.stack([part(x).float().softmax(dim=1) for part in self.parts]).mean(dim=0).log()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--minutes", type=float, default=60, help="stop after about this long")
    parser.add_argument(
        "--methods", nargs="+", default=[*START, "statistics", "statistics, still", "EMA", "soup"]
    )
    options = parser.parse_args()
    table, inputs = Table(options.out, options.minutes), Inputs()
    for method in options.methods:
        if method in START:
            search(table, inputs, method)
        for seed in SEEDS:
            if method.startswith("statistics"):  # at a rate of 0, only the head trains
                measure(table, inputs, method, 0, seed)
            elif method == "EMA":
                average_steps(table, inputs, seed)
            elif method == "soup":
                cook(table, inputs, seed)
    chosen = {
        method: f"{best_rate(table, method):g}"
        for method in START
        if rates(table, method, GRID_SEEDS)
    }
    table.close_what_was_not_chosen(chosen)


if __name__ == "__main__":
    main()
