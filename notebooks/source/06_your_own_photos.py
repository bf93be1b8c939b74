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
# # 06 · Train on your own photos
#
# So far the data were clean. A real folder is not: one `.jpg` is really a web page, one photo is
# there three times, and a bee lies among the ants. This lesson takes such a folder and goes all the
# way to a model that you can use.
#
# **You will**
# - find unusable files, placeholders and copies, and split the rest without a leak;
# - find wrong labels with a model's help, and measure what correcting them brings;
# - save the model, load it, export it, and classify a new image.
#
# **You need** notebook 02 (features, probe), and the decision guide at the end of notebook 05.
#
# **Time** about a minute on a 2-core CPU.

# %%
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch.utils.data import DataLoader, TensorDataset

from going_modular import audit, data_setup, engine, evaluation, export, model_builder, train, utils
from going_modular.predict import classify

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A messy folder
#
# So that this page runs anywhere, it makes a messy folder of its own: charts of six kinds, each kind
# in its folder, with about 10% of the images put into a wrong one. `truth` remembers where each
# image belongs; no real folder does that. (The charts' own test split stays closed.)
#
# Then it adds what real folders also hold: copies, files that are not images, and placeholders for
# images that are gone. Three charts become a WebP, a CMYK JPEG and a JPEG stored upside down. These
# are unusual, but nothing is wrong with them. The code is folded; open it if you like.


# %%
# @title Make the messy folder
def make_folder(folder):
    """Copy 70 charts of each class, 10% of them to a wrong class; return {path: right class}."""
    charts, rng, truth = data_setup.DATA_SETS["charts"], random.Random(0), {}
    classes = ["bar", "box", "histogram", "line", "pie", "scatter"]
    for name in classes:
        (folder / name).mkdir(parents=True)
    for name in classes:
        paths = [*charts.glob(f"train/{name}/*.png"), *charts.glob(f"val/{name}/*.png")]
        others = [other for other in classes if other != name]
        for path in sorted(paths):
            label = rng.choice(others) if rng.random() < 0.1 else name
            copy = f"{label}/{len(truth):03}.png"
            shutil.copy(path, folder / copy)
            truth[copy] = name
    return truth


def add_copies(folder):
    """Copy bar charts with a change each, one to another class; store three in other formats."""
    bars = sorted((folder / "bar").iterdir())[:12]
    images = [data_setup.load_image(path) for path in bars]
    shutil.copy(bars[0], folder / "bar" / "same.png")
    shutil.copy(bars[1], folder / "line" / "in two classes.png")
    images[2].save(folder / "bar" / "saved again.jpg", quality=40)
    images[3].resize((90, 90)).save(folder / "bar" / "small.png")
    images[4].resize((400, 400)).save(folder / "bar" / "large.webp")
    ImageOps.mirror(images[5]).save(folder / "bar" / "mirrored.png")
    ImageOps.grayscale(images[6]).save(folder / "bar" / "grey.jpg")
    ImageEnhance.Brightness(images[7]).enhance(0.7).save(folder / "bar" / "dark.png")
    turned = Image.Exif()
    turned[0x0112] = 3  # the tag that cameras write when they are held upside down
    images[8].rotate(180).save(bars[8].with_suffix(".jpg"), exif=turned)
    images[9].convert("CMYK").save(bars[9].with_suffix(".jpg"))
    images[10].save(bars[10].with_suffix(".webp"))
    for path in bars[8:11]:
        path.unlink()


def add_faults(folder):
    """Add files that are not images, and images that show nothing."""
    page = "<!DOCTYPE html><title>404 Not Found</title>"
    (folder / "pie" / "download.jpg").write_text(page)
    (folder / "pie" / "notes.txt").write_text("ask Mia for more pies")
    (folder / "box" / "empty.png").touch()
    whole = folder / "box" / "whole.jpg"
    Image.effect_noise((150, 150), 80).save(whole)
    (folder / "box" / "cut off.jpg").write_bytes(whole.read_bytes()[:2000])
    whole.unlink()
    for color in ("white", "navy"):
        Image.new("RGB", (150, 150), color).save(folder / "scatter" / f"{color}.png")
    lost = Image.new("RGB", (150, 100), "lightgrey")
    ImageDraw.Draw(lost).text((20, 40), "no longer online", fill="black")
    for class_folder in folder.iterdir():
        lost.save(class_folder / "photo.jpg")
    lost.crop((0, 0, 120, 90)).save(folder / "histogram" / "imageNotFound.gif")


