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
# - write transfer learning in plain PyTorch, and see that this package's calls do the same;
# - prove that frozen means frozen, and save time by doing the frozen work only once;
# - measure what more labels, larger images, augmentation and pretraining bring, compared image by
#   image.
#
# **You need** Python and a first idea of what a neural network, a loss and an epoch are.
#
# **Time** about two minutes on a 2-core CPU.

# %%
import csv
import hashlib
import time
from collections import Counter

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchinfo import summary
from torchvision.datasets import ImageFolder
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import v2

from going_modular import data_setup, engine, evaluation, model_builder, utils

device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The data: what kind of chart is this?
#
# As in notebook 01, a team sorts the figures of thousands of reports, so that each goes to the right
# digitising tool. A figure that goes to the wrong tool comes back as wrong numbers, and somebody has
# to notice. Our charts are drawn by a program, which is why all labels are known to be right.
#
# There are 12 kinds, in three splits:
#
# - **train**: the model learns from these;
# - **val** (validation): we measure on these and make choices by them;
# - **test**: untouched until all choices are made. Notebook 05 opens it; this one does not.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
splits = data_setup.load("charts")
print(splits.summary())

# %% alt="One training chart of each of the 12 kinds, from area to violin, in different colours, fonts and styles." slideshow={"slide_type": "subslide"}
first_of_class = [splits.train.targets.index(label) for label in range(12)]
images = [splits.train[index][0] for index in first_of_class]
utils.plot_images(images, splits.class_names)

# %% [markdown] slideshow={"slide_type": "slide"}
# One training image of each kind. Colours, fonts, size and style vary within each kind.
#
# ## Transfer learning in plain PyTorch
#
# Load, freeze, swap the head, train, count: about twenty-five lines. First the images. A pretrained
# network wants them prepared as in its own training: the size, and the mean and spread of the pixel
# values. The weights know all this. We only ask for smaller images, 128 pixels instead of 224, to
# save time. A **batch** is the handful of images that the network sees at once; here, 32.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
weights = get_model_weights("efficientnet_lite0").DEFAULT
transform = weights.transforms(crop_size=128, resize_size=146)  # by default 224 and 256
train_set = ImageFolder(utils.data_folder() / "charts" / "train", transform)
val_set = ImageFolder(utils.data_folder() / "charts" / "val", transform)
torch.manual_seed(0)  # everything random starts from here
train_dataloader = DataLoader(train_set, batch_size=32, shuffle=True)
val_dataloader = DataLoader(val_set, batch_size=32)
transform

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now the model. The last layer of a classifier is its **head**: it turns features into one score,
# or **logit**, for each class. Everything before it is the **trunk** (also: backbone). ImageNet's
# head knows 1,000 kinds of objects and no charts, so we put a new one in its place. **Freezing** a
# parameter means: no gradient is computed for it, so nothing moves it.
#
# (`efficientnet_lite0` is small and comes with this project: importing `going_modular` registered
# it. Everything else here is torchvision's, and `"resnet18"` would work the same way.)
#
# **Predict:** how many parameters are left to train? The head takes in 1,280 features and gives 12
# logits.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
plain = get_model("efficientnet_lite0", weights=weights)
plain.requires_grad_(False)  # freeze everything
print("ImageNet's head:", plain.classifier)
plain.classifier[1] = nn.Linear(1280, 12)  # the new head is trainable
trainable = sum(p.numel() for p in plain.parameters() if p.requires_grad)
print(f"{trainable:,} of {sum(p.numel() for p in plain.parameters()):,} parameters are trainable")

# %% [markdown] slideshow={"slide_type": "subslide"}
# 1,280 × 12 weights and 12 biases: less than half a per cent of the network.
#
# How good will it be? **Accuracy** is the share of images that are named rightly. Sum the right
# answers over all batches, and divide once, by the number of images.


# %%
def accuracy(model, dataloader):
    """Return the share of images whose largest logit is that of their label."""
    model.eval()
    correct = 0
    with torch.inference_mode():
        for images, labels in dataloader:
            answers = model(images.to(device)).argmax(dim=1)
            correct += (answers.cpu() == labels).sum().item()
    return correct / len(dataloader.dataset)


# %% [markdown] slideshow={"slide_type": "subslide"}
# Then the loop. **AdamW** is the optimizer: it moves each parameter in the direction that lowers the
# loss, in steps whose size is set by the **learning rate**, `lr`. The trunk runs in eval mode; the
# next section shows why. The head is in training mode, in which its dropout sets some features to
# zero at random.
#
# **Predict:** guessing gets one in twelve right, or 8%. How many does this get after two epochs?

