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

# %% [markdown] slideshow={"slide_type": "slide"}
# # 05 · Evaluate: what may we claim?
#
# Four notebooks made choices on the validation split. Now the test split is opened, once. We read
# the whole ladder of strategies, and ask of two rungs all that one should ask before relying on a
# model.
#
# **You will**
# - read a comparison of five strategies in two domains, and choose between them by data, domain and
#   cost;
# - find out where a model errs, how far its confidence can be trusted, and where it looks;
# - tell a difference between two models from none.
#
# **You need** the words of notebooks 02 to 04: probe, partial and full fine-tuning, LP-FT.
#
# **Time** about 90 seconds on a 2-core CPU.

# %%
import csv
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import ConfusionMatrixDisplay
from torch.utils.data import DataLoader

from going_modular import data_setup, engine, evaluation, model_builder, train, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The ladder
#
# Five strategies, one architecture, one data set, from random weights to everything trained. Each
# was run with three seeds and the defaults of `python -m going_modular.train`. That takes too long
# for a lesson, so the results lie in a table, one row a run. `python tests/by_hand/ladder.py charts --out
# my.csv` measures it again.
#
# Two kinds of chance are in such a figure. Another **seed** gives another head and another order of
# pictures: mean ± standard deviation over seeds. Other **test pictures** give another count: the
# 95 % interval, around the mean run. Adding up the seeds' counts for a narrower one would be
# cheating: all runs see the same pictures.

# %%
def read_ladder(name):
    """Read a table of runs, as {strategy: [row, ...]}."""
    ladder = {}
    with open(utils.data_folder() / f"ladder_{name}.csv", newline="") as file:
        for row in csv.DictReader(file):
            ladder.setdefault(row["strategy"], []).append(row)
    return ladder


def column(runs, name):
    """Return one number of each run; for "val", "test" and "shifted" the accuracy."""
    if f"{name}_correct" in runs[0]:
        return [int(run[f"{name}_correct"]) / int(run[f"{name}_total"]) for run in runs]
    return [float(run[name]) for run in runs]


def mean(runs, name):
    return float(np.mean(column(runs, name)))

# %% slideshow={"slide_type": "subslide"}
def interval(runs, split):
    """Return the 95 % interval of the seeds' mean accuracy, for the pictures of one split."""
    total = int(runs[0][f"{split}_total"])
    return evaluation.wilson_interval(round(mean(runs, split) * total), total)


def show(ladder, split):
    print(f"{'':<18}  trainable  seconds    MB  validation     test           95 %, {split}")
    for strategy, runs in ladder.items():
        cost = [mean(runs, name) for name in ("trainable", "cpu_seconds", "peak_megabytes")]
        cells = ["{:.3f} ± {:.3f}".format(*evaluation.mean_and_std(column(runs, name)))
                 for name in ("val", "test")]
        low, high = interval(runs, split)
        print(f"{strategy:<18}  {cost[0]:>9,.0f}  {cost[1]:>7.0f}  {cost[2]:>4.0f}", *cells,
              f"{low:.3f} to {high:.3f}", sep="  ")


charts = read_ladder("charts")
show(charts, "test")

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Seconds* are processor time of the whole command, *MB* the most memory that it held. The probe,
# called `feature_extraction` on the command line, is cheapest by far.
#
# The same was measured on photos of ants and bees, from PyTorch's own transfer tutorial. They are
# not in this repository: get `hymenoptera_data.zip` there, unpack it, and give its folder to
# `tests/by_hand/ladder.py`. Their 49 test photos are too few to rank anything. No choice was made by their
# 153 validation photos, so for once the intervals are of these.
#
# **Predict:** charts are far from the photos of ImageNet; ants and bees are such photos. Which
# rungs change places?

# %% slideshow={"slide_type": "subslide"}
hymenoptera = read_ladder("hymenoptera")
show(hymenoptera, "val")
assert [hymenoptera["full"][0][f"{split}_total"] for split in ("val", "test")] == ["153", "49"]
assert mean(charts["partial"], "test") > mean(charts["feature_extraction"], "test") + 0.02
assert mean(hymenoptera["feature_extraction"], "val") > mean(hymenoptera["full"], "val") - 0.01
for ladder, split in [(charts, "test"), (hymenoptera, "val")]:
    scratch, probe = (interval(ladder[name], split) for name in ("scratch", "feature_extraction"))
    assert scratch[1] < probe[0]

