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
# # 01 · See what a pretrained network already knows
#
# A network that has learned one task can give another a head start. This is **transfer learning**.
# In this notebook we train nothing. We look at what there is to transfer, how to get it, and when it
# helps.
#
# **You will**
# - name the parts of a network and the strategies of transfer learning;
# - choose pretrained weights, and prepare images the way they expect;
# - measure what a network knows about images it was never trained for, against controls.
#
# **You need** Python, and PyTorch's tensors and `DataLoader`; a first idea of what a convolution is.
#
# **Time** about one minute on a 2-core CPU.

# %% [markdown]
# Let's check that everything is installed, and see how long each notebook will take here.

# %%
from going_modular import preflight

preflight.show()

# %%
from collections import Counter

import matplotlib.pyplot as plt
import torch
from matplotlib.patheffects import withStroke
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.utils import make_grid

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A network that works
#
# In torchvision, a network is loaded with its **pretrained weights**: the numbers it learned from the
# 1.3 million photos of [ImageNet](https://doi.org/10.1109/CVPR.2009.5206848). The weights know how
# images must be prepared for them, and which 1,000 objects they can name.
#
# Here are two photos: a building beside a lake, and a flower.
#
# **Predict:** what will the network call them, and how sure will it be?

# %% slideshow={"slide_type": "subslide"}
weights = get_model_weights("efficientnet_lite0").DEFAULT
model = get_model("efficientnet_lite0", weights=weights).eval()
categories = weights.meta["categories"]


def name_images(batch):
    """Return the four most probable names of each prepared image, as text."""
    with torch.inference_mode():
        top = model(batch).softmax(dim=1).topk(4)
    return [
        ", ".join(f"{categories[i]} {p:.0%}" for p, i in zip(row_p, row_i, strict=True))
        for row_p, row_i in zip(*top, strict=True)
    ]


photos = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
prepared = torch.stack([weights.transforms()(photo) for photo in photos])
answers = name_images(prepared)
utils.plot_images(photos, [answer.replace(", ", "\n") for answer in answers], columns=2)

# %% [markdown] slideshow={"slide_type": "subslide"}
# A palace, says the network, though not with much confidence: it is the Summer Palace in Beijing. The
# flower is a dahlia, which is not among the 1,000 names; a daisy is from the same family. The network
# gives one score for each name, and **softmax** turns the scores into probabilities that add up to 1.
#
# This is the way from an image to its name:

# %% alt="From left to right: the photo of the palace, a row of ever smaller blocks called the trunk, a strip of 1,280 features, a block called the head, and bars for the largest of 1,000 probabilities, palace first." slideshow={"slide_type": "subslide"}
# @title Figure: image, trunk, features, head, probabilities
with torch.inference_mode():
    features = model.features(prepared[:1]).mean(dim=(2, 3))[0]  # (1280,)
    probabilities = model(prepared[:1]).softmax(dim=1)[0]
figure, axes = plt.subplots(
    1, 5, figsize=(9, 2.2), width_ratios=[2, 3, 1, 1, 2], layout="constrained"
)
axes[0].imshow(prepared[0].permute(1, 2, 0) * 0.5 + 0.5)
for block in range(9):
    height = 0.9 - 0.08 * block
    axes[1].barh(0, 0.8, height, block, color=utils.BLUE, edgecolor="black")
axes[1].set(ylim=(-0.5, 0.5))
axes[2].imshow(features.reshape(64, 20), cmap="gray", vmax=1)
axes[3].barh(0, 0.8, 0.5, color=utils.ORANGE, edgecolor="black")
axes[3].set(ylim=(-0.5, 0.5), xlim=(-0.1, 0.9))
largest = probabilities.topk(4)
names = [categories[index] for index in largest.indices]
axes[4].barh(range(4), largest.values, color=utils.ORANGE)
axes[4].set_yticks(range(4), names)
axes[4].invert_yaxis()
titles = ["image", "trunk (backbone)", "1,280 features", "head", "4 of 1,000 probabilities"]
for axis, title in zip(axes, titles, strict=True):
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], frame_on=False)
    if axis is not axes[4]:
        axis.set_yticks([])

