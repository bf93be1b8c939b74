"""Folders of images as people have them: splits, classes, odd names and files, links, clutter."""

import os
import shutil
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from going_modular import audit, data_setup

LONG = 100 if sys.platform == "win32" else 250
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files or links")


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_ppm(path: Path, number: int) -> None:
    """Write an image whose bytes no encoder has a say in."""
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


# --- Splits and classes by their names ----------------------------------------------------------


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


SPELLINGS = [
    ("Training Set/Training Set", "Test Set/Test Set"),
    ("seg_train/seg_train", "seg_test/seg_test", "seg_pred/seg_pred"),
    ("train_images", "test_images"),
    ("trainImages", "valImages"),
    ("train 80%", "val 20%"),
    ("train2017", "val2017"),
    ("TRAIN", "dev", "TEST"),
    ("train", "eval"),
    ("01_trainset", "02_testset"),
    ("x_train", "x_valid", "x_test"),
]


@pytest.mark.parametrize("folders", SPELLINGS, ids=" + ".join)
def test_splits_are_known_by_their_names_in_many_spellings(tmp_path, no_warnings, folders):
    for i, folder in enumerate(folders):
        write_classes(tmp_path / folder, 100 * i, ants=6, bees=6)
    splits = data_setup.load(tmp_path)
    assert splits.class_names == ["ants", "bees"]
    given = sum("pred" not in folder for folder in folders)
    assert sum(map(len, three(splits))) == 12 * given
    assert splits.how.partition(" as given")[0].count(",") == given - 1
    assert {split for split, _, _ in list_of(audit.scan(tmp_path))} <= {"train", "val", "test"}


def list_of(report: audit.Report) -> list[tuple]:
    return [(picture.split, picture.class_name, picture.path) for picture in report.pictures]


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_may_be_named_like_a_split(tmp_path, no_warnings, name):
    write_classes(tmp_path, **{"bus": 6, "car": 6, name: 6})
    assert data_setup.load(tmp_path).class_names == sorted(["bus", "car", name])


def test_other_folders_are_no_splits(tmp_path, no_warnings):
    classes = {"bullet_train": 5, "test_tube": 5, "training shoes": 5, "valley": 5, "eval2": 5}
    write_classes(tmp_path, **classes)
    assert data_setup.load(tmp_path).class_names == sorted(classes)


def test_splits_inside_classes_are_not_mixed_in_silence(tmp_path):
    for i, name in enumerate(("ants", "bees")):
        write_classes(tmp_path / name, 100 * i, train=6, test=6)
    with pytest.raises(ValueError, match=r"ants holds splits \(test, train\).*train/ants"):
        data_setup.load(tmp_path)


def test_names_that_look_the_same_are_one_class(tmp_path, no_warnings):
    composed, apart = (unicodedata.normalize(form, "fjäril") for form in ("NFC", "NFD"))
    write_classes(tmp_path / "train", **{apart: 6, "bi": 6})
    write_classes(tmp_path / "val", 100, **{composed: 6, "bi": 6})
    splits = data_setup.load(tmp_path)
    assert splits.class_names == ["bi", composed] and len(splits.val) == 12
    assert data_setup.load_split(tmp_path / "val", ["bi", apart]).targets == [0] * 6 + [1] * 6
    if sys.platform != "darwin":  # where both names are those of one folder
        write_classes(tmp_path / "train", 200, **{composed: 3})
        splits = data_setup.load(tmp_path)
        both = Counter(splits.train.targets) + Counter(splits.test.targets)
        assert splits.class_names == ["bi", composed] and both == {0: 6, 1: 9}


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


def two_folders_too_many(root: Path) -> Path:
    write_classes(root / "unpacked" / "inner", ants=9, bees=9)
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


def images_beside_a_table(root: Path) -> Path:
    write_ppm(root / "images" / "0.ppm", 0)
    (root / "labels.csv").write_text("file,label\n0.ppm,ants\n")
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
        (an_archive, r"ants\.zip is a file.*unpack it"),
        (an_empty_folder, "no class folders"),
        (pictures_without_classes, "no class folders"),
        (one_class, "only one class folder, 'ants'"),
        (images_beside_a_table, r"If .*labels\.csv holds the labels: --labels FILE"),
        (two_folders_too_many, "did you mean .*inner"),
        (an_empty_class, "'bees' .* different images .*: 0,"),
        (a_class_missing_from_val, "val has no usable image of bees"),
        (a_class_unknown_to_train, "wasps is a class unknown to train"),
        (a_test_folder_without_labels, r"test holds images \(1\) but no class folders"),
        (no_train_folder, "no train folder"),
        (two_val_folders, r"val and .*valid are both val"),
    ],
)
def test_a_folder_that_cannot_be_learnt_from_is_an_error_that_says_why(tmp_path, make, message):
    folder = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data_setup.load(folder)


# --- Files --------------------------------------------------------------------------------------


