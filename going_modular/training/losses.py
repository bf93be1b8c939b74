"""Losses for classes of unequal size; they know how many images each class has, no more."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BALANCES = ("none", "weights", "logits")


def cross_entropy(balance: str, counts: Sequence[int], label_smoothing: float = 0.0) -> nn.Module:
    """Return cross-entropy that lets classes count by their images, or all alike.

    `counts` are the training images of each class. "weights" multiplies an image's loss by the
    inverse of its class's share; "logits" adds the log of the share to the logits in training,
    so that the bare logits, which are used afterwards, favour no class.
    """
    shares = torch.tensor(counts, dtype=torch.float32) / sum(counts)
    if balance == "weights":
        return nn.CrossEntropyLoss(1 / (len(counts) * shares), label_smoothing=label_smoothing)
    if balance == "logits":
        return LogitAdjustedLoss(shares, label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits (N, classes) plus the log of each class's share (classes,).

    Source: Menon et al. 2021, https://arxiv.org/abs/2007.07314.
    """

    def __init__(self, shares: Tensor, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("log_shares", shares.log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        adjusted = logits + self.log_shares
        return F.cross_entropy(adjusted, labels, label_smoothing=self.label_smoothing)