# %% [markdown] slideshow={"slide_type": "slide"}
# The **trunk**, nine **blocks** of layers one after another, turns an image into **features**: 1,280
# numbers that say what is in it. The **head**, the last layer, turns the features into one score for each
# name. We keep the trunk.
#
# ## What is transferred, and to what
#
# The network learned on a **source** and is used on a **target**. Two things can change between
# them, and here both do:
#
# - the **domain**, the kind of input: from photos to charts;
# - the **task**, the answers wanted: from 1,000 objects to 12 kinds of chart.
#
# ([A Survey on Transfer Learning](https://doi.org/10.1109/TKDE.2009.191) maps the field.)
#
# The strategies of this series differ in how they answer two questions: what does a layer start from,
# and does training change it? A layer that training leaves alone is **frozen**. Training pretrained layers
# further is **fine-tuning**.

# %% alt="Four networks, one a row, from the first layers to the head. From scratch: all layers random and trained. Feature extraction: all frozen but the head. Partial fine-tuning: the last layers train too. Full fine-tuning: everything trains." slideshow={"slide_type": "subslide"}
# @title Figure: four strategies
strategies = {
    "from scratch (control)": "rrrrr",
    "02 feature extraction": "ffffr",
    "03 partial fine-tuning": "fffpr",
    "04 full fine-tuning": "ppppr",
}
looks = {
    "f": ("pretrained,\nfrozen", utils.BLUE, "white"),
    "p": ("pretrained,\ntrained", utils.ORANGE, "black"),
    "r": ("random,\ntrained", "white", "black"),
}
figure, axis = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
axis.set(ylim=(3.5, -0.5), frame_on=False)
axis.set_xticks([0.5, 3.5, 4.5], ["first layers", "last layers", "head"])
axis.set_yticks(range(4), strategies)
axis.tick_params(length=0)
for row, states in enumerate(strategies.values()):
    for column, state in enumerate(states):
        text, color, text_color = looks[state]
        axis.barh(row, 0.9, 0.8, column + 0.05, color=color, edgecolor="black")
        axis.text(column + 0.5, row, text, color=text_color, ha="center", va="center")

# %% [markdown] slideshow={"slide_type": "slide"}
# Each row is one network. The head is always new, since the classes are. The first row is a **control**:
# the same experiment without the thing under test, here without pretraining. From the second row down,
# more and more of the trunk trains.
#
# ## Weights say what they are
#
# Weights carry their class names, their published accuracy, and the preparation that they were
# trained with. (A network's **parameters** are all the numbers that training can change.)

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
print(weights, f"{weights.meta['num_params']:,} parameters, {len(categories)} classes")
weights.transforms()

