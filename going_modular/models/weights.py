"""A model's name: which library it belongs to, and which transform its weights expect.

`from_torchvision` and `from_timm` know the rest, by the same functions.
"""

import difflib
import fnmatch
from types import ModuleType
from typing import Any

from torchvision.transforms._presets import ImageClassification

from going_modular.models import from_timm, from_torchvision


def library(name: str) -> ModuleType:
    """Return the module that knows a model of this name."""
    return from_timm if name.startswith(from_timm.PREFIX) else from_torchvision


def listing(pattern: str) -> str:
    """Describe the models whose names fit a pattern such as "resnet*" or "timm:*dinov2*"."""
    if pattern.startswith(from_timm.PREFIX):
        lines = fnmatch.filter(from_timm.names(), pattern)
    else:
        lines = map(from_torchvision.describe, fnmatch.filter(from_torchvision.names(), pattern))
    return "\n".join(lines) or f"no model's name fits {pattern!r}"


def spell(name: str) -> str:
    """Return a model's name as its library spells it; raise ValueError for an unknown one."""
    name = name.lower()
    names = library(name).names()
    architecture = name.partition(".")[0]  # timm's tags of weights are checked by its module
    if architecture in names:
        return name
    close = difflib.get_close_matches(architecture, names)
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known models: {', '.join(names)}."
    raise ValueError(f"Unknown model {name!r}. {hint}")


def preset(name: str, weights: Any, size: int | None) -> ImageClassification:
    """Return the transform that a model's pretrained weights expect; those of None are DEFAULT's.

    `size` is the side of the crop in pixels; the resize before it keeps the weights' proportion.
    """
    name, found = library(name).find(spell(name), None if weights == "DEFAULT" else weights)
    return library(name).transform(name, found, size)