# %% [markdown]
# **To use your own images, change the first line of the next cell**, and nothing else. Your folder
# holds one folder per class, or `train`, `val` and `test` with such folders inside. The notebook
# only reads it.

# %%
FOLDER = None  # or FOLDER = "path/to/my photos"

if made_here := FOLDER is None:
    temporary = tempfile.TemporaryDirectory()  # goes away with the notebook
    FOLDER, work = Path(temporary.name, "messy"), Path(temporary.name, "work")
    truth = make_folder(FOLDER)
    add_copies(FOLDER)
    add_faults(FOLDER)
else:
    truth = {}  # to be filled in, by path: truth["ant/IMG_0412.jpg"] = "bee"
    FOLDER, runs = Path(FOLDER).expanduser(), Path("runs").absolute()
    runs.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{FOLDER.name}-", dir=runs))
    print("results go to", work)
print(sum(path.is_file() for path in FOLDER.rglob("*")), "files")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Look before you train
#
# `audit.scan` opens every file and changes none. On the command line it is `python -m
# going_modular.audit FOLDER`.
#
# **Predict:** nearly all of these files open as images. How many should you still not train on?

# %%
report = audit.scan(FOLDER)
print(report.summary())

# %% [markdown]
# Only four files cannot be used at all; the others to leave out open without trouble. A
# **placeholder** is what a website sends when a photo is gone. *Same file* means equal bytes. *Nearly
# the same* means an equal **difference hash**, or nearly so: the image is shrunk to a small grid, and
# the hash notes where the grid gets lighter and where darker. It survives another size, compression
# or brightness, and the audit also tries the mirror image. It does not find a crop, or another photo
# of the same scene. The three unusual formats stay: `load_image` reads them as upright RGB.

# %% alt="Pairs of bar charts, the original above and its copy below: the same file, saved again, smaller, larger, mirrored." slideshow={"slide_type": "subslide"}
pairs = [group[:2] for group in report.copies[:6]]
if pairs:
    both = [pair[side].path for side in (0, 1) for pair in pairs]
    images = [data_setup.load_image(path) for path in both]
    utils.plot_images(images, [path.name for path in both], columns=len(pairs))
print(f"{len(pairs)} of {len(report.copies)} groups of copies")

# %% [markdown]
# Each column shows an image and, below it, its copy. Look at the pairs before you believe them: two
# simple drawings can have nearly the same hash.
#
# The worst place for a copy is the test split, with its twin in training: the test then asks a
# question whose answer the model was given. `data_setup.load` keeps identical files in one split.
# Let's split the messy folder as it is.
#
# **Predict:** is that enough to keep all copies together?


# %%
def straddling(report, splits):
    """List the groups of copies that are in more than one split: what the copies share."""
    where = {
        path: part for part in (splits.train, splits.val, splits.test) for path, _ in part.samples
    }
    found = [(group, {where[p.path] for p in group if p.path in where}) for group in report.copies]
    return [audit.how(group) for group, parts in found if len(parts) > 1]


with warnings.catch_warnings(record=True) as caught:  # load warns of unusable files
    warnings.simplefilter("always")
    naive = data_setup.load(FOLDER)
found = straddling(report, naive)
print(f"{len(found)} of {len(report.copies)} groups straddle splits:", "; ".join(found))

# %% [markdown]
# No. Identical files stayed together, but a copy with other bytes is another file to `load`. So clean
# first, then split. `copy_clean` writes a cleaned *copy*; your folder stays as it is. It keeps the
# largest image of each group. Where the copies lie in two classes it keeps none, as only a person
# can say which class is right.

