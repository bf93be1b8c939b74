"""Measure every strategy on a data set over several seeds; write one row per run to a CSV file.

Run by hand; it takes some minutes for each seed:
`python tests/by_hand/ladder.py charts --out data/ladder_charts.csv`.
What the file has already is not measured again. Each row says which images were named rightly, so
that two runs can be compared paired.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from going_modular import data_setup, engine, evaluation, model_builder, train
from going_modular.training.run_folder import MODEL
from going_modular.training.strategies import Strategy

SPLITS = ("val", "test", "shifted")
KEY = ("strategy", "seed", "epochs", "lr", "trunk_lr")  # what makes a run another run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a data set's name, or a folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="the same for all, instead of each one's own")
    parser.add_argument("--strategies", nargs="+", default=list(train.STRATEGIES))
    parser.add_argument("--lrs", type=float, nargs="+", help="of the head; of all with scratch")
    parser.add_argument("--trunk-lrs", type=float, nargs="+", help="of the pretrained part")
    options = parser.parse_args()
    for seed in options.seeds:
        for strategy in options.strategies:
            for chosen in recipes(strategy, options):
                key = [
                    str(v)
                    for v in (strategy, seed, chosen.epochs, chosen.lr, chosen.trunk_lr or "")
                ]
                done = [[row[name] for name in KEY] for row in read(options.out)]
                if list(map(str, key)) not in done:
                    append(options.out, measure(options.data, strategy, seed, chosen))
    print_table(read(options.out))


def recipes(strategy: str, options: argparse.Namespace) -> list[Strategy]:
    """Return the strategy with each of the rates asked for."""
    recipe = train.STRATEGIES[strategy]
    trunk_lrs = options.trunk_lrs if recipe.trunk_lr else None
    return [
        replace(recipe, lr=lr, trunk_lr=trunk_lr, epochs=options.epochs or recipe.epochs)
        for lr in options.lrs or [recipe.lr]
        for trunk_lr in trunk_lrs or [recipe.trunk_lr]
    ]


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def measure(data: str, strategy: str, seed: int, chosen: Strategy) -> dict[str, object]:
    """Train once in a process of its own, as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "going_modular.train", "--data", data, "--out", folder]
        command += ["--strategy", strategy, "--seed", str(seed), "--lr", str(chosen.lr)]
        command += ["--epochs", str(chosen.epochs), "--augment", "none"]  # as the table was made
        command += ["--trunk-lr", str(chosen.trunk_lr)] if chosen.trunk_lr else []
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        row = {"data": Path(data).name, "strategy": strategy, "seed": seed}
        row |= {"epochs": chosen.epochs, "lr": chosen.lr, "trunk_lr": chosen.trunk_lr or ""}
        megabytes = usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
        row |= {
            # Processor seconds: they stay the same when the machine has other work to do.
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_megabytes": megabytes,
            **counts(data, strategy, Path(folder, MODEL)),
        }
    print({name: value for name, value in row.items() if "right" not in name}, flush=True)
    return row


def counts(data: str, strategy: str, path: Path) -> dict[str, int | str]:
    """Count the correct predictions of a saved model on each split, and say which they are."""
    model, checkpoint = model_builder.load_model(path)
    splits = data_setup.load(data)
    sets = {"val": splits.val, "test": splits.test}
    if (splits.folder / "shifted").is_dir():
        sets["shifted"] = data_setup.load_split(splits.folder / "shifted", splits.class_names)
    model_builder.unfreeze(model, last=train.last_blocks(model, train.STRATEGIES[strategy]))
    row = {"trainable": model_builder.count_parameters(model)[0]}
    for name in SPLITS:
        if name in sets:
            dataloader = data_setup.create_dataloader(sets[name], checkpoint["transform"])
            result = engine.predict(model, dataloader)
            right = (result.predicted == result.labels).tolist()
            row |= {f"{name}_correct": sum(right), f"{name}_total": len(right)}
            row[f"{name}_right"] = "".join("01"[answer] for answer in right)  # one sign per image
    return row


def print_table(rows: list[dict[str, str]]) -> None:
    print("strategy, accuracy as mean ± standard deviation over seeds, processor seconds")
    recipes = ("strategy", "epochs", "lr", "trunk_lr")
    for recipe in sorted({tuple(row[name] for name in recipes) for row in rows}):
        runs = [row for row in rows if tuple(row[name] for name in recipes) == recipe]
        cells = ["{:<20} {:>3} epochs, lr {:>6}, trunk {:>7}".format(*recipe), f"n={len(runs)}"]
        for name in SPLITS:
            if f"{name}_correct" in runs[0]:
                shares = [int(run[f"{name}_correct"]) / int(run[f"{name}_total"]) for run in runs]
                mean, std = evaluation.mean_and_std(shares) if len(runs) > 1 else (shares[0], 0)
                cells.append(f"{name} {mean:.3f} ± {std:.3f}")
        seconds = sum(float(run["cpu_seconds"]) for run in runs) / len(runs)
        cells.append(f"{seconds:.0f} cpu s")
        print("  ".join(cells))


if __name__ == "__main__":
    main()
