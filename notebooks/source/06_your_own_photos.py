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
# The lessons so far had clean data. A real folder holds a web page named `.jpg`, a photo three
# times over, and a bee among the ants. Go the whole way from such a folder to a model in use.
#
# **You will**
# - find unusable files, placeholders and copies, and split what is left without a leak;
# - find wrong labels with a model's help, and measure what correcting them brings;
# - save the model, load it, export it, and name what is on a new picture.
#
# **You need** the words of notebook 02, and the decision guide that ends notebook 05.
#
# **Time** about a minute on a 2-core CPU.

# %%
import random
import shutil
import statistics
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

# %% [markdown]
# ## A messy folder
#
# So that this page runs anywhere, it makes its own folder: charts of six kinds, a folder for each.
# About 10 % of the pictures go to a wrong one. `truth` remembers where they belong, which no real
# folder does. (The charts' own test split stays closed.)

# %%
def make_folder(folder):
    """Copy 70 charts of each class, 10 % of them to a wrong class; return {file name: class}."""
    charts, rng, truth = data_setup.DATA_SETS["charts"], random.Random(0), {}
    classes = ["bar", "box", "histogram", "line", "pie", "scatter"]
    for name in classes:
        (folder / name).mkdir(parents=True)
    for name in classes:
        pictures = [*charts.glob(f"train/{name}/*.png"), *charts.glob(f"val/{name}/*.png")]
        others = [other for other in classes if other != name]
        for picture in sorted(pictures):
            label = rng.choice(others) if rng.random() < 0.1 else name
            file_name = f"{len(truth):03}.png"
            shutil.copy(picture, folder / label / file_name)
            truth[file_name] = name
    return truth

# %% [markdown]
# Then it adds what else real folders hold: copies, files that are no pictures, placeholders for
# pictures that are gone. Three charts become a WebP, a CMYK JPEG and a JPEG that is stored upside
# down: unusual, but no faults.

# %%
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

# %%
def add_faults(folder):
    """Add files that are no pictures, and pictures that show nothing."""
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
# **For your own pictures, change the first line of the next cell**, and nothing else. The folder
# holds one folder for each class, or `train`, `val` and `test` with such folders inside. It is only
# read.

# %%
FOLDER = None  # or FOLDER = "path/to/my photos"

if made_here := FOLDER is None:
    temporary = tempfile.TemporaryDirectory()  # goes away with the notebook
    FOLDER, work = Path(temporary.name, "messy"), Path(temporary.name, "work")
    truth = make_folder(FOLDER)
    add_copies(FOLDER)
    add_faults(FOLDER)
else:
    truth = {}  # to be filled in: truth["IMG_0412.jpg"] = "bee"
    FOLDER, runs = Path(FOLDER).expanduser(), Path("runs").absolute()
    runs.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{FOLDER.name}-", dir=runs))
    print("what is made here goes to", work)
print(sum(path.is_file() for path in FOLDER.rglob("*")), "files")

# %% [markdown]
# ## Look before you train
#
# `audit.scan` opens every file and changes none. From the command line: `python -m
# going_modular.audit FOLDER`.
#
# **Predict:** nearly all of these files can be opened as pictures. How many should still not be
# trained on?

# %%
report = audit.scan(FOLDER)
print(report.summary())
if made_here:
    assert len(report.unusable) == 4 and len(report.placeholders) == 9 and len(report.copies) == 8
    assert not {f"{number:03}" for number in (8, 9, 10)} & {p.stem for p in report.leave_out()}

# %% [markdown]
# Here only four cannot be opened; the others to leave out open very well. A **placeholder** is what
# a site sends when a photo is gone. *Same file* compares bytes. *Nearly the same* compares a
# **difference hash**: reduce the picture to a small grid, and note where it gets lighter and where
# darker. That survives another size, compression and brightness, and the mirror image is compared
# too. It does not find a crop, or a second photo of the same scene. The unusual formats stay:
# `load_image` reads them as upright RGB.

# %%
pairs = [group[:2] for group in report.copies[:6]]
if pairs:
    both = [pair[side].path for side in (0, 1) for pair in pairs]
    images = [data_setup.load_image(path) for path in both]
    utils.plot_images(images, [path.name for path in both], columns=len(pairs))