# %% alt="One training image of each of the six classes, with the label that its folder gives."
clean = audit.copy_clean(report, work / "clean")
again = audit.scan(clean)
splits = data_setup.load(clean)
class_names = splits.class_names
print(f"{len(report.leave_out())} files left out, {len(again.pictures)} images stay")
print(splits.summary().split("\n", 1)[1])
shown = splits.train.few(1).samples[:12]
images = [data_setup.load_image(path) for path, _ in shown]
utils.plot_images(images, [class_names[label] for _, label in shown])

# %%
# @title Checks: what this section says
assert not again.leave_out()
if made_here:
    assert len(report.unusable) == 4 and len(report.placeholders) == 9 and len(report.copies) == 8
    assert not {f"{number:03}" for number in (8, 9, 10)} & {p.stem for p in report.leave_out()}
    assert found and caught and not any(text.startswith("same file") for text in found)

# %% [markdown] slideshow={"slide_type": "slide"}
# One training image of each class, with the label that its folder gives. From here on, look only at
# training and validation images.
#
# ## Train: the probe first
#
# Charts are far from ImageNet's photos, and we have few labels. Notebook 05's guide then says: train
# a probe, a new head on the frozen network, and after it the last blocks too (`partial`). On photos
# you would often stop at the probe. Both use the settings of `python -m going_modular.train`. Large
# images are shown to the model at the size of its pretraining, small ones at less.

# %%
short_side = statistics.median(min(picture.size) for picture in again.pictures)
size = None if short_side >= 224 else 128
transform = data_setup.create_transform("efficientnet_lite0", size=size)
print(f"shorter side {short_side:.0f} pixels; the model sees {transform.crop_size[0]}")

# %% [markdown]
# The model sees a square. What becomes of an image that is longer? Here is the longest training image,
# in three ways.


# %% alt="The longest training image as it is, and as the model sees it: with its ends cut off, squeezed into a square, and with bars beside it." slideshow={"slide_type": "subslide"}
def as_seen(image, resize):
    square = data_setup.create_transform("efficientnet_lite0", size=size, resize=resize)(image)
    return ((square * 0.5 + 0.5) * 255).byte()


images = [data_setup.load_image(path) for path, _ in splits.train.samples]
longest = max(images, key=lambda image: max(image.size) / min(image.size))
ways = data_setup.RESIZES
titles = ["the file: {} × {}".format(*longest.size), *ways]
utils.plot_images([longest, *(as_seen(longest, way) for way in ways)], titles, columns=4)

# %% [markdown]
# `crop` is what the weights were trained with, and the default; it cuts the ends off. If what matters
# can lie there, try `--resize squash` or `pad`, and compare them on validation. The way travels with
# the saved model.
#
# `fine_tune` does what notebooks 02 to 04 did step by step: unfreeze, two rates, warm-up and cosine.


# %%
def fine_tune(dataset, name):
    """Train with a strategy of the command line; frozen work is done once."""
    utils.seed_everything(42)
    strategy = train.STRATEGIES[name]
    model = model_builder.create_model("efficientnet_lite0", len(class_names))
    model_builder.unfreeze(model, last=train.last_blocks(model, strategy))
    groups = model_builder.parameter_groups(
        model, strategy.lr, strategy.trunk_lr, weight_decay=1e-4
    )
    optimizer = torch.optim.AdamW(groups)
    dataloader = data_setup.create_dataloader(dataset, transform, shuffle=True, seed=42)
    steps = strategy.epochs * len(dataloader)
    scheduler = engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10)
    options = {"epochs": strategy.epochs, "cache_frozen": True, "verbose": False}
    engine.train(model, dataloader, None, optimizer, device=device, scheduler=scheduler, **options)
    return model


def judge(model, dataset):
    return engine.predict(model, data_setup.create_dataloader(dataset, transform), device)


