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
# You know several ways to train, and one of them has to go to work. It will sort the figures of a
# pile of reports and hand each one to a program that reads numbers off that kind of chart. A line
# chart sorted under *scatter* gives wrong numbers, without any error message. So people will ask
# you: *which way should we train?* and *how many of its answers will be wrong?* The validation split
# answers the first question, the test split the second, in this order.
#
# **You will**
# - choose between five ways to train on the validation split, with paired tests and with cost;
# - open the test split once, for the chosen one, and see which mistakes it makes;
# - tell a real difference between two models from the luck of a seed.
#
# **You need** the words of notebooks 02 to 04: probe, partial and full fine-tuning, LP-FT, the 95%
# interval and the paired difference.
#
# **Time** about a minute on a 2-core CPU.

# %%
import csv
from collections import Counter
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import ConfusionMatrixDisplay

from going_modular import data_setup, engine, evaluation, model_builder, train, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The plan, before we look
#
# Write down how you will decide *before* you see a number. Afterwards it is too easy to find a rule
# that likes the winner. Ours:
#
# 1. Compare the ways to train **on validation**, each at its usual rates, as a mean over seeds, and
#    find the best.
# 2. Strike out every way that validation shows to be more than one point worse than the best. Of
#    those left, take the cheapest. (What a point is worth is for you to say, not for statistics.)
# 3. Then open **test**, once, for three numbers: the accuracy of the chosen way, its difference
#    from the probe, and its difference from the best on validation.
#
# ## The ladder, on validation
#
# The five ways are the rungs of a ladder, from nothing pretrained to everything trained, with one
# architecture and the same data. Five seeds of each take too long for a lesson, so a table holds the
# results: one row per run, and in it *which* images that run named rightly. (The tool is
# `tests/by_hand/ladder.py`. It calls `python -m going_modular.train --augment none`, where the probe
# goes by the name `feature_extraction`.) The **usual rates** are what this command takes if you do
# not ask for others.

# %%
NAMES = {
    "scratch": "scratch",
    "feature_extraction": "probe",
    "partial": "partial",
    "lp_ft": "LP-FT",
    "full": "full",
}


def read_ladder(data):
    """Read a table of runs: one dictionary per run."""
    with open(utils.data_folder() / f"ladder_{data}.csv", newline="") as file:
        return list(csv.DictReader(file))


def right(runs, split="val"):
    """Return (runs, images): 1 where a run named an image rightly, else 0."""
    return np.array([list(run[f"{split}_right"]) for run in runs]).astype(int)


charts_table, photos_table = read_ladder("charts"), read_ladder("hymenoptera")
print(len(charts_table), "runs on charts,", len(photos_table), "on photos; the usual rates:")
for key, name in NAMES.items():
    usual = train.STRATEGIES[key]
    print(f"{name:<8} head {usual.lr}, trunk {usual.trunk_lr}, {usual.epochs} epochs")


# %% slideshow={"slide_type": "subslide"}
# @title Helpers: sort the runs into rungs, and print a row for each
def at_usual_rates(run):
    """Compare a run's rates with the usual ones. (An empty cell: no rate of its own for the trunk.)"""
    usual = train.STRATEGIES[run["strategy"]]
    return (float(run["lr"]), run["trunk_lr"]) == (usual.lr, str(usual.trunk_lr or ""))


def by_rung(table):
    """Sort the runs at the usual rates into rungs; of each, keep those with the most epochs."""
    rungs = {}
    for strategy, name in NAMES.items():
        runs = [run for run in table if run["strategy"] == strategy and at_usual_rates(run)]
        most = max((int(run["epochs"]) for run in runs), default=0)
        rungs[name] = [run for run in runs if int(run["epochs"]) == most]
    return {name: runs for name, runs in rungs.items() if runs}


def mean(runs, column):
    return np.mean([float(run[column]) for run in runs])


