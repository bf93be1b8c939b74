# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · Practise looking at a folder before you train on it

# %%
import hashlib
import io
import random
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from going_modular import data_setup, engine, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# The first three exercises make small files and images of their own. The last one needs features:
# 40 charts of each of six kinds, at 64 pixels, class by class as a folder lists them.

# %%
splits = data_setup.load("charts")
kinds = ["bar", "box", "histogram", "line", "pie", "scatter"]
few = splits.train.few(40).samples
paths = sorted(path for path, label in few if splits.class_names[label] in kinds)
samples = [(path, kinds.index(path.parent.name)) for path in paths]
network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 6))
transform = data_setup.create_transform("efficientnet_lite0", size=64)
dataloader = data_setup.create_dataloader(data_setup.ImageDataset(samples, kinds), transform)
extracted = engine.extract_features(network, dataloader, device, dtype=torch.float32)
features, truth = (tensor.numpy() for tensor in extracted.tensors)
print("features:", features.shape, "classes:", len(kinds))

# %% [markdown]
# ## Exercise 1 · Has the test been in training?
#
# Write `leaked`, which returns the test files that are also in training, byte for byte. File names do
# not matter. `train` and `test` are lists of paths.
#
# <details><summary>Hint</summary>
#
# `path.read_bytes()` gives the whole content of a file. Put the contents of the training files into a
# set; then each test file is one look-up. `hashlib.sha256(...).digest()` keeps the set small, however
# large the files are.
# </details>

# %%
def leaked(train, test):
    """Return the paths of `test` that have the same bytes as a file of `train`, as a list."""
    # solution
    known = {hashlib.sha256(path.read_bytes()).digest() for path in train}
    return [path for path in test if hashlib.sha256(path.read_bytes()).digest() in known]
    # student
    # raise NotImplementedError
    # end of solution

# %%
def write_files(folder):
    """Write some small files; return the training and the test paths."""
    about = {
        "train": {"1": "a bee", "2": "an ant", "3": "a wasp", "4": "an ant and a leaf"},
        "test": {"1": "a firefly", "5": "an owl", "6": "an ant and a bird", "7": "a moth",
                 "8": "a moth", "9": "a wasp"},
    }
    for split, contents in about.items():
        (folder / split).mkdir()
        for name, content in contents.items():
            (folder / split / f"{name}.jpg").write_bytes(content.encode())
    return sorted(folder.glob("train/*")), sorted(folder.glob("test/*"))


folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
with folder as name, marks.exercise(1, leaked=leaked):
    found = leaked(*write_files(Path(name)))
    assert isinstance(found, (list, tuple, set)), f"return a list of paths, not {found!r}"
    names = sorted(Path(path).name for path in found)
    assert names != ["1.jpg", "2.jpg", "3.jpg", "4.jpg"], "you return the files of `train`"
    for name, why in {
        "1.jpg": "has only its name in common with a training file",
        "5.jpg": "has only its size in common with a training file",
        "6.jpg": "begins like a training file, but continues differently",
        "8.jpg": "is the same as 7.jpg, but both are test files",
    }.items():
        assert name not in names, f"your list has {name}, which {why}"
    assert "9.jpg" in names, "9.jpg is training's 3.jpg under another name, and it is not in your list"
    assert names == ["9.jpg"], f"only 9.jpg is also in training; your list is {names}"

# %% [markdown]
# ## Exercise 2 · Each bird on one side only
#
# Each ringed bird was photographed several times, and photos of one bird look alike. `birds` holds
# one name per photo. Write `choose_test`, which returns the positions of the test photos: about
# `share` of all photos (0.1 more or less does not matter), with no bird on both sides. The same
# `seed` must give the same choice, even in a new Python session.
#
# <details><summary>Hint</summary>
#
# Shuffle the birds, not the photos: `random.Random(seed).shuffle(names)`. A `set` of strings has
# another order in each Python session; `sorted` gives the same order every time.
# </details>

# %%
def choose_test(birds, share, seed):
    """Return the positions in `birds` of the photos to test on."""
    # solution
    names = sorted(set(birds))
    random.Random(seed).shuffle(names)
    chosen = set(names[: round(share * len(names))])
    return [position for position, bird in enumerate(birds) if bird in chosen]
    # student
    # raise NotImplementedError
    # end of solution

# %%
class Name(str):
    """A string whose hash differs in each Python session, as that of every string does."""

    session = 1

    def __hash__(self):
        return zlib.crc32(f"{Name.session} {self}".encode())


with marks.exercise(2, choose_test=choose_test):
    photos = np.random.default_rng(0).integers(1, 10, 200)
    birds = [Name(f"ring {i:03}") for i, number in enumerate(photos) for _ in range(number)]
    chosen = list(choose_test(birds, 0.25, seed=0))
    assert not {bool, np.bool_} & set(map(type, chosen)), "return positions, not yes or no"
    chosen = sorted(int(position) for position in chosen)
    assert len(set(chosen)) == len(chosen), "some photos are chosen twice"
    both = {birds[i] for i in chosen} & {birds[i] for i in {*range(len(birds))} - {*chosen}}
    assert not both, f"{len(both)} of 200 birds are on both sides, such as {min(both)!r}"
    part = len(chosen) / len(birds)
    assert abs(part - 0.25) <= 0.1, f"{part:.2f} of the photos are chosen; it should be about 0.25"
    part = len(list(choose_test(birds, 0.5, seed=0))) / len(birds)
    assert abs(part - 0.5) <= 0.1, f"with share=0.5, {part:.2f} of the photos are chosen"
    assert sorted(choose_test(birds, 0.25, seed=1)) != chosen, "two seeds give the same choice"
    again = sorted(choose_test(birds, 0.25, seed=0))
    assert again == chosen, "the same seed gives another choice the second time: use it"
    Name.session += 1
    again = sorted(choose_test([Name(bird) for bird in birds], 0.25, seed=0))
    assert again == chosen, (
        "in a new Python session the same seed gives another choice: does it depend on the order "
        "of a set, or on `hash`?"
    )

