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
# # 03 · Practise unfreezing blocks and keeping BatchNorm in view

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
print(len(few.dataset), "training pictures")

# %% [markdown]
# ## Exercise 1 · Two blocks, two rates
#
# Make `model`, a pretrained `efficientnet_lite0` for 12 classes whose head and last two blocks
# train, and `optimizer`, an AdamW that moves the head at 0.001 and these blocks at a tenth of that.
#
# <details><summary>Hint</summary>
#
# `model_builder.unfreeze` has an argument for the number of blocks, and
# `model_builder.parameter_groups` one for each rate. The second looks at what is trainable, so the
# order matters. You can also do it by hand, with `model.features[-2:]` and `model.classifier`.
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
# Write `fitting_momentum`: which momentum leaves just the share `remains` of the pretrained
# statistics after `steps` steps? For example, `fitting_momentum(48, 0.01)`.
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
# Three blocks were unfrozen in each of these runs. All numbers are accuracies at the end: on the
# training pictures while training; on validation; and on validation when BatchNorm uses each
# batch's own statistics.
#
# | training | validation | own statistics | what it was |
# |---|---|---|---|
# | 0.95 | 0.93 | 0.93 | `"healthy"` |
# | 0.13 | 0.09 | 0.10 | `"rate too large"`: it began with a good probe |
# | 1.00 | 0.71 | 0.71 | `"overfitting"` |
# | 1.00 | 0.58 | 0.89 | `"statistics lag"` |
#
# Write `diagnose`, which tells these four apart for other runs, too. Call a difference a gap when
# it is larger than 0.1. A run that knows less than half of its training pictures had too large a
# rate.
#
# <details><summary>Hint</summary>
#
# Two of the four have a gap between training and validation. What tells these two apart? Ask that
# question before the other one.
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
    said = {run: diagnose(*run) for run in [(0.15, 0.10, 0.12), (1.00, 0.40, 0.86)]}
    said |= {run: diagnose(*run) for run in [(0.99, 0.75, 0.76), (0.90, 0.88, 0.87)]}
    about = [f"{run}: you say {answer!r}, but" for run, answer in said.items()]
    collapsed, lags, by_heart, healthy = said.values()
    assert collapsed == "rate too large", f"{about[0]} it does not know its training pictures"
    assert lags == "statistics lag", (
        f"{about[1]} it knows the validation pictures, once BatchNorm uses the batch's statistics"
    )
    assert by_heart == "overfitting", (
        f"{about[2]} it knows its training pictures much better than others, and BatchNorm's "
        "stored statistics do no harm"
    )
    assert healthy == "healthy", f"{about[3]} no two of these numbers have a gap"

# %% [markdown]
# ## Exercise 4 · Choose by name, without the traps
#
# Write `train_only`: it makes the parts of a model that are called `names` trainable, and freezes
# all others. Mind the two traps of names: one that fits nothing must raise an error, and
# `"features.1"` is not `"features.10"`.
#
# <details><summary>Hint</summary>
#
# `model.named_parameters()` gives pairs such as `("features.1.0.weight", parameter)`. What stands
# behind the part's name, always? Or look for a method of `nn.Module` that gets a part by its name.
# And what was trainable before must not stay so.
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
    errors = []
    try:
        train_only(net, ["layer4"])
    except Exception as error:
        errors.append(error)
    assert errors, "no part is called layer4 in this network, and no error says so"

# %% [markdown]
# ## Exercise 5 · Find what moves
#
# Write `moving_batch_norms`: train `model` for one epoch with `engine.train_step`, and return the
# names of the BatchNorm layers whose running mean has moved. The head and some blocks of `model`
# are trainable. Which names do you expect with one trainable block? And if BatchNorm's own
# parameters are frozen in it?
#
# <details><summary>Hint</summary>
#
# `model.named_buffers()` gives pairs such as `("features.0.1.running_mean", tensor)`. Keep the
# values from before. A tensor that is only given a second name is changed along with the first: it
# needs a `.clone()`.
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
        net = model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=1)
        norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for norm in norms.values():
            norm.requires_grad_(norm.weight.requires_grad and trainable_norms)
        said = set(moving_batch_norms(net.to(device), few))
        strange = sorted(said - norms.keys())
        assert not strange, f"{strange[0]!r} is not the name of a BatchNorm layer"
        still = sorted(name for name in said if not norms[name].weight.requires_grad)
        assert not still, (
            f"you say that {len(still)} layers move whose own parameters are frozen ({still[0]}, "
            "...): the engine's loop keeps these in eval mode"
        )
        silent = [n for n, m in norms.items() if m.weight.requires_grad and n not in said]
        assert not silent, (
            f"{silent[0]} has moved, and you do not name it: is what you keep from before a copy?"
        )
        print(f"BatchNorm {'trains' if trainable_norms else 'frozen'}: {sorted(said)} moved")
