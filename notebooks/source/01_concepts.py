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
# This notebook trains nothing. It shows what there is to transfer, how to get it, when it helps and
# when it does not.
#
# **You will**
# - name the parts and the strategies of transfer learning;
# - choose pretrained weights by what they say about themselves, and feed them as they want it;
# - measure what a network knows about pictures it was never trained for, beside controls.
#
# **You need** Python and a first idea of what a neural network is.
#
# **Time** about one minute on a 2-core CPU.

# %% [markdown]
# Is there all that the notebooks need, and how long will each take on this machine?

# %%
from going_modular import preflight

preflight.show()

# %%
import warnings
from collections import Counter

import matplotlib.pyplot as plt
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torchvision.models import get_model, get_model_weights, resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.utils import make_grid

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What is transferred, and to what
#
# The network learns on a **source** and is used on a **target**. Two things can change between
# them, and here both do:
#
# - the **domain**, the kind of input: from photos to charts (**domain transfer**);
# - the **task**, the answers wanted: from 1,000 objects to 12 kinds of chart (**task transfer**).
#
# [A Survey on Transfer Learning](https://doi.org/10.1109/TKDE.2009.191) maps the field.
#
# | Word | Meaning |
# |---|---|
# | pretrained weights | the numbers a network has learned on the source |
# | feature | one of the numbers the network computes from a picture |
# | head | the last layer: features in, one score a class out |
# | trunk, backbone | everything before the head: picture in, features out |
# | frozen | not changed by training |
# | fine-tuning | training pretrained layers further, on the target |
# | control | the same experiment without the thing under test |
#
# The strategies differ in two questions: what does a layer start from, and may it change?

# %% slideshow={"slide_type": "subslide"}
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
figure, axis = plt.subplots(figsize=(6.5, 2.1), layout="constrained")
axis.set(ylim=(3.5, -0.5), frame_on=False)
axis.set_xticks([0.5, 3.5, 4.5], ["first layers", "last layers", "head"])
axis.set_yticks(range(4), strategies)
for row, states in enumerate(strategies.values()):
    for column, state in enumerate(states):
        text, color, text_color = looks[state]
        axis.barh(row, 0.9, 0.8, column + 0.05, color=color, edgecolor="black")
        axis.text(column + 0.5, row, text, color=text_color, ha="center", va="center")

# %% [markdown] slideshow={"slide_type": "slide"}
# Each row is one network, from the input on the left to the head on the right. The head is always
# new, since the classes are. From the second row down, more and more of the trunk trains. The first
# row has the same layers, and all of them start at random.
#
# ## Weights that say what they are
#
# In torchvision, pretrained weights are objects. They carry their class names, their published
# accuracy, and the preparation of pictures that they were trained with.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
weights = get_model_weights("efficientnet_lite0").DEFAULT
print(weights)
print(f"{weights.meta['num_params']:,} parameters, {len(weights.meta['categories'])} classes")
print(weights.transforms())

# %% [markdown] slideshow={"slide_type": "subslide"}
# Older lessons write `pretrained=True`. That does not say which weights, and a network can have
# several.
#
# **Predict:** ResNet-50 has two sets of ImageNet weights: same layers, another training recipe. How
# far apart is their accuracy?

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
for recipe in get_model_weights("resnet50"):
    top1 = recipe.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    print(f"{recipe.name}: {recipe.meta['num_params']:,} parameters, accuracy {top1:.3f}")

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        resnet18(pretrained=False)
        print(caught[0].message)
    except TypeError as error:  # versions that no longer know the word
        print(error)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Almost five points, from the recipe alone. So say which: `weights="IMAGENET1K_V2"`, or `"DEFAULT"`
# for the best that your version knows, or `None` for random weights. The old word earns a warning
# or, in versions that have dropped it, an error.
#
# Now a photo that comes with matplotlib: Grace Hopper, computer pioneer and rear admiral. We
# prepare it with `weights.transforms()`; then a second time with a common slip: pixel values from 0
# to 255.
#
# **Predict:** what will the network say to each?