# %% [markdown]
# ## Exercise 3 · Describe how an image looks
#
# Write `look`, which describes an image by yes-or-no values (or 1 and 0): at least 32 of them, and
# equally many for every image. If one image is a copy of another, only smaller, darker, grey or
# compressed, at least 90% of their values must agree. For two different images fewer must agree. An
# image and its mirror image count as different here: an arrow to the left is not one to the right.
#
# <details><summary>Hint</summary>
#
# Make it grey and tiny, `image.convert("L").resize((9, 8))`, and turn it into an array. Is each value
# larger than its neighbour's? The answer stays the same when all values get darker.
# </details>

# %%
def look(image):
    """Return an array of yes and no, of the same length for every image (PIL)."""
    # solution
    grey = np.asarray(image.convert("L").resize((9, 8)), np.int16)
    return (grey[:, 1:] > grey[:, :-1]).ravel()
    # student
    # raise NotImplementedError
    # end of solution

# %%
def draw(seed):
    """Return an image of soft, noisy patches."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(50, 190, (5, 6, 3), np.uint8)).resize((200, 160))
    noisy = np.asarray(patches, float) + rng.normal(0, 12, (160, 200, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def compress(image):
    image.save(file := io.BytesIO(), "JPEG", quality=30)
    return Image.open(file)


def agree(image, copy):
    """Return which share of the values of two images agree."""
    rows = [np.asarray(look(version)).ravel() for version in (image, copy)]
    assert len(rows[0]) == len(rows[1]), (
        f"an image ({image.mode}, {image.width} x {image.height}) gives {len(rows[0]):,} values, "
        f"and its copy ({copy.mode}, {copy.width} x {copy.height}) gives {len(rows[1]):,}: first "
        "make every image grey and bring it to one size"
    )
    return np.mean(rows[0] == rows[1])


with marks.exercise(3, look=look):
    images = [draw(seed) for seed in range(8)]
    values = np.asarray(look(images[0])).ravel()
    assert len(values) >= 32, f"{len(values)} values are too few: give at least 32"
    different = len(np.unique(values))
    assert different <= 2, f"your array holds {different} different values: ask for yes or no"
    for what, change, why in [
        ("smaller", lambda image: image.resize((75, 60)), "bytes and size must not matter"),
        ("darker", lambda image: ImageEnhance.Brightness(image).enhance(0.6),
         "compare with a neighbour, or with the mean, not with a fixed number"),
        ("grey", ImageOps.grayscale, "make every image grey first"),
        ("compressed", compress, "many pixels together change less than one"),
    ]:
        share = min(agree(image, change(image)) for image in images)
        assert share >= 0.9, f"for a {what} copy, only {share:.0%} of the values agree: {why}"
    share = max(agree(image, ImageOps.mirror(image)) for image in images)
    assert share < 0.9, (
        f"for a mirrored image, {share:.0%} of the values agree: left and right must matter"
    )
    share = max(agree(a, b) for i, a in enumerate(images) for b in images[:i])
    assert share < 0.9, f"for two different images, {share:.0%} of the values agree"
    print(f"{len(values)} values; for two different images, at most {share:.0%} agree")

# %% [markdown]
# ## Exercise 4 · Where should a person look first?
#
# Some labels of a folder are wrong. Write `rank_labels`, which returns all positions, the most
# suspicious label first. `features` is (N, F) and `labels` is (N,), both NumPy arrays; `make_probe()`
# gives a new scikit-learn classifier. The check makes 24 of 240 labels wrong, and expects at least 16
# of them among your first 36.
#
# <details><summary>Hint</summary>
#
# A label is suspicious if a probe finds it improbable. A probe that learned from a label tends to
# trust it, right or wrong: the next cell prints an example. So let each image be judged by a probe
# that learned from others: `cross_val_predict(..., cv=..., method="predict_proba")`. The images come
# class by class, and each fold needs some of every class: `StratifiedKFold(5)`.
# </details>

# %%
def make_probe():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))


probe = make_probe().fit(features, truth)
print("what it says about an image that it learned from:", probe.predict_proba(features[:1]).round(2))

# %%
def rank_labels(features, labels):
    """Return all positions, the most suspicious label first."""
    # solution
    options = {"cv": StratifiedKFold(5), "method": "predict_proba"}
    probabilities = cross_val_predict(make_probe(), features, labels, **options)
    return probabilities[np.arange(len(labels)), labels].argsort()
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, rank_labels=rank_labels):
    rng, labels = np.random.default_rng(0), truth.copy()
    wrong = rng.choice(240, 24, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 6, 24)) % 6
    order = np.asarray(rank_labels(features, labels.copy())).ravel()
    assert sorted(order) == list(range(240)), "return each position from 0 to 239 just once"
    found, found_last = np.isin(order[:36], wrong).sum(), np.isin(order[-36:], wrong).sum()
    said = f"of the 24 wrong labels, {found} are among your first 36"
    assert found_last < 16, f"{said}, and {found_last} among the last 36: reverse the order"
    seen = make_probe().fit(features, labels).predict_proba(features)
    trusting = seen[np.arange(240), labels].argsort()[:36]
    assert found >= 16 or np.isin(order[:36], trusting).sum() < 30, (
        f"{said}: here the probe that judges a label has learned from it"
    )
    assert found >= 16, (
        f"{said}: how improbable is the given label, for a probe that knows all classes and has "
        "not learned from this image?"
    )
    print(said)