def truncated_jpeg(path: Path) -> None:
    noise(1, (64, 64)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-400])


def text_named_like_a_picture(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


BROKEN = {"cut.jpg": truncated_jpeg, "page.jpg": text_named_like_a_picture, "empty.png": Path.touch}


def test_broken_and_foreign_files_are_left_out_with_one_warning(tmp_path):
    write_classes(tmp_path, ants=6, bees=6)
    for name, make in BROKEN.items():
        make(tmp_path / "ants" / name)
    (tmp_path / "bees" / "notes.txt").write_text("bees")
    (tmp_path / "bees" / "IMG_1.CR2").touch()
    with pytest.warns(UserWarning) as seen:
        splits = data_setup.load(tmp_path)
    (warning,) = seen
    assert warning.filename == __file__
    assert "files left out (5)" in str(warning.message)
    for name, reason in {
        "cut.jpg": "truncated",
        "page.jpg": "a web page",
        "empty.png": "empty file",
        "notes.txt": ".txt",
        "IMG_1.CR2": ".CR2",
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


@pytest.mark.parametrize("where", ["", "train"])
def test_what_systems_leave_in_folders_is_passed_over_in_silence(tmp_path, no_warnings, where):
    root = write_classes(tmp_path / where, ants=6, bees=6)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.jpg", ".hidden.jpg"):
        (root / "ants" / name).write_bytes(b"clutter")
    left = ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
    left += [".AppleDouble", ".ipynb_checkpoints", "__MACOSX", "@Recycle", "Temporary Items"]
    for i, name in enumerate(left):
        for folder in (tmp_path, root, root / "ants", root / "bees"):
            write_classes(folder / name, 50 + i, ants=1)
    (root / "labels.csv").touch()
    splits = data_setup.load(tmp_path)
    assert splits.class_names == ["ants", "bees"] and "not used" not in splits.how
    assert sum(map(len, three(splits))) == 12
    report = audit.scan(tmp_path)
    assert len(report.pictures) == 12 and list(report.unusable) == [root / "labels.csv"]


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


@POSIX
def test_links_are_followed_and_loops_are_not(tmp_path, no_warnings):
    elsewhere = write_classes(tmp_path / "elsewhere", ants=5, one=1)
    data = write_classes(tmp_path / "data", 100, bees=5)
    (data / "ants").symlink_to(elsewhere / "ants", target_is_directory=True)
    (data / "bees" / "linked.ppm").symlink_to(elsewhere / "one" / "000.ppm")
    (data / "bees" / "loop").symlink_to(data / "bees", target_is_directory=True)
    (data / "bees" / "up").symlink_to(data, target_is_directory=True)
    splits = data_setup.load(data)
    total = Counter(label for split in three(splits) for label in split.targets)
    assert total == {0: 5, 1: 6}


@POSIX
def test_a_broken_link_is_left_out(tmp_path):
    write_classes(tmp_path, ants=5, bees=5)
    (tmp_path / "ants" / "gone.jpg").symlink_to(tmp_path / "no such file")
    with pytest.warns(UserWarning, match=r"left out \(1\).*gone\.jpg"):
        data_setup.load(tmp_path)


@POSIX
def test_pipes_and_endless_files_are_left_out_and_the_folder_read(tmp_path):
    write_classes(tmp_path, ants=6, bees=6)
    os.mkfifo(tmp_path / "ants" / "pipe.jpg")
    (tmp_path / "ants" / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "ants" / "itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "ants" / "folder.jpg").mkdir()
    expected = {"pipe.jpg", "zero.jpg", "itself.jpg"}
    with pytest.warns(UserWarning, match=r"left out \(3\)") as seen:
        splits = data_setup.load(tmp_path)
    assert all(name in str(seen[0].message) for name in expected)
    assert sum(map(len, three(splits))) == 12
    assert {path.name for path in audit.scan(tmp_path).unusable} == expected


@POSIX
def test_links_that_multiply_are_followed_once(tmp_path):
    write_classes(tmp_path, ants=6, bees=6)
    (tmp_path / "ants" / "0").mkdir()
    for i in range(40):  # 2 ** 40 ways to the last of them
        (tmp_path / "ants" / f"{i + 1}").mkdir()
        for name in ("left", "right"):
            (tmp_path / "ants" / f"{i}" / name).symlink_to(tmp_path / "ants" / f"{i + 1}")
    shutil.copy(tmp_path / "ants" / "000.ppm", tmp_path / "ants" / "40" / "last.ppm")
    assert sum(map(len, three(data_setup.load(tmp_path)))) == 13


@POSIX
def test_links_out_of_the_folder_are_told(tmp_path, capsys):
    data, private = write_classes(tmp_path / "data", ants=6, bees=6), tmp_path / "private"
    write_ppm(private / "me.ppm", 77)
    (data / "ants" / "linked.ppm").symlink_to(private / "me.ppm")
    (data / "bees" / "more").symlink_to(private)
    (data / "bees" / "inside.ppm").symlink_to(data / "bees" / "000.ppm")
    with pytest.warns(UserWarning, match="two classes"):
        how = data_setup.load(data).how
    assert "links to other places (2): ants/linked.ppm is " in how
    assert "inside" not in how and str(private / "me.ppm") in how
    assert audit.main([str(data)]) == 0
    assert "links to other places: 2\n  ants/linked.ppm is" in capsys.readouterr().out


# --- groups --------------------------------------------------------------------------------------


def write_patients(folder):
    """Make 10 patients with 4 images each, half of them ill; three of one patient are healthy."""
    for patient in range(10):
        for shot in range(4):
            name = "ill" if patient % 2 and shot else "healthy"
            path = folder / name / f"night{shot % 2}" / f"patient{patient:02}_{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (patient * 20, shot * 50, 0)).save(path)


def test_a_group_is_in_one_split_whatever_its_classes(tmp_path):
    write_patients(tmp_path)
    splits = data_setup.load(tmp_path, groups=r"(patient\d+)_")
    seen = [{path.name[:9] for path, _ in split.samples} for split in three(splits)]
    assert sum(map(len, seen)) == 10 == len(set.union(*seen))
    assert all(seen) and sum(map(len, three(splits))) == 40
    without = [{p.name[:9] for p, _ in split.samples} for split in three(data_setup.load(tmp_path))]
    assert sum(map(len, without)) > 10  # else the test would show nothing
    assert "groups by (patient\\d+)_ stay together" in splits.how


def test_the_folder_can_be_the_group(tmp_path):
    for name in ("ants", "bees"):
        for place in range(6):
            folder = tmp_path / name / f"place{place}"
            folder.mkdir(parents=True)
            for shot in range(3):
                colour = (place * 40, shot * 80, 255 * (name == "bees"))
                Image.new("RGB", (20, 20), colour).save(folder / f"{shot}.png")
    seen = [
        {path.parent for path, _ in s.samples}
        for s in three(data_setup.load(tmp_path, groups="folder"))
    ]
    assert [len(folders) for folders in seen] == [8, 2, 2] and len(set.union(*seen)) == 12


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("(patient", "is no regular expression"),
        ("camera", "finds no group in"),
        ("patient", r"different images \(or groups\): 1,"),  # one group for all
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path, groups, message):
    write_patients(tmp_path)
    with pytest.raises(ValueError, match=message):
        data_setup.load(tmp_path, groups=groups)


# --- labels in a table ---------------------------------------------------------------------------


def write_competition(folder, text=None, suffix=".jpg"):
    """Make images/ and labels.csv as competitions do: ids without extension, classes, a note."""
    (folder / "images").mkdir()
    rows = ["id,breed,note"]
    for number in range(12):
        colour = (number * 20, 255 * (number % 2), 0)
        Image.new("RGB", (20, 20), colour).save(folder / "images" / f"x{number}.png")
        rows.append(f"x{number}{suffix if suffix != '.jpg' else ''},{'ab'[number % 2]},n{number}")
    (folder / "labels.csv").write_text(text or "\n".join(rows))
    return folder / "labels.csv"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_labels_come_from_a_table(tmp_path, suffix):
    table = write_competition(tmp_path, suffix=suffix)
    splits = data_setup.load(tmp_path, labels=table)
    assert splits.class_names == ["a", "b"]
    for split in three(splits):
        assert len(split) and all(int(path.stem[1:]) % 2 == label for path, label in split.samples)
    assert sum(map(len, three(splits))) == 12
    assert "classes from column 'breed' of labels.csv, images from column 'id'" in splits.how
    again = data_setup.load(tmp_path / "images", labels=f"{table}:breed")  # the folder inside, too
    assert [s.targets for s in three(again)] == [s.targets for s in three(splits)]


def test_a_table_of_another_dialect_is_read(tmp_path):
    rows = "\ufeffclass;file\n" + "\n".join(f"{'ab'[n % 2]};images/x{n}.png" for n in range(12))
    table = write_competition(tmp_path, rows)
    assert sum(map(len, three(data_setup.load(tmp_path, labels=table)))) == 12


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("id,a,b\nx1,p,q\nx2,r,q\nx3,p,q\nx4,r,s", "", "which column .* It has a, b: say it after"),
        ("id,breed\nx1,a\nx2,b", ":race", "has no column 'race', but id, breed"),
        ("id,breed\ny1,a\ny2,b", "", "names no image below"),
        ("id,breed\nx1,a\nx2,b\nx77,a\nx3,b", "", "1 rows without one image .* 'x77'"),
        ("id\nx1\nx2", "", "is no table with a header"),
        ("id,breed\nx1,a\nx2,a\nx3,a\nx4,a", ":breed", "fewer than two classes"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_columns(tmp_path, text, column, message):
    table = write_competition(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        data_setup.load(tmp_path, labels=f"{table}{column}")
