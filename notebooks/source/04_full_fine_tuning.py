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
# # 04 · Fine-tune all layers
#
# Now nothing is frozen: every layer may adapt. This is the most expensive form of transfer, and the
# one with the most advice around it: probe first, leave early layers alone, augment, stop in time. In
# this notebook we test such advice, each time against a control.
#
# **You will**
# - fine-tune all layers with a rate for each block and a schedule, first in plain PyTorch;
# - count what that costs, and know what to do when memory runs out;
# - test which of the usual advice makes a difference here.
#
# **You need** notebooks 02 and 03: probe, freezing, blocks, paired comparisons.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import math
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, default_collate
from torchvision.models import get_model
from torchvision.transforms import v2

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# As in notebook 03: 20 training images of each kind of chart, at 80 pixels, so that we can train many
# models. We measure on the validation split; the test split stays closed.

# %% tags=["nbval-check-output"]
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=80)
val_dataloader = data_setup.create_dataloader(splits.val, transform, batch_size=60)


def loader_of(seed, transform=transform):
    """Return batches of 20 images of each class; `seed` decides which, and in which order."""
    return data_setup.create_dataloader(
        splits.train.few(20, seed), transform, shuffle=True, seed=seed
    )


batches = len(loader_of(0))
print(f"{12 * 20} training images in {batches} batches, {len(splits.val)} validation images")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## In plain PyTorch
#
# Notebook 03 gave the trunk one rate and the head another. **Layer-wise decay** gives each block its
# own: the head learns at the full rate, and each block at 0.7 times the rate of the block
# after it. What is nearest to the pixels changes least
# ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)).

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
torch.manual_seed(0)
plain = get_model("efficientnet_lite0", weights="DEFAULT")
plain.classifier[1] = nn.Linear(1280, 12)  # a new head
parts = [*plain.features, plain.classifier]  # nine blocks and the head
groups = [
    {"params": list(part.parameters()), "lr": 3e-3 * 0.7 ** (len(parts) - 1 - i)}
    for i, part in enumerate(parts)
]
optimizer = torch.optim.AdamW(groups)
by_hand = [group["lr"] for group in groups]
print("first block to head:", [f"{rate:.1e}" for rate in by_hand])

# %% [markdown] slideshow={"slide_type": "subslide"}
# The rates also change over time. A **warm-up** starts low, while the head is random and AdamW has
# seen few gradients (it divides each gradient by a running average of its size). After that, a
# **cosine** lowers the rates smoothly to zero. A **scheduler** does this: after each batch it
# multiplies all rates by a factor that we define.

# %% slideshow={"slide_type": "subslide"}
epochs, warmup = 1, 4
steps = epochs * batches


def factor(step):
    """Return what the rates are multiplied by: up along a line, then down along a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
train_dataloader, plain_losses, over_time = loader_of(0), [], []
plain.to(device).train()
for _ in range(epochs):
    total = 0.0
    for images, labels in train_dataloader:
        over_time.append(optimizer.param_groups[-1]["lr"])
        loss = nn.functional.cross_entropy(plain(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.item() * len(labels)
    plain_losses.append(total / 240)
print("training loss:", [f"{loss:.3f}" for loss in plain_losses])

# %% [markdown] slideshow={"slide_type": "subslide"}
# Our package does the same in fewer words (`layer_decay=0.7`):

# %% slideshow={"slide_type": "subslide"}
utils.seed_everything(0)
model = model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", num_classes=12))
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3, layer_decay=0.7))
scheduler = engine.warmup_cosine(optimizer, steps, warmup_steps=warmup)
options = {"epochs": epochs, "device": device, "dtype": torch.float32, "verbose": False}
history = engine.train(model, loader_of(0), None, optimizer, scheduler=scheduler, **options)
losses = history["train_loss"]
print("training loss:", [f"{loss:.3f}" for loss in losses])

# %% alt="Two panels. Left: the learning rate of each block rises from the first block to the head, a straight line on the log scale. Right: the head's rate over the batches rises along a line and falls along a cosine." slideshow={"slide_type": "subslide"}
# @title Figure: the rate of each block, and over time
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].plot(by_hand, "o-", color=utils.BLUE)
axes[0].set(yscale="log", xlabel="Block", ylabel="Learning rate at its peak")
axes[0].set_xticks(range(10), [*range(9), "head"])
axes[1].plot(over_time, "o-", color=utils.BLUE)
axes[1].set(xlabel="Batch", ylabel="Learning rate of the head", ylim=(0, None))
for axis in axes:
    axis.grid(alpha=0.3)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it costs
#
# For the backward pass, training keeps the **activations**: what each layer gave out on the way
# forward. For each trainable parameter it also keeps a gradient and AdamW's two running averages. We
# count the activations while PyTorch stores them, on any device.
#
# **Predict:** the last three blocks hold 79% of the parameters, so all nine hold not many more. How many
# times the activations does it take to train all nine?


# %%
# @title Helper: count what a forward pass keeps
def kept_megabytes(model, forward):
    """Return the megabytes that `forward()` keeps for the backward pass, without the parameters."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()  # while it lives, so do the tensors, each at an address of its own
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del output
    return sum(kept.values()) / 1e6