# %% [markdown] slideshow={"slide_type": "subslide"}
# (This network is in torchvision's list because importing `going_modular` put it there: it is small
# and comes with this project. All others are torchvision's own, and are downloaded when first used.)
#
# One network can have several sets of weights. **Predict:** ResNet-50 has two. Same layers, another
# training recipe: how far apart is their accuracy?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
for recipe in get_model_weights("resnet50"):
    top1 = recipe.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    print(f"{recipe.name}: {recipe.meta['num_params']:,} parameters, accuracy {top1:.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Almost five points, from the recipe alone. So say which one you mean: `weights="IMAGENET1K_V2"`, or
# `"DEFAULT"` for the best that your version knows. Older lessons write `pretrained=True`, which does
# not say; current versions warn about it or refuse it.
#
# Now a common slip: the flower again, but with pixel values from 0 to 255, as a photo's file has
# them. These weights expect −1 to 1.
#
# **Predict:** will there be an error, or another answer?

# %% slideshow={"slide_type": "subslide"}
slip = (prepared[1:] * 0.5 + 0.5) * 255
for title, batch in (("prepared well", prepared[1:]), ("prepared badly", slip)):
    print(f"{title}: {batch.min():.0f} to {batch.max():.0f}, {name_images(batch)[0]}")

# %%
# @title Checks: what these sections say
assert answers[0].startswith("palace") and answers[1].startswith("daisy")
assert "dahlia" not in categories
assert "daisy" not in name_images(slip)[0]

# %% [markdown] slideshow={"slide_type": "slide"}
# Another answer, as confident as the first, and no error. Nothing warns you. Take the preparation from
# the weights.
#
# ## A tour of the families
#
# All of this is read from the weights; nothing is downloaded.

# %% alt="ImageNet accuracy against millions of parameters for fifteen networks of eight families. Larger networks are more accurate, roughly; VGG-16 is among the largest and the least accurate." slideshow={"slide_type": "subslide"}
# @title Figure: accuracy against size
families = {
    "ResNet": {"resnet18": "below", "resnet50": "left"},
    "VGG": {"vgg16": "below"},
    "Inception": {"inception_v3": "right"},
    "MobileNet": {"mobilenet_v3_small": "below", "mobilenet_v3_large": "right"},
    "DenseNet": {"densenet121": "below", "densenet201": "under"},
    "EfficientNet": {"efficientnet_lite0": "left", "efficientnet_b0": "left"},
    "ConvNeXt": {"convnext_tiny": "right", "convnext_base": "right"},
    "ViT": {"vit_b_16": "below", "vit_l_16": "below"},
}
families["EfficientNet"]["efficientnet_b4"] = "left"
places = {"left": (-8, 0, "right", "center"), "right": (8, -2, "left", "center")}
places |= {"below": (0, -7, "center", "top"), "under": (4, -6, "left", "top")}
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
colors = [utils.BLUE, utils.ORANGE, utils.GREEN, utils.RED] * 2
for (family, names), marker, color in zip(families.items(), "osD^vP*X", colors, strict=True):
    metas = [get_model_weights(name).DEFAULT.meta for name in names]
    x = [meta["num_params"] / 1e6 for meta in metas]
    y = [meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100 for meta in metas]
    axis.plot(x, y, marker + ":", color=color, markersize=9, label=family)
    for *point, (name, place) in zip(x, y, names.items(), strict=True):
        dx, dy, ha, va = places[place]
        axis.annotate(name, point, (dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=9)
axis.set(xscale="log", xlim=(1.3, 600), ylim=(0.65, 0.9))
axis.set(xlabel="Parameters (millions)", ylabel="ImageNet accuracy")
axis.set_xticks([3, 10, 30, 100, 300], [3, 10, 30, 100, 300])
axis.tick_params(length=0, which="minor")

# %% [markdown] slideshow={"slide_type": "slide"}
# Larger networks are more accurate, but only roughly: VGG-16 is one of the largest here and among the
# least accurate. Use such a figure to choose, not to explain: training recipes and image sizes differ,
# too.
#
# | Family | Idea | Paper |
# |---|---|---|
# | VGG | deep stacks of 3×3 convolutions | [1409.1556](https://arxiv.org/abs/1409.1556) |
# | Inception | filter sizes side by side | [1512.00567](https://arxiv.org/abs/1512.00567) |
# | ResNet | layers add to their input | [1512.03385](https://arxiv.org/abs/1512.03385) |
# | DenseNet | each layer sees all before it | [1608.06993](https://arxiv.org/abs/1608.06993) |
# | MobileNet | cheap convolutions, for phones | [1905.02244](https://arxiv.org/abs/1905.02244) |
# | EfficientNet | depth, width and image size grow together | [1905.11946](https://arxiv.org/abs/1905.11946) |
# | ViT | the image as a sequence of patches | [2010.11929](https://arxiv.org/abs/2010.11929) |
# | ConvNeXt | a ResNet with lessons from ViT | [2201.03545](https://arxiv.org/abs/2201.03545) |
#
# Better on ImageNet often means better on the target, but not always:
# [Do Better ImageNet Models Transfer Better?](https://arxiv.org/abs/1805.08974)
#
# ## What the layers look for
#
# **Predict:** the first layer holds 32 filters of 3×3 pixels. What will trained ones show that
# random ones do not?

# %% alt="Sixteen pretrained filters beside sixteen random ones, each 3 by 3 pixels in colour. The pretrained ones show edges, spots and colour contrasts; the random ones are noise." slideshow={"slide_type": "subslide"}
# @title Figure: the 16 strongest filters of the first layer
untrained = get_model("efficientnet_lite0", weights=None)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.5), layout="constrained")
for axis, network, title in zip(axes, (model, untrained), ("pretrained", "random"), strict=True):
    filters = network.features[0][0].weight.detach()  # (32, 3, 3, 3)
    strongest = filters[filters.flatten(1).norm(dim=1).argsort(descending=True)[:16]]
    grid = make_grid(strongest, nrow=8, padding=1, normalize=True, scale_each=True, pad_value=1)
    axis.imshow(grid.permute(1, 2, 0))
    axis.set_title(title)
    axis.axis("off")

