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
# # 07 · Scale out to several processes and machines
#
# One process trains on one GPU, or on the cores of one computer. This notebook starts a second one,
# proves that nothing about the result has changed, measures what the two say to each other, and
# asks what that would cost with 64.
#
# **You will**
# - split a batch over processes so that, dropout aside, training stays the same, number for number;
# - measure what is exchanged, and predict the speed of machines that you do not have;
# - read data that no disk holds, and know when to reach for a larger tool.
#
# **You need** notebooks 02 to 04: freezing, BatchNorm, what fine-tuning costs.
#
# **Time** about a minute and a half on a 2-core CPU. Two processes on two cores: the same results, not twice the speed.

# %%
import io
import json
import os
import random
import sys
import tarfile
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from going_modular import data_setup, engine, evaluation, model_builder, utils

device = utils.pick_device()
work = Path((folder := tempfile.TemporaryDirectory()).name)
print(f"device: {device}, {os.cpu_count()} cores")

# %% [markdown]
# ## First, do less
#
# A second computer is the last resort. Before it come, in this order: frozen work done once
# (notebook 02), smaller pictures, a number format that your hardware likes,
# and a GPU.
#
# ## What is split
#
# In **data parallelism** every process holds the whole model and takes a part of each batch. After
# the backward pass the processes average their gradients (**all-reduce**), and all make the same
# step. So the models stay equal without ever being sent.
#
# By hand, in one process: a batch of ten pictures, split seven and three, as happens to the last
# batch of an epoch. BatchNorm is in eval mode for now.
#
# **Predict:** is the average of the two parts' gradients the gradient of the whole batch?


# %%
def gradient(model, images, labels):
    """Return the gradient of the mean loss, all parameters in one row."""
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(one, other):
    return float((one - other).norm() / other.norm())


# %%
utils.seed_everything(42)
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=64)
dataloader = data_setup.create_dataloader(splits.train, transform, batch_size=10, shuffle=True, seed=0)
images, labels = next(iter(dataloader))
model = model_builder.create_model("efficientnet_lite0", 12).eval()
print(len(images), "pictures of", len(labels.unique()), "classes")
whole = gradient(model, images, labels)
seven, three = (gradient(model, images[part], labels[part]) for part in (slice(7), slice(7, 10)))
print(f"plain average:    {apart((seven + three) / 2, whole):.1e} of the gradient's length off")
print(f"weighted 7 and 3: {apart(0.7 * seven + 0.3 * three, whole):.1e}")
assert apart(0.7 * seven + 0.3 * three, whole) < 1e-4 < apart((seven + three) / 2, whole)

# %% [markdown]
# Only when each part counts for as many pictures as it has: the mean of means again, bug 1 of
# notebook 08, now in the gradient. PyTorch's `DistributedDataParallel` (DDP) takes the plain average.
# `going_modular` weighs, so that no picture counts twice and none is left out.
#
# **Predict:** now BatchNorm trains. Does the weighted average still hold?

# %%
model.train()
for module in model.modules():
    if isinstance(module, nn.Dropout):
        module.eval()  # its masks are random; that is another matter
whole = gradient(model, images, labels)
seven, three = (gradient(model, images[part], labels[part]) for part in (slice(7), slice(7, 10)))
print(f"weighted 7 and 3: {apart(0.7 * seven + 0.3 * three, whole):.1e}")
assert apart(0.7 * seven + 0.3 * three, whole) > 0.01

# %% [markdown]
# No: each part is normalised by its own mean and variance. Where BatchNorm trains, the processes
# must also exchange its sums (**synchronised BatchNorm**). A frozen BatchNorm has nothing to
# exchange. Nor has dropout: each process draws masks of its own, as good as those of one process,
# but not the same.
#
# ## What is exchanged
#
# Now with two real processes. `torchrun`, here `python -m torch.distributed.run`, starts the same
# program several times and tells each copy its number, its **rank**. This program is plain PyTorch:
# it wraps a model in DDP and counts the bytes that go into an all-reduce in one step.

