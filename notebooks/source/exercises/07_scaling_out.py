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
# # 07 · Practise dividing the work and predicting what it costs

# %%
import random

import torch
from torch import nn

from going_modular import utils
from going_modular.classroom import marks

utils.seed_everything(42)

# %% [markdown]
# ## Exercise 1 · One gradient from many
#
# Each rank has the gradient of the mean loss over *its* images. Write `combine`, which turns them into
# the gradient of the mean loss over all images. `gradients` is a list of tensors of one shape, and
# `counts` says how many images each rank had; a rank may have had none.
#
# <details><summary>Hint</summary>
#
# A mean times its count is a sum, and sums can be added.
# </details>

# %%
def combine(gradients, counts):
    """Return the gradient of the mean loss over all images."""
    # solution
    weighted = [gradient * count for gradient, count in zip(gradients, counts)]
    return sum(weighted) / sum(counts)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, combine=combine):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 4, generator=generator)
    labels = torch.randint(3, (10,), generator=generator)
    layer = nn.Linear(4, 3)

    def gradient_of(rows):
        layer.zero_grad()
        nn.functional.cross_entropy(layer(inputs[rows]), labels[rows]).backward()
        return layer.weight.grad.clone()

    for parts in ([range(5), range(5, 10)], [range(7), range(7, 10)], [range(9), range(9, 10)]):
        gradients, counts = [gradient_of(list(rows)) for rows in parts], [len(p) for p in parts]
        whole, found = gradient_of(list(range(10))), combine(gradients, counts)
        shape = getattr(found, "shape", None)
        assert shape == (3, 4), f"the result should have the gradients' shape (3, 4), not {shape}"
        ratio = (found.norm() / whole.norm()).item()
        assert abs(ratio - len(parts)) > 0.01 or counts != [5, 5], (
            f"for two parts of 5, the result is {ratio:.1f} times too long: a sum is not a mean"
        )
        off = (found - whole).abs().max().item()
        assert off < 1e-5, (
            f"for parts of {counts[0]} and {counts[1]} images, the result differs from the "
            f"gradient of all ten by up to {off:.2f}: does each image count the same?"
        )
    nothing = combine([torch.ones(2), torch.zeros(2)], [3, 0])
    assert torch.equal(nothing, torch.ones(2)), (
        f"a rank without images changes the result from 1 to {nothing[0]:.2f}"
    )

# %% [markdown]
# ## Exercise 2 · Divide every batch
#
# All ranks draw the images in the same order, and each takes its part of every batch. Write
# `my_share`, which returns what one rank takes: a list of lists, one for each step. Together the ranks
# must see what one process would see in that step: each image once, and no other. All ranks must make
# the same number of steps, and in every step their parts may differ by one image at most.
#
# <details><summary>Hint</summary>
#
# First divide `order` into the batches of one process, then divide each batch. `batch[rank::ranks]`
# takes every `ranks`-th element, starting at `rank`. It may be empty; that is allowed.
# </details>

# %%
def my_share(order, batch_size, rank, ranks):
    """Return what `rank` (0 to ranks - 1) takes of each batch."""
    # solution
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batch[rank::ranks] for batch in batches]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(2, my_share=my_share):
    for count, batch_size, ranks in [(12, 4, 2), (13, 4, 2), (20, 8, 3), (5, 4, 3)]:
        order = random.Random(count).sample(range(count), count)
        shares = [my_share(list(order), batch_size, rank, ranks) for rank in range(ranks)]
        case = f"{count} images, batches of {batch_size}, {ranks} ranks"
        steps = [len(share) for share in shares]
        assert len(set(steps)) == 1, (
            f"{case}: the ranks make {steps} steps, and in its last all-reduce one rank waits for ever"
        )
        seen = [i for share in shares for part in share for i in part]
        twice = sorted(i for i in set(seen) if seen.count(i) > 1)
        assert not twice, f"{case}: image {twice[0]} is seen {seen.count(twice[0])} times"
        assert len(seen) == count, f"{case}: {count - len(seen)} images are seen by no rank"
        one = [set(order[s : s + batch_size]) for s in range(0, count, batch_size)]
        assert steps[0] == len(one), f"{case}: {steps[0]} steps, and one process makes {len(one)}"
        for step, batch in enumerate(one):
            together = {i for share in shares for i in share[step]}
            assert together == batch, (
                f"{case}: in step {step} the ranks together see {sorted(together)}, and one "
                f"process would see {sorted(batch)}"
            )
            sizes = [len(share[step]) for share in shares]
            assert max(sizes) - min(sizes) <= 1, f"{case}: in step {step} the parts have {sizes}"