# %% [markdown]
# Each square is one filter, in colour. Many of the pretrained ones have order: a light and a dark side
# (an edge detector), a centre that differs from its surround (a spot detector), one colour against
# another. The random ones are noise.
#
# A filter slid over an image gives a **feature map**: bright where it finds what it looks for. The first
# block is called the **stem**.

# %% alt="The photo of the palace beside twelve feature maps, four from each of three depths: the first show the building's outlines, the last are coarse patches." slideshow={"slide_type": "subslide"}
# @title Figure: feature maps at three depths
depths = {"features.0": "stem", "features.2": "block 2", "features.5": "block 5"}
with torch.inference_mode():
    maps = create_feature_extractor(model, depths)(prepared[:1])
layout = [["image", *(f"{name} {i}" for i in range(4))] for name in maps]
figure, axes = plt.subplot_mosaic(
    layout, figsize=(8, 4.4), width_ratios=[3, 1, 1, 1, 1], layout="constrained"
)
axes["image"].imshow(prepared[0].permute(1, 2, 0) * 0.5 + 0.5)
for name, activation in maps.items():
    strongest = activation[0].var(dim=(1, 2)).topk(4).indices
    size = " × ".join(str(side) for side in activation.shape[1:])
    axes[f"{name} 0"].set_title(f"{name}: {size}", fontsize=9, loc="left")
    for i, channel in enumerate(strongest):
        axes[f"{name} {i}"].imshow(activation[0, channel], cmap="gray", interpolation="nearest")
for axis in axes.values():
    axis.axis("off")

# %% [markdown] slideshow={"slide_type": "slide"}
# Four maps from each of three depths, with their number and size. The stem still draws a palace.
# Further on, maps are coarser, since layers in between take steps of two pixels, and harder to read.
# That early features are general and late ones belong to the task cannot be seen here: it was measured
# by [Yosinski et al.][features]
#
# [features]: <https://arxiv.org/abs/1411.1792>
#
# ## Our target: charts
#
# A team digitises the figures of thousands of old reports. Each kind of chart needs its own tool, so
# somebody has to sort them first; a chart in the wrong tool comes back as wrong numbers. Can a
# network sort them? Our charts are drawn by a program, so every label is known to be right.
#
# They come in three splits. The model learns from **train**; choices are made on **val**
# (validation); **test** stays closed until all choices are made, in notebook 05. An image that helped
# to choose cannot also judge the choice.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
splits = data_setup.load("charts")
print(splits.summary())

# %% [markdown]
# Are charts new to the network? Ask that of every data set. Popular tutorials use ants and bees, hot
# dogs, cats and dogs:

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
popular = ["ant", "bee", "hotdog", "pizza", "tabby", "beagle"]
print("in ImageNet:", [name for name in popular if name in categories])
print("charts in ImageNet:", [name for name in categories if "chart" in name or "diagram" in name])

# %% [markdown]
# ImageNet has them all, so a good result on those is partly memory. None of its classes is a chart,
# though some of its photos may show one. What does its head make of ours?

