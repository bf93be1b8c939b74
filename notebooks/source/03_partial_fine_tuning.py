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
# A linear probe leaves the pretrained trunk as it is. **Fine-tuning** goes on training it on the
# new pictures. In this notebook only the last blocks train, which is called **partial
# fine-tuning**: more can adapt than with a probe, and most of the work is still frozen.
#
# **You will**
# - unfreeze the last blocks, and measure what each further block costs and brings;
# - meet the trap that BatchNorm sets when a part of the trunk trains, and choose a cure;
# - give trunk and head a learning rate each, and see what happens if the trunk's is too large.
#
# **You need** notebook 02: head, trunk, freezing, BatchNorm's buffers, the 95 % interval.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data
#
# The charts again, but with half of the training pictures, 20 of each kind, and at 80 pixels. Small
# pictures cost accuracy: thin lines vanish. In return we can afford many runs and compare them.
# All choices are made on the validation split; the test split stays closed.

# %% tags=["nbval-check-output"]
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=80)
few = splits.train.few(20, seed=0)
train_dataloader = data_setup.create_dataloader(few, transform, shuffle=True, seed=0)
val_dataloader = data_setup.create_dataloader(splits.val, transform, batch_size=60)
print(len(few), "training pictures in", len(train_dataloader), "batches")
print(len(splits.val), "validation pictures")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Unfreeze by blocks
#
# A deep network is a chain of **blocks**. The first ones see edges and colours, later ones see
# parts and whole things. What is learned first is useful for almost any picture; what comes late
# is made for the old task. So we unfreeze from the end. `blocks` lists them in forward order.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
model = model_builder.create_model("efficientnet_lite0", num_classes=12)
for last in range(10):
    model_builder.unfreeze(model, last=last)
    trainable, total = model_builder.count_parameters(model)
    first = "the head alone" if last == 0 else f"from {model_builder.blocks(model)[-last].name} on"
    print(f"last={last}  {trainable:>9,} trainable, {trainable / total:4.0%}  {first}")

# %% [markdown] slideshow={"slide_type": "slide"}
# The parameters are not spread evenly: the last three of nine blocks hold four fifths of them. So
# "we only trained a third of the layers" says little; say the number of parameters, too.
#
# ### The recipe with names, and ours
#
# In many lessons you find another way: freeze everything, then make those parameters trainable
# whose names begin with `layer4` or `fc`. These are the last block and the head of a ResNet-18. To
# show the names, random weights will do.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
by_name = model_builder.create_model("resnet18", num_classes=12, weights=None)
for name, parameter in by_name.named_parameters():
    parameter.requires_grad = name.startswith(("layer4", "fc"))
by_block = model_builder.unfreeze(model_builder.create_model("resnet18", 12, weights=None), last=1)
print([name for name, _ in by_name.named_children()])
print([block.name for block in model_builder.blocks(by_block)])
print("by name: ", model_builder.count_parameters(by_name))
print("by block:", model_builder.count_parameters(by_block))
assert model_builder.count_parameters(by_name) == model_builder.count_parameters(by_block)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Both ways train the same parameters. The names, however, belong to one family of networks.
#
# **Predict:** how many parameters does the same recipe unfreeze in our EfficientNet?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
names = [name for name, _ in model.named_parameters()]
print(sum(name.startswith(("layer4", "fc")) for name in names), "of", len(names), "tensors")
print("for example:", names[0], "and", names[-1])

# %% [markdown] slideshow={"slide_type": "slide"}
# None, and without an error: nothing would train, not even the head. Where you select by name,
# print the count of trainable parameters before you train. Selecting by blocks needs no names.
#
# ## How many blocks?
#
# One function trains all variants, so that only what we change differs. The head learns at 0.003,
# the trunk at a third of that; a later section shows why it gets less. The rates rise for one
# epoch and then fall along a cosine (notebook 04 says more about such schedules).
#
# `cache_frozen=True` runs the frozen blocks once. The fewer blocks train, the more that saves.
# `fused=True` lets AdamW update all parameters in one pass over memory; the result is the same.


# %%
def build(last, seed=0):
    """Return a pretrained model with a new head, whose last blocks are trainable."""
    utils.seed_everything(seed)
    return model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=last)


def fine_tune(model, loader=train_dataloader, lr=3e-3, trunk_lr=1e-3, epochs=6, watch=None):
    """Train what is trainable in `model`; return the history."""
    groups = model_builder.parameter_groups(model, lr=lr, trunk_lr=trunk_lr)
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = epochs * len(loader)
    scheduler = engine.warmup_cosine(optimizer, steps, warmup_steps=len(loader))
    options = {"epochs": epochs, "device": device, "scheduler": scheduler, "verbose": False}
    return engine.train(model, loader, watch, optimizer, cache_frozen=True, **options)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** five trainable blocks have 217 times as many parameters as the head alone. How
