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
# One process trains on one GPU, or on the cores of one computer. In this notebook you start a second
# process, prove that the result stays the same, measure what the two exchange, and work out what that
# would cost with 64.
#
# **You will**
# - split a batch over processes so that training stays the same, number for number (dropout aside);
# - measure what is exchanged, and predict the speed of machines that you do not have;
# - read data that fit on no disk, and know when to use a larger tool.
#
# **You need** notebooks 02 to 04: freezing, BatchNorm, what fine-tuning costs.
#
# **Time** about a minute and a half on a 2-core CPU. Two processes on two cores: the same results, not twice the speed.

# %%
import io
import json
import os
import random
import subprocess
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

# %% [markdown] slideshow={"slide_type": "slide"}
# ## First, do less
#
# A second computer is the last resort. Try these first, in this order: do frozen work only once
# (notebook 02), use smaller images, use a number format that your hardware likes (bfloat16), get a
# GPU.
#
# ## What is split
#
# In **data parallelism** every process holds the whole model and takes a part of each batch. After
# the backward pass the processes average their gradients. This step is called **all-reduce**: every
# process ends up with the same average. Then all take the same optimizer step, so the models stay
# equal without ever being sent.
#
# Let's do it by hand in one process: a batch of ten images, split into seven and three, as can happen
# to the last batch of an epoch. BatchNorm is in eval mode for now.
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
print(len(images), "images of", len(labels.unique()), "classes")
whole = whole_in_eval = gradient(model, images, labels)
seven, three = (gradient(model, images[part], labels[part]) for part in (slice(7), slice(7, 10)))
plain, weighted = (seven + three) / 2, 0.7 * seven + 0.3 * three
print(f"plain average:    {apart(plain, whole):.1e} of the gradient's length off")
print(f"weighted 7 and 3: {apart(weighted, whole):.1e}")

# %% [markdown]
# Only if each part counts for as many images as it has. The plain average is a mean of means, bug 1
# of notebook 08, this time in the gradient. PyTorch's `DistributedDataParallel` (DDP) takes the plain
# average. `going_modular` weights the parts, so that every image counts once.
#
# **Predict:** now BatchNorm, and nothing else, goes to training mode. Does the weighted average still
# hold?

# %%
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.train()  # dropout and stochastic depth, which are random, stay off
whole = gradient(model, images, labels)
seven, three = (gradient(model, images[part], labels[part]) for part in (slice(7), slice(7, 10)))
by_part = 0.7 * seven + 0.3 * three
print(f"weighted 7 and 3: {apart(by_part, whole):.1e}")
print(f"the whole batch, again: {apart(gradient(model, images, labels), whole):.1e}")

# %%
# @title Checks: what this section says
assert apart(weighted, whole_in_eval) < 1e-4 < apart(plain, whole_in_eval)
assert apart(by_part, whole) > 0.01 > 1e-4 > apart(gradient(model, images, labels), whole)

# %% [markdown]
# No. In training mode BatchNorm normalises each part by that part's own mean and variance. So where
# BatchNorm trains, the processes must also exchange its sums (**synchronised BatchNorm**). A frozen
# BatchNorm uses stored statistics and exchanges nothing. Dropout exchanges nothing either: each
# process draws masks of its own, as good as those of one process, but not the same ones.
#
# ## What is exchanged
#
# Now with two real processes. `torchrun`, here `python -m torch.distributed.run`, starts the same
# program several times and tells each copy its number, its **rank**. This program is plain PyTorch:
# it wraps a model in DDP and counts the bytes that go into the all-reduce in one training step.

# %%
(work / "count_bytes.py").write_text("""
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
dist.destroy_process_group()
""")
print("written:", work / "count_bytes.py")


