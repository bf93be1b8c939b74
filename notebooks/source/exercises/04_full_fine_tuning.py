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
# # 04 · Count costs, set rates and schedules, probe first

# %%
import copy
import math

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
images = splits.train.few(1)
train_dataloader = data_setup.create_dataloader(images, transform, batch_size=6, shuffle=True)
print(len(images), "training images in", len(train_dataloader), "batches")

# %% [markdown]
# ## Exercise 1 · What training keeps in memory
#
# Beside the model and its activations, training keeps three numbers for each trainable parameter:
# a gradient and AdamW's two running averages. Write `training_bytes`: how many bytes is that for
# `model`, in float32? Count; do not train.
#
# <details><summary>Hint</summary>
#
# A float32 takes 4 bytes. `parameter.numel()` is the number of values in a tensor, and
# `parameter.requires_grad` tells whether it trains.
# </details>

# %%
def training_bytes(model):
    """Return the bytes of gradients and of AdamW's averages."""
    # solution
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable * 3 * 4
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, training_bytes=training_bytes):
    net = nn.Sequential(nn.Linear(30, 20).requires_grad_(False), nn.Linear(20, 10))
    said = training_bytes(net)
    optimizer = torch.optim.AdamW(net[1].parameters())
    net(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    kept = [p.grad for p in net[1].parameters()]
    kept += [state[f"exp_avg{end}"] for state in optimizer.state.values() for end in ("", "_sq")]
    wanted = sum(tensor.nbytes for tensor in kept)
    assert said != wanted // 4, "you count numbers, not bytes: a float32 has several"
    assert said != 12 * sum(p.numel() for p in net.parameters()), (
        "frozen parameters have no gradient and no averages: leave them out"
    )
    assert said != wanted // 3, "that is the gradients alone: AdamW keeps two averages beside them"
    assert said != wanted * 2 // 3, "there are three: the gradient and two averages"
    assert said == wanted, (
        f"a small network keeps {wanted:,} bytes after a real step, and you say {said:,}: does "
        "each trainable tensor count, biases too, with all of its values?"
    )
    full = model_builder.create_model("efficientnet_lite0", 12, weights=None)
    print(f"full fine-tuning of our network: {training_bytes(full) / 1e6:.0f} MB")

# %% [markdown]
# ## Exercise 2 · A rate for each block
#
# With layer-wise decay, the head learns at `lr`, and each block at `decay` times the rate of the
# block behind it. Write `decayed_rates`: the list of rates in forward order, from the first of
# `blocks` blocks to the head, `blocks + 1` numbers.
#
# <details><summary>Hint</summary>
#
# The block right before the head is multiplied once, the one before it twice. How often is block
# number *i*, if the first is number 0?
# </details>

# %%
def decayed_rates(lr, decay, blocks):
    """Return the learning rates of all blocks, first to last, and of the head."""
    # solution
    return [lr * decay ** (blocks - i) for i in range(blocks + 1)]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(2, decayed_rates=decayed_rates):
    said = [float(rate) for rate in decayed_rates(0.1, 0.5, blocks=3)]
    assert len(said) == 4, f"you give {len(said)} rates; three blocks and a head need 4"
    assert said[0] < said[-1], "the order is forward: the first block learns least and comes first"
    assert abs(said[-1] - 0.1) < 1e-9, f"the head learns at lr = 0.1, not at {said[-1]:g}"
    ratios = [round(first / second, 6) for first, second in zip(said, said[1:])]
    assert ratios == [0.5] * 3, (
        f"from block to block, your rates have the ratios {ratios}: each should be `decay`, 0.5"
    )
    network = model_builder.create_model("efficientnet_lite0", 12, weights=None)
    groups = model_builder.parameter_groups(network, lr=1e-3, layer_decay=0.7)
    pairs = zip(decayed_rates(1e-3, 0.7, 9), [group["lr"] for group in groups], strict=True)
    assert all(math.isclose(a, b) for a, b in pairs), "right for 3 blocks, but not for 9"

# %% [markdown]
# ## Exercise 3 · Warm up, then cool down
#
# Write `rate_at`: the learning rate of batch number `step`, counted from 0. It rises in equal parts
# so that batch number `warmup` is the first with the full rate `lr`; batch 0 has one such part, not
# zero. From there it falls along half a cosine and would be zero at `step = total`.
#
# <details><summary>Hint</summary>
#
# There are `warmup + 1` parts, and batch 0 has one of them. For the fall, let *p* be the share of
# the way from `warmup` to `total`, from 0 to 1. The cosine of π·*p* goes from 1 to −1; the rate
# shall go from `lr` to 0.
# </details>

# %%
def rate_at(step, total, warmup, lr):
    """Return the learning rate of one batch."""
    # solution
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    return lr * (1 + math.cos(math.pi * progress)) / 2
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, rate_at=rate_at):
    said = [float(rate_at(step, total=32, warmup=7, lr=0.8)) for step in range(32)]
    assert said[0] > 0, "batch 0 learns nothing: it has one part of the rise already"
    assert min(said) >= 0, f"the rate falls to {min(said):.2f}: a cosine ends at -1, a rate at 0"
    assert abs(said[7] - 0.8) < 1e-6, f"batch 7 should have the full rate, 0.8; it has {said[7]:.3f}"
    steps = [round(b - a, 6) for a, b in zip(said[:7], said[1:8])]
    assert steps == [0.1] * 7, f"from batch to batch, the warm-up rises by {steps}, not equally"
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.8)
    scheduler = engine.warmup_cosine(optimizer, 32, warmup_steps=7)
    for step, rate in enumerate(said):
        wanted = optimizer.param_groups[0]["lr"]
        assert abs(rate - wanted) < 1e-6, (
            f"batch {step} has {rate:.3f}, and the engine {wanted:.3f}: where does the fall begin, "
            "and where does it end?"
        )
        optimizer.step()
        scheduler.step()

