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
# # 05 · Practise saying what a result allows you to claim

# %%
import math

import torch
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, Subset

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# We need two models to ask questions about: a probe trained on 5 images of each kind of chart, and
# one trained on 20, both at 64 pixels. `val` and `test` hold the logits and labels of both, for 10
# images of each kind.

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))


def features_of(images):
    dataloader = data_setup.create_dataloader(images, transform)
    return engine.extract_features(network, dataloader, device)


def train_probe(features):
    torch.manual_seed(0)
    head = nn.Linear(1280, 12)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    loader = DataLoader(features, batch_size=len(features))
    engine.train(head, loader, optimizer=optimizer, epochs=40, device=device, verbose=False)
    return head


images = splits.train.few(20)
features = features_of(images)
few = [images.samples.index(sample) for sample in splits.train.few(5).samples]
heads = {"5 of each": train_probe(Subset(features, few)), "20 of each": train_probe(features)}
loaders = [DataLoader(features_of(part.few(10)), 120) for part in (splits.val, splits.test)]
val, test = (
    {name: engine.predict(head, loader, device) for name, head in heads.items()}
    for loader in loaders
)
for name, result in val.items():
    print(f"{name:10} validation {evaluation.format_accuracy(result.correct, 120)}")

# %% [markdown]
# ## Exercise 1 · An interval by hand
#
# Write `interval`, Wilson's 95% interval of an accuracy. With *p* = correct / total, *n* = total
# and *z* = 1.96:
#
# $$\frac{1}{1 + z^2/n}\left(p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} +
# \frac{z^2}{4n^2}}\right)$$
#
# <details><summary>Hint</summary>
#
# Compute the centre and the half width, each divided by 1 + z²/n. The formula in many textbooks,
# p ± z·√(p(1−p)/n), is another one: try it with 10 right answers of 10.
# </details>

# %%
def interval(correct, total):
    """Return (low, high) of the 95 % interval, both in [0, 1]."""
    # solution
    z, p = 1.96, correct / total
    centre = p + z**2 / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return (centre - half) / (1 + z**2 / total), (centre + half) / (1 + z**2 / total)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, interval=interval):
    for correct, total in [(8, 10), (10, 10), (0, 25), (337, 360)]:
        low, high = interval(correct, total)
        said = f"{correct} of {total}: you say [{low:.3f}, {high:.3f}]"
        assert low < high, f"{said}, and low should be below high: is the half width there?"
        assert high < 1.001 and low > -0.001, f"{said}, which no accuracy can be"
        wanted = evaluation.wilson_interval(correct, total)
        width, wanted_width = high - low, wanted[1] - wanted[0]
        assert width > 0.9 * wanted_width, f"{said}, too narrow by {wanted_width - width:.3f}"
        assert width < 1.1 * wanted_width, f"{said}, too wide by {width - wanted_width:.3f}"
        assert abs(low - wanted[0]) < 0.002 and abs(high - wanted[1]) < 0.002, (
            f"{said}, about as wide as it should be, but moved: look at the centre"
        )

# %% [markdown]
# ## Exercise 2 · Found, and rightly named
#
# `matrix[i, j]` counts the images of class *i* that were called *j*, as in the lesson's confusion
# matrix. Write `recall_and_precision`: two tensors with a value for each class. Recall: which share
# of a class was found? Precision: which share of the answers that name a class was right?
#
# <details><summary>Hint</summary>
#
# The right answers are on the diagonal: `matrix.diagonal()`. What does the sum of a row count? And
# the sum of a column?
# </details>

