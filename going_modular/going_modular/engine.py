"""`train_step`, `test_step` and `train`, under the course's names."""

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from going_modular import engine
from going_modular.engine import test_step as test_step
from going_modular.engine import train_step as train_step


def train(
    model: nn.Module,
    train_dataloader: DataLoader,
    test_dataloader: DataLoader,
    optimizer: Optimizer,
    loss_fn: nn.Module,
    epochs: int,
    device: torch.device | str,
) -> dict[str, list[float]]:
    """Train and look at the test loader after every epoch; return four lists, one entry per epoch.

    train_loss, train_acc, test_loss and test_acc are means over examples, where the course takes
    means of batch means.
    """
    history = engine.train(
        model,
        train_dataloader,
        test_dataloader,
        optimizer=optimizer,
        loss_fn=loss_fn,
        epochs=epochs,
        device=device,
    )
    return {
        "train_loss": history["train_loss"],
        "train_acc": history["train_acc"],
        "test_loss": history["val_loss"],
        "test_acc": history["val_acc"],
    }
