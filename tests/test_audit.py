"""What an audit finds in folders whose faults are known, because the test has put them there."""

import hashlib
import io
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from going_modular import audit, data_setup, train

CHARTS = data_setup.DATA_SETS["charts"]


def make_picture(seed, size=(120, 96)):
    """Make a picture of soft coloured spots, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Make a sound folder: two classes with six pictures each."""
    for seed in range(12):
        save(make_picture(seed), tmp_path / "photos" / "ab"[seed % 2] / f"{seed:02}.png")
    return tmp_path / "photos"


def hash_tree(folder):
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(report, paths):
    return [report.name(path) for path in paths]


def groups(report):
    return [names(report, [picture.path for picture in group]) for group in report.copies]


# --- a sound folder, and no trace of having been there ------------------------------------------


def test_a_sound_folder_has_no_faults(folder):
    report = audit.scan(folder)
    assert len(report.pictures) == 12 and report.leave_out() == {}
    assert {p.path: p.size for p in report.pictures} == {
        path: Image.open(path).size for path in folder.rglob("*.png")
    }
    assert (
        "12 files, 12 of them can be read\na      6\nb      6\nwidth  120 to 120,"
        in report.summary()
    )
    assert "cannot be used: none\nplaceholders: none\nodd sizes: none\ncopies: none\n" in (
        report.summary()
    )


def test_an_audit_changes_nothing(folder, tmp_path):
    (folder / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(folder / "a" / "00.png", folder / "b" / "copy.png")
    before = hash_tree(folder)
    report = audit.scan(folder)
    audit.copy_clean(report, tmp_path / "clean")
    report.summary()
    assert hash_tree(folder) == before and len(before) == 14


# --- files that are no pictures -----------------------------------------------------------------


def truncated():
    content = io.BytesIO()
    make_picture(99).save(content, "JPEG")
    return content.getvalue()[:-600]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.jpg", truncated(), "truncated"),
        ("page.jpg", b"<!DOCTYPE html><title>404 Not Found</title>", "a web page"),
        ("notes.txt", b"ants to the left", "not a type that is read"),
        ("photo.raw", b"ftypheic", "not a type that is read"),
    ],
)
def test_a_file_that_is_no_picture_is_named_with_the_reason(folder, name, content, reason):
    path = folder / "b" / name
    path.write_bytes(content)
    report = audit.scan(folder)
    assert list(report.unusable) == [path] and reason in report.unusable[path]
    assert list(report.leave_out()) == [path]
    assert f"cannot be used: 1\n  b/{name}: " in report.summary()


def test_what_lies_outside_the_class_folders_is_reported_and_clutter_is_not(folder):
    (folder / "readme.md").write_text("mine")
    (folder / ".hidden").write_text("")
    (folder / "a" / "Thumbs.db").write_text("")
    assert audit.scan(folder).unusable == {folder / "readme.md": "in no class folder"}


@pytest.mark.skipif(sys.platform == "win32", reason="a folder there can always be listed")
def test_a_link_to_nowhere_is_unusable(folder):
    (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert audit.scan(folder).unusable == {folder / "a" / "gone.jpg": "no such file"}


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", ".jpg"), ("RGB", ".webp"), ("P", ".gif"), ("I;16", ".png")]
)
def test_unusual_formats_are_no_fault(folder, mode, suffix):
    image = make_picture(50)
    if mode == "I;16":  # 16-bit grey
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    path = save(image.convert(mode), folder / "a" / f"unusual{suffix}")
    report = audit.scan(folder)
    assert path in [picture.path for picture in report.pictures] and report.leave_out() == {}


# --- placeholders and odd sizes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_placeholder"),
    [
        ("imageNotFound.gif", True),
        ("photo_unavailable.jpg", True),
        ("no-image.png", True),
        ("PLACEHOLDER2.png", True),
        ("casino_photo.png", False),
        ("notebook.png", False),
    ],
)
def test_placeholders_are_known_by_their_names(folder, name, is_placeholder):
    path = save(make_picture(70), folder / "a" / name)
    assert (path in audit.scan(folder).placeholders) == is_placeholder


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("colour", ["black", "white", "#336699"])
def test_a_picture_of_one_colour_is_a_placeholder(folder, colour, suffix):
    path = save(Image.new("RGB", (80, 80), colour), folder / "a" / f"flat{suffix}")
    assert audit.scan(folder).placeholders == {path: "one flat colour"}


