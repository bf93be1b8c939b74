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
# # 11 · Rare classes, several labels, a new class, the next image to label

# %%
import torch
from sklearn.metrics import f1_score
from torch import nn

from going_modular import data_setup, engine, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown]
# A head to ask questions about: it learned from 20 images of each of six kinds of chart, and from 4 of
# each other kind, at 64 pixels. `logits` and `labels` are what it says, and what is true, for ten
# validation images of each kind; `counts` is how many training images each kind had.

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
trunk = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
x, y = engine.extract_features(
    trunk, data_setup.create_dataloader(splits.train.few(20), transform), device
).tensors
x_val, labels = engine.extract_features(
    trunk, data_setup.create_dataloader(splits.val.few(10), transform), device
).tensors
counts = torch.tensor([20, 4] * 6)
rows = torch.cat([(y == k).nonzero()[: counts[k], 0] for k in range(12)])
head = nn.Linear(1280, 12)
optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
for _ in range(100):
    loss = nn.functional.cross_entropy(head(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
logits = head.requires_grad_(False)(x_val)
print(f"{(logits.argmax(dim=1) == labels).float().mean():.3f} of validation named rightly")

# %% [markdown]
# ## Exercise 1 · Subtract what the counts say
#
# Write `adjusted`: the logits that favour no class, from `logits` (N, classes) of a model trained with
# the plain loss on `counts` images of each class. Subtract `tau` times the log of each class's share
# of the training images.
#
# <details><summary>Hint</summary>
#
# A share is a count divided by the sum of all counts. Is the log of a small share large or small, and
# what does subtracting it do to the logit of a rare class?
# </details>

# %%
def adjusted(logits, counts, tau=1.0):
    """Return logits without the classes' frequencies: (N, classes) -> (N, classes)."""
    # solution
    return logits - tau * (counts / counts.sum()).log()
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, adjusted=adjusted):
    some, of = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 1.0]]), torch.tensor([80, 10, 10])
    said = torch.as_tensor(adjusted(some.clone(), of))
    assert said.shape == some.shape, f"the shape is {tuple(said.shape)}, and (2, 3) is wanted"
    gap = (said[:, 1] - said[:, 0]).tolist()
    right = 80 / 10
    wanted = (torch.tensor([-1.0, -3.0]) + torch.tensor(right).log()).tolist()
    about = f"the rare class's logit minus the common one's was -1, and is {gap[0]:.3f} now"
    assert gap[0] > -1.5, f"{about}: you help the common class"
    assert abs(gap[0] + 1) > 1e-4, f"{about}: nothing has changed between the two"
    assert abs(gap[0] - wanted[0]) < 1e-3, (
        f"{about}; with 8 times as many images it is {wanted[0]:.3f}: do you take the log?"
    )
    assert abs(gap[1] - wanted[1]) < 1e-3, "the second row is not right: adjust each row alike"
    half = torch.as_tensor(adjusted(some.clone(), of, tau=0.5))
    assert abs(float(half[0, 1] - half[0, 0]) + 1 - (wanted[0] + 1) / 2) < 1e-3, (
        "with tau=0.5, half as much is subtracted"
    )
    rare = counts[labels] == 4
    for name, z in {"plain": logits, "adjusted": adjusted(logits, counts)}.items():
        hit = (z.argmax(dim=1) == labels).float()
        print(f"{name:9} rare kinds {hit[rare].mean():.2f}, common {hit[~rare].mean():.2f}")

# %% [markdown]
# ## Exercise 2 · Macro-F1 by hand
#
# Write `macro_f1` for class numbers `labels` and `predicted`, (N,) both. The F1 of a class is 2 × hits
# / (images of the class + answers that name it); the macro-F1 is the mean over all `classes`. A class
# that has images and is never named counts as zero. (Every class has an image here.)
#
# <details><summary>Hint</summary>
#
# For class k, `labels == k` and `predicted == k` are booleans. Where are both true?
# </details>

# %%
def macro_f1(labels, predicted, classes):
    """Return the mean of the F1 of all classes, in [0, 1]."""
    # solution
    values = []
    for k in range(classes):
        both = ((labels == k) & (predicted == k)).sum()
        values.append(2 * both / ((labels == k).sum() + (predicted == k).sum()))
    return float(sum(values) / classes)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(2, macro_f1=macro_f1):
    true = torch.tensor([0] * 8 + [1] * 2 + [2] * 2)
    named = torch.tensor([0] * 8 + [0, 1] + [0, 0])
    said, wanted = float(macro_f1(true, named, 3)), f1_score(true, named, average="macro")
    assert said == said, "you divide by zero where a class is never named"
    assert abs(said - 9 / 12) > 1e-3, "that is accuracy, in which the common class counts most"
    assert abs(said - 0.5) > 1e-3, "that is the mean recall: false alarms must count, too"
    assert abs(said - wanted * 1.5) > 1e-3, "class 2 is never named: it counts as zero"
    assert abs(said - f1_score(true, named, average="weighted", zero_division=0)) > 1e-3, (
        "you weigh the classes by their images: all count alike"
    )
    assert abs(said - wanted) < 1e-3, (
        f"the classes' F1 are 16/19, 2/3 and 0, their mean {wanted:.3f}; you say {said:.3f}"
    )
    print(f"The head: macro-F1 {macro_f1(labels, logits.argmax(dim=1), 12):.3f}")

# %% [markdown]
# ## Exercise 3 · A threshold for a label
#
# Write `best_threshold` for one label: `probabilities` (N,) and `present` (N,), 1 where the label is on
# the page. Of the values in `grid`, return the one with the highest F1, where all pages with a
# probability of at least the threshold are named. If several are best, any of them will do.
#
# <details><summary>Hint</summary>
#
# F1 is 2 × hits / (pages with the label + pages named). Loop over `grid`.
# </details>

