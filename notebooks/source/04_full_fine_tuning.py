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
# Now nothing is frozen. All layers may adapt, which is the most powerful form of transfer, the most
# expensive one, and the easiest to spoil. This notebook shows the usual means to do it with care,
# and measures which of them matter here.
#
# **You will**
# - count what full fine-tuning costs in parameters, memory and seconds;
# - set a learning rate for each block and a schedule, start from a probe, unfreeze step by step,
#   augment, and compare the results with their intervals;
# - measure how far each block moves from its pretrained weights, and find out why.
#
# **You need** notebooks 02 and 03: probe, freezing, blocks, the 95 % interval.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import time
from functools import partial

import matplotlib.pyplot as plt
import torch

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# As in notebook 03: 20 training pictures of each kind of chart, at 80 pixels, so that many runs fit
# into a lesson. We choose by the validation split; the test split stays closed.

# %% tags=["nbval-check-output"]
splits = data_setup.load("charts")
few = splits.train.few(20, seed=0)
transform = data_setup.create_transform("efficientnet_lite0", size=80)
train_dataloader = data_setup.create_dataloader(few, transform, shuffle=True, seed=0)
val_dataloader = data_setup.create_dataloader(splits.val, transform, batch_size=60)
print(len(few), "training pictures in", len(train_dataloader), "batches")
print(len(splits.val), "validation pictures")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What it costs
#
# Training keeps more in memory than the model. For the backward pass it keeps the **activations**:
# what the layers gave out on the way forward. For each trainable parameter it keeps a gradient and,
# with AdamW, two running averages of gradients. We count the activations while PyTorch stores them;
# this works on any system and device.
#
# **Predict:** three trainable blocks hold 79 % of the parameters, so all nine hold not many more.
# How many times the activations does it take to train all nine?


# %%
def build(last=None, seed=0):
    """Return a pretrained model with a new head; its `last` blocks train, by default all."""
    utils.seed_everything(seed)
    return model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=last)