# %% alt="Accuracy of the five strategies on charts and on ants and bees: one point a run, and as a bar the 95 % interval of their mean." slideshow={"slide_type": "subslide"}
figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained", sharey=True)
for axis, ladder, split in [(axes[0], charts, "test"), (axes[1], hymenoptera, "val")]:
    for row, runs in enumerate(ladder.values()):
        axis.plot(interval(runs, split), [row, row], color=utils.BLUE, linewidth=6, alpha=0.3)
        axis.plot(column(runs, split), [row] * len(runs), "o", color=utils.BLUE, markersize=4)
    axis.set(title=runs[0]["data"], yticks=range(len(ladder)), yticklabels=ladder)
    axis.set_xlabel({"test": "Test accuracy", "val": "Validation accuracy"}[split])
    axis.grid(axis="x", alpha=0.3)
axes[0].invert_yaxis()

# %% [markdown]
# One point a run, and as a bar the 95 % interval of their mean. On charts, training some layers
# beats the probe; between partial, LP-FT and full, compare the bars before you rank them. On
# ants and bees the probe does as well as anything dearer. Scratch is last on both.
#
# A caveat: ImageNet *has* ants and bees among its 1,000 classes. Pretraining has seen what we test
# on, so the right half says how well features are reused, not how well they reach new classes.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Two rungs, live
#
# To look closer we need models. The probe and the partial one are cheap enough to train here, with
# the command line's own settings.

# %%
def fine_tune(dataloader, classes, strategy, seed=0):
    """Train as the table's runs were trained: AdamW, warm-up, cosine; frozen work done once."""
    utils.seed_everything(seed)
    model = model_builder.create_model("efficientnet_lite0", classes)
    model_builder.unfreeze(model, last=train.last_blocks(model, strategy))
    groups = model_builder.parameter_groups(
        model, strategy.lr, strategy.trunk_lr, weight_decay=1e-4
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = strategy.epochs * len(dataloader)
    options = {"epochs": strategy.epochs, "device": device, "cache_frozen": True}
    options["scheduler"] = engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10)
    engine.train(model, dataloader, optimizer=optimizer, verbose=False, **options)
    return model

# %% slideshow={"slide_type": "subslide"}
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=128)
val_dataloader = data_setup.create_dataloader(splits.val, transform)
models, val = {}, {}
for name, strategy in {"probe": "feature_extraction", "partial": "partial"}.items():
    train_dataloader = data_setup.create_dataloader(splits.train, transform, shuffle=True, seed=0)
    models[name] = fine_tune(train_dataloader, 12, train.STRATEGIES[strategy])
    val[name] = engine.predict(models[name], val_dataloader, device)
    print(f"{name:<8} validation", evaluation.format_accuracy(val[name].correct, 360))

# %% [markdown] slideshow={"slide_type": "subslide"}
# By validation we would choose the partial model. The choice is made, so the test split may be
# opened.
#
# **Predict:** both runs are new. Will they come out within a point or two of the table?

# %% slideshow={"slide_type": "subslide"}
def predict(pictures):
    dataloader = data_setup.create_dataloader(pictures, transform)
    return {name: engine.predict(model, dataloader, device) for name, model in models.items()}


test = predict(splits.test)
for name, strategy in {"probe": "feature_extraction", "partial": "partial"}.items():
    text = evaluation.format_accuracy(test[name].correct, 720)
    print(f"{name:<8} test {text}, the table's mean {mean(charts[strategy], 'test'):.3f}")
    assert abs(test[name].accuracy - mean(charts[strategy], "test")) < 0.035

# %% [markdown] slideshow={"slide_type": "slide"}
# They do: that is what the table's ± promised.
#
# ## Which mistakes?
#
# A **confusion matrix** counts each true class (row) by the answer (column).

# %% alt="Confusion matrix of the 12 kinds of chart; nearly all of the counts are on the diagonal." slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 5.4), layout="constrained")
shown = {"display_labels": splits.class_names, "xticks_rotation": 60, "colorbar": False}
labels, predicted = test["partial"].labels, test["partial"].predicted
matrix = ConfusionMatrixDisplay.from_predictions(labels, predicted, cmap="Blues", ax=axis, **shown)
counts = matrix.confusion_matrix
assert counts.sum() == 720 and counts.trace() == test["partial"].correct

# %% [markdown]
# The diagonal is right; what is off it are mostly neighbours in meaning, such as bars and
# histograms, lines and areas. For each class, **recall** asks how many of its pictures were found,
# and **precision** how many of the answers that name it were right.

