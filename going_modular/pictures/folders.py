"""Folders of images: which of them are splits, which are classes, and the files in them.

It knows names and links, not what is in the files.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from going_modular.pictures.image import EXTENSIONS
from going_modular.utils import printable

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
FILLERS = frozenset(  # words that say nothing, as in "train_images"
    "set sets data dataset split folder dir images image imgs img pictures photos samples".split()
)
CLUTTER = frozenset(  # what systems leave behind, beside the names that begin with a dot
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"]  # Windows
    + ["system volume information", "found.000"]
    + ["__macosx", "icon\r", "network trash folder", "temporary items"]  # macOS
    + ["thevolumesettingsfolder", "thefindbycontentfolder"]
    + ["lost+found", "lost.dir", "__pycache__"]  # Linux, Android, Python
    + ["@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot"]  # file servers
    + ["@recycle", "@recently-snapshot", "~snapshot"]
)


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder in the order of its names, the same on every system."""
    entries = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in CLUTTER
    ]
    return sorted(entries, key=lambda path: path.name)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder."""
    return [path for path in visible(folder) if path.is_dir()]


def is_image(path: Path) -> bool:
    """Tell whether a file is an image by its name."""
    return path.suffix.lower() in EXTENSIONS


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield class and path of each file in a split; "" for a file that is in no class folder."""
    for path in visible(root):
        if path.is_dir():
            for file in walk(path):
                yield normalized(path.name), file
        else:
            yield "", path


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in the order of their names, each real folder's once.

    Links to folders could lead to one another in more ways than can be counted, or back up, where
    the other classes are.
    """
    ahead, seen = [folder], {folder.parent.resolve(), *folder.resolve().parents}
    while ahead:
        path = ahead.pop()
        if not path.is_dir():
            yield path
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            ahead += reversed(visible(path))


def normalized(name: str) -> str:
    """Return a class's name as it is compared: "é" can be one character or two."""
    return unicodedata.normalize("NFC", name)


def find_class_names(root: Path) -> list[str]:
    """Return the classes of a split in alphabetical order; at least two, or ValueError."""
    found = subfolders(root)
    names = sorted({normalized(path.name) for path in found})
    for path in found:
        inside = [inner for inner in visible(path) if not is_image(inner) and inner.is_dir()]
        splits = {split for split, _ in map(_role, inside) if split}
        if "train" in splits and len(splits) > 1:
            raise ValueError(
                f"{printable(path)} holds splits ({', '.join(sorted(splits))}): did you mean that "
                f"folder? If it is a class, put it into the splits: train/{printable(path.name)}"
            )
    if len(names) > 1:
        return names
    if not names:
        raise ValueError(
            f"{printable(root)} holds no class folders: put the images of each class into a "
            f"folder of its own, named after the class{_table_hint(root)}"
        )
    inner = found[0]
    while len(inside := subfolders(inner)) == 1:
        (inner,) = inside
    hint = f", or did you mean {printable(inner)}?" if inside else ""
    raise ValueError(
        f"{printable(root)} holds only one class folder, {printable(names[0])!r}: there is nothing "
        f"to tell apart. Add a folder for a second class{hint}{_table_hint(root)}"
    )


def _table_hint(folder: Path) -> str:
    tables = [path for path in visible(folder) if path.suffix.lower() in (".csv", ".tsv")]
    return f". If {printable(tables[0])} holds the labels: --labels FILE" if tables else ""


# --- Splits -------------------------------------------------------------------------------------


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the folders that are splits by name, in the order train, val, test.

    Signs, digits and `FILLERS` beside one of `SPLIT_WORDS` do not count, nor does another word that
    the splits share: "Training Set", "train2017", "test 20%", "seg_train" and "seg_test". A folder
    of images alone, among others that are no splits, is a class, of trains for one.
    """
    groups = {}  # by the words that are left
    for path in subfolders(folder):
        split, rest = _role(path)
        if split:
            groups.setdefault(rest, {}).setdefault(split, []).append(path)
    groups = [
        group
        for rest, group in sorted(groups.items())
        if (not rest and (len(group) > 1 or _holds_classes(*group.values())))
        or ("train" in group and len(group) > 1)
    ]
    if not groups:
        return {}
    found = next((group for group in groups if "train" in group), groups[0])
    for split, paths in found.items():
        if len(paths) > 1:
            pair = " and ".join(map(printable, paths[:2]))
            raise ValueError(f"{pair} are both {split}: rename one, or move it elsewhere")
    if "train" not in found:
        (split, (path,)), *_ = found.items()
        raise ValueError(
            f"{printable(folder)} has {printable(path.name)}, which is read as {split}, but no "
            f"train folder: add one (or rename {printable(path.name)}, if it is a class)"
        )
    return {split: _innermost(found[split][0], split) for split in SPLITS if split in found}


def _role(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Return the split that a folder is by its name, or "", and the words that are left."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]", folder.name)
    words = [word.lower() for word in words]
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    rest = tuple(word for word in words if word not in FILLERS | SPLIT_WORDS.keys())
    return (found.pop() if len(found) == 1 else ""), rest


def _holds_classes(paths: list[Path]) -> bool:
    return any(subfolders(path) and not any(map(_is_loose_image, visible(path))) for path in paths)


def _is_loose_image(path: Path) -> bool:
    return is_image(path) and not path.is_dir()


def _innermost(folder: Path, split: str) -> Path:
    """Follow a split into the same split, as some archives unpack: training_set/training_set."""
    while True:
        inside = subfolders(folder)
        is_doubled = len(inside) == 1 and _role(inside[0])[0] == split and subfolders(inside[0])
        if not is_doubled:
            return folder
        (folder,) = inside


def links_outside(folder: Path, images: Iterable[Path]) -> list[str]:
    """Describe the images that lie elsewhere than in the folder that leads to them."""
    top, images = folder.resolve(), list(images)
    places = {parent: parent.resolve() for parent in {path.parent for path in images}}
    found = []
    for path in images:
        real = path.resolve() if path.is_symlink() else places[path.parent] / path.name
        if not real.is_relative_to(top):
            found.append(f"{path.relative_to(folder)} is {real}")
    return found