def activation_bytes(model, images):
    """Count what a forward pass keeps for the backward pass, without the parameters."""
    kept = {}

    def note(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(images)  # while it lives, so do the tensors, each at an address of its own
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    del logits
    return sum(size for address, size in kept.items() if address not in parameters)


# %% slideshow={"slide_type": "subslide"}
images, _ = next(iter(train_dataloader))
activations = {}
for last in (0, 3, 9):
    model = build(last).to(device)
    activations[last] = activation_bytes(model, images.to(device)) / 1e6
    trainable, total = model_builder.count_parameters(model)
    print(f"last={last}: {trainable:9,} of {total:,} trainable ({trainable / total:.0%}), ", end="")
    print(f"gradients and averages {trainable * 3 * 4 / 1e6:3.0f} MB, ", end="")
    print(f"activations of a batch {activations[last]:5.1f} MB")
assert activations[9] > 5 * activations[3] > 25 * activations[0]

# %% [markdown] slideshow={"slide_type": "slide"}
# The early blocks have hardly any parameters, but large feature maps: that is where memory goes. It
# also grows with the batch and the area of the picture, so a smaller batch is the first thing to
# try where memory runs out.
#
# ## Learning rates
#
# Notebook 03 gave head and trunk a rate each. **Layer-wise decay** goes further: each block learns
# at a fixed fraction of the rate of the block behind it, so that what is nearest to the pixels
# changes least ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)). The rates also change
# over time. A **warm-up** starts low, while the head is random and AdamW has seen few gradients. A
# **schedule** lowers the rates later, so that training settles down: `StepLR` by a factor at fixed
# epochs, a cosine smoothly.


# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
def rates_by_block(**rates):
    groups = model_builder.parameter_groups(build(), lr=1e-3, **rates)
    return [group["lr"] for group in groups]


two, decayed = rates_by_block(trunk_lr=1e-4), rates_by_block(layer_decay=0.7)
print("two rates, trunk and head:", [f"{rate:.0e}" for rate in two])
print("layer decay, first block to head:", [f"{rate:.0e}" for rate in decayed])


# %% tags=["nbval-check-output"]
def rates_over_time(make_scheduler):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(32):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


step = rates_over_time(partial(torch.optim.lr_scheduler.StepLR, step_size=16, gamma=0.1))
cosine = rates_over_time(partial(engine.warmup_cosine, total_steps=32, warmup_steps=8))
print("StepLR, first and last batch:        ", f"{step[0]:.1e} {step[-1]:.1e}")
print("warm-up and cosine, first and last:  ", f"{cosine[0]:.1e} {cosine[-1]:.1e}")

# %% [markdown]
# The 32 batches are those of the runs below. `StepLR` asks you when to drop and by how much;
# warm-up and cosine need only the number of batches, so we use them from here on.

# %% slideshow={"slide_type": "subslide"}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot([1e-3] * 10, "o-", color=utils.BLUE, label="one rate")
axes[0].plot([two[0]] * 9 + [two[1]], "s--", color=utils.ORANGE, label="two rates")
axes[0].plot(decayed, "^:", color=utils.GREEN, label="layer decay 0.7")
axes[0].set(yscale="log", xlabel="Block", ylabel="Learning rate", ylim=(2e-5, 1e-2))
axes[0].set_xticks(range(10), [*range(9), "head"])
axes[1].plot(step, "--", color=utils.ORANGE, label="StepLR")
axes[1].plot(cosine, color=utils.BLUE, label="warm-up, cosine")
axes[1].set(xlabel="Batch", ylabel="Learning rate")
for axis, place in zip(axes, ("upper left", "upper right"), strict=True):
    axis.legend(loc=place)
    axis.grid(alpha=0.3)
# %% [markdown] slideshow={"slide_type": "slide"}
# Left: the rate of each block under three recipes, on a log scale. Right: a rate over the batches.
#
# ## All at once, or probe first?
#
# The new head is random. In the first steps its errors are large and say little about charts, yet
# they reach the whole trunk and move it. [Kumar et al. (2022)](https://arxiv.org/abs/2202.10054)
# show that this distorts pretrained features, and propose **LP-FT**: first a linear probe with the
# trunk frozen, then fine-tuning from there. With the frozen work done once, the probe is nearly
# free.


# %%
def fine_tune(
    model, epochs=4, loader=train_dataloader, watch=None, make=torch.optim.AdamW, hook=None, **lrs
):
    """Train what is trainable in `model` with warm-up and cosine; return the history."""
    optimizer = make(model_builder.parameter_groups(model, **lrs))
    steps = epochs * len(loader)
    scheduler = engine.warmup_cosine(optimizer, steps, warmup_steps=8)
    options = {"epochs": epochs, "device": device, "scheduler": scheduler, "verbose": False}
    options |= {"cache_frozen": True, "after_epoch": hook}
    return engine.train(model, loader, watch, optimizer, **options)


def note(name, model, start):
    """Measure a finished run on the validation split, write it down and print it."""
    seconds = time.perf_counter() - start
    runs[name] = seconds, engine.evaluate(model, val_dataloader, device)
    correct, total = runs[name][1].correct, runs[name][1].total
    print(f"{name:24} {seconds:5.1f} s  {evaluation.format_accuracy(correct, total)}")


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** both runs train all layers for four epochs at the same rate. Which one is ahead after
# the first epoch, and which one at the end?
#
# The engine calls the function `after_epoch` after each epoch. Ours prints a line; with
# `writer = torch.utils.tensorboard.SummaryWriter()`, the line could be
# `writer.add_scalar("accuracy", history["val_acc"][-1], epoch)`, and TensorBoard draws the curve.


# %% slideshow={"slide_type": "subslide"}
def show(epoch, model, history):
    print(f"epoch {epoch}: validation accuracy {history['val_acc'][-1]:.2f}")


runs = {}  # name -> seconds and validation result; `note` fills it
start = time.perf_counter()
at_once = build()
curve_at_once = fine_tune(at_once, watch=val_dataloader, hook=show, lr=1e-3)["val_acc"]
note("at once", at_once, start)

# %% [markdown]
# Now the probe, and the same fine-tuning from there.

# %% slideshow={"slide_type": "subslide"}
start = time.perf_counter()
model = build(last=0)
fine_tune(model, epochs=12, lr=1e-2)
note("probe", model, start)
model_builder.unfreeze(model)
curve_probe_first = fine_tune(model, watch=val_dataloader, lr=1e-3)["val_acc"]
note("probe first", model, start)
assert curve_probe_first[0] > curve_at_once[0] + 0.08

# %% slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
first = [runs["probe"][1].accuracy, *curve_probe_first]
axis.plot(range(5), first, "o-", color=utils.BLUE, label="probe first (LP-FT)")
axis.plot(range(1, 5), curve_at_once, "s--", color=utils.ORANGE, label="at once")
axis.set(xlabel="Epochs with all layers", ylabel="Validation accuracy", ylim=(0, 1))
axis.set_xticks(range(5))
axis.legend(loc="lower right")
axis.grid(alpha=0.3)
# %% [markdown] slideshow={"slide_type": "slide"}
# Validation accuracy after each epoch with all layers; LP-FT begins at the probe's own accuracy
# (epoch 0). At once, the first epoch goes into undoing the harm of a random head; LP-FT is far
# ahead there. At the end, fine-tuning at once has caught up. Compare the two intervals printed
# above: they overlap, so on these pictures we may not claim that one way is better than the other.
# A good probe has little loss left on its training pictures, and so it gives the trunk only small
# gradients to learn from. The paper's gain is largest on data that differ from the training data,
# and notebook 05 looks at such pictures.
#
# ## How far does each block move?
#
# It is often said that early layers barely move in fine-tuning, since edges are edges in any
# picture. We can look: for each block, the **relative update** is the length of the change of its
# weights, divided by the length of the pretrained weights. We compare three
# runs that train all layers at once: AdamW with one rate (the run above), AdamW with layer decay,
# and SGD with one rate.
#
# **Predict:** in which of the three do early blocks move least? In all of them?


# %%
def movement(model):
    """Return two lists over blocks: relative update, and root mean square change of a weight."""
    relative, per_weight = [], []
    pretrained = build()
    for old, new in zip(model_builder.blocks(pretrained), model_builder.blocks(model), strict=True):
        before, after = (
            torch.cat([p.detach().cpu().flatten() for p in block.parameters if p.ndim > 1])
            for block in (old, new)
        )
        change = after - before
        relative.append((change.norm() / before.norm()).item())
        per_weight.append(change.square().mean().sqrt().item())
    return relative, per_weight


moved = {"AdamW, one rate": movement(at_once)}
print(
    "relative update, first to last block:",
    [f"{value:.3f}" for value in moved["AdamW, one rate"][0]],
)

# %% [markdown]
# That was AdamW with one rate. The other two runs:

# %%
start = time.perf_counter()
model = build()
fine_tune(model, lr=3e-3, layer_decay=0.7)
note("at once, layer decay", model, start)
moved["AdamW, layer decay"] = movement(model)

start = time.perf_counter()
model = build()
fine_tune(model, make=partial(torch.optim.SGD, momentum=0.9), lr=0.03)
note("at once, SGD", model, start)
moved["SGD, one rate"] = movement(model)
for name, (relative, _) in moved.items():
    print(f"{name:18}", " ".join(f"{value:.4f}" for value in relative))
adamw, layer_decay, sgd = (relative for relative, _ in moved.values())
assert adamw[-1] > 4 * adamw[0] and layer_decay[-1] > 30 * layer_decay[0]
assert sum(sgd[:4]) > sum(sgd[-4:])  # the other way round

# %% slideshow={"slide_type": "subslide"}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
colors, styles = (utils.BLUE, utils.GREEN, utils.RED), ("o-", "^:", "s--")
for (name, values), color, style in zip(moved.items(), colors, styles, strict=True):
    for axis, value in zip(axes, values, strict=True):
        axis.plot(value, style, color=color, label=name)
labels = "Relative update of the block", "Change of a weight (rms)"
for axis, label in zip(axes, labels, strict=True):
    axis.set(yscale="log", xlabel="Block, from input to head", ylabel=label, xticks=range(9))
    axis.legend()
    axis.grid(alpha=0.3)
# %% [markdown] slideshow={"slide_type": "subslide"}
# Left: how far each block moved, relative to its size, on a log scale. Right: the change of a
# single weight (root mean square). With AdamW, early blocks do move least, as the saying has it.
# But with SGD it is the other way round: there they move most. So the pictures do not decide this
# alone. Why?
#
# - **AdamW divides each gradient by its own usual size.** A step is then about as long as the
#   learning rate, whatever the gradient, in every block: with one rate, the line on the right is
#   nearly level. Early weights are larger, so that the same step is a smaller part of them:

# %% slideshow={"slide_type": "subslide"}
sizes = []
for block in model_builder.blocks(build()):
    weights = torch.cat([p.detach().flatten() for p in block.parameters if p.ndim > 1])
    sizes.append(weights.square().mean().sqrt().item())
print("rms of a pretrained weight:", [f"{size:.2f}" for size in sizes])
change = moved["AdamW, one rate"][1]
print(f"largest over smallest: weights {max(sizes) / min(sizes):.0f}, ", end="")
print(f"their change {max(change) / min(change):.1f}")
assert max(sizes) / min(sizes) > 3 * max(change) / min(change)

# %% [markdown] slideshow={"slide_type": "slide"}
# - **SGD multiplies the gradient itself by the rate.** Gradients do reach the early blocks, and for
#   their size they get large ones: all pictures and all positions in them add up there.
#
# What is not visible: whether a block *needed* to move. A short way may matter much, a long one
# little. What we can say is: early layers keep still where optimizer and rates make them. **Layer
# decay** makes them, by choice.
#
# ## Gradual unfreezing
#
# A third way of not disturbing the trunk at the start: head first, then a few blocks more at each
# stage ([Howard and Ruder, 2018](https://arxiv.org/abs/1801.06146)). While most blocks are frozen,
# their work is done once, so that only the last stage has the full price.

# %% slideshow={"slide_type": "subslide"}
start = time.perf_counter()
model = build(last=0)
for last, epochs in ((0, 6), (2, 2), (4, 2), (9, 2)):
    model_builder.unfreeze(model, last=last)
    history = fine_tune(model, epochs=epochs, lr=3e-3, layer_decay=0.7)
    print(f"last={last}: {sum(history['seconds']) / epochs:.2f} s an epoch")
note("gradual", model, start)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Augmentation and weight decay
#
# Two means against overfitting. **Augmentation** shows each picture in a new version in every
# epoch: cropped, mirrored, with other colours. Is each of these right for charts? A mirrored bar
# chart is still a bar chart, so yes; for photos of letters it would not be.

# %% slideshow={"slide_type": "subslide"}
augment = data_setup.create_transform("efficientnet_lite0", size=80, augment=True)
augmented = data_setup.create_dataloader(few, augment, shuffle=True, seed=0)
start = time.perf_counter()
model = build()
history = fine_tune(model, loader=augmented, lr=1e-3)
note("at once, augmented", model, start)
print(f"accuracy on its (augmented) training pictures: {history['train_acc'][-1]:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Weight decay** pulls each weight towards zero a little at every step. It is meant for weight
# matrices; `parameter_groups` spares biases and BatchNorm. How much does it do in a run this short?
# For that no training is needed, only arithmetic.
#
# **Predict:** with a weight decay of 0.05, by how much does a weight shrink in one of our runs?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
for group in model_builder.parameter_groups(model, lr=1e-3, weight_decay=0.05):
    print(f"{group['name']:16} {len(group['params']):3} tensors, decay {group['weight_decay']}")
shrunk = 1.0
for rate in cosine:
    shrunk *= 1 - rate * 0.05
print(f"after {len(cosine)} batches a weight keeps {shrunk:.2%} of its size")

# %% [markdown] slideshow={"slide_type": "slide"}
# By less than a thousandth: nothing that could show. Weight decay is a matter of long runs. In a
# fine-tuning of a few epochs you need not search for its best value.
#
# And augmentation? Compare the run with the one at once: the training accuracy is lower, since the
# task is harder, and the intervals on the validation split overlap widely. In so few epochs the
# network hardly has time to learn single pictures by heart, so there is little to prevent.
#
# ## All runs beside each other

# %% slideshow={"slide_type": "subslide"}
names = sorted(runs, key=lambda name: runs[name][1].accuracy)
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for place, name in enumerate(names):
    seconds, result = runs[name]
    low, high = evaluation.wilson_interval(result.correct, result.total)
    axis.plot([low, high], [place, place], color=utils.BLUE)
    axis.plot(result.accuracy, place, "o", color=utils.BLUE)
    print(f"{name:24} {seconds:5.1f} s  {evaluation.format_accuracy(result.correct, result.total)}")
recipes = [runs[name][1].accuracy for name in names if name not in ("probe", "at once, SGD")]
assert max(recipes) - min(recipes) < 0.12
axis.set_yticks(range(len(names)), names)
axis.set(xlabel="Validation accuracy")
axis.grid(alpha=0.3, axis="x")
# %% [markdown]
# Every recipe's validation accuracy with its 95 % interval, the best at the top. AdamW's recipes
# lie close together, and their intervals overlap: layer decay, LP-FT, gradual unfreezing and
# augmentation are different ways to nearly the same place here, with 20 pictures of each kind and a
# few epochs. Another seed can turn the order round. The SGD run is there for its picture: nobody
# has searched for its best rate, so its place in the table says little.
#
# That is a result, too: choose by cost and by safety. The probe takes a small part of the seconds.
# LP-FT and gradual unfreezing spare you the dip at the start. And all this says nothing about other
# data: more pictures, larger ones or more epochs can change it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You counted what full fine-tuning costs: activations of the early blocks fill the memory.
# - You set rates for each block and a schedule, started from a probe, unfroze step by step and
#   augmented, and compared the results with their intervals.
# - You measured how far each block moved, and found optimizer and learning rates behind it.

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
# 2. Why can a random head harm a good trunk?
#    - **a** · Its outputs are too large.
#    - **b** · It makes BatchNorm's statistics wrong.
#    - **c** · The trunk's gradient passes through it, and pulls the features where nothing is to be
#      gained.
#
# <details><summary>Answer</summary>
#
# **c.** A probe first, a warm-up, a smaller rate for the trunk, or gradual unfreezing all lessen
# this. *a:* A new layer's outputs start small. *b:* These are computed before the head, from the
# pictures.
# </details>
#
# 3. Somebody shows that early layers moved by 0.5 % only, and concludes that they did not matter.
#    What do you reply?
#    - **a** · With AdamW, that follows from rate, steps and size of the weights; freeze them and
#      compare.
#    - **b** · Right: a small change is of no use.
#    - **c** · They would have moved more with a larger batch.
#
# <details><summary>Answer</summary>
#
# **a.** How far a block moved does not tell what the move was good for. *b:* Small changes of early
# layers reach all later ones. *c:* Fewer steps an epoch: rather less. And it would not answer the
# question.
# </details>
#
# 4. Of seven recipes on the same 360 validation pictures, the best is two points ahead. Is it the
#    best recipe?
#    - **a** · Yes, it won.
#    - **b** · We do not know.
#    - **c** · Yes, if its training accuracy is the best, too.
#
# <details><summary>Answer</summary>
#
# **b.** The intervals are wider than two points, and the best of seven is flattered by chance. More
# seeds, and pictures that took no part in the choice, would tell. *a:* One of seven always wins,
# even where all are equal. *c:* Training accuracy tells who learns by heart.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/04_full_fine_tuning.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Give `fine_tune` a `StepLR` in place of warm-up and cosine, and train at once. Does the end
#    differ? Does the first epoch?
# 2. Train at once with `lr=1e-2`, then from the probe with the same rate. Which run suffers more?
# 3. Use `layer_decay=0.3`. How far do the first three blocks move now, and does accuracy notice?