# %% slideshow={"slide_type": "subslide"}
transform = data_setup.create_transform("efficientnet_lite0", size=128)
loaders = [data_setup.create_dataloader(part, transform) for part in (splits.train, splits.val)]
said = engine.predict(model.to(device), loaders[1])
confidence = said.probabilities.max(dim=1).values.mean().item()
print(Counter(categories[index] for index in said.predicted.tolist()).most_common(6))
print(f"mean confidence: {confidence:.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# It has no word for them, and answers all the same, often with confidence. The head is useless
# here. Are the features?
#
# ## Neighbours, without any training
#
# We give each validation chart the class of the training chart with the most similar features: its
# **nearest neighbour**. One number alone would say little, so there are two controls: the same
# network with random weights, and the bare pixels.


# %%
# @title Helpers: features, nearest neighbours, accuracy
def features_of(loaders, weights):
    """Return the trunk's features of each loader's images."""
    network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12, weights))
    return [engine.extract_features(network, loader, device).tensors[0] for loader in loaders]


def nearest(train, val):
    """Return the position in `train` of the row in the most similar direction, for each of `val`."""
    return (normalize(val.flatten(1)) @ normalize(train.flatten(1)).T).argmax(dim=1)


def neighbours_right(name, train, val):
    """Print the accuracy of the nearest neighbour's class; return where it is right, as 0 or 1."""
    train_labels, val_labels = torch.tensor(splits.train.targets), torch.tensor(splits.val.targets)
    right = (train_labels[nearest(train, val)] == val_labels).float()
    print(f"{name:17} {evaluation.format_accuracy(int(right.sum()), len(right))}")
    return right