# %%
def launch(processes, *program):
    """Run a program in several processes, one thread each; return what it prints."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), *map(str, program)]
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    settings["GOING_MODULAR_PRECISION"] = "float32"
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stderr[:2000]} ... {done.stderr[-2000:]}")
    return done.stdout


exchanged = json.loads(launch(2, "count_bytes.py"))
print("models measured:", len(exchanged))

# %% [markdown]
# **Predict:** the head alone has 15,372 parameters of 4 bytes each. How much do two processes
# exchange per step when only the head trains?

# %% tags=["nbval-check-output"] slideshow={"slide_type": "subslide"}
counted = {}
for last, number in exchanged.items():
    model = model_builder.create_model("efficientnet_lite0", 12)
    trainable, total = model_builder.count_parameters(
        model_builder.unfreeze(model, last=int(last))
    )
    counted[last] = trainable
    print(f"last={last}: {trainable:9,} trainable parameters, {number / 1e6:6.2f} MB per step")

# %% [markdown] slideshow={"slide_type": "slide"}
# Exactly 4 bytes per *trainable* parameter, whatever the images and the batch size. What is frozen is
# never sent, so freezing saves network traffic too. A head on a frozen network exchanges 0.06 MB: too
# little to be the bottleneck between two machines.
#
# ## The same history
#
# `process_group()` joins the processes that torchrun has started; the rest is the training of
# notebook 03. The batch size is that of all processes together, so the recipe does not change with
# their number. Dropout is off, so that we can compare. Each process runs the frozen blocks once, over
# its share of the images.

# %%
(work / "fit.py").write_text("""
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
""")
print("written:", work / "fit.py")


# %%
def history_of(processes, last=1):
    """Train the last blocks in that many processes; return the history."""
    return json.loads(launch(processes, "fit.py", last))


# %% [markdown]
# **Predict:** one process, then two. By how much will the losses of each epoch differ?

# %% slideshow={"slide_type": "subslide"}
one, two = history_of(1), history_of(2)
print(f"{'':<10}  one process, epochs 1, 2    two processes")
for name in ("train_loss", "train_acc", "val_loss", "val_acc"):
    columns = ["  ".join(f"{value:.8f}" for value in history[name]) for history in (one, two)]
    print(f"{name:<10}  {'      '.join(columns)}")
largest = max(abs(a - b) for a, b in zip(one["train_loss"], two["train_loss"]))
print(f"largest difference of a training loss: {largest:.0e}")

# %%
# @title Checks: what the last two sections say
assert all(number == 4 * counted[last] for last, number in exchanged.items())
assert largest < 1e-3

# %% [markdown] slideshow={"slide_type": "slide"}
# They agree, up to the rounding of float32: the sums are added in another order. Ask this of any
# parallel training: same seed, same global batch, same history. If yours fails the test, it trains
# something else, faster.
#
# With more trainable blocks fewer digits agree: try `history_of(2, last=3)`. To see that this is
# rounding and no mistake, we ran all layers in float64, where rounding is far smaller: there the two
# histories agree to ten digits or more (`tests/by_hand/equalities.py`).
#
# ## A cost model
#
# A step takes as long as one process needs for its images, plus the exchange. In an all-reduce over
# *n* processes, each sends and receives 2 (*n* − 1) / *n* times the bytes
# ([Patarasuk and Yuan, 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)):
#
# step = images / *n* × seconds per image + waiting + 2 (*n* − 1) / *n* × bytes / link speed
#
# A step also has a fixed part that does not depend on the images. We measure the unknowns: steps with
# several batch sizes in *one* process, and all-reduces of several sizes between two.

# %%
(work / "measure.py").write_text("""
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
dist.destroy_process_group()
""")
print("written:", work / "measure.py")

# %%
steps_of_one, steps_of_two, links = json.loads(launch(2, "measure.py"))


def line(measured):
    """Fit seconds = slope * size + constant."""
    return np.polyfit([int(size) for size in measured], list(measured.values()), 1)


per_image, per_step = line(steps_of_one)
per_byte, waiting = line(links)
print(f"one process: {1 / per_image:.0f} images per second, and {1000 * per_step:.0f} ms per step")
print(f"link: {1e-9 / per_byte:.1f} GB per second, and {1000 * max(waiting, 0):.1f} ms waiting")

# %% [markdown]
# **Predict:** from these figures, can you say how long a step in two processes takes?

# %% slideshow={"slide_type": "subslide"}
for size, measured in steps_of_two.items():
    exchange = max(waiting, 0) + per_byte * exchanged["9"]
    predicted = int(size) * per_image + per_step + exchange
    print(f"two processes, {size:>2} images each: predicted {predicted:.3f} s, {measured:.3f} s")

# %% [markdown] slideshow={"slide_type": "slide"}
# In each line the first figure was predicted from the other measurements, and the second was
# measured. A model that cannot predict the machine at hand should not be asked about another one.
# Where the two differ, the formula leaves something out. It does not know, for example, that both
# processes share one computer's memory and caches, and the "link" here is that memory.
#
# ## Machines that we do not have
#
# Now the same formula with published figures. These are **assumptions**; put your own in their place.
#
# - ResNet-50 trains at 2,470 images per second on one A100 in mixed precision, and at 16,621 on eight
#   ([NVIDIA's measurement][nvidia]), with 256 images per step and GPU.
# - It has 25,557,032 parameters, sent in 4 bytes each.
# - ImageNet-21k has 14,197,122 images ([Ridnik et al., 2021](https://arxiv.org/abs/2104.10972));
#   we suppose 110 kB each.
# - Every GPU has a link of its own, nothing is sent during the backward pass, and the disks are fast
#   enough.
#
# [nvidia]: https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Classification/ConvNets/resnet50v1.5
#
# **Predict:** over a 1 Gbit/s cable, are 64 GPUs faster than one?

# %%
RATE, BATCH, BYTES, IMAGES, KILOBYTES = 2470, 256, 4 * 25_557_032, 14_197_122, 110
LINKS = {"NVLink, 300 GB/s": 300e9, "100 Gbit/s": 12.5e9, "10 Gbit/s": 1.25e9, "1 Gbit/s": 125e6}


def images_per_second(gpus, link, bytes_exchanged=BYTES):
    exchange = 2 * (gpus - 1) / gpus * bytes_exchanged / link
    return gpus * BATCH / (BATCH / RATE + exchange)


print(f"{BYTES // 4:,} parameters, {IMAGES:,} images")

# %% tags=["nbval-check-output"] slideshow={"slide_type": "subslide"}
print(f"{'':<18}{'GPUs':>5}{'images/s':>10}{'times one':>11}{'hours per epoch':>17}{'GB/s read':>11}")
for name, link in LINKS.items():
    for gpus in (8, 64):
        speed = images_per_second(gpus, link)
        hours, read = IMAGES / speed / 3600, speed * KILOBYTES / 1e6
        print(f"{name:<18}{gpus:>5}{speed:>10,.0f}{speed / RATE:>11.1f}{hours:>17.2f}{read:>11.2f}")
print(f"one GPU: {IMAGES / RATE / 3600:.2f} hours per epoch; measured on eight: {16621 / RATE:.2f} x")

# %% [markdown]
# Faster, but over that cable 64 GPUs do the work of 3.9, and eight do less than one. Now hold the
# formula against a measurement: for eight GPUs with NVLink it promises 8.0 times, and NVIDIA measured
# 6.73. So what it leaves out costs more than the exchange. Candidates are reading and decoding
# images, and waiting for the slowest process: in the last column, 64 GPUs want 17.28 GB of JPEGs
# *every second*. (One omission makes it too pessimistic: DDP already sends while the backward pass runs.)

# %% alt="Two panels, share of a perfect speed-up. Left, against the number of GPUs when all of ResNet-50 trains: NVLink stays near 1, 100 Gbit/s falls to 0.86, 10 Gbit/s to 0.39, 1 Gbit/s to 0.06. Right, with 64 GPUs against the megabytes exchanged: at the size of a new head all links are near 1, at the size of ResNet-50 they are far apart." slideshow={"slide_type": "subslide"}
# @title Figure: what share of a perfect speed-up is left?
numbers, megabytes = 2 ** np.arange(9), np.geomspace(0.03, 300, 60)
sizes = {"new head": 4 * (2048 * 12 + 12), "all layers": BYTES}
colors = [utils.BLUE, utils.ORANGE, utils.GREEN, utils.RED]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), sharey=True, layout="constrained", width_ratios=(1.25, 1)
)
for (name, link), color in zip(LINKS.items(), colors):
    left.plot(numbers, [images_per_second(n, link) / n / RATE for n in numbers], "o-", color=color)
    share = images_per_second(256, link) / 256 / RATE
    left.annotate(name, (256, share), (8, 0), textcoords="offset points", color=color, va="center")
    shares = [images_per_second(64, link, 1e6 * size) / 64 / RATE for size in megabytes]
    right.plot(megabytes, shares, color=color, linewidth=2)
for name, size in sizes.items():
    right.axvline(size / 1e6, color="0.4", linestyle=":")
    text = f"{name},\n{size / 1e6:.1f} MB"
    right.annotate(text, (size / 1e6, 0.48), (6, 0), textcoords="offset points")
left.set(title="All of ResNet-50 trains", xscale="log", xlabel="GPUs", xlim=(0.9, 2500))
left.set(ylabel="Share of a perfect speed-up", ylim=(0, 1.05))
left.set_xticks(numbers, numbers)
right.set(title="64 GPUs, and less to exchange", xscale="log", xlabel="MB exchanged per step")
right.set(xlim=(0.02, 2500))
right.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
for axis in (left, right):
    axis.minorticks_off()
    axis.grid(alpha=0.3)
head_share = images_per_second(64, LINKS["1 Gbit/s"], sizes["new head"]) / 64 / RATE
print(f"a new head, 64 GPUs, 1 Gbit/s: {head_share:.2f} of a perfect speed-up")

# %% [markdown]
# Left, the slower the link, the less is left, and most of the loss comes with the second GPU. Right,
# the same links when less is exchanged: a new head for 12 classes keeps 0.99 of the speed-up even
# over the slowest cable. (This supposes the same seconds per image; a frozen network takes fewer.)
#
# But a head does not need 64 GPUs at all. After one pass through the frozen network, the features of
# all of ImageNet-21k fit on a disk:

# %% tags=["nbval-check-output"]
print(f"{IMAGES * 2048 * 2 / 1e9:.0f} GB of features in 2 bytes each, {IMAGES * KILOBYTES / 1e9:.1f} TB of images")
print(f"batch of 64 GPUs: {64 * BATCH:,} images, {IMAGES // (64 * BATCH)} steps per epoch")

# %% [markdown] slideshow={"slide_type": "slide"}
# The batch grows with the GPUs. With 16,384 images per batch an epoch has few steps, and the recipe
# must change: a larger learning rate and a warm-up
# ([Goyal et al., 2017](https://arxiv.org/abs/1706.02677)). Then it is no longer the same training.
# Our equality holds for the same *global* batch.
#
# ## Data that fit on no disk
#
# Opening millions of small files takes long, and 1.6 TB may not fit on your disk. The usual answer is
# **shards**: tar archives, read from front to back. The layout of
# [WebDataset](https://github.com/webdataset/webdataset) is common: files with the same stem belong
# together, such as `000042.png` and `000042.cls`.


# %%
def write_shards(samples, folder, per_shard=32):
    """Pack images and labels into tar files, in the order of `samples`; return their paths."""
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
# `read_shard` goes through one file once, from front to back. The class gives each rank its shards.

# %%
def read_shard(path):
    """Yield the images and labels of a tar file, from front to back."""
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
# A stream has no length, and you cannot ask it for image number 17. So neither `shuffle=True` nor a
# distributed sampler works on it. Instead the ranks, and the workers of each rank's `DataLoader`,
# take whole shards.
#
# **Predict:** 480 images in shards of 32, for two ranks. Is every image read once, by exactly one
# of them? And do both make the same number of batches?

# %% tags=["nbval-check-output"] slideshow={"slide_type": "subslide"}
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
print(f"{len(read)} labels read, as many of each class as written: {sorted(read) == sorted(label for _, label in samples)}")

# %% [markdown] slideshow={"slide_type": "slide"}
# Every image is read once. But one rank makes one batch more, and in that batch's all-reduce it would
# wait for the other for ever. This is why real data sets have many shards of one size, and why an
# epoch of a stream is *defined* as a number of batches per rank.
#
# ## Order matters
#
# A stream can be shuffled a little on its way: a **buffer** holds some images and, for each one that
# comes in, gives out one at random. Is that enough? We train a head on frozen features, in the orders
# in which streams would bring them, and make one pass: where data are endless, there is often no
# second one.


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
    engine.extract_features(trunk, data_setup.create_dataloader(dataset, transform), device)
    for dataset in (by_class, splits.val)
)
print(f"{len(train_features)} and {len(val_features)} images through the trunk")

# %% [markdown]
# **Predict:** when images are drawn at random, the head reaches about 0.7 in one pass. What does it
# reach if they come class by class, through a buffer of 60?


# %%
def train_head(order, seed):
    """Train a linear head in one pass over `order`; return which validation images it got right."""
    utils.seed_everything(seed)
    head = nn.Linear(1280, 12).to(device)
    optimizer, loss_fn = torch.optim.AdamW(head.parameters(), lr=3e-3), nn.CrossEntropyLoss()
    batches = [train_features[part.tolist()] for part in torch.tensor(order).split(32)]
    engine.train_step(head, batches, loss_fn, optimizer, device)
    answers = engine.predict(head, DataLoader(val_features, batch_size=256), device)
    return answers.predicted == answers.labels

# %% slideshow={"slide_type": "subslide"}
count, passes = len(samples), {}
for name, size in {"at random": count, "buffer of 60": 60, "class by class": 1}.items():
    orders = [through_buffer(range(count), size, random.Random(seed)) for seed in range(5)]
    passes[name] = torch.stack([train_head(order, seed) for seed, order in enumerate(orders)])
orders = [random.Random(seed).sample(range(count), count) for seed in range(5)]
runs = [train_head(order, seed) for seed, order in enumerate(orders)]
passes["mixed when written"] = torch.stack(runs)
val_labels = torch.tensor(splits.val.targets)
print(f"{'':<20}accuracy      of each class, in the order in which they came")
for name, right in passes.items():
    mean, std = evaluation.mean_and_std(right.float().mean(dim=1).tolist())
    of_class = [right[:, val_labels == label].float().mean() for label in range(12)]
    print(f"{name:<20}{mean:.2f} ± {std:.2f}  ", *(f"{accuracy:.2f}" for accuracy in of_class))

# %% [markdown]
# About a third right. Class by class, the head does not simply know what came last: it finds most
# images of some classes in the middle, few of the first ones, and hardly any of the last. A buffer of
# 60 holds one and a half classes, and shows the same pattern. All four rows are about the same
# validation images, so compare them paired:

# %%
share_right = {name: right.float().mean(dim=0) for name, right in passes.items()}
for one, other in [("buffer of 60", "class by class"), ("at random", "buffer of 60"),
                   ("mixed when written", "at random")]:
    print(f"{one} - {other}: {evaluation.format_difference(share_right[one], share_right[other])}")

# %%
# @title Checks: what the last two sections say
assert sorted(read) == [label for _, label in samples]
means = {name: float(shares.mean()) for name, shares in share_right.items()}
assert means["mixed when written"] > means["buffer of 60"] + 0.15
assert means["at random"] > means["class by class"] + 0.2

# %% [markdown] slideshow={"slide_type": "slide"}
# The small buffer gains a little, and stays far behind drawing at random. Mixing *once*, when the
# shards are written, does as well as drawing at random, to within two or three points at most
# (-0.003 to +0.022), and costs nothing afterwards. So mix when you write.
#
# ## When something breaks
#
# With many machines for many hours, something will fail. `going_modular.train` works with torchrun
# and saves its state after every epoch. A run that was cut off continues after its last finished
# epoch; on one process the result is the same as if nothing had happened:
#
# ```
# torchrun --nproc-per-node 8 --max-restarts 3 -m going_modular.train --data photos --out runs/a
# python -m going_modular.train --data photos --out runs/a --resume
# torchrun --nnodes 2 --node-rank 0 --nproc-per-node 8 --master-addr HOST -m going_modular.train ...
# ```
#
# The first command restarts its processes by itself when one dies. The second continues after a power
# cut. The third trains on two machines: start it on both, with the first machine's name as HOST, and
# with rank 1 on the other.
#
# ## When to use a larger tool
#
# | You have | Use | What you keep |
# |---|---|---|
# | one machine, one or more GPUs | `torchrun` and this package | everything |
# | your own loop, many kinds of hardware | [Accelerate](https://huggingface.co/docs/accelerate) | model, data and loop: a few lines wrap them |
# | a team that wants one frame for loops, logs, checkpoints | [Lightning](https://lightning.ai/docs/pytorch/stable/) | model and data; the loop becomes methods |
# | a shared cluster, where machines come and go | [Ray Train](https://docs.ray.io/en/latest/train/train.html) | the training function |
# | a model that does not fit on one GPU | [FSDP](https://docs.pytorch.org/docs/stable/fsdp.html) | model and data |
#
# With all of them you keep the checks: the same history, frozen parts that do not move, every image
# counted once.
#
# ## Recap
#
# - You split a batch over processes, and training stayed the same.
# - You measured what is exchanged, and predicted machines that you do not have, with a control.
# - You read shards as a stream, and saw why to mix them when they are written.
#
# ## Check yourself
#
# 1. Two processes share batches of 32. The last batch of an epoch has 10 images: 7 and 3. How must
#    their gradients be combined?
#    - **a** · As their average: that is what all-reduce does.
#    - **b** · As an average with weights 7 and 3.
#    - **c** · As their sum.
#
# <details><summary>Answer</summary>
#
# **b.** Each gradient is a mean over its part; only the weighted mean is the mean over all ten.
# *a:* Then each of the 3 images counts more than twice as much as each of the 7. *c:* With equal
# parts, the sum is too long by a factor of the number of processes.
# </details>
#
# 2. You freeze all but the last block, and double the batch. What happens to the bytes exchanged per
#    step?
#    - **a** · Freezing lowers them; the batch changes nothing.
#    - **b** · Freezing lowers them; the batch doubles them.
#    - **c** · They stay: DDP sends the whole model.
#
# <details><summary>Answer</summary>
#
# **a.** The gradients of trainable parameters are exchanged, and their number does not depend on the
# images. *b:* Activations grow with the batch, but they stay at home. *c:* DDP sends the weights
# once, at the start.
# </details>
#
# 3. With eight GPUs your training is four times as fast, and its history differs from that of one
#    process. What do you look at first?
#    - **a** · The network's speed.
#    - **b** · A better learning rate.
#    - **c** · The history: with the same seed and global batch it should be the same.
#
# <details><summary>Answer</summary>
#
# **c.** While it trains something else, its speed means nothing. Look at the global batch, at
# BatchNorm, and at the data that each rank sees. *a:* Later: a slow cable does not change a loss.
# *b:* A new rate only hides the difference.
# </details>
#
# 4. Your shards were written class by class. What is the best cure?
#    - **a** · A buffer of a thousand images.
#    - **b** · Write them again, mixed.
#    - **c** · More shards.
#
# <details><summary>Answer</summary>
#
# **b.** Mixing once costs one pass over the data and helps every training after it. *a:* With
# thousands of images per class, the buffer holds one or two classes at a time. *c:* The shards get
# shorter, but each still holds a single class. Reading them in random order helps, yet every shard
# still brings one class at a time.
# </details>
#
# ## Exercises
#
# [Four exercises](exercises/07_scaling_out.ipynb) check your code. On this page, predict, then run:
#
# 1. `history_of(3)`: batches of 32 do not split evenly. Is the history still the same?
# 2. In the cost model, send the gradients in 2 bytes instead of 4. For which link does it matter?
# 3. Train the head class by class with buffers of 120 and 240, and with four passes. How far must a
#    buffer reach, and how much do more passes make up for?
#
# Next: [08 · Bug clinic](08_bug_clinic.ipynb).
