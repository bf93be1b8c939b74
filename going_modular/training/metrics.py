"""What training and evaluation measure: counts and means over examples, and the best epoch.

Knows logits, labels and a model's weights; not how they came about.
"""

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from going_modular.training.cutting import trained_state


class History(dict):
    """What `engine.train` measured: a dict of lists, one entry per epoch, and `best_epoch`.

    The keys: train_loss, train_acc, lr, seconds, and val_loss, val_acc with a `val_dataloader` or
    test_loss, test_acc with a `test_dataloader`. Losses and accuracies are means over examples.
    """

    best_epoch: int | None = None  # counted from 1; None where no validation set was looked at


class Predictions(NamedTuple):
    """Logits (N, classes) in float32 and labels on the CPU, in the loader's order.

    Labels are class numbers (N,), or shares of the classes (N, classes).
    """

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> int:
        return int(count_correct(self.logits, self.labels))

    @property
    def accuracy(self) -> float:
        return self.correct / len(self.labels)


@dataclass(frozen=True)
class Evaluation:
    """One loader's result: mean loss, and `correct` of `total` examples."""

    loss: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the rows (N, classes) whose largest logit is the label's.

    Labels are class numbers (N,), or shares of the classes (N, classes) as MixUp makes them, of
    which the largest counts. Raises ValueError for all others, such as several classes at once.
    """
    if logits.ndim == 2 and labels.shape == logits.shape[:1] and not labels.is_floating_point():
        return (logits.argmax(dim=1) == labels).sum()
    if logits.ndim == 2 and labels.shape == logits.shape and logits.shape[1] > 1:
        if ((labels.sum(dim=1) - 1).abs() < 0.01).all():  # the precision of bfloat16
            return (logits.argmax(dim=1) == labels.argmax(dim=1)).sum()
    raise ValueError(
        f"Accuracy is not defined for logits {tuple(logits.shape)} and labels "
        f"{tuple(labels.shape)} in {str(labels.dtype).removeprefix('torch.')}: labels are "
        "class numbers (N,), or shares (N, classes) that sum to 1 in each row."
    )


class Best:
    """The best epoch so far by validation loss or accuracy, and the weights it ended with."""

    def __init__(self, quantity: str | None) -> None:
        """Judge by "loss" or "acc"; None judges by the loss and keeps no weights."""
        self.quantity = quantity
        self.epoch, self.score, self.weights = 0, -math.inf, {}

    def update(self, epoch: int, loss: float, accuracy: float, model: nn.Module) -> None:
        """Note the epoch if it is better than all before; one without a finite loss never is."""
        score = accuracy if self.quantity == "acc" else -loss
        if math.isfinite(loss) and score > self.score:
            self.epoch, self.score = epoch, score
            if self.quantity:
                self.weights = copy.deepcopy(trained_state(model))
