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
# # 02 · Train a classifier on frozen features
#
# A network that was trained on a million photos has learned to see edges, textures and shapes. In
# this notebook we keep all of that as it is and train one new layer on top. This is called
# **feature extraction**, or a **linear probe**: the quickest form of transfer learning, and the
# one to try first.
#
# **You will**
# - give a pretrained network a new head, freeze the rest, and prove that frozen means frozen;
# - train the head in seconds, by doing the frozen work once instead of in every epoch;
# - measure how accuracy grows with the number of labelled images, beside the same network without
#   pretraining.
#
# **You need** Python and a first idea of what a neural network, a loss and an epoch are.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import hashlib
import time

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchinfo import summary
from torchvision.models import get_model

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data: what kind of chart is this?
#
# Somebody has a pile of reports and wants the figures sorted by kind. We have 40 labelled pictures
# of each of 12 kinds for training, and three splits:
#
# - **train**: the model learns from these;
# - **val** (validation): we look at these after every epoch and make choices by them;
# - **test**: untouched until all choices are made. Notebook 05 opens it, and this one does not.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
splits = data_setup.load("charts")
print(splits.summary())

# %% slideshow={"slide_type": "subslide"}
first_of_class = [splits.train.targets.index(label) for label in range(12)]
pictures = [splits.train[index][0] for index in first_of_class]
utils.plot_images(pictures, splits.class_names)
# %% [markdown]
# One training picture of each class, above. They differ in colours, fonts, size and style, so that
# only the kind of chart tells the classes apart.
#
# A pretrained network wants its input prepared just as in its own training: the size, and the mean
# and spread of the pixel values. The weights know, so we never write these numbers ourselves. We
# only ask for 128 pixels instead of the weights' own size, which saves two thirds of the time.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
transform = data_setup.create_transform("efficientnet_lite0", size=128)
train_dataloader = data_setup.create_dataloader(splits.train, transform, shuffle=True, seed=42)
val_dataloader = data_setup.create_dataloader(splits.val, transform)
images, labels = next(iter(train_dataloader))
print(tuple(images.shape), tuple(labels.shape))
transform

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The model: a new head on a pretrained trunk
#
# The last layer of a classifier is its **head**: it turns features into one score, or **logit**,
# for each class. Everything before it is the **trunk** (also: backbone). ImageNet's head knows
# 1,000 kinds of objects and no charts, so `create_model` replaces it with a new one for 12 classes.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
model = model_builder.create_model("efficientnet_lite0", num_classes=12)
print("ImageNet's head:", model_builder.head(get_model("efficientnet_lite0", weights=None)))
print("new head:", model_builder.head(model))
print("blocks of the trunk:", [block.name for block in model_builder.blocks(model)])

# %% [markdown]
# `torchinfo` shows what there is to train. Look at the column *Trainable*: all of it, so far.

# %%
columns = ["output_size", "num_params", "trainable"]
summary(
    model, (32, 3, 128, 128), depth=2, col_names=columns, col_width=18, row_settings=["var_names"]
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Freezing** a parameter means: no gradient is computed for it, so the optimizer cannot move it.
#
# **Predict:** how many parameters are left to train? The head takes in 1,280 features and gives 12
# logits.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
model_builder.freeze(model)
trainable, total = model_builder.count_parameters(model)
print(f"{trainable:,} of {total:,} parameters are trainable")
assert trainable == 1280 * 12 + 12

# %%
summary(
    model, (32, 3, 128, 128), depth=2, col_names=columns, col_width=18, row_settings=["var_names"]
)

# %% [markdown] slideshow={"slide_type": "slide"}
# 1,280 × 12 weights and 12 biases: less than half a per cent of the network. In the second table
# the trunk's layers say *False*, the head *True*.
#
# ## Frozen is more than `requires_grad = False`
#
# Most lessons stop here, call `model.train()` and start. But a trunk holds more than parameters.
# **BatchNorm** layers keep a running mean and variance of what passes through; these are *buffers*.
# They have no gradient, and in training mode every batch moves them all the same.
#
# To see it, we take a fingerprint (a hash) of all that the trunk holds.
#
# **Predict:** all parameters of the trunk are frozen. We only run one batch forward, and train
# nothing. Does the fingerprint change?


# %% slideshow={"slide_type": "subslide"}
def fingerprint(module):
    """Hash every parameter and every buffer of a module, bit for bit."""
    tensors = module.state_dict().values()
    return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tensors)).hexdigest()[:12]


naive = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12)).to(device)
before = fingerprint(naive.features)
naive.train()  # what a usual training loop does first
naive(images.to(device))
print(before, "->", fingerprint(naive.features))
assert fingerprint(naive.features) != before

