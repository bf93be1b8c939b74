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
# # 03 · Practise: unfreeze blocks, set their rates, watch BatchNorm

# %%
import torch
from torch import nn

from going_modular import data_setup, engine, model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %%
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
few = data_setup.create_dataloader(splits.train.few(1), transform, shuffle=True, seed=0)
print(len(few.dataset), "training images")

# %% [markdown]
# ## Exercise 1 · Two blocks, two rates
#
# Make `model`, a pretrained `efficientnet_lite0` for 12 classes in which only the head and the last
# two blocks train. Make `optimizer`, an AdamW that moves the head at 0.001 and these two blocks at a
# tenth of that.
#
# <details><summary>Hint</summary>
#
# `model_builder.unfreeze` takes the number of blocks, and `model_builder.parameter_groups` takes
# both rates. `parameter_groups` looks at what is trainable, so the order matters. You can also do it
# in plain PyTorch, with `model.features[-2:]` and `model.classifier`.
# </details>

# %%
# solution
model = model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=2)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=1e-3, trunk_lr=1e-4))
# student
# model = ...
# optimizer = ...
# end of solution

# %%
with marks.exercise(1, model=model, optimizer=optimizer):
    fresh = model_builder.create_model("efficientnet_lite0", 12)
    assert torch.equal(model.features[0][0].weight.cpu(), fresh.features[0][0].weight), (
        "the first filters are not ImageNet's: is the model pretrained?"
    )
    classes = model_builder.head(model).out_features
    assert classes == 12, f"the head names {classes} classes, and there are 12"
    assert isinstance(optimizer, torch.optim.AdamW), f"{type(optimizer).__name__} is not AdamW"
    *early, last_but_one, last = model_builder.blocks(model)
    head = list(model_builder.head(model).parameters())
    training = sum(p.numel() for block in early for p in block.parameters if p.requires_grad)
    assert training == 0, f"before the last two blocks, {training:,} parameters still train"
    parts = {last_but_one.name: last_but_one.parameters, last.name: last.parameters, "head": head}
    for part, parameters in parts.items():
        frozen = sum(p.numel() for p in parameters if p.ndim > 1 and not p.requires_grad)
        assert frozen == 0, f"{part} has {frozen:,} frozen weights: they should train"
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p not in rates]
    assert not lost, (
        f"the optimizer does not have {len(lost)} of the trainable tensors ({lost[0]}, ...): it "
        "moves only what it was given"
    )
    found = {f"{rates[p]:g}" for p in head}
    assert found == {"0.001"}, f"the head learns at {', '.join(found)}, and 0.001 is wanted"
    trunk = [p for p in last_but_one.parameters + last.parameters if p.requires_grad]
    found = {f"{rates[p]:g}" for p in trunk}
    assert found == {"0.0001"}, f"the blocks learn at {', '.join(found)}, not at a tenth of that"

# %% [markdown]
# ## Exercise 2 · A momentum that fits the run
#
# With momentum *m*, BatchNorm's running mean keeps the share 1 − *m* of its old value at each step.
# Write `fitting_momentum`: which momentum leaves exactly the share `remains` of the pretrained
# statistics after `steps` steps? `fitting_momentum(48, 0.01)`, for example, asks for the momentum
# that leaves 1% after 48 steps.
#
# <details><summary>Hint</summary>
#
# After one step the share 1 − *m* is left, after two steps (1 − *m*)², after *n* steps (1 − *m*)ⁿ.
# Solve for *m*. In Python, a root is a power: `x ** (1 / n)`.
# </details>


# %%
def fitting_momentum(steps, remains):
    """Return the momentum after which `remains`, in (0, 1), of the old is left."""
    # solution
    return 1 - remains ** (1 / steps)
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(2, fitting_momentum=fitting_momentum):
    for steps, remains in [(48, 0.01), (10, 0.5), (1, 0.3)]:
        momentum = float(fitting_momentum(steps, remains))
        call = f"fitting_momentum({steps}, {remains:g}) gives {momentum:.4f}"
        assert 0 < momentum < 1, f"{call}: a momentum is between 0 and 1"
        assert steps == 1 or abs((1 - momentum) - (1 - remains ** (1 / steps))) > 1e-6, (
            f"{call}, which is the share that stays at each step: momentum is the share that moves"
        )
        norm = nn.BatchNorm1d(1, momentum=momentum)  # its running mean is 0; each batch's is 1
        for _ in range(steps):
            norm(torch.ones(4, 1))
        left = 1 - norm.running_mean.item()
        assert abs(left - remains) < 0.002, (
            f"{call}; a real BatchNorm with it keeps {left:.3f} of the old after {steps} steps: "
            "the share is multiplied at each step"
        )

# %% [markdown]
# ## Exercise 3 · What went wrong?
#
# Three blocks were trained in each of these runs. All numbers are accuracies at the end: on the
# training images, while training; on validation; and on validation when BatchNorm uses each batch's
# own statistics.
#
# | training | validation | own statistics | what it was |
# |---|---|---|---|
# | 0.95 | 0.93 | 0.93 | `"healthy"` |
# | 0.13 | 0.09 | 0.10 | `"rate too large"` (it started from a good probe) |
# | 1.00 | 0.71 | 0.71 | `"overfitting"` |
# | 1.00 | 0.58 | 0.89 | `"statistics lag"` |
#
# Write `diagnose`, which tells these four apart for other runs, too. A difference of more than 0.1
# is a gap. A run that gets less than half of its training images right had too large a rate.
#
# <details><summary>Hint</summary>
#
# Two of the four have a gap between training and validation. What tells these two apart? Ask that
# first.
# </details>