# %% slideshow={"slide_type": "subslide"}
def build(seed=0, last=None):
    """Return a pretrained model with a new head; its `last` blocks train, by default all."""
    utils.seed_everything(seed)
    model = model_builder.create_model("efficientnet_lite0", num_classes=12)
    return model_builder.unfreeze(model, last=last).to(device)


images, labels = (batch.to(device) for batch in next(iter(loader_of(0))))
activations = {}
for last in (0, 3, 9):
    model = build(last=last)
    activations[last] = kept_megabytes(model, partial(model, images))
    trainable, total = model_builder.count_parameters(model)
    print(f"{last} blocks: {trainable / total:4.0%} of the parameters train, ", end="")
    print(f"gradients and averages {trainable * 3 * 4 / 1e6:3.0f} MB, ", end="")
    print(f"activations of a batch {activations[last]:5.1f} MB")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Six to seven times. The first six blocks have a fifth of the parameters, but large feature maps: that
# is where the memory goes.
#
# ## When memory runs out
#
# Four remedies, from the simplest to the most costly. **Mixed precision** computes in bfloat16 where
# that is safe: half the bytes per number, with fewer digits. A **smaller batch** keeps less, but its
# gradient is noisier. **Accumulation** adds up the gradients of several small batches before a step,
# and so gives back the large batch. **Checkpointing** keeps only what enters each block, and computes
# the rest again on the way back.


# %% slideshow={"slide_type": "subslide"}
def mixed_precision(images):
    with torch.autocast(device.type, torch.bfloat16):
        return model(images)


def checkpointed(images):
    for block in model.features:
        images = checkpoint(block, images, use_reentrant=False)
    return model.classifier(model.avgpool(images).flatten(1))


def measure(name, forward, images, extra=0.0):
    megabytes = kept_megabytes(model, partial(forward, images)) + extra
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        forward(images).float().logsumexp(dim=1).sum().backward()
        seconds.append((time.perf_counter() - start) / len(images) * 32)
    print(f"{name:22} {megabytes:4.0f} MB, {min(seconds):.2f} s for 32 images (best of four)")
    return megabytes


# %% [markdown] slideshow={"slide_type": "subslide"}
# Checkpointing needs a little more than what it keeps: on the way back, each block in turn holds all
# of its activations. So we add those of the largest block.

# %%
entering, largest = images, 0.0
for block in model.features:
    entering = entering.detach().requires_grad_()
    largest = max(largest, kept_megabytes(block, partial(block, entering)))
    entering = block(entering)
memory = {
    "batch of 32": measure("batch of 32", model, images),
    "bfloat16": measure("the same in bfloat16", mixed_precision, images),
    "batch of 8": measure("batch of 8", model, images[:8]),
    "checkpointed": measure("32, checkpointed", checkpointed, images, extra=largest),
}