# %% slideshow={"slide_type": "subslide"}
photo = Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")
prepared = weights.transforms()(photo)
slip = (prepared * 0.5 + 0.5) * 255  # undo mean and spread, then scale wrongly
model = get_model("efficientnet_lite0", weights=weights).eval()
with torch.inference_mode():
    probabilities = model(torch.stack([prepared, slip])).softmax(dim=1)
answers = []
for values, indices in zip(*probabilities.topk(4), strict=True):
    answers.append([weights.meta["categories"][index] for index in indices])
    print(", ".join(f"{a} {v:.0%}" for a, v in zip(answers[-1], values, strict=True)))
assert "military uniform" in answers[0] and "military uniform" not in answers[1]

# %% [markdown] slideshow={"slide_type": "slide"}
# Prepared well, the network wavers between kinds of formal dress, the right one among them.
# Prepared badly, it gives other answers, and no error. Nothing warns you; so take the preparation
# from the weights, and from nowhere else.
#
# ## A tour of the families
#
# All of this is read from the weights' own metadata; nothing is downloaded.

# %% slideshow={"slide_type": "subslide"}
families = {
    "ResNet": ["resnet18", "resnet50"],
    "VGG": ["vgg16"],
    "Inception": ["inception_v3"],
    "MobileNet": ["mobilenet_v3_small", "mobilenet_v3_large"],
    "DenseNet": ["densenet121", "densenet201"],
    "EfficientNet": ["efficientnet_lite0", "efficientnet_b0", "efficientnet_b4"],
    "ConvNeXt": ["convnext_tiny", "convnext_base"],
    "ViT": ["vit_b_16", "vit_l_16"],
}
millions, top1 = {}, {}
print("model                weights         million parameters  input  ImageNet top-1")
for name in (name for names in families.values() for name in names):
    best = get_model_weights(name).DEFAULT
    millions[name] = best.meta["num_params"] / 1e6
    top1[name] = best.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    side = best.transforms().crop_size[0]
    print(f"{name:20} {best.name:15} {millions[name]:18.1f} {side:6} {top1[name]:15.3f}")

# %% slideshow={"slide_type": "subslide"}
labelled_left = ["efficientnet_lite0", "efficientnet_b4", "densenet201"]
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
colors = [utils.BLUE, utils.ORANGE, utils.GREEN, utils.RED] * 2
for (family, names), marker, color in zip(families.items(), "osD^vP*X", colors, strict=True):
    x, y = [millions[name] for name in names], [top1[name] for name in names]
    axis.plot(x, y, marker + ":", color=color, markersize=9, label=family)
    for name in names:
        side = "right" if name in labelled_left else "left"
        up = -0.013 if name == "densenet121" else 0.004
        axis.text(millions[name], top1[name] + up, f"  {name}  ", ha=side, fontsize=9)
axis.legend(loc="lower right", fontsize=9)
axis.set(xscale="log", xlim=(1, 1500), ylim=(0.66, 0.86))
axis.set(xlabel="Parameters (millions)", ylabel="ImageNet accuracy")
axis.set_xticks([3, 10, 30, 100, 300], [3, 10, 30, 100, 300])
axis.tick_params(length=0, which="minor")

# %% [markdown] slideshow={"slide_type": "slide"}
# Larger networks (right) are more accurate (up), but only roughly: VGG-16 is one of the largest and
# among the least accurate.
#
# | Family | Idea | Paper |
# |---|---|---|
# | VGG | deep stacks of 3×3 convolutions | [1409.1556](https://arxiv.org/abs/1409.1556) |
# | Inception | filter sizes side by side | [1512.00567](https://arxiv.org/abs/1512.00567) |
# | ResNet | layers add to their input | [1512.03385](https://arxiv.org/abs/1512.03385) |
# | DenseNet | each layer sees all before it | [1608.06993](https://arxiv.org/abs/1608.06993) |
# | MobileNet | cheap convolutions, for phones | [1905.02244](https://arxiv.org/abs/1905.02244) |
# | EfficientNet | depth, width and size as one | [1905.11946](https://arxiv.org/abs/1905.11946) |
# | ViT | the picture as a sequence of patches | [2010.11929](https://arxiv.org/abs/2010.11929) |
# | ConvNeXt | a ResNet with lessons from ViT | [2201.03545](https://arxiv.org/abs/2201.03545) |
#
# Better on ImageNet often means better on the target, but not on every target:
# [Do Better ImageNet Models Transfer Better?](https://arxiv.org/abs/1805.08974) We use
# EfficientNet-Lite0: small, and installed with this project.
#
# ## What the layers look for
#
# **Predict:** the first layer holds 32 filters of 3×3 pixels. What will trained ones show that
# random ones do not?

