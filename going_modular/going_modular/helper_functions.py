"""What the course's notebooks import from `helper_functions`, a file beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from torchvision.datasets.utils import download_and_extract_archive

from going_modular.utils import seed_everything


def set_seeds(seed: int = 42) -> None:
    """Seed Python, NumPy and PyTorch."""
    seed_everything(seed)


def download_data(source: str, destination: str, remove_source: bool = True) -> Path:
    """Download a zip file and unpack it to `data/destination`, unless that is there already."""
    folder = Path("data", destination)
    if not folder.is_dir():
        download_and_extract_archive(
            source, download_root="data", extract_root=folder, remove_finished=remove_source
        )
    return folder


def plot_loss_curves(results: Mapping[str, Sequence[float]]) -> None:
    """Draw the losses and the accuracies of `engine.train` over the epochs."""
    epochs = range(1, len(results["train_loss"]) + 1)
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, quantity, title in zip(axes, ("loss", "acc"), ("Loss", "Accuracy"), strict=True):
        for name in ("train", "test"):
            axis.plot(epochs, results[f"{name}_{quantity}"], "o-", label=name)
        axis.set(title=title, xlabel="Epoch")
        axis.legend()
