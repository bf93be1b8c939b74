"""Folders and pictures as people have them: splits, odd files, transforms and dataloaders."""

import os
import pickle
import random
import shutil
import sys
import warnings
from collections import Counter
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import StratifiedShuffleSplit
from torch.utils.data import default_collate
from torchvision.datasets import ImageFolder
from torchvision.models import get_model_weights, list_models
from torchvision.transforms._presets import ImageClassification

from going_modular import data_setup

RED, WHITE = (255, 0, 0), (255, 255, 255)
PHOTO = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
LONG = 100 if sys.platform == "win32" else 250


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_ppm(path: Path, number: int) -> None:
    """Write a picture whose bytes no encoder has a say in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 2 2 255\n" + number.to_bytes(12, "big"))


def write_classes(root: Path, start: int = 0, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            start += 1
            write_ppm(root / name / f"{i:03}.ppm", start)
    return root


def names(dataset: data_setup.ImageDataset, root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path, _ in dataset.samples)


def three(splits: data_setup.ImageSplits) -> list[data_setup.ImageDataset]:
    return [splits.train, splits.val, splits.test]


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- One picture --------------------------------------------------------------------------------


def palette_with_a_hole() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("1", (8, 8), 1), ".png", WHITE),
        (Image.new("L", (8, 8), 100), ".png", (100, 100, 100)),
        (Image.new("RGB", (8, 8), RED).convert("P"), ".png", RED),
        (palette_with_a_hole(), ".gif", RED),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), ".tif", RED),
        (Image.new("I;16", (8, 8), 100 * 257), ".png", (100, 100, 100)),
        (Image.new("I;16", (8, 8), 65535), ".tiff", WHITE),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), ".png", WHITE),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 155)), ".png", (100, 100, 100)),
        (Image.new("LA", (8, 8), (0, 155)), ".png", (100, 100, 100)),
        (Image.new("RGB", (8, 8), RED), ".bmp", RED),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, image, suffix, expected):
    path = tmp_path / f"picture{suffix}"
    image.save(path)
    loaded = data_setup.load_image(path)
    assert (loaded.mode, loaded.size) == ("RGB", (8, 8))
    assert loaded.getpixel((4, 4)) == expected


def test_a_transparent_palette_entry_becomes_white(tmp_path):
    for suffix in (".gif", ".png"):
        palette_with_a_hole().save(tmp_path / f"hole{suffix}", transparency=0)
        assert data_setup.load_image(tmp_path / f"hole{suffix}").getpixel((0, 0)) == WHITE


def test_16_bit_grey_keeps_its_shades(tmp_path):
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(shades * 257).save(tmp_path / "deep.png")
    loaded = np.asarray(data_setup.load_image(tmp_path / "deep.png"))
    assert (loaded == shades[..., None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_stands_upright(tmp_path, orientation):
    upright = noise(1, (20, 10))
    turned_back = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = upright
    for operation in turned_back:
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.png", exif=exif)
    assert data_setup.load_image(tmp_path / "phone.png").tobytes() == upright.tobytes()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_shows_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = tmp_path / f"moving{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    red, _, blue = data_setup.load_image(path).getpixel((8, 8))
    assert red > 240 and blue < 15


def truncated_jpeg(path: Path) -> None:
    noise(1, (64, 64)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-400])


def text_named_like_a_picture(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


BROKEN = {"cut.jpg": truncated_jpeg, "page.jpg": text_named_like_a_picture, "empty.png": Path.touch}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unreadable_picture_is_an_error_with_its_name(tmp_path, name):
    BROKEN[name](tmp_path / name)
    with pytest.raises(ValueError, match=name):
        data_setup.load_image(tmp_path / name)


def test_a_decompression_bomb_is_an_error_with_its_name(tmp_path, monkeypatch):
    noise(1, (64, 64)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"bomb\.png.*exceeds limit"):
        data_setup.load_image(tmp_path / "bomb.png")


# --- Splits -------------------------------------------------------------------------------------


def test_three_given_splits_stay_as_they_are(tmp_path, no_warnings):
    for start, split, count in ((0, "train", 5), (100, "val", 2), (200, "test", 3)):
        write_classes(tmp_path / split, start, bees=count, ants=count + 1)
    splits = data_setup.load(tmp_path)
    assert splits.class_names == ["ants", "bees"]
    assert [len(split) for split in three(splits)] == [11, 5, 7]
    assert splits.how == "train, val, test as given"
    for name, split in zip(("train", "val", "test"), three(splits), strict=True):
        oracle = ImageFolder(tmp_path / name)
        assert split.classes == oracle.classes
        assert split.targets == oracle.targets
        assert [str(path) for path, _ in split.samples] == [path for path, _ in oracle.samples]


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "VAL"])
def test_the_validation_folder_has_many_names(tmp_path, name):
    write_classes(tmp_path / "Train", ants=10, bees=10)
    write_classes(tmp_path / name, 100, ants=2, bees=3)
    splits = data_setup.load(tmp_path)
    assert names(splits.val, tmp_path / name) == names(
        data_setup.load_split(tmp_path / name, splits.class_names), tmp_path / name
    )
    assert len(splits.val) == 5


@pytest.mark.parametrize(("given", "carved"), [("val", "test"), ("test", "val")])
def test_the_missing_split_is_carved_out_of_train(tmp_path, no_warnings, given, carved):
    write_classes(tmp_path / "train", ants=40, bees=20)
    write_classes(tmp_path / given, 1000, ants=4, bees=4)
    splits = data_setup.load(tmp_path)
    assert len(getattr(splits, given)) == 8
    assert Counter(getattr(splits, carved).targets) == {0: 8, 1: 4}
    both = names(splits.train, tmp_path) + names(getattr(splits, carved), tmp_path)
    assert sorted(both) == names(
        data_setup.load_split(tmp_path / "train", splits.class_names), tmp_path
    )
    assert splits.how.startswith(f"train, {given} as given; {carved} is 20% of each class")


def test_class_folders_are_split_in_three_without_loss_or_overlap(tmp_path, no_warnings):
    write_classes(tmp_path, ants=30, bees=17, wasps=3)
    splits = data_setup.load(tmp_path)
    everything = [name for split in three(splits) for name in names(split, tmp_path)]
    assert len(everything) == len(set(everything)) == 50
    assert [Counter(split.targets) for split in three(splits)] == [
        {0: 18, 1: 11, 2: 1},
        {0: 6, 1: 3, 2: 1},
        {0: 6, 1: 3, 2: 1},
    ]


def test_classes_keep_their_proportions_like_scikit_learn_has_them(tmp_path):
    counts = {f"class_{i}": 5 + 7 * i for i in range(8)}
    write_classes(tmp_path, **counts)
    splits = data_setup.load(tmp_path, val_fraction=0.15, test_fraction=0.25)
    labels = np.repeat(np.arange(8), list(counts.values()))
    for split, fraction in ((splits.val, 0.15), (splits.test, 0.25)):
        oracle = StratifiedShuffleSplit(1, test_size=fraction, random_state=0)
        ((_, held_out),) = oracle.split(labels, labels)
        ours, theirs = Counter(split.targets), Counter(labels[held_out].tolist())
        assert all(abs(ours[label] - theirs[label]) <= 1 for label in range(8))


def test_a_split_is_the_same_on_every_machine_and_in_every_version(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=8, bees=8), seed=7)
    assert names(splits.val, tmp_path) == [
        "ants/003.ppm",
        "ants/007.ppm",
        "bees/002.ppm",
        "bees/003.ppm",
    ]
    assert names(splits.test, tmp_path) == [
        "ants/000.ppm",
        "ants/006.ppm",
        "bees/000.ppm",
        "bees/004.ppm",
    ]


def test_a_split_depends_on_content_and_seed_only(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "renamed"
    write_classes(here, ants=20, bees=20)
    shutil.copytree(here, there)
    first = [names(split, here) for split in three(data_setup.load(here))]
    in_order = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(in_order(self))))
    assert [names(split, there) for split in three(data_setup.load(there))] == first
    assert [names(split, here) for split in three(data_setup.load(here, seed=43))] != first


def test_new_pictures_hardly_move_the_old_ones(tmp_path):
    write_classes(tmp_path, ants=50, bees=50)
    before = data_setup.load(tmp_path)
    for i in range(3):
        write_ppm(tmp_path / "ants" / f"a new one {i}.ppm", 10_000 + i)
    after = data_setup.load(tmp_path)
    assert [path for path, label in after.val.samples if label == 1] == [
        path for path, label in before.val.samples if label == 1
    ]
    left = set(names(before.val, tmp_path)) - set(names(after.val, tmp_path))
    assert len(left) <= 3


def test_copies_of_a_picture_stay_in_one_split(tmp_path, no_warnings):
    write_classes(tmp_path, ants=12, bees=12)
    for i in range(12):
        for copy in range(i % 4):
            shutil.copy(tmp_path / f"ants/{i:03}.ppm", tmp_path / f"ants/{copy}_of_{i:03}.ppm")
    for seed in range(10):
        splits = data_setup.load(tmp_path, seed=seed)
        contents = [{path.read_bytes() for path, _ in split.samples} for split in three(splits)]
        assert sum(map(len, contents)) == len(set.union(*contents)) == 24
        assert sum(map(len, three(splits))) == 24 + 18


def test_a_picture_under_two_classes_is_reported_and_stays_in_one_split(tmp_path):
    write_classes(tmp_path, ants=10, bees=10)
    for i in range(5):
        shutil.copy(tmp_path / f"ants/00{i}.ppm", tmp_path / f"bees/ant{i}.ppm")
    for seed in range(5):
        with pytest.warns(
            UserWarning, match=r"two classes \(5\).*00\d\.ppm = .*ant\d\.ppm"
        ) as seen:
            splits = data_setup.load(tmp_path, seed=seed)
        assert len(seen) == 1
        contents = [{path.read_bytes() for path, _ in split.samples} for split in three(splits)]
        assert sum(map(len, contents)) == 20
        assert [split.targets.count(0) for split in three(splits)] == [6, 2, 2]


def test_too_few_pictures_of_a_class_are_an_error_with_the_numbers(tmp_path):
    write_classes(tmp_path, ants=9, bees=2)
    shutil.copy(tmp_path / "bees/000.ppm", tmp_path / "bees/copy.ppm")
    with pytest.raises(ValueError, match=r"'bees' .* has 2 different pictures.* 3 are needed"):
        data_setup.load(tmp_path)


@pytest.mark.parametrize("fractions", [(0, 0.2), (0.5, 0.5), (-0.1, 0.2)])
def test_impossible_fractions_are_an_error(tmp_path, fractions):
    write_classes(tmp_path, ants=9, bees=9)
    with pytest.raises(ValueError, match="fractions"):
        data_setup.load(tmp_path, val_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize("fractions", [(0.05, 0.9), (0.9, 0.05), (0.49, 0.49), (0.01, 0.01)])
def test_every_split_gets_a_picture_of_every_class(tmp_path, count, fractions):
    write_classes(tmp_path, ants=count, bees=count)
    splits = data_setup.load(tmp_path, val_fraction=fractions[0], test_fraction=fractions[1])
    assert all(set(split.targets) == {0, 1} for split in three(splits))


def no_folder(root: Path) -> Path:
    return root / "nowhere"


def an_archive(root: Path) -> Path:
    (root / "ants.zip").touch()
    return root / "ants.zip"


def an_empty_folder(root: Path) -> Path:
    return root


def pictures_without_classes(root: Path) -> Path:
    write_ppm(root / "photo.ppm", 1)
    return root


def one_class(root: Path) -> Path:
    return write_classes(root, ants=9)


def a_folder_too_many(root: Path) -> Path:
    write_classes(root / "inner", ants=9, bees=9)
    return root


def an_empty_class(root: Path) -> Path:
    return write_classes(root, ants=9, bees=0)


def a_class_missing_from_val(root: Path) -> Path:
    write_classes(root / "train", ants=9, bees=9)
    write_classes(root / "val", 100, ants=9)
    return root


def a_class_unknown_to_train(root: Path) -> Path:
    write_classes(root / "train", ants=9, bees=9)
    write_classes(root / "val", 100, ants=9, bees=9, wasps=1)
    return root


def a_test_folder_without_labels(root: Path) -> Path:
    write_classes(root / "train", ants=9, bees=9)
    write_ppm(root / "test" / "0.ppm", 100)
    return root


def no_train_folder(root: Path) -> Path:
    write_classes(root / "val", ants=9, bees=9)
    write_classes(root / "test", 100, ants=9, bees=9)
    return root


def two_val_folders(root: Path) -> Path:
    for start, split in enumerate(("train", "val", "valid")):
        write_classes(root / split, 100 * start, ants=9, bees=9)
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_folder, r"known by name \(charts, hymenoptera, .*\) nor a folder.*nowhere"),
        (an_archive, r"ants\.zip is a file.*unpacked"),
        (an_empty_folder, "no class folders"),
        (pictures_without_classes, "no class folders"),
        (one_class, "one class folder only, 'ants'"),
        (a_folder_too_many, "did you mean .*inner"),
        (an_empty_class, "'bees' .* has 0 different pictures"),
        (a_class_missing_from_val, "val has no usable picture of bees"),
        (a_class_unknown_to_train, "wasps is a class unknown to train"),
        (a_test_folder_without_labels, r"test holds pictures \(1\) but no class folders"),
        (no_train_folder, "no train folder"),
        (two_val_folders, r"val and .*valid are both val"),
    ],
)
def test_a_folder_that_cannot_be_learnt_from_is_an_error_that_says_why(tmp_path, make, message):
    folder = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data_setup.load(folder)


def test_broken_and_foreign_files_are_left_out_with_one_warning(tmp_path):
    write_classes(tmp_path, ants=6, bees=6)
    for name, make in BROKEN.items():
        make(tmp_path / "ants" / name)
    (tmp_path / "bees" / "notes.txt").write_text("bees")
    (tmp_path / "bees" / "IMG_1.HEIC").touch()
    with pytest.warns(UserWarning) as seen:
        splits = data_setup.load(tmp_path)
    (warning,) = seen
    assert warning.filename == __file__
    assert "files left out (5)" in str(warning.message)
    for name, reason in {
        "cut.jpg": "truncated",
        "page.jpg": "no picture inside",
        "empty.png": "empty file",
        "notes.txt": ".txt",
        "IMG_1.HEIC": ".HEIC",
    }.items():
        assert any(reason in part for part in str(warning.message).split(name)[1:])
    assert sum(map(len, three(splits))) == 12


def test_a_long_list_of_files_is_cut_short(tmp_path):
    write_classes(tmp_path, ants=6, bees=6)
    for i in range(40):
        (tmp_path / "ants" / f"{i}.txt").touch()
    with pytest.warns(UserWarning, match=r"left out \(40\).* and 35 more") as seen:
        data_setup.load(tmp_path)
    assert len(str(seen[0].message)) < 1000


def test_what_systems_leave_in_folders_is_passed_over_in_silence(tmp_path, no_warnings):
    write_classes(tmp_path, ants=6, bees=6)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.jpg", ".hidden.jpg"):
        (tmp_path / "ants" / name).write_bytes(b"clutter")
    write_classes(tmp_path / ".ipynb_checkpoints", ants=1)
    write_classes(tmp_path / "ants" / ".ipynb_checkpoints", 50, x=1)
    write_classes(tmp_path / "__MACOSX", 60, ants=1)
    (tmp_path / "labels.csv").touch()
    splits = data_setup.load(tmp_path)
    assert splits.class_names == ["ants", "bees"]
    assert sum(map(len, three(splits))) == 12


def test_a_picture_in_two_given_splits_is_reported_with_both_names(tmp_path):
    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        write_classes(tmp_path / split, start, ants=5, bees=5)
    shutil.copy(tmp_path / "train/ants/002.ppm", tmp_path / "test/ants/again.ppm")
    expected = r"two splits \(1\).*train.ants.002\.ppm = .*test.ants.again\.ppm"
    with pytest.warns(UserWarning, match=expected) as seen:
        data_setup.load(tmp_path)
    assert len(seen) == 1 and seen[0].filename == __file__


def test_names_of_any_kind_are_read(tmp_path, no_warnings):
    write_classes(tmp_path, ants=3, bees=3)
    odd = [
        "ÅNGSTRÖM 蟻 🐜.PNG",
        "UPPER.JPG",
        "a" * LONG + ".jpeg",
        "two.dots.Tif",
        "under/below.png",
    ]
    for i, name in enumerate(odd):
        (tmp_path / "ants" / name).parent.mkdir(exist_ok=True)
        noise(i).save(tmp_path / "ants" / name)
    splits = data_setup.load(tmp_path)
    found = [name for split in three(splits) for name in names(split, tmp_path)]
    assert {f"ants/{name}" for name in odd} <= set(found)
    assert all(split[i][0].mode == "RGB" for split in three(splits) for i in range(len(split)))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_are_followed_and_loops_are_not(tmp_path, no_warnings):
    elsewhere = write_classes(tmp_path / "elsewhere", ants=5, one=1)
    data = write_classes(tmp_path / "data", 100, bees=5)
    (data / "ants").symlink_to(elsewhere / "ants", target_is_directory=True)
    (data / "bees" / "linked.ppm").symlink_to(elsewhere / "one" / "000.ppm")
    (data / "bees" / "loop").symlink_to(data / "bees", target_is_directory=True)
    splits = data_setup.load(data)
    total = Counter(label for split in three(splits) for label in split.targets)
    assert total == {0: 5, 1: 6}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_broken_link_is_left_out(tmp_path):
    write_classes(tmp_path, ants=5, bees=5)
    (tmp_path / "ants" / "gone.jpg").symlink_to(tmp_path / "no such file")
    with pytest.warns(UserWarning, match=r"left out \(1\).*gone\.jpg"):
        data_setup.load(tmp_path)


def test_a_folder_beside_the_splits_is_named_and_can_be_read(tmp_path, no_warnings):
    for start, split in enumerate(("train", "val", "test", "shifted")):
        write_classes(tmp_path / split, 100 * start, ants=5 + start, bees=5)
    splits = data_setup.load(tmp_path)
    assert splits.how == "train, val, test as given; not used: shifted"
    shifted = data_setup.load_split(splits.folder / "shifted", splits.class_names)
    assert Counter(shifted.targets) == {0: 8, 1: 5}


def test_labels_follow_the_class_names_that_are_given(tmp_path):
    write_classes(tmp_path, ants=2, bees=3)
    shifted = data_setup.load_split(tmp_path, ["bees", "ants"])
    assert Counter(shifted.targets) == {0: 3, 1: 2}


def test_a_data_set_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(data_setup.DATA_SETS, "charts", tmp_path / "charts")
    with pytest.raises(FileNotFoundError, match=r"python -m going_modular\.charts"):
        data_setup.load("charts")
    write_classes(tmp_path / "charts", ants=5, bees=5)
    assert data_setup.load("charts").source == "charts"
    with pytest.raises(
        FileNotFoundError, match=r"chart is neither .*\(charts, hymenoptera, .*food101\)"
    ):
        data_setup.load("chart")


def test_the_summary_counts_every_split_and_class(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=30, bumblebees=10))
    first, *table = splits.summary().splitlines()
    assert first.startswith(f"{tmp_path}: val is 20% of each class, test is 20% of each class")
    assert table == [
        "            train  val  test",
        "ants           18    6     6",
        "bumblebees      6    2     2",
        "all            24    8     8",
    ]


def test_the_summary_of_many_classes_is_short(tmp_path):
    write_classes(tmp_path, **{f"class_{i}": 5 + i % 6 for i in range(60)})
    lines = data_setup.load(tmp_path).summary().splitlines()
    assert len(lines) == 4
    assert lines[2].split() == ["each", "of", "60", "classes", "3-6", "1-2", "1-2"]


# --- Data sets ----------------------------------------------------------------------------------


def test_a_data_set_without_a_transform_shows_its_pictures(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=5, bees=5))
    image, label = splits.train[-1]
    assert (image.mode, image.size, label) == ("RGB", (2, 2), 1)


def test_few_pictures_of_each_class_are_part_of_more(tmp_path):
    dataset = data_setup.load(write_classes(tmp_path, ants=40, bees=30)).train
    five, ten = dataset.few(5), dataset.few(10)
    assert Counter(five.targets) == {0: 5, 1: 5} and Counter(ten.targets) == {0: 10, 1: 10}
    assert set(five.samples) < set(ten.samples) < set(dataset.samples)
    assert dataset.few(5).samples == five.samples
    assert set(dataset.few(5, seed=1).samples) != set(five.samples)
    with pytest.raises(ValueError, match="'bees' has 18 pictures, not 20"):
        dataset.few(20)


@pytest.fixture
def odd_pictures(tmp_path) -> list[tuple[Path, int]]:
    """Pictures larger, smaller, wider and taller than the crop, in several modes."""
    images = [
        noise(0, (150, 100)),
        noise(1, (20, 300)),
        noise(2, (30, 31)).convert("L"),
        noise(3, (64, 64)).convert("P"),
        noise(4, (90, 70)).convert("LA"),
        Image.open(PHOTO).reduce(4),
    ]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    return [(tmp_path / f"{i}.png", i % 2) for i in range(len(images))]


@pytest.mark.parametrize("model", ["resnet18", "vit_h_14", "inception_v3", "efficientnet_lite0"])
def test_kept_pictures_are_the_same_bit_for_bit(odd_pictures, model):
    transform = data_setup.create_transform(model, size=64)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    assert dataset.is_kept_in_memory
    for _ in range(2):
        for i, (path, label) in enumerate(odd_pictures):
            images, labels = dataset[i]
            assert labels == label
            assert torch.equal(images, transform(data_setup.load_image(path)))


def test_a_picture_is_decoded_once(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    before, _ = dataset[0]
    before_ = before.clone()
    before.zero_()  # what a caller does to a tensor must not reach the kept one
    odd_pictures[0][0].unlink()
    assert torch.equal(dataset[0][0], before_)
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(dataset))[0]  # a worker process starts with nothing


def test_another_transform_reads_the_pictures_again(odd_pictures):
    dataset = data_setup.ImageDataset(
        odd_pictures, ["a", "b"], data_setup.create_transform("resnet18", size=32)
    )
    assert dataset[0][0].shape == (3, 32, 32)
    dataset.transform = data_setup.create_transform("resnet18", size=48)
    assert dataset[0][0].shape == (3, 48, 48)


def test_a_set_larger_than_the_budget_is_not_kept(odd_pictures, monkeypatch):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    needed = len(odd_pictures) * 3 * 32 * 32
    assert 2**28 <= data_setup.memory_budget() <= 2**31
    monkeypatch.setattr(data_setup, "memory_budget", lambda: needed)
    assert dataset.is_kept_in_memory
    monkeypatch.setattr(data_setup, "memory_budget", lambda: needed - 1)
    assert not dataset.is_kept_in_memory
    expected = transform(data_setup.load_image(odd_pictures[0][0]))
    assert torch.equal(dataset[0][0], expected)
    odd_pictures[0][0].unlink()
    with pytest.raises(FileNotFoundError):
        dataset[0]


def test_a_fingerprint_is_of_files_labels_order_and_transform(odd_pictures, tmp_path):
    def fingerprint(samples=odd_pictures, size=32, **options):
        transform = data_setup.create_transform("resnet18", size=size, **options)
        return data_setup.ImageDataset(samples, ["a", "b"], transform).fingerprint()

    (path, label), *others = odd_pictures
    first = fingerprint()
    assert fingerprint() == first
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copyfile(path, elsewhere)
    os.utime(elsewhere, (0, 0))
    assert fingerprint([(elsewhere, label), *others]) == first  # neither names nor dates
    assert fingerprint([(path, 1 - label), *others]) != first
    assert fingerprint([*others, (path, label)]) != first
    assert fingerprint(size=48) != first
    assert fingerprint(augment=True) is None

    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(date, date))
    assert fingerprint() != first


def test_what_is_kept_is_never_older_than_the_fingerprint(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    before, _ = dataset[0]
    noise(99, (150, 100)).save(odd_pictures[0][0])
    dataset.fingerprint()
    assert not torch.equal(dataset[0][0], before)


def test_an_augmented_set_is_not_kept(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32, augment=True)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    assert not dataset.is_kept_in_memory
    assert not torch.equal(dataset[0][0], dataset[0][0])


# --- Transforms ---------------------------------------------------------------------------------

CLASSIFIERS = list_models(module=sys.modules["torchvision.models"])


@pytest.mark.parametrize("model", [*CLASSIFIERS, "efficientnet_lite0"])
def test_the_transform_is_the_one_of_the_weights(model):
    expected = get_model_weights(model).DEFAULT.transforms()
    transform = data_setup.create_transform(model)
    assert type(transform) is ImageClassification
    assert str(transform) == str(expected)
    small = data_setup.create_transform(model, size=96)
    assert small.crop_size == [96]
    assert small.resize_size[0] / 96 == pytest.approx(
        expected.resize_size[0] / expected.crop_size[0], abs=0.006
    )


def test_a_model_that_does_not_classify_images_is_an_error():
    with pytest.raises(ValueError, match="fcn_resnet50"):
        data_setup.create_transform("fcn_resnet50")
    with pytest.raises(ValueError, match="resnet_18"):
        data_setup.create_transform("resnet_18")


@pytest.mark.parametrize("model", ["resnet18", "vit_h_14", "efficientnet_lite0"])
def test_augmented_pictures_have_the_values_of_the_others(model):
    plain = data_setup.create_transform(model, size=64)
    augmented = data_setup.create_transform(model, size=64, augment=True)
    black, white = Image.new("RGB", (99, 80)), Image.new("RGB", (99, 80), "white")
    torch.testing.assert_close(augmented(black), plain(black))  # no jitter changes black
    brightest = torch.stack([augmented(white) for _ in range(20)]).amax(0)
    torch.testing.assert_close(brightest, plain(white))

    photo = data_setup.load_image(PHOTO)
    torch.manual_seed(0)
    many = torch.stack([augmented(photo) for _ in range(40)])
    one = plain(photo)
    assert type(many[0]) is type(one) and many.dtype == one.dtype and many[0].shape == one.shape
    assert abs(many.mean() - one.mean()) < 0.3 and abs(many.std() / one.std() - 1) < 0.2


def test_augmentation_repeats_with_the_seed():
    augmented = data_setup.create_transform("resnet18", size=32, augment=True)
    photo = data_setup.load_image(PHOTO)
    torch.manual_seed(3)
    first = augmented(photo)
    second = augmented(photo)
    torch.manual_seed(3)
    assert torch.equal(augmented(photo), first) and not torch.equal(first, second)


# --- Dataloaders --------------------------------------------------------------------------------


@pytest.fixture
def splits(tmp_path) -> data_setup.ImageSplits:
    return data_setup.load(write_classes(tmp_path, ants=30, bees=25))


@pytest.fixture
def transform() -> ImageClassification:
    return data_setup.create_transform("resnet18", size=16)


def order(dataloader) -> list[list[float]]:
    return [images.sum((1, 2, 3)).tolist() for images, _ in dataloader]


def test_a_batch_is_what_the_transform_made(splits, transform):
    dataloader = data_setup.create_dataloader(splits.val, transform, batch_size=4)
    batches = list(dataloader)
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    for start, (images, labels) in zip(range(0, 11, 4), batches, strict=True):
        samples = splits.val.samples[start : start + 4]
        expected = [(transform(data_setup.load_image(path)), label) for path, label in samples]
        expected_images, expected_labels = default_collate(expected)
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)
    assert splits.val.transform is None


def test_a_seed_fixes_the_order_whatever_else_is_random(splits, transform):
    def shuffled(seed):
        return data_setup.create_dataloader(
            splits.train, transform, batch_size=8, shuffle=True, seed=seed
        )

    torch.manual_seed(0)
    dataloader = shuffled(1)
    first, second = order(dataloader), order(dataloader)
    torch.rand(1), random.random()
    assert order(shuffled(1)) == first != second
    assert order(shuffled(2)) != first
    torch.manual_seed(5)
    unseeded = order(shuffled(None))
    torch.manual_seed(5)
    assert order(shuffled(None)) == unseeded != first
    assert sorted(chain(*first)) == sorted(chain(*second)) and len([*chain(*first)]) == 33


def test_a_batch_with_an_unreadable_picture_names_it(splits, transform):
    path, _ = splits.train.samples[3]
    path.write_bytes(b"P6 2 2 255")
    with pytest.raises(ValueError, match=path.name):
        next(iter(data_setup.create_dataloader(splits.train, transform)))


def test_workers_make_the_same_batches(splits, transform):
    alone = data_setup.create_dataloader(splits.train, transform, num_workers=0)
    helped = data_setup.create_dataloader(splits.train, transform, num_workers=2)
    for _ in range(2):
        for (images, labels), (images_, labels_) in zip(alone, helped, strict=True):
            assert torch.equal(images, images_) and torch.equal(labels, labels_)


@pytest.mark.parametrize(
    ("cuda", "platform", "expected"),
    [(False, "linux", 0), (True, "linux", 3), (True, "win32", 0), (False, "darwin", 0)],
)
def test_workers_are_used_where_they_help(monkeypatch, splits, cuda, platform, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert data_setup.default_num_workers() == expected


def test_a_set_that_is_kept_needs_no_workers(monkeypatch, splits, transform):
    monkeypatch.setattr(data_setup, "default_num_workers", lambda: 2)
    augmented = data_setup.create_transform("resnet18", size=16, augment=True)
    assert data_setup.create_dataloader(splits.train, transform).num_workers == 0
    assert data_setup.create_dataloader(splits.train, augmented).num_workers == 2


def test_the_call_of_the_well_known_course(tmp_path, transform, no_warnings):
    write_classes(tmp_path / "train", steak=10, pizza=11, sushi=12)
    write_classes(tmp_path / "test", 100, steak=3, pizza=4, sushi=5)
    train_dataloader, test_dataloader, class_names = data_setup.create_dataloaders(
        train_dir=str(tmp_path / "train"),
        test_dir=str(tmp_path / "test"),
        transform=transform,
        batch_size=32,
        num_workers=0,
    )
    assert class_names == ["pizza", "steak", "sushi"]
    assert [len(labels) for _, labels in train_dataloader] == [32, 1]
    assert order(train_dataloader) != order(train_dataloader)
    assert order(test_dataloader) == order(test_dataloader)
    assert train_dataloader.dataset.classes == test_dataloader.dataset.classes == class_names
    positional = data_setup.create_dataloaders(
        tmp_path / "train", tmp_path / "test", transform, 32, 0
    )
    assert positional[2] == class_names


def test_the_course_call_reports_what_load_reports(tmp_path, transform):
    write_classes(tmp_path / "train", ants=4, bees=4)
    write_classes(tmp_path / "test", 100, ants=4)
    folders = (tmp_path / "train", tmp_path / "test")
    with pytest.raises(ValueError, match="test has no usable picture of bees"):
        data_setup.create_dataloaders(*folders, transform, 32)
    write_classes(tmp_path / "test", 200, bees=4)
    shutil.copy(tmp_path / "train/ants/002.ppm", tmp_path / "test/ants/again.ppm")
    with pytest.warns(UserWarning, match=r"002\.ppm = .*again\.ppm"):
        data_setup.create_dataloaders(*folders, transform, 32)
