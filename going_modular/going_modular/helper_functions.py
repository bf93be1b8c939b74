"""What the course's notebooks import from `helper_functions`, a file beside them."""

from pathlib import Path

from torchvision.datasets.utils import download_and_extract_archive

from going_modular.utils import plot_curves as plot_loss_curves
from going_modular.utils import seed_everything

__all__ = ["download_data", "plot_loss_curves", "set_seeds"]


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
