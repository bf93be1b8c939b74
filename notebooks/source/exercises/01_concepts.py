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
# # 01 · Choose weights, prepare images, compare with controls

# %%
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch.nn.functional import normalize
from torchvision.models import get_model_weights

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# Two of the exercises use charts: ten training and ten validation images of each kind, at 64
# pixels, and what the pretrained trunk makes of them.

# %%
splits = data_setup.load("charts")
transform_64 = data_setup.create_transform("efficientnet_lite0", size=64)
network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
features, labels = {}, {}
for name, images in (("train", splits.train.few(10)), ("val", splits.val.few(10))):
    dataloader = data_setup.create_dataloader(images, transform_64)
    features[name], labels[name] = engine.extract_features(network, dataloader, device).tensors
print({name: tuple(values.shape) for name, values in features.items()})

# %% [markdown]
# ## Exercise 1 · Let the weights' own words decide
#
# A phone has room for at most 10 million parameters. Which of these networks is the most accurate
# on ImageNet among those that fit, each with its best weights (`DEFAULT`)? Do not answer from
# memory: read it from the weights. Set `chosen` to the name of the network.
#
# <details><summary>Hint</summary>
#
# `get_model_weights(name).DEFAULT.meta` is a dictionary. It holds `"num_params"` and, under
# `"_metrics"`, the accuracy on `"ImageNet-1K"`. First leave out the networks that are too large.
# </details>

# %%
candidates = ["convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_lite0"]
candidates += ["mobilenet_v3_large", "regnet_y_800mf", "resnet18", "resnet50"]
# solution
meta = {name: get_model_weights(name).DEFAULT.meta for name in candidates}
fitting = [name for name in candidates if meta[name]["num_params"] <= 10e6]
chosen = max(fitting, key=lambda name: meta[name]["_metrics"]["ImageNet-1K"]["acc@1"])
print(chosen)
# student
# chosen = ...
# end of solution

# %%
with marks.exercise(1, chosen=chosen):
    assert chosen in candidates, f"{chosen!r} is not a name from `candidates`"
    size, score = {}, {}
    for name in candidates:
        about = get_model_weights(name).DEFAULT.meta
        size[name], score[name] = about["num_params"], about["_metrics"]["ImageNet-1K"]["acc@1"]
    assert size[chosen] <= 10e6, (
        f"{chosen} has {size[chosen] / 1e6:.1f} million parameters, and 10 million fit"
    )
    better = sum(size[name] <= 10e6 and score[name] > score[chosen] for name in candidates)
    assert not better, f"{chosen} fits, but of those that fit it is number {better + 1} in accuracy"

# %% [markdown]
# ## Exercise 2 · Prepare an image as the weights want it
#
# A network gets worse without any error when its images are prepared in another way than those it
# learned from. Make `transform`: it takes a PIL image and returns a tensor, prepared as the
# weights of `efficientnet_lite0` want it, with one change: 96 × 96 pixels. The relation between
# resize and crop stays that of the weights.
#
# <details><summary>Hint</summary>
#
# `data_setup.create_transform` has an argument for the size. Or print `weights.transforms()` to see
# what the weights want, and look at which arguments it takes: with a smaller crop, the resize has
# to become smaller, too.
# </details>

# %%
weights = get_model_weights("efficientnet_lite0").DEFAULT
photo = Image.fromarray(load_sample_image("china.jpg"))
# solution
transform = data_setup.create_transform("efficientnet_lite0", size=96)
# student
# transform = ...
# end of solution


# %%
def white_with_edges(width, height, side, top):
    """Draw white, width x height, with black edges of so many pixels around it."""
    return ImageOps.expand(Image.new("RGB", (width, height), "white"), (side, top), "black")


with marks.exercise(2, transform=transform):
    shape = tuple(transform(photo).shape)
    assert shape == (3, 96, 96), f"the image comes out as {shape}, and (3, 96, 96) is wanted"
    ends = [transform(Image.new("RGB", (256, 256), color)).mean() for color in ("black", "white")]
    assert abs(ends[0] + 1) < 0.01 and abs(ends[1] - 1) < 0.01, (
        f"black becomes {ends[0]:.2f} and white {ends[1]:.2f}, but these weights learned from "
        "other numbers: take mean and spread from the weights"
    )
    assert transform(white_with_edges(208, 208, 24, 24)).min() < 0, (
        "only the middle of the image is left: shrink it before you crop"
    )
    assert transform(white_with_edges(320, 256, 96, 0)).min() > 0.9, (
        "a wide image is squeezed into a square: shrink its short side only, and then crop"
    )
    assert transform(white_with_edges(240, 240, 8, 8)).min() > 0.9, (
        "the outer edge is still there: the weights want a crop a little smaller than the resize"
    )
    finest = torch.arange(256)[:, None] + torch.arange(256) & 1  # black and white, pixel by pixel
    board = Image.fromarray((finest * 255).byte().numpy()).convert("RGB")
    assert transform(board).abs().mean() < 0.3, (
        "a fine pattern of black and white comes out as spots instead of grey: when the image "
        "shrinks, pixels are left out. Take the interpolation from the weights"
    )

# %% [markdown]
# ## Exercise 3 · Count what each strategy trains
#
# You want to tell 5 kinds of flowers apart with the network below. How many parameters does each
# strategy *train*? Compute the three numbers; do not write down guesses.
#
# - `from_scratch`: all layers start at random.
# - `feature_extraction`: pretrained layers are frozen, the head is new.
# - `full_fine_tuning`: pretrained layers are trained further, the head is new.
#
# <details><summary>Hint</summary>
#
# `model.parameters()` gives all parameters, and each has `.numel()`. The head takes in 1,280
# features and has a weight for each feature and class, and a bias for each class. Which layers does
# each strategy change?
# </details>