# %% slideshow={"slide_type": "subslide"}
print(evaluation.per_class_table(labels, predicted, splits.class_names))

# %% [markdown]
# Look at the intervals before you call a class hard: 60 pictures leave some ten points of room, and
# most classes overlap. Now the mistakes of which the model is surest.

# %% alt="Six test charts that the model got wrong, each with its answer, the answer's probability and the truth." slideshow={"slide_type": "subslide"}
confidence = test["partial"].probabilities.max(dim=1).values
worst = torch.where(predicted == labels, 0, confidence).topk(6).indices.tolist()
utils.plot_predictions(
    [splits.test[index][0] for index in worst],
    labels[worst],
    test["partial"].probabilities[worst],
    splits.class_names,
);

# %% [markdown] slideshow={"slide_type": "slide"}
# Above each: the answer, its probability, and the truth below. Pictures like these are where to
# look for wrong labels first, then for what the training set lacks.
#
# ## Is it really better?
#
# Both models saw the same pictures, so compare them picture by picture. Only those count that one
# gets right and the other wrong. If the models were equal, each of these would be a fair coin:
# **McNemar's test** gives the probability of a split at least this uneven. The **bootstrap** draws
# the 720 pictures again and again, with replacement, and looks how the difference varies.
#
# **Predict:** partial against probe; and the probe against a probe that differs by its seed alone.
# Which comparison finds a difference?

# %% slideshow={"slide_type": "subslide"}
train_dataloader = data_setup.create_dataloader(splits.train, transform, shuffle=True, seed=1)
again = fine_tune(train_dataloader, 12, train.STRATEGIES["feature_extraction"], seed=1)
test_dataloader = data_setup.create_dataloader(splits.test, transform)
test["probe, seed 1"] = engine.predict(again, test_dataloader, device)
right = {name: result.predicted == result.labels for name, result in test.items()}
intervals = {}
for a, b in [("partial", "probe"), ("probe, seed 1", "probe")]:
    only_a, only_b = int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())
    intervals[a] = low, high = evaluation.bootstrap_difference(right[a], right[b])
    p_value = evaluation.mcnemar(right[a], right[b])
    print(f"{a} - {b}: {test[a].accuracy - test[b].accuracy:+.3f} [{low:+.3f}, {high:+.3f}]")
    print(f"  right alone: {only_a} against {only_b}, p = {p_value:.2g}")
assert intervals["partial"][0] > 0.01
assert intervals["probe, seed 1"][0] < 0.005 and intervals["probe, seed 1"][1] > -0.005

# %% [markdown] slideshow={"slide_type": "slide"}
# The first interval lies clearly above zero. The second reaches to zero: two seeds make models that
# disagree on some pictures, and that is all. A table of single runs would have ranked them.
#
# ## Does 90 % mean 90 %?
#
# The highest probability is the model's **confidence**. A model is **calibrated** if it is right in
# 90 % of the cases where it says 90 %. The **expected calibration error** (ECE, [Guo et al.
# 2017](https://arxiv.org/abs/1706.04599)) sorts answers by confidence into bins and averages the
# gap between confidence and accuracy. **Temperature scaling** divides all logits by one number T,
# fitted on validation: above 1 it makes the model more modest, below 1 bolder. No answer changes.

# %% slideshow={"slide_type": "subslide"}
shifted_pictures = data_setup.load_split(splits.folder / "shifted", splits.class_names)
shifted = predict(shifted_pictures)
ece, scaled, change = evaluation.expected_calibration_error, {}, {}
for name in models:
    T = evaluation.fit_temperature(*val[name])
    for split, (logits, truth) in {"test": test[name], "shifted": shifted[name]}.items():
        scaled[name, split] = (logits / T).softmax(dim=1)
        before, after = ece(logits.softmax(dim=1), truth), ece(scaled[name, split], truth)
        change[name, split] = after - before
        print(f"{name:<8} T = {T:.2f}, {split:<8} ECE {before:.3f} -> {after:.3f}")

# %% alt="Three reliability diagrams of the probe: test, with points above the diagonal; test with T fitted, near it; shifted with T fitted, below it." slideshow={"slide_type": "subslide"}
evaluation.plot_reliability(
    {
        "Test": (test["probe"].probabilities, labels),
        "Test, T fitted": (scaled["probe", "test"], labels),
        "Shifted, T fitted": (scaled["probe", "shifted"], shifted["probe"].labels),
    }
)
assert change["probe", "shifted"] > 0  # bolder, where it should be more modest