# %% [markdown]
# **Predict:** with so few validation images, how far apart must the two accuracies be before the
# paired interval of notebook 03 tells them apart?

# %% slideshow={"slide_type": "subslide"}
models, val, right = {}, {}, {}
for name in ("feature_extraction", "partial"):
    models[name] = fine_tune(splits.train, name)
    val[name] = judge(models[name], splits.val)
    right[name] = val[name].predicted == val[name].labels
    print(f"{name:<18}", evaluation.format_accuracy(val[name].correct, len(splits.val)))
difference = evaluation.format_difference(right["partial"], right["feature_extraction"])
print("partial - feature_extraction:", difference)
chosen = max(val, key=lambda name: val[name].correct)
print("chosen:", chosen)

# %% [markdown]
# About half the width of that last interval: several points. You may *claim* that one is better when
# the interval lies on one side of zero; here it is a close call. To *choose* you need not wait for
# that: you must take one, so take the one that is ahead, and at a tie the cheaper one.
#
# ## Look at the mistakes
#
# **Predict:** below are the validation images on which the chosen model is most sure, and "wrong".
# Whose mistakes are they?

# %% alt="Twelve validation images, each with the model's answer and its probability above, and the label below: most answers fit the image, and the label does not." slideshow={"slide_type": "subslide"}
result = val[chosen]
sure = result.probabilities.max(dim=1).values
sure[result.predicted == result.labels] = 0
worst = sure.topk(min(12, int((sure > 0).sum()))).indices.tolist()
if worst:
    images = [data_setup.load_image(splits.val.samples[i][0]) for i in worst]
    utils.plot_predictions(images, result.labels[worst], result.probabilities[worst], class_names)

# %% [markdown] slideshow={"slide_type": "slide"}
# The first line above each image is the answer with its probability, the second the label. Look at
# the surest ones: the answer fits the image, and the *label* does not. If you only count, you blame
# the model for the folder's mistakes.
#
# ## Find the wrong labels
#
# The validation and test images are few, and they judge everything. So a person looks at *all* of
# them, without seeing the model's answers. Correcting only where the model disagrees could only ever
# make the model look better. Here `truth` plays the person.


# %%
def name_of(path):
    """Return the image's place in the folder, such as "ant/IMG_0412.jpg"."""
    return path.relative_to(splits.folder).as_posix()


def look_at(dataset, positions):
    """Let a person look at some images; return all with the new labels, and which changed."""
    samples = list(dataset.samples)
    for i in positions:
        path, label = samples[i]
        samples[i] = path, class_names.index(truth.get(name_of(path), class_names[label]))
    changed = [i for i in positions if samples[i] != dataset.samples[i]]
    return data_setup.ImageDataset(samples, class_names), changed


def list_names(dataset, positions):
    """Print where each image of a sheet lies, row by row, six in a row."""
    names = [name_of(dataset.samples[i][0]) for i in positions]
    for start in range(0, len(names), 6):
        print("   ".join(names[start : start + 6]))


if not truth:
    print(
        "Nobody has looked at a label yet (truth is empty): what follows about corrections is empty."
    )

checked_val, changed = look_at(splits.val, range(len(splits.val)))
print(len(changed), "validation labels corrected,", end=" ")
print(len({*changed} & {*worst}), f"of them among the {len(worst)} images above")
print(sum(map(bool, right[chosen][changed])), "of them where the model agreed with the wrong label")
for name in models:
    checked = judge(models[name], checked_val)
    print(f"{name:<18}", evaluation.format_accuracy(checked.correct, len(checked_val)))

# %% [markdown]
# The models and their answers are the same as before; only the labels that judge them are now right.
# Of the 12 "mistakes" above, 8 were the folder's. And there was 1 wrong label with which the model
# agreed: you would have missed it by looking only where they disagree.
#
# There are many training images, so let a model say where to look first. This is **confident
# learning** ([Northcutt et al. 2021](https://arxiv.org/abs/1911.00068)): a probe learns from four
# fifths of the training images and judges the last fifth, until every image was judged by a probe
# that never saw it. The less probable it finds the given label, the sooner a person looks.
#
# **Predict:** the person has time for 15% of the images. Which share of the wrong labels is among
# them?