# %% [markdown]
# It does. One forward pass was enough to move the "frozen" trunk, and a whole training run would
# move it towards the statistics of the new data, while the weights stay as they were for the old.
# Nothing is wrong with BatchNorm; the trunk is simply not frozen.
#
# The cure is a rule that our training loop keeps, whatever mode the caller has set: **a part whose
# parameters are all frozen runs in eval mode.** That stops BatchNorm's statistics, and also the
# randomness of dropout and stochastic depth. Now with the engine, and a whole epoch:

# %% slideshow={"slide_type": "subslide"}
before = fingerprint(model.features)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3))
loss_fn = nn.CrossEntropyLoss()
model.to(device)
start = time.perf_counter()
engine.train_step(model, train_dataloader, loss_fn, optimizer, device)
plain_seconds = time.perf_counter() - start
print(before, "->", fingerprint(model.features), f"after {plain_seconds:.1f} s of training")
assert fingerprint(model.features) == before

# %% [markdown] slideshow={"slide_type": "slide"}
# The head has learned for an epoch, and not one bit of the trunk has moved.
#
# ## Frozen work, done once
#
# If the trunk never changes and the pictures never change, then what the trunk makes of a picture
# never changes either. A usual loop computes it again in every epoch. Once is enough: with
# `cache_frozen=True` the engine runs the trunk over all pictures one time, and then trains the head
# on what came out.
#
# **Predict:** an epoch of the plain loop took the seconds printed above. How long does one take
# now, after the trunk has run?

# %% slideshow={"slide_type": "subslide"}
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3))
history = engine.train(
    model, train_dataloader, val_dataloader, optimizer, loss_fn, 15, device, cache_frozen=True
)

# %% slideshow={"slide_type": "subslide"}
epoch_seconds = sum(history["seconds"]) / 15
print(f"plain: {plain_seconds:.1f} s an epoch; frozen work done once: {epoch_seconds:.2f} s")
assert plain_seconds > 5 * epoch_seconds

# %% [markdown]
# The trunk's one pass costs about as much as one plain epoch; each epoch after it is nearly free.
# And it is the same training, not an approximation. To check, we train twice from the same start,
# in full precision, on a part of the pictures: once plainly, once with the trunk run once.

# %% slideshow={"slide_type": "subslide"}
part = Subset(train_dataloader.dataset, range(0, 480, 8))
losses = {}
for cache_frozen in (False, True):
    utils.seed_everything(0)
    twin = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
    losses[cache_frozen] = engine.train(
        twin,
        DataLoader(part, batch_size=16, shuffle=True),
        optimizer=torch.optim.SGD(model_builder.head(twin).parameters(), lr=0.01),
        epochs=3,
        device=device,
        cache_frozen=cache_frozen,
        dtype=torch.float32,
        verbose=False,
    )["train_loss"]
print(losses)
assert torch.allclose(torch.tensor(losses[False]), torch.tensor(losses[True]), atol=1e-3)

# %% [markdown]
# ## How good is it?

# %% slideshow={"slide_type": "slide"}
utils.plot_curves(history)
# %% [markdown]
# Left and middle: loss and accuracy on the training and the validation pictures after each epoch.
# Training accuracy goes on rising after validation accuracy has levelled off: the head begins to
# learn its training pictures by heart. Note that the training figure is an average over the epoch,
# taken while the head was still changing and with dropout on; the validation figure is taken after
# it. That is why validation can be ahead in the first epochs.
#
# An accuracy is a count, and a count from a few hundred pictures is uncertain. So we always write
# it with its **95 % interval** (Wilson's): other validation pictures of the same kind would give
# some other accuracy, and the interval says how far that can be.

# %% slideshow={"slide_type": "subslide"}
result = engine.evaluate(model, val_dataloader, device)
print(f"validation: {result.correct} of {result.total} correct")
print("accuracy:", evaluation.format_accuracy(result.correct, result.total))
low, high = evaluation.wilson_interval(result.correct, result.total)
assert low > 0.75  # guessing would give 1/12 = 0.083

# %% [markdown]
# What does it get wrong? Here are the validation pictures with the most confident mistakes.