# %% [markdown] slideshow={"slide_type": "slide"}
# The probe's points lie above the diagonal: a head stopped after 20 epochs is too modest, so T is
# below 1. With it, the points of the test split lie around the diagonal. The third panel shows
# pictures in styles that training never saw, and there the same T makes the model boast: its points
# fall below the diagonal. A temperature is worth as much as the validation pictures resemble what
# comes later.
#
# ## When the world changes
#
# Those pictures are `shifted/`: the same 12 classes, but dark, hand-drawn, as photos, squeezed.
# [Kumar et al. 2022](https://arxiv.org/abs/2202.10054) found that full fine-tuning, better on data
# like its training data, can be worse than a probe under shift, because it distorts features.
#
# **Predict:** which strategy loses fewest points from test to shifted here?

# %% slideshow={"slide_type": "subslide"}
for strategy, runs in charts.items():
    test_mean, shifted_mean = mean(runs, "test"), mean(runs, "shifted")
    low, high = interval(runs, "shifted")
    print(f"{strategy:<18}  {test_mean:.3f} -> {shifted_mean:.3f} [{low:.3f}, {high:.3f}]"
          f"  loses {test_mean - shifted_mean:.3f}")
assert mean(charts["full"], "shifted") > mean(charts["feature_extraction"], "shifted") + 0.02

# %% [markdown]
# Here it is the other way round: the probe loses more than the models that adapted to charts. Their
# analysis supposes pretrained features that already fit the task, and features of photos fit charts
# less well. Among the models that adapted, partial loses least, as Kumar would have it; compare the
# intervals. A claim travels no farther than the domains it was measured on.
#
# One average hides where a model fails. Here are the two live models on each style.

# %% slideshow={"slide_type": "subslide"}
styles = np.array([path.stem.split("_")[1] for path, _ in shifted_pictures.samples])
print("pictures of a style:", set(np.unique(styles, return_counts=True)[1].tolist()))
for style in np.unique(styles):
    cells = [result.predicted == result.labels for result in shifted.values()]
    print(f"{style:<12}", *(f"{name} {cell[styles == style].float().mean():.2f}"
                           for name, cell in zip(shifted, cells)), sep="  ")

# %% [markdown] slideshow={"slide_type": "slide"}
# With 36 pictures of a style, only large gaps mean something.
#
# ## Where does it look?
#
# **Grad-CAM** ([Selvaraju et al. 2017](https://arxiv.org/abs/1610.02391)) weights the last feature
# maps by how much each raises a class's logit, and adds them up. To see what it is good for we need
# a model that is wrong in a known way. So let a trap be set: a publisher prints its logo in the
# corner of every histogram, and our 20 training pictures are its own. To speak for or against the
# trap, a second probe learns from the same pictures without the logo.

# %%
def only(pictures, names):
    """Prepare the pictures of some classes, labelled by their position in `names`."""
    wanted = [pictures.class_names.index(name) for name in names]
    return [(transform(image), wanted.index(label)) for image, label in pictures if label in wanted]


def stamp(image):
    """Print a checkered logo of 40 x 40 pixels into the bottom right corner."""
    squares = torch.arange(40) // 5
    checks = ((squares[:, None] + squares) % 2) * 2.0 - 1
    image = image.clone()
    image[:, -40:, -40:] = torch.stack([checks, checks, torch.ones(40, 40)])
    return image

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** both probes then see bar charts that bear the logo. How many does each still call
# bars?

# %% slideshow={"slide_type": "subslide"}
few = only(splits.train.few(10), ["bar", "histogram"])
trapped = [(stamp(image) if label == 1 else image, label) for image, label in few]
bars = [image for image, label in only(splits.test, ["bar", "histogram"]) if label == 0]
strategy, heat = replace(train.STRATEGIES["feature_extraction"], epochs=40), {}
for name, pictures in {"no logos": few, "logos on histograms": trapped}.items():
    model = fine_tune(DataLoader(pictures, batch_size=8, shuffle=True), 2, strategy)
    own = engine.evaluate(model, DataLoader(pictures, batch_size=8), device)
    result = engine.evaluate(model, DataLoader([(stamp(image), 0) for image in bars], 32), device)
    heat[name] = [evaluation.grad_cam(model, model.features[-1], stamp(i), 1) for i in bars[:20]]
    corner = torch.stack([h[64:, 64:].sum() / h.sum().clamp(min=1e-9) for h in heat[name]]).mean()
    print(f"{name:<20} own pictures {own.accuracy:.2f}, bars with a logo {result.accuracy:.2f}, "
          f"evidence in the corner {corner:.2f}")
