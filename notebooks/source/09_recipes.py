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
# # 09 · Run the recipes that learners bring along
#
# "I followed a lesson that does it like this." Here are seven such recipes. For each: what the
# lesson does, the bug that often travels with it, and the few lines that do it right.
#
# **You will**
# - run seven well-known recipes, from ResNet-18 on CIFAR-10 to 102 kinds of flowers;
# - see the bugs that travel with them, and the check that finds each;
# - know what to expect of each recipe, who says so, and how to measure it where nobody does.
#
# **You need** notebooks 02 to 04: head and trunk, freezing, learning rates, 95 % intervals.
#
# **Time** about a minute on a 2-core CPU.

# %%
import colorsys
import copy
import csv
import math
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torchinfo import summary
from torchvision import models

from going_modular import data_setup, engine, evaluation, model_builder, predict, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# ## Stand-ins, and the real thing
#
# The recipes' own pictures and weights are downloads. So that this notebook runs anywhere in a
# minute, both have a stand-in:
#
# - **Pictures**: we draw some flowers of each class. Write `REAL_DATA = True` for the recipes' own
#   data sets; they are downloaded once, and thousands of pictures take their time.
# - **Weights**: with `random_if_absent=True`, `create_model` takes random weights where the
#   pretrained ones are neither in torchvision's cache folder nor to be downloaded. It says so, and
#   then **no accuracy below means anything**; code, shapes and bugs are the same. The outputs stored
#   here come from random weights.


# %%
def draw_flower(petals, hue, rng, side=64):
    """Draw a flower with so many petals, and a hue in [0, 1), somewhere on a dull ground."""
    image = Image.new("RGB", (side, side), tuple(int(part) for part in rng.integers(70, 150, 3)))
    color = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, rng.uniform(0.6, 1)))
    centre, radius = side * rng.uniform(0.4, 0.6, 2), side * rng.uniform(0.2, 0.3)
    draw, turn = ImageDraw.Draw(image), rng.uniform(0, 2 * math.pi)

    def dot(x, y, size, fill):
        draw.ellipse((x - size, y - size, x + size, y + size), fill)

    for angle in np.linspace(turn, turn + 2 * math.pi, petals, endpoint=False):
        x, y = centre + 0.7 * radius * np.array([math.cos(angle), math.sin(angle)])
        dot(x, y, radius * math.sin(math.pi / petals), color)
    dot(*centre, 0.3 * radius, "gold")
    return image


# %%
REAL_DATA = False
folder = tempfile.TemporaryDirectory()


def pictures(name, classes, train, val, test=1):
    """Load a data set, or draw so many flowers of each class in its place."""
    rng, root = np.random.default_rng(0), Path(folder.name, name)
    for label in range(0 if REAL_DATA else classes):
        for split, number in {"train": train, "val": val, "test": test}.items():
            (root / split / f"flower {label}").mkdir(parents=True)
            for i in range(number):
                path = root / split / f"flower {label}" / f"{i}.png"
                draw_flower(3 + label % 5, label / classes, rng).save(path)
    return data_setup.load(name if REAL_DATA else root)


ten = pictures("cifar10", classes=10, train=4, val=2)
first = [ten.train.targets.index(label) for label in range(6)]
utils.plot_images([ten.train[index][0] for index in first], ten.class_names)
# %% [markdown]
# One drawn flower of each of the first six classes of recipe 1: they differ in hue and in the
# number of petals.
#
# ## 1 · ResNet-18 on CIFAR-10
#
# **The lesson** enlarges the pictures to 224 pixels and trains a new head on the frozen trunk: Adam
# with 1e-3, 5 epochs. Then it unfreezes `layer4` and goes on with 1e-4. Each epoch sends every
# picture through the frozen layers again; `cache_frozen=True` does that once.

# %%
transform = data_setup.create_transform("resnet18")
loaders = [
    data_setup.create_dataloader(ten.train, transform, shuffle=True, seed=0),
    data_setup.create_dataloader(ten.val, transform),
]
model = model_builder.create_model("resnet18", 10, random_if_absent=True)
model_builder.freeze(model)
head_optimizer = torch.optim.Adam(model_builder.parameter_groups(model, lr=1e-3))
history = engine.train(model, *loaders, head_optimizer, epochs=5, device=device, cache_frozen=True)
assert history["train_loss"][-1] < history["train_loss"][0]

