"""Labels in a table beside the images, as competitions give them.

It knows a table's columns and the names of files; not what is in the images.
"""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from going_modular.pictures import folders
from going_modular.utils import printable

FIRST = 200  # rows that decide which column is which


class Labels(NamedTuple):
    """Images with their classes, and where the table has them."""

    class_names: list[str]
    samples: list[tuple[Path, int]]
    how: str


def read(table: str | Path, folder: Path) -> Labels:
    """Read which image below `folder` has which label.

    The files' column is the one that names images there, with or without folder and extension. The
    labels' column is the only other one whose values come back, or the one that is given after a
    colon, as in labels.csv:breed. Where that is unclear, ValueError lists the columns.
    """
    path, wanted = _split(str(table))
    rows = _read_rows(path)
    files = _files_by_name(folder)
    columns = {name: [row[name].strip() for row in rows] for name in rows[0]}
    hits = {n: sum(len(files[v]) == 1 for v in vs[:FIRST]) for n, vs in columns.items()}
    named = max(hits, key=hits.get)
    if hits[named] == 0:
        raise ValueError(
            f"{printable(path)} names no image below {printable(folder)}: its columns are "
            f"{_listed(columns)}, and a file there is {printable(next(folders.walk(folder), '-'))}"
        )
    label = wanted or _label_column({n: v for n, v in columns.items() if n != named}, path)
    if label not in columns:
        raise ValueError(f"{printable(path)} has no column {label!r}, but {_listed(columns)}")
    samples, absent = [], []
    texts = [folders.normalized(text) for text in columns[label]]
    class_names = sorted(set(filter(None, texts)))
    if len(class_names) < 2:
        raise ValueError(f"column {label!r} of {printable(path)} holds fewer than two classes")
    for name, text in zip(columns[named], texts, strict=True):
        found = files[name]
        if len(found) == 1 and text:
            samples.append((found[0], class_names.index(text)))
        else:
            absent.append(name)
    if absent:
        raise ValueError(
            f"{printable(path)} has {len(absent)} rows without one image of that name below "
            f"{printable(folder)}, or without a label; the first is {printable(absent[0])!r}"
        )
    others = len({path for paths in files.values() for path in paths}) - len(samples)
    how = f"classes from column {label!r} of {path.name}, images from column {named!r}"
    return Labels(class_names, samples, how + (f"; {others} images have no row" * bool(others)))


def _split(table: str) -> tuple[Path, str]:
    """Divide FILE:COLUMN, but not C:\\labels.csv."""
    path, _, column = table.rpartition(":")
    return (Path(path), column) if path and not Path(table).exists() else (Path(table), "")


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{printable(path)}: no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        start = file.read(4096)
        file.seek(0)
        delimiter = max(",;\t", key=start.partition("\n")[0].count)
        rows = list(csv.DictReader(file, delimiter=delimiter, restval=""))
    if not rows or len(rows[0]) < 2 or None in rows[0]:
        raise ValueError(
            f"{printable(path)} is no table with a header, and a column for each label"
        )
    return rows


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Return the images below a folder by path, by name, and both without extension."""
    found = defaultdict(list)
    for path in folders.walk(folder):
        if folders.is_image(path):
            inside = path.relative_to(folder)
            for name in {
                inside.as_posix(),
                inside.with_suffix("").as_posix(),
                path.name,
                path.stem,
            }:
                found[name].append(path)
    return found


def _label_column(columns: dict[str, list[str]], path: Path) -> str:
    repeated = [name for name, v in columns.items() if 1 < len(set(v)) <= max(2, len(v) // 2)]
    if len(repeated) == 1:
        return repeated[0]
    raise ValueError(
        f"which column of {printable(path)} holds the labels? It has {_listed(columns)}: say it "
        f"after a colon, as in {printable(path)}:{printable(next(iter(repeated or columns)))}"
    )


def _listed(columns: dict[str, list[str]]) -> str:
    return ", ".join(printable(name) for name in columns)
