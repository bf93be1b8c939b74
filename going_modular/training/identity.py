"""How to tell that two runs see the same: hashes of tensors, settings and data.

Knows contents; where they lie and what they are called does not count.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset


def digest(contents: Iterable[Any]) -> str:
    """Return a hash of tensors, bytes and plain values, in their order."""
    made_of = hashlib.sha256()
    for content in contents:
        if isinstance(content, Tensor):
            made_of.update(repr((content.dtype, tuple(content.shape))).encode())
            content = content.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        elif not isinstance(content, bytes):
            content = repr(content).encode()
        made_of.update(content)
    return made_of.hexdigest()


def fingerprint(dataset: Dataset) -> str | None:
    """Return a hash of all that a data set gives, in its order; None where it cannot be told."""
    if type(dataset) is TensorDataset:
        return digest(dataset.tensors)
    return dataset.fingerprint() if hasattr(dataset, "fingerprint") else None