# %% [markdown] slideshow={"slide_type": "subslide"}
# bfloat16 halves the memory (the engine uses it by itself where the processor is fast at it), a
# quarter of the batch takes a quarter, and checkpointing saves more than half, for one more pass
# forward. The seconds depend on your processor: not every one is fast at bfloat16.
#
# And accumulation? It should give the gradient of the large batch. **Predict:** does it, bit for bit?


# %% slideshow={"slide_type": "subslide"}
def gradient(pieces):
    """Return the gradient of the batch, computed in so many pieces."""
    model.zero_grad()
    for x, y in zip(images.chunk(pieces), labels.chunk(pieces), strict=True):
        loss = nn.functional.cross_entropy(model(x), y) / pieces
        loss.backward()  # gradients add up until zero_grad
    return torch.cat([p.grad.flatten() for p in model.parameters()])


model = build().eval()  # as new; no dropout, no stochastic depth
off = {}
for name, training in (("ImageNet's statistics", False), ("each batch's own", True)):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(training)
    whole = gradient(1)
    off[name] = ((gradient(4) - whole).norm() / whole.norm()).item()
    print(
        f"BatchNorm with {name:21}: four pieces are off by {off[name]:.5f} of the gradient's length"
    )
others = [batch.to(device) for batch in list(loader_of(0))[1]]
images, labels, first = *others, whole
other = ((gradient(1) - first).norm() / first.norm()).item()
print(f"for comparison, the gradient of 32 other images is off by {other:.2f}")

# %%
# @title Checks: what these sections say
assert (
    5 * activations[3] < activations[9] < 8 * activations[3] and activations[3] > 5 * activations[0]
)
assert memory["bfloat16"] < 0.6 * memory["batch of 32"]
assert memory["batch of 8"] < 0.3 * memory["batch of 32"]
assert memory["checkpointed"] < 0.5 * memory["batch of 32"]
assert off["ImageNet's statistics"] < 1e-3 and off["each batch's own"] > 0.3

# %% [markdown] slideshow={"slide_type": "slide"}
# Up to rounding, it does, as long as BatchNorm keeps its statistics. In training mode BatchNorm sees
# 8 images at a time instead of 32, and the gradient is a clearly different one: much of the way to that
# of other images. So accumulate with frozen BatchNorm, or in a network without it.
#
# ## Probe first?
#
# The new head is random. Its first gradients say little about charts, and they reach the whole trunk.
# [Kumar et al. (2022)](https://arxiv.org/abs/2202.10054) argue that this distorts pretrained
# features, and propose **LP-FT**: first a linear probe, then fine-tuning from there.
#
# Watch the first epochs of three runs with the same seed, rate and schedule: all layers **at once**;
# **LP-FT**; and as a control the **head alone**, which cannot harm the trunk at all. From here on, all
# blocks train at one rate. It is 0.003, chosen on validation among 0.001, 0.003 and 0.01 for training
# at once.
#
# **Predict:** at once, accuracy is low after the first epoch. Is that harm to the trunk?


# %% slideshow={"slide_type": "subslide"}
def fine_tune(model, loader, epochs=4, lr=3e-3, watch=None, make=torch.optim.AdamW, **options):
    """Train what is trainable in `model` with warm-up and cosine; return the history."""
    optimizer = make(model_builder.parameter_groups(model, lr=lr))
    scheduler = engine.warmup_cosine(optimizer, epochs * len(loader), warmup_steps=8)
    options |= {"epochs": epochs, "device": device, "scheduler": scheduler, "verbose": False}
    return engine.train(model, loader, watch, optimizer, cache_frozen=True, **options)


def probe(seed):
    """Return a model whose head is trained, and whose trunk is free to train."""
    model = build(seed, last=0)
    fine_tune(model, loader_of(seed), epochs=12, lr=1e-2)
    return model_builder.unfreeze(model)


start = engine.evaluate(probe(0), val_dataloader, device).accuracy
makers = {"at once": build, "LP-FT": probe, "head alone": partial(build, last=0)}
curves, models = {}, {}
for name, make in makers.items():
    models[name] = make(0)
    curves[name] = fine_tune(models[name], loader_of(0), watch=val_dataloader)["val_acc"]
    print(f"{name:10}", [f"{accuracy:.2f}" for accuracy in curves[name]])
