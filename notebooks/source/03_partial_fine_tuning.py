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
# # 03 · Fine-tune the last blocks
#
# A linear probe leaves the pretrained trunk as it is. **Fine-tuning** trains the trunk further, on
# your own images. In this notebook only its last blocks train, which is called **partial
# fine-tuning**: more of the network can adapt than with a probe, and most of the work is still
# done only once.
#
# **You will**
# - train the last blocks and the head, each at its own learning rate, first in plain PyTorch, and
#   choose the trunk's rate on validation;
# - measure what each extra block costs, and what it gains, and compare two models image by image;
# - meet the trap that BatchNorm sets when part of the trunk trains, and choose a cure.
#
# **You need** notebook 02: head, trunk, freezing, BatchNorm's buffers, the 95% interval.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import time

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.models import get_model

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# The charts again, but with half of the training images, 20 of each kind, and at 80 pixels. Small
# images cost accuracy, but they are cheap: we can train many models and compare them. All choices
# are made on the validation split; the test split stays closed.

# %% tags=["nbval-check-output"]
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=80)
few = splits.train.few(20, seed=0)
print(len(few), "training images,", len(splits.val), "validation images")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In plain PyTorch
#
# You need two things that notebook 02 did not: some blocks of the trunk that train, and a learning
# rate for them. The head starts from random numbers, the blocks from good weights, so it is usual
# to give the blocks a lower rate. (Whether that helps, we test in a moment.) An optimizer takes
# **parameter groups** for this: a list of dicts, each with its own `lr`.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
torch.manual_seed(0)
plain = get_model("efficientnet_lite0", weights="DEFAULT")
plain.classifier[1] = nn.Linear(1280, 12)  # a new head
plain.requires_grad_(False)  # freeze everything ...
for part in (plain.features[-2:], plain.classifier):  # ... but the last two blocks and the head
    part.requires_grad_(True)
optimizer = torch.optim.AdamW(
    [
        {"params": plain.features[-2:].parameters(), "lr": 1e-3},
        {"params": plain.classifier.parameters(), "lr": 3e-3},
    ]
)
for group in optimizer.param_groups:
    print(f"{sum(p.numel() for p in group['params']):,} parameters at lr {group['lr']:g}")

# %% [markdown]
# The loop is the usual one. One line keeps the frozen blocks in eval mode: as notebook 02 showed,
# their BatchNorm statistics would move in training mode.


# %% slideshow={"slide_type": "subslide"}
def loader_of(images):
    return data_setup.create_dataloader(images, transform, shuffle=True, seed=0)


train_dataloader = loader_of(few)
plain.to(device).train()
plain.features[:-2].eval()
plain_losses = []
for _ in range(2):
    total = 0.0
    for images, labels in train_dataloader:
        loss = nn.functional.cross_entropy(plain(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    plain_losses.append(total / len(few))
print("training loss:", [f"{loss:.3f}" for loss in plain_losses])

# %% [markdown] slideshow={"slide_type": "subslide"}
# Our package does the same in fewer words. `unfreeze(last=2)` makes the last two blocks and the
# head trainable and freezes the rest; `parameter_groups` sorts them into the two groups. With
# `cache_frozen=True` the frozen blocks run only once.

# %% slideshow={"slide_type": "subslide"}
utils.seed_everything(0)
model = model_builder.create_model("efficientnet_lite0", num_classes=12)
model_builder.unfreeze(model, last=2)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3, trunk_lr=1e-3))
options = {"epochs": 2, "device": device, "dtype": torch.float32, "verbose": False}
history = engine.train(model, loader_of(few), None, optimizer, cache_frozen=True, **options)
losses = history["train_loss"]
print("training loss:", [f"{loss:.3f}" for loss in losses])
trained, trained_plainly = (
    [name for name, p in network.named_parameters() if p.requires_grad]
    for network in (model, plain)
)
print("the same parameters train:", trained == trained_plainly)