# %% slideshow={"slide_type": "subslide"}
untrained = get_model("efficientnet_lite0", weights=None)
figure, axes = plt.subplots(2, 1, figsize=(9, 2.8), layout="constrained")
for axis, network, title in zip(axes, (model, untrained), ("pretrained", "random"), strict=True):
    filters = network.features[0][0].weight.detach()  # (32, 3, 3, 3)
    idle = int((filters.abs().amax(dim=(1, 2, 3)) < 1e-3).sum())
    grid = make_grid(filters, nrow=16, padding=1, normalize=True, scale_each=True, pad_value=1)
    axis.imshow(grid.permute(1, 2, 0))
    axis.set_title(f"{title}, {idle} of {len(filters)} nearly zero")
    axis.axis("off")

# %% [markdown]
# Each square is one filter, in colour. Many of the upper ones have order: a light and a dark side
# (an edge detector), a centre that differs from its surround (a spot detector), one colour against
# another. The black ones are nearly zero: training has switched them off. The lower ones are noise.
#
# A filter slid over a picture gives a **feature map**: bright where it finds what it looks for.

# %% slideshow={"slide_type": "subslide"}
places = {"features.0": "stem", "features.2": "block 2", "features.5": "block 5"}
with torch.inference_mode():
    maps = create_feature_extractor(model, places)(prepared[None])
figure, axes = plt.subplots(3, 4, figsize=(4.4, 3.8), layout="constrained")
for row, (name, activation) in zip(axes, maps.items(), strict=True):
    strongest = activation[0].var(dim=(1, 2)).topk(4).indices
    row[0].set_title(f"{name}: {tuple(activation.shape[1:])}", fontsize=8, loc="left")
    for axis, channel in zip(row, strongest, strict=True):
        axis.imshow(activation[0, channel], cmap=plt.get_cmap("gray", 10), interpolation="nearest")
        axis.axis("off")

# %% [markdown] slideshow={"slide_type": "slide"}
# Four maps from each of three depths, with their number and size. The stem still draws a portrait;
# further on, maps are coarser and harder to read. Early features are general, late ones belong to
# the task: [Yosinski et al.][features] measured it.
#
# [features]: <https://arxiv.org/abs/1411.1792>
#
# ## Our target: charts, in three splits
#
# The model learns from **train**; choices are made on **val** (validation); **test** stays closed
# until all choices are made, in notebook 05. A picture that helped to choose cannot also judge
# the choice.

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
splits = data_setup.load("charts")
print(splits.summary())

# %% [markdown]
# Is the target new to the network? Ask that of every benchmark. Popular tutorials use ants and
# bees, hot dogs, cats and dogs:

# %% slideshow={"slide_type": "subslide"} tags=["nbval-check-output"]
categories = weights.meta["categories"]
popular = ["ant", "bee", "hotdog", "pizza", "tabby", "beagle"]
print("in ImageNet:", [name for name in popular if name in categories])
print("charts in ImageNet:", [name for name in categories if "chart" in name or "diagram" in name])

# %% [markdown]
# [ImageNet](https://doi.org/10.1109/CVPR.2009.5206848) has them all, so a good result there is
# partly memory. It has no charts. What does its head say to ours?