@pytest.mark.parametrize("times", [4, 5])
def test_a_picture_met_many_times_is_a_placeholder(folder, times):
    # As a site sends it for photos that are gone: other names, classes, and sometimes formats.
    for number in range(times):
        save(
            make_picture(80),
            folder / "ab"[number % 2] / f"lost{number}.{'png bmp'.split()[number % 2]}",
        )
    report = audit.scan(folder)
    if times == 5:
        assert set(report.placeholders.values()) == {"the same image 5 times"}
        assert report.copies == []
    else:
        assert report.placeholders == {} and len(report.copies) == 1
    assert len(report.leave_out()) == times  # among four, too, nobody knows which label is right


def test_odd_sizes_are_reported_and_stay(folder):
    small = save(make_picture(60, (63, 90)), folder / "a" / "small.png")
    long = save(make_picture(61, (80, 241)), folder / "a" / "long.png")
    save(make_picture(62, (64, 192)), folder / "a" / "just.png")
    report = audit.scan(folder)
    assert report.odd_sizes == {
        small: "63 x 90: under 64 pixels",
        long: "80 x 241: one side over 3 times the other",
    }
    assert report.leave_out() == {}


# --- copies -------------------------------------------------------------------------------------


def test_the_same_bytes_and_the_same_pixels(folder):
    shutil.copy(folder / "a" / "00.png", folder / "a" / "z.png")
    save(Image.open(folder / "b" / "01.png"), folder / "b" / "z.bmp")
    report = audit.scan(folder)
    assert groups(report) == [["a/00.png", "a/z.png"], ["b/01.png", "b/z.bmp"]]
    assert [audit.how(group) for group in report.copies] == ["same file", "same pixels"]
    assert report.leave_out() == {
        folder / "a" / "z.png": "copy of a/00.png, same file",
        folder / "b" / "z.bmp": "copy of b/01.png, same pixels",
    }