# %%
def diagnose(training, validation, own_statistics):
    """Return "healthy", "rate too large", "overfitting" or "statistics lag"."""
    # solution
    if training < 0.5:
        return "rate too large"
    if own_statistics - validation > 0.1:
        return "statistics lag"
    return "overfitting" if training - validation > 0.1 else "healthy"
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(3, diagnose=diagnose):
    runs = [(0.15, 0.10, 0.12), (0.45, 0.41, 0.42), (1.00, 0.40, 0.86), (0.97, 0.80, 0.92)]
    runs += [(0.99, 0.75, 0.76), (0.95, 0.81, 0.89), (0.96, 0.88, 0.89)]
    said = {run: diagnose(*run) for run in runs}
    wanted = ["rate too large"] * 2 + ["statistics lag"] * 2 + ["overfitting"] * 2 + ["healthy"]
    why = {
        "rate too large": "it gets less than half of its training images right",
        "statistics lag": "it gets many more validation images right, by more than 0.1, once "
        "BatchNorm uses the batch's statistics",
        "overfitting": "it gets many more training images right, by more than 0.1, and BatchNorm's "
        "stored statistics do little harm",
        "healthy": "no two of these numbers have a gap",
    }
    for (run, answer), right in zip(said.items(), wanted, strict=True):
        assert answer == right, f"{run}: you say {answer!r}, but {why[right]}"

# %% [markdown]
# ## Exercise 4 · Choose by name, without the traps
#
# Write `train_only`: it makes the parts of a model with these `names` trainable and freezes all
# others. Mind the two traps of names: each name that matches nothing must raise an error, and
# `"features.1"` is not `"features.10"`.
#
# <details><summary>Hint</summary>
#
# `model.named_parameters()` gives pairs such as `("features.1.0.weight", parameter)`. Which character
# always follows the part's name? Or look for a method of `nn.Module` that gets a part by its name.
# And do not forget what was trainable before.
# </details>


# %%
def train_only(model, names):
    """Make the named parts trainable and all else frozen; raise ValueError for an unknown name."""
    # solution
    model.requires_grad_(False)
    for name in names:
        found = [p for key, p in model.named_parameters() if key.startswith(name + ".")]
        if not found:
            raise ValueError(f"no parameter is in {name!r}")
        for parameter in found:
            parameter.requires_grad = True
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(4, train_only=train_only):
    nets = {"resnet18": ["layer4", "fc"], "mobilenet_v3_small": ["features.1", "classifier"]}
    for architecture, names in nets.items():
        net = model_builder.create_model(architecture, 12, weights=None)
        train_only(net, names)
        for name, parameter in net.named_parameters():
            wanted = any(f"{name}.".startswith(f"{part}.") for part in names)
            state = "trainable" if parameter.requires_grad else "frozen"
            assert parameter.requires_grad == wanted, f"after {names}, {name} is {state}"
    train_only(net, ["classifier"])
    assert not any(p.requires_grad for p in net.features.parameters()), (
        "called again with fewer names, it leaves trainable what was so before"
    )
    for names in (["layer4"], ["classifier", "layer4"]):
        errors = []
        try:
            train_only(net, names)
        except Exception as error:
            errors.append(error)
        assert errors, f"{names}: no part is called layer4 in this network, and no error says so"

# %% [markdown]
# ## Exercise 5 · Find what moves
#
# Write `moving_batch_norms`: train `model` for one epoch with `engine.train_step`, and return the
# names of the BatchNorm layers whose running mean has moved. The head and some blocks of `model`
# are trainable. Which names do you expect with one trainable block? And which if BatchNorm's own
# parameters are frozen in that block? Measure it rather than conclude it: a layer may train, and
# its statistics stay.
#
# <details><summary>Hint</summary>
#
# `model.named_buffers()` gives pairs such as `("features.0.1.running_mean", tensor)`. Keep the
# values from before training, with `.clone()`: without it, you keep a second name for the same
# tensor, and it changes too.
# </details>


# %%
def moving_batch_norms(model, dataloader):
    """Return the names of the BatchNorm layers that one epoch moves, such as "features.0.1"."""
    # solution
    end = ".running_mean"
    before = {n: t.clone() for n, t in model.named_buffers() if n.endswith(end)}
    optimizer = torch.optim.SGD(model_builder.parameter_groups(model, lr=0.01))
    engine.train_step(model, dataloader, nn.CrossEntropyLoss(), optimizer, device)
    after = dict(model.named_buffers())
    return [n.removesuffix(end) for n, t in before.items() if not torch.equal(t, after[n])]
    # student
    # raise NotImplementedError
    # end of solution


# %%
with marks.exercise(5, moving_batch_norms=moving_batch_norms):
    for trainable_norms in (True, False):
        net = model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=2)
        norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for norm in norms.values():
            norm.requires_grad_(norm.weight.requires_grad and trainable_norms)
        resting = next(n for n in norms if n.startswith("features.7."))
        norms[resting].momentum = 0.0  # it trains, and its statistics stay
        said = set(moving_batch_norms(net.to(device), few))
        strange = sorted(said - norms.keys())
        assert not strange, f"{strange[0]!r} is not the name of a BatchNorm layer"
        still = sorted(name for name in said if not norms[name].weight.requires_grad)
        assert not still, (
            f"you say that {len(still)} layers move whose own parameters are frozen ({still[0]}, "
            "...): the engine's loop keeps these in eval mode"
        )
        assert resting not in said, (
            f"you name {resting}, whose momentum is 0: compare its running mean before and after"
        )
        moved = [n for n, m in norms.items() if m.weight.requires_grad and n != resting]
        silent = [n for n in moved if n not in said]
        assert not silent, (
            f"{silent[0]} has moved, and you do not name it: is what you keep from before a copy?"
        )
        print(f"BatchNorm {'trains' if trainable_norms else 'frozen'}: {len(said)} layers moved")