print(f"the probe, before LP-FT goes on: {start:.2f}")

# %% alt="Validation accuracy over four epochs. At once and the head alone both start low and rise; at once ends higher. LP-FT starts at the probe's accuracy." slideshow={"slide_type": "subslide"}
# @title Figure: the first epochs
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
axis.plot(range(5), [start, *curves["LP-FT"]], "o-", color=utils.BLUE)
axis.plot(range(1, 5), curves["at once"], "s-", color=utils.ORANGE)
axis.plot(range(1, 5), curves["head alone"], "^:", color="0.4")
axis.annotate("LP-FT", (0, start), (0, 8), textcoords="offset points", color=utils.BLUE)
axis.annotate(
    "at once", (1, curves["at once"][0]), (0, 8), textcoords="offset points", ha="right", color=utils.ORANGE
)
axis.annotate(
    "head alone", (4, curves["head alone"][-1]), (8, -4), textcoords="offset points", color="0.4"
)
axis.set(xlabel="Epoch", ylabel="Validation accuracy", ylim=(0, 1), xlim=(-0.2, 4.8))
axis.set_xticks(range(5))
axis.grid(alpha=0.3)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Not in the first epoch: the head alone is just as low, and there the trunk is not even touched. A head
# that has hardly learned explains it. But look at the middle, where the rate is high: at once lags
# behind the head alone, and LP-FT falls below the probe that it started from. So moving the trunk does
# cost accuracy for a while, even with a trained head. By the end it has more than paid back. (This is
# one seed.) Does LP-FT pay at the end? Two more seeds of each, compared paired:


# %% slideshow={"slide_type": "subslide"}
def right_of(model):
    """Return for each validation image whether the model is right, as 0 or 1."""
    result = engine.predict(model, val_dataloader, device)
    return (result.predicted == result.labels).float()


def three_runs(make, loader=loader_of, done=(), **options):
    """Train with seeds 0 to 2 (but those that are done); return which images are right (3, 360)."""
    rights = list(done)
    for seed in range(len(rights), 3):
        model = make(seed)
        fine_tune(model, loader(seed), **options)
        rights.append(right_of(model))
    return torch.stack(rights)


def show(name):
    accuracies = [round(accuracy, 3) for accuracy in runs[name].mean(dim=1).tolist()]
    print(f"{name}: {runs[name].mean():.3f} {accuracies}")
    if name != "at once":
        difference = evaluation.format_difference(
            runs[name].mean(dim=0), runs["at once"].mean(dim=0)
        )
        print(f"    - at once: {difference}")


runs = {
    "at once": three_runs(build, done=[right_of(models["at once"])]),
    "LP-FT": three_runs(probe, done=[right_of(models["LP-FT"])]),
}
for name in runs:
    show(name)

# %%
# @title Checks: what this section says
assert abs(curves["at once"][0] - curves["head alone"][0]) < 0.2
assert curves["at once"][0] < start - 0.1
assert curves["at once"][1] < curves["head alone"][1] and min(curves["LP-FT"]) < start
assert runs["at once"].mean() > curves["head alone"][-1] + 0.02
assert runs["LP-FT"].mean() < runs["at once"].mean() + 0.02

# %% [markdown] slideshow={"slide_type": "slide"}
# Not here: LP-FT does not end ahead of training at once. The paper's gain is largest on images unlike
# the training data. Notebook 05's table has a column for such images: look for the gain there, too.
#
# ## How far does each block move?
#
# It is often said that early layers barely move in fine-tuning, because edges are edges in any image.
# We can look. The **relative update** of a block is the length of the change of its weights, divided
# by the length of the pretrained weights. We compare AdamW (the run above) with plain SGD.
#
# **Predict:** with which of the two do early blocks move least? With both?


# %%
def weights_of(block):
    return torch.cat([p.detach().cpu().flatten() for p in block.parameters if p.ndim > 1])


