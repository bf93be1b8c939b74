"""The embedded data set: what its card promises of the committed pictures, and how they are drawn.

`python -m pytest tests/test_charts.py -s -k easy` prints the figures that the card quotes.
"""

import hashlib
import io
import json
from collections import Counter

import draw_charts as charts
import numpy as np
import pytest
from PIL import Image, ImageStat
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RECORD = json.loads((charts.DEFAULT_DIR / charts.RECORD).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pictures():
    """Read every committed picture: {split: [(class name, path, RGB image)]}."""
    return {
        split: [
            (path.parent.name, path, Image.open(path).convert("RGB"))
            for path in sorted((charts.DEFAULT_DIR / split).glob("*/*.png"))
        ]
        for split in charts.COUNTS
    }


def thumbnails(split, mode, side):
    """Return (N, values) in [0, 1]."""
    small = [image.resize((side, side), Image.Resampling.BOX).convert(mode) for *_, image in split]
    return np.array([np.asarray(image, dtype=np.float32).ravel() / 255 for image in small])


def test_every_class_has_its_pictures_and_nothing_else_is_there(pictures):
    for split, count in charts.COUNTS.items():
        counted = Counter(name for name, *_ in pictures[split])
        assert counted == dict.fromkeys(charts.CLASS_NAMES, count)
    files = [path for path in charts.DEFAULT_DIR.rglob("*") if path.is_file()]
    assert len(files) == 12 * sum(charts.COUNTS.values()) + 1  # and the record
    assert sum(path.stat().st_size for path in files) <= 6_000_000


def test_shifted_styles_are_spread_evenly(pictures):
    styles = Counter((name, path.stem.split("_")[1]) for name, path, _ in pictures["shifted"])
    expected = charts.COUNTS["shifted"] // len(charts.SHIFTED_STYLES)
    assert len(styles) == 12 * len(charts.SHIFTED_STYLES)
    assert set(styles.values()) == {expected}


def test_a_centre_crop_keeps_most_of_a_picture(pictures):
    for split in pictures.values():
        for _, path, image in split:
            assert 144 <= min(image.size) <= 176, path
            assert max(image.size) <= 1.16 * min(image.size), path


def test_no_picture_is_repeated(pictures):
    seen = {}
    for split in pictures.values():
        for _, path, image in split:
            digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
            assert digest not in seen, f"{path} repeats {seen[digest]}"
            seen[digest] = path


def test_no_picture_has_a_near_duplicate_in_another_split(pictures):
    """Compare small thumbnails: they forget size and coding, so that copies would lie close."""
    values = {split: thumbnails(images, "RGB", 32) for split, images in pictures.items()}
    splits = list(values)
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            a, b = values[first], values[second]
            squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
            distance = np.sqrt(np.maximum(squared, 0) / a.shape[1])  # root mean square, in [0, 1]
            row, column = np.unravel_index(distance.argmin(), distance.shape)
            pair = pictures[first][row][1], pictures[second][column][1]
            assert distance.min() > 0.02, pair


def accuracy_on_test(features, pictures):
    """Fit logistic regression to the features of train and return its accuracy on test."""
    labels = {split: [name for name, *_ in pictures[split]] for split in ("train", "test")}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features(pictures["train"]), labels["train"])
    return model.score(features(pictures["test"]), labels["test"])


def size_and_color(split):
    return np.array([[*image.size, *ImageStat.Stat(image).mean] for *_, image in split])


def size_color_and_bytes(split):
    file_size = np.log([[path.stat().st_size] for _, path, _ in split])
    return np.hstack([size_and_color(split), file_size])


@pytest.mark.parametrize(
    ("name", "features", "limit"),
    [
        ("size and mean colour", size_and_color, 0.20),
        ("size, mean colour and file size", size_color_and_bytes, 0.30),
        ("16x16 colour thumbnail", lambda split: thumbnails(split, "RGB", 16), 0.60),
        ("16x16 grey thumbnail", lambda split: thumbnails(split, "L", 16), 0.60),
    ],
)
def test_no_easy_feature_names_the_class(pictures, name, features, limit):
    accuracy = accuracy_on_test(features, pictures)
    print(f"\n{name}: {accuracy:.1%} on test, below {limit:.0%}")
    assert accuracy < limit


def redrawn(split, class_name, index):
    """Draw one picture and encode it as `write_all` does, with the committed seed."""
    return charts.encode(charts.draw(split, class_name, index, RECORD["seed"]))


@pytest.mark.parametrize("position", range(12))
def test_drawing_again_gives_the_same_picture(position):
    """One picture of each class; the shifted ones take another style each."""
    class_name = charts.CLASS_NAMES[position]
    split = list(charts.COUNTS)[position % 4]
    drawn = redrawn(split, class_name, position)
    if all(RECORD[key] == value for key, value in charts.versions().items()):
        path = charts.DEFAULT_DIR / split / class_name / charts.file_name(split, position)
        expected = np.asarray(Image.open(path).convert("RGB"))
    else:  # other versions may draw other pixels; the same version never does
        expected = np.asarray(
            Image.open(io.BytesIO(redrawn(split, class_name, position))).convert("RGB")
        )
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")), expected
    )


def test_drawing_ignores_the_users_settings():
    """Neither rcParams nor the global random state reach a picture, and none is changed."""
    import matplotlib

    plain = charts.draw("train", "line", 3)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "font.size": 20}):
        before = dict(matplotlib.rcParams)
        np.random.seed(1)
        custom = charts.draw("train", "line", 3)
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(custom))


@pytest.mark.parametrize("split", charts.COUNTS)
def test_another_seed_draws_another_picture(split):
    assert charts.draw(split, "pie", 0, 1).tobytes() != charts.draw(split, "pie", 0, 2).tobytes()


@pytest.fixture
def few(monkeypatch):
    """Let a whole data set be 24 pictures."""
    monkeypatch.setattr(charts, "COUNTS", {"train": 1, "val": 1})
    monkeypatch.setattr(charts, "CLASS_NAMES", ["bar", "line"])
    monkeypatch.setattr(charts.os, "cpu_count", lambda: 1)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_command_draws_the_same_bytes_twice_and_leaves_nothing_beside(few, tmp_path):
    for name in ("first", "second"):
        charts.main(["--out", str(tmp_path / name)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert len(contents(tmp_path / "first")) == 2 * 2 + 1
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_command_overwrites_only_on_request(few, tmp_path):
    out = tmp_path / "charts"
    charts.main(["--out", str(out), "--seed", "1"])
    before = contents(out)
    with pytest.raises(SystemExit, match="--overwrite"):
        charts.main(["--out", str(out), "--seed", "2"])
    assert contents(out) == before
    charts.main(["--out", str(out), "--seed", "2", "--overwrite"])
    assert contents(out).keys() == before.keys()
    assert contents(out) != before


def test_command_never_replaces_a_folder_it_did_not_draw(few, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="not drawn by this command"):
        charts.main(["--out", str(tmp_path / "mine"), "--overwrite"])
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