# %% slideshow={"slide_type": "subslide"}
transform = data_setup.create_transform("efficientnet_lite0", size=128)
loaders = [data_setup.create_dataloader(part, transform) for part in (splits.train, splits.val)]
said = engine.predict(model.to(device), loaders[1])
print(Counter(categories[index] for index in said.predicted.tolist()).most_common(6))
print(f"mean confidence: {said.probabilities.max(dim=1).values.mean():.2f}")
assert said.probabilities.max(dim=1).values.mean() > 0.3

# %% [markdown] slideshow={"slide_type": "slide"}
# It has no word for them, and answers all the same, often with confidence. The head is useless
# here. Are the features?
#
# ## Neighbours, without any training
#
# We give each validation chart the class of the training chart whose features point in the most
# similar direction: its **nearest neighbour**. The number alone would say little, so there are two
# controls: the same network with random weights, and the bare pixels.

# %%
def features_of(loaders, weights):
    """Return the trunk's features of each loader's pictures."""
    network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12, weights))
    return [engine.extract_features(network, loader, device).tensors[0] for loader in loaders]


def nearest(train, val):
    """Return the position in `train` of the most similar row for each row of `val`."""
    return (normalize(val.flatten(1)) @ normalize(train.flatten(1)).T).argmax(dim=1)


def neighbour_accuracy(name, train, val):
    """Print and return the accuracy of the nearest neighbour's class."""
    train_labels, val_labels = torch.tensor(splits.train.targets), torch.tensor(splits.val.targets)
    correct = int((train_labels[nearest(train, val)] == val_labels).sum())
    print(f"{name:20} {evaluation.format_accuracy(correct, len(val_labels))}")
    return correct / len(val_labels)

# %% [markdown] slideshow={"slide_type": "subslide"}
# **Predict:** guessing gives 1/12, about 8 %. What will the three give?

# %% slideshow={"slide_type": "subslide"}
features = features_of(loaders, "DEFAULT")
pixels = [torch.cat([images for images, _ in loader]) for loader in loaders]
pretrained = neighbour_accuracy("pretrained", *features)
bare = neighbour_accuracy("bare pixels", *pixels)
random = []
for seed in range(3):
    torch.manual_seed(seed)
    random_features = features_of(loaders, None)
    random.append(neighbour_accuracy(f"random weights {seed}", *random_features))
assert pretrained > 0.6 and pretrained > 1.4 * max(*random, bare)

# %% [markdown]
# In brackets is the **95 % interval**: how far the accuracy could reasonably be from this with
# other validation pictures. The first interval lies far above the others: features of photos carry
# over to charts. The network's shape alone, with random weights, does not do it. (They differ, so
# we try three.)

# %% slideshow={"slide_type": "subslide"}
labels, answers = splits.val.targets, nearest(*features).tolist()
wrong = [i for i, answer in enumerate(answers) if splits.train.targets[answer] != labels[i]]
right = [i for i in range(len(labels)) if i not in wrong]
chosen = right[::90][:2] + wrong[::30][:2]
shown = [splits.val[i] for i in chosen] + [splits.train[answers[i]] for i in chosen]
titles = [splits.class_names[label] for _, label in shown]
colors = [utils.BLUE, utils.BLUE, utils.RED, utils.RED] * 2
utils.plot_images([picture for picture, _ in shown], titles, colors, columns=4)

# %% [markdown] slideshow={"slide_type": "slide"}
# Upper row: validation charts. Below each: its nearest training chart. In the two columns on the
# left the kinds agree; on the right they do not. Similar to this network is not yet similar for our
# task.
#
# ## A map of the charts
#
# To see the 1,280 features, we press the training set into two dimensions. **PCA**
# keeps the two directions of largest spread;
# [t-SNE](https://www.jmlr.org/papers/v9/vandermaaten08a.html) tries to keep neighbours together.