# %% [markdown]
# **The bug:** `layer4` gets `requires_grad=True`, and training goes on with the same optimizer.
#
# **Predict:** how many parameters are trainable now, and how many of them does that optimizer move?


# %% tags=["nbval-check-output"]
def size(optimizer):
    return sum(p.numel() for group in optimizer.param_groups for p in group["params"])


model_builder.unfreeze(model, last=1)
optimizer = torch.optim.Adam(model_builder.parameter_groups(model, lr=1e-4))
trainable, _ = model_builder.count_parameters(model)
print(f"trainable: {trainable:,}")
print(f"in the old optimizer: {size(head_optimizer):,}, in a new one: {size(optimizer):,}")
assert size(optimizer) == trainable > 1000 * size(head_optimizer)

# %%
before = copy.deepcopy(model.state_dict())
history = engine.train(model, *loaders, optimizer, epochs=3, device=device, cache_frozen=True)
after = model.state_dict()
moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
print("parts with a parameter or buffer that moved:", sorted(moved))
assert moved == {"layer4", "fc"}
result = engine.evaluate(model, loaders[1], device)
print("validation:", evaluation.format_accuracy(result.correct, result.total))

# %% [markdown]
# The old optimizer holds the head alone: an optimizer knows the parameters that it was given, and
# nothing warns. **The check:** compare the two counts.
#
# **What to expect:** we know of no official figure for this recipe. With the real data and weights,
# the last line above measures it.
#
# ## 2 · All of ResNet-18, the trunk more slowly
#
# **The lesson** trains everything, the new layer at ten times the trunk's rate, and finds the new
# layer by its name: `name in ("fc.weight", "fc.bias")`.
#
# **Predict:** what does this find in a MobileNet?

# %% tags=["nbval-check-output"]
for name in ("resnet18", "mobilenet_v3_small"):
    network = model_builder.create_model(name, 2, weights=None)
    by_name = [key for key, _ in network.named_parameters() if key in ("fc.weight", "fc.bias")]
    groups = model_builder.parameter_groups(network, lr=1e-3, trunk_lr=1e-4)
    rates = {group["name"]: group["lr"] for group in groups}
    print(f"{name}: {len(by_name)} found by name; parameter_groups: {rates}")

# %% [markdown]
# Nothing, without an error: the new layer would learn as slowly as the trunk. `parameter_groups`
# finds the head by the network's structure.

# %%
small = None if REAL_DATA else 64  # pixels; None is the weights' own size
transform = data_setup.create_transform("resnet18", size=small)
two = pictures("hymenoptera", classes=2, train=8, val=8)
train_dataloader = data_setup.create_dataloader(two.train, transform, shuffle=True, seed=0)
val_dataloader = data_setup.create_dataloader(two.val, transform)
model = model_builder.create_model("resnet18", 2, random_if_absent=True)
start = {name: p.detach().clone() for name, p in model.named_parameters()}
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=1e-3, trunk_lr=1e-4))
history = engine.train(model, train_dataloader, val_dataloader, optimizer, epochs=4, device=device)
way = {name: (p.cpu() - start[name]).abs().mean().item() for name, p in model.named_parameters()}
trunk_way = np.mean([value for name, value in way.items() if not name.startswith("fc.")])
print(f"how far a weight moved, on average: head {way['fc.weight']:.5f}, trunk {trunk_way:.5f}")
assert way["fc.weight"] > trunk_way > 0

# %% [markdown]
# **What to expect:** on ants and bees we measured another network (last section). There, training all
# layers won nothing over the probe.
#
# ## 3 · Two classes, and a head of your own
#
# **The lesson** has cats and dogs in two folders. It takes ResNet-18 as a feature extractor, puts
# layers of 512, 256 and 2 units on it, and trains them with SGD, 1e-3, momentum 0.9.
#
# **The bug:** it cuts the network with `list(model.children())[:-2]`. That drops the last *two*
# children: the linear layer, and the pooling before it.

# %%
my_head = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 2))
children = list(models.get_model("resnet18", weights=None).children())
images = next(iter(loaders[1]))[0][:2]
maps = nn.Sequential(*children[:-2])(images)
print("what the cut gives:", tuple(maps.shape), "and flattened:", tuple(maps.flatten(1).shape))
try:
    my_head(maps.flatten(1))
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# 512 maps of 7 × 7 are 25,088 numbers, and the head wants 512. A usual "cure" is a head for 25,088
# inputs: 49 times the weights, tied to one size of picture. The right cut keeps the pooling; and
# with `create_model` there is nothing to cut.

