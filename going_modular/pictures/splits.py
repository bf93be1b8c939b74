"""Decide by their content which files of a data set can be used, and which split each belongs to.

It knows contents, and passes folders and their names on as it finds them.
"""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from going_modular.pictures import folders
from going_modular.pictures.image import EXTENSIONS, hash_file, map_files, try_load
from going_modular.utils import printable

Sample = tuple[Path, int]
TYPES = f"types read: {' '.join(sorted(EXTENSIONS))}"


def read(
    roots: dict[str, Path], class_names: list[str]
) -> tuple[dict[str, list[Sample]], dict[Path, str]]:
    """Return the usable samples of each split, and the hash of each image's file.

    Every file is decoded here, as training would, so that a broken one is known now and not in
    epoch 3. Warns of the files that are left out; raises ValueError for a class unknown to train.
    """
    unused = []
    listed = {split: _list(root, class_names, unused) for split, root in roots.items()}
    return usable(listed, unused)


def usable(
    listed: dict[str, list[Sample]], unused: Sequence[tuple[Path, str]] = ()
) -> tuple[dict[str, list[Sample]], dict[Path, str]]:
    """Return what `read` does, for samples that are known by their names."""
    paths = [path for samples in listed.values() for path, _ in samples]
    checked = dict(zip(paths, map_files(_check, paths, "Checking images"), strict=True))
    unused = [*unused, *((path, reason) for path, (_, reason) in checked.items() if reason)]
    hashes = {path: digest for path, (digest, reason) in checked.items() if not reason}
    if unused:
        left_out = first([f"{path} ({reason})" for path, reason in unused])
        warnings.warn(f"files left out ({len(unused)}): {left_out}", stacklevel=4)
    found = {
        split: [sample for sample in samples if sample[0] in hashes]
        for split, samples in listed.items()
    }
    return found, hashes


def _list(root: Path, class_names: list[str], unused: list[tuple[Path, str]]) -> list[Sample]:
    """Return what is an image by its name; add other files to `unused`."""
    labels = {folders.normalized(name): label for label, name in enumerate(class_names)}
    samples, loose = [], []
    for name, path in folders.files(root):
        if not name and folders.is_image(path):
            loose.append(path)
        elif name and not folders.is_image(path):
            unused.append((path, f"{path.suffix or 'no extension'}: not a type that is read"))
        elif name in labels:
            samples.append((path, labels[name]))
        elif name:
            raise ValueError(
                f"{printable(root / name)} is a class unknown to train, which has "
                f"{first(class_names)}: rename the folder, or move it elsewhere"
            )
    if loose and not folders.subfolders(root):
        raise ValueError(
            f"{printable(root)} holds images ({len(loose)}) but no class folders, so their "
            "classes are unknown: put them into class folders, or move them elsewhere"
        )
    unused += [(path, "in no class folder") for path in loose]
    return samples


def _check(path: Path) -> tuple[str, str]:
    """Return the hash of an image's file and "", or "" and why it cannot be read."""
    image, reason = try_load(path)
    return (hash_file(path) if image else ""), reason


def group(samples: list[Sample], by: str) -> dict[Path, str]:
    """Return the group of each file: its folder, or what a regular expression finds in its name."""
    if by == "folder":
        return {path: str(path.parent) for path, _ in samples}
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ValueError(f"groups={by!r} is no regular expression: {error}") from error
    found = {path: pattern.search(path.name) for path, _ in samples}
    for path, match in found.items():
        if not match:
            raise ValueError(
                f"groups={by!r} finds no group in {printable(path)}: change the pattern or the name"
            )
    return {path: match[1 if pattern.groups else 0] for path, match in found.items()}


def carve(
    samples: list[Sample],
    class_names: list[str],
    groups: dict[Path, str],
    fractions: dict[str, float],
    seed: int,
    root: Path,
) -> dict[str, list[Sample]]:
    """Split samples into train and the splits of `fractions`, class by class.

    Files of one group stay together: copies, where `groups` are the hashes of their contents.
    """
    if min(fractions.values()) <= 0 or sum(fractions.values()) >= 1:
        raise ValueError(f"fractions must be above 0 and below 1 in all, not {fractions}")
    split_of = {}  # group -> split, over all classes: one may be found in two
    for label, name in enumerate(class_names):
        distinct = {groups[path] for path, label_ in samples if label_ == label}
        if len(distinct) <= len(fractions):
            raise ValueError(
                f"class {printable(name)!r} in {printable(root)} has too few readable, different "
                f"images (or groups): {len(distinct)}, and at least {len(fractions) + 1} are "
                f"needed, one for each of train, {' and '.join(fractions)}: add images ({TYPES}), "
                "or move the folder elsewhere"
            )
        # A shuffle that depends on content and seed only: an image that is added, renamed or
        # listed in another order moves no other far.
        order = sorted(distinct, key=lambda digest: _sha256(f"{seed} {digest}"))
        placed = Counter(split_of[digest] for digest in order if digest in split_of)
        free = [digest for digest in order if digest not in split_of]
        for split, number in _sizes(len(distinct), fractions).items():
            number = max(0, number - placed[split])
            split_of |= dict.fromkeys(free[:number], split)
            free = free[number:]
        split_of |= dict.fromkeys(free, "train")
    return {
        split: [(path, label) for path, label in samples if split_of[groups[path]] == split]
        for split in ("train", *fractions)
    }


def _sizes(count: int, fractions: dict[str, float]) -> dict[str, int]:
    """Return how many of `count` images each split gets, leaving one at least for the others."""
    sizes = {}
    for i, (split, fraction) in enumerate(fractions.items(), start=1):
        most = count - sum(sizes.values()) - (len(fractions) - i) - 1
        sizes[split] = min(max(1, round(count * fraction)), most)
    return sizes


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check(
    splits: dict[str, list[Sample]],
    class_names: list[str],
    roots: dict[str, Path],
    hashes: dict[Path, str],
) -> None:
    """Raise ValueError where a split lacks a class; warn of files with the same bytes.

    They matter in two splits, or under two classes. A split without a root was carved from train.
    """
    for split, samples in splits.items():
        present = {label for _, label in samples}
        absent = [name for label, name in enumerate(class_names) if label not in present]
        if absent:
            raise ValueError(
                f"{printable(roots.get(split) or roots['train'])} has no usable image of "
                f"{first(absent)}: add some ({TYPES}), or move the class elsewhere in all splits"
            )
    met, shared, relabelled = {}, [], []
    for split, samples in splits.items():
        for path, label in samples:
            path_, label_, split_ = met.setdefault(hashes[path], (path, label, split))
            if split != split_:
                shared.append(f"{path_} = {path}")
            if label != label_:
                relabelled.append(f"{path_} = {path}")
    if shared:
        warnings.warn(
            f"the same image in two splits ({len(shared)}), which makes results look better than "
            f"they are; keep one of each: {first(shared)}",
            stacklevel=3,
        )
    if relabelled:
        warnings.warn(
            f"the same image in two classes ({len(relabelled)}); keep the one whose class is "
            f"right: {first(relabelled)}",
            stacklevel=3,
        )


def first(names: Sequence[object], most: int = 5) -> str:
    """Write the first few names on one line, and how many there are beyond them."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + rest
