"""What a user sees who has folders as they come: `python tests/by_hand/folders.py`.

Makes seventeen folders, each with a difficulty of its own, gives each to `audit` and to `train`,
and prints a row for each: the exit codes, and what is said. `--package PATH` runs another checkout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
CHARTS = ROOT / "data" / "charts" / "train"
QUICK = "--strategy feature_extraction --epochs 2 --size 32".split()


def images(folder: Path, kind: str, count: int, name: str = "{:03}.png", first: int = 0) -> None:
    """Put `count` images of a kind of chart into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, source in enumerate(sorted((CHARTS / kind).iterdir())[first : first + count]):
        (folder / name.format(i)).write_bytes(source.read_bytes())


def two_classes(folder: Path, count: int = 20) -> None:
    images(folder / "ants", "pie", count)
    images(folder / "bees", "bar", count)


def unbalanced(folder: Path) -> None:
    images(folder / "ants", "pie", 5)
    for kind in ("bar", "barh", "line"):
        images(folder / "bees", kind, 35, f"{kind}_{{}}.png")


def nested(folder: Path) -> None:
    for month in ("2024/05", "2025/06"):
        images(folder / "ants" / month, "pie", 10, first=int(month[-1]))
        images(folder / "bees" / month, "bar", 10, first=int(month[-1]))


def wrapper(folder: Path) -> None:
    two_classes(folder / "photos" / "photos")


def odd_spellings(folder: Path) -> None:
    for split, first in (("Train", 0), ("Valid", 20)):
        up = str.title if split == "Train" else str.lower
        images(folder / split / up("ants"), "pie", 15, first=first)
        images(folder / split / up("bees"), "bar", 15, first=first)


def table(folder: Path) -> list[str]:
    images(folder / "images", "pie", 20, "p{}.png")
    images(folder / "images", "bar", 20, "b{}.png")
    rows = [f"p{i}.png,ants" for i in range(20)] + [f"b{i}.png,bees" for i in range(20)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
    return ["--labels", str(folder / "labels.csv")]


def huge(folder: Path) -> None:
    two_classes(folder)
    Image.new("RGB", (8192, 6144), "red").save(folder / "ants" / "50 megapixels.jpg")
    Image.new("RGB", (16400, 11000), "red").save(folder / "ants" / "180 megapixels.jpg")


def spaces(folder: Path) -> None:
    images(folder / "red ants", "pie", 20, "photo ({}) of May.png")
    images(folder / " bees ", "bar", 20, " {}.png")


def emoji(folder: Path) -> None:
    images(folder / "🐜", "pie", 20, "🐜{}.png")
    images(folder / "🐝", "bar", 20, "蜂{}.png")


def links(folder: Path) -> None:
    two_classes(folder)
    (folder / "ants" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "ants" / "gone.png").symlink_to(folder / "nowhere.png")


def heic(folder: Path) -> None:
    two_classes(folder)
    for i in range(5):
        (folder / "ants" / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))


def one_image(folder: Path) -> None:
    two_classes(folder)
    images(folder / "wasps", "line", 1)


def read_only(folder: Path) -> None:
    two_classes(folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def unreadable(folder: Path) -> None:
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            (folder / name / f"{i}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))


def twelve_bits(folder: Path) -> None:
    for name, high in (("ants", 4095), ("bees", 2000)):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            grey = np.random.default_rng(i).integers(0, high, (40, 40), dtype=np.uint16)
            Image.fromarray(grey).save(folder / name / f"{i}.tif")


def web_pages(folder: Path) -> None:
    two_classes(folder)
    for i in range(6):
        (folder / "bees" / f"download{i}.jpg").write_text("<!doctype html><title>403</title>")


def copies(folder: Path) -> None:
    for split, first in (("train", 0), ("val", 10)):  # ten images are in both
        images(folder / split / "ants", "pie", 20, first=first)
        images(folder / split / "bees", "bar", 20, first=first)


def one_class(folder: Path) -> None:
    images(folder / "ants", "pie", 20)


FOLDERS = {
    "5 ants, 100 bees": unbalanced,
    "nested by month": nested,
    "a wrapper folder": wrapper,
    "Train/Ants, Valid/ants": odd_spellings,
    "images/ and labels.csv": table,
    "50 and 180 megapixels": huge,
    "spaces": spaces,
    "emoji": emoji,
    "links, one leads up": links,
    "5 of 25 are HEIC": heic,
    "a class with one image": one_image,
    "read-only": read_only,
    "all damaged": unreadable,
    "12-bit greys": twelve_bits,
    "web pages named .jpg": web_pages,
    "copies in train and val": copies,
    "one class": one_class,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=ROOT, help="folder that holds the package")
    parser.add_argument("--only", choices=FOLDERS)
    options = parser.parse_args()
    for name, make in FOLDERS.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "data")
            folder.mkdir()
            more = make(folder) or []
            print(f"## {name}")
            _tell("audit", options.package, [str(folder), *more])
            _tell("train", options.package, ["--data", str(folder), *more, *QUICK], place)
            for path in [folder, *folder.rglob("*")]:
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)


def _tell(command: str, package: Path, options: list[str], place: str | None = None) -> None:
    """Run a command and print its exit code and what it said last, and all that it warned of."""
    out = ["--out", f"{place}/run"] if place else []
    done = subprocess.run(
        [sys.executable, "-m", f"going_modular.{command}", *options, *out],
        cwd=package,
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("warning", "audit:", "train:", "unbal"))]
    told += lines[-1:] if command == "audit" else [x for x in lines if x.startswith("validation")]
    print(f"{command} {done.returncode}: ", *dict.fromkeys(told), sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