def random_neighbours_right(loaders):
    """Do so with random weights, for three seeds: (3, 360)."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(neighbours_right(f"random weights {seed}", *features_of(loaders, None)))
    return torch.stack(found)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** guessing gives 1/12, about 8%. What will the three give?

# %% slideshow={"slide_type": "subslide"}
chart_features = features_of(loaders, "DEFAULT")
pixels = [torch.cat([images for images, _ in loader]) for loader in loaders]
pretrained = neighbours_right("pretrained", *chart_features)
bare = neighbours_right("bare pixels", *pixels)
random = random_neighbours_right(loaders)

# %% [markdown]
# In brackets is the **95% interval**: where the accuracy on very many such charts plausibly lies. The
# first lies far above the others: features of photos carry over to charts. The network's shape alone,
# with random weights, does not do it. (Random weights differ from draw to draw, so we try three.)
#
# Which charts does it take for neighbours?

# %% alt="Upper row: four validation charts. Below each: its nearest training chart. In the two columns on the left both are of one kind, on the right they are not." slideshow={"slide_type": "subslide"}
labels, found = splits.val.targets, nearest(*chart_features).tolist()
wrong = [i for i, answer in enumerate(found) if splits.train.targets[answer] != labels[i]]
right = [i for i in range(len(labels)) if i not in wrong]
chosen = right[::90][:2] + wrong[::30][:2]
shown = [splits.val[i] for i in chosen] + [splits.train[found[i]] for i in chosen]
titles = [splits.class_names[label] for _, label in shown]
colors = [utils.BLUE, utils.BLUE, utils.RED, utils.RED] * 2
utils.plot_images([image for image, _ in shown], titles, colors, columns=4)

# %% [markdown] slideshow={"slide_type": "slide"}
# Upper row: validation charts. Below each: its nearest training chart. On the left the kinds agree,
# on the right they do not. Similar to this network is not yet similar for our task, and that is what
# training is for.
#
# ## A map of the charts
#
# To see 1,280 features at once, we press them into two dimensions.
# [t-SNE](https://www.jmlr.org/papers/v9/vandermaaten08a.html) tries to keep neighbours together.

# %% alt="Two t-SNE maps of the training charts, one point an image, coloured by class. From features: islands with the names of their classes beside mixed ones. From bare pixels: the classes are mixed." slideshow={"slide_type": "subslide"}
# @title Figure: t-SNE maps of features and of pixels
flat = normalize(chart_features[0]).numpy()
targets, palette = torch.tensor(splits.train.targets), plt.get_cmap("tab20")
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
same = []
for axis, values, title in zip(
    axes, (flat, pixels[0].flatten(1)), ("features", "pixels"), strict=True
):
    points = torch.as_tensor(TSNE(random_state=0).fit_transform(values))
    near = torch.cdist(points, points).fill_diagonal_(float("inf")).topk(9, largest=False).indices
    own_kind = (targets[near] == targets[:, None]).sum(dim=1)  # of the nine nearest
    same.append(int((targets[near[:, 0]] == targets).sum()))
    for label, name in enumerate(splits.class_names):
        own = points[targets == label]
        axis.scatter(*own.T, s=12, color=palette(label))
        if axis is axes[0]:
            middle = own[own_kind[targets == label].argmax()]
            text = axis.text(*middle, name, ha="center", va="center", fontsize=9, weight="bold")
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axis.set(
        title=f"{title}: {same[-1]} of {len(points)} beside their own kind", xticks=[], yticks=[]
    )

# %%
# @title Checks: what these sections say
explained = PCA(2, random_state=0).fit(flat).explained_variance_ratio_.sum()
assert confidence > 0.3
assert pretrained.mean() > 0.6
assert pretrained.mean() > 1.4 * max(*random.mean(dim=1), bare.mean())
assert same[0] > 1.5 * same[1] and explained < 0.3

# %% [markdown] slideshow={"slide_type": "slide"}
# One point is one image, and one colour one kind; each name stands where its kind is least mixed.
# From features (left) there are islands of one kind beside mixed ones; from bare pixels (right) far
# less. Only who is beside whom means something, not the size or distance of islands. A map is for
# looking; the claim is the accuracy above.
#
# ## When it does not help
#
# Charts are made of edges and areas, as photos are. Now take that away: move the pixels of all
# charts around by one fixed shuffle. Nothing is lost, for the shuffle could be undone.
#
# **Predict:** will the result of bare pixels change? Will the pretrained network still be ahead?

# %% alt="A chart, and beside it the same chart with its pixels shuffled: only noise of its colours is left." slideshow={"slide_type": "subslide"}
shuffle = torch.randperm(128 * 128)
shuffled = [part.flatten(2)[:, :, shuffle].view_as(part) for part in pixels]
shuffled_loaders = [DataLoader([(image, 0) for image in part], 32) for part in shuffled]
shuffled_pretrained = neighbours_right("pretrained", *features_of(shuffled_loaders, "DEFAULT"))
shuffled_bare = neighbours_right("bare pixels", *shuffled)
shuffled_random = random_neighbours_right(shuffled_loaders)
difference = evaluation.format_difference(shuffled_pretrained, shuffled_random.mean(dim=0))
print(f"pretrained - random weights (mean of the three): {difference}")
pair = torch.cat([pixels[0][0], shuffled[0][0]], dim=2).permute(1, 2, 0) * 0.5 + 0.5
figure, axis = plt.subplots(figsize=(4, 2), layout="constrained")
axis.imshow(pair, interpolation="nearest")
axis.set_axis_off()

# %%
# @title Checks: what this section says
assert abs(shuffled_bare.mean() - bare.mean()) < 0.01
assert shuffled_pretrained.mean() < shuffled_bare.mean() - 0.05
assert shuffled_random.mean() < random.mean()
paired = evaluation.bootstrap_difference(shuffled_pretrained, shuffled_random.mean(dim=0))
assert paired[1] < 0

# %% [markdown] slideshow={"slide_type": "subslide"}
# Bare pixels do as before: each is still compared with its own counterpart. Both networks fall, since
# both look at pixels that are close to each other. But the pretrained one falls furthest, below the
# bare pixels and below random weights. Both networks saw the same charts, so we compare them **paired**,
# image by image: the last line gives the difference with its interval, all of it below zero. Here the
# weights that were trained on photos are not a head start but a handicap. When transfer makes things worse, one speaks of
# **negative transfer**. (Why the handicap? Filters that expect edges are one suspect, statistics stored
# from photos another. This experiment does not tell them apart.)
#
# | Transfer tends to | when | Source |
# |---|---|---|
# | help | labels are few | [Rich feature hierarchies …][R-CNN] |
# | help less | tasks are far apart | [How transferable are features …?][features] |
# | save time only | data and training are plentiful | [Rethinking ImageNet Pre-training][He] |
# | add little | on two medical tasks | [Transfusion …][Raghu] |
# | hurt | source and target disagree | [Characterizing … Negative Transfer][Wang] |
#
# So ask of every gain: compared with what? Notebook 02 trains the control from random weights.
#
# [R-CNN]: <https://arxiv.org/abs/1311.2524>
# [features]: <https://arxiv.org/abs/1411.1792>
# [He]: <https://arxiv.org/abs/1811.08883>
# [Raghu]: <https://arxiv.org/abs/1902.07208>
# [Wang]: <https://arxiv.org/abs/1811.09751>
#
# ## Beyond images with labels
#
# | Field | Learned by | Source |
# |---|---|---|
# | language | filling in missing words | [BERT: Pre-training of Deep Bidirectional …][BERT] |
# | language | predicting the next word | [Language Models are Few-Shot Learners][GPT] (GPT-3) |
# | detection, segmentation | classifying images | [Rich feature hierarchies …][R-CNN], [FCN][] |
# | images without labels | telling two views apart | [A Simple Framework …][SimCLR] (SimCLR) |
#
# In the first two and the last, the data itself poses the task: **self-supervised** pretraining.
#
# [BERT]: <https://arxiv.org/abs/1810.04805>
# [GPT]: <https://arxiv.org/abs/2005.14165>
# [FCN]: <https://arxiv.org/abs/1411.4038>
# [SimCLR]: <https://arxiv.org/abs/2002.05709>
#
# ## Recap
#
# - You named the parts of a network and told the strategies apart.
# - You chose pretrained weights, and saw what wrong preparation does, silently.
# - You measured, against controls, that features of photos carry over to charts, and saw them fail
#   on shuffled pixels.
#
# ## Check yourself
#
# 1. You sort photos of dogs by breed with a network trained on ImageNet. What changes between source and
#    target?
#    - **a** · The domain: dogs are not in ImageNet.
#    - **b** · Hardly anything changes: photos stay photos, and many breeds are classes there.
#    - **c** · Both the task and the domain.
#
# <details><summary>Answer</summary>
#
# **b.** Domain and even many classes are the same; a good result shows little about transfer. *a:*
# ImageNet has more than a hundred breeds. *c:* The task is nearly the old one, and so is the
# domain.
# </details>
#
# 2. Why is a *random* network the control for nearest neighbours, and not guessing alone?
#    - **a** · Guessing is harder to compute.
#    - **b** · A random network is the weaker of the two.
#    - **c** · It separates what the weights know from what architecture and pixels give anyway.
#
# <details><summary>Answer</summary>
#
# **c.** Only the weights differ, and the random network is far above guessing. *a:* Guessing is one
# over the number of classes. *b:* It is the stronger one, and therefore the fairer control.
# </details>
#
# 3. A network gives its first answer a probability of 0.9. Does it know what is in the image?
#    - **a** · Not necessarily: probabilities add up to one even where no class fits.
#    - **b** · Yes, above 0.5 it is sure.
#    - **c** · Only if its top-1 accuracy is above 90%.
#
# <details><summary>Answer</summary>
#
# **a.** ImageNet's head was confident about charts, for which it has no class. *b:* Softmax must
# share one whole among the classes, whatever the image. *c:* That accuracy holds for images like
# ImageNet's, not for yours.
# </details>
#
# 4. On a t-SNE map, two islands lie far apart. What follows?
#    - **a** · Their classes are very different.
#    - **b** · Nothing about the distance; that an image lies among its neighbours does mean something.
#    - **c** · A linear head separates them with certainty.
#
# <details><summary>Answer</summary>
#
# **b.** The method keeps neighbourhoods and distorts distances. *a:* Another start, or another setting
# of its perplexity, puts the same islands elsewhere. *c:* A separation in two drawn dimensions is neither needed for it nor enough.
# </details>
#
# ## Exercises
#
# [Five exercises](exercises/01_concepts.ipynb) mark themselves. Here, predict, then run:
#
# 1. Prepare the palace with `weights.transforms(resize_size=224)`, which cuts off less. What
#    changes in the answers?
# 2. Let the five nearest charts vote. Does the accuracy leave the interval?
# 3. Use `size=64` in `create_transform`. What does accuracy lose, and time gain?