# %%
# @title Checks: what this section says
assert trained == trained_plainly
assert torch.allclose(torch.tensor(losses), torch.tensor(plain_losses), atol=0.05)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which blocks?
#
# Why the *last* blocks? Notebook 01 showed that the first filters look for edges and colours, which
# charts have as well as photos.
# [Yosinski et al. (2014)](https://arxiv.org/abs/1411.1792) measured it: early layers carry over to
# another task almost unharmed, late ones are made for the old task. So one unfreezes from the end.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
for last in range(10):
    model_builder.unfreeze(model, last=last)
    trainable, total = model_builder.count_parameters(model)
    first = "the head alone" if last == 0 else f"from {model_builder.blocks(model)[-last].name} on"
    print(f"last={last}  {trainable:>9,} trainable, {trainable / total:4.0%}  {first}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The last three of nine blocks hold four fifths of the parameters. "We trained a third of the
# layers" says little, so give the number of parameters, too.
#
# Many recipes select by name instead: everything that starts with `layer4` or `fc`, which are the
# last block and the head of a ResNet-18.
#
# **Predict:** how many parameters does this recipe make trainable in our EfficientNet?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
for architecture in ("resnet18", "efficientnet_lite0"):
    network = model_builder.create_model(architecture, num_classes=12, weights=None)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(("layer4", "fc"))
    by_name, _ = model_builder.count_parameters(network)
    by_block, _ = model_builder.count_parameters(model_builder.unfreeze(network, last=1))
    print(f"{architecture:19} by name {by_name:9,}, by block {by_block:9,}")

# %% [markdown] slideshow={"slide_type": "slide"}
# None, and no error says so: names belong to one family of networks. Print the number of trainable
# parameters before you train.
#
# ## Choose the trunk's learning rate
#
# We are about to train dozens of models. Frozen blocks always give the same output, so we run them
# once over all images and keep what they give. Then we train only what comes after them.


# %%
def build(last, seed=0):
    """Return a pretrained model with a new head, whose last blocks are trainable."""
    utils.seed_everything(seed)
    return model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=last)


def tail(model, last):
    """Return what comes after the frozen blocks: the same modules, as a model of its own."""
    if last == 0:
        return model.classifier
    return nn.Sequential(*model.features[-last:], model.avgpool, nn.Flatten(), model.classifier)


loaders = [data_setup.create_dataloader(part, transform) for part in (splits.train, splits.val)]
outputs = {
    last: [engine.extract_features(build(last), loader, device) for loader in loaders]
    for last in range(4)
}
print({last: tuple(train_set.tensors[0].shape) for last, (train_set, _) in outputs.items()})

# %% [markdown]
# One function trains every variant, so that only what we change differs. The rates rise for one
# epoch and then fall along a cosine (notebook 04 says more). `seed` decides which 20 images of each
# class it sees, in which order, and how the head starts.


# %%
def drawn_outputs(last, seed):
    """Return what the frozen blocks gave for the 20 images of each class that `seed` draws."""
    drawn = splits.train.few(20, seed=seed).samples
    places = [splits.train.samples.index(sample) for sample in drawn]  # their rows among all 480
    return Subset(outputs[last][0], places)


def fine_tune(model, last, seed=0, lr=3e-3, trunk_lr=1e-3, epochs=6, watch=False, **options):
    """Train what is trainable; return the history, and which validation images are right."""
    utils.seed_everything(seed)
    loader = DataLoader(drawn_outputs(last, seed), batch_size=32, shuffle=True)
    val_loader = DataLoader(outputs[last][1], batch_size=60)
    groups = model_builder.parameter_groups(model, lr=lr, trunk_lr=trunk_lr)
    optimizer = torch.optim.AdamW(groups)
    scheduler = engine.warmup_cosine(optimizer, epochs * len(loader), warmup_steps=len(loader))
    options |= {"epochs": epochs, "device": device, "scheduler": scheduler, "verbose": False}
    part = tail(model, last)
    history = engine.train(part, loader, val_loader if watch else None, optimizer, **options)
    predictions = engine.predict(part, val_loader, device)
    return history, predictions.predicted == predictions.labels


