"""What each default of fine-tuning is worth: every change against the default, paired.

`python tests/by_hand/defaults.py charts --size 128` or `... defaults.py FOLDER`: five seeds each,
on validation; a line is written as soon as a change is measured. Seeds vary the head and the order
of the images. The interval is over the images, for the mean of these runs.
"""

import argparse
import math
import sys
from functools import partial
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from going_modular import data_setup, engine, evaluation, model_builder, train, utils

MODEL = "efficientnet_lite0"
CHANGES = {
    "default": {},
    "layer decay 0.7": {"layer_decay": 0.7},
    "trunk rate / 2.5": {"times": 0.4},
    "trunk rate x 2": {"times": 2},
    "augmentation": {"augment": True},
    "clip norm 1": {"max_grad_norm": 1.0},
    "EMA": {"ema": True},
    "head rate / 3": {"head_times": 1 / 3},
    "head rate x 3": {"head_times": 3},
    "head rate x 10": {"head_times": 10},
    "50 steps": {"steps": 50},
    "100 steps": {"steps": 100},
    "200 steps": {"steps": 200},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--strategy", default="full", choices=train.STRATEGIES)
    parser.add_argument("--size", type=int)
    parser.add_argument("--few", type=int, help="train on so many images of each class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--changes", nargs="+", default=list(CHANGES)[1:], choices=CHANGES)
    options = parser.parse_args()
    splits = data_setup.load(options.data)
    if options.few:
        splits.train = splits.train.few(options.few)
    print(f"{options.data}, {options.strategy}: {len(splits.train)} training images", flush=True)
    default = None
    for name in ["default", *options.changes]:
        runs = [measure(splits, options, seed, **CHANGES[name]) for seed in range(options.seeds)]
        runs = torch.stack(runs)
        default = runs if default is None else default
        mean, std = evaluation.mean_and_std(runs.mean(dim=1).tolist())
        difference = evaluation.format_difference(runs.mean(dim=0), default.mean(dim=0))
        print(f"{name:18} {mean:.3f} ± {std:.3f}  {difference}", flush=True)


def measure(
    splits,
    options,
    seed,
    layer_decay=None,
    times=1,
    head_times=1,
    steps=0,
    augment=False,
    ema=False,
    max_grad_norm=None,
) -> torch.Tensor:
    """Train once; return which validation images are right, as 0 or 1."""
    strategy, device = train.STRATEGIES[options.strategy], utils.pick_device()
    utils.seed_everything(seed)
    model = model_builder.create_model(MODEL, len(splits.class_names))
    model_builder.unfreeze(model, last=train.last_blocks(model, strategy))
    lr = strategy.lr * head_times
    rates = {"trunk_lr": strategy.trunk_lr * times if strategy.trunk_lr else None}
    if layer_decay:  # the block before the head has the trunk's default rate
        rates = {"layer_decay": layer_decay}
    groups = model_builder.parameter_groups(model, lr, weight_decay=1e-4, **rates)
    if layer_decay:
        rescale(groups, strategy)
    optimizer = torch.optim.AdamW(groups)
    transform = partial(data_setup.create_transform, MODEL, size=options.size)
    loader = data_setup.create_dataloader(
        splits.train, transform(augment=augment), shuffle=True, seed=seed
    )
    epochs = max(strategy.epochs, math.ceil(steps / len(loader)))
    steps = epochs * len(loader)
    averaged = None
    if ema:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
        optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    engine.train(
        model,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        device=device,
        scheduler=engine.warmup_cosine(optimizer, steps, warmup_steps=steps // 10),
        max_grad_norm=max_grad_norm,
        cache_frozen=not augment,
        verbose=False,
    )
    if ema:
        update_bn(loader, averaged)
        model = averaged.module
    val = data_setup.create_dataloader(splits.val, transform())
    found = engine.predict(model, val, device)
    return (found.predicted == found.labels).float()


def rescale(groups, strategy) -> None:
    """Let layer decay begin at the trunk's rate, and leave the head's as it is."""
    head = max(group["lr"] for group in groups)
    trunk = max(group["lr"] for group in groups if group["lr"] < head)
    for group in groups:
        if group["lr"] < head:
            group["lr"] *= strategy.trunk_lr / trunk


if __name__ == "__main__":
    main()