def test_a_picture_turned_by_its_exif_data_is_the_same_picture(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(make_picture(90), folder / "a" / "turned.jpg", exif=exif, quality=95)
    save(ImageOps.exif_transpose(Image.open(turned)), folder / "a" / "upright.png")
    assert groups(audit.scan(folder)) == [["a/turned.jpg", "a/upright.png"]]


COPIES = {
    "compressed": lambda image: (image, {"quality": 20}),
    "smaller": lambda image: (image.resize((70, 56), Image.Resampling.BILINEAR), {}),
    "larger": lambda image: (image.resize((300, 240)), {"quality": 60}),
    "darker": lambda image: (ImageEnhance.Brightness(image).enhance(0.7), {}),
    "grey": lambda image: (image.convert("L"), {}),
    "mirrored": lambda image: (ImageOps.mirror(image), {}),
}


@pytest.mark.parametrize("change", COPIES)
def test_near_copies_are_found_and_nothing_else(folder, change):
    for seed in (3, 8):
        image, options = COPIES[change](make_picture(seed))
        save(image, folder / "ab"[seed % 2] / f"{seed:02}z.jpg", **options)
    report = audit.scan(folder)
    assert sorted(map(sorted, groups(report))) == [
        ["a/08.png", "a/08z.jpg"],
        ["b/03.png", "b/03z.jpg"],
    ]
    assert {audit.how(group) for group in report.copies} == {"nearly the same"}
    kept = "b/03z.jpg" if change == "larger" else "b/03.png"
    assert kept not in names(report, report.leave_out())


def test_real_charts_look_alike_and_are_no_copies(tmp_path):
    pies = sorted((CHARTS / "train" / "pie").iterdir()) + sorted((CHARTS / "val" / "pie").iterdir())
    for number, path in enumerate(pies):
        save(Image.open(path), tmp_path / "photos" / "pie" / f"{number}.png")
        if number % 7 == 0:
            image = data_setup.load_image(path).resize((100, 100))
            save(image, tmp_path / "photos" / "pie" / f"{number}-small.jpg", quality=50)
    report = audit.scan(tmp_path / "photos")
    assert sorted(map(sorted, groups(report))) == sorted(
        [f"pie/{number}-small.jpg", f"pie/{number}.png"] for number in range(0, 70, 7)
    )


def test_three_copies_make_one_group(folder):
    save(make_picture(0), folder / "a" / "x.jpg", quality=40)
    save(make_picture(0).resize((60, 48)), folder / "a" / "y.png")
    assert [sorted(group) for group in groups(audit.scan(folder))] == [
        ["a/00.png", "a/x.jpg", "a/y.png"]
    ]


def test_copies_with_different_labels_are_all_left_out(folder):
    shutil.copy(folder / "a" / "02.png", folder / "b" / "z.png")
    report = audit.scan(folder)
    assert report.leave_out() == {
        folder / "a" / "02.png": "copies, same file, in a and b",
        folder / "b" / "z.png": "copies, same file, in a and b",
    }
    assert "  same file, in a and b: a/02.png = b/z.png\n" in report.summary()


def test_a_copy_in_two_splits_stays_in_the_one_for_testing(folder, tmp_path):
    for split, seeds in {"train": (0, 1), "valid": (2, 3), "test": (4, 5)}.items():
        for seed in seeds:
            save(make_picture(seed), tmp_path / "set" / split / "ab"[seed % 2] / f"{seed}.png")
    save(make_picture(4, (240, 192)), tmp_path / "set" / "train" / "a" / "large.png")
    save(make_picture(3), tmp_path / "set" / "train" / "b" / "leak.jpg")
    report = audit.scan(tmp_path / "set")
    assert set(names(report, report.leave_out())) == {"train/a/large.png", "train/b/leak.jpg"}
    text = report.summary()
    assert "nearly the same, in test and train: test/a/4.png = train/a/large.png" in text
    assert "nearly the same, in train and val: valid/b/3.png = train/b/leak.jpg" in text
    assert "   train    val   test\na      2      1      1\nb      2      1      1\n" in text


def test_similar_pairs_are_those_of_all_cosines():
    rng = np.random.default_rng(0)
    vectors, others = rng.normal(size=(2, 1100, 6))
    vectors[7] = 0  # similar to nothing
    for right in (None, others):
        second = vectors if right is None else right
        lengths = np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(second, axis=1))
        cosines = vectors @ second.T / np.where(lengths == 0, 1, lengths)
        expected = {(i, j) for i, j in np.argwhere(cosines >= 0.95).tolist() if i < j}
        found = audit.similar_pairs(vectors, 0.95, right)
        assert set(map(tuple, found.tolist())) == expected and len(found) == len(expected) > 100
        assert set(found[:, 0] // 1024) == {0, 1}
    assert audit.similar_pairs(np.eye(3), 0.5).shape == (0, 2)


def test_the_second_half_of_a_hash_is_that_of_the_mirror_image():
    image = make_picture(5)
    there, back = audit.difference_hash(image), audit.difference_hash(ImageOps.mirror(image))
    assert there.shape == (2, 512) and set(np.unique(there)) <= {-1, 0, 1}
    assert (there[0] != back[1]).mean() < 0.02 and (there[0] != back[0]).mean() > 0.3
    assert not audit.difference_hash(Image.new("RGB", (50, 50), "red")).any()


# --- labels -------------------------------------------------------------------------------------


def test_wrong_labels_come_first():
    rng = np.random.default_rng(1)
    truth = np.arange(150) % 3
    features = np.eye(3)[truth] @ rng.normal(size=(3, 20)) * 2 + rng.normal(size=(150, 20))
    labels, wrong = truth.copy(), rng.choice(150, 8, replace=False)
    labels[wrong] = (truth[wrong] + 1) % 3
    order, probabilities = audit.suspicious_labels(features, labels)
    assert sorted(order) == list(range(150)) and set(wrong) <= set(order[:10])
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[wrong].argmax(axis=1) == truth[wrong]).mean() > 0.8


def test_no_picture_is_judged_by_a_probe_that_learned_from_it():
    # 200 features of pure noise for 60 pictures: what was learned from is known by heart.
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.arange(60) % 2)
    _, probabilities = audit.suspicious_labels(rng.normal(size=(60, 200)), labels)
    assert probabilities[np.arange(60), labels].mean() < 0.6


def test_labels_of_a_class_with_one_picture_cannot_be_judged():
    with pytest.raises(ValueError, match="fewer than 2 images"):
        audit.suspicious_labels(np.eye(5), [0, 0, 1, 1, 2])
    order, _ = audit.suspicious_labels(np.eye(6), [0, 0, 1, 1, 2, 2])  # fewer than five folds
    assert len(order) == 6


# --- the cleaned copy and the command line -------------------------------------------------------