# %% [markdown] slideshow={"slide_type": "subslide"}
# Nobody knows the best rate in advance. So try a few, far apart, from cautious to absurdly high, and
# let validation choose. We use two blocks, which are cheap, and five seeds for each rate. The head
# stays at 0.003.
#
# **Predict:** is the best rate for the trunk below the head's, above it, or equal to it?


# %% slideshow={"slide_type": "subslide"}
def five_runs(last, trunk_lr=1e-3, prepare=None, **options):
    """Train with five seeds; return which images are right in each run (5, 360), and seconds."""
    runs, seconds = [], []
    for seed in range(5):
        model = build(last, seed)
        if prepare:
            prepare(model)
        history, right = fine_tune(model, last, seed, trunk_lr=trunk_lr, **options)
        runs.append(right)
        seconds.append(sum(history["seconds"]))
    return torch.stack(runs).float(), seconds


def show(name, right):
    print(f"{name}: {right.mean():.3f}", [round(a, 3) for a in right.mean(dim=1).tolist()])


rates = (3e-5, 1e-3, 3e-2, 1.0)
two = {rate: five_runs(2, rate) for rate in rates}
for rate, (right, _) in two.items():
    show(f"trunk at {rate:<5g}", right)
for rate in (3e-5, 1e-3, 1.0):
    difference = evaluation.format_difference(two[3e-2][0].mean(dim=0), two[rate][0].mean(dim=0))
    print(f"0.03 - {rate:<5g}: {difference}")

# %% alt="Validation accuracy of two trainable blocks over the trunk's learning rate, a point for each of five seeds; the means rise from the lowest rate, then change little." slideshow={"slide_type": "subslide"}
# @title Figure: accuracy over the trunk's learning rate
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for rate, (right, _) in two.items():
    axis.plot([rate] * 5, right.mean(dim=1), "o", color=utils.BLUE, alpha=0.5)
axis.plot(rates, [right.mean().item() for right, _ in two.values()], color=utils.BLUE)
axis.axvline(3e-3, color="0.5", linestyle=":")
axis.annotate("the head's rate", (3e-3, 0.66), (5, 0), textcoords="offset points", fontsize=11)
axis.set(xscale="log", ylim=(0.65, 0.95))
axis.set_xlabel("Learning rate of the trunk", fontsize=11)
axis.set_ylabel("Validation accuracy", fontsize=11)
axis.grid(alpha=0.3)
plt.show()
# %% [markdown]
# Each point is a seed; the line joins the means. The cautious 0.00003 is clearly behind in our six
# epochs. The mean is highest at 0.03, ten times the head's rate. But the last lines above compare the
# rates image by image (*Is it really better?* below explains how), and they cannot tell 0.03 from
# 0.001, which is below the head's rate. So a wide range works about equally well. We go on with 0.03.
#
# Take advice such as "a lower rate for the trunk" as the place where a grid begins, not as its
# result, and let the grid go on until the curve no longer rises.

# %%
# @title Checks: what this section says
assert two[3e-2][0].mean() > two[3e-5][0].mean() + 0.02
assert two[3e-2][0].mean() > max(right.mean() for right, _ in two.values()) - 0.01
assert abs(two[3e-2][0].mean() - two[1e-3][0].mean()) < 0.03
assert by_name == 0

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How many blocks?
#
# Now the number of blocks, from the probe (none) to three, with five seeds each. We have chosen the
# trunk's rate, so the probe may choose as well. All that it has is the head's rate, and the epochs.

# %% slideshow={"slide_type": "subslide"}
probes = {
    (lr, epochs): five_runs(0, lr=lr, epochs=epochs)
    for lr, epochs in ((3e-3, 6), (1e-2, 6), (3e-2, 6), (1e-2, 12))
}
for (lr, epochs), (right, _) in probes.items():
    show(f"probe, head at {lr:<5g}, {epochs:2} epochs", right)