def show(rungs):
    print(f"{'':<8}  seeds  trainable  seconds    MB  validation       95 % interval")
    for name, runs in rungs.items():
        shares = right(runs).mean(axis=1)
        spread = f"± {shares.std(ddof=1):.3f}" if len(runs) > 1 else " " * 7
        total = right(runs).shape[1]
        low, high = evaluation.wilson_interval(round(shares.mean() * total), total)
        costs = [mean(runs, column) for column in ("trainable", "cpu_seconds", "peak_megabytes")]
        print(f"{name:<8}  {len(runs):>5}  {costs[0]:>9,.0f}  {costs[1]:>7.0f}  {costs[2]:>4.0f}"
              f"  {shares.mean():.3f} {spread}  {low:.3f} to {high:.3f}")


charts = by_rung(charts_table)
show(charts)

# %% [markdown] slideshow={"slide_type": "subslide"}
# (*None*: the probe trains no trunk, and scratch trains it at the head's rate; on photos it had 50
# epochs.) *Seconds* are processor time of the whole command, *MB* the most memory that it held. *±* is the
# standard deviation over seeds; the interval is about other validation images.
#
# Charts are far from the photos that the network learned from. For a task near them, the same was
# measured on photos of ants and bees, the data set of PyTorch's own tutorial.
#
# **Predict:** on charts, partial is ahead of the probe. On ants and bees, which rungs will be ahead
# of the probe, and by how much?

# %% slideshow={"slide_type": "subslide"}
photos = by_rung(photos_table)
show(photos)

# %% [markdown]
# Don't compare the intervals of two rows: all runs saw the same images, so compare **paired**, as in
# notebook 03. For each image, take the share of seeds that named it rightly, and subtract the
# probe's share.

# %% slideshow={"slide_type": "subslide"}
def difference(a, b, split="val"):
    """Write accuracy a - accuracy b with its paired 95 % interval."""
    return evaluation.format_difference(right(a, split).mean(0), right(b, split).mean(0))


for name, rungs in {"charts": charts, "ants and bees": photos}.items():
    for rung in [rung for rung in rungs if rung != "probe"]:
        print(f"{name:<13}  {rung:<7} - probe  {difference(rungs[rung], rungs['probe'])}")

# %% alt="Paired difference from the probe for partial, LP-FT and full, on charts and on ants and bees, with 95% intervals." slideshow={"slide_type": "subslide"}
# @title Figure: who beats the probe?
figure, axes = plt.subplots(1, 2, figsize=(10, 2.6), layout="constrained", sharex=True, sharey=True)
for axis, (title, rungs) in zip(axes, [("Charts", charts), ("Ants and bees", photos)]):
    shown = ("partial", "LP-FT", "full")
    for row, rung in [(row, rung) for row, rung in enumerate(shown) if rung in rungs]:
        a, b = right(rungs[rung]), right(rungs["probe"])
        bounds = evaluation.bootstrap_difference(a.mean(0), b.mean(0))
        axis.plot(bounds, [row, row], color=utils.BLUE, linewidth=7, alpha=0.35,
                  solid_capstyle="butt")
        axis.plot(a.mean() - b.mean(), row, "o", color=utils.BLUE)
    axis.axvline(0, color="0.4", linewidth=1)
    axis.set(title=title, yticks=range(3), yticklabels=shown)
    axis.set_xlabel("Validation accuracy − the probe's")
    axis.grid(axis="x", alpha=0.3)
axes[0].set_ylim(2.6, -0.6);

# %% [markdown] slideshow={"slide_type": "slide"}
# Dots are differences of mean accuracies, bars their paired 95% intervals: about other validation
# images, with these seeds. On charts, every way of fine-tuning beats the probe by several points. On
# ants and bees none of them does: all dots lie left of zero, and for LP-FT and full the whole
# interval does.
#
# Partial's interval there includes zero. That does not say "no effect". Read its ends: partial may
# be a few points worse than the probe, and a gain beyond the upper end is excluded.
#
# ## Did the control learn anything?
#
# A gap to *scratch* says what pretraining brings, provided that scratch was really trained. There
# are 70 ants and 83 bees in validation, the ants first.
#
# **Predict:** a network that answers *bees* to everything: how many of 153 does it get right?

