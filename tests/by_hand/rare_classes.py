"""What --balance brings and costs: half of the charts' classes with 4 images, half with 40.

`python tests/by_hand/rare_classes.py`: the probe at 128 px, ten draws, on validation; balanced
accuracy, and the recall of rare and of common classes, as mean and standard deviation.
"""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from going_modular import data_setup, engine, evaluation, model_builder, utils
from going_modular.training import losses

DRAWS, RARE, COMMON = 10, 4, 40


def main() -> None:
    splits = data_setup.load("charts")
    transform = data_setup.create_transform("efficientnet_lite0", size=128)
    model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
    train, val = (
        engine.extract_features(model, data_setup.create_dataloader(split, transform))
        for split in (splits.train, splits.val)
    )
    targets = torch.tensor(splits.train.targets)
    for balance in losses.BALANCES:
        rows = [measure(balance, train, val, targets, seed) for seed in range(DRAWS)]
        cells = (evaluation.mean_and_std(column) for column in zip(*rows, strict=True))
        print(f"{balance:<8}", *("{:.3f} ± {:.3f}".format(*cell) for cell in cells), sep="  ")


def measure(balance, train, val, targets, seed) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(seed)
    rare = torch.randperm(12, generator=generator)[:6].tolist()
    order = torch.randperm(len(targets), generator=generator)
    counts = [RARE if label in rare else COMMON for label in range(12)]
    chosen = [i for k, n in enumerate(counts) for i in order[targets[order] == k][:n].tolist()]
    utils.seed_everything(seed)
    head = torch.nn.Linear(1280, 12)
    loader = DataLoader(Subset(train, chosen), 32, shuffle=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    steps = 20 * len(loader)
    engine.train(
        head,
        loader,
        optimizer=optimizer,
        loss_fn=losses.cross_entropy(balance, counts),
        epochs=20,
        scheduler=engine.warmup_cosine(optimizer, steps, steps // 10),
        dtype=torch.float32,
        verbose=False,
    )
    found = engine.predict(head, DataLoader(val, 360), dtype=torch.float32)
    right = (found.predicted == found.labels).float()
    is_rare = torch.isin(found.labels, torch.tensor(rare))
    balanced = evaluation.balanced_accuracy(found.labels, found.predicted)
    return balanced, right[is_rare].mean().item(), right[~is_rare].mean().item()


if __name__ == "__main__":
    main()