best_probe = max(probes.values(), key=lambda runs: runs[0].mean())

# %% [markdown] slideshow={"slide_type": "subslide"}
# Hardly any difference; we compare with the best of them. The blocks all train at one rate, 0.03,
# with the head at 0.003: that favours the probe, and two blocks, for which the rate was chosen.
#
# **Predict:** three blocks have 175 times the parameters of the head alone. How many times the
# seconds do they take? And which number of blocks is the most accurate?

# %% slideshow={"slide_type": "subslide"}
by_blocks = {0: best_probe, 1: five_runs(1, 3e-2), 2: two[3e-2], 3: five_runs(3, 3e-2)}
for last, (right, seconds) in by_blocks.items():
    trainable, _ = model_builder.count_parameters(build(last))
    show(f"{last} blocks, {trainable:9,} parameters, {sum(seconds) / 5:5.2f} s", right)
print(f"{trainable / 15372:.0f} times the head's parameters")

# %% alt="Validation accuracy against training seconds on a log scale, for 0, 1, 2 and 3 trainable blocks, a point for each of five seeds." slideshow={"slide_type": "subslide"}
# @title Figure: accuracy against seconds
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for (last, (right, seconds)), color in zip(
    by_blocks.items(), ("0.4", utils.ORANGE, utils.BLUE, utils.GREEN), strict=True
):
    accuracies = right.mean(dim=1)
    axis.plot(seconds, accuracies, "o", color=color, alpha=0.6)
    name = ("probe", "1 block", "2 blocks", "3 blocks")[last]
    place = sum(seconds) / 5, accuracies.max().item()
    axis.annotate(name, place, (0, 9), textcoords="offset points", ha="center", color=color)
axis.set(xscale="log", ylim=(0.7, 0.95))
axis.margins(x=0.12)
axis.set_xlabel("Seconds to train, once the frozen blocks have run (log scale)", fontsize=11)
axis.set_ylabel("Validation accuracy", fontsize=11)
axis.grid(alpha=0.3)
plt.show()
# %% [markdown] slideshow={"slide_type": "slide"}
# Each point is a seed. On average, accuracy rises with each block, and the third costs several
# times the seconds of two. Which of the steps in accuracy are real?
#
# ## Is it really better?
#
# Take one run of each, with the same seed: the probe and three blocks. Each accuracy has its 95%
# interval, and the two overlap. Does that mean that we cannot tell them apart? No. Each interval
# asks what *other images* would give. But both models saw the *same* images: one that is hard for
# one model is mostly hard for the other, too. So compare them **paired**, image by image.

# %% slideshow={"slide_type": "subslide"}
probe, tuned = (by_blocks[last][0][0].bool() for last in (0, 3))  # [0]: the run with seed 0
for name, right in {"probe": probe, "three blocks": tuned}.items():
    print(f"{name:12}", evaluation.format_accuracy(int(right.sum()), len(right)))