# %% [markdown]
# ## Exercise 3 · How many GPUs are worth it?
#
# A step on *n* GPUs takes `batch / rate` seconds for the images (each GPU has its own `batch`) and
# 2 (*n* − 1) / *n* × `gradient_bytes` / `link` seconds for the exchange. Write `most_gpus`, which
# returns the largest *n*, up to 1,024, for which the speed-up is still at least `share` times *n*.
#
# <details><summary>Hint</summary>
#
# The speed-up is *n* × (seconds of a step on one GPU) / (seconds of a step on *n*). So its share of *n*
# is the part of a step that is work, not exchange.
# </details>

# %%
def most_gpus(rate, batch, gradient_bytes, link, share):
    """Return the largest number of GPUs with at least `share` of a perfect speed-up."""
    # solution
    work = batch / rate
    efficient = [
        n
        for n in range(1, 1025)
        if work / (work + 2 * (n - 1) / n * gradient_bytes / link) >= share
    ]
    return max(efficient)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, most_gpus=most_gpus):
    resnet = {"rate": 2470, "batch": 256, "gradient_bytes": 102_228_128}
    found = most_gpus(**resnet, link=125e6, share=1.0)
    assert found == 1, f"only one GPU has a perfect speed-up, and you say {found}"
    found = most_gpus(**resnet, link=300e9, share=0.9)
    assert found == 1024, (
        f"with 300 GB per second the exchange is less than a hundredth of a step for any n; you "
        f"say {found}: is the exchange divided by the link's speed?"
    )
    found = most_gpus(**resnet, link=1.25e9, share=0.5)
    assert found == 2, (
        f"with 10 Gbit/s, two GPUs spend 0.104 s on work and 0.082 s on the exchange; three, 0.104 "
        f"and 0.109. For half of a perfect speed-up you say {found}, and 2 is right"
    )
    found = most_gpus(**resnet, link=12.5e9, share=0.87)
    assert found == 18, (
        f"with 100 Gbit/s and a share of 0.87 you say {found}, and 18 is right: does the exchange "
        "grow with 2 (n - 1) / n?"
    )

# %% [markdown]
# ## Exercise 4 · How far does a buffer reach?
#
# Write `shuffle_buffer`, a generator. It takes an iterator of any length and holds at most `size`
# items. For each further item it gives out one of those that it holds, at random. At the end it gives
# out the rest in random order. It must also work on a stream that never ends.
#
# <details><summary>Hint</summary>
#
# `for item in stream: held.append(item)`; as soon as `size` are held, `yield` one: `held.pop(i)` takes
# it out. `rng.randrange(n)` draws from 0 to n − 1, and `rng.shuffle(held)` mixes the rest.
# </details>

# %%
def shuffle_buffer(stream, size, rng):
    """Yield the items of `stream`, mixed as far as a buffer of `size` reaches."""
    # solution
    held = []
    for item in stream:
        held.append(item)
        if len(held) >= size:
            yield held.pop(rng.randrange(len(held)))
    rng.shuffle(held)
    yield from held
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, shuffle_buffer=shuffle_buffer):
    taken = []

    def endless():
        while len(taken) < 1000:
            taken.append(len(taken))
            yield taken[-1]
        raise AssertionError("it reads all of a stream before it gives anything out")

    first = []
    for item in shuffle_buffer(endless(), 10, random.Random(0)):
        first.append(item)
        if len(first) == 50:
            break
    assert len(first) == 50, f"from an endless stream it gives out {len(first)} items and stops"
    assert len(taken) <= 61, f"to give out 50 items, it has read {len(taken)}: more than 10 held"
    count = 400
    mixed = list(shuffle_buffer(iter(range(count)), 40, random.Random(0)))
    assert sorted(mixed) == list(range(count)), (
        f"of {count} items, {len(set(mixed))} come out: where are those held at the end?"
    )
    pairs = sum(second == first + 1 for first, second in zip(mixed, mixed[1:]))
    assert pairs < count / 4, (
        f"{pairs} of {count} items come out right after their neighbour in the stream: is what you "
        "give out drawn at random?"
    )
    early = max(position_in - place for place, position_in in enumerate(mixed))
    assert early < 40, f"an item comes out {early} places too early: more than 40 are held"
    late = sum(place - item > 60 for place, item in enumerate(mixed))
    assert late > 5, (
        "no item waits long in your buffer: are all items held equally likely to come out?"
    )
    rest = mixed[-39:]
    assert rest != sorted(rest), "the last items, held at the end, come out sorted"
    again = list(shuffle_buffer(iter(range(count)), 40, random.Random(0)))
    assert again == mixed, "the same rng gives another order: draw from `rng` only"