# %%
def draw_map(axis, points, title):
    """Draw one point a picture; return how many have a nearest point of their own class."""
    targets, points = torch.tensor(splits.train.targets), torch.as_tensor(points)
    distances = torch.cdist(points, points).fill_diagonal_(float("inf"))
    same = int((targets[distances.argmin(dim=1)] == targets).sum())
    for label, name in enumerate(splits.class_names):
        color = [utils.BLUE, utils.ORANGE, utils.GREEN, utils.RED][label % 4]
        x, y = points[targets == label].T
        axis.scatter(x, y, s=9, color=color, marker="o^x"[label // 4], label=name)
    axis.set(title=f"{title}\n{same} of {len(points)} beside their own kind", xticks=[], yticks=[])
    return same

# %% alt="Two t-SNE maps of the training charts, one point a picture: from features, islands of one kind beside mixed ones; from bare pixels, the kinds are mixed." slideshow={"slide_type": "subslide"}
flat = normalize(features[0]).numpy()
pca = PCA(2, random_state=0).fit(flat)
figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.6))
same = [
    draw_map(axes[0], TSNE(random_state=0).fit_transform(flat), "features, t-SNE"),
    draw_map(axes[1], TSNE(random_state=0).fit_transform(pixels[0].flatten(1)), "pixels, t-SNE"),
]
figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=6)
figure.subplots_adjust(left=0.01, right=0.99, bottom=0.2, wspace=0.05)
explained = pca.explained_variance_ratio_.sum()
print(f"PCA's two directions hold {explained:.0%} of the spread of {flat.shape[1]:,} features")
assert same[0] > 1.5 * same[1] and explained < 0.3

# %% [markdown] slideshow={"slide_type": "slide"}
# PCA's map would show little, for its two directions hold a small part of the spread. The figure is
# t-SNE's: one point a picture; colour and shape together give its class. From features (left) it
# shows islands of one kind beside mixed ones; from bare pixels (right) far less. Only who is beside
# whom means something, not the size or distance of islands. It is for looking; the claim is the
# accuracy above.
#
# ## When it does not help
#
# Charts are made of edges and areas, as photos are. Now take that away: move the pixels of all
# charts around by one fixed shuffle. Nothing is lost, for the shuffle could be undone.
#
# **Predict:** will the result of bare pixels change? Will the pretrained network still be ahead?

# %% slideshow={"slide_type": "subslide"}
shuffle = torch.randperm(128 * 128)
shuffled = [part.flatten(2)[:, :, shuffle].view_as(part) for part in pixels]
shuffled_loaders = [DataLoader([(image, 0) for image in part], 32) for part in shuffled]
shuffled_features = features_of(shuffled_loaders, "DEFAULT")
shuffled_pretrained = neighbour_accuracy("pretrained", *shuffled_features)
shuffled_bare = neighbour_accuracy("bare pixels", *shuffled)
assert abs(shuffled_bare - bare) < 0.01 and shuffled_pretrained < 0.9 * shuffled_bare
pair = torch.cat([pixels[0][0], shuffled[0][0]], dim=2).permute(1, 2, 0) * 0.5 + 0.5
figure, axis = plt.subplots(figsize=(3, 1.5), layout="constrained")
axis.imshow(pair, interpolation="nearest")
axis.set_axis_off()

# %% [markdown] slideshow={"slide_type": "subslide"}
# Above: a chart, and the same chart shuffled. Bare pixels do as before: each is still compared with
# its own counterpart. The pretrained network falls below them. It looks for edges and shapes, and
# none are left. Knowledge that does not fit can be worse than none: **negative transfer**.
#
# | Transfer tends to | when | Source |
# |---|---|---|
# | help | labels are few | [Rich feature hierarchies …][R-CNN] |
# | help less | tasks are far apart | [How transferable are features …?][features] |
# | save time only | data and training are plenty | [Rethinking ImageNet Pre-training][He] |
# | add little | on two medical tasks | [Transfusion …][Raghu] |
# | hurt | source and target disagree | [Characterizing … Negative Transfer][Wang] |
#
# So the series has a **scratch control**: the same network from random weights, same data, same
# budget. Only then does one know what pretraining brought. Notebook 02 trains it; this makes it:
#
# [R-CNN]: <https://arxiv.org/abs/1311.2524>
# [features]: <https://arxiv.org/abs/1411.1792>
# [He]: <https://arxiv.org/abs/1811.08883>
# [Raghu]: <https://arxiv.org/abs/1902.07208>
# [Wang]: <https://arxiv.org/abs/1811.09751>