print(f"{'':12}three blocks right  three blocks wrong")
for name, rows in {"probe right": probe, "probe wrong": ~probe}.items():
    print(f"{name:12}{int((rows & tuned).sum()):18}{int((rows & ~tuned).sum()):20}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Where both are right or both are wrong, the images say nothing about which model is better. Only
# the other two counts do: one right where the other is wrong. If the models were equally good, each
# of these images would be a fair coin. **McNemar's test** asks how often a fair coin would come out
# as unevenly as this, or more so. That share is the **p-value**: below 0.05, the usual line, we say
# that the models differ.
#
# **Predict:** look at the two counts. Would you believe in a fair coin?

# %% slideshow={"slide_type": "subslide"}
print(f"McNemar: p = {evaluation.mcnemar(tuned, probe):.1g}")
print("three blocks - probe:", evaluation.format_difference(tuned, probe))

# %% [markdown]
# The second line says how large the difference is. Its interval comes from the **paired bootstrap**:
# draw 360 of the validation images again and again, with replacement, and look at how the
# difference varies. An interval that excludes 0 says that one model is better on images like these.
#
# This was one run of each, and another seed gives another run. With five seeds, each image counts
# by the share of runs that were right, so that not one lucky run decides. Compare each number of
# blocks with the one before. The interval is still about other *images*: it takes these five seeds
# as they are. So look at the differences seed by seed, too.

# %% slideshow={"slide_type": "subslide"}
share = {last: right.mean(dim=0) for last, (right, _) in by_blocks.items()}
for more, fewer in ((1, 0), (2, 1), (3, 2), (2, 0), (3, 0)):
    by_seed = by_blocks[more][0].mean(dim=1) - by_blocks[fewer][0].mean(dim=1)
    print(
        f"{more} blocks - {fewer}:", evaluation.format_difference(share[more], share[fewer]), end=""
    )
    print("  by seed", " ".join(f"{gap:+.3f}" for gap in by_seed.tolist()))

# %% [markdown] slideshow={"slide_type": "slide"}
# An interval above 0: more blocks are better on images like these. An interval around 0: this
# experiment cannot tell, and its two ends say how large a difference could still hide. So: two and
# three blocks both beat the probe, three by more on average; and what the first block alone adds
# cannot be seen with 360 images. But from two blocks to three the gap varies much from seed to seed
# (and your machine, which may round differently, may give others). To say how often three blocks win,
# one would need more than five seeds.
#
# ## What does a block cost?
#
# A block that trains must run forward and backward in every epoch, and so must all blocks after it.
# To see what each one adds, we time the blocks one by one, on a batch of 32.
#
# **Predict:** the second block (`features.1`) has 896 parameters, the last one 412,160. Which of
# the two takes longer?


# %% slideshow={"slide_type": "subslide"}
def milliseconds(block, images, repeats=4):
    """Time one block, forward and backward on the CPU: the fastest of a few."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        block(images).sum().backward()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


images, _ = next(iter(loader_of(few)))
cost, sizes = {}, {}
for name, block in build(9).features.named_children():
    images = images.detach().requires_grad_()
    cost[name] = milliseconds(block, images)
    sizes[name] = sum(p.numel() for p in block.parameters())
    images = block(images)
    shape = " x ".join(str(n) for n in images.shape[1:])
    print(f"features.{name}  {sizes[name]:9,} parameters  {cost[name]:5.0f} ms  gives {shape}")

# %%
# @title Checks: what these sections say
assert cost["1"] > cost["8"] and sizes["1"] < sizes["8"]
assert share[3].mean() > share[2].mean() > share[0].mean()
for more, sure in ((1, False), (2, True), (3, True)):
    assert (evaluation.bootstrap_difference(share[more], share[0])[0] > 0) == sure

# %% [markdown] slideshow={"slide_type": "slide"}
# The second block has hardly any parameters, and it takes longer than the last one, with its 412,160.
# So parameters do not tell the cost. The size of the feature maps alone does not either:
# `features.6` works on small ones and is among the slowest. Add up the milliseconds from the first
# block that trains to the end, and compare with the seconds of the runs above: from two blocks to
# three, both make a jump.
#
# ## BatchNorm: the trap
#
# In notebook 02 the whole trunk was frozen, and BatchNorm kept still. Now part of it trains, and we
# must choose. A BatchNorm layer normalises in two ways:
#
# - in **training mode** with the mean and variance of the current batch; it also moves its running
#   mean and variance a little towards them;
# - in **eval mode** with the running mean and variance.
#
# How far it moves them at each step is called **momentum**: in PyTorch 0.1, a tenth of the way.
# Some pretrained networks bring a smaller one along.
#
# **Predict:** our runs take 48 steps. How much of ImageNet's statistics is left at the end?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
steps = 6 * 8  # epochs times batches
mobile_net = model_builder.create_model("mobilenet_v3_small", 12, weights=None)
print("momentum in MobileNetV3:", mobile_net.features[0][1].momentum)
for momentum in (0.1, 0.01):
    remains = (1 - momentum) ** steps
    print(f"momentum {momentum}: {remains:.1%} is left after {steps} steps")

# %% [markdown]
# Next to nothing with 0.1, more than half with 0.01. Does it matter? We train two blocks in three
# ways, with everything else equal: BatchNorm with momentum 0.1, with 0.01, and **frozen**: its own
# weight and bias do not train, so our engine keeps it in eval mode, with ImageNet's statistics,
# while the convolutions around it train. The trunk's rate is 0.001.


# %%
def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def freeze_batch_norms(model):
    for module in batch_norms(model):
        module.requires_grad_(False)


def slow_batch_norms(model):
    for module in batch_norms(model):
        module.momentum = 0.01


# %% [markdown]
# All three start from the same weights and head, and see the same images in the same order.

# %% slideshow={"slide_type": "subslide"}
models = {name: build(2) for name in ("momentum 0.1", "momentum 0.01", "frozen")}
slow_batch_norms(models["momentum 0.01"])
freeze_batch_norms(models["frozen"])
curves = {}
for name, model in models.items():
    curves[name], _ = fine_tune(model, 2, watch=True)
    print(f"{name:13}  training {curves[name]['train_acc'][-1]:.2f}", end="")
    print(f", validation {curves[name]['val_acc'][-1]:.2f}")

# %% alt="Validation accuracy over six epochs with BatchNorm at momentum 0.1, frozen, and at momentum 0.01; the last one stays below the other two." slideshow={"slide_type": "subslide"}
# @title Figure: three ways to treat BatchNorm
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, history), color, style in zip(
    curves.items(), (utils.BLUE, utils.RED, utils.GREEN), ("o-", "s:", "^--"), strict=True
):
    epochs = range(1, len(history["val_acc"]) + 1)
    axis.plot(epochs, history["val_acc"], style, color=color, label=f"BatchNorm {name}")
axis.set(ylim=(0, 1))
axis.set_xlabel("Epoch", fontsize=11)
axis.set_ylabel("Validation accuracy", fontsize=11)
axis.legend(loc="lower right", fontsize=11)
axis.grid(alpha=0.3)
plt.show()
# %% [markdown]
# With momentum 0.01, validation lags behind, although all three runs know nearly all of their
# training images. Is it overfitting? Then the training images should be as well off in eval mode as
# in training. To find out, we ask the same networks about the same images twice: with the running
# statistics, and with each batch's own, as in training. (This is a diagnosis, not a way to use a
# model: the answer for one image would depend on the others in its batch.)


# %%
def accuracy_of(model, images, batch_statistics):
    """Evaluate two blocks whose BatchNorms use each batch's statistics, or the running ones."""
    part = tail(model.eval(), 2)
    for module in batch_norms(part):
        module.train(batch_statistics)
        module.momentum = 0.0  # so that asking does not move the running statistics
    torch.manual_seed(0)
    batches = DataLoader(images, batch_size=60, shuffle=True)
    with torch.inference_mode():
        answers = [(part(x.to(device)).argmax(1).cpu() == y) for x, y in batches]
    return torch.cat(answers).float().mean().item()


# %% slideshow={"slide_type": "subslide"}
found = {}
print(f"{'':27}running statistics  each batch's own")
for name in ("momentum 0.1", "momentum 0.01"):
    for kind, images in {"training": drawn_outputs(2, seed=0), "validation": outputs[2][1]}.items():
        found[name, kind] = [accuracy_of(models[name], images, batch) for batch in (False, True)]
        print(f"{name:15}{kind:12}{found[name, kind][0]:18.3f}{found[name, kind][1]:18.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Look at the lines for 0.01. The running statistics cost accuracy on the training images as well,
# which overfitting would not. And with each batch's own statistics, both models do about equally well
# on validation: their *weights* have learned the same. (A distance between training and validation
# remains in both.) So it is the running statistics that hold this model back: they have not caught
# up with the weights. There are two cures:
#
# - **freeze BatchNorm**: call `requires_grad_(False)` on it, and use a loop that then keeps it in
#   eval mode;
# - let it learn, with a **momentum that fits the run**. Look at the value before you train: our
#   EfficientNet's original has 0.01, and `going_modular` sets 0.1.
#
# Is one of them better? Five seeds of each at the trunk's rate of 0.001, compared paired:

# %% slideshow={"slide_type": "subslide"}
frozen = {1e-3: five_runs(2, 1e-3, freeze_batch_norms)}
show("momentum 0.1", two[1e-3][0])
show("frozen      ", frozen[1e-3][0])
difference = frozen[1e-3][0].mean(dim=0), two[1e-3][0].mean(dim=0)
print("frozen - momentum 0.1:", evaluation.format_difference(*difference))

# %%
# @title Checks: what this section says
running, own = found["momentum 0.01", "validation"]
assert own > running + 0.02 and abs(own - found["momentum 0.1", "validation"][1]) < 0.025
running, own = found["momentum 0.01", "training"]
assert own > running + 0.02 and abs(own - found["momentum 0.1", "training"][0]) < 0.025
assert abs((difference[0] - difference[1]).mean()) < 0.05

# %% [markdown] slideshow={"slide_type": "slide"}
# We see no difference, and the interval's ends say how large one could still be: about two points
# either way. So other reasons may decide. Frozen BatchNorm does not depend on the batch, which
# matters if only a few images fit into memory at once.
#
# ## A rate that destroys
#
# At a trunk rate of 0.03, two blocks did well while BatchNorm trained.
#
# **Predict:** the same rate, the same seeds, the same number of steps, but with BatchNorm frozen.
# What is the validation accuracy now?

# %% slideshow={"slide_type": "subslide"}
frozen[3e-2] = five_runs(2, 3e-2, freeze_batch_norms)
show("trunk at 0.001, BatchNorm frozen", frozen[1e-3][0])
show("trunk at 0.03,  BatchNorm trains", two[3e-2][0])
show("trunk at 0.03,  BatchNorm frozen", frozen[3e-2][0])

# %% [markdown]
# Far below the probe with every seed: some do no better than guessing, 0.083, and even the best gets
# less than a third of the images right. So a good rate belongs to a whole recipe: change how
# BatchNorm is treated, and you have to choose the rate again.
#
# What has happened to these blocks? Perhaps they only forgot what ImageNet had taught them. For
# comparison, take the same two blocks with **random** weights. On top of each we train a new head,
# and the blocks stay as they are. We also count how many of the 1,280 features still differ between
# the validation images.


# %%
def new_head(model):
    """Train a new head on the blocks as they are; return its accuracy, and the features that vary."""
    utils.seed_everything(0)
    model.classifier[1] = nn.Linear(1280, 12)
    model_builder.freeze(model)
    _, right = fine_tune(model, 2, lr=1e-2, epochs=12, cache_frozen=True)
    loader = DataLoader(outputs[2][1], batch_size=60)
    features = engine.predict(tail(model, 2)[:-1], loader, device).logits  # all but the head
    return right.float().mean().item(), int((features.std(dim=0) > 0).sum())


# %% [markdown] slideshow={"slide_type": "subslide"}
# Here are the three: as they came from ImageNet, random, and wrecked by the rate.

# %% slideshow={"slide_type": "subslide"}
wrecked, random_blocks = build(2), build(2)
freeze_batch_norms(wrecked)
fine_tune(wrecked, 2, trunk_lr=3e-2)
untrained = model_builder.create_model("efficientnet_lite0", 12, weights=None)
random_blocks.features[-2:].load_state_dict(untrained.features[-2:].state_dict())
heads = {}
for name, model in {"pretrained": build(2), "random": random_blocks, "wrecked": wrecked}.items():
    heads[name] = new_head(model)
    print(f"new head on {name:10} blocks: {heads[name][0]:.3f}, {heads[name][1]:5,} features vary")

# %%
# @title Checks: what this section says
destroyed = frozen[3e-2][0].mean(dim=1)
assert destroyed.max() < 0.33 and (destroyed < 0.09).sum() >= 2
assert heads["wrecked"][0] < 0.45 and abs(heads["random"][0] - heads["pretrained"][0]) < 0.03
assert heads["wrecked"][1] < 64 and min(heads["random"][1], heads["pretrained"][1]) > 1200

# %% [markdown]
# So it is not only forgetting. On random blocks, which never knew anything, a new head does as well as
# on pretrained ones (with this one seed). The wrecked blocks are worse than random: nearly all of
# their features are the same for every chart, and so no head can tell most of the charts apart.
#
# What to do about it: print accuracy after each epoch. If it falls below the probe's and stays
# there, lower the rate.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You trained head and last blocks at two rates, in plain PyTorch and with the package, with the
#   same result, and chose the trunk's rate on validation.
# - You measured what each extra block costs, and what it gains, and compared models image by image:
#   two that see the same images are compared paired, whether their intervals overlap or not.
# - You met BatchNorm's trap, statistics that lag behind the weights, and two cures; and a rate that
#   destroys with one of the cures what it improves with the other.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check yourself
#
# 1. Model A gets 299 of 360 validation images right, model B 319 of the same 360. Their 95%
#    intervals overlap. What do you do?
#    - **a** · Say that there is no difference.
#    - **b** · Count the images where only one of them is right, and test these.
#    - **c** · Say that B is better: it has more right.
#
# <details><summary>Answer</summary>
#
# **b.** If A alone is right on 12 images and B alone on 32, a fair coin gives p = 0.004: B is better.
# If it is 50 and 70, p = 0.08, and we cannot tell. The totals are the same. *a:* The intervals ask
# what other images would give, not how these two compare on the same ones. *c:* It may be so, but a
# difference of 20 can be chance or not; only the paired counts tell.
# </details>
#
# 2. Training accuracy is 1.00, validation accuracy 0.7. How do you tell overfitting from
#    BatchNorm's statistics that lag?
#    - **a** · Train longer.
#    - **b** · Evaluate with each batch's own statistics: if accuracy jumps up, it was BatchNorm.
#    - **c** · Look at the training loss.
#
# <details><summary>Answer</summary>
#
# **b.** Evaluating the *training* images in eval mode also tells: lagging statistics spoil these,
# too. *a:* Both may change then, and you still do not know which it was. *c:* It is computed in
# training mode, with the batch's own statistics, so it looks healthy either way.
# </details>
#
# 3. In a grid of rates 0.0001, 0.001 and 0.01, validation is best at 0.01. What next?
#    - **a** · Take 0.01.
#    - **b** · Take 0.001, the one in the middle.
#    - **c** · Try 0.03 and 0.1 as well.
#
# <details><summary>Answer</summary>
#
# **c.** A grid must not end at its best value: you do not know yet what lies beyond. *a:* It may be
# far from the best. *b:* Nothing speaks for the middle.
# </details>
#
# 4. You select parameters by name, and the loss does not fall. What do you look at first?
#    - **a** · The learning rate.
#    - **b** · The number of trainable parameters.
#    - **c** · The batch size.
#
# <details><summary>Answer</summary>
#
# **b.** Names differ from network to network, and a name that matches nothing raises no error. *a:*
# Second: first make sure that there is anything to learn with. *c:* It seldom stops learning
# altogether.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/03_partial_fine_tuning.ipynb) check your code and say what is missing. On
# this page, change one thing, say first what you expect, then run:
#
# 1. Train with 5 images of each class (`few(5, seed=seed)`). Do two blocks still beat the probe?
# 2. Choose the rate again for three blocks. Does their lead over two blocks grow?
# 3. Set `trunk_lr=0.0` with two blocks and BatchNorm in training mode. Nothing but statistics can
#    move. What does validation accuracy do?
