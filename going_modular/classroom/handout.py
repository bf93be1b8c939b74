"""Make the one-page handout: `python -m going_modular.classroom.handout FILE.html`.

It holds the decision guide, the measurements behind it and the vocabulary, and prints on one sheet
of A4 or Letter. Nothing is written here: words come from the lessons and the README, numbers from
the tables of runs in notebooks/.
"""

import argparse
import csv
import re
import sys
from pathlib import Path
from statistics import mean

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from going_modular import evaluation
from going_modular.classroom import site

WORDS = ("notebooks/01_concepts.ipynb", "Word")
GUIDE = ("notebooks/05_evaluation.ipynb", "Your domain")
STRATEGIES = ("README.md", "`--strategy`")
LADDERS = {  # the table of runs: what it says of the domain, and the split to trust
    "charts": ("Charts, far from ImageNet: test accuracy", "test"),
    "hymenoptera": ("Ants and bees, near it: validation accuracy", "val"),
}


def build(root: Path = site.ROOT) -> str:
    """Return the page. Raises ValueError where a table that it is made from is not there."""
    text = f"""\
# Transfer learning: which strategy?

## Decide by domain and labels

{find_table(root, *GUIDE)}

## What that rests on

{ladder_table(root)}

One network, EfficientNet-Lite0; mean accuracy of three seeds with the 95 % interval of the pictures
tested; seconds of processor time. Intervals that overlap do not rank. Measure on your own data.

## Strategies

{find_table(root, *STRATEGIES)}

A *probe* is `feature_extraction`; *LP-FT* is `lp_ft`.

## Words

{find_table(root, *WORDS)}
"""
    notebook = new_notebook(cells=[new_markdown_cell(text)])
    return site.export(notebook, "handout", title="Transfer learning: which strategy?")


def find_table(root: Path, source: str, first: str) -> str:
    """Return the Markdown table of a text whose first column has the heading `first`."""
    text = (root / source).read_text(encoding="utf-8")
    if source.endswith(".ipynb"):
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    table = re.search(rf"^\| {re.escape(first)} \|.*\n(?:\|.*(?:\n|$))+", text, re.M)
    if not table:
        raise ValueError(f'{root / source} has no table that begins with "| {first} |".')
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", table[0])


def ladder_table(root: Path) -> str:
    """Return accuracies, intervals and seconds of each strategy in each domain, in Markdown."""
    ladders = {name: read_ladder(root, name) for name in LADDERS}
    heads = [f"{head} | Seconds" for head, _ in LADDERS.values()]
    rows = [f"| Strategy | {' | '.join(heads)} |", "|---" * (1 + 2 * len(heads)) + "|"]
    for strategy in next(iter(ladders.values())):
        cells = [measured(ladders[name][strategy], split) for name, (_, split) in LADDERS.items()]
        rows.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def read_ladder(root: Path, name: str) -> dict[str, list[dict[str, str]]]:
    """Read a table of runs, by strategy."""
    runs: dict[str, list[dict[str, str]]] = {}
    with open(root / "notebooks" / f"ladder_{name}.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["strategy"], []).append(row)
    return runs


def measured(runs: list[dict[str, str]], split: str) -> str:
    """Say a strategy's accuracy, its interval, and the seconds that a run takes."""
    total = int(runs[0][f"{split}_total"])
    correct = mean(int(run[f"{split}_correct"]) for run in runs)
    low, high = evaluation.wilson_interval(round(correct), total)
    seconds = mean(float(run["cpu_seconds"]) for run in runs)
    return f"{correct / total:.3f} ({low:.3f} to {high:.3f}) | {seconds:.0f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.classroom.handout",
        description="Make the handout, one page to print from a browser.",
    )
    parser.add_argument("file", type=Path, help="a new file, such as handout.html")
    file = parser.parse_args(arguments).file
    try:
        page = build()
        with open(file, "x", encoding="utf-8") as new:
            new.write(page)
    except FileExistsError:
        print(f"handout: error: {file} exists. Give a new name, or delete it.", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"handout: error: {error}", file=sys.stderr)
        return 1
    print(f"Open {file} in a browser, and print it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