# %% tags=["nbval-check-output"]
control = model_builder.create_model("efficientnet_lite0", num_classes=12, weights=None)
print(f"{model_builder.count_parameters(control)[1]:,} parameters, all random")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Where else
#
# | Field | What is transferred | Source |
# |---|---|---|
# | language | filling in missing words | [BERT: Pre-training of Deep Bidirectional …][BERT] |
# | language | predicting the next word | [Language Models are Few-Shot Learners][GPT] (GPT-3) |
# | language | every task as text to text | [Exploring the Limits of Transfer …][T5] (T5) |
# | detection | a classifier's trunk | [Rich feature hierarchies …][R-CNN] (R-CNN) |
# | segmentation | a classifier's trunk | [Fully Convolutional Networks …][FCN] |
# | recommendation | what users do next | [Parameter-Efficient Transfer …][PeterRec] |
# | reinforcement learning | features of other games | [Progressive Neural Networks][games] |
# | pictures without labels | telling two views apart | [A Simple Framework …][SimCLR] (SimCLR) |
#
# The last is **self-supervised** pretraining: the data itself poses the task, as for the first two.
#
# [BERT]: <https://arxiv.org/abs/1810.04805>
# [GPT]: <https://arxiv.org/abs/2005.14165>
# [T5]: <https://arxiv.org/abs/1910.10683>
# [R-CNN]: <https://arxiv.org/abs/1311.2524>
# [FCN]: <https://arxiv.org/abs/1411.4038>
# [PeterRec]: <https://arxiv.org/abs/2001.04253>
# [games]: <https://arxiv.org/abs/1606.04671>
# [SimCLR]: <https://arxiv.org/abs/2002.05709>
#
# ## Recap
#
# - You named the parts and told the strategies apart.
# - You chose weights by their metadata, and saw what wrong preparation does, silently.
# - You measured, beside controls, that features of photos carry over to charts, and saw them fail
#   on shuffled pixels.
#
# ## Check yourself
#
# 1. You sort photos of dogs by breed with a network trained on ImageNet. What is transferred over?
#    - **a** · A far domain: dogs are not in ImageNet.
#    - **b** · Hardly anything changes: photos stay photos, and many breeds are classes there.
#    - **c** · A new task in a new domain.
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
# 3. A network gives its first answer a probability of 0.9. Does it know what is in the picture?
#    - **a** · Not necessarily: probabilities add up to one even where no class fits.
#    - **b** · Yes, above 0.5 it is sure.
#    - **c** · Only if its top-1 accuracy is above 90 %.
#
# <details><summary>Answer</summary>
#
# **a.** ImageNet's head was confident about charts, for which it has no class. *b:* Softmax must
# share one whole among the classes, whatever the picture. *c:* That accuracy holds for pictures
# like ImageNet's, not for yours.
# </details>
#
# 4. On a t-SNE map, two islands lie far apart. What follows?
#    - **a** · Their classes are very different.
#    - **b** · Nothing about the distance; that a picture lies among its neighbours does mean
#      something.
#    - **c** · A linear head separates them with certainty.
#
# <details><summary>Answer</summary>
#
# **b.** The method keeps neighbourhoods and distorts distances. *a:* Another seed puts the same
# islands elsewhere. *c:* A separation in two drawn dimensions is neither needed for it nor enough.
# </details>
#
# ## Exercises
#
# [Five exercises](exercises/01_concepts.ipynb) mark themselves. Here, predict, then run:
#
# 1. Prepare Grace Hopper with `weights.transforms(resize_size=224)`, which cuts off less. What
#    changes in the answers?
# 2. Let the five nearest charts vote. Does the accuracy leave the interval?
# 3. Use `size=64` in `create_transform`. What does accuracy lose, and time gain?