# %%
model = model_builder.create_model("resnet18", 2, head=my_head, random_if_absent=True).eval()
trunk = nn.Sequential(*list(model.children())[:-1], nn.Flatten())
with torch.no_grad():
    features = trunk(images)
    assert torch.allclose(model.fc(features), model(images), atol=1e-4)
print("cut at [:-1] and flattened:", tuple(features.shape))
print(f"weights in its first layer: {512 * 256:,}; after the wrong cut {25088 // 512} x as many")

# %%
model_builder.freeze(model)
optimizer = torch.optim.SGD(model_builder.parameter_groups(model, lr=1e-3), momentum=0.9)
both = train_dataloader, val_dataloader
history = engine.train(model, *both, optimizer, epochs=10, device=device, cache_frozen=True)
assert history["train_loss"][-1] < history["train_loss"][0]

# %% [markdown]
# Cutting by `children()` is luck even so: what `forward()` calls as a function, such as DenseNet's
# last ReLU, is no child and is lost without a word.
#
# **What to expect:** nobody knows for your folder. With `REAL_DATA = True`, put its path in place of
# `"hymenoptera"`.
#
# ## 4 · StepLR, two loaders in a dict, the best weights kept
#
# **The lesson** is PyTorch's official tutorial: SGD, the rate times 0.1 after every 7 epochs, and at
# the end the weights of the epoch with the best validation accuracy. Here is its loop, in short, and
# then the engine's call for the same, with `keep_best`.


# %%
def train_as_in_the_tutorial(model, dataloaders, optimizer, scheduler, epochs):
    accuracies, best = [], (-1.0, {})
    for _ in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            correct = 0
            for images, labels in dataloaders[phase]:
                with torch.set_grad_enabled(phase == "train"):
                    logits = model(utils.to_device(images, device)).cpu()
                if phase == "train":
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(logits, labels).backward()
                    optimizer.step()
                correct += int((logits.argmax(dim=1) == labels).sum())
        scheduler.step()
        accuracies.append(correct / len(dataloaders["val"].dataset))
        if accuracies[-1] > best[0]:
            best = accuracies[-1], copy.deepcopy(model.state_dict())
    model.load_state_dict(best[1])
    return accuracies