print(f"{len(pairs)} of {len(report.copies)} groups of copies")

# %% [markdown]
# Each column is a picture, above, and its copy. Look at such pairs before you believe them: simple
# drawings can be taken for one another.
#
# Copies matter most when one is in training and the other in the test: the test then asks what the
# model has been told. `data_setup.load` keeps identical files in one split. Let it split the
# messy folder as it is.
#
# **Predict:** is that enough to keep all copies together?

# %%
def straddling(report, splits):
    """Count the groups of copies that are in more than one split."""
    where = {path: part for part in (splits.train, splits.val, splits.test)
             for path, _ in part.samples}
    found = [{where[p.path] for p in group if p.path in where} for group in report.copies]
    return sum(len(parts) > 1 for parts in found)


with warnings.catch_warnings(record=True) as caught:  # load warns of unusable files
    warnings.simplefilter("always")
    naive = data_setup.load(FOLDER)
print(f"{straddling(report, naive)} of {len(report.copies)} groups straddle splits")
if made_here:
    assert straddling(report, naive) > 0 and caught

# %% [markdown]
# No: a copy with other bytes is another file. So clean first, then split. `copy_clean` makes a
# cleaned *copy*, and the folder stays as it is. Of each group, the largest picture is kept; of a
# picture in two classes, none: only a person can say which class is right.

# %%
clean = audit.copy_clean(report, work / "clean")
again = audit.scan(clean)
assert not again.leave_out()
splits = data_setup.load(clean)
class_names = splits.class_names
print(f"{len(report.leave_out())} files left out, {len(again.pictures)} pictures stay")
print(splits.summary().split("\n", 1)[1])
shown = splits.train.few(1).samples[:12]
images = [data_setup.load_image(path) for path, _ in shown]
utils.plot_images(images, [class_names[label] for _, label in shown])

# %% [markdown]
# One training picture of each class, with the label that its folder gives. From here on, look at
# training and validation pictures only.
#
# ## Train: the probe first
#
# Notebook 05's guide says: few labels, far from ImageNet's photos, so a probe, then partial
# fine-tuning. (On photos, one would often stop at the probe.) Both train with the settings of
# `python -m going_modular.train`. Large pictures are seen at the size that the weights know, small
# ones at less.

# %%
short_side = statistics.median(min(picture.size) for picture in again.pictures)
size = None if short_side >= 224 else 128
transform = data_setup.create_transform("efficientnet_lite0", size=size)
print(f"shorter side {short_side:.0f} pixels; the model sees {transform.crop_size[0]}")

# %%
def fine_tune(pictures, name):
    """Train with a strategy of the command line: AdamW, warm-up, cosine; frozen work done once."""
    utils.seed_everything(42)
    strategy = train.STRATEGIES[name]
    model = model_builder.create_model("efficientnet_lite0", len(class_names))
    model_builder.unfreeze(model, last=train.last_blocks(model, strategy))
    optimizer = torch.optim.AdamW(
        model_builder.parameter_groups(model, strategy.lr, strategy.trunk_lr, weight_decay=1e-4)
    )
    dataloader = data_setup.create_dataloader(pictures, transform, shuffle=True, seed=42)
    steps = strategy.epochs * len(dataloader)
    schedule = engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10)
    options = {"epochs": strategy.epochs, "cache_frozen": True, "verbose": False}
    engine.train(model, dataloader, None, optimizer, device=device, scheduler=schedule, **options)
    return model


def judge(model, pictures):
    return engine.predict(model, data_setup.create_dataloader(pictures, transform), device)

# %% [markdown]
# **Predict:** with these few validation pictures, how far apart must the two be before an interval
# tells them apart?

# %%
models, val = {}, {}
for name in ("feature_extraction", "partial"):
    models[name] = fine_tune(splits.train, name)
    val[name] = judge(models[name], splits.val)
    print(f"{name:<18}", evaluation.format_accuracy(val[name].correct, len(splits.val)))
right = [val[name].predicted == val[name].labels for name in ("partial", "feature_extraction")]
low, high = evaluation.bootstrap_difference(*right)
print(f"difference, 95 % interval: {low:+.3f} to {high:+.3f}")
chosen = max(val, key=lambda name: val[name].correct)
print("chosen:", chosen)

