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
# # 10 · Measure confidence, make sets of answers, test for shortcuts

# %%
import torch
from torch import nn
from torch.utils.data import DataLoader

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# A probe to ask questions about, from 20 images of each kind at 64 pixels. `logits` and `labels` hold
# what it says, and what is true, for ten images of each kind: for `"val"`, `"test"` and `"shifted"`.

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
shifted = data_setup.load_split(splits.folder / "shifted", splits.class_names)
trunk = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
parts = {"train": splits.train.few(20), "val": splits.val.few(10), "test": splits.test.few(10)}
parts["shifted"] = shifted.few(10)
features = {
    name: engine.extract_features(trunk, data_setup.create_dataloader(part, transform), device)
    for name, part in parts.items()
}
head = nn.Linear(1280, 12)
optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
loader = DataLoader(features["train"], batch_size=240)
engine.train(head, loader, optimizer=optimizer, epochs=60, device="cpu", verbose=False)
labels = {name: part.tensors[1] for name, part in features.items()}
with torch.inference_mode():
    logits = {name: head(part.tensors[0]) for name, part in features.items()}
for name in ("val", "test", "shifted"):
    correct = int((logits[name].argmax(dim=1) == labels[name]).sum())
    print(f"{name:8}", evaluation.format_accuracy(correct, len(labels[name])))

# %% [markdown]
# ## Exercise 1 · Labels for a perfect model
#
# The noise floor needs labels for which the probabilities are exactly right. Write `perfect_labels`:
# draw one label for each row of `probabilities` (N, classes), each class as often as its probability
# says. The result is (N,).
#
# <details><summary>Hint</summary>
#
# `torch.multinomial` draws numbers from rows of probabilities. Look at the shape that it returns.
# </details>

# %%
def perfect_labels(probabilities):
    """Return a label for each row, drawn from that row: (N, classes) -> (N,)."""
    # solution
    return torch.multinomial(probabilities, 1)[:, 0]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, perfect_labels=perfect_labels):
    torch.manual_seed(0)
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]]).repeat(3000, 1)
    drawn = torch.as_tensor(perfect_labels(rows))
    assert drawn.shape == (6000,), f"the shape is {tuple(drawn.shape)}, and (6000,) is wanted"
    often = torch.bincount(drawn[::2].long(), minlength=3) / 3000
    assert often[0] < 0.99, "the most probable class comes every time: draw, do not choose"
    assert torch.allclose(often, rows[0], atol=0.04), (
        f"with probabilities of 0.7, 0.2 and 0.1, the classes come with shares of {often.tolist()}"
    )
    assert not (drawn[1::2] == 0).any(), "each row has its own probabilities: you mix them"
    sure = logits["test"].softmax(dim=1)
    error = evaluation.expected_calibration_error(sure, labels["test"])
    floor = [
        evaluation.expected_calibration_error(sure, perfect_labels(sure)) for _ in range(200)
    ]
    low, high = torch.tensor(floor).quantile(torch.tensor([0.025, 0.975])).tolist()
    print(f"test: ECE {error:.3f}, noise floor {low:.3f} to {high:.3f}")

# %% [markdown]
# ## Exercise 2 · Fit a temperature
#
# Write `temperature`: the number T above 0 for which `softmax(logits / T)` fits the labels best,
# that is, with the smallest cross-entropy. Trying many values and taking the best is good enough;
# T can be anywhere from 0.1 to 10.
#
# <details><summary>Hint</summary>
#
# `nn.functional.cross_entropy(logits / T, labels)` is the loss for one T.
# `torch.logspace(-1, 1, 401)` gives values from 0.1 to 10 in equal ratios.
# </details>