# %% slideshow={"slide_type": "subslide"}
probe_runs = photos["probe"][:1]
for run in [run for run in photos_table if run["strategy"] == "scratch"] + probe_runs:
    hits = right([run])[0]
    print(f"{NAMES[run['strategy']]:<8} {run['epochs']} epochs, seed {run['seed']}: "
          f"{hits[:70].sum():>2} of 70 ants, {hits[70:].sum():>2} of 83 bees, {hits.sum()} of 153")
for run in charts["scratch"]:
    per_class = right([run])[0].reshape(12, 30).sum(axis=1)  # the images are sorted by class
    print(f"charts, scratch, seed {run['seed']}: {per_class.min()} to {per_class.max()} of 30 per class")

# %% [markdown] slideshow={"slide_type": "slide"}
# It gets 83 right, more than half, and it has learned nothing. An early version of this table had
# just such a control: its three seeds, trained for a quarter of the time, answered *ants*, *bees* and
# *ants* to every photo, and the "gap" to it meant nothing. A control that failed to train is no
# control. The one in the table now names both kinds, so it learned something; how much, its line says.
# So did the five on charts: each gets some of every class right, where a constant answer would get all
# of one class and none of the others.
#
# ## Is it the learning rate?
#
# "Fine-tuning won nothing on ants and bees" was measured at one rate for the trunk, 5e-4. Perhaps it
# was the wrong one! So each rung was run at several rates, the far ones with one or two seeds. For
# partial and full we vary the rate of the trunk, for the probe that of its head.
#
# **Predict:** does the verdict on ants and bees turn around at a better rate?

# %% alt="Validation accuracy against the learning rate for probe, partial and full, on charts and on ants and bees; a point per seed." slideshow={"slide_type": "subslide"}
# @title Figure: validation accuracy over learning rates
def by_rate(table, rung):
    """Sort a rung's runs by the rate that was varied."""
    rates = {}
    for run in table:
        if NAMES[run["strategy"]] == rung:
            rates.setdefault(float(run["trunk_lr"] or run["lr"]), []).append(run)
    return dict(sorted(rates.items()))


def best_rate(table, rung):
    """Choose the rate with the highest mean accuracy on validation."""
    rates = by_rate(table, rung)
    return max(rates, key=lambda rate: right(rates[rate]).mean())


figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharex=True, sharey=True)
styles = {"probe": (utils.ORANGE, "s--"), "partial": (utils.BLUE, "o-"), "full": (utils.GREEN, "^-")}
for axis, (title, table) in zip(axes, [("Charts", charts_table), ("Ants and bees", photos_table)]):
    for rung, (color, style) in styles.items():
        rates = by_rate(table, rung)
        means = [right(runs).mean() for runs in rates.values()]
        axis.plot(list(rates), means, style[1:], color=color)
        for rate, runs in rates.items():
            axis.plot([rate] * len(runs), right(runs).mean(axis=1), style[0], color=color)
        place = -1 if rung == "probe" else 0
        axis.annotate(rung, (list(rates)[place], means[place]), color=color, va="center",
                      ha="left" if place else "right", xytext=(8 if place else -8, 0),
                      textcoords="offset points")
    axis.set(title=title, xscale="log", xlabel="Learning rate of the trunk (probe: of the head)")
    axis.grid(alpha=0.3)
axes[0].set(ylabel="Validation accuracy", xlim=(2e-6, 2e-1));

# %% [markdown]
# One point per seed, lines through their means. Now partial and full at their best rates, against
# the probe at its usual one.

