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
# # 02 · Practise freezing, counting and doing work once

# %%
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# All exercises use a few charts at 64 pixels: 20 training and 10 validation images of each kind, and
# what a frozen trunk makes of them.

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
twenty = splits.train.few(20)
train_dataloader = data_setup.create_dataloader(twenty, transform, shuffle=True, seed=0)
images, labels = next(iter(train_dataloader))
network = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
in_order = data_setup.create_dataloader(twenty, transform)
train_features, train_labels = engine.extract_features(network, in_order, device).tensors
val_dataloader = data_setup.create_dataloader(splits.val.few(10), transform)
val_features, val_labels = engine.extract_features(network, val_dataloader, device).tensors
print("a batch:", tuple(images.shape), "training features:", tuple(train_features.shape))

# %% [markdown]
# ## Exercise 1 · Freeze a trunk, all of it
#
# Make `model`: a pretrained `efficientnet_lite0` for our 12 classes, ready for the function below.
# After it, not a bit of the trunk (`model.features`) may have changed, and the head must have
# learned. The function does not change the model's mode: it stays in the one that you choose.
#
# <details><summary>Hint</summary>
#
# Two things can change a trunk: the optimizer moves its parameters, and a forward pass moves
# BatchNorm's running mean and variance, its buffers. The first needs gradients. The second depends
# on the mode. A new model is in training mode.
# </details>