# %%
def start_again():
    """Return model, loaders in a dict, optimizer and scheduler, the same at each call."""
    model = utils.model_to_device(copy.deepcopy(pretrained), device)
    train = data_setup.create_dataloader(two.train, transform, batch_size=8, shuffle=True, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    return model, {"train": train, "val": val_dataloader}, optimizer, scheduler


pretrained = model_builder.create_model("resnet18", 2, random_if_absent=True)
by_tutorial, *parts = start_again()
accuracies = train_as_in_the_tutorial(by_tutorial, *parts, epochs=8)
model, dataloaders, optimizer, scheduler = start_again()
options = {"scheduler": scheduler, "keep_best": "acc", "dtype": torch.float32, "verbose": False}
history = engine.train(model, *dataloaders.values(), optimizer, epochs=8, device=device, **options)

# %% [markdown]
# Is that the same as the tutorial's loop?

# %%
for name, values in (("tutorial", accuracies), ("engine", history["val_acc"])):
    print(f"{name:<9}", *(f"{value:.3f}" for value in values))
print("rates    ", *(f"{lr:g}" for lr in history["lr"]))
difference = (model.fc.weight - by_tutorial.fc.weight).abs().max().item()
print(f"largest difference of a weight in the two heads: {difference:.0e}")
assert difference < 1e-3 or device.type != "cpu"  # a GPU may add up in another order each time
kept = engine.evaluate(model, val_dataloader, device, dtype=torch.float32).accuracy
assert kept == max(history["val_acc"]) == history["val_acc"][history.best_epoch - 1]

# %% [markdown]
# It is: the same accuracies, and the same weights at the end, those of the best epoch. Copies of
# this loop lose one of three things: `model.eval()`, the division by pictures instead of batches
# (both in notebook 08), and `copy.deepcopy`.
#
# **Predict:** we keep `model.state_dict()` without a copy, and train on. What have we kept?

# %% tags=["nbval-check-output"]
kept, copied = model.state_dict(), copy.deepcopy(model.state_dict())
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
engine.train_step(model, dataloaders["train"], nn.CrossEntropyLoss(), optimizer, device)
for name, state in (("kept", kept), ("copied", copied)):
    same = torch.equal(state["fc.weight"], model.fc.weight)
    print(f"{name}: equal to the weights of now: {same}")
    assert same == (name == "kept")

# %% [markdown]
# The weights of now: a `state_dict` points at the living tensors, and the "best" becomes the last.
#
# **What to expect:** a build of
# [the tutorial's page](https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html)
# printed 0.934641 for all layers and 0.947712 for a new head on the frozen trunk. Each build gives
# other figures, and the best of many epochs, on the pictures that chose it, is a little too high
# (notebook 08).
#
# ## 5 · EfficientNet-B0 on pizza, steak and sushi
#
# **The lesson** is the "Zero to Mastery" course, from whose package ours has its name and its
# calls: loaders from two folders, the weights' automatic transforms, torchinfo's summary, Adam with
# 1e-3, 5 epochs.

# %%
food = pictures("pizza_steak_sushi", classes=3, train=8, val=1, test=8)
auto_transforms = models.EfficientNet_B0_Weights.DEFAULT.transforms()
train_dataloader, test_dataloader, class_names = data_setup.create_dataloaders(
    food.folder / "train", food.folder / "test", transform=auto_transforms, batch_size=32
)
model = model_builder.create_model("efficientnet_b0", len(class_names), random_if_absent=True)
model_builder.freeze(model)
columns = ["input_size", "output_size", "num_params", "trainable"]
summary(model, (1, 3, 224, 224), depth=2, col_names=columns, col_width=18)

# %%
parts = {"train_dataloader": train_dataloader, "test_dataloader": test_dataloader}
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    results = engine.train(
        model=model, **parts, optimizer=optimizer, epochs=5, device=device, cache_frozen=True
    )
print("warning:", caught[0].message)
print(f"guessing costs {math.log(3):.2f}")

# %% [markdown]
# **The bug** is in the warning: the "test" pictures are looked at after every epoch.
# `data_setup.load` splits off validation pictures; give those.

# %%
utils.plot_curves(results)
for axis, top in zip(plt.gcf().axes, (1.2 * max(results["train_loss"]), 1)):
    axis.set_ylim(0, top)
# %% [markdown]
# Loss, accuracy and learning rate over the five epochs. Flat curves at a loss of log(3) = 1.10 are
# what guessing among three classes looks like: a frozen trunk of random weights gives the head
# nothing to learn from.
#
# Then the course saves the model and looks at new pictures. With `class_names` and `transform` in
# the file, nobody needs to know how it was made.

# %%
path = utils.save_model(
    model, folder.name, "food.pth", class_names=class_names, transform=auto_transforms
)
loaded, checkpoint = model_builder.load_model(path, device)
labels, rng = [0, 1, 2, 0, 1, 2], np.random.default_rng(9)
new = [draw_flower(3 + label, label / 3, rng) for label in labels]
answers = [predict.classify(loaded, checkpoint["transform"](picture)) for picture in new]
utils.plot_predictions(new, labels, torch.stack(answers), checkpoint["class_names"])
# %% [markdown]
# Six new flowers with the model's answer, its probability, and the truth where it is wrong. For your
# own files, `data_setup.load_image(path)` makes RGB of transparent and grey ones, at which the
# course's helper stops.
#
# **What to expect:**
# [the course's notebook](https://www.learnpytorch.io/06_pytorch_transfer_learning/) has 0.8561 on
# 75 test pictures. No count of 75 gives that: it averages the accuracies of batches (notebook 08).
#
# ## 6 · The same three lines for other networks
#
# **The lessons** tell for each network what its last layer is called: `fc`, `classifier[6]`,
# `heads.head`. Three lines find out. On the `meta` device a network has shapes but no numbers, so
# that even VGG costs nothing.

# %% tags=["nbval-check-output"]
networks = "vgg16 inception_v3 mobilenet_v3_large densenet121 efficientnet_b0 vit_b_16".split()
print(f"{'':<19}{'heads':<16}{'inputs':>7}{'pixels':>8}{'blocks':>8}{'parameters':>13}{'top-1':>8}")
for name in networks:
    with torch.device("meta"):
        model = model_builder.create_model(name, 1000, weights=None)
    pixels = data_setup.create_transform(name).crop_size[0]
    heads, blocks = model_builder.heads(model), model_builder.blocks(model)
    meta = models.get_model_weights(name).DEFAULT.meta
    _, parameters = model_builder.count_parameters(model)
    assert parameters == meta["num_params"]
    print(
        f"{name:<19}{', '.join(heads):<16}{model_builder.head_features(model):>7}{pixels:>8}"
        f"{len(blocks):>8}{parameters:>13,}{meta['_metrics']['ImageNet-1K']['acc@1']:>8.1f}"
    )

# %% [markdown]
# *Inputs* is the number of features that the head takes. *Top-1* is the accuracy on ImageNet in per
# cent, which torchvision publishes with the weights; on your pictures the order may be another.
# Inception has two heads, and in training it gives two outputs: a usual loop stops there. The
# engine adds the auxiliary head's loss, times 0.4.
#
# **Predict:** what happens in training with Inception and 224 pixels instead of 299?

# %%
model = model_builder.create_model("inception_v3", 2, weights=None)
optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
for pixels in (299, 224):
    images, labels = torch.randn(2, 3, pixels, pixels), torch.tensor([0, 1])
    print(f"{pixels} px, eval: logits", tuple(model.eval()(images).shape))
    try:
        loss, _ = engine.train_step(model, [(images, labels)], loss_fn, optimizer, "cpu")
        print(f"{pixels} px, training: loss {loss:.2f}, with {engine.AUXILIARY_WEIGHT} x auxiliary")
    except RuntimeError as error:
        print(f"{pixels} px, training: RuntimeError:", error)

# %% [markdown]
# In eval mode nobody notices the wrong size; in training the auxiliary head has too few pixels left
# for its kernel. `create_transform` asks for the size that the weights want.
#
# ## 7 · Flowers: 102 classes, few pictures of each
#
# **The lesson** trains on Oxford's flowers, ten training pictures of each kind. With so many classes
# a first look at the loss tells whether anything has been learned: guessing costs log(102) = 4.62.
# And 1,020 pictures are few for eleven million parameters, so the probe comes first.

# %%
flowers = pictures("flowers102", classes=102, train=10, val=5)
train_dataloader = data_setup.create_dataloader(flowers.train, transform, shuffle=True, seed=0)
val_dataloader = data_setup.create_dataloader(flowers.val, transform)
model = model_builder.create_model("resnet18", 102, random_if_absent=True)
model_builder.freeze(model)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=1e-2))
both = train_dataloader, val_dataloader
history = engine.train(model, *both, optimizer, epochs=15, device=device, cache_frozen=True)
print(f"{len(flowers.train):,} pictures; guessing costs {math.log(102):.2f}")
assert history["train_loss"][-1] < history["train_loss"][0]