# %%
(work / "count_bytes.py").write_text('''
import json, torch, torch.distributed as dist
from going_modular import model_builder

def count(total, bucket):
    total.append(bucket.buffer().nbytes)
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])

dist.init_process_group("gloo")
exchanged = {}
for last in (0, 1, 3, 9):
    model = model_builder.unfreeze(model_builder.create_model("efficientnet_lite0", 12), last=last)
    parallel, total = torch.nn.parallel.DistributedDataParallel(model), []
    parallel.register_comm_hook(total, count)
    parallel(torch.randn(2, 3, 64, 64)).sum().backward()
    exchanged[last] = sum(total)
if dist.get_rank() == 0:
    print(json.dumps(exchanged))
''')
print("written:", work / "count_bytes.py")


# %%
import subprocess


def launch(processes, *program):
    """Run a program in several processes, a thread each; return what it prints."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), *map(str, program)]
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    settings["GOING_MODULAR_PRECISION"] = "float32"
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


exchanged = json.loads(launch(2, "count_bytes.py"))
print("models measured:", len(exchanged))

# %% [markdown]
# **Predict:** the head alone has 15,372 parameters of 4 bytes each. How much do two processes
# exchange in a step?

# %% tags=["nbval-check-output"]
for last, number in exchanged.items():
    model = model_builder.create_model("efficientnet_lite0", 12)
    trainable, total = model_builder.count_parameters(
        model_builder.unfreeze(model, last=int(last))
    )
    print(f"last={last}: {trainable:9,} trainable parameters, {number / 1e6:6.2f} MB a step")
    assert number == 4 * trainable

# %% [markdown]
# Exactly 4 bytes for each *trainable* parameter, whatever the pictures and the batch. What is frozen
# is never sent: freezing saves network traffic, too. And a head on frozen features exchanges
# 0.06 MB, so little that nobody needs two machines for it.
#
# ## The same history
#
# `process_group()` joins the processes that torchrun has started; the rest is the training of
# notebook 03. The batch is that of all processes together, so the recipe does not change with their
# number. Dropout is off, for the comparison. Each process runs the frozen blocks over its share of
# the pictures, once.

# %%
(work / "fit.py").write_text('''
import json, sys, torch
from going_modular import data_setup, engine, model_builder, utils
from going_modular.training import processes

with processes.process_group():
    utils.seed_everything(42)
    splits = data_setup.load("charts")
    transform = data_setup.create_transform("efficientnet_lite0", size=48)
    loaders = [data_setup.create_dataloader(splits.train, transform, shuffle=True, seed=42),
               data_setup.create_dataloader(splits.val, transform)]
    model = model_builder.create_model("efficientnet_lite0", 12)
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0  # of dropout and stochastic depth
    groups = model_builder.parameter_groups(model_builder.unfreeze(model, int(sys.argv[1])), 2e-3)
    history = engine.train(model, *loaders, torch.optim.AdamW(groups), epochs=2, device="cpu",
                           cache_frozen=True, verbose=False)
    if processes.is_main():
        print(json.dumps(history))
''')
print("written:", work / "fit.py")


# %%
def history_of(processes, last=1):
    """Train the last blocks in so many processes; return the history."""
    return json.loads(launch(processes, "fit.py", last))


# %% [markdown]
# **Predict:** one process, then two. By how much will the losses of each epoch differ?

# %%
one, two = history_of(1), history_of(2)
print(f"{'':<10}  one process, epochs 1, 2    two processes")
for name in ("train_loss", "train_acc", "val_loss", "val_acc"):
    columns = ["  ".join(f"{value:.8f}" for value in history[name]) for history in (one, two)]
    print(f"{name:<10}  {'      '.join(columns)}")
largest = max(abs(a - b) for a, b in zip(one["train_loss"], two["train_loss"]))
print(f"largest difference of a training loss: {largest:.0e}")
assert largest < 1e-3

# %% [markdown]
# The same, to the rounding of float32: sums are added up in another order. That is the test to ask of
# any parallel training: same seed, same global batch, same history. If yours fails it, it trains
# something else, faster.
#
# With more trainable blocks the figures agree to two or three digits only. But so do those of *one*
# process on another number of threads: AdamW divides each gradient by its own size, and one that is
# zero but for rounding moves its weight as far as any other. In float64, where rounding is out of the
# way, all layers give the same history to ten digits and more (`tests/by_hand/equalities.py`).
#
# ## A cost model
#
# A step takes as long as the pictures of one process, plus the exchange. An all-reduce over *n*
# processes sends and receives 2 (*n* − 1) / *n* times the bytes at each of them
# ([Patarasuk and Yuan, 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)):
#
# step = pictures / *n* × seconds per picture + waiting + 2 (*n* − 1) / *n* × bytes / link speed
#
# Three unknowns, so three measurements: steps of several batch sizes in *one* process, and
# all-reduces of several sizes in two.

# %%
(work / "measure.py").write_text('''
import json, statistics, timeit, torch, torch.distributed as dist
from going_modular import model_builder
def seconds(action):
    action()  # warm up
    return statistics.median(timeit.repeat(action, number=1, repeat=5))
dist.init_process_group("gloo")
model = model_builder.create_model("efficientnet_lite0", 12)
batches = {n: torch.randn(n, 3, 64, 64) for n in (4, 8, 16)}
if dist.get_rank() == 0:  # the other one waits
    alone = {n: seconds(lambda: model(x).sum().backward()) for n, x in batches.items()}
dist.barrier()
model = torch.nn.parallel.DistributedDataParallel(model)
steps = {n: seconds(lambda: model(x).sum().backward()) for n, x in batches.items()}
tensors = {4 * n: torch.randn(n) for n in (10**4, 10**6, 3 * 10**6)}
links = {n: seconds(lambda: dist.all_reduce(x)) for n, x in tensors.items()}
if dist.get_rank() == 0:
    print(json.dumps([alone, steps, links]))
''')
print("written:", work / "measure.py")

# %%
steps_of_one, steps_of_two, links = json.loads(launch(2, "measure.py"))


def line(measured):
    """Fit seconds = slope * size + constant."""
    return np.polyfit([int(size) for size in measured], list(measured.values()), 1)


per_picture, per_step = line(steps_of_one)
per_byte, waiting = line(links)
print(f"one process: {1 / per_picture:.0f} pictures a second, {1000 * per_step:.0f} ms a step beside")
print(f"link: {1e-9 / per_byte:.1f} GB a second, {1000 * max(waiting, 0):.1f} ms waiting")

# %% [markdown]
# **Predict:** with these three figures, can you say what a step in two processes takes?

# %%
for size, measured in steps_of_two.items():
    exchange = max(waiting, 0) + per_byte * exchanged["9"]
    predicted = int(size) * per_picture + per_step + exchange
    print(f"two processes, {size:>2} pictures each: predicted {predicted:.3f} s, {measured:.3f} s")

# %% [markdown]
# The first figure of each line was predicted from the others, the second was measured. A model that
# cannot predict the machine at hand should not be asked about another one. Where it is off here, two
# processes share what one had for itself. The "link" is this
# computer's memory.
#
# ## Machines that we do not have
#
# Now the same formula with published figures. These are **assumptions**; put yours in their place.
#
# - ResNet-50 trains at 2,470 pictures a second on one A100 in mixed precision, and at 16,621 on eight
#   ([NVIDIA's measurement][nvidia]), 256 a step and GPU.
# - It has 25,557,032 parameters, sent in 4 bytes each.
# - ImageNet-21k has 14,197,122 pictures ([Ridnik et al., 2021](https://arxiv.org/abs/2104.10972));
#   we suppose 110 kB each.
# - Every GPU has its link for itself, nothing is sent during the backward pass, disks are fast
#   enough.
#
# [nvidia]: https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Classification/ConvNets/resnet50v1.5
#
# **Predict:** over a 1 Gbit/s cable, are 64 GPUs faster than one?

# %%
RATE, BATCH, BYTES, PICTURES, KILOBYTES = 2470, 256, 4 * 25_557_032, 14_197_122, 110
LINKS = {"NVLink, 300 GB/s": 300e9, "100 Gbit/s": 12.5e9, "10 Gbit/s": 1.25e9, "1 Gbit/s": 125e6}


def pictures_per_second(gpus, link, bytes_exchanged=BYTES):
    exchange = 2 * (gpus - 1) / gpus * bytes_exchanged / link
    return gpus * BATCH / (BATCH / RATE + exchange)


print(f"{BYTES // 4:,} parameters, {PICTURES:,} pictures")

# %% tags=["nbval-check-output"]
print(f"{'':<18}{'GPUs':>5}{'pictures/s':>12}{'times one':>11}{'hours an epoch':>16}{'GB/s read':>11}")
for name, link in LINKS.items():
    for gpus in (8, 64):
        speed = pictures_per_second(gpus, link)
        hours, read = PICTURES / speed / 3600, speed * KILOBYTES / 1e6
        print(f"{name:<18}{gpus:>5}{speed:>12,.0f}{speed / RATE:>11.1f}{hours:>16.2f}{read:>11.2f}")
print(f"one GPU: {PICTURES / RATE / 3600:.2f} hours an epoch; measured on eight: {16621 / RATE:.2f} x")

# %% [markdown]
# Over that cable, 64 GPUs do the work of a handful. And mind the control: for eight GPUs with NVLink
# the formula promises nearly 8 times, and NVIDIA measured 6.73. What it leaves out costs more than
# the gradients: reading and decoding pictures, waiting for the slowest. The last column says why:
# 64 GPUs want several gigabytes of JPEGs *a second*. (In our favour, it leaves out that DDP sends
# while the backward pass still runs.)

# %%
numbers = [2**k for k in range(9)]
looks = [("o-", utils.BLUE), ("s--", utils.ORANGE), ("^:", utils.GREEN), ("d-.", utils.RED)]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
panels = {"all layers": BYTES, "new head for 12 classes": 4 * (2048 * 12 + 12)}
for axis, (title, size) in zip(axes, panels.items()):
    for (name, link), (style, color) in zip(LINKS.items(), looks):
        shares = [pictures_per_second(n, link, size) / n / RATE for n in numbers]
        axis.plot(numbers, shares, style, color=color, label=name, markersize=4)
    axis.set(title=title, xscale="log", xlabel="GPUs", ylim=(0, 1.05))
    axis.set_xticks(numbers, numbers)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
axes[0].set(ylabel="Share of perfect speed-up")
axes[1].legend(loc="lower left")
# %% [markdown]
# The share of a perfect speed-up that the formula leaves, for four links. Left, all of ResNet-50
# trains; right, a new head: it exchanges so little that any cable will do.
#
# But a head needs no 64 GPUs at all. One pass through the frozen trunk, and the features of all
# of ImageNet-21k fit on a disk:

# %% tags=["nbval-check-output"]
print(f"{PICTURES * 2048 * 2 / 1e9:.0f} GB of features in 2 bytes each, {PICTURES * KILOBYTES / 1e9:.1f} TB of pictures")
print(f"batch of 64 GPUs: {64 * BATCH:,} pictures, {PICTURES // (64 * BATCH)} steps an epoch")

# %% [markdown]
# The batch grows with the GPUs. A batch of 16,384 makes few steps an epoch, and wants a larger
# learning rate and a warm-up ([Goyal et al., 2017](https://arxiv.org/abs/1706.02677)): then it is no
# longer the same training. Our equality holds for the same *global* batch.
#
# ## Data that no disk holds
#
# Millions of small files are slow to open, and 1.6 TB may not fit. So they are packed into **shards**:
# tar archives, read from front to back. The layout of
# [WebDataset](https://github.com/webdataset/webdataset) is common: files with the same stem belong
# together, `000042.png` and `000042.cls`.


# %%
def write_shards(samples, folder, per_shard=32):
    """Pack pictures and labels into tar files, in the order of `samples`; return their paths."""
    paths = []
    for start in range(0, len(samples), per_shard):
        paths.append(folder / f"{len(paths):04}.tar")
        with tarfile.open(paths[-1], "w") as shard:
            for number, (path, label) in enumerate(samples[start : start + per_shard], start):
                shard.add(path, f"{number:06}{path.suffix}")
                text = str(label).encode()
                info = tarfile.TarInfo(f"{number:06}.cls")
                info.size = len(text)
                shard.addfile(info, io.BytesIO(text))
    return paths


# %% [markdown]
# Reading goes through a file once. The class below it gives each rank its shards.

# %%
def read_shard(path):
    """Yield the pictures and labels of a tar file, from front to back."""
    with tarfile.open(path, "r|*") as shard:  # "|": as a stream, never back again
        before = b""
        for member in shard:
            content = shard.extractfile(member).read()
            if member.name.endswith(".cls"):
                yield Image.open(io.BytesIO(before)).convert("RGB"), int(content)
            before = content

# %%
class Shards(IterableDataset):
    """Stream the shards of one rank; its workers share them out among themselves."""

    def __init__(self, paths, transform, rank=0, ranks=1):
        self.paths, self.transform = paths[rank::ranks], transform

    def __iter__(self):
        worker = get_worker_info()
        for path in self.paths[worker.id :: worker.num_workers] if worker else self.paths:
            for image, label in read_shard(path):
                yield self.transform(image), label

# %% [markdown]
# A stream has no length and no order to draw from: neither `shuffle=True` nor a distributed sampler
# works on it. Ranks, and the workers of each rank's `DataLoader`, take whole shards instead.
#
# **Predict:** 480 pictures in shards of 32, for two ranks. Is every picture read once, by exactly one
# of them? And do both make the same number of batches?

# %% tags=["nbval-check-output"]
samples = sorted(splits.train.samples, key=lambda sample: sample[1])  # class by class
(work / "shards").mkdir()
mixed = random.Random(0).sample(samples, len(samples))
paths = write_shards(mixed, work / "shards")
read = []
for rank in range(2):
    shards = Shards(paths, transform, rank, ranks=2)
    batches = [labels for _, labels in DataLoader(shards, batch_size=32)]
    read += torch.cat(batches).tolist()
    print(f"rank {rank}: {len(shards.paths)} of {len(paths)} shards, {len(batches)} batches")
assert sorted(read) == [label for _, label in samples]

# %% [markdown]
# Every picture once. But one rank makes a batch more, and in that batch's all-reduce it would wait
# for the other for ever. This is why real shards are many and of one size, and why a stream's epoch
# is *defined* as so many batches a rank.
#
# ## Order matters
#
# A stream can be mixed a little on its way: a **buffer** holds some pictures, and gives out one at
# random for each that comes in. Is that enough? We train a head on frozen features in the order in
# which streams would bring them. One pass: where data are endless, there is often no second one.


# %%
def through_buffer(order, size, rng):
    """Return `order` as a shuffle buffer of `size` lets it through."""
    held, passed = [], []
    for item in order:
        held.append(item)
        if len(held) >= size:
            passed.append(held.pop(rng.randrange(len(held))))
    return passed + rng.sample(held, len(held))


trunk = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
by_class = data_setup.ImageDataset(samples, splits.class_names)
train_features, val_features = (
    engine.extract_features(trunk, data_setup.create_dataloader(pictures, transform), device)
    for pictures in (by_class, splits.val)
)
print(f"{len(train_features)} and {len(val_features)} pictures through the trunk")

# %% [markdown]
# **Predict:** drawn at random, the head gets to about 0.7 in one pass. Where does it get if the
# pictures come class by class, through a buffer of 60?


# %%
def train_head(order, seed):
    """Train a linear head in one pass over `order`; return its validation accuracy."""
    utils.seed_everything(seed)
    head = nn.Linear(1280, 12).to(device)
    optimizer, loss_fn = torch.optim.AdamW(head.parameters(), lr=3e-3), nn.CrossEntropyLoss()
    batches = [train_features[part.tolist()] for part in torch.tensor(order).split(32)]
    engine.train_step(head, batches, loss_fn, optimizer, device)
    return engine.evaluate(head, DataLoader(val_features, batch_size=256), device).accuracy

# %%
count, passes = len(samples), {"mixed when written": []}
for seed in range(5):
    order = random.Random(seed).sample(range(count), count)
    passes["mixed when written"].append(train_head(order, seed))
print([f"{accuracy:.2f}" for accuracy in passes["mixed when written"]])

# %% [markdown]
# Mixed once, in five orders. Now the streams that are mixed on their way, or not at all.

# %%
for name, size in {"at random": count, "class by class": 1, "buffer of 60": 60}.items():
    passes[name] = []
    for seed in range(5):
        order = through_buffer(range(count), size, random.Random(seed))
        passes[name].append(train_head(order, seed))
means = {name: evaluation.mean_and_std(accuracies) for name, accuracies in passes.items()}
for name, (mean, std) in means.items():
    print(f"{name:<20} {mean:.2f} ± {std:.2f}")
assert means["mixed when written"][0] > means["buffer of 60"][0] + 0.15
assert means["at random"][0] > means["class by class"][0] + 0.2

# %% [markdown]
# Pictures that come class by class teach the last classes and forget the first; a buffer helps as
# far as it reaches. Mixing *once*, when the shards are written, costs nothing afterwards and does as
# well as drawing at random. So mix when you write.
#
# ## When something breaks
#
# Many machines for many hours: something will fail. `going_modular.train` knows torchrun, and writes
# its state after every epoch: a run that was cut off goes on from the last one that was finished,
# on one process to the same result as if nothing had happened:
#
# ```
# torchrun --nproc-per-node 8 --max-restarts 3 -m going_modular.train --data photos --out runs/a
# python -m going_modular.train --data photos --out runs/a --resume
# torchrun --nnodes 2 --node-rank 0 --nproc-per-node 8 --master-addr HOST -m going_modular.train ...
# ```
#
# The first restarts its processes by itself when one dies. The second goes on after a power cut. The
# third runs on two machines; start it on both, with the name of the first, and rank 1 on the other.
#
# ## When to reach for more
#
# | You have | Reach for | What carries over |
# |---|---|---|
# | one machine, one or more GPUs | `torchrun` and this package | all |
# | your own loop, many kinds of hardware | [Accelerate](https://huggingface.co/docs/accelerate) | model, data, loop: a few lines wrap them |
# | a team that wants one frame for loops, logs, checkpoints | [Lightning](https://lightning.ai/docs/pytorch/stable/) | model and data; the loop becomes methods |
# | a cluster that others share, machines that come and go | [Ray Train](https://docs.ray.io/en/latest/train/train.html) | the training function |
# | a model that does not fit one GPU | [FSDP](https://docs.pytorch.org/docs/stable/fsdp.html) | model and data |
#
# What carries over everywhere is what you can check: the same history, frozen parts that do not move,
# every picture counted once.
#
# ## Recap
#
# - You split a batch over processes, and the training stayed the same.
# - You measured what is exchanged, and predicted machines that you do not have, with a control.
# - You read shards as a stream, and saw why they are mixed when they are written.
#
# ## Check yourself
#
# 1. Two processes, batches of 32 together. The last batch of an epoch has 10 pictures, 7 and 3. How
#    must their gradients be put together?
#    - **a** · As their average: that is what all-reduce does.
#    - **b** · As an average that weighs 7 and 3.
#    - **c** · As their sum.
#
# <details><summary>Answer</summary>
#
# **b.** Each gradient is a mean over its part; only the weighted mean is the mean over all ten.
# *a:* Then the 3 pictures count more than twice as much each as the 7. *c:* That is too long by the
# number of processes.
# </details>
#
# 2. You freeze all but the last block, and the batch doubles. What happens to the bytes exchanged
#    in a step?
#    - **a** · They fall by freezing, and the batch changes nothing.
#    - **b** · They fall by freezing, and double with the batch.
#    - **c** · They stay: DDP sends the whole model.
#
# <details><summary>Answer</summary>
#
# **a.** Gradients of trainable parameters are exchanged, and their number does not depend on
# pictures. *b:* Activations grow with the batch; they stay at home. *c:* It sends the weights once,
# at the start.
# </details>
#
# 3. With eight GPUs your training is four times as fast, and the history differs from one
#    process's. What do you look at first?
#    - **a** · The network's speed.
#    - **b** · A better learning rate.
#    - **c** · The history: same seed and same global batch should give the same one.
#
# <details><summary>Answer</summary>
#
# **c.** As long as it trains something else, its speed means nothing. Look at the global batch, at
# BatchNorm, at the data each rank sees. *a:* Second: a slow cable does not change a loss. *b:* A
# new rate hides the difference.
# </details>
#
# 4. Your shards were written class by class. What is the best cure?
#    - **a** · A buffer of a thousand pictures.
#    - **b** · Write them again, mixed.
#    - **c** · More shards.
#
# <details><summary>Answer</summary>
#
# **b.** Mixing once costs one pass over the data, and helps all trainings. *a:* With thousands of
# pictures in a class, it holds one or two classes at a time. *c:* Shorter ones of a single class
# each: drawing shards at random helps, but each still brings one class.
# </details>
#
# ## Exercises
#
# [Four exercises](exercises/07_scaling_out.ipynb) mark themselves. Here, predict, then run:
#
# 1. `history_of(3)`: the batches of 32 do not split evenly. Is the history still the same?
# 2. In the cost model, let the gradients be sent in 2 bytes. For which link does it matter?
# 3. Let the head train class by class with buffers of 120 and 240, and with four passes. How far
#    must a buffer reach, and what do passes forgive?
#
# Next: [08 · Bug clinic](08_bug_clinic.ipynb).
