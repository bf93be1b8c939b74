"""Train the embedded network in float64, alone or under torchrun, and compare what came out.

    python tests/by_hand/equalities.py full one.pt
    torchrun --nproc-per-node 2 tests/by_hand/equalities.py full two.pt
    python tests/by_hand/equalities.py compare one.pt two.pt

Without dropout and stochastic depth, for which each process draws numbers of its own. In float64,
since float32's rounding is no small matter to AdamW: a gradient that is zero but for its rounding
moves a weight as far as any other.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import StochasticDepth
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from going_modular import data_setup, engine, model_builder, utils
from going_modular.training import processes

BLOCKS = {"feature_extraction": 0, "partial": 3, "full": 9}


def fit(strategy: str, out: Path) -> None:
    """Train for two epochs on ten charts a class at 64 pixels; save history and weights."""
    utils.seed_everything(42)
    splits = data_setup.load("charts")
    preset = data_setup.create_transform("efficientnet_lite0", size=64)
    transform = v2.Compose([preset, v2.ToDtype(torch.float64)])
    loaders = [
        data_setup.create_dataloader(
            split.few(10), transform, batch_size=32, shuffle=i == 0, seed=7
        )
        for i, split in enumerate((splits.train, splits.val))
    ]
    model = model_builder.create_model("efficientnet_lite0", 12).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
    model_builder.unfreeze(model, last=BLOCKS[strategy])
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, 2e-3, trunk_lr=5e-4))
    history = engine.train(
        model,
        *loaders,
        optimizer,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        epochs=2,
        device="cpu",
        dtype=torch.float32,  # no autocast
        scheduler=engine.warmup_cosine(optimizer, 2 * len(loaders[0])),
        cache_frozen=strategy != "full",
    )
    if processes.is_main():
        torch.save({"history": dict(history), "state_dict": model.state_dict()}, out)


def compare(one: Path, *others: Path) -> None:
    """Print the largest difference of any number in the history, and of any weight or buffer."""
    expected = torch.load(one, weights_only=True)
    print(f"{'beside ' + one.name:<30}  {'history':>9}  {'weights':>9}")
    for other in others:
        found = torch.load(other, weights_only=True)
        history = max(
            abs(a - b)
            for name, column in expected["history"].items()
            for a, b in zip(column, found["history"][name], strict=True)
            if name != "seconds"
        )
        weights = max(
            (value.double() - found["state_dict"][name].double()).abs().max().item()
            for name, value in expected["state_dict"].items()
        )
        print(f"{other.name:<30}  {history:9.1e}  {weights:9.1e}")


if __name__ == "__main__":
    if sys.argv[1] == "compare":
        compare(*map(Path, sys.argv[2:]))
    else:
        with processes.process_group():
            fit(sys.argv[1], Path(sys.argv[2]))