# %% [markdown]
# **Predict:** a class has five validation pictures here (ten in the real set). All five are right.
# How low may the true accuracy for this class be?

# %%
predictions = engine.predict(model, val_dataloader, device)
right = (predictions.predicted == predictions.labels).long()
total = torch.bincount(predictions.labels, minlength=102)
correct = torch.bincount(predictions.labels, weights=right, minlength=102).long().sort().values
intervals = np.array([evaluation.wilson_interval(int(c), int(n)) for c, n in zip(correct, total)])
figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
axis.vlines(range(102), *intervals.T, color=utils.BLUE, alpha=0.5)
axis.plot(range(102), correct / total, "o", color=utils.BLUE, markersize=3)
axis.axhline(predictions.accuracy, color=utils.RED, linestyle="--", label="all classes together")
axis.legend(loc="upper left")
axis.set(xlabel="Class, sorted by accuracy", ylabel="Validation accuracy", ylim=(-0.02, 1.02))
print("all:", evaluation.format_accuracy(predictions.correct, len(predictions.labels)))
for number in (5, 10):
    print(f"{number} of {number} right: {evaluation.format_accuracy(number, number)}")
plt.show()

# %% [markdown]
# Each class's accuracy with its 95 % interval, sorted, and the accuracy over all as a dashed line.
# The overall figure is sharp; that of one class says little: five of five may mean 0.566, ten of ten
# 0.722. Name no class easy or hard before it has more pictures. Once the probe stands, go on as in
# recipe 1.
#
# **What to expect:** the data set's authors had
# [72.8 %](https://www.robots.ox.ac.uk/~vgg/publications/2008/Nilsback08/), without a deep network.
# Measure yours.
#
# ## All seven
#
# The figures that have a source, as counts with intervals. Ours come last: EfficientNet-Lite0 on the
# 153 validation pictures of ants and bees, three seeds for each strategy.