# %% [markdown]
# Half the width of that last interval: several points. To *claim* that one is better, the interval
# must lie on one side of zero. To *choose*, it need not: we must take one, so we take the one that
# is ahead, and the cheaper one at a tie.
#
# ## Look at the mistakes
#
# **Predict:** below are the validation pictures on which the chosen model is most sure, and wrong.
# Whose mistakes are they?

# %%
result = val[chosen]
sure = result.probabilities.max(dim=1).values
sure[result.predicted == result.labels] = 0
worst = sure.topk(min(12, int((sure > 0).sum()))).indices.tolist()
if worst:
    images = [data_setup.load_image(splits.val.samples[i][0]) for i in worst]
    utils.plot_predictions(images, result.labels[worst], result.probabilities[worst], class_names)

# %% [markdown]
# Above each, the answer and its probability; below it, the label. Most of the surest answers are
# right, and the *label* is wrong. Whoever only counts mistakes blames the model for the folder.
#
# ## Find the wrong labels
#
# Validation and test pictures are few, and everything is judged by them. So a person looks at *all*
# of them, without the model's answers: to correct only where the model disagrees would move the
# labels towards the model. Here `truth` plays that person.

# %%
def look_at(pictures, positions):
    """Let a person look at some pictures; return all with the new labels, and how many changed."""
    samples = list(pictures.samples)
    for i in positions:
        path, label = samples[i]
        samples[i] = path, class_names.index(truth.get(path.name, class_names[label]))
    changed = sum(new != old for new, old in zip(samples, pictures.samples))
    return data_setup.ImageDataset(samples, class_names), changed


checked_val, changed = look_at(splits.val, range(len(splits.val)))
print(changed, "validation labels corrected")
for name in models:
    checked = judge(models[name], checked_val)
    print(f"{name:<18}", evaluation.format_accuracy(checked.correct, len(checked_val)))
    assert not made_here or checked.correct >= val[name].correct + 3
if made_here:
    assert sum(checked_val.targets[i] == int(result.predicted[i]) for i in worst[:6]) >= 4

# %% [markdown]
# The same models with the same answers: only the yardstick is straight now.
#
# Training pictures are many, so let a model say where to look first. In **confident learning**
# ([Northcutt et al. 2021](https://arxiv.org/abs/1911.00068)), a probe learns from four fifths of
# the training pictures and judges the last fifth, until each fifth has been judged by a probe that
# never saw it. The less probable the given label, the earlier a person looks.
#
# **Predict:** the person has time for 15 % of the pictures. Which share of the wrong labels is
# among them?

# %%
plain = model_builder.freeze(model_builder.create_model("efficientnet_lite0", len(class_names)))
dataloader = data_setup.create_dataloader(splits.train, transform)
features, labels = engine.extract_features(plain, dataloader, device).tensors
order, probabilities = audit.suspicious_labels(features, labels)
first = order[: round(0.15 * len(order))].tolist()
corrected, found = look_at(splits.train, first)
print(f"{found} of the first {len(first)} labels are wrong")
if made_here and (every := look_at(splits.train, order.tolist())[1]):
    print(f"and {every} of all {len(order)}: {found / every:.0%} of them are found")
    assert found >= 0.75 * every

# %%
images = [data_setup.load_image(splits.train.samples[i][0]) for i in first[:12]]
judged = torch.tensor(probabilities[first[:12]])
utils.plot_predictions(images, labels[first[:12]], judged, class_names)

# %% [markdown]
# The most suspicious training labels: above, what the probe says; below, the label. On your own
# folder, read such a sheet, write the right classes into `truth`, and run again from *Find the
# wrong labels*.
#
# ## What did it bring?
#
# Three sets of labels for the same training pictures: as found; after the person; and after taking
# the probe's word for the same 15 %, with nobody looking. Ten heads on frozen features for each,
# judged by the checked validation pictures.
#
# **Predict:** what does the person gain, and what does the probe's word?