def movement(model):
    """Return each block's relative update, and the typical (rms) change of one of its weights."""
    pairs = zip(model_builder.blocks(build()), model_builder.blocks(model), strict=True)
    pairs = [(weights_of(old), weights_of(new)) for old, new in pairs]
    relative = [((new - old).norm() / old.norm()).item() for old, new in pairs]
    return relative, [(new - old).square().mean().sqrt().item() for old, new in pairs]


with_sgd = build()
fine_tune(with_sgd, loader_of(0), lr=0.03, make=partial(torch.optim.SGD, momentum=0.9))
moved = {"AdamW": movement(models["at once"]), "SGD": movement(with_sgd)}
for name, (relative, _) in moved.items():
    print(f"{name:5} moved by", " ".join(f"{value:.3f}" for value in relative))
sizes = [change / share for share, change in zip(*moved["AdamW"], strict=True)]
print("typical weight", " ".join(f"{size:5.2f}" for size in sizes))

# %% alt="Two panels over the nine blocks, on a log scale. Left, the relative update: with AdamW it rises from the first block to the last, with SGD it falls. Right, the typical change of a weight: with AdamW nearly level, with SGD falling." slideshow={"slide_type": "subslide"}
# @title Figure: how far each block moved
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
labels = "Relative update of the block", "Typical change of a weight"
for axis, which, label in zip(axes, (0, 1), labels, strict=True):
    for (name, values), color, style in zip(
        moved.items(), (utils.BLUE, utils.RED), ("o-", "s--"), strict=True
    ):
        axis.plot(values[which], style, color=color)
        axis.annotate(
            name,
            (8, values[which][-1]),
            (8, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    axis.set(
        yscale="log",
        xlabel="Block, from input to head",
        ylabel=label,
        xticks=range(9),
        xlim=(-0.3, 10.8),
    )
    axis.grid(alpha=0.3)

# %% [markdown] slideshow={"slide_type": "subslide"}
# With AdamW, early blocks do move least, as the saying has it. With SGD they move more than late ones.
# The images are the same, so the images alone do not decide it; the optimizer does. AdamW divides each
# gradient by its usual size, so that every weight moves about as far per step (right: the line is nearly
# level). Early weights are larger (the last line of the output), and the same step is a smaller part of
# them. SGD multiplies the gradient itself.
#
# How far a block moved does not tell us whether it *needed* to. That takes a control: freeze the first
# four of the nine blocks, and train the rest with the same seeds, rate and schedule.
#
# **Predict:** what does accuracy lose? What does memory gain?

# %% slideshow={"slide_type": "subslide"}
runs["first four frozen"] = three_runs(partial(build, last=5))
show("first four frozen")
model = build(last=5)
activations[5] = kept_megabytes(model, partial(model, images))
print(f"activations of a batch: {activations[5]:.0f} MB instead of {activations[9]:.0f} MB")

# %%
# @title Checks: what this section says
adamw, sgd = moved["AdamW"][0], moved["SGD"][0]
assert max(moved["AdamW"][1]) < 3 * min(moved["AdamW"][1]) and sizes[0] > 5 * sizes[-1]
assert sum(adamw[-3:]) > 2 * sum(adamw[:3]) and sum(sgd[:3]) > sum(sgd[-3:])
assert abs(runs["first four frozen"].mean() - runs["at once"].mean()) < 0.035
assert activations[5] < 0.4 * activations[9]

# %% [markdown] slideshow={"slide_type": "slide"}
# No loss that we can see, for a third of the memory for activations. The early blocks moved, but if
# freezing them costs anything here, it is little: the interval says how much at most.
# If memory or time is short, freeze from the front: as in notebook 03, frozen blocks run only once.
#
# ## When to stop
#
# With a schedule, a run has a planned end, and its rates are near zero there. Without one, accuracy
# goes up and down from epoch to epoch. Then two options help: `keep_best="loss"` ends with the weights
# of the best epoch on validation, and `patience=5` stops after five epochs without a better one.
#
# **Predict:** we take the best epoch on validation. Is its validation accuracy an honest estimate?

# %% slideshow={"slide_type": "subslide"}
model, by_epoch = build(last=2), []  # two blocks, to make many epochs cheap
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3))  # no schedule
options = {"epochs": 20, "patience": 5, "keep_best": "loss", "cache_frozen": True}
history = engine.train(
    model, loader_of(0), val_dataloader, optimizer, device=device, verbose=False, **options,
    after_epoch=lambda epoch, model, history: by_epoch.append(right_of(model)),
)  # fmt: skip
by_epoch = torch.stack(by_epoch)  # (epochs, 360)
print("accuracy after each epoch:", [f"{accuracy:.2f}" for accuracy in history["val_acc"]])
best = min(range(len(by_epoch)), key=lambda epoch: history["val_loss"][epoch])
print(f"stopped after epoch {len(by_epoch)}, kept epoch {best + 1}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# To see what choosing does to the estimate, split the validation images in half. Choose the epoch with
# the best accuracy on one half, and read its accuracy on the other. We do it for 1,000 random halves:

# %% slideshow={"slide_type": "subslide"}
chosen_on, read_on = [], []
for order in torch.rand(1000, len(splits.val)).argsort(dim=1):
    here, there = order[:180], order[180:]
    epoch = by_epoch[:, here].mean(dim=1).argmax()
    chosen_on.append(by_epoch[epoch, here].mean().item())
    read_on.append(by_epoch[epoch, there].mean().item())
chosen_on, read_on = sum(chosen_on) / 1000, sum(read_on) / 1000
print(f"best epoch, on the half that chose it: {chosen_on:.3f}")
print(f"best epoch, on the other half:         {read_on:.3f}")

# %%
# @title Checks: what this section says
assert chosen_on > read_on
assert len(by_epoch) <= 20

# %% [markdown] slideshow={"slide_type": "slide"}
# The half that chose makes the epoch look better than it is. This is the test split's purpose: it
# takes no part in any choice.
#
# ## Regularization
#
# **Augmentation** shows each image in a new version in every epoch: cropped, mirrored, with other
# colours. (Is a mirrored bar chart still a bar chart? Yes. But a mirrored b is a d.)
# **Label smoothing** asks for a little less than certainty, and **mixup** for blends:
# two images laid over each other, with both labels. We try the last two together. The engine takes the
# mixed labels as they come.

# %% slideshow={"slide_type": "subslide"}
mix = v2.MixUp(num_classes=12, alpha=0.2)


def mixed_loader(seed):
    return DataLoader(
        loader_of(seed).dataset,
        batch_size=32,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=lambda batch: mix(*default_collate(batch)),
    )


augment = data_setup.create_transform("efficientnet_lite0", size=80, augment=True)
runs["augmented"] = three_runs(build, loader=partial(loader_of, transform=augment))
smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
runs["mixup, smoothing"] = three_runs(build, loader=mixed_loader, loss_fn=smoothed)
for name in ("at once", "augmented", "mixup, smoothing"):
    show(name)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Neither is ahead after four epochs. In longer runs it can be otherwise: exercise 1 below doubles the
# epochs.
#
# **Weight decay** pulls each weight towards zero at every step, by the rate times the decay. In our
# runs, of 32 batches, a decay of 0.05 would leave a weight 99.8% of its size. So it is a matter of
# long runs; in a fine-tuning of a few epochs you need not search for its best value.
#
# ## Side by side

# %% alt="The difference in validation accuracy between each recipe and training at once, with its paired interval, one recipe a row." slideshow={"slide_type": "subslide"}
# @title Figure: each recipe against training at once
others = [name for name in runs if name != "at once"]
figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
for place, name in enumerate(others):
    pair = runs[name].mean(dim=0), runs["at once"].mean(dim=0)
    low, high = evaluation.bootstrap_difference(*pair)
    axis.plot([low, high], [place] * 2, color=utils.BLUE, linewidth=3, solid_capstyle="butt")
    axis.plot((pair[0] - pair[1]).mean().item(), place, "o", color=utils.BLUE)
axis.axvline(0, color="0.4", linestyle=":")
axis.set_yticks(range(len(others)), others)
axis.set(
    xlabel="Validation accuracy minus that of training at once", ylim=(-0.5, len(others) - 0.5)
)
axis.grid(alpha=0.3, axis="x")

# %%
# @title Checks: what these sections say
for name in ("augmented", "mixup, smoothing"):
    assert -0.07 < runs[name].mean() - runs["at once"].mean() < 0.03
optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-3)
scheduler, kept = engine.warmup_cosine(optimizer, 4 * batches, warmup_steps=8), 1.0
for _ in range(4 * batches):
    kept *= 1 - optimizer.param_groups[0]["lr"] * 0.05
    optimizer.step()
    scheduler.step()