# %% slideshow={"slide_type": "subslide"}
for name, table, rungs in [("charts", charts_table, charts), ("ants and bees", photos_table, photos)]:
    for rung in ("partial", "full"):
        rates, rate = by_rate(table, rung), best_rate(table, rung)
        edge = " (edge of the grid)" if rate in (min(rates), max(rates)) else ""
        print(f"{name:<13}  {rung:<7} at its best rate {rate:g} - probe at its usual rate  "
              f"{difference(rates[rate], rungs['probe'])}{edge}")

# %% [markdown] slideshow={"slide_type": "slide"}
# On charts the trunk's rate matters: from 5e-5 to 5e-4, each step up gains, and partial is best far
# above its usual rate. On ants and bees no rate lifts the mean of partial or full above the probe's.
#
# The comparison even favours fine-tuning: its rate was picked on the very images on which the two
# are then compared, while the probe kept its usual one. At none of the rates tried, some with one
# seed, does fine-tuning win on ants and bees. (Epochs and the head's rate were not varied.)
#
# On charts, partial gains more over the probe at its best rate than at its usual one. But our plan
# compares the ways at their usual rates, and we keep to it: of many rates, the best on these images
# is also the luckiest, and the other ways were not given as many. For your own task, put the rates
# to try into the plan.
#
# ## Choose
#
# Now our rule, in code. It sees validation and seconds, and nothing else. "Shown to be more than a
# point worse" means: the whole 95% interval of *best − this one* lies above 0.01. So the burden of
# proof is on the expensive one: with few validation images, the cheap one stays.


# %% slideshow={"slide_type": "subslide"}
def choose(rungs, worth=0.01):
    """Return the best rung, and the cheapest that is not shown to be worse by more than `worth`."""
    shares = {name: right(runs).mean(axis=0) for name, runs in rungs.items()}
    best = max(shares, key=lambda name: shares[name].mean())
    good = [
        name
        for name in rungs
        if evaluation.bootstrap_difference(shares[best], shares[name])[0] <= worth
    ]
    return best, min(good, key=lambda name: mean(rungs[name], "cpu_seconds"))


for name, rungs in {"charts": charts, "ants and bees": photos}.items():
    best, chosen = choose(rungs)
    print(f"{name}: best {best}, chosen {chosen}")

# %% [markdown]
# How close is it? Here is each rung against the chosen one: first as a mean over the seeds, then
# seed 0 alone, with McNemar's p-value.

# %% slideshow={"slide_type": "subslide"}
chosen = choose(charts)[1]
for name in [name for name in charts if name not in (chosen, "scratch")]:
    times = mean(charts[name], "cpu_seconds") / mean(charts[chosen], "cpu_seconds")
    p = evaluation.mcnemar(right(charts[name])[0], right(charts[chosen])[0])
    print(f"{name:<5} - {chosen}  {difference(charts[name], charts[chosen])}"
          f"   seed 0 alone: p = {p:.2g}   {times:.1f} x the seconds")

# %% [markdown]
# Full has the highest mean on charts, for several times the seconds, and validation does not show
# partial to be more than a point behind it. So partial is chosen. LP-FT, the head first and then
# everything, is not ahead of full, nor is its ± in the first table smaller. (Five seeds tell little
# about a spread.)

# %%
# @title Checks: what the sections on validation say
def gain(runs, rungs):
    return evaluation.bootstrap_difference(right(runs).mean(0), right(rungs["probe"]).mean(0))


for rung in [rung for rung in ("partial", "full") if rung in charts]:
    rates, best = by_rate(charts_table, rung), best_rate(charts_table, rung)
    means = [right(rates[rate]).mean() for rate in (5e-5, 1.6e-4, 5e-4)]
    assert means == sorted(means)
    assert gain(charts[rung], charts)[0] > 0.01 and gain(rates[best], charts)[0] > 0.01
for rung in [rung for rung in ("partial", "full") if rung in photos]:
    tuned = by_rate(photos_table, rung)[best_rate(photos_table, rung)]
    for low, high in (gain(photos[rung], photos), gain(tuned, photos)):
        assert low < 0 and high < 0.03
