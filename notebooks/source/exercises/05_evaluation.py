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
# Two probes to ask questions about: one from 5 pictures of each kind, one from 20, at 64 pixels.
# `val` and `test` hold the logits and labels of both, for 10 pictures of each kind.

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))


def features_of(pictures):
    dataloader = data_setup.create_dataloader(pictures, transform)
    return engine.extract_features(network, dataloader, device)


def train_probe(features):
    torch.manual_seed(0)
    head = nn.Linear(1280, 12)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    loader = DataLoader(features, batch_size=len(features))
    engine.train(head, loader, optimizer=optimizer, epochs=40, device=device, verbose=False)
    return head


pictures = splits.train.few(20)
features = features_of(pictures)
few = [pictures.samples.index(sample) for sample in splits.train.few(5).samples]
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
# Write `interval`, Wilson's 95 % interval of an accuracy. With *p* = correct / total, *n* = total
# and *z* = 1.96:
#
# $$\frac{1}{1 + z^2/n}\left(p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} +
# \frac{z^2}{4n^2}}\right)$$
#
# <details><summary>Hint</summary>
#
# Compute the centre and the half width, each divided by 1 + z²/n. The usual formula,
# p ± z·√(p(1−p)/n), is not the same: try it with 10 right answers of 10.
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
# `matrix[i, j]` counts the pictures of class *i* that were called *j*, as in the lesson's confusion
# matrix. Write `recall_and_precision`: two tensors with a value for each class. Recall: which share
# of a class was found? Precision: which share of the answers that name it was right?
#
# <details><summary>Hint</summary>
#
# The right answers are on the diagonal: `matrix.diagonal()`. What is in a row, together? What is in
# a column?
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
    assert [len(values) for values in result] == [3, 3], "a value for each class is wanted, twice"
    recall, precision = ([round(value, 3) for value in values.tolist()] for values in result)
    of_rows, of_columns = [0.8, 0.8, 0.4], [0.615, 0.5, 1.0]
    assert (recall, precision) != (of_columns, of_rows), "recall and precision have changed places"
    about = f"of {matrix.tolist()} you say recall {recall} and precision {precision}"
    assert recall == of_rows, f"{about}: class 0 has 8 + 2 + 0 pictures, and 8 were found"
    assert precision == of_columns, f"{about}: class 0 was named 8 + 1 + 4 times, 8 times rightly"

# %% [markdown]
# ## Exercise 3 · Better, or luckier?
#
# Write `compare` for two models on the same pictures: how many only A gets right, how many only B,
# and the p-value of McNemar's test. `right_a` and `right_b` are booleans, (N,). If the models were
# equally good, each picture that only one of them gets right would be a fair coin.
#
# <details><summary>Hint</summary>
#
# `binomtest(heads, tosses).pvalue` is the probability that a fair coin is at least this uneven.
# What is a toss here? Pictures that both get right, or both get wrong, tell nothing.
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
        "a toss is a picture that only one of them gets right: there are 11 tosses"
    )
    wanted = evaluation.mcnemar(a, b)
    assert abs(p - wanted / 2) > 1e-4, "that is one side: B might as well have been the better one"
    assert abs(p - wanted) < 1e-4, f"9 heads in 11 tosses of a fair coin; you say p = {p:.4f}"
    right = [test[name].predicted == test[name].labels for name in ("20 of each", "5 of each")]
    print("20 against 5 of each: {} and {} right alone, p = {:.2g}".format(*compare(*right)))

# %% [markdown]
# ## Exercise 4 · Fit a temperature
#
# Write `temperature`: the number T above 0 for which `softmax(logits / T)` fits the labels best,
# that is, with the smallest cross-entropy. Trying many values and taking the best is good enough;
# T can be anywhere from 0.1 to 10.
#
# <details><summary>Hint</summary>
#
# `nn.functional.cross_entropy(logits / T, labels)` is the loss for one T.
# `torch.logspace(-1, 1, 401)` gives values from 0.1 to 10 in equal ratios.
# </details>

# %%
def temperature(logits, labels):
    """Return the T that fits best, to 2 %."""
    # solution
    values = torch.logspace(-1, 1, 401)
    losses = [nn.functional.cross_entropy(logits / value, labels) for value in values]
    return values[torch.stack(losses).argmin()].item()
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, temperature=temperature):
    generator = torch.Generator().manual_seed(0)
    fair = torch.randn(1000, 12, generator=generator) * 2
    labels = fair.softmax(dim=1).multinomial(1, generator=generator).flatten()
    for boast in (3.0, 0.4, 8.0):  # logits so many times too large
        wanted = evaluation.fit_temperature(fair * boast, labels)
        T = float(temperature(fair * boast, labels))
        about = f"logits that are {boast:g} times too large need T = {wanted:.2f}; you say {T:.2f}"
        assert abs(T * wanted - 1) > 0.03, f"{about}, the inverse: the logits are divided by T"
        assert abs(T / wanted - 1) < 0.03, (
            f"{about}: do you look for the smallest cross-entropy, from 0.1 to 10 in fine steps?"
        )
    T = temperature(*val["20 of each"])
    logits, truth = test["20 of each"]
    ece = [evaluation.expected_calibration_error((logits / t).softmax(1), truth) for t in (1, T)]
    print(f"test, T = {T:.2f} from validation: calibration error {ece[0]:.3f} -> {ece[1]:.3f}")

# %% [markdown]
# ## Exercise 5 · A threshold, chosen where choices are made
#
# The probe from 20 pictures of each kind shall answer only where its confidence, the highest
# probability, is at least `threshold`. Choose `threshold` so that 90 % of the answered *validation*
# pictures are right, or more, and as many of them as possible are answered.
#
# <details><summary>Hint</summary>
#
# Candidates are the confidences themselves. For each, look at the pictures with at least this
# confidence: how many are there, and which share is right? A confidence of 0.9 does not mean that
# 90 % are right.
# </details>

# %%
def answered(result, threshold):
    """Return how many pictures are answered, and which share of these answers is right."""
    sure = result.probabilities.max(dim=1).values >= threshold
    right = int((result.predicted == result.labels)[sure].sum())
    number = int(sure.sum())
    return number, right / max(number, 1)


print("validation, all answered: {} pictures, {:.3f} right".format(*answered(val["20 of each"], 0)))

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
        "this threshold was chosen on the test pictures: they must not take part in a choice"
    )
    assert share >= 0.9, f"{share:.3f} of the answered validation pictures are right: too few"
    assert number == most, (
        f"{number} validation pictures are answered, {share:.3f} of them rightly: more could be"
    )
    number, share = answered(test["20 of each"], threshold)
    print(f"test: {number} of 120 answered, {share:.3f} of them rightly")