# %% slideshow={"slide_type": "subslide"}
plain.to(device)
optimizer = torch.optim.AdamW(plain.classifier.parameters(), lr=3e-3)
loss_fn = nn.CrossEntropyLoss()
plain_losses, plain_seconds = [], []
for epoch in range(2):
    start = time.perf_counter()
    total_loss = 0
    plain.eval()
    plain.classifier.train()
    for images, labels in train_dataloader:
        loss = loss_fn(plain(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(labels)
    plain_losses.append(total_loss / len(train_set))
    plain_seconds.append(time.perf_counter() - start)
    plain_accuracy = accuracy(plain, val_dataloader)
    print(
        f"epoch {epoch + 1}: loss {plain_losses[-1]:.4f} after {plain_seconds[-1]:.1f} s,", end=" "
    )
    print(f"validation accuracy {plain_accuracy:.3f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# More than eight in ten, and a single new layer has seen each image twice. That is transfer learning,
# and you could type it anywhere.
#
# ## Frozen is more than `requires_grad = False`
#
# Why eval mode? A trunk holds more than parameters. **BatchNorm** layers keep a running mean and
# variance of what passes through them; these are *buffers*. They have no gradient, and in training
# mode every batch moves them all the same.
#
# To see it, we take a fingerprint of all that the trunk holds: a **hash**, a short string that
# comes out different as soon as one bit is different.
#
# **Predict:** all parameters of the trunk are frozen. We only run one batch forward, and train
# nothing. Does the fingerprint change?


# %% slideshow={"slide_type": "subslide"}
def fingerprint(module):
    """Hash every parameter and every buffer of a module, bit for bit."""
    tensors = module.state_dict().values()
    return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tensors)).hexdigest()[:12]


naive = get_model("efficientnet_lite0", weights=weights).requires_grad_(False).to(device)
original = fingerprint(naive.features)
print("as it was loaded:                 ", original)
print("after our two epochs in eval mode:", fingerprint(plain.features))
naive.train()  # what most training loops do first
naive(images.to(device))
print("after one batch in training mode: ", fingerprint(naive.features))

# %%
# @title Checks: what this section says
assert trainable == 1280 * 12 + 12
assert plain_accuracy > 0.65  # guessing would give 1/12 = 0.083
assert fingerprint(plain.features) == original != fingerprint(naive.features)

# %% [markdown] slideshow={"slide_type": "slide"}
# Two epochs of our loop have not moved one bit of the trunk; one batch in training mode moved the
# "frozen" one. Nothing is wrong with BatchNorm. The trunk was simply not frozen. (What that costs
# is measured in notebook 08.)
#
# Hence a rule: **a part whose parameters are all frozen runs in eval mode.** It also stops the
# randomness of dropout and stochastic depth there.
#
# ## The same in four calls
#
# From here on we use this project's package, `going_modular`. It has the same steps, for any of
# torchvision's classifiers, and keeps the rule by itself:
#
# | plain PyTorch | `going_modular` |
# |---|---|
# | `ImageFolder`, `weights.transforms(...)`, `DataLoader` | `load`, `create_transform`, `create_dataloader` |
# | `get_model`, `model.classifier[1] = nn.Linear(1280, 12)` | `create_model(name, num_classes=12)` |
# | `requires_grad_(False)`, all but the head | `freeze(model)` |
# | the loop, the count | `engine.train`, `engine.evaluate` |

# %% slideshow={"slide_type": "subslide"}
utils.seed_everything(0)
transform = data_setup.create_transform("efficientnet_lite0", size=128)
train_dataloader = data_setup.create_dataloader(splits.train, transform, shuffle=True)
val_dataloader = data_setup.create_dataloader(splits.val, transform)
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", num_classes=12))
columns = ["output_size", "num_params", "trainable"]
summary(model, input_data=images, depth=2, col_names=columns, col_width=18)

# %% [markdown] slideshow={"slide_type": "slide"}
# `torchinfo` lists the layers: the trunk's say *False* under *Trainable*, the head's *True*.
#
# ## Frozen work, done once
#
# Here the package can do one thing better. If the trunk never changes and the images never change,
# then what the trunk makes of an image never changes either. A usual loop computes it again in
# every epoch. Once is enough: with `cache_frozen=True` the engine runs the trunk over all images
# one time, and then trains the head on what came out.
#
# It also computes in **bfloat16** where the processor has it: numbers of 16 bits instead of 32, with
# fewer digits, and faster. For now we ask for `float32`, PyTorch's usual format, as in our loop.
#
# **Predict:** an epoch of our loop took the seconds printed above. How long does one take now, after
# the trunk has run? And the first two losses: the same as ours, or only similar?

# %% slideshow={"slide_type": "subslide"}
optimizer = torch.optim.AdamW(model_builder.head(model).parameters(), lr=3e-3)
history = engine.train(
    model, train_dataloader, val_dataloader, optimizer, loss_fn, 15, device,
    cache_frozen=True, dtype=torch.float32,
)  # fmt: skip

# %% slideshow={"slide_type": "subslide"}
print("plain loop:", [f"{loss:.6f}" for loss in plain_losses])
print("engine:    ", [f"{loss:.6f}" for loss in history["train_loss"][:2]])
seconds = sum(plain_seconds) / 2, sum(history["seconds"]) / 15
print(f"plain: {seconds[0]:.1f} s per epoch; with the frozen work done before: {seconds[1]:.2f} s")
print("the trunk, as it was loaded and now:", original, fingerprint(model.features))

# %%
# @title Checks: what this section says
ours, theirs = torch.tensor(plain_losses), torch.tensor(history["train_loss"][:2])
assert torch.allclose(ours, theirs, atol=1e-3)
assert seconds[0] > 5 * seconds[1]
assert fingerprint(model.features) == original

# %% [markdown]
# The same seed gives the same losses, up to rounding: the package is a shorthand for our loop, and
# the cache is not an approximation. The trunk's one pass costs about as much as one plain epoch;
# each epoch after it is nearly free.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How good is it?

# %% alt="Loss and accuracy after each of 15 epochs, for training and validation images: validation accuracy levels off while training accuracy goes on rising." slideshow={"slide_type": "subslide"}
utils.plot_curves(history)

# %% [markdown]
# Loss and accuracy after each epoch. The training figures are averages over the epoch, taken while
# the head was still changing and with dropout on; the validation figures are taken after it. So the
# curves do not quite compare like with like. Let's measure both sets in the same way, at the end.
#
# An accuracy is a count, and a count from a few hundred images is uncertain. So we always write it
# with its **95% interval** (Wilson's): where the accuracy on very many such images plausibly lies.

# %% slideshow={"slide_type": "subslide"}
result = engine.evaluate(model, val_dataloader, device)
on_train = engine.evaluate(model, train_dataloader, device)
print("training:  ", evaluation.format_accuracy(on_train.correct, on_train.total))
print("validation:", evaluation.format_accuracy(result.correct, result.total))

# %% [markdown]
# (The training printed another accuracy for the last epoch, 0.8972. It ran in float32; here the
# engine computes in bfloat16, and the rounding turns a few answers around.)
#
# The head names all training images rightly, and fewer of those that it has not seen. The same
# program drew both sets, so the gap is not in the images: part of what the head has learned holds
# for its training images only. It has begun to learn them by heart, which is called **overfitting**.
# So far, that does no visible harm: the validation loss has levelled off, but it has not risen. A
# later section tries a remedy.
#
# The interval is for *one* model. Do not compare two models by it when both saw the same images:
# their luck with these images is shared. Such pairs are compared image by image, as below; notebook
# 03 explains how.
#
# What does it get wrong? Let's count which kinds it confuses, in either direction.

# %% slideshow={"slide_type": "subslide"}
predictions = engine.predict(model, val_dataloader, device)
wrong = (predictions.predicted != predictions.labels).nonzero().flatten()
pairs = Counter()
for index in wrong.tolist():
    # the names of the right class and of the answer
    kinds = [splits.class_names[row[index]] for row in (predictions.labels, predictions.predicted)]
    pairs[" and ".join(sorted(kinds))] += 1
print(len(wrong), "mistakes:", pairs.most_common(5))

# %% alt="The twelve validation charts with the most confident mistakes, each with the model's answer, its probability and the truth." slideshow={"slide_type": "subslide"}
confidence = predictions.probabilities[wrong].max(dim=1).values
worst = wrong[confidence.topk(12).indices].tolist()
utils.plot_predictions(
    [splits.val[index][0] for index in worst],
    predictions.labels[worst],
    predictions.probabilities[worst],
    splits.class_names,
)

# %% [markdown] slideshow={"slide_type": "slide"}
# The twelve most confident of the 34 mistakes. Each title gives the model's answer and its
# probability, and below it the truth. No pair dominates: the two most common, box with step and line
# with step, have 4 each.
#
# ## How many labelled images does it take?
#
# Labels cost money, so this is the question that matters. We train with 1, 2, 5, 10, 20 and 40
# images of each class, with five **seeds** each: five draws of images and of the head's first
# weights. The trunk's outputs are all that a probe needs, so we take them out once, for images of
# 128 and of 64 pixels.

# %% tags=["nbval-check-output"]
features = {}
for size in (128, 64):
    smaller = data_setup.create_transform("efficientnet_lite0", size=size)
    for name, part in (("train", splits.train), ("val", splits.val)):
        loader = data_setup.create_dataloader(part, smaller)
        features[size, name] = engine.extract_features(model, loader, device).tensors[0]
        print(size, name, tuple(features[size, name].shape))
train_labels, val_labels = torch.tensor(splits.train.targets), torch.tensor(splits.val.targets)


# %%
def train_head(versions, labels, epochs):
    """Train a linear layer on features (V, N, 1280), one of their V versions after the other."""
    head = nn.Linear(1280, 12)  # without the dropout before it, which the full model has
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for epoch in range(epochs):
        inputs = versions[epoch % len(versions)]
        for batch in torch.randperm(len(labels)).split(32):
            loss = loss_fn(head(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.requires_grad_(False)


# %% [markdown] slideshow={"slide_type": "subslide"}
# All runs take the same number of steps, 120: eight epochs of all 480 images, more epochs of fewer.
#
# **Predict:** how far does the probe get with a single image of each class? Guessing gets 8%.

# %% slideshow={"slide_type": "subslide"}
numbers = [1, 2, 5, 10, 20, 40]
right = {}  # (size, number): for each validation image, the share of the seeds that had it right
for number in numbers:
    for size in (128, 64):
        runs = []
        for seed in range(5):
            torch.manual_seed(seed)
            order = torch.randperm(480)
            few = torch.cat([order[train_labels[order] == kind][:number] for kind in range(12)])
            epochs = 120 // len(few.split(32))
            only = features[size, "train"][None, few]  # None: one version, so (1, N, 1280)
            head = train_head(only, train_labels[few], epochs)
            runs.append(head(features[size, "val"]).argmax(dim=1) == val_labels)
        right[size, number] = torch.stack(runs).float()
    cells = [f"{right[size, number].mean():.2f} at {size} px" for size in (128, 64)]
    print(f"{number:2} of each class:", ", ".join(cells))

# %%
for number in (1, 40):
    difference = evaluation.format_difference(
        right[128, number].mean(dim=0), right[64, number].mean(dim=0)
    )
    print(f"{number:2} of each class, 128 px minus 64 px: {difference}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# One image of each class already beats guessing several times over, and larger images have the higher
# mean at every point of the curve. The last two lines compare the ends of the curve image by image:
# `format_difference` gives the difference of the accuracies and its 95% interval, for models that saw
# the same images.
#
# What if we had no pretrained trunk? For comparison, here is the same network from random weights, on
# the same images and for the same number of steps. All of it has to train, 3.4 million parameters, at
# a rate that suits it; we give it the small images, and compare it with the probe on the same ones.
#
# **Predict:** where does it end with all 480 images?

# %% slideshow={"slide_type": "subslide"}
utils.seed_everything(0)
smaller = data_setup.create_transform("efficientnet_lite0", size=64)
small_train = data_setup.create_dataloader(splits.train, smaller, shuffle=True)
small_val = data_setup.create_dataloader(splits.val, smaller)
network = model_builder.create_model("efficientnet_lite0", 12, weights=None)
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
schedule = engine.warmup_cosine(optimizer, total_steps=120, warmup_steps=5)
options = {"epochs": 8, "device": device, "scheduler": schedule, "verbose": False}
engine.train(network, small_train, None, optimizer, loss_fn, **options)
said = engine.predict(network, small_val, device)
scratch = said.predicted == said.labels
print(f"from scratch, 40 of each class, 64 px: {scratch.float().mean():.2f}")
for number in (5, 40):
    difference = evaluation.format_difference(right[64, number].mean(dim=0), scratch)
    print(f"probe with {number:2} of each class, minus that: {difference}")

# %% [markdown]
# It ends far below the probe, and with 5 images of each class the probe is ahead already: both
# intervals lie far above zero.
#
# But 120 steps are few for a network that begins with nothing, and the probe differs from it in more
# than its weights: it trains only a head. So here are runs from a stored table of longer runs; each
# took minutes. They have 12 epochs, or 180 steps, at 128 pixels. Beside them stands the **control**
# for pretraining: the same network, again with all of it trained, from ImageNet's weights. It had
# only 8 epochs, and a lower rate for the trunk.

# %% slideshow={"slide_type": "subslide"}
with open(utils.data_folder() / "ladder_charts.csv") as file:
    rows = list(csv.DictReader(file))
table = {}
for strategy, trunk_lr in (("scratch", ""), ("full", "0.0005")):
    runs = [row for row in rows if (row["strategy"], row["trunk_lr"]) == (strategy, trunk_lr)]
    table[strategy] = [int(run["val_correct"]) / int(run["val_total"]) for run in runs]
longer = table["scratch"]
print("from scratch, 12 epochs at 128 px:  ", [f"{share:.2f}" for share in longer])
print("from ImageNet, 8 epochs, all trains:", [f"{share:.2f}" for share in table["full"]])

# %%
# @title Checks: what this section says
for number in (5, 40):
    low, _ = evaluation.bootstrap_difference(right[64, number].mean(dim=0), scratch)
    assert low > 0
assert right[128, 1].mean() > 0.2 and right[128, 40].mean() > right[64, 40].mean()
assert max(longer) < right[128, 5].mean() and min(table["full"]) > max(longer) + 0.2

# %% alt="Validation accuracy against training images of each class, on a log scale. The probe rises steadily at both sizes, higher at 128 pixels; both runs from random weights, with 40 images of each class, lie far below it." slideshow={"slide_type": "subslide"}
# @title Figure: accuracy against the number of labels
figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
for size, color, marker, place in (
    (128, utils.BLUE, "o", (2, 0.66)),
    (64, utils.GREEN, "^", (3, 0.4)),
):
    for number in numbers:
        accuracies = right[size, number].mean(dim=1)  # of the five seeds
        axis.plot([number] * 5, accuracies, marker, color=color, alpha=0.4, markersize=5)
    axis.plot(numbers, [right[size, number].mean() for number in numbers], color=color)
    axis.text(*place, f"probe, {size} px", color=color, fontsize=11)
short = [scratch.float().mean().item()]
for name, accuracies in (("8 epochs at 64 px", short), ("12 epochs at 128 px", longer)):
    axis.plot([40] * len(accuracies), accuracies, "D", color=utils.RED, alpha=0.7, markersize=6)
    middle = sum(accuracies) / len(accuracies)
    place = {"x": 36, "y": middle, "ha": "right", "va": "center"}
    axis.text(s=f"from scratch, {name}", color=utils.RED, fontsize=11, **place)
axis.axhline(1 / 12, color="grey", linewidth=0.8)
axis.text(1, 1 / 12 + 0.01, "guessing", color="grey", fontsize=10)
axis.set(xscale="log", ylim=(0, 1))
axis.set_xticks(numbers, numbers)
axis.tick_params(length=0, which="minor")
axis.set(xlabel="Training images of each class", ylabel="Validation accuracy")
axis.grid(alpha=0.3)
plt.show()

# %% [markdown] slideshow={"slide_type": "slide"}
# One point per run, the line through their means; the number of images is on a log scale. Even after
# 12 epochs and with all labels, the network from scratch stays below the probe that had 5 images of
# each class at 128 pixels. (With more epochs it might catch up.) The control says that it is mostly
# the weights: with all of it trained, the same network gets far more from ImageNet's weights, in fewer
# epochs.
#
# ## What does augmentation change?
#
# **Augmentation** varies each training image at random (crop, mirror image, colours), so that the
# model meets another version of it in every epoch. It is meant as a remedy against learning by heart.
# Here is one chart, and five versions of it.

# %% alt="A bar chart, and five augmented versions of it: cropped, some of them mirrored, with changed colours." slideshow={"slide_type": "subslide"}
augment = data_setup.create_transform("efficientnet_lite0", size=128, augment=True)
vary = v2.Compose(augment.transforms[:3])  # without the steps that make a tensor of it
image = splits.train[first_of_class[1]][0]
utils.plot_images([image] + [vary(image) for _ in range(5)], ["as it is"] + ["augmented"] * 5)

# %% [markdown]
# Now the images differ from epoch to epoch, so the trunk cannot run just once. We let it run over six
# augmented versions of the training images and keep what comes out: with six epochs, each epoch has
# a version of its own. With 30, the six come round five times.
#
# All five seeds share these six versions. They differ in the head's first weights and in the order
# of the images.
#
# **Predict:** after equally many epochs, with and without augmentation, which is ahead on the
# training images? And on the validation images?

# %% slideshow={"slide_type": "subslide"}
augmented = data_setup.create_dataloader(splits.train, augment)
trunk = nn.Sequential(model.features, model.avgpool, nn.Flatten())
utils.seed_everything(0)
start = time.perf_counter()
versions = torch.stack([engine.predict(trunk, augmented, device).logits for _ in range(6)])
version_seconds = (time.perf_counter() - start) / 6
print(f"{tuple(versions.shape)}: {version_seconds:.1f} s for each version")


# %%
def train_five(versions, epochs):
    """Train five heads; return their logits (5, N, 12) for training and validation images."""
    heads = []
    for seed in range(5):
        torch.manual_seed(seed)
        heads.append(train_head(versions, train_labels, epochs))
    return [torch.stack([head(features[128, name]) for head in heads]) for name in ("train", "val")]


# %% slideshow={"slide_type": "subslide"}
inputs = {"as they are": features[128, "train"][None], "augmented": versions}
train_accuracy, val_right, val_loss = {}, {}, {}
print("epochs  images       training  validation  validation loss")
for run in [(epochs, name) for epochs in (6, 30) for name in inputs]:
    epochs, name = run
    on_train, on_val = train_five(inputs[name], epochs)
    train_accuracy[run] = (on_train.argmax(dim=2) == train_labels).float().mean()
    val_right[run] = (on_val.argmax(dim=2) == val_labels).float().mean(dim=0)  # of five seeds
    val_loss[run] = [loss_fn(logits, val_labels).item() for logits in on_val]
    print(
        f"{epochs:6}  {name:11}  {train_accuracy[run]:8.3f}  {val_right[run].mean():10.3f}",
        end="  ",
    )
    print(f"{min(val_loss[run]):.3f} to {max(val_loss[run]):.3f}")

# %%
for epochs in (6, 30):
    difference = evaluation.format_difference(
        val_right[epochs, "augmented"], val_right[epochs, "as they are"]
    )
    print(f"{epochs:2} epochs, augmented minus as they are: {difference}")
print(
    f"augmented: {version_seconds:.1f} s for each version; an epoch from the cache: {seconds[1]:.2f} s"
)

# %%
# @title Checks: what this section says
for epochs in (6, 30):
    plain_run, augmented_run = (epochs, "as they are"), (epochs, "augmented")
    assert train_accuracy[augmented_run] < train_accuracy[plain_run]
    assert val_right[augmented_run].mean() > val_right[plain_run].mean() - 0.02
assert sum(val_loss[30, "augmented"]) < sum(val_loss[30, "as they are"])
assert version_seconds > 5 * seconds[1]

# %% [markdown] slideshow={"slide_type": "slide"}
# With augmentation the heads memorise their training images less: training accuracy is lower after 6
# epochs and after 30. On the validation images the loss, which also counts how sure the
# head is of the right answer, is lower after 30 epochs with each of the five heads: at most 0.219, and
# at least 0.267 without. (All ten saw the same validation images; others were not tried.) The gain in
# accuracy, 0.017, is small, and its paired interval just includes zero: 360 images cannot tell it
# from none. What the interval excludes is a gain above 0.038.
#
# It has a price: seconds for each version, where an epoch from the cache takes almost nothing.
# Notebook 04 tries augmentation where all layers train.
#
# ## And on photos?
#
# Charts are far from what the trunk has learned on. Photos of ants and bees are near: ImageNet has
# both. If the folder `data/hymenoptera` is there, with the [photos of PyTorch's tutorial][photos],
# the next cell trains the same probe on them. They may not be passed on with this project; without
# them it reads a table of such runs.
#
# [photos]: <https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html>
#
# **Predict:** two classes, and a trunk that has seen ants and bees. How many of the validation images
# does the probe get right?


# %%
def probe_photos(folder):
    """Train a probe on the photos at their full size; return right answers and their number."""
    photos = data_setup.load(folder)
    transform = data_setup.create_transform("efficientnet_lite0")
    train_photos = data_setup.create_dataloader(photos.train, transform, shuffle=True)
    val_photos = data_setup.create_dataloader(photos.val, transform)
    probe = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 2))
    optimizer = torch.optim.AdamW(model_builder.head(probe).parameters(), lr=3e-3)
    options = {"cache_frozen": True, "verbose": False}
    engine.train(probe, train_photos, None, optimizer, loss_fn, 20, device, **options)
    result = engine.evaluate(probe, val_photos, device)
    return result.correct, result.total


# %% slideshow={"slide_type": "subslide"}
folder = utils.data_folder() / "hymenoptera"
if folder.is_dir():
    insects = [probe_photos(folder)]
    print("trained here, on the photos:")
else:
    with open(utils.data_folder() / "ladder_hymenoptera.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["strategy"] == "feature_extraction"]
    rows = [row for row in rows if row["lr"] == "0.003"]  # the usual rate
    insects = [(int(row["val_correct"]), int(row["val_total"])) for row in rows]
    print(f"no photos here; from the table of {len(insects)} runs, fewest and most:")
for correct, total in sorted({min(insects), max(insects)}):
    print(f"{correct} of {total}: {evaluation.format_accuracy(correct, total)}")

# %%
# @title Checks: what this section says
assert min(insects)[0] > 0.88 * min(insects)[1]

# %% [markdown] slideshow={"slide_type": "slide"}
# More than nine in ten, and the head is all that was trained. But ask of such a result what it
# shows: ant and bee are among the 1,000 classes of ImageNet (notebook 01 looks them up), so this is
# no new task for the trunk. Notebook 05 compares all strategies on both kinds of images.
#
# ## Recap
#
# - You wrote transfer learning in plain PyTorch, and the package's calls gave the same losses.
# - You proved with a fingerprint that parameters *and* buffers stayed as they were, and let the trunk
#   run only once.
# - You measured what more labels, larger images and augmentation brought, image by image and over
#   five seeds, and what pretraining brought, beside the same network from scratch.

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
# only parameters that the optimizer steps; it skips those without a gradient.
# </details>
#
# 2. The images are augmented. Why may the trunk's outputs from the first epoch not be used again?
#    - **a** · Augmented images are too large to keep.
#    - **b** · Then every epoch would show the same versions.
#    - **c** · The trunk must learn from them.
#
# <details><summary>Answer</summary>
#
# **b.** The images are meant to differ in every epoch, and so do the outputs. *a:* They are as large
# as the others. *c:* A frozen trunk learns from nothing.
# </details>
#
# 3. Model A names 345 of 360 validation images rightly, model B 333 of the same 360. Is A better?
#    - **a** · Yes: 12 more are 12 more.
#    - **b** · Look at the images on which only one of the two is right.
#    - **c** · No: their intervals overlap.
#
# <details><summary>Answer</summary>
#
# **b.** Both saw the same images, so what counts is where they differ. If A alone is right on 12 and
# B alone on none, that is hardly chance (p = 0.0005); 62 against 50 may well be (p = 0.3). *a:* Other
# images could turn the order around. *c:* Each interval is about one model; they can overlap although the difference is clear.
# </details>
#
# 4. Why should a control for pretraining keep architecture, data and training settings, and change
#    only the weights that it starts from?
#    - **a** · So that pretraining is the only difference.
#    - **b** · To save time.
#    - **c** · Because a smaller network would be unfair to the control.
#
# <details><summary>Answer</summary>
#
# **a.** Then the gap is what pretraining brought. *b:* It costs more than a probe: nothing is frozen. *c:*
# Any second difference, in favour of either, would mix two causes.
# </details>

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# [Five exercises](exercises/02_feature_extraction.ipynb) check your code and say what is missing. On
# this page, change one thing, say first what you expect, then run:
#
# 1. Give the optimizer before `engine.train` `lr=0.3`, then `lr=1e-5`. What do the curves look like?
# 2. Larger images helped. Is it their details, or only their size? Shrink the images to 64 pixels,
#    enlarge them to 128 again, and measure.
# 3. In the plain loop, take `"resnet18"` with its own weights (they are downloaded once, 45 MB).
#    What is its head called, and how many features does it take in?
# 4. Put two folders of your own photos into `data/`, load them by path instead of `"charts"`, leave
#    `size` out, and run the notebook on them.