# much longer does an epoch take? And which number of blocks is the most accurate?

# %% slideshow={"slide_type": "subslide"}
sweep = {}
print("last  trainable  seconds an epoch  validation accuracy")
for last in (0, 1, 2, 3, 5):
    model = build(last)
    history = fine_tune(model, watch=val_dataloader if last == 3 else None)
    result = engine.evaluate(model, val_dataloader, device)
    seconds = sum(history["seconds"]) / len(history["seconds"])
    sweep[last] = model_builder.count_parameters(model)[0], seconds, result, history
    accuracy = evaluation.format_accuracy(result.correct, result.total)
    print(f"{last:4}  {sweep[last][0]:9,}  {seconds:16.2f}  {accuracy}")
print(f"{sweep[5][0] / sweep[0][0]:.0f} times the parameters")
assert sweep[5][1] > 3 * sweep[0][1]
assert min(result.accuracy for _, _, result, _ in sweep.values()) > 0.6  # guessing: 0.083

# %% slideshow={"slide_type": "subslide"}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for last, (_, seconds, result, _) in sweep.items():
    low, high = evaluation.wilson_interval(result.correct, result.total)
    axes[0].plot([last, last], [low, high], color=utils.BLUE)
    axes[0].plot(last, result.accuracy, "o", color=utils.BLUE)
    axes[1].plot(last, seconds, "s", color=utils.ORANGE)
axes[0].set(ylabel="Validation accuracy", ylim=(0.7, 1))
axes[1].set(ylabel="Seconds an epoch")
for axis in axes:
    axis.set(xlabel="Trainable blocks before the head", xticks=list(sweep))
    axis.grid(alpha=0.3)
# %% [markdown]
# Left: validation accuracy with its 95 % interval against the number of trainable blocks. Right:
# seconds an epoch. The cost follows the depth at which gradients begin, not the number of
# parameters: early blocks have few parameters, but they work on large feature maps. As for
# accuracy, two blocks and more lie higher than the probe on the left, but look at the bars before
# you say "better": where two of them overlap widely, this run alone does not tell the two apart.
#
# An interval speaks about other validation pictures. It does not say what other training pictures
# and another random head would give. For that, we train again with other seeds: the probe and
# three blocks, each with three sets of training pictures.

# %% slideshow={"slide_type": "subslide"}
seeds = {}
for last in (0, 3):
    accuracies = [sweep[last][2].accuracy]
    for seed in (1, 2):
        pictures = splits.train.few(20, seed=seed)
        loader = data_setup.create_dataloader(pictures, transform, shuffle=True, seed=seed)
        model = build(last, seed)
        fine_tune(model, loader)
        accuracies.append(engine.evaluate(model, val_dataloader, device).accuracy)
    seeds[last] = evaluation.mean_and_std(accuracies)
    mean, std = seeds[last]
    print(f"last={last}: {[round(a, 3) for a in accuracies]}, {mean:.3f} ± {std:.3f}")
assert seeds[3][0] > seeds[0][0]

# %% [markdown] slideshow={"slide_type": "slide"}
# The first number of each row is the run above; the row ends with mean and standard deviation.
# Three blocks are ahead of the probe on average. Compare that gap with the spread inside the rows,
# and the gaps of single seeds with each other, before you call it a rule: three seeds are few.
#
# ## BatchNorm: the trap
#
# In notebook 02 the whole trunk was frozen, and BatchNorm kept still. Now a part of it trains, and
# we must choose. A BatchNorm layer normalises in two ways:
#
# - in **training mode** with the mean and variance of the present batch, and it moves its running
#   mean and variance a little towards them;
# - in **eval mode** with the running mean and variance.
#
# The share of the way that it moves at each step is called **momentum** (in PyTorch 0.1 by
# default). Networks that were trained for days often have a smaller one, and bring it along.
#
# **Predict:** our runs take 48 steps. How much of ImageNet's statistics is still there at the end?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
steps = 6 * len(train_dataloader)
mobile_net = model_builder.create_model("mobilenet_v3_small", 12, weights=None)
print("momentum in MobileNetV3:", mobile_net.features[0][1].momentum)
for momentum in (0.1, 0.01):
    remains = (1 - momentum) ** steps
    print(f"momentum {momentum}: {remains:.1%} of the old remain after {steps} steps")