# %%
def train_head(labels, seed):
    """Train a linear head on the features; return its accuracy on the checked validation split."""
    utils.seed_everything(seed)
    head = torch.nn.Linear(features.shape[1], len(class_names))
    dataloader = DataLoader(TensorDataset(features, labels), batch_size=32, shuffle=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    options = {"epochs": 20, "device": device, "verbose": False}
    engine.train(head, dataloader, None, optimizer, **options)
    return engine.evaluate(head, DataLoader(val_features, batch_size=256), device).accuracy

# %%
val_dataloader = data_setup.create_dataloader(checked_val, transform)
val_features = engine.extract_features(plain, val_dataloader, device)
believed = labels.clone()
believed[first] = torch.tensor(probabilities[first].argmax(axis=1))
after = {"as found": labels, "a person": torch.tensor(corrected.targets), "the probe": believed}
gained = {}
for who, new_labels in after.items():
    accuracies = [train_head(new_labels, seed) for seed in range(10)]
    gained[who] = evaluation.mean_and_std(accuracies)
    print("{:<10} {:.3f} ± {:.3f}".format(who, *gained[who]))
if made_here:
    assert gained["a person"][0] > gained["as found"][0] + 0.015
    assert gained["a person"][0] > gained["the probe"][0] + 0.005

# %% [markdown]
# The person gains some points, more than seeds differ by. The probe's word gains less: where it is
# wrong, it now teaches its own mistakes. Let a model say where to look, not what to write.
#
# How large the gain is depends on which labels are wrong (try other seeds in `make_folder`), and
# all these heads were judged by the *same* few pictures. So now the chosen strategy, once, with the
# paired interval of notebook 05:

# %%
final = fine_tune(corrected, chosen)
before, now = judge(models[chosen], checked_val), judge(final, checked_val)
print("labels as found: ", evaluation.format_accuracy(before.correct, len(checked_val)))
print("labels corrected:", evaluation.format_accuracy(now.correct, len(checked_val)))
right = now.predicted == now.labels, before.predicted == before.labels
low, high = evaluation.bootstrap_difference(*right)
print(f"difference, 95 % interval: {low:+.3f} to {high:+.3f}")

# %% [markdown]
# If that interval reaches zero, this one pair of models does not show the gain; so few validation
# pictures seldom can. Correct labels are still the better choice, and their largest effect was on
# the yardstick.
#
# ## The test, once
#
# All choices are made. The person looks at the test pictures as well, at all of them.

# %%
checked_test, _ = look_at(splits.test, range(len(splits.test)))
test = judge(final, checked_test)
print("test:", evaluation.format_accuracy(test.correct, len(checked_test)))
print(evaluation.per_class_table(test.labels, test.predicted, class_names))
if made_here:
    assert test.accuracy > 0.75

# %% [markdown]
# The classes' intervals are wide: that is what about a dozen test pictures of each can say.
#
# ## Save, load, compare
#
# One file holds weights, class names and preprocessing. A saved model is good when it answers as
# before, so ask both.

# %%
options = {"class_names": class_names, "transform": transform}
path = utils.save_model(final, work, "model.safetensors", **options)
loaded, checkpoint = model_builder.load_model(path, device)
test_dataloader = data_setup.create_dataloader(checked_test, checkpoint["transform"])
answers = engine.predict(loaded, test_dataloader, device)
difference = (answers.probabilities - test.probabilities).abs().max().item()
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, largest difference {difference:.0e}")
assert difference < 1e-3 and checkpoint["class_names"] == class_names

# %% [markdown]
# ## A new picture
#
# Here a chart that is drawn now; on your own folder, a test picture.

# %% alt="The new picture, with the model's answer above it."
photo = splits.test.samples[0][0]
if made_here:
    photo = work / "new.png"
    figure, axis = plt.subplots(figsize=(1.6, 1.6), layout="constrained")
    axis.plot([3, 1, 4, 1, 5, 9, 2, 6], color=utils.GREEN)
    figure.savefig(photo)
    plt.close(figure)

image = data_setup.load_image(photo)
answer = classify(loaded, checkpoint["transform"](image))
for index in answer.argsort(descending=True)[:3].tolist():
    print(f"{class_names[index]:<10} {answer[index]:.3f}")
utils.plot_images([image], [class_names[int(answer.argmax())]], columns=1)

# %% [markdown]
# However a picture arrives, make it a file; then the same two lines name it.
#
# ```python
# from PIL import ImageGrab  # from the clipboard; Linux needs wl-clipboard or xclip
# ImageGrab.grabclipboard().save("new.png")  # fails where it holds no picture
#
# from google.colab import files  # an upload in Colab
# photo, = files.upload()
#
# import cv2  # a frame from the webcam; needs opencv-python
# ok, frame = cv2.VideoCapture(0).read()
# cv2.imwrite("new.png", frame)
# ```
#
# Webcam frames differ from a tidy folder; notebook 05's *shifted* pictures show what that costs.
#
# ## Export
#
# Where this package is not installed, use `model.pt2` (PyTorch alone) or `model.onnx` (ONNX
# Runtime: many languages, browsers), and prepare pictures as `preprocessing.json` says.

# %%
images = torch.stack([transform(data_setup.load_image(p)) for p, _ in checked_test.samples[:32]])
try:
    target, preset = work / "export", checkpoint["transform"]
    exported = export.export_model(loaded, preset, class_names, target, overwrite=True)
    rows = export.compare(loaded, exported, images)
    print(export.table(rows))
    assert max(row.largest_difference for row in rows) < export.TOLERANCE
except ImportError as error:  # the packages are missing, or this PyTorch is too old
    print(error)

# %% [markdown]
# The same classes for the same pictures; the differences are rounding. Times are this machine's.
#
# ## The same from the command line
#
# ```
# python -m going_modular.audit photos --copy-to clean
# python -m going_modular.train --data clean --strategy partial
# python -m going_modular.predict runs/clean-partial/model.safetensors new.jpg
# python -m going_modular.export runs/clean-partial/model.safetensors
# python -m going_modular.demo runs/clean-partial/model.safetensors
# ```
#
# The last one opens a page in the browser: drop a picture, see the classes and where the model
# looks.
#
# ## Recap
#
# - You found unusable files, placeholders and copies, and split what was left without a leak.
# - You found wrong labels with a model's help, and measured what correcting them brought.
# - You saved, loaded and exported the model, and named what is on a new picture.
#
# ## Check yourself
#
# 1. Why remove near-copies before splitting, not after?
#    - **a** · It is faster.
#    - **b** · After it, a picture and its copy may already be in different splits.
#    - **c** · After it, the classes are unbalanced.
#
# <details><summary>Answer</summary>
#
# **b.** The test then asks what training has shown. *a:* The same work either way. *c:* A few
# copies change little there.
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
# **c.** Look at all pictures, or at a random part. *a:* Only those whose correction helps the
# model. *b:* A second person helps with hard labels, not with the choice of the pictures.
# </details>
#
# 3. Two photos of the same bird, taken a second apart, land in training and test. Who notices?
#    - **a** · You, if you split by bird, day or photographer yourself.
#    - **b** · The audit: they are near-copies.
#    - **c** · `data_setup.load`: it keeps copies together.
#
# <details><summary>Answer</summary>
#
# **a.** Make the folders train, val and test, and keep each bird in one of them. *b:* Their pixels
# differ, and so do their hashes. *c:* It compares bytes.
# </details>
#
# 4. Your site's placeholder occurs three times in one class. The audit calls it copies and keeps
#    one. What do you do?
#    - **a** · Nothing: one picture does no harm.
#    - **b** · Delete that one in the cleaned copy.
#    - **c** · Delete it in the original folder.
#
# <details><summary>Answer</summary>
#
# **b.** The audit proposes; a person who looks decides. *a:* A model can learn it, and your site
# will send it again. *c:* The originals stay as they are: one day you may want to look again.
# </details>
#
# ## Exercises
#
# [Four exercises](exercises/06_your_own_photos.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Send 25 % of the pictures to wrong folders. Which share do the first 15 % hold? What is gained?
# 2. `audit.scan(FOLDER, nearly=0.5)`: which of the new pairs are false?
# 3. Compare `features` with `audit.similar_pairs(features, 0.9)`. Would it find a cropped copy? A
#    small one?
# 4. Set `FOLDER` to photos of your own.