assert max(gain(photos[rung], photos)[1] for rung in ("LP-FT", "full")) < 0
assert all(right([run])[0].reshape(12, 30).sum(axis=1).min() > 0 for run in charts["scratch"])
assert best_rate(charts_table, "partial") > 2e-3
assert "scratch" not in charts or gain(charts["scratch"], charts)[1] < -0.15
assert choose(photos)[1] == "probe" and chosen == "partial"

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Open the test split
#
# The choice is made, so now we may look. To see single mistakes we need the models themselves. The
# probe and the chosen rung are cheap enough to train here, with the command line's own settings.


# %%
def fine_tune(dataloader, classes, rung):
    """Train as the table's runs, with a sixth seed: AdamW, warm-up, cosine; frozen work done once."""
    strategy = next(train.STRATEGIES[key] for key, name in NAMES.items() if name == rung)
    utils.seed_everything(5)  # the table has 0 to 4
    model = model_builder.create_model("efficientnet_lite0", classes)
    model_builder.unfreeze(model, last=train.last_blocks(model, strategy))
    rates = {"lr": strategy.lr, "trunk_lr": strategy.trunk_lr, "weight_decay": 1e-4}
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, **rates))
    steps = strategy.epochs * len(dataloader)
    schedule = engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10)
    options = {"epochs": strategy.epochs, "device": device, "scheduler": schedule}
    engine.train(
        model, dataloader, optimizer=optimizer, cache_frozen=True, verbose=False, **options
    )
    return model


def loader(part, size, **options):
    transform = data_setup.create_transform("efficientnet_lite0", size=size)
    return data_setup.create_dataloader(part, transform, **options)