def test_the_cleaned_copy_holds_what_stays_and_loads_without_a_warning(folder, tmp_path):
    (folder / "a" / "page.jpg").write_text("<html>")
    shutil.copy(folder / "a" / "00.png", folder / "a" / "z.png")
    save(make_picture(40), folder / "b" / "deeper" / "40.png")
    clean = audit.copy_clean(audit.scan(folder), tmp_path / "new" / "clean")
    expected = {path.relative_to(folder) for path in folder.rglob("*.png")} - {Path("a/z.png")}
    assert {path.relative_to(clean) for path in clean.rglob("*") if path.is_file()} == expected
    for path in expected:
        assert (clean / path).read_bytes() == (folder / path).read_bytes()
    assert list(clean.parent.iterdir()) == [clean]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = data_setup.load(clean)
    assert len(splits.train) + len(splits.val) + len(splits.test) == 13


@pytest.mark.parametrize("place", ["photos", "photos/clean"])
def test_a_copy_goes_to_a_new_folder_outside(folder, tmp_path, place):
    before = hash_tree(tmp_path)
    with pytest.raises(FileExistsError, match="give a new folder"):
        audit.copy_clean(audit.scan(folder), tmp_path / place)
    assert hash_tree(tmp_path) == before


def test_the_command_prints_a_report_and_copies(folder, tmp_path, capsys):
    for number in range(12):
        (folder / "a" / f"page{number:02}.jpg").write_text("<html>")
    assert audit.main([str(folder), "--copy-to", str(tmp_path / "clean")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{folder}: 24 files, 12 of them can be read\n")
    assert "cannot be used: 12\n  a/page00.jpg: a web page, an SVG drawing or other" in printed
    assert "page09" in printed and "page10" not in printed and "  and 2 more\n" in printed
    assert "to leave out: 12 files; 12 images stay\n" in printed
    assert f"\ncopied to {tmp_path / 'clean'}\n" in printed
    assert audit.main([str(folder), "--all"]) == 0
    assert "page11" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 3])
def test_a_folder_without_pictures_is_reported(tmp_path, capsys, number):
    (tmp_path / "empty").mkdir()
    for text in range(number):
        (tmp_path / "empty" / f"{text}.txt").write_text("")
    assert audit.main([str(tmp_path / "empty")]) == 1
    printed = capsys.readouterr().out
    assert f"{number} files, 0 of them can be read" in printed
    assert "\ntrain      would refuse: " in printed


@pytest.mark.parametrize("make", ["nothing", "a file", "val without train"])
def test_what_cannot_be_looked_at_is_an_error(tmp_path, capsys, make):
    path = tmp_path / "data"
    if make == "a file":
        path.write_text("")
    if make == "val without train":
        (path / "val" / "a").mkdir(parents=True)
    assert audit.main([str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("audit: error: ")


@pytest.mark.parametrize("similarity", ["-1", "0", "1.1", "nan", "much"])
def test_a_similarity_that_cannot_be_is_refused(folder, capsys, similarity):
    with pytest.raises(SystemExit):
        audit.main([str(folder), "--nearly", similarity])
    assert "is not a number above 0, and at most 1" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot exist there")
def test_names_cannot_steer_the_terminal(folder, capsys):
    shutil.copy(folder / "a" / "00.png", folder / "a" / "\x1b[2Jx\ny.png")
    shutil.copytree(folder / "b", folder / "\x1b]0;c\a")
    assert audit.main([str(folder), "--all"]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "a/\\x1b[2Jx\\ny.png" in printed and "\\x1b]0;c\\x07" in printed


def layouts(folder):
    """Yield odd layouts of the same images, made in place one after another."""
    yield "as it is"
    wrapper = folder.parent / "wrapper"
    wrapper.mkdir()
    folder.rename(wrapper / "photos")
    yield "inside another folder"
    (wrapper / "photos").rename(folder)
    for path in sorted((folder / "b").iterdir())[1:]:
        path.unlink()
    yield "one image of a class"
    for path in (folder / "b").iterdir():
        path.write_text("<html>")
    yield "none of a class can be read"
    (folder / "a").rename(folder / "test")
    yield "a class named like a split"


def test_audit_and_train_agree(folder, tmp_path, capsys):
    for name in layouts(folder):
        data = folder.parent / "wrapper" if name == "inside another folder" else folder
        code = audit.main([str(data)])
        printed = capsys.readouterr().out
        options = ["--data", str(data), "--size", "32", "--epochs", "1", "--device", "cpu"]
        options += ["--strategy", "feature_extraction", "--out", str(tmp_path / name)]
        assert train.main(options) == code, name
        error = capsys.readouterr().err
        if code:
            reason = error.partition("train: error: ")[2].strip()
            assert reason and f"would refuse: {reason}" in printed, name
        else:
            assert "train      would begin, with " in printed