# %%
def temperature(logits, labels):
    """Return the T that fits best, to 2%."""
    # solution
    values = torch.logspace(-1, 1, 401)
    losses = [nn.functional.cross_entropy(logits / value, labels) for value in values]
    return values[torch.stack(losses).argmin()].item()
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(2, temperature=temperature):
    generator = torch.Generator().manual_seed(0)
    fair = torch.randn(1000, 12, generator=generator) * 2
    truth = fair.softmax(dim=1).multinomial(1, generator=generator).flatten()
    for boast in (3.0, 0.4, 8.0):  # logits so many times too large
        wanted = evaluation.fit_temperature(fair * boast, truth)
        T = float(temperature(fair * boast, truth))
        about = f"logits that are {boast:g} times too large need T = {wanted:.2f}; you say {T:.2f}"
        assert abs(T * wanted - 1) > 0.03, f"{about}, the inverse: the logits are divided by T"
        assert abs(T / wanted - 1) < 0.03, (
            f"{about}: do you look for the smallest cross-entropy, from 0.1 to 10 in fine steps?"
        )
    print(f"Our probe: T = {temperature(logits['val'], labels['val']):.2f}")

# %% [markdown]
# ## Exercise 3 · Sets of answers
#
# Write `prediction_sets`. On validation, look at the probability of the *true* label, and find the
# value that a share `target` of the images reaches: of n values, sorted from the largest down, it is
# number `ceil((n + 1) * target)`. A label is in the set of a new image if its probability reaches that
# value. Return booleans of the shape of `new`, True where a label is in the set. (The checks choose n
# and `target` so that there is such a number.)
#
# <details><summary>Hint</summary>
#
# `val.gather(1, val_labels[:, None])` picks from each row the probability of its true label. Number 1
# of a sorted tensor has the index 0.
# </details>

# %%
def prediction_sets(val, val_labels, new, target):
    """Return which labels are in the set of each new image: (N, classes) -> (N, classes)."""
    # solution
    of_true_label = val.gather(1, val_labels[:, None])[:, 0].sort(descending=True).values
    number = -int(-(len(val) + 1) * target // 1)  # rounded up
    return new >= of_true_label[number - 1]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, prediction_sets=prediction_sets):
    true = torch.tensor([0.95, 0.75, 0.6875, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0625])
    val = torch.stack([1 - true, true], dim=1)  # the second label is the true one
    new = torch.tensor([[0.125, 0.875], [0.0625, 0.9375], [0.25, 0.75], [0.5, 0.5]])
    said = prediction_sets(val, torch.ones(9, dtype=torch.long), new, target=0.8)
    said = torch.as_tensor(said)
    assert said.shape == new.shape, f"the shape is {tuple(said.shape)}, that of `new` is wanted"
    said = said.bool()
    assert said.any(dim=1).all(), "some set is empty: do you keep the labels that reach the value?"
    assert not said[1, 0], (
        "a probability of 0.0625 is in: number ceil(10 * 0.8) = 8 of the nine values is 0.125"
    )
    assert said[0, 0], (
        "a probability of 0.125 is not in: number ceil(10 * 0.8) = 8 of the nine values is 0.125, "
        "and it reaches that"
    )
    assert said[2:].all(), "0.25 and 0.5 reach the value of 0.125, too"
    flipped = prediction_sets(val.flip(1), torch.zeros(9, dtype=torch.long), new, target=0.8)
    assert torch.equal(torch.as_tensor(flipped).bool(), said), (
        "the result changes when the classes change places: take the probability of the true label"
    )
    P = {name: values.softmax(dim=1) for name, values in logits.items()}
    for name in ("test", "shifted"):
        sets = torch.as_tensor(prediction_sets(P["val"], labels["val"], P[name], target=0.9))
        held = sets.gather(1, labels[name][:, None]).float().mean()
        size = sets.float().sum(dim=1).mean()
        print(f"{name}: the set holds the true label in {held:.2f}, {size:.2f} labels per set")

# %% [markdown]
# ## Exercise 4 · Where is it worst?
#
# One average hides where a model fails. Write `worst_group`: `right` says for each image whether the
# model was right, `groups` names the group of each (a style, a camera, a hospital). Return the name of
# the group with the lowest accuracy, and that accuracy. Groups of fewer than `at_least` images are left
# out, because their accuracy is mostly chance.
#
# <details><summary>Hint</summary>
#
# Loop over `set(groups)`. For each name, collect the values of `right` that belong to it.
# </details>