# %% slideshow={"slide_type": "subslide"}
splits = data_setup.load("charts")
print(len(splits.train) // 12, "training images per class")
models, val = {}, {}
for rung in ("probe", chosen):
    train_dataloader = loader(splits.train, 128, shuffle=True, seed=5)
    models[rung] = fine_tune(train_dataloader, 12, rung)
    val[rung] = engine.predict(models[rung], loader(splits.val, 128), device)
    print(f"{rung:<8} validation", evaluation.format_accuracy(val[rung].correct, 360))

# %% [markdown]
# The photos of ants and bees are not in this repository; `data_setup.load("hymenoptera")` downloads
# them. Where they are at hand, the probe trains on them here, too. Else we read the table.

# %%
if (utils.data_folder() / "hymenoptera").is_dir():
    ants_and_bees = data_setup.load("hymenoptera")
    model = fine_tune(loader(ants_and_bees.train, 224, shuffle=True, seed=5), 2, "probe")
    result = engine.predict(model, loader(ants_and_bees.val, 224), device)
    print("photos, live probe:", evaluation.format_accuracy(result.correct, 153))
print(f"photos, the table's probes: {right(photos['probe']).mean():.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** the chosen rung won on validation. Will its test accuracy be clearly lower?

# %% slideshow={"slide_type": "subslide"}
test_dataloader = loader(splits.test, 128)
test = {rung: engine.predict(model, test_dataloader, device) for rung, model in models.items()}
for rung, result in test.items():
    shares = right(charts[rung], "test").mean(axis=1)
    print(f"{rung:<8} test {evaluation.format_accuracy(result.correct, 720)},"
          f" the table's runs {shares.min():.3f} to {shares.max():.3f}")

# %% [markdown]
# It is not. (A choice can flatter; notebook 08 measures by how much.) The live models are one more
# seed each. About one seed in three falls outside mean ± standard deviation, with nothing wrong.
#
# But mind where the test images come from. All our charts are *drawn*, by one script. A pile of real
# reports would be harder; [notebook 10](10_can_you_trust_it.ipynb) tries other styles of chart.
#
# ## Which mistakes?
#
# A **confusion matrix** counts each true class (row) by the answer (column).

# %% alt="Confusion matrix of the 12 kinds of chart; nearly all of the counts are on the diagonal." slideshow={"slide_type": "subslide"}
labels, predicted = test[chosen].labels, test[chosen].predicted
figure, axis = plt.subplots(figsize=(6, 5.4), layout="constrained")
shown = {"display_labels": splits.class_names, "xticks_rotation": 60, "colorbar": False}
ConfusionMatrixDisplay.from_predictions(labels, predicted, cmap="Blues", ax=axis, **shown);

# %% [markdown]
# Right answers are on the diagonal. Let's count the pairs of classes that it mixes up.

# %% slideshow={"slide_type": "subslide"}
wrong = (labels != predicted).nonzero().flatten().tolist()
pairs = Counter(frozenset((int(labels[i]), int(predicted[i]))) for i in wrong)
most = pairs.most_common(4)
print(f"{len(wrong)} mistakes, {sum(number for _, number in most)} of them in four pairs of classes:")
for pair, number in most:
    print(f"  {number:>2}  {' and '.join(splits.class_names[label] for label in sorted(pair))}")

# %% [markdown]
# Over half of the mistakes lie in four of 66 possible pairs, and most of these are look-alikes: bars
# and histograms, lines and scatter plots, filled areas and lines.
#
# **Recall**: of the images of a class, how many were found? **Precision**: of the answers that name
# a class, how many were right?

# %% slideshow={"slide_type": "subslide"}
print(evaluation.per_class_table(labels, predicted, splits.class_names))

# %% [markdown]
# Before you call a class hard, look at its interval. With 60 images it is wide (scatter's recall:
# 0.758 to 0.931), and among twelve classes one must come last. Now the mistakes of which the model is surest.

# %% alt="Six test charts that the model got wrong, each with its answer, the answer's probability and the truth." slideshow={"slide_type": "subslide"}
confidence = test[chosen].probabilities.max(dim=1).values
worst = torch.where(predicted == labels, 0, confidence).topk(6).indices.tolist()
utils.plot_predictions(
    [splits.test[index][0] for index in worst],
    labels[worst],
    test[chosen].probabilities[worst],
    splits.class_names,
);

# %% [markdown] slideshow={"slide_type": "slide"}
# Above each: the answer with its probability, then the truth. In your own data, look here first for
# wrong labels, and then for what the training set lacks. Ours are right by construction, but some
# charts are two things at once, such as points with a line through them.
#
# ## Is it really better?
#
# The second number that we announced: the difference between the chosen rung and the probe, on test.
# First these two models: only those images count that one of them gets right and the other wrong.
# If the models were equally good, each of these would be a fair coin; McNemar's p-value says how
# often fair coins fall at least this unevenly.

# %% slideshow={"slide_type": "subslide"}
a, b = (test[rung].predicted == labels for rung in (chosen, "probe"))
print(f"only {chosen} right: {(a & ~b).sum()}, only the probe: {(b & ~a).sum()}, "
      f"p = {evaluation.mcnemar(a, b):.2g}")
print(f"{chosen} - probe, these two models: {evaluation.format_difference(a, b)}")
print(f"{chosen} - probe, the table's seeds: {difference(charts[chosen], charts['probe'], 'test')}")

# %% [markdown]
# The difference is real: both intervals lie well above zero.
#
# The last two lines answer two questions. The first is about two *models*: is this file better than
# that one? The second is about two *recipes*: will it be better when I train again? Each seed gives
# another model, so let's look at how far they lie apart.
#
# **Predict:** train the probe with two seeds, again and again. In how many of ten pairs does McNemar
# find a "significant" difference, p below 0.05?

# %% alt="Differences in test accuracy between pairs of runs: probe against probe, the chosen rung against itself, and the chosen rung against the probe." slideshow={"slide_type": "subslide"}
probes, others = right(charts["probe"], "test"), right(charts[chosen], "test")
comparisons = {
    "probe − probe": list(combinations(probes, 2)),
    f"{chosen} − {chosen}": list(combinations(others, 2)),
    f"{chosen} − probe": [(a, b) for a in others for b in probes],
}
figure, axis = plt.subplots(figsize=(8, 2.4), layout="constrained")
for row, (name, runs) in enumerate(comparisons.items()):
    gaps = [a.mean() - b.mean() for a, b in runs]
    significant = sum(evaluation.mcnemar(a, b) < 0.05 for a, b in runs)
    axis.plot(gaps, [row] * len(gaps), "o", color=utils.BLUE, alpha=0.5)
    print(f"{name}: {len(runs)} pairs, {min(gaps):+.3f} to {max(gaps):+.3f}, "
          f"p < 0.05 in {significant}")
axis.set(yticks=range(3), yticklabels=comparisons, ylim=(2.5, -0.5))
axis.set_xlabel("Difference in test accuracy")
axis.axvline(0, color="0.4", linewidth=1)
axis.grid(axis="x", alpha=0.3)

# %% [markdown]
# Two probes that differ by their seed alone are up to a point apart, and one of the ten pairs even
# passes as "significant". Those two *files* may well differ, but there is only one recipe: with one
# run each, we would have declared one recipe better than itself. In contrast, every single partial model beats
# every single probe. That is what a claim should look like: larger than the luck of a seed *and*
# larger than the luck of the test images.
#
# The third number is what our rule has cost. Full was best on validation, by too little for the rule.

# %% slideshow={"slide_type": "subslide"}
print("full - partial, validation:", difference(charts["full"], charts["partial"]))
print("full - partial, test:      ", difference(charts["full"], charts["partial"], "test"))

# %% [markdown]
# On test, with twice the images, full is ahead by about two points, and the interval excludes zero;
# that it is more than *one* point, the worth that we wrote down, even test does not show. So the rule
# saved nearly two thirds of the seconds, and it probably cost a point or two. We report that, and do
# not go back and choose full: then these images would have been validation images.

# %%
# @title Checks: what the sections on test say
low, high = evaluation.bootstrap_difference(
    right(charts["full"], "test").mean(0), right(charts["partial"], "test").mean(0)
)
assert choose(charts) == ("full", "partial") and 0 < low < 0.01 < high
assert mean(charts["partial"], "cpu_seconds") < 0.4 * mean(charts["full"], "cpu_seconds")
assert len(splits.class_names) * 11 / 2 == 66
assert sum(number for _, number in pairs.most_common(4)) >= 0.4 * len(wrong)
for rung, result in test.items():
    assert abs(result.accuracy - right(charts[rung], "test").mean()) < 0.035
assert evaluation.mcnemar(a, b) < 0.01 and (a & ~b).sum() > 1.5 * (b & ~a).sum()
assert all(a.mean() > b.mean() for a, b in comparisons[f"{chosen} − probe"])
assert max(abs(a.mean() - b.mean()) for a, b in comparisons["probe − probe"]) < 0.025


# %% [markdown] slideshow={"slide_type": "slide"}
# ## A decision guide
#
# One page, to print. It stands on validation and on cost; where test says something else, so do we.
#
# | | Ask yourself | If yes | What we saw |
# |---|---|---|---|
# | 1 | Is there a network pretrained on images? | Train the **probe** first. It costs seconds, and it is the number to beat. | probe − scratch on charts: about 0.3 |
# | 2 | Are your images like the photos it learned from, as ants and bees are? | Stop at the probe, unless your own validation split says otherwise. | partial − probe on ants and bees: no gain |
# | 3 | Are they unlike them, as our charts are? | Train the last third of the blocks too: **partial**. Try three rates for the trunk. | partial − probe on charts: several points |
# | 4 | Is one more point worth several times the seconds, and more memory? | Train everything: **full**. Try three rates here, too. | full − partial on charts: validation could not tell (−0.012 to +0.022); on test full was ahead by two points. LP-FT is not ahead of full. |
# | 5 | Can validation not tell two ways apart? | Take the cheaper one, or label more validation images. | Between ways that fine-tune, the intervals of the differences on charts are three to four points wide. |
# | 6 | Have you chosen? | Open **test**, once. Report the accuracy with its interval, and the mistakes. | |
#
# **What this stands on:** one network (EfficientNet-Lite0), two data sets, five seeds; 40 labelled
# images per class for charts, about a hundred per class for ants and bees; the choice on 360 and 153
# validation images.
#
# **What it does not say:** the two sets also differ in classes, labels and image size, so *near* and
# *far* fit what we saw and are not proved by it. ImageNet has ants and bees among its classes: nearer
# is not possible. For other networks, more labels, other domains: measure on your own validation
# split, paired, with seeds. The code is above.
#
# ## Recap
#
# - You chose between five ways to train on the validation split, with paired tests and with cost.
# - You opened the test split once, for the chosen one, and counted which mistakes it makes.
# - You told a real difference between two models from the luck of a seed.
#
# ## Check yourself
#
# 1. Model A is right on 690 of 720 test images, B on 683. What else must you know to compare them?
#    - **a** · Nothing: 690 is more.
#    - **b** · Their training accuracies.
#    - **c** · How many each gets right alone, and how much other seeds vary.
#
# <details><summary>Answer</summary>
#
# **c.** The images on which both agree say nothing about the difference. *a:* Two seeds of one
# recipe give such gaps. *b:* They say how well each knows the images it has seen.
# </details>
#
# 2. Partial − probe on a validation split: −0.015, interval from −0.045 to +0.012. What may you claim?
#    - **a** · The two are equally good.
#    - **b** · Partial gains at most about a point here, and it may lose several.
#    - **c** · Nothing: the interval includes zero.
#
# <details><summary>Answer</summary>
#
# **b.** The interval names the differences that fit what was seen. *a:* A loss of three points fits
# it as well. *c:* A gain of three points is excluded, and that is enough to save the training time.
# </details>
#
# 3. Your control from random weights gets 83 of 153 right. Validation has 83 bees. What do you do?
#    - **a** · Report the gap to the pretrained model.
#    - **b** · Look at its answers per class, and train it until it learns or say that it failed.
#    - **c** · Leave this seed out.
#
# <details><summary>Answer</summary>
#
# **b.** It probably answers *bees* to everything, which no training is needed for. *a:* The gap
# would be one to a failure. *c:* The next seed may answer *ants* to everything, and you would have
# chosen by the result.
# </details>
#
# 4. You opened test for all five rungs, and now prefer another one. What is that split now?
#    - **a** · Still a test split: nothing was trained on it.
#    - **b** · A training split.
#    - **c** · A validation split.
#
# <details><summary>Answer</summary>
#
# **c.** For an honest figure you need new images. *a:* A choice was made by it; notebook 08 measures
# what that is worth. *b:* No weights were fitted to it.
# </details>
#
# ## Exercises
#
# [Five exercises](exercises/05_evaluation.ipynb) mark themselves. Here, predict, then run:
#
# 1. Call `choose(charts, worth=...)` with 0, 0.02 and 0.1. When does the choice change, and which
#    value would you defend to the person who pays for the training?
# 2. Give `choose` one seed of each rung instead of five, seed by seed. How often does it choose the
#    same?
# 3. Load a folder of your own photos in place of `"charts"`, with size `None`, from *Open the test
#    split* on. The table's figures stay the charts'; skip those lines. Which classes do your photos
#    confuse?
#
# How far can you trust a single answer, and what happens when the images change? Go on with
# [10 · Can you trust it?](10_can_you_trust_it.ipynb) Five ways in which evaluations fool their
# authors are reproduced in the [bug clinic](08_bug_clinic.ipynb).
