"""What a training run prints: progress bars, and a line for each epoch.

Knows numbers and loaders; computes nothing.
"""

from typing import Any

from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from going_modular.training import processes
from going_modular.utils import is_watched


def epoch_line(epoch: int, epochs: int, row: dict[str, float]) -> str:
    figures = "  ".join(
        f"{key} {value:.4f}" for key, value in row.items() if key.endswith(("_loss", "_acc"))
    )
    return f"epoch {epoch}/{epochs}  {figures}  {row['seconds']:.1f} s"


def say(text: str, verbose: bool) -> None:
    if text and verbose and processes.is_main():
        print(text, flush=True)


def progress_bar(dataloader: DataLoader, name: str, show: bool) -> Any:
    """Wrap in a progress bar where somebody watches it."""
    if not show or not is_watched():
        return dataloader
    # A generator: of a loader itself, tqdm.auto makes one iterator more than it uses, which draws
    # from the loader's random numbers and starts its workers twice.
    batches = (batch for batch in dataloader)
    return tqdm(batches, desc=name, total=len(dataloader), leave=False, unit="batch")