assert own.accuracy == 1 and result.accuracy < 0.4 and corner > 0.4

# %% slideshow={"slide_type": "subslide"}
images = [stamp(image) for image in bars[:6]]
titles = ["no logos in training"] * 6 + ["logos in training"] * 6
maps = heat["no logos"][:6] + heat["logos on histograms"][:6]
evaluation.plot_grad_cam(images + images, maps, titles);

# %% [markdown] slideshow={"slide_type": "slide"}
# Bar charts that bear the logo, with the evidence for *histogram* in orange. In the upper row, the
# probe from clean pictures finds what evidence there is between and above the bars, and none in the
# corner. Below, the trapped one looks at the logo, and calls most of these bars histograms, though
# it is perfect on its own pictures. No accuracy on data from
# the same source would have shown it. But Grad-CAM is coarse, 4 × 4 cells here: it can raise a
# suspicion; the test with and without the logo proves it.
#
# ## Saying "I do not know"
#
# A model may **abstain**: answer where it is confident, and leave the others to a person.

# %% alt="Accuracy of the answers against the share of the test pictures answered: for probe and partial, accuracy rises as the share falls." slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, color, line in [("probe", utils.ORANGE, "--"), ("partial", utils.BLUE, "-")]:
    sure = test[name].probabilities.max(dim=1).values
    share, accuracy = evaluation.coverage_curve(sure, right[name])
    axis.plot(share[50:], accuracy[50:], line, color=color, label=name)
    assert accuracy[359] > test[name].accuracy + 0.01
axis.set(xlabel="Share of the test pictures answered", ylabel="Accuracy of the answers")
axis.grid(alpha=0.3)
axis.legend();

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read from right to left: whoever answers fewer pictures is right more often. But a softmax must
# name one of 12 classes, even for a portrait. We set the threshold on validation, so that 90 % of
# its charts are answered.
#
# **Predict:** of crops from photos, noise and plain pages, which belong to no class, how many get
# an answer?

# %% alt="Nine pictures that belong to no class: three crops from photos, three of noise, three plain pages." slideshow={"slide_type": "subslide"}
rng = np.random.default_rng(0)
hopper = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
photos = [hopper, *(Image.fromarray(pixels) for pixels in load_sample_images().images)]


def crop(photo):
    side = int(rng.uniform(0.3, 0.9) * min(photo.size))
    left, top = rng.integers(photo.width - side + 1), rng.integers(photo.height - side + 1)
    return photo.crop((left, top, left + side, top + side))


noise = rng.integers(0, 256, (60, 150, 150, 3), dtype=np.uint8)
foreign = {
    "photos": [crop(photos[number % 3]) for number in range(60)],
    "noise": [Image.fromarray(pixels) for pixels in noise],
    "plain pages": [Image.new("RGB", (150, 150), tuple(c)) for c in noise[:, 0, 0].tolist()],
}
samples = [picture for pictures in foreign.values() for picture in pictures[:3]]
utils.plot_images(samples, [kind for kind in foreign for _ in range(3)], columns=9);

# %% slideshow={"slide_type": "subslide"}
answered = {}
for name, model in models.items():
    threshold = val[name].probabilities.max(dim=1).values.quantile(0.1)
    charts_kept = test[name].probabilities.max(dim=1).values >= threshold
    accuracy = right[name][charts_kept].float().mean()
    print(f"{name}: charts answered {charts_kept.float().mean():.2f}, accuracy {accuracy:.3f}")
    for kind, pictures in foreign.items():
        dataloader = DataLoader([(transform(picture), 0) for picture in pictures], batch_size=32)
        sure = engine.predict(model, dataloader, device).probabilities.max(dim=1).values
        answered[name, kind] = (sure >= threshold).float().mean().item()
        print(f"  {kind:<12} answered {answered[name, kind]:.2f}")
    assert accuracy > test[name].accuracy
assert answered["probe", "photos"] > 0.5