# %%
def worst_group(right, groups, at_least):
    """Return (name, accuracy) of the worst group with enough images."""
    # solution
    accuracy = {}
    for name in set(groups):
        own = [bool(r) for r, group in zip(right, groups, strict=True) if group == name]
        if len(own) >= at_least:
            accuracy[name] = sum(own) / len(own)
    worst = min(accuracy, key=accuracy.get)
    return worst, accuracy[worst]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, worst_group=worst_group):
    groups = ["sun"] * 8 + ["rain"] * 4 + ["fog"] * 2
    right = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0]).bool()
    name, accuracy = worst_group(right, groups, at_least=3)
    assert name != "fog", "only two images are of fog, and three are asked for: leave it out"
    assert name != "sun", (
        "you name 'sun', which has the most mistakes, but it has the most images, too: compare shares"
    )
    assert name == "rain", f"the worst group with three images or more is 'rain', you say {name!r}"
    assert abs(float(accuracy) - 0.5) < 1e-6, (
        f"of 'rain', 2 of 4 are right: 0.5, and you say {float(accuracy):g}"
    )
    name, accuracy = worst_group(right, groups, at_least=2)
    assert (name, float(accuracy)) == ("fog", 0.0), "with at_least=2, 'fog' counts: none is right"
    styles = [path.stem.split("_")[1] for path, _ in parts["shifted"].samples]
    right = logits["shifted"].argmax(dim=1) == labels["shifted"]
    print("Our probe is worst on:", worst_group(right, styles, at_least=5))

# %% [markdown]
# ## Exercise 5 · Count the answers that change
#
# Does a model rely on a logo, on the background, on a ruler in the image? Write `share_changed`: for
# what share of the images does the model's answer change when `change` is applied to them? `images` is
# (N, 3, H, W), and `change` takes and returns such a batch. The model is used, not trained.
#
# <details><summary>Hint</summary>
#
# No labels are needed: compare the model's answers before and after. And in which mode does a model
# give answers?
# </details>

# %%
def share_changed(model, images, change):
    """Return the share of images whose answer changes, in [0, 1]."""
    # solution
    model.eval()
    with torch.inference_mode():
        before = model(images).argmax(dim=1)
        after = model(change(images.clone())).argmax(dim=1)
    return (before != after).float().mean().item()
    # student
    # raise NotImplementedError
    # end of solution

# %%
class LooksAtCorner(nn.Module):
    """Answers 1 where the bottom right pixel is bright; in training mode, always 0."""

    def forward(self, images):
        bright = images[:, :, -1, -1].mean(dim=1) * (0 if self.training else 1)
        return torch.stack([torch.full_like(bright, 0.5), bright], dim=1)


def light_corner(images):
    images = images.clone()
    images[:, :, -1, -1] = 1
    return images


with marks.exercise(5, share_changed=share_changed):
    batch = torch.zeros(8, 3, 4, 4)
    batch[:2, :, -1, -1] = 1  # two are bright already
    share = float(share_changed(LooksAtCorner().train(), batch, light_corner))
    assert share != 0, "nothing changes: does the model answer in training mode?"
    assert share <= 1, f"{share:g} is not in [0, 1]: give a share, not a count"
    assert share != 1, "that is the share of one answer afterwards: compare with the answers before"
    assert abs(share - 0.25) > 1e-6, "that is the share of answers that stay"
    assert abs(share - 0.75) < 1e-6, f"six of eight answers change: 0.75, and you say {share:g}"
    assert share_changed(LooksAtCorner(), batch, lambda images: images) == 0, (
        "nothing is changed, and yet some answers change"
    )
    model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12)).to(device)
    model.classifier[1].load_state_dict(head.state_dict())
    charts = torch.stack([transform(image) for image, _ in splits.val.few(3)]).to(device)
    share = share_changed(model, charts, lambda images: images.flip(3))
    print(f"Mirrored, {share:.2f} of our charts get another answer.")