# %% tags=["nbval-check-output"]
for name, correct, total in (
    ("official tutorial, all layers", 143, 153),
    ("official tutorial, new head", 145, 153),
    ("course", 65, 75),
):
    share, interval = correct / total, evaluation.format_accuracy(correct, total)
    print(f"{name:<30} {correct} of {total} = {share:.6f}, {interval}")
print(f"course: 0.8561 of 75 would be {0.8561 * 75:.1f} pictures; batches of 32, 32 and 11 have")
both = [(a, b) for a in range(65) for b in range(12) if round((a / 32 + b / 11) / 3, 4) == 0.8561]
print("that mean where so many of the first 64 and of the last 11 are right:", both)
with open(utils.data_folder() / "ladder_hymenoptera.csv") as file:
    ladder = list(csv.DictReader(file))
for strategy in ("scratch", "feature_extraction", "full"):
    shares = [int(row["val_correct"]) / 153 for row in ladder if row["strategy"] == strategy]
    print("{:<30} {:.3f} ± {:.3f}".format(strategy, *evaluation.mean_and_std(shares)))

# %% [markdown]
# | Recipe | Model | What trains | Optimizer | What to expect, and who says so |
# |---|---|---|---|---|
# | 1 CIFAR-10 at 224 px | ResNet-18 | head, then `layer4` too | Adam 1e-3, new one 1e-4 | no source: measure |
# | 2 slower trunk | ResNet-18 | all | AdamW 1e-3, trunk 1e-4 | our ladder (another network) |
# | 3 own head | ResNet-18 | 512-256-2 | SGD 1e-3, momentum 0.9 | no source: measure |
# | 4 best epoch kept | ResNet-18 | all | SGD 1e-3, StepLR | tutorial: 143 of 153 |
# | 5 pizza, steak, sushi | EfficientNet-B0 | head | Adam 1e-3 | the course: 65 of 75 |
# | 6 six networks | see above | as above | as above | torchvision: top-1 on ImageNet |
# | 7 flowers | ResNet-18 | head first | AdamW 1e-2 | the authors, before deep networks; measure |
#
# ## Recap
#
# - You ran seven recipes in a few lines each.
# - You saw the bugs that travel with them: an optimizer that does not know the new layers, a head
#   found by name, a cut in the wrong place, a "best" that is the last, a test set used every epoch,
#   the wrong input size. Few of them raised an error.
# - You know which figures have a source, and how to measure the others.
#
# ## Check yourself
#
# 1. You unfreeze a block, and the loss goes on exactly as before. What do you look at first?
#    - **a** · Whether the optimizer holds the block's parameters.
#    - **b** · The data.
#    - **c** · Whether the block is in training mode.
#
# <details><summary>Answer</summary>
#
# **a.** Compare its count with the trainable ones. *b:* It has not changed since the loss was fine.
# *c:* Mode changes BatchNorm and dropout; gradients flow in either.
# </details>
#
# 2. Somebody's ResNet-18 has a head with 25,088 inputs. What happened?
#    - **a** · It is a larger ResNet.
#    - **b** · The pooling was cut off with the last layer.
#    - **c** · The pictures have 224 pixels, so that is right.
#
# <details><summary>Answer</summary>
#
# **b.** And the head was made to fit the mistake. *a:* ResNet-152 has 2,048. *c:* Pooling makes it
# 512 for any size.
# </details>
#
# 3. A class has 5 of 5 right, another 3 of 5. Is the first one easier?
#    - **a** · Yes, by 40 points.
#    - **b** · Yes, but by less.
#    - **c** · We cannot say: the intervals overlap widely.
#
# <details><summary>Answer</summary>
#
# **c.** Five of five is compatible with little more than half. *a:* That is the difference of two
# very rough figures. *b:* Perhaps; these ten pictures do not show it.
# </details>
#
# ## Exercises
#
# [Four exercises](exercises/09_recipes.ipynb) check your code and say what is missing. On this
# page, change one thing, say first what you expect, then run:
#
# 1. Cut DenseNet-121 with `list(model.children())[:-1]`, and compare its output with
#    `model.features(images)`. Then put back what `forward()` does.
# 2. Recipe 2 with the trunk at the head's rate, and at a thousandth of it. What do the curves say?
# 3. Set `REAL_DATA = True`, and run recipes 2 to 4 on ants and bees.
#
# Back to [08 · Bug clinic](08_bug_clinic.ipynb).