# %% slideshow={"slide_type": "subslide"}
frozen = model_builder.freeze(model_builder.create_model("efficientnet_lite0", len(class_names)))
dataloader = data_setup.create_dataloader(splits.train, transform)
features, labels = engine.extract_features(frozen, dataloader, device).tensors
order, probabilities = audit.suspicious_labels(features, labels)
first = order[: round(0.15 * len(order))].tolist()
corrected, found = look_at(splits.train, first)
print(f"{len(found)} of the first {len(first)} labels are wrong")
if made_here and (every := look_at(splits.train, order.tolist())[1]):
    share = len(found) / len(every)
    print(f"and {len(every)} of all {len(order)}: {share:.0%} of them are found")

# %% alt="The twelve training images with the most suspicious labels: above each what the probe says, below it the label, which is wrong." slideshow={"slide_type": "subslide"}
images = [data_setup.load_image(splits.train.samples[i][0]) for i in first[:12]]
judged = torch.tensor(probabilities[first[:12]])
utils.plot_predictions(images, labels[first[:12]], judged, class_names)
list_names(splits.train, first[:12])

# %% [markdown] slideshow={"slide_type": "slide"}
# These are the most suspicious training labels: first what the probe says, then the label. Below the
# sheet is the path of each image, row by row. On your own folder, read such a sheet, write each right
# class into `truth` by that path, and run again from *Find the wrong labels*. (By path, because two
# classes may each have a `007.jpg`.)
#
# ## What did it bring?
#
# We train on three versions of the training labels: as found; after the person; and with the probe's
# answer written over the same 15%, with nobody looking. Everything else is equal: the frozen
# features, ten heads each from the same ten seeds, and the checked validation images that judge them.
#
# **Predict:** what does the person gain, and what does the probe's word?