# %%
model = model_builder.create_model("efficientnet_lite0", num_classes=5, weights=None)
# solution
everything = sum(parameter.numel() for parameter in model.parameters())
from_scratch = everything
feature_extraction = 1280 * 5 + 5
full_fine_tuning = everything
print(f"{from_scratch:,} {feature_extraction:,} {full_fine_tuning:,}")
# student
# from_scratch = ...
# feature_extraction = ...
# full_fine_tuning = ...
# end of solution

# %%
counts = {"from_scratch": from_scratch, "full_fine_tuning": full_fine_tuning}
with marks.exercise(3, **counts, feature_extraction=feature_extraction):
    head = model_builder.head(model)
    assert feature_extraction != head.weight.numel(), "the head has biases, too"
    assert feature_extraction % 5 == 0, "the head is for 5 kinds of flowers, not for more"
    everything = model_builder.count_parameters(model)[1]
    trained_head = head.weight.numel() + head.bias.numel()
    for name, count in counts.items():
        assert count != everything - trained_head, f"`{name}` trains the head, too: it is new"
        assert count == everything, (
            f"`{name}` says {count:,}. Which layers does this strategy keep as they are? What a "
            "layer starts from does not matter here"
        )
    assert feature_extraction == trained_head, (
        f"`feature_extraction` says {feature_extraction:,}: count what is not frozen, and only that"
    )

# %% [markdown]
# ## Exercise 4 · The simplest control
#
# "80% right" says nothing if 80% of the images are cats. Write `constant_guess`: how accurate
# is somebody on the validation images who always says the class that is most frequent in
# *training*? Both arguments hold a class number for each image. The result is in [0, 1].
#
# <details><summary>Hint</summary>
#
# `tensor.mode().values` is the most frequent value. It is a choice; on which labels may it be made,
# and on which is it measured?
# </details>


# %%
def constant_guess(train_labels, val_labels):
    """Return the accuracy of always naming the class most frequent in training."""
    # solution
    guess = train_labels.mode().values
    return (val_labels == guess).float().mean().item()
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(4, constant_guess=constant_guess):
    train_labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    val_labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 2, 2])
    share = float(constant_guess(train_labels, val_labels))
    assert share <= 1, f"{share:g} is not in [0, 1]: give a share, not a count or a percentage"
    assert abs(share - 0.5) > 1e-6, (
        "the guess was chosen by the validation labels: the guesser must not have seen them"
    )
    assert abs(share - 0.7) > 1e-6, (
        "this is how often the class comes in training: measure on the validation labels"
    )
    assert abs(share - 0.3) < 1e-6, (
        f"with {train_labels.tolist()} in training and {val_labels.tolist()} in validation, the "
        f"guesser always says 0 and is right in 3 of 10 cases; you say {share:.3f}"
    )
    share = constant_guess(labels["train"], labels["val"])
    print(f"On our charts, a constant guess is right in {share:.3f} of all cases.")

# %% [markdown]
# ## Exercise 5 · Let five neighbours vote
#
# The lesson gave each image the class of its nearest neighbour. Now let the `k` nearest vote.
# `similarity` has a row for each validation image and a column for each training image; larger
# means more similar. `train_labels` are the classes of the columns. Return the class with the most
# votes for each row. (Where two classes have the same number of votes, either is right.)
#
# <details><summary>Hint</summary>
#
# `similarity.topk(k, dim=1).indices` says *where* the neighbours are, as a tensor (rows, k). An
# index with a tensor, `train_labels[where]`, gives their classes in the same shape. Which function
# finds the most frequent value of each row?
# </details>


# %%
def vote(similarity, train_labels, k):
    """Return the class that most of the k most similar images have: (V, T) -> (V,)."""
    # solution
    where = similarity.topk(k, dim=1).indices  # (V, k)
    return train_labels[where].mode(dim=1).values
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(5, vote=vote):
    near = torch.linspace(0.9, 0.2, 8)
    said = vote(torch.stack([near, near.flip(0)]), torch.tensor([5, 9, 9, 0, 3, 4, 4, 1]) * 10, k=5)
    said = torch.as_tensor(said).tolist()
    assert len(said) == 2, f"you give {len(said)} answers for 2 rows: is `dim` right?"
    assert said != [40, 90], "the least similar ones vote: larger means more similar"
    assert said != [50, 10], "only the nearest votes: with k=5 there are five voters"
    assert set(said) <= {0, 10, 30, 40, 50, 90}, (
        f"you answer {said}, and no voter has these classes: votes are counted, not averaged, and "
        "an index of a neighbour is not yet its class"
    )
    assert said == [90, 40], f"voters [50, 90, 90, 0, 30] and [10, 40, 40, 30, 0], you say {said}"
    labels_of_five = torch.tensor([8, 7, 7, 8, 8])
    said = torch.as_tensor(vote(torch.tensor([[0.1, 0.9, 0.2, 0.3, 0.4]]), labels_of_five, k=1))
    assert said.tolist() == [7], "with k=1, only the nearest votes: is `k` used?"
    said = torch.as_tensor(vote(torch.tensor([[0.9, 0.2, 0.1, 0.0, 0.0]]), labels_of_five, k=3))
    assert said.tolist() == [7], (
        "each of the k neighbours has one vote: do not weigh the votes by the similarity"
    )
    similarity = normalize(features["val"]) @ normalize(features["train"]).T
    for k in (1, 5):
        said = torch.as_tensor(vote(similarity, labels["train"], k))
        correct = int((said == labels["val"]).sum())
        print(f"{k} voting:", evaluation.format_accuracy(correct, len(labels["val"])))