# %%
def recall_and_precision(matrix):
    """Return recall and precision of each class, from counts (classes, classes)."""
    # solution
    right = matrix.diagonal()
    return right / matrix.sum(dim=1), right / matrix.sum(dim=0)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(2, recall_and_precision=recall_and_precision):
    matrix = torch.tensor([[8, 2, 0], [1, 4, 0], [4, 2, 4]])
    result = [torch.as_tensor(values) for values in recall_and_precision(matrix)]
    assert [values.shape for values in result] == [(3,), (3,)], "give a value per class, twice"
    recall, precision = ([round(value, 3) for value in values.tolist()] for values in result)
    of_rows, of_columns = [0.8, 0.8, 0.4], [0.615, 0.5, 1.0]
    assert (recall, precision) != (of_columns, of_rows), "recall and precision have changed places"
    about = f"of {matrix.tolist()} you say recall {recall} and precision {precision}"
    assert recall == of_rows, f"{about}: class 0 has 8 + 2 + 0 images, and 8 were found"
    assert precision == of_columns, f"{about}: class 0 was named 8 + 1 + 4 times, 8 times rightly"
    result = recall_and_precision(torch.tensor([[3, 1], [0, 4]]))
    small = [[round(value, 3) for value in torch.as_tensor(part).tolist()] for part in result]
    assert small == [[0.75, 1.0], [1.0, 0.8]], f"of [[3, 1], [0, 4]] you say {small}"

# %% [markdown]
# ## Exercise 3 · Better, or luckier?
#
# Write `compare` for two models on the same images: how many only A gets right, how many only B,
# and the p-value of McNemar's test. `right_a` and `right_b` are booleans, (N,). If the models were
# equally good, each image that only one of them gets right would be a fair coin.
#
# <details><summary>Hint</summary>
#
# `binomtest(heads, tosses).pvalue` is the probability that a fair coin is at least this uneven.
# What is a toss here? Images that both get right, or both get wrong, say nothing.
# </details>

# %%
def compare(right_a, right_b):
    """Return how many only A and only B gets right, and McNemar's p-value."""
    # solution
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return only_a, only_b, binomtest(only_a, only_a + only_b).pvalue
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, compare=compare):
    a, b = torch.tensor([1] * 50 + [1] * 9 + [0] * 2 + [0] * 9) > 0, torch.ones(70) > 0
    b[50:59], b[61:] = False, False  # both 50, only A 9, only B 2, none 9
    only_a, only_b, p = compare(a, b)
    assert (only_a, only_b) != (59, 52), "you count what each gets right: leave out what both do"
    assert (only_a, only_b) == (9, 2), f"only A gets 9, only B 2 right; you say {only_a}, {only_b}"
    assert abs(p - binomtest(9, 70).pvalue) > 1e-6 and abs(p - binomtest(9, 61).pvalue) > 1e-6, (
        "a toss is an image that only one of them gets right: there are 11 tosses"
    )
    wanted = evaluation.mcnemar(a, b)
    assert abs(p - wanted / 2) > 1e-4, "that is one side: B might as well have been the better one"
    assert abs(p - wanted) < 1e-4, f"9 heads in 11 tosses of a fair coin; you say p = {p:.4f}"
    assert abs(compare(b, a)[2] - wanted) < 1e-4, "with A and B swapped, p should stay as it is"
    right = [test[name].predicted == test[name].labels for name in ("20 of each", "5 of each")]
    print("20 against 5 of each: {} and {} right alone, p = {:.2g}".format(*compare(*right)))

# %% [markdown]
# ## Exercise 4 · Choose on validation
#
# `rights[name]` says which validation images each run of a recipe named rightly: booleans, one row
# per seed, (seeds, images). `seconds[name]` is what a run costs. Write `choose`: find the recipe
# with the best mean accuracy, then return the cheapest recipe that is *not shown to be worse* than
# it. A recipe is shown to be worse if the whole paired 95% interval of *best − this one* lies above
# zero. (The lesson's rule also gave away a point for a lower price; this one does not.)
#
# <details><summary>Hint</summary>
#
# `evaluation.bootstrap_difference(a, b)` returns that interval. It wants one number per image: the
# share of seeds that were right, `rights[name].float().mean(dim=0)`.
# </details>

