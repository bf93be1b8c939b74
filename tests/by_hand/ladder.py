"""Measure every strategy on a data set over several seeds; write one row a run to a CSV file.

Run by hand; it takes some minutes for each seed:
`python tests/by_hand/ladder.py charts --out data/ladder_charts.csv`.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from going_modular import data_setup, engine, evaluation, model_builder, train
from going_modular.training.run_folder import MODEL

SPLITS = ("val", "test", "shifted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a data set's name, or a folder of class folders")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="the same for all, instead of each one's own")
    parser.add_argument("--strategies", nargs="+", default=list(train.STRATEGIES))
    options = parser.parse_args()
    rows = [
        measure(options.data, strategy, seed, options.epochs)
        for seed in options.seeds
        for strategy in options.strategies
    ]
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print_table(rows)


def measure(data: str, strategy: str, seed: int, epochs: int | None) -> dict[str, object]:
    """Train once in a process of its own, as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "going_modular.train", "--data", data, "--out", folder]
        command += ["--strategy", strategy, "--seed", str(seed)]
        command += ["--epochs", str(epochs)] if epochs else []
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        row = {"data": Path(data).name, "strategy": strategy, "seed": seed}
        megabytes = usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
        row |= {
            # Processor seconds: they stay the same when the machine has other work to do.
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_megabytes": megabytes,
            **counts(data, strategy, Path(folder, MODEL)),
        }
    print(row, flush=True)
    return row


def counts(data: str, strategy: str, path: Path) -> dict[str, int]:
    """Count the correct predictions of a saved model on each split that there is."""
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
            result = engine.evaluate(model, dataloader)
            row |= {f"{name}_correct": result.correct, f"{name}_total": result.total}
    return row


def print_table(rows: list[dict[str, object]]) -> None:
    print("strategy, accuracy as mean ± standard deviation over seeds, processor seconds")
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        runs = [row for row in rows if row["strategy"] == strategy]
        cells = [f"{strategy:<20}"]
        for name in SPLITS:
            if f"{name}_correct" in runs[0]:
                shares = [run[f"{name}_correct"] / run[f"{name}_total"] for run in runs]
                mean, std = evaluation.mean_and_std(shares) if len(runs) > 1 else (shares[0], 0)
                cells.append(f"{name} {mean:.3f} ± {std:.3f}")
        cells.append(f"{sum(run['cpu_seconds'] for run in runs) / len(runs):.0f} cpu s")
        print("  ".join(cells))


if __name__ == "__main__":
    main()