# %% [markdown]
# With 0.1 next to nothing, with 0.01 more than half. Does that matter? We train the last three
# blocks in three ways: BatchNorm with momentum 0.1 (the run from the sweep), with momentum 0.01,
# and with **frozen BatchNorm**: its own weight and bias are frozen, so our engine keeps it in eval
# mode, with ImageNet's statistics, while the convolutions around it train.


# %% slideshow={"slide_type": "subslide"}
def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def freeze_batch_norms(model):
    for module in batch_norms(model):
        module.requires_grad_(False)


slow = build(last=3)
for module in batch_norms(slow):
    module.momentum = 0.01
frozen = build(last=3)
freeze_batch_norms(frozen)
histories = {"momentum 0.1": sweep[3][3]}
histories["momentum 0.01"] = fine_tune(slow, watch=val_dataloader)
histories["frozen"] = fine_tune(frozen, watch=val_dataloader)
for name, history in histories.items():
    last_epoch = history["train_acc"][-1], history["val_acc"][-1]
    print(f"{name:13}  training {last_epoch[0]:.2f}, validation {last_epoch[1]:.2f}")

# %% slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
colors, styles = (utils.BLUE, utils.RED, utils.GREEN), ("o-", "s:", "^--")
for (name, history), color, style in zip(histories.items(), colors, styles, strict=True):
    epochs = range(1, len(history["val_acc"]) + 1)
    axis.plot(epochs, history["val_acc"], style, color=color, label=f"BatchNorm {name}")
axis.set(xlabel="Epoch", ylabel="Validation accuracy", ylim=(0, 1))
axis.legend()
axis.grid(alpha=0.3)
# %% [markdown]
# Validation accuracy after each epoch. The run with momentum 0.01 lags far behind, although all
# three know their training pictures nearly by heart. Overfitting? No. To find out, we ask the same
# network about the same pictures, but let BatchNorm use each batch's own statistics, as it did in
# training. This is a diagnosis, not a way to use a model: the answer for one picture would depend
# on which others are in its batch.


# %% slideshow={"slide_type": "subslide"}
def accuracy_with_batch_statistics(model):
    """Evaluate with the trained BatchNorms in training mode; their running values stay."""
    model.eval()
    for module in batch_norms(model):
        if module.weight.requires_grad:
            module.train()
            module.momentum = 0.0
    mixed = data_setup.create_dataloader(splits.val, transform, batch_size=60, shuffle=True, seed=0)
    with torch.inference_mode():
        pairs = [(model(x.to(device)).argmax(1).cpu(), y) for x, y in mixed]
    return sum(int((predicted == labels).sum()) for predicted, labels in pairs) / len(splits.val)


own = accuracy_with_batch_statistics(slow)
at_end = {name: history["val_acc"][-1] for name, history in histories.items()}
print(f"momentum 0.01, running statistics:      {at_end['momentum 0.01']:.3f}")
print(f"momentum 0.01, each batch's statistics: {own:.3f}")
print(f"BatchNorm frozen, as it is:             {at_end['frozen']:.3f}")
assert min(own, at_end["frozen"]) > at_end["momentum 0.01"] + 0.05

# %% [markdown] slideshow={"slide_type": "subslide"}
# The convolutions had learned the task. Only the running statistics had not caught up: the
# convolutions before them had moved on, and the statistics were still ImageNet's for the most
# part. So here is the choice when a part of the trunk trains:
#
# - **freeze BatchNorm** (set `requires_grad_(False)` on it, and use a loop that then keeps it in
#   eval mode): no lag, and it works with batches of two pictures;
# - or let it learn, with a momentum that fits the run: 0.1 here. Look at the value before you
#   train. The original of our EfficientNet has 0.01; `going_modular` sets 0.1.
#
# Between these two, this run does not decide; compare the intervals:

# %% slideshow={"slide_type": "subslide"}
for name in ("momentum 0.1", "frozen"):
    print(f"{name:12}", evaluation.format_accuracy(round(at_end[name] * 360), 360))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A smaller learning rate for the trunk
#
# The head starts from random numbers and has everything to learn. The trunk is good already and
# should change a little. `parameter_groups` gives the optimizer two groups with a rate each.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
model = build(last=3)
for group in model_builder.parameter_groups(model, lr=1e-3, trunk_lr=1e-4):
    print(f"{group['name']:6} lr {group['lr']:g}  {len(group['params'])} tensors")

# %% [markdown] slideshow={"slide_type": "subslide"}
# What if the trunk's rate is too large? We first train a probe, so that there is something to lose.
# From it we go on with three blocks and three rates. BatchNorm is frozen in all of them, so that
# its trap cannot be the cause of what we see.
#
# **Predict:** the probe stands at its accuracy when the three runs begin. Where does each of them
# stand after one epoch more?