# %% [markdown] slideshow={"slide_type": "slide"}
# The probe answers most of the photo crops, and confidently: softmax confidence compares the 12
# classes with one another and never asks "or none of these?". The threshold still earns something
# on charts: what is answered is right more often. The partial model lets fewer through, but nobody
# trained it to, and another seed may differ. If strange pictures can reach your model, collect
# some, measure as here, or train a class *other* on them.
#
# ## A decision guide
#
# First, what the guide leans on.

# %% slideshow={"slide_type": "subslide"}
def gain(a, b):
    """Return how much better a is than b: on charts (test), on ants and bees (validation)."""
    return (
        mean(charts[a], "test") - mean(charts[b], "test"),
        mean(hymenoptera[a], "val") - mean(hymenoptera[b], "val"),
    )


steps = ["scratch", "feature_extraction", "partial", "full", "lp_ft"]
for b, a in zip(steps, steps[1:]):
    times = mean(charts[a], "cpu_seconds") / mean(charts[b], "cpu_seconds")
    print("{:<18} - {:<18} charts {:+.3f}, ants and bees {:+.3f}".format(a, b, *gain(a, b)),
          f"for {times:.1f} x the time on charts")
assert min(gain("feature_extraction", "scratch")) > 0.15
assert gain("partial", "feature_extraction")[0] > 0.02 > gain("partial", "feature_extraction")[1]
assert abs(gain("full", "partial")[0]) < 0.03

# %% [markdown] slideshow={"slide_type": "slide"}
# | Your domain | Few labels (up to about 50 a class) | More labels, more time |
# |---|---|---|
# | near ImageNet's photos | probe; stop there unless validation says more | then partial |
# | far from them | probe, then partial: most of the gain for part of the price | LP-FT or full |
# | no suitable pretraining | scratch is a last resort: collect labels | scratch |
#
# The left column rests on the ladder: 40 charts a class, some hundred photos a class. The right column
# is advice that these tables do not cover; measure it on your data, with seeds and intervals.
#
# ## Recap
#
# - You read five strategies in two domains, and chose by data, domain and cost.
# - You found where a model errs, how far to trust its confidence, and where it looks.
# - You told a difference from none, by comparing two models on the same pictures.
#
# ## Check yourself
#
# 1. Model A is right on 690 of 720 test pictures, B on 683. What else must you know to compare
#    them?
#    - **a** · Nothing: 690 is more.
#    - **b** · Their training accuracies.
#    - **c** · How many each gets right alone, and how much other seeds vary.
#
# <details><summary>Answer</summary>
#
# **c.** The pictures on which both agree say nothing about the difference. *a:* Chance alone gives
# such gaps. *b:* They say how well each knows the pictures it has seen.
# </details>
#
# 2. Why is the temperature fitted on validation and not on test?
#    - **a** · The test split is too small.
#    - **b** · It is a choice made by looking at labels.
#    - **c** · The test split is shifted.
#
# <details><summary>Answer</summary>
#
# **b.** Made on the test split, the calibration error reported for it would be too small. *a:* It
# is twice as large here, and size is not the point. *c:* Only the split of that name is.
# </details>
#
# 3. Grad-CAM lights up the right object. Is the model right for the right reason?
#    - **a** · Not proved: change the suspected cause and test.
#    - **b** · Yes, it looks at the object.
#    - **c** · Yes, if the probability is high as well.
#
# <details><summary>Answer</summary>
#
# **a.** The map shows coarsely where evidence lies, not what it is. *b:* A logo *on* the object
# lights up at the same place. *c:* A shortcut makes models confident.
# </details>
#
# 4. You now prefer another rung, having seen its test accuracy. What is that test split now?
#    - **a** · Still a test split: nothing was trained on it.
#    - **b** · A training split.
#    - **c** · A validation split.
#
# <details><summary>Answer</summary>
#
# **c.** For an honest figure you need new pictures. *a:* A choice was made by it; notebook 08
# measures what that is worth. *b:* No weights were fitted to it.
# </details>
#
# ## Exercises
#
# [Five exercises](exercises/05_evaluation.ipynb) mark themselves. Here, predict, then run:
#
# 1. Make the logo grey, then 20 pixels wide. When does the trap stop working?
# 2. Abstain by the gap between the two highest probabilities. Do fewer photos pass?
# 3. Load a photo folder instead of `"charts"`, without `size`. The tables, `shifted` and the logo's
#    classes stay the charts'; skip those cells. Which classes do your photos confuse?
#
# Five ways in which evaluations fool their authors are reproduced in the
# [bug clinic](08_bug_clinic.ipynb).