# %%
def train_head(labels, seed):
    """Train a linear head on the features; return which checked validation images it got right."""
    utils.seed_everything(seed)
    head = torch.nn.Linear(features.shape[1], len(class_names))
    dataloader = DataLoader(TensorDataset(features, labels), batch_size=32, shuffle=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    options = {"epochs": 20, "device": device, "verbose": False}
    engine.train(head, dataloader, None, optimizer, **options)
    answers = engine.predict(head, DataLoader(val_features, batch_size=256), device)
    return answers.predicted == answers.labels


# %% slideshow={"slide_type": "subslide"}
val_dataloader = data_setup.create_dataloader(checked_val, transform)
val_features = engine.extract_features(frozen, val_dataloader, device)
believed = labels.clone()
believed[first] = torch.tensor(probabilities[first].argmax(axis=1))
versions = {"as found": labels, "a person": torch.tensor(corrected.targets), "the probe": believed}
if not found:
    print("No training label was corrected: the row of the person says nothing yet.")
best = torch.tensor(look_at(splits.train, range(len(splits.train)))[0].targets)
share_right = {}
for who, new_labels in versions.items():
    runs = torch.stack([train_head(new_labels, seed) for seed in range(10)]).float()
    share_right[who] = runs.mean(dim=0)  # of each image: how many of the ten got it right
    mean, std = evaluation.mean_and_std(runs.mean(dim=1).tolist())
    print(f"{who:<10} {int((new_labels != best).sum()):>2} labels wrong, {mean:.3f} ± {std:.3f}")
for who, other in [("a person", "as found"), ("the probe", "as found"), ("a person", "the probe")]:
    difference = evaluation.format_difference(share_right[who], share_right[other])
    print(f"{who} - {other}: {difference}")

# %%
# @title Checks: what the last two sections say
if made_here:
    for name in models:
        assert judge(models[name], checked_val).correct >= val[name].correct + 3
    assert sum(checked_val.targets[i] == int(result.predicted[i]) for i in worst[:6]) >= 4
    assert len(found) >= 0.75 * len(every)
    gained = {who: float(shares.mean()) for who, shares in share_right.items()}
    assert gained["a person"] > gained["as found"] + 0.015
    assert gained["a person"] > gained["the probe"] + 0.005
    wrong = {who: int((new_labels != best).sum()) for who, new_labels in versions.items()}
    assert wrong["a person"] < wrong["the probe"] < wrong["as found"]

# %% [markdown]
# On these images the person gains almost 0.06, five times what the seeds differ by, and nothing but the
# labels was changed. Would other images of this kind show it too? Probably, but 83 are too few to be
# sure: the paired interval begins just below zero. The probe's word gained next to nothing, and the
# person is ahead of it. The counts fit: 15 labels are still wrong after the probe's
# word, and 1 after the person. Let a model say where to look, not what to write.
#
# How large the gain is depends on which labels are wrong (try other seeds in `make_folder`). Now the
# chosen strategy, once with the labels as found and once with the person's:

# %%
final = fine_tune(corrected, chosen)
before, now = judge(models[chosen], checked_val), judge(final, checked_val)
print("labels as found: ", evaluation.format_accuracy(before.correct, len(checked_val)))
print("labels corrected:", evaluation.format_accuracy(now.correct, len(checked_val)))
pair = now.predicted == now.labels, before.predicted == before.labels
print("difference:      ", evaluation.format_difference(*pair))

# %% [markdown] slideshow={"slide_type": "slide"}
# If that interval reaches zero, this one pair of models does not show the gain. With so few
# validation images it seldom can: the interval says which gains remain possible. Train on the
# corrected labels all the same. And compare with *Find the wrong labels*: there the same answers
# gained more, by correcting the labels that judge them.
#
# ## The test, once
#
# All choices are made. The person looks at the test images too, at all of them.

# %% slideshow={"slide_type": "subslide"}
checked_test, _ = look_at(splits.test, range(len(splits.test)))
test = judge(final, checked_test)
print("test:", evaluation.format_accuracy(test.correct, len(checked_test)))
print(evaluation.per_class_table(test.labels, test.predicted, class_names))

# %% [markdown]
# The intervals of single classes are wide: about a dozen test images each cannot say more.
#
# ## Save, load, compare
#
# One file holds the weights, the class names and the preprocessing. A saved model is good if it
# answers as the original does, so ask both.

# %%
options = {"class_names": class_names, "transform": transform}
path = utils.save_model(final, work, "model.safetensors", **options)
loaded, checkpoint = model_builder.load_model(path, device)
test_dataloader = data_setup.create_dataloader(checked_test, checkpoint["transform"])
answers = engine.predict(loaded, test_dataloader, device)
largest = (answers.probabilities - test.probabilities).abs().max().item()
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, largest difference {largest:.0e}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A new image
#
# Here we draw a new chart; on your own folder, the cell takes a test image.

# %% alt="The new image, a line chart, with the model's answer above it."
photo = splits.test.samples[0][0]
if made_here:
    photo = work / "new.png"
    figure, axis = plt.subplots(figsize=(1.6, 1.6), layout="constrained")
    axis.plot([3, 1, 4, 1, 5, 9, 2, 6], color=utils.GREEN)
    figure.savefig(photo)
    plt.close(figure)

image = data_setup.load_image(photo)
(answer,) = classify(loaded, checkpoint["transform"](image)[None])  # a batch of one
for index in answer.argsort(descending=True)[:3].tolist():
    print(f"{class_names[index]:<10} {answer[index]:.3f}")
utils.plot_images([image], [class_names[int(answer.argmax())]], columns=1)

# %% [markdown]
# Wherever an image comes from, save it as a file; then the same two lines classify it.
#
# ```python
# from PIL import ImageGrab  # from the clipboard; Linux needs wl-clipboard or xclip
# ImageGrab.grabclipboard().save("new.png")  # fails if the clipboard holds no image
#
# from google.colab import files  # an upload in Colab
# photo, = files.upload()
#
# import cv2  # a frame from the webcam; needs opencv-python
# ok, frame = cv2.VideoCapture(0).read()
# cv2.imwrite("new.png", frame)
# ```
#
# Webcam frames look different from a tidy folder. Notebook 10 measures what such a change of style
# can cost.
#
# ## Export
#
# Where this package is not installed, use `model.pt2` (needs only PyTorch) or `model.onnx` (for ONNX
# Runtime: many languages, browsers). Prepare images as `preprocessing.json` says.

# %%
images = torch.stack([transform(data_setup.load_image(p)) for p, _ in checked_test.samples[:32]])
rows = []
try:
    target, preset = work / "export", checkpoint["transform"]
    exported = export.export_model(loaded, preset, class_names, target, overwrite=True)
    rows = export.compare(loaded, exported, images)
    print(export.table(rows))
except ImportError as error:  # the packages are missing, or this PyTorch is too old
    print(error)

# %%
# @title Checks: saved, loaded and exported, the model answers the same
assert not made_here or test.accuracy > 0.75
assert largest < 1e-3 and checkpoint["class_names"] == class_names
assert max((row.largest_difference for row in rows), default=0) < 1e-4

# %% [markdown]
# The same classes for the same images; the probabilities differ by rounding at most. The times are
# this machine's.
#
# What does a program look like that knows nothing of this package, nor of PyTorch? Pillow, NumPy and
# ONNX Runtime are enough:

# %% slideshow={"slide_type": "subslide"}
program = work / "answer.py"
program.write_text("""\
import json, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder, *files = sys.argv[1:]
how = json.load(open(f"{folder}/preprocessing.json", encoding="utf-8"))
model = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
resize, crop = how["resize_size"], how["crop_size"]
for file in files:
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    size = [resize * side // min(image.size) for side in image.size]
    image = image.resize(size, Image.Resampling[how["interpolation"].upper()])
    left, top = (round((side - crop) / 2) for side in image.size)
    image = image.crop((left, top, left + crop, top + crop))
    pixels = (np.asarray(image) / 255 - how["mean"]) / how["std"]
    batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    (logits,) = model.run(None, {"images": batch})
    print(how["class_names"][logits[0].argmax()])
""")
if rows:
    files = [str(path) for path, _ in checked_test.samples]
    command = [sys.executable, program, exported, *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    without = [class_names.index(line) for line in ran.stdout.splitlines()]
    same = sum(a == b for a, b in zip(without, answers.predicted.tolist(), strict=True))
    print(f"the same class for {same} of {len(files)} test images")

# %% [markdown]
# (It prepares images as `crop` does. Transparent pixels would need a white background, as
# `preprocessing.json` says.)
#
# Is there a smaller file? **int8** stores each weight in 8 bits instead of 32. ONNX Runtime chooses the
# ranges from some training images.
#
# **Predict:** how much smaller is the file, and how much accuracy does it cost on validation?


# %%
class Calibration:
    """Give ONNX Runtime some training images, a batch at a time."""

    def __init__(self, count):
        some = random.Random(0).sample(splits.train.samples, min(count, len(splits.train)))
        images = [transform(data_setup.load_image(path)) for path, _ in some]
        self.batches = iter(torch.stack(images).split(8))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.numpy()}


if rows:
    import onnxruntime
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, small = exported / "model.onnx", exported / "model.int8.onnx"
    quant_pre_process(whole, work / "ready.onnx")
    quantize_static(work / "ready.onnx", small, Calibration(64), per_channel=True)
    right = {}
    for graph in (whole, small):
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        logits = [
            torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
            for images, _ in data_setup.create_dataloader(checked_val, transform)
        ]
        right[graph] = torch.cat(logits).argmax(dim=1) == torch.tensor(checked_val.targets)
        print(f"{graph.name:16} {graph.stat().st_size / 1e6:5.1f} MB, on validation",
              evaluation.format_accuracy(int(right[graph].sum()), len(checked_val)))  # fmt: skip
    print("int8 - float32:", evaluation.format_difference(right[small], right[whole]))

# %%
# @title Checks: the program without this package, and int8
if made_here and rows:
    assert same == len(files)
    assert small.stat().st_size < 0.35 * whole.stat().st_size
    assert right[whole].float().mean() - right[small].float().mean() < 0.06

# %% [markdown]
# Less than a third of the size. The interval says how much accuracy it can have cost; so measure it on
# your own images before you ship it. (A program for it is the same, with the other file's name.)
#
# ## The same from the command line
#
# ```
# python -m going_modular.audit photos --copy-to clean
# python -m going_modular.train --data clean --strategy partial
# python -m going_modular.predict runs/clean-partial/model.safetensors new.jpg
# python -m going_modular.export runs/clean-partial/model.safetensors
# python -m going_modular.evaluate runs/NEW/model.safetensors --data clean --compare runs/OLD/model.safetensors
# python -m going_modular.demo runs/clean-partial/model.safetensors
# ```
#
# Before a new model replaces an old one, `evaluate --compare` measures both on the same images, paired.
# The last line opens a page for your browser: drop an image on it, and see the classes and where the
# model looks.
#
# ## Recap
#
# - You found unusable files, placeholders and copies, and split the rest without a leak.
# - You found wrong labels with a model's help, and measured what correcting them brought.
# - You saved, loaded and exported the model, and classified a new image.
#
# ## Check yourself
#
# 1. Why remove near-copies before splitting, not after?
#    - **a** · It is faster.
#    - **b** · After the split, an image and its copy may already be on both sides.
#    - **c** · Removing them after the split unbalances the classes.
#
# <details><summary>Answer</summary>
#
# **b.** The test then asks a question whose answer was in training. *a:* It is the same work either
# way. *c:* A few copies change little in the class counts.
# </details>
#
# 2. The model disagrees with 20 validation labels. You look at these and correct 12. Is its new
#    accuracy honest?
#    - **a** · Yes: wrong labels were corrected.
#    - **b** · Yes, if somebody else looked at them.
#    - **c** · No: nobody looked for wrong labels with which the model agrees.
#
# <details><summary>Answer</summary>
#
# **c.** Look at all images, or at a random sample. *a:* Only labels whose correction helps the model
# were looked at. *b:* A second person helps with hard labels, not with which images you look at.
# </details>
#
# 3. Two photos of the same bird, taken one second apart, land in training and test. Who notices?
#    - **a** · You, if you split by bird, day or photographer yourself.
#    - **b** · The audit: they are near-copies.
#    - **c** · `data_setup.load`: it keeps copies together.
#
# <details><summary>Answer</summary>
#
# **a.** Make the folders train, val and test yourself, and keep each bird in one of them. *b:* Their
# pixels differ, and so do their hashes. *c:* It compares bytes.
# </details>
#
# 4. Your website's placeholder occurs three times in one class. The audit calls it copies and keeps
#    one. What do you do?
#    - **a** · Nothing: one image does no harm.
#    - **b** · Delete that one in the cleaned copy.
#    - **c** · Delete it in the original folder.
#
# <details><summary>Answer</summary>
#
# **b.** The audit proposes; a person who looks decides. *a:* A model can learn it, and the website
# will send it again. *c:* Leave the originals as they are: one day you may want to look again.
# </details>
#
# ## Exercises
#
# [Four exercises](exercises/06_your_own_photos.ipynb) check your code and tell you what is not right
# yet. On this page, change one thing, say first what you expect, then run:
#
# 1. Put 25% of the images into wrong folders. Which share of the wrong labels do the first 15%
#    hold? How much is gained?
# 2. Run `audit.scan(FOLDER, nearly=0.5)`. Which of the new pairs are not copies?
# 3. Compare `features` with `audit.similar_pairs(features, 0.9)`. Would it find a cropped copy? A
#    small one?
# 4. Set `FOLDER` to photos of your own.