# %%
probe = build(last=0)
fine_tune(probe, lr=1e-2, epochs=12)
probe_result = engine.evaluate(probe, val_dataloader, device)
trained = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
curves = {}
for trunk_lr in (1e-4, 1e-3, 1e-2):
    model = build(last=3)
    model.load_state_dict(trained)
    freeze_batch_norms(model)
    history = fine_tune(model, lr=1e-3, trunk_lr=trunk_lr, epochs=4, watch=val_dataloader)
    curves[trunk_lr] = [probe_result.accuracy, *history["val_acc"]]
    print(f"trunk at {trunk_lr:g}:", [f"{accuracy:.2f}" for accuracy in curves[trunk_lr]])
assert curves[1e-2][-1] < 0.4 < curves[1e-3][-1]
assert min(curves[1e-4]) > probe_result.accuracy - 0.1

# %% slideshow={"slide_type": "subslide"}
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
colors, styles = (utils.GREEN, utils.BLUE, utils.RED), ("^--", "o-", "s:")
for (trunk_lr, values), color, style in zip(curves.items(), colors, styles, strict=True):
    axis.plot(values, style, color=color, label=f"trunk at {trunk_lr:g}")
axis.axhline(probe_result.accuracy, color="grey", linewidth=0.8)
axis.annotate("probe", (1.4, probe_result.accuracy), xytext=(0, -13), textcoords="offset points")
axis.set(xlabel="Epochs after the probe", ylabel="Validation accuracy", ylim=(0, 1))
axis.set_xticks(range(5))
axis.legend(loc="center right")
axis.grid(alpha=0.3)
# %% [markdown]
# Validation accuracy after each epoch, from the probe's (epoch 0). At 0.01, the network ends near
# guessing: what a million photos had taught is wiped out, and with it the road back. AdamW moves a
# weight by about the learning rate at each step; a weight of the trunk is small, and a few such
# steps leave nothing of it. At 0.001 the first epoch costs much, too, but most of it comes back.
# At 0.0001 nothing is lost, and a little is gained. In the sweep above, 0.001 went further, with
# BatchNorm training and two epochs more.
#
# So: a smaller rate for the trunk than for the head, but not the smallest. Try a few, each three
# or ten times the one before, and look at the first epochs. A curve that dips below the probe is
# a warning; one that stays there is a wreck.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Recap
#
# - You unfroze the last blocks, and measured parameters, seconds and accuracy for each number of
#   them, with intervals.
# - You met BatchNorm's trap: statistics that lag behind the weights. Freezing BatchNorm, or a
#   momentum that fits the run, cured it.
# - You gave trunk and head a learning rate each, and saw a too large one wipe out what was learned.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Check yourself
#
# 1. Why do we unfreeze from the end of the network and not from its beginning?
#    - **a** · The last blocks have the most parameters.
#    - **b** · The first blocks cannot be trained.
#    - **c** · Early blocks see edges and colours, of use for any picture; the last ones are made
#      for the old task.
#
# <details><summary>Answer</summary>
#
# **c.** And what is frozen stays in one piece, so that it has to run only once. *a:* Often true,
# but not a reason: number of parameters is not what limits us. *b:* They can (notebook 04); it
# costs most there.
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
# **b.** Evaluating the *training* pictures in eval mode tells as much: lagging statistics spoil
# these, too. *a:* Both may change then, and you still do not know which it was. *c:* It is computed
# in training mode, with the batch's own statistics, so it looks healthy either way.
# </details>
#
# 3. A fifth block has fewer parameters than the third. Why does it cost so much more time?
#    - **a** · Time goes with the size of the feature maps, and what trains must run again in every
#      epoch.
#    - **b** · Its parameters are slower.
#    - **c** · The optimizer needs more memory for it.
#
# <details><summary>Answer</summary>
#
# **a.** Gradients must travel further, too, through larger maps. *b:* A multiplication costs the
# same anywhere; there are more of them where maps are large. *c:* The optimizer's memory goes with
# parameters, and these are fewer.
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
# [Five exercises](exercises/03_partial_fine_tuning.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Train the last three blocks with 5 pictures of each kind (`few(5, seed=0)`). Is it still worth
#    it, compared with the probe?
# 2. Let BatchNorm train in the run with `trunk_lr=1e-2`. Does it fall as deep? Does it recover?
# 3. Set `trunk_lr=0.0` with three blocks and BatchNorm in training mode. Nothing but statistics can
#    move. What does validation accuracy do?