# %%
def train_one_batch(model):
    """Do with one batch what a usual loop does."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    model.to(device)
    loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# %%
# solution
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", num_classes=12))
model = model.eval()
# student
# model = ...
# end of solution

# %%
with marks.exercise(1, model=model):
    trunk, head = model.features, model_builder.head(model)
    logits = len(list(head.parameters())[-1])
    assert logits == 12, f"the head gives {logits} logits: replace it by one for 12 classes"
    trainable, _ = model_builder.count_parameters(trunk)
    assert trainable == 0, (
        f"the trunk still has {trainable / 1e6:.1f} million trainable parameters: freeze it before "
        "an optimizer is made"
    )
    assert model_builder.count_parameters(head)[0] > 0, "the head is frozen, too: nothing can learn"
    before = marks.fingerprint(trunk), marks.fingerprint(head)
    assert before[0] == marks.fingerprint(network.features), (
        "the trunk does not hold its pretrained weights, or no longer: create the model again, and "
        "not with `weights=None`"
    )
    train_one_batch(model)
    assert marks.fingerprint(trunk) == before[0], (
        "no parameter of the trunk has moved, but its buffers have: in which mode does BatchNorm "
        "leave its running mean and variance alone?"
    )
    assert marks.fingerprint(head) != before[1], "the head has not learned"

# %% [markdown]
# ## Exercise 2 · Count right answers
#
# Write `accuracy`: the share of all examples whose largest logit is that of their label. The last
# batch is often smaller than the others. The function must also be right when somebody has left the
# model in training mode. Model and examples are on the CPU.
#
# <details><summary>Hint</summary>
#
# Keep two sums: right answers, and examples. Divide once, at the end. Which call switches dropout
# off?
# </details>


# %%
def accuracy(model, dataloader):
    """Return the share of right answers, in [0, 1]."""
    # solution
    model.eval()
    correct = examples = 0
    with torch.inference_mode():
        for inputs, labels in dataloader:
            correct += int((model(inputs).argmax(dim=1) == labels).sum())
            examples += len(labels)
    return correct / examples
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(2, accuracy=accuracy):
    answers = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    truth = torch.tensor([0, 1, 2, 0, 0, 0, 1, 1, 2])  # 4 of 4, 1 of 4 and 1 of 1 are right
    dataloader = DataLoader(TensorDataset(torch.eye(3)[answers - 1], truth), batch_size=4)
    next_one = nn.Linear(3, 3)  # names the class after the one that its input marks
    next_one.load_state_dict(
        {"weight": torch.eye(3).roll(1, dims=0), "bias": torch.full((3,), -2.0)}
    )
    share = float(accuracy(next_one, dataloader))
    assert share <= 1, f"{share:g} is not in [0, 1]: give a share, not a count or a percentage"
    assert abs(share - 0.75) > 1e-6, (
        "0.75 is the mean over three batches; the last holds one example and counts as much as four"
    )
    assert abs(share - 6 / 12) > 1e-6, "you divide by 12, but the last batch is not full"
    assert abs(share - 6 / 9) < 1e-6, f"6 of 9 answers are right, and you say {share:.3f}"
    share = accuracy(nn.Sequential(nn.Dropout(0.99), next_one).train(), dataloader)
    assert abs(share - 6 / 9) < 1e-6, (
        f"with a model in training mode you say {share:.3f}, with dropout on: set the mode "
        "inside the function"
    )

# %% [markdown]
# ## Exercise 3 · Do the frozen work once
#
# The engine does this with one call. Do it by hand: write `features_of`, which runs the trunk once
# over all images, and returns what the head takes in, a tensor (N, 1280), and the labels, (N,).
# Row *i* of both belongs to the same image. The model is frozen, but in training mode.
#
# <details><summary>Hint</summary>
#
# In this network, `model.avgpool(model.features(images))` is (N, 1280, 1, 1). Collect the batches
# of features and of labels in the *same* loop: with `shuffle=True`, a second loop has another
# order. No gradient is needed: `torch.inference_mode()` saves the work for it.
# </details>

# %%
model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12)).to(device)


# %%
def features_of(model, dataloader):
    """Return features (N, 1280) and labels (N,), on the CPU."""
    # solution
    model.eval()
    features, labels = [], []
    with torch.inference_mode():
        for images, batch_labels in dataloader:
            pooled = model.avgpool(model.features(images.to(device)))
            features.append(pooled.flatten(1).cpu())
            labels.append(batch_labels)
    return torch.cat(features), torch.cat(labels)
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(3, features_of=features_of):
    few = data_setup.create_dataloader(splits.train.few(3), transform, shuffle=True)
    before, seen = marks.fingerprint(model.features), []
    hook = model.features.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    features, feature_labels = features_of(model.train(), few)
    hook.remove()
    assert tuple(features.shape) == (36, 1280), f"{tuple(features.shape)} should be (36, 1280)"
    assert marks.fingerprint(model.features) == before, (
        "the pass has moved BatchNorm's buffers: which mode does the trunk need?"
    )
    assert sum(seen) <= 36, f"the trunk saw {sum(seen)} images, but there are 36: once is enough"
    wanted, wanted_labels = engine.extract_features(model, few, device, dtype=torch.float32).tensors
    distance, nearest = torch.cdist(features.float(), wanted).min(dim=1)
    assert distance.mean() < wanted.norm(dim=1).mean() / 5, "this is not what the head takes in"
    assert torch.equal(feature_labels, wanted_labels[nearest]), (
        "features and labels do not belong together: two loops over shuffled images?"
    )

# %% [markdown]
# ## Exercise 4 · Choose a few of each class
#
# For a curve over the number of labels, we train on 1, 2, 5, ... images of each class. Write
# `some_of_each`: it returns positions in `labels`, `number` for each class, chosen at random. The
# same `seed` gives the same choice, and a smaller choice is part of a larger one with the same seed.
# Then each step along the curve adds images and changes nothing else.
#
# <details><summary>Hint</summary>
#
# Shuffle all positions first, with `torch.randperm(len(labels), generator=...)`. Then take the
# first `number` of each class, in that order. `labels.unique()` lists the classes.
# </details>


# %%
def some_of_each(labels, number, seed):
    """Return positions in `labels`, (N,): `number` of each class, at random."""
    # solution
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == label][:number] for label in labels.unique()])
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(4, some_of_each=some_of_each):
    many = torch.tensor([0, 1, 0, 2, 0] * 8)  # 24, 8 and 8 of the three classes
    choice = {}
    for number, seed in [(6, 0), (3, 0), (6, 1)]:
        choice[number, seed] = torch.as_tensor(some_of_each(many, number, seed)).tolist()
    counts = many[choice[6, 0]].bincount(minlength=3).tolist()
    assert counts == [6] * 3, f"of the three classes you took {counts}: 6 of each are wanted"
    assert len(set(choice[6, 0])) == 18, "some images are chosen twice"
    assert set(choice[6, 0]) != set(choice[6, 1]), (
        "two seeds give the same choice: the first ones are not a random choice"
    )
    rows = torch.where(many == 0)[0].tolist()  # where the choice falls among those of one class
    places = [sorted(rows.index(i) for i in choice[6, seed] if many[i] == 0) for seed in (0, 1)]
    assert not all(last - first == 5 for first, *_, last in places), (
        "the choice is a row of neighbours, so it is not random: shuffle first"
    )
    again = torch.as_tensor(some_of_each(many, 6, 0)).tolist()
    assert choice[6, 0] == again, "the same seed gives another choice the second time: use it"
    assert set(choice[3, 0]) <= set(choice[6, 0]), (
        "with the same seed, the choice of 3 is not part of the choice of 6: shuffle in a way "
        "that does not depend on `number`"
    )

# %% [markdown]
# ## Exercise 5 · Draw an honest curve
#
# How accurate is a probe with 1, 5 and 20 images of each class? `train_features`, `train_labels`,
# `val_features` and `val_labels` are there already; below are the positions to train on, and a
# function that trains a head. Fill `curve`, a dictionary: for each of the three numbers a tuple
# `(low, accuracy, high)`, measured on the validation features, with Wilson's 95% interval.
#
# <details><summary>Hint</summary>
#
# `head(val_features).argmax(dim=1)` are the answers. Count the right ones: the count and the number
# of validation images are all that `evaluation.wilson_interval` needs.
# </details>

# %%
samples = {number: splits.train.few(number).samples for number in (1, 5, 20)}
positions = {
    number: [twenty.samples.index(sample) for sample in chosen]
    for number, chosen in samples.items()
}


def train_head(features, labels):
    """Train a linear layer for 60 steps, each on all the images that it is given."""
    torch.manual_seed(0)
    head = nn.Linear(1280, 12)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return head.requires_grad_(False)


# %%
# solution
curve = {}
for number, chosen in positions.items():
    head = train_head(train_features[chosen], train_labels[chosen])
    correct = int((head(val_features).argmax(dim=1) == val_labels).sum())
    low, high = evaluation.wilson_interval(correct, len(val_labels))
    curve[number] = low, correct / len(val_labels), high
    print(f"{number:2} of each class: {curve[number][1]:.3f} [{low:.3f}, {high:.3f}]")
# student
# curve = ...
# end of solution

# %%
with marks.exercise(5, curve=curve):
    assert set(curve) == {1, 5, 20}, f"the curve has {sorted(curve)}: 1, 5 and 20 are wanted"
    for number, (low, share, high) in curve.items():
        assert max(low, share, high) <= 1, "give shares in [0, 1], not counts or percentages"
        assert low <= share <= high, (
            f"({low:.2f}, {share:.2f}, {high:.2f}) should be (low, accuracy, high): is the order "
            "right, and is the interval for the images that you measure on?"
        )
        assert share < 1, f"all right with {number} of each class? Measure on other images"
        correct = round(share * len(val_labels))
        assert abs(correct / len(val_labels) - share) < 1e-6, (
            f"{share:.4f} is no share of {len(val_labels)} validation images"
        )
        wanted = evaluation.wilson_interval(correct, len(val_labels))
        assert abs(low - wanted[0]) + abs(high - wanted[1]) < 0.004, (
            f"[{low:.3f}, {high:.3f}] is not Wilson's interval of {correct} right answers of "
            f"{len(val_labels)} images: what counts is the images that you measure on"
        )
        head = train_head(train_features[positions[number]], train_labels[positions[number]])
        wanted = float((head(val_features).argmax(dim=1) == val_labels).float().mean())
        assert abs(share - wanted) < 0.02, (
            f"with {number} of each class, a head gets {wanted:.3f}, and you have {share:.3f}: each "
            "head learns from its own positions, and only those"
        )
