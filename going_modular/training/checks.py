"""What training refuses, and what it says then: parts that do not belong together.

Knows models, loaders, optimizers and schedulers; trains nothing.
"""

import warnings
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler
from torch.utils.data import DataLoader

NO_BATCH = "The dataloader gave no batch: is drop_last=True, with less data than one batch?"


def watched_loader(
    val_dataloader: DataLoader | None, test_dataloader: DataLoader | None
) -> tuple[DataLoader | None, str]:
    """Return the loader that is looked at after every epoch, and what its results are called."""
    if test_dataloader is None:
        return val_dataloader, "val"
    if val_dataloader is not None:
        raise ValueError(
            "train looks at one loader after every epoch: give val_dataloader, and keep the test "
            "set for one call of evaluate() at the very end."
        )
    warnings.warn(
        "test_dataloader is looked at after every epoch, which makes it a validation set: choose "
        "by it, but keep other images for the final test.",
        stacklevel=3,
    )
    return test_dataloader, "test"


def check_best(watched: DataLoader | None, keep_best: str | None, patience: int | None) -> None:
    """Refuse to choose an epoch by what is not measured."""
    if keep_best not in (None, "loss", "acc"):
        raise ValueError(f'keep_best={keep_best!r}: use "loss" or "acc".')
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience}: use 1 or more, or None to train all epochs.")
    if (keep_best or patience) and watched is None:
        raise ValueError("keep_best and patience need a val_dataloader to judge the epochs by.")


def check_optimizer(optimizer: Optimizer | None, model: nn.Module, loss_fn: object) -> None:
    """Refuse an optimizer that does not hold all that is trainable, or that trains something else.

    What is frozen may be in it; so may parameters of the loss.
    """
    if optimizer is None:
        raise ValueError("train needs an optimizer, such as torch.optim.Adam(parameters, lr=1e-3).")
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("The model has no trainable parameter: unfreeze what should train.")
    missing = [name for key, name in trainable.items() if key not in held]
    if missing:
        raise ValueError(
            f"The optimizer does not hold {_some(missing)}, which would not train: make it after "
            "the last change to the model, or freeze what should not train."
        )
    own = trainable.keys() | {id(p) for p in getattr(loss_fn, "parameters", list)()}
    foreign = [str(tuple(p.shape)) for key, p in held.items() if p.requires_grad and key not in own]
    if foreign:
        raise ValueError(
            f"The optimizer holds parameters of shape {_some(foreign)} that are not the model's: "
            "make it from the parameters of the model that is trained."
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def is_stepped_per_batch(
    scheduler: LRScheduler | None, optimizer: Optimizer, dataloader: DataLoader, epochs: int
) -> bool:
    """Tell whether a scheduler counts batches: it has `total_steps`, or is a CyclicLR.

    Raises ValueError where it counts to another number than this run's, or turns the rates of
    another optimizer.
    """
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "The scheduler is for another optimizer: make it from the one that trains."
        )
    planned = getattr(scheduler, "total_steps", None)
    if planned is None:
        return isinstance(scheduler, CyclicLR)
    steps = epochs * len(dataloader)
    if planned != steps:
        raise ValueError(
            f"The {type(scheduler).__name__} was made for {planned} steps, but this run takes "
            f"{steps} (epochs x batches per epoch)."
        )
    return True


def check_batch_of_one(error: ValueError, batch: int) -> None:
    """Warn that a BatchNorm cannot train on a last batch of one; raise any other `error`."""
    if "value per channel" not in str(error):
        raise error
    if batch == 1:
        raise ValueError(
            "BatchNorm cannot train on a batch that gives it one value per channel: use a "
            "batch_size of 2 or more."
        ) from error
    warnings.warn(
        "The last batch of each epoch is a single image and is left out: BatchNorm needs two or "
        "more to train. Another batch_size uses it; drop_last=True leaves it out without this "
        "warning.",
        stacklevel=4,
    )


def check_steps(steps: int, examples: int, epoch: int, scale: float) -> None:
    """Refuse to call an epoch one in which no step was taken."""
    if not examples:
        raise ValueError(NO_BATCH)
    if not steps:
        raise FloatingPointError(
            f"No step was taken in epoch {epoch}: in float16 the gradients of every batch "
            f"overflow, even with a loss scale of {scale:g}. Use dtype=torch.float32."
        )