# %% [markdown]
# ## Exercise 4 · How far has each block moved?
#
# Write `relative_updates`: for each block of two models of the same kind, the length of the change
# of its weights, divided by the length of its weights before. The weights of a block are all its
# parameters with more than one dimension, seen as one long vector.
#
# <details><summary>Hint</summary>
#
# `model_builder.blocks(model)` lists the blocks, and each has `.parameters`. `torch.cat` makes one
# vector of several flat tensors, and `.norm()` is its length. The mean of the tensors' own ratios
# is something else.
# </details>

# %%
def relative_updates(before, after):
    """Return |after - before| / |before| for each block, first to last."""
    # solution
    updates = []
    for old, new in zip(model_builder.blocks(before), model_builder.blocks(after), strict=True):
        old, new = (
            torch.cat([p.detach().flatten() for p in block.parameters if p.ndim > 1])
            for block in (old, new)
        )
        updates.append(((new - old).norm() / old.norm()).item())
    return updates
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, relative_updates=relative_updates):
    before = model_builder.create_model("efficientnet_lite0", 12)
    after = copy.deepcopy(before)
    first, second, third = model_builder.blocks(after)[:3]
    kernels = [p for p in second.parameters if p.ndim > 1]
    with torch.no_grad():
        for kernel in [p for p in first.parameters if p.ndim > 1]:
            kernel.mul_(3)  # moves by twice its length
        for vector in [p for p in third.parameters if p.ndim == 1]:
            vector.add_(1)
        whole = math.sqrt(sum(kernel.square().sum().item() for kernel in kernels))
        kernels[0].mul_(2)
        share = (kernels[0].norm() / 2).item() / whole
    said = [float(value) for value in relative_updates(before, after)]
    assert len(said) == 9, f"you give {len(said)} values for 9 blocks"
    assert said[8] == 0, f"the last block has not moved, and you say {said[8]:.3f}"
    assert said[2] == 0, "only vectors have changed in block 2: take weights of more dimensions"
    assert abs(said[0] - 2 / 3) > 1e-3, "divide by the length before, not after"
    assert abs(said[0] - 2) < 1e-3, (
        f"all weights of block 0 are three times as large, so they have moved by twice their own "
        f"length; you say {said[0]:.3f}: divide the length of the change by the length before"
    )
    assert abs(said[1] - share) < 1e-3, (
        f"in block 1 one of several kernels has moved: {share:.3f} in all, and you say "
        f"{said[1]:.3f}. Join the weights of a block before you take lengths"
    )

# %% [markdown]
# ## Exercise 5 · Probe first
#
# Write `probe_then_tune` (LP-FT) for a pretrained `model`: train the head for two epochs with the
# trunk frozen, keep the state of the model at that point, and then train *all* layers for one
# epoch. Return the kept state, a dictionary like `model.state_dict()`. Use `engine.train`, AdamW
# and the rates 0.01 and 0.001.
#
# <details><summary>Hint</summary>
#
# `model_builder.freeze` and `unfreeze` say what trains. An optimizer moves the parameters that it
# was given when it was made. And `state_dict()` does not copy: it shows the model's own tensors,
# which go on changing.
# </details>

# %%
def probe_then_tune(model, dataloader):
    """Train the head, then everything; return the state between the two."""
    # solution
    model_builder.freeze(model)
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=0.01))
    engine.train(model, dataloader, optimizer=optimizer, epochs=2, device=device, verbose=False)
    probe = copy.deepcopy(model.state_dict())
    model_builder.unfreeze(model)
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=0.001))
    engine.train(model, dataloader, optimizer=optimizer, epochs=1, device=device, verbose=False)
    return probe
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(5, probe_then_tune=probe_then_tune):
    model = model_builder.create_model("efficientnet_lite0", 12)
    start = copy.deepcopy(model.state_dict())
    probe = probe_then_tune(model, train_dataloader)
    end = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    probe = {name: tensor.cpu() for name, tensor in probe.items()}
    assert probe.keys() == end.keys(), "the kept state should have the keys of `state_dict()`"
    trunk, head = "features.0.0.weight", "classifier.1.weight"
    assert not torch.equal(end[trunk], start[trunk]), (
        "at the end the trunk is where it began: is it unfrozen for the second part, and was the "
        "second optimizer made after that?"
    )
    assert not torch.equal(probe[head], end[head]), (
        "the kept state is that of the end: it has changed with the model, so it is no copy"
    )
    assert not torch.equal(probe[head], start[head]), "the probe has not learned: its head is new"
    moved = [n for n in start if n.startswith("features") and not torch.equal(probe[n], start[n])]
    assert not moved, (
        f"the probe has already moved {len(moved)} tensors of the trunk ({moved[0]}, ...): freeze "
        "it, its buffers, too"
    )