# %%
def choose(rights, seconds):
    """Return the name of the cheapest recipe that is not shown to be worse than the best."""
    # solution
    shares = {name: runs.float().mean(dim=0) for name, runs in rights.items()}
    best = max(shares, key=lambda name: shares[name].mean())
    tied = [
        name
        for name in shares
        if evaluation.bootstrap_difference(shares[best], shares[name])[0] <= 0
    ]
    return min(tied, key=seconds.get)
    # student
    # raise NotImplementedError
    # end of solution

# %%
def runs(*wrong, images=360):
    """Make runs from the images that each one gets wrong."""
    made = torch.ones(len(wrong), images, dtype=torch.bool)
    for row, images_wrong in zip(made, wrong):
        row[list(images_wrong)] = False
    return made


def check(rights, seconds, wanted, why):
    name = choose(rights, seconds)
    means = ", ".join(f"{key} {value.float().mean():.3f}" for key, value in rights.items())
    assert name == wanted, f"mean accuracies {means}: you choose {name!r}, not {wanted!r}. {why}"


with marks.exercise(4, choose=choose):
    full = runs(*[range(20)] * 5)
    check(
        {"probe": runs(*[range(26)] * 5), "full": full},
        {"probe": 15, "full": 140},
        "full",
        "The probe gets all of full's mistakes wrong, and 6 images more: paired, that is clear, "
        "though the two models' own intervals overlap",
    )
    check(
        {"full": full, "partial": runs(*[range(9, 37)] * 5)},
        {"full": 140, "partial": 35},
        "partial",
        "17 images speak for full and 9 for partial, and five seeds that agree on them are still "
        "360 images, not 1,800",
    )
    check(
        {"partial": runs(range(18), *[range(35)] * 4), "full": full},
        {"partial": 35, "full": 140},
        "full",
        "Seed 0 of partial was lucky: use all seeds",
    )
    check(
        {"full": full, "partial": runs(*[range(2, 21)] * 5)},
        {"full": 15, "partial": 35},
        "full",
        "Here the cheaper one is not shown to be worse",
    )

# %% [markdown]
# ## Exercise 5 · A threshold, chosen where choices are made
#
# The probe from 20 images of each kind shall answer only where its **confidence**, the highest
# probability, is at least `threshold`; a person sorts the rest. Choose `threshold` so that at least
# 90% of the answered *validation* images are right, and as many of them as possible are answered.
#
# <details><summary>Hint</summary>
#
# Candidates are the confidences themselves. For each, look at the images with at least this
# confidence: how many are there, and which share is right? A confidence of 0.9 does not mean that
# 90% are right.
# </details>

# %%
def answered(result, threshold):
    """Return how many images are answered, and which share of these answers is right."""
    sure = result.probabilities.max(dim=1).values >= threshold
    right = int((result.predicted == result.labels)[sure].sum())
    number = int(sure.sum())
    return number, right / max(number, 1)


print("validation, all answered: {} images, {:.3f} right".format(*answered(val["20 of each"], 0)))

# %%
# solution
confidences = val["20 of each"].probabilities.max(dim=1).values.tolist()
good = [c for c in confidences if answered(val["20 of each"], c)[1] >= 0.9]
threshold = min(good)
print(f"threshold {threshold:.3f}")
# student
# threshold = ...
# end of solution

# %%
with marks.exercise(5, threshold=threshold):
    result = val["20 of each"]
    number, share = answered(result, threshold)
    most, chosen_on_test = (
        max(n for n, s in (answered(part, c) for c in part.probabilities.amax(dim=1)) if s >= 0.9)
        for part in (result, test["20 of each"])
    )
    assert number > 0, "nothing is answered: the threshold is above all confidences"
    assert answered(test["20 of each"], threshold)[0] != chosen_on_test or number == most, (
        "this threshold was chosen on the test images: they must not take part in a choice"
    )
    assert share >= 0.9, f"{share:.3f} of the answered validation images are right: too few"
    assert number == most, (
        f"{number} validation images are answered, {share:.3f} of them rightly: more could be"
    )
    number, share = answered(test["20 of each"], threshold)
    print(f"test: {number} of 120 answered, {share:.3f} of them rightly")