# %%
def best_threshold(probabilities, present, grid):
    """Return the value of `grid` at which F1 is highest."""
    # solution
    def f1(threshold):
        named = (probabilities >= threshold).float()
        return 2 * (named * present).sum() / (named.sum() + present.sum())

    return max(grid, key=f1)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, best_threshold=best_threshold):
    p = torch.tensor([0.9, 0.45, 0.42, 0.41, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02])
    is_on = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    grid = [0.95, 0.6, 0.43, 0.35, 0.22, 0.01]
    said = best_threshold(p, is_on, grid)
    assert float(said) in grid, f"{float(said):g} is not in the grid: return a threshold, not its F1"
    assert said != 0.95, "at 0.95 nothing is named, and F1 is 0"
    assert said != 0.6, "at 0.6 most answers are right, as most pages lack the label: take F1"
    assert said != 0.01, "at 0.01 every page is named: recall is 1, and most names are wrong"
    assert said == 0.35, (
        f"at 0.35 three pages of five are named rightly, and none is missed: F1 is 0.75; "
        f"you choose {float(said):g} (a probability of 0.35 is at least 0.35)"
    )
    assert best_threshold(1 - p, 1 - is_on, [0.57, 0.99]) == 0.57, "another label gets it wrong"
    sure = logits.softmax(dim=1)
    own = [best_threshold(sure[:, k], (labels == k).float(), torch.arange(1, 100) / 100) for k in (0, 1)]
    print(f"bar {float(own[0]):.2f}, the next kind {float(own[1]):.2f}")

# %% [markdown]
# ## Exercise 4 · Room for one more class
#
# Write `extend`: a new `nn.Linear` with one more output than `head`. The old outputs stay exactly as they
# are, weights and biases; the new class's row and bias start at zero. The new head is trained later, and
# `head` itself must not change by that.
#
# <details><summary>Hint</summary>
#
# The weights of `nn.Linear(a, b)` are (b, a). Copy into a slice under `torch.no_grad()`.
# </details>

# %%
def extend(head):
    """Return a head with one more output."""
    # solution
    larger = nn.Linear(head.in_features, head.out_features + 1)
    with torch.no_grad():
        larger.weight.zero_()
        larger.bias.zero_()
        larger.weight[:-1] = head.weight
        larger.bias[:-1] = head.bias
    return larger
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, extend=extend):
    small = nn.Linear(6, 3)
    before = marks.fingerprint(small)
    larger = extend(small)
    assert isinstance(larger, nn.Linear), "return an nn.Linear"
    assert marks.fingerprint(small) == before, "you change the old head itself: make a new one"
    assert tuple(larger.weight.shape) == (4, 6), (
        f"the weights are {tuple(larger.weight.shape)}, and (4, 6) is wanted"
    )
    some = torch.randn(5, 6)
    with torch.no_grad():
        old, new = small(some), larger(some)
    assert torch.equal(larger.weight[:3].detach(), small.weight.detach()), (
        "the first three rows of the weights are not the old ones"
    )
    assert torch.allclose(new[:, :3], old, atol=1e-6), "the old logits change: copy the biases, too"
    assert (new[:, 3] == 0).all(), "the new logit is not zero: its row and its bias start at zero"
    assert all(p.requires_grad for p in larger.parameters()), "the new head cannot be trained"
    larger(some).square().sum().backward()
    torch.optim.SGD(larger.parameters(), lr=0.1).step()
    assert marks.fingerprint(small) == before, "training the new head changes the old one: copy"
    print(extend(head))

# %% [markdown]
# ## Exercise 5 · Which image next?
#
# Write `ask_next`: the rows of the `number` images whose **margin** is smallest, among those without a
# label. `probabilities` is (N, classes), and `labelled` (N,) is True where a label is there already. The
# margin is the largest probability minus the second largest. Return row numbers, in any order.
#
# <details><summary>Hint</summary>
#
# `probabilities.topk(2, dim=1).values` is (N, 2). How can a labelled image never come first in an order by
# margin?
# </details>

# %%
def ask_next(probabilities, labelled, number):
    """Return the rows to label next: (number,)."""
    # solution
    top = probabilities.topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    margin[labelled] = float("inf")
    return margin.argsort()[:number]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(5, ask_next=ask_next):
    p = torch.tensor([[0.34, 0.33, 0.33, 0], [0.4, 0.3, 0.2, 0.1], [0.48, 0.46, 0.06, 0],
                      [0.9, 0.1, 0, 0], [0.52, 0.47, 0.01, 0], [0.5, 0.5, 0, 0]])  # fmt: skip
    has = torch.tensor([False, False, False, False, False, True])
    said = sorted(torch.as_tensor(ask_next(p.clone(), has.clone(), 2)).tolist())
    assert len(said) == 2, f"two rows are wanted, and you return {len(said)}"
    assert 5 not in said, "row 5 has a label already"
    assert 3 not in said, "row 3 is the surest of all: take the smallest margins"
    assert 1 not in said, (
        "row 1 has a low largest probability, and a margin of 0.1: take the largest minus the second"
    )
    assert said == [0, 2], f"rows 0 and 2 have the smallest margins, 0.01 and 0.02; you say {said}"
    has[0] = True
    assert sorted(torch.as_tensor(ask_next(p.clone(), has, 2)).tolist()) == [2, 4], (
        "with row 0 labelled, 2 and 4 are next: do row numbers count all images?"
    )
    sure = logits.softmax(dim=1)
    asked = ask_next(sure, torch.zeros(len(sure), dtype=torch.bool), 30)
    hit = (sure.argmax(dim=1) == labels).float()
    print(f"right on those asked {hit[asked].mean():.2f}, on all {hit.mean():.2f}")