# %% slideshow={"slide_type": "subslide"}
predictions = engine.predict(model, val_dataloader, device)
confidence = predictions.probabilities.max(dim=1).values
confidence[predictions.predicted == predictions.labels] = 0
worst = confidence.topk(12).indices.tolist()
utils.plot_predictions(
    [splits.val[index][0] for index in worst],
    predictions.labels[worst],
    predictions.probabilities[worst],
    splits.class_names,
)
# %% [markdown] slideshow={"slide_type": "slide"}
# Each title gives the model's answer and its probability, and below it the truth. Many of these are
# near relatives: bars and histograms, lines and steps, boxes and violins.
#
# ## How many labelled images does it take?
#
# Labels cost money, so this is the question that matters. We train with 1, 2, 5, 10, 20 and 40
# images of each class, and compare with the **control**: the same network from random weights, all
# of it trained, on the same images for the same number of steps. Without the control we could not
# say what pretraining brings.
#
# The trunk's outputs are all we need for the probe. We take them out once, at two sizes of image,
# and train a linear layer on them with three seeds each.

# %% tags=["nbval-check-output"]
sizes = {size: data_setup.create_transform("efficientnet_lite0", size=size) for size in (128, 64)}
datasets = {
    size: [data_setup.create_dataloader(part, preset) for part in (splits.train, splits.val)]
    for size, preset in sizes.items()
}
features = {
    size: [engine.extract_features(model, loader, device) for loader in loaders]
    for size, loaders in datasets.items()
}
print([tuple(part.tensors[0].shape) for part in features[128]])


# %%
def some_of_each_class(per_class, seed):
    """Choose positions in the training split: `per_class` of each class, at random."""
    order = torch.randperm(480, generator=torch.Generator().manual_seed(seed))
    targets = torch.tensor(splits.train.targets)[order]
    return [i for label in range(12) for i in order[targets == label][:per_class].tolist()]


def accuracy_after(model, train_set, val_set, lr):
    """Train for at least 8 epochs and 50 steps; return the accuracy on `val_set`."""
    loader = DataLoader(train_set, batch_size=32, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    epochs = max(8, 50 // len(loader))
    schedule = engine.warmup_cosine(optimizer, epochs * len(loader), warmup_steps=5)
    options = {"epochs": epochs, "device": device, "verbose": False}
    engine.train(model, loader, optimizer=optimizer, scheduler=schedule, **options)
    return engine.evaluate(model, DataLoader(val_set, batch_size=64), device).accuracy


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** how far does the probe get with a single picture of each class? Guessing gets 8 %.

# %% slideshow={"slide_type": "subslide"}
numbers = [1, 2, 5, 10, 20, 40]
probe = {}
for size, (train_features, val_features) in features.items():
    for number in numbers:
        accuracies = []
        for seed in range(3):
            utils.seed_everything(seed)
            few = Subset(train_features, some_of_each_class(number, seed))
            accuracies.append(accuracy_after(nn.Linear(1280, 12), few, val_features, lr=1e-2))
        probe[size, number] = evaluation.mean_and_std(accuracies)
for number in numbers:
    cells = [
        f"{size} px {probe[size, number][0]:.2f} ± {probe[size, number][1]:.2f}"
        for size in features
    ]
    print(f"{number:2} a class:  ", "   ".join(cells))

# %% [markdown] slideshow={"slide_type": "subslide"}
# One picture of each class already beats guessing several times over, and each doubling adds less
# than the one before. Now the control. It has to train all 3.4 million parameters, so we give it
# the small images, on which a laptop is quick, and compare it with the probe on the same ones.
#
# **Predict:** where does it end with all 480 pictures?

# %% slideshow={"slide_type": "subslide"}
small_train, small_val = (loader.dataset for loader in datasets[64])
utils.seed_everything(0)
network = model_builder.create_model("efficientnet_lite0", 12, weights=None)
scratch = accuracy_after(network, small_train, small_val, lr=2e-3)
print(f"from scratch, 40 a class: {scratch:.2f}")
assert probe[64, 40][0] > scratch + 0.2  # at the same number of labels
assert probe[64, 5][0] > scratch  # with an eighth of them

# %% slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
for size, color, style in ((128, utils.BLUE, "o-"), (64, utils.GREEN, "^--")):
    means, stds = zip(*(probe[size, number] for number in numbers), strict=True)
    axis.errorbar(numbers, means, stds, fmt=style, color=color, label=f"probe, {size} px")
axis.plot(40, scratch, "s", color=utils.RED, label="from scratch, 64 px")
axis.axhline(1 / 12, color="grey", linewidth=0.8)
axis.annotate("guessing", (1, 1 / 12), xytext=(0, 3), textcoords="offset points", color="grey")
axis.set(xscale="log", xticks=numbers, xticklabels=numbers, ylim=(0, 1))
axis.set(xlabel="Training images of each class", ylabel="Validation accuracy")
axis.grid(alpha=0.3)
axis.legend()
plt.show()
# %% [markdown] slideshow={"slide_type": "slide"}
# Accuracy against the number of training images (on a log scale); the bars are one standard
# deviation over three seeds. At the same image size, the probe with 5 pictures of each class is
# ahead of the control with 40: pretraining is worth more than eight times the labels here. Larger
# images help the probe again, since thin lines and whiskers vanish at 64 pixels. The control has
# not converged in so few steps; notebook 05 gives it more, and the gap narrows but stays.
#
# ## What does augmentation change?
#
# **Augmentation** varies each training picture at random (crop, mirror image, colour), so that the
# model meets another version in every epoch. That is why nothing can be cached: the engine notices
# that the pictures differ and says so.

# %% slideshow={"slide_type": "subslide"}
augment = data_setup.create_transform("efficientnet_lite0", size=128, augment=True)
augmented = data_setup.create_dataloader(splits.train, augment, shuffle=True, seed=42)
utils.seed_everything(0)
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3))
start = time.perf_counter()
engine.train(model, augmented, None, optimizer, loss_fn, epochs=3, device=device, cache_frozen=True)
augmented_result = engine.evaluate(model, val_dataloader, device)
print(f"{(time.perf_counter() - start) / 3:.1f} s an epoch, without it {epoch_seconds:.2f} s")
print("augmented:", evaluation.format_accuracy(augmented_result.correct, augmented_result.total))
print("as it is: ", evaluation.format_accuracy(result.correct, result.total))

