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
# # 08 · Catch five bugs that flatter or spoil a result
#
# A bug that stops your program is a kind bug: it tells you where it is. The five on this page stop
# nothing. The program prints an accuracy and goes on, and each of them can be found in published
# lessons. Here we commit them on purpose, one at a time, and measure what each does to a result
# that we know.
#
# **You will**
# - reproduce five silent bugs in a few lines each, and measure the size of the error;
# - know the check that would have caught each of them.
#
# **You need** notebook 02 (the probe and its frozen features) and notebook 03 (comparing two models
# on the same images, paired).
#
# **Time** about a minute on a 2-core CPU.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.training import cutting

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A sound result to spoil
#
# First we need a result that is right: a probe. A frozen trunk turns each image into 1,280 features,
# once, and a linear layer learns on them. We use train and validation only. Where a bug needs a test
# set, a part of validation stands in for it.


# %%
def features_of(images, transform, model):
    """Return features (N, 1280) and labels (N,) of a frozen trunk in eval mode."""
    dataloader = data_setup.create_dataloader(images, transform)
    return engine.extract_features(model, dataloader, device).tensors


def train_head(features, labels, seed=0, epochs=20):
    torch.manual_seed(seed)
    head = nn.Linear(1280, 12)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            loss = nn.functional.cross_entropy(head(features[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    return head


# %% [markdown]
# Another seed gives another head, so we train five, and use all five. `right` tells which images a
# head names correctly; `share` tells, for each image, what share of the heads does. Every accuracy
# of these heads on this page is measured in this one way, so there is one figure for the same heads
# on the same features.

# %%
@torch.no_grad()
def right(head, features, labels):
    return head(features).argmax(dim=1) == labels


def train_five(features, labels):
    return [train_head(features, labels, seed) for seed in range(5)]


def share(heads, features, labels):
    return torch.stack([right(head, features, labels) for head in heads]).float().mean(dim=0)


# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=128)
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
train_set = features_of(splits.train, transform, model)
val_set = features_of(splits.val, transform, model)
heads = train_five(*train_set)
sound = share(heads, *val_set)
print("right of 360, head by head:", [int(right(head, *val_set).sum()) for head in heads])
print(f"mean accuracy of the five: {sound.mean():.3f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# The five agree to within a few images. Every error below is measured against this result.
#
# ## Bug 1: the mean of batch means
#
# Many loops compute an accuracy for each batch, and average these at the end. The last batch is
# usually smaller than the others, yet it counts as much. We take one head and 353 of the images:
# eleven batches of 32, and a last one with a single image in it.

# %%
def mean_of_batch_means(answers):
    means = [batch.mean() for batch in answers.split(32)]
    return float(sum(means) / len(means))


answers = right(heads[0], *val_set)[:353].float()
print(f"correct / images:    {answers.mean():.3f}")
print(f"mean of batch means: {mean_of_batch_means(answers):.3f}")

# %% [markdown]
# **Predict:** now shuffle the images. It is the same model, the same 353 images, the same answers;
# only the order changes. How far apart are the highest and the lowest "accuracy" in 1,000 orders?

# %% slideshow={"slide_type": "subslide"}
rng = np.random.default_rng(0)
orders = [torch.tensor(rng.permutation(353)) for _ in range(1000)]
means = np.array([mean_of_batch_means(answers[order]) for order in orders])
is_right = np.array([bool(answers[order[-1]]) for order in orders])
print(f"mean of batch means: {means.min():.3f} to {means.max():.3f}")
print(f"  where the last image is right: {means[is_right].mean():.3f} on average")
print(f"  where it is wrong:             {means[~is_right].mean():.3f}")

# %%
# @title Checks: what this section says
assert sound.mean() > 0.85 and len(sound) == 360
assert means.max() - means.min() > 0.06
assert abs(means[is_right].mean() - means[~is_right].mean() - 1 / 12) < 0.01

# %% [markdown]
# One image, the last, decides a twelfth of the result: about eight points, as the two lines above
# show. With a fixed order nobody sees the number move, but it is off all the same.
#
# **Check:** add up correct answers and images, and divide once. A result that is no multiple of
# 1 / images gives the bug away.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Bug 2: picking by the test set
#
# "We tried 20 settings, and the best reached ... on the test set." The best of many is partly the
# luckiest. Here are twenty probes that differ only in chance: each learns from its own random half
# of the training images. A "test set" of 75 images, as small as in many lessons, picks the best.
# Then we measure that winner on all the other validation images.
#
# **Predict:** by how much is the winner's score too high?

# %%
twenty = []
for seed in range(20):
    half = torch.randperm(480, generator=torch.Generator().manual_seed(seed))[:240]
    twenty.append(right(train_head(train_set[0][half], train_set[1][half], seed, 10), *val_set))
table = torch.stack(twenty).float().numpy()  # (models, images)
print(f"all twenty, all 360 images: {table.mean():.3f}")

# %% slideshow={"slide_type": "subslide"}
def pick(table):
    """Pick the best model on 75 images drawn at random; return its score there and elsewhere."""
    order = rng.permutation(360)
    scores = table[:, order[:75]].mean(axis=1)
    return scores.max(), table[scores.argmax(), order[75:]].mean()


gaps = {}
for number in (1, 5, 20):
    picks = np.array([pick(table[:number]) for _ in range(1000)])
    gaps[number] = picks[:, 0] - picks[:, 1]
    there, elsewhere = picks.mean(axis=0)
    print(f"best of {number:>2}: {there:.3f} there, {elsewhere:.3f} elsewhere")
    print(f"            {gaps[number].mean():+.3f} too high on average")

# %% [markdown]
# With one model there is nothing to pick, and on average the score is right. The more candidates,
# the larger the error. The winner of twenty is 0.050 worse elsewhere than its score promised, and
# no better than the average of all twenty. Its lead was luck. And luck needs no knowledge:
#
# **Predict:** a guesser gets 8% of 12 classes right. What does the best of 1,000 guessers reach on
# 75 images?

# %%
guessers = (rng.integers(12, size=(1000, 75)) == rng.integers(12, size=75)).mean(axis=1)
print(f"the best of 1000 guessers: {guessers.max():.3f}; all of them: {guessers.mean():.3f}")

# %%
# @title Checks: what this section says
assert abs(gaps[1].mean()) < 0.01 < 0.015 < gaps[20].mean() and gaps[5].mean() < gaps[20].mean()
assert guessers.max() > 0.14

# %% [markdown] slideshow={"slide_type": "slide"}
# That is more than twice what guessing gives.
#
# **Check:** choose on validation; open the test set once, for the one model that was chosen.
#
# ## Bug 3: a frozen BatchNorm that moves
#
# Notebook 02 showed that `requires_grad=False` does not stop the running statistics of BatchNorm.
# Now the price. We send the training images once through a "frozen" trunk in training mode, as a
# usual loop does in every epoch. Nothing is trained.
#
# **Predict:** our five heads then work on this trunk. How much of their accuracy is left?

# %%
naive = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12)).to(device)
before = {name: tensor.clone() for name, tensor in naive.state_dict().items()}
dataloader = data_setup.create_dataloader(splits.train, transform, shuffle=True, seed=0)
precision = utils.pick_precision(device)
naive.train()
with torch.no_grad(), utils.autocast(device, precision):
    for images, _ in dataloader:
        naive(images.to(device))
changed = [name for name, t in naive.state_dict().items() if not torch.equal(t, before[name])]
print("what changed:", {name.split(".")[-1] for name in changed})

# %% slideshow={"slide_type": "subslide"}
moved_val = features_of(splits.val, transform, naive)
moved = share(heads, *moved_val)
print(f"on the frozen trunk {sound.mean():.3f}, after one pass {moved.mean():.3f}")
print("difference:", evaluation.format_difference(moved, sound))

# %% [markdown]
# No parameter changed and no label was used. Only buffers moved, and the heads no longer fit the
# trunk that they were trained on. But who would notice? In a usual loop the head trains along. So
# let's train new heads on the trunk as it is now.

# %%
moved_train = features_of(splits.train, transform, naive)
followers = share(train_five(*moved_train), *moved_val)
print(f"new heads on the moved trunk: {followers.mean():.3f}")
print("difference:", evaluation.format_difference(followers, sound))

# %% [markdown]
# Heads that are trained on the moved trunk win back most of the loss, and that hides the damage. It is
# every *other* head on this trunk that is spoilt.
#
# **Predict:** the same bug at measuring time: somebody forgets `model.eval()`. The validation images
# come class by class, or shuffled. Does the order matter?

# %% slideshow={"slide_type": "subslide"}
def accuracy_in_train_mode(shuffle):
    dataloader = data_setup.create_dataloader(splits.val, transform, shuffle=shuffle, seed=0)
    naive.train()
    correct = 0
    with torch.no_grad(), utils.autocast(device, precision):
        for images, labels in dataloader:
            correct += int((naive(images.to(device)).cpu().argmax(dim=1) == labels).sum())
    return correct / 360


model_builder.head(naive).load_state_dict(heads[0].state_dict())
in_order, shuffled = accuracy_in_train_mode(False), accuracy_in_train_mode(True)
print(f"without model.eval(): {in_order:.3f} class by class, {shuffled:.3f} shuffled")

# %%
# @title Checks: what this section says
assert {name.split(".")[-1] for name in changed} == {
    "running_mean", "running_var", "num_batches_tracked"
}
assert moved.mean() < sound.mean() - 0.1 and followers.mean() > moved.mean() + 0.05
assert in_order < shuffled - 0.1 and shuffled < sound.mean() - 0.02

# %% [markdown] slideshow={"slide_type": "slide"}
# It does: in training mode an image's answer depends on its neighbours in the batch, since BatchNorm
# normalises by them. Class by class, a batch holds one or two classes, and little is left.
#
# **Check:** compare a fingerprint of parameters *and* buffers before and after (notebook 02); call
# `model.eval()` inside the function that measures.
#
# ## Bug 4: the wrong normalisation
#
# Most lessons normalise with ImageNet's usual mean and spread, or not at all. These weights were
# trained with others: 0.5 and 0.5. There are two ways to go wrong: train with the right numbers and
# *use* the model with wrong ones, or be wrong in both places.
#
# **Predict:** which of the two costs more?

# %%
def wrong_sets(mean, std):
    """Return the features of train and validation under another normalisation."""
    wrong = data_setup.create_transform("efficientnet_lite0", size=128)
    wrong.mean, wrong.std = mean, std
    return [features_of(images, wrong, model) for images in (splits.train, splits.val)]


usual = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
wrong = {"ImageNet's usual": wrong_sets(*usual), "none": wrong_sets([0.0] * 3, [1.0] * 3)}
when_used, in_both = {}, {}
for name, (wrong_train, wrong_val) in wrong.items():
    wrong_heads = train_five(*wrong_train)
    when_used[name] = share(heads, *wrong_val)
    in_both[name] = share(wrong_heads, *wrong_val)
    print(f"{name}:", [int(right(head, *wrong_val).sum()) for head in wrong_heads], "right in both")

# %% slideshow={"slide_type": "subslide"}
for name in wrong:
    print(name)
    for where, found in (("when used", when_used[name]), ("in both", in_both[name])):
        difference = evaluation.format_difference(found, sound)
        print(f"  wrong {where:<10} {found.mean():.3f}, against right in both: {difference}")

# %% [markdown]
# A mismatch between training and use costs 0.085 with ImageNet's numbers and 0.043 without any, and
# nothing warns you. But look at the other two lines. With ImageNet's numbers, wrong in both places
# cost nothing: here it even *won*, with each of the five heads, by 0.027 [0.001, 0.054]. Have we found
# a better normalisation?

# %% [markdown] slideshow={"slide_type": "subslide"}
# ### Did it really win?
#
# Five seeds of the head sound like five witnesses, but all of them saw the same 360 images. Other
# images are better witnesses, and we have 480 of them. Let train and validation swap roles: heads
# learn from the 360 and are judged on the 480.
#
# And why should it win? ImageNet's numbers change two things: the smaller spread raises the contrast,
# the lower mean makes images brighter. If one of these is what helps, it should help alone.
#
# **Predict:** which of the two wins, and does the win survive the swap?

# %% slideshow={"slide_type": "subslide"}
wrong["contrast alone"] = wrong_sets([0.5] * 3, usual[1])
wrong["brightness alone"] = wrong_sets(usual[0], [0.5] * 3)
sound_swapped = share(train_five(*val_set), *train_set)
swapped = {}
for name, (first, second) in wrong.items():
    if name not in in_both:
        in_both[name] = share(train_five(*first), *second)
    swapped[name] = share(train_five(*second), *first)
    print(f"{name:<17} on the 360:", evaluation.format_difference(in_both[name], sound))
    print(f"{'':<9} swapped, on the 480:", evaluation.format_difference(swapped[name], sound_swapped))

# %%
# @title Checks: what this section says
for name in ("ImageNet's usual", "none"):  # a mismatch is never better, and for one much worse
    assert when_used[name].mean() < sound.mean()
low, high = evaluation.bootstrap_difference(when_used["ImageNet's usual"], sound)
assert high < 0

# %% [markdown]
# On the 480 images the win is down to 0.009, with an interval from -0.020 to 0.037, so we can no longer
# tell. Neither contrast nor brightness won alone on the 360, so neither by itself explains the
# first result. What is left is the two together, or luck: of several settings, the best on one set
# of images is partly the luckiest (bug 2). We do not know which. No normalisation at all lost on both
# sets, by 0.018 and 0.033.
#
# What stands is the mismatch. Nobody notices wrong numbers that are the same in training and in use,
# until the model meets somebody else's code.
#
# **Check:** take the transform from the weights, and save it with the model.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Bug 5: augmentation cached with the data
#
# Augmentation shows each image in a new version every epoch. Put a cache behind it, for speed, and
# the first versions are replayed for ever. The engine refuses to keep such features:

# %%
augment = data_setup.create_transform("efficientnet_lite0", size=128, augment=True)
try:
    features_of(splits.train.few(5), augment, model)
except cutting.CannotCut as reason:
    print("refused:", reason)

# %% [markdown]
# So we force it. With only five images of each class, new versions should matter. One head learns
# from the images as they are, one from a single augmented version of each, replayed in every epoch,
# and one from eight versions. Each head sees 2,400 examples in all, and we do it for five seeds.

# %%
def version_of(images, seed):
    """Return the features of one augmented version of each image."""
    utils.seed_everything(seed)
    dataset = data_setup.create_dataloader(images, augment).dataset
    frozen_version = torch.utils.data.DataLoader(list(dataset), batch_size=32)
    return engine.extract_features(model, frozen_version, device).tensors


found = {"no augmentation": [], "cached": [], "fresh versions": []}
for seed in range(5):
    few = splits.train.few(5, seed)
    versions = [version_of(few, 100 * seed + number) for number in range(8)]
    fresh = [torch.cat(tensors) for tensors in zip(*versions)]
    sets = features_of(few, transform, model), versions[0], fresh
    for name, few_set in zip(found, sets):
        head = train_head(*few_set, seed, epochs=2400 // len(few_set[1]))
        found[name].append(right(head, *val_set))
print("heads trained:", {name: len(rights) for name, rights in found.items()})

# %% [markdown]
# **Predict:** how much of augmentation's gain survives the cache?

# %% slideshow={"slide_type": "subslide"}
for name, rights in found.items():
    accuracies = [answers.float().mean().item() for answers in rights]
    print("{:<15} {:.3f} ± {:.3f}".format(name, *evaluation.mean_and_std(accuracies)))
plain, cached, fresh = (torch.stack(rights).float().mean(dim=0) for rights in found.values())
print("fresh - no augmentation:", evaluation.format_difference(fresh, plain))
print("cached - fresh:         ", evaluation.format_difference(cached, fresh))
print("cached - no augmentation:", evaluation.format_difference(cached, plain))

# %%
# @title Checks: what this section says
assert evaluation.bootstrap_difference(cached, fresh)[1] < 0
assert fresh.mean() > plain.mean() + 0.01

# %% [markdown]
# Fresh versions bring 0.059 over no augmentation. One version, replayed, brings nothing: -0.018
# [-0.036, 0.000]. So the cache took all of the gain, and the program runs faster and looks fine.
#
# **Check:** read the same item twice; with augmentation, the two must differ.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The five together
#
# These are five different quantities, so each gets a scale of its own. Above zero a bug flatters the
# result, below zero it spoils it.

# %%
def paired(a, b):
    """Return the difference a - b of two shares (N,) between the ends of its 95 % interval."""
    low, high = evaluation.bootstrap_difference(a, b)
    return low, float((a - b).mean()), high


sound_353 = answers.mean().item()
error_1 = means - sound_353
low, high = np.quantile(gaps[20], [0.025, 0.975])
errors = {
    "1 Batch means": (error_1.min(), mean_of_batch_means(answers) - sound_353, error_1.max()),
    "2 Best of twenty": (low, gaps[20].mean(), high),
    "3 BatchNorm moved": paired(moved, sound),
    "4 Normalised otherwise": paired(when_used["ImageNet's usual"], sound),
    "5 Cached versions": paired(cached, fresh),
}
for name, (low, middle, high) in errors.items():
    print(f"{name:<22} {100 * middle:+6.1f} points, {100 * low:+.1f} to {100 * high:+.1f}")

# %% alt="Five panels, each with a vertical scale of its own in points of accuracy: the size of each bug's error, with the range or interval printed above, and a line at zero." slideshow={"slide_type": "subslide"}
# @title Figure: the five errors, each on its own scale
figure, axes = plt.subplots(1, 5, figsize=(11, 3.2), layout="constrained")
for axis, (name, values) in zip(axes, errors.items()):
    low, middle, high = (100 * value for value in values)
    color = utils.RED if middle < 0 else utils.BLUE
    axis.plot([0, 0], [low, high], color=color, linewidth=9, alpha=0.35, solid_capstyle="butt")
    axis.plot(0, middle, "o", color=color, markersize=8)
    offset = {"xytext": (12, -4), "textcoords": "offset points", "fontsize": 12}
    axis.annotate(f"{middle:+.1f}", (0, middle), **offset)
    axis.axhline(0, color="0.4", linewidth=1)
    margin = 0.12 * (max(high, 0) - min(low, 0))
    axis.set(xlim=(-1, 1.4), ylim=(min(low, 0) - margin, max(high, 0) + margin), xticks=[])
    axis.set_title(name, fontsize=11)
    axis.tick_params(labelsize=10)
axes[0].set_ylabel("Error, in points of accuracy", fontsize=11)
plt.show()

# %% [markdown]
# In each panel there is a point and a bar, but not the same kind of bar. **1**: the order of the files,
# and the whole range over 1,000 orders. **2**: the mean and the middle 95% of 1,000 picks. **3** to
# **5**: the mean over five heads and its paired 95% interval; in **5**, cached versions against fresh
# ones. Do not compare a panel with its neighbours. Compare it with the gains of a few points that
# notebooks 03 and 04 discuss: each of these bugs can make or hide such a gain.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You reproduced five silent bugs, and measured how far each moves an accuracy.
# - You know the check for each: count and divide once; choose on validation; fingerprint what is
#   frozen; keep the transform with the model; read an item twice.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check yourself
#
# 1. A paper reports 0.8561 on 75 test images. What is odd?
#    - **a** · It is too high.
#    - **b** · Nothing.
#    - **c** · No count of 75 gives it.
#
# <details><summary>Answer</summary>
#
# **c.** 64 / 75 is 0.8533 and 65 / 75 is 0.8667, so it is probably a mean of batch means. *a:* We
# cannot know that from the number. *b:* Count images, and an accuracy is a fraction of 75.
# </details>
#
# 2. You pick the best epoch on validation and report its validation accuracy. Is that bug 2?
#    - **a** · Yes, with epochs in place of models.
#    - **b** · No: it is only one model.
#    - **c** · No: the test split picked nothing.
#
# <details><summary>Answer</summary>
#
# **a.** Report the test accuracy of the epoch that you picked. *b:* Each epoch is a candidate, and
# you took the luckiest. *c:* It is the same bug on another split: the images that chose also
# judge.
# </details>
#
# 3. Training and use share the same wrong normalisation, and accuracy is fine. Why fix it all the
#    same?
#    - **a** · Accuracy would surely be higher with the right one.
#    - **b** · The next person will take the transform from the weights.
#    - **c** · Training gets slower.
#
# <details><summary>Answer</summary>
#
# **b.** Then training and use differ, and that is the expensive case. *a:* On this page ImageNet's
# numbers did no worse than the right ones. *c:* The arithmetic is the same.
# </details>
#
# 4. Five seeds of A beat five seeds of B on the same 100 images. Which doubt is left?
#    - **a** · None: five of five.
#    - **b** · Whether A is better on *other* images.
#    - **c** · Whether the seeds were drawn at random.
#
# <details><summary>Answer</summary>
#
# **b.** Seeds vary the training; all ten models met the same images. A paired interval over images
# answers this doubt. *a:* See bug 4. *c:* Any fixed list of seeds will do, if you do not choose it
# by the results.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/08_bug_clinic.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Bug 1 with batches of 8 and of 128: which is worse, and why?
# 2. Bug 2 with a test set of 285 images. What makes the error smaller?
# 3. Bug 3 with each BatchNorm's `momentum` set to 0.01, this network's original value. How far does
#    the accuracy fall?
#
# Back to [05 · Evaluate](05_evaluation.ipynb).