assert batches == 8 and round(kept, 3) == 0.998

# %% [markdown]
# Each line is a 95% interval of a paired difference. It says what these three runs would do on other
# images like these; other seeds would add to it. Where it lies left of zero, the recipe is behind
# training at once; where it crosses zero, we cannot tell. None is clearly ahead.
# So here the plain recipe, with a rate chosen on validation, is enough, and freezing from the front
# makes it cheap. Two things to keep in mind: the rate was chosen for training at once, and the others
# took it over; and all this is about 20 images of each kind and four epochs. With other data, run the
# comparison again.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You fine-tuned all layers with a rate for each block and a schedule, in plain PyTorch and with the
#   package, with the same result.
# - You counted what it costs: the activations of the early blocks. Mixed precision, smaller batches,
#   accumulation and checkpointing bring it down.
# - You tested advice against controls: a probe first, augmentation and mixup brought nothing here, and
#   freezing the early blocks cost nothing that we could see.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check yourself
#
# 1. The early blocks have few parameters. Why does unfreezing them cost so much memory?
#    - **a** · Their gradients are larger.
#    - **b** · Their feature maps are large, and are kept until the backward pass.
#    - **c** · AdamW keeps two values for each of them.
#
# <details><summary>Answer</summary>
#
# **b.** Activations, not parameters, fill the memory. *a:* A gradient has the shape of its
# parameter, and these are few. *c:* True of all parameters, and little for so few.
# </details>
#
# 2. A blog shows 0.5 after the first epoch of full fine-tuning, and concludes that the random head has
#    harmed the trunk. What is missing?
#    - **a** · The same epoch with the trunk frozen.
#    - **b** · A second epoch.
#    - **c** · The training accuracy.
#
# <details><summary>Answer</summary>
#
# **a.** If the head alone is as low, a head that has not learned yet explains it. *b:* It shows a rise
# either way. *c:* It is low either way, too.
# </details>
#
# 3. Somebody shows that early layers moved by 0.5% only, and concludes that they did not matter.
#    What do you reply?
#    - **a** · The distance depends on optimizer, rate and steps; freeze them and compare.
#    - **b** · Right: a small change is of no use.
#    - **c** · They would have moved more with a larger batch.
#
# <details><summary>Answer</summary>
#
# **a.** How far a block moved does not tell us what the move was good for. *b:* Small changes of early
# layers reach all later ones. *c:* Fewer steps per epoch: rather less. And it would not answer the
# question.
# </details>
#
# 4. Of seven recipes on the same 360 validation images, the best is two points ahead of the second.
#    Is it the best recipe?
#    - **a** · Yes, it won.
#    - **b** · Look at the paired difference, with seeds; and the best of seven is flattered by chance.
#    - **c** · No: their intervals overlap.
#
# <details><summary>Answer</summary>
#
# **b.** Images and seeds that took no part in the choice would tell. *a:* One of seven always wins,
# even where all are equal. *c:* All saw the same images, so overlapping intervals do not decide it.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/04_full_fine_tuning.ipynb) check your code and say what is missing. On
# this page, change one thing, say first what you expect, then run:
#
# 1. Train at once for eight epochs, with and without augmentation. Which of the two gains from the
#    longer run?
# 2. Train at once with `lr=1e-2`. Does the first epoch suffer, or the end?
# 3. **Gradual unfreezing**: train the head, then `unfreeze(model, last=2)`, `last=4` and all, two
#    epochs each. Is it ahead of training at once with as many epochs?