# %% [markdown]
# A frozen trunk with a linear head has little to overfit with, so augmentation has little to
# prevent, and each epoch costs the full price again. Where the two intervals overlap as much as
# here, we may not claim a difference. Augmentation pays when many layers train (notebook 04).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You gave a pretrained network a new head, froze the rest, and proved with a fingerprint that
#   parameters *and* buffers stayed as they were.
# - You trained the head in seconds: the trunk ran once, and the result was that of the plain loop.
# - You measured accuracy against the number of labels, with seeds and intervals, beside the same
#   network from scratch.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check yourself
#
# 1. All parameters of the trunk have `requires_grad=False`. Why can its output still change?
#    - **a** · It cannot.
#    - **b** · The optimizer's weight decay shrinks them.
#    - **c** · In training mode, BatchNorm's running statistics move and dropout is random.
#
# <details><summary>Answer</summary>
#
# **c.** Running mean and variance are buffers: no gradient moves them, but every batch in training
# mode does. Eval mode stops both. *a:* Notebook 08 measures how far it changes. *b:* Decay touches
# only parameters that the optimizer steps; those without a gradient it skips.
# </details>
#
# 2. Why may the trunk's outputs not be kept when the pictures are augmented?
#    - **a** · Augmented pictures are too large to keep.
#    - **b** · The pictures differ in every epoch, and so do the outputs.
#    - **c** · The trunk must learn from them.
#
# <details><summary>Answer</summary>
#
# **b.** Keeping those of the first epoch would show the same "random" versions over and over. *a:*
# They are as large as the others. *c:* A frozen trunk learns from nothing.
# </details>
#
# 3. Model A has 337 of 360 validation pictures right, model B 333. Is A better?
#    - **a** · Yes: 4 more are 4 more.
#    - **b** · We cannot say: the intervals overlap almost entirely.
#    - **c** · No: they are equally good.
#
# <details><summary>Answer</summary>
#
# **b.** Both 95 % intervals are about 5 points wide. Notebook 05 has the sharper, paired test. *a:*
# Another draw of pictures could turn the order around. *c:* No evidence of a difference is no
# evidence that there is none.
# </details>
#
# 4. Why does the control keep architecture, data and steps, and change only the weights it starts
#    from?
#    - **a** · So that pretraining is the only difference.
#    - **b** · To save time.
#    - **c** · Because a smaller network would be unfair to the control.
#
# <details><summary>Answer</summary>
#
# **a.** Then the gap is what pretraining brought. *b:* It costs more: nothing is frozen in it. *c:*
# Any second difference, in favour of either, would mix two causes.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/02_feature_extraction.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Train the head with `lr=0.3`, then with `lr=1e-5`. What do the curves look like?
# 2. Use `size=96` for the transform. How much accuracy does it cost, how much time does it save?
# 3. Take another network: `create_model("resnet18", 12)` and `create_transform("resnet18")` (its
#    weights are downloaded once, 45 MB). How many features does its head take in?
# 4. Put two folders of your own photos into `data/`, load them by path instead of `"charts"`, leave
#    `size` out, and run the notebook on them.
