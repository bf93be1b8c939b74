"""torchvision's classification networks, those registered with it, and their weights."""

import typing
import warnings
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights, list_models
from torchvision.transforms._presets import ImageClassification  # what weights.transforms() returns

from going_modular.models.fetching import fetching, reading


def names() -> list[str]:
    """List the classification networks: torchvision's own and those registered from outside it."""
    others = [
        name
        for name in list_models()
        if not get_model_builder(name).__module__.startswith("torchvision.")
    ]
    return sorted(list_models(module=torchvision.models) + others)


def describe(name: str) -> str:
    """Write a network's size, its images' and its ImageNet accuracy: those of its best weights."""
    weights = get_model_weights(name).DEFAULT
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    millions = weights.meta["num_params"] / 1e6
    return (
        f"{name:<20} {millions:6.1f} million parameters  "
        f"{weights.transforms().crop_size[0]} px  ImageNet {accuracy:.3f}"
    )


def find(name: str, weights: str | WeightsEnum | None) -> tuple[str, WeightsEnum | None]:
    """Return a known network's name as torchvision spells it, and the weights that are meant."""
    if weights is None:
        return name, None
    members = get_model_weights(name)
    try:
        return name, members.verify(weights)
    except (KeyError, TypeError):
        known = ", ".join(member.name for member in members)
        raise ValueError(
            f"{name} has no weights {weights!r}: choose from DEFAULT, {known}, "
            "or None for random weights"
        ) from None


def config(name: str, weights: WeightsEnum | None, image_size: int | None = None) -> dict[str, Any]:
    """Return the arguments that make the network the same with and without weights.

    Some of torchvision's builders change the network together with the weights: auxiliary heads
    and input scaling (Inception, GoogLeNet), the size of the position embedding (ViT).
    """
    model_class = typing.get_type_hints(get_model_builder(name)).get("return", nn.Module)
    same = {"aux_logits": True, "transform_input": True, "init_weights": weights is None}
    parameters = signature(model_class).parameters
    chosen = {key: value for key, value in same.items() if key in parameters}
    if "image_size" in parameters:
        own = (weights or get_model_weights(name).DEFAULT).meta["min_size"][0]
        if weights and image_size not in (None, own):
            raise ValueError(
                f"The weights {weights} are for images of {own} pixels, not {image_size}: leave "
                "image_size out, or take a model of timm's, which fits its weights to the size"
            )
        chosen["image_size"] = image_size or own
    return chosen


def fetch(weights: WeightsEnum) -> Path | None:
    """Return the file of the weights, downloaded if need be; None where they need no download."""
    if not weights.url.startswith("http"):
        return None
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(weights.url).path).name)
    if not path.exists():
        with fetching(str(weights), weights.url, path):
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    return path


def build(name: str, weights: WeightsEnum | None, config: dict[str, Any]) -> nn.Module:
    """Build the network as torchvision does, with the head of its 1,000 classes."""
    if weights is None:
        return get_model_builder(name)(weights=None, **config)
    path = fetch(weights)
    with reading(path), warnings.catch_warnings():
        # GoogLeNet's warning: its auxiliary heads are replaced, and trained.
        warnings.filterwarnings("ignore", "auxiliary heads in the pretrained googlenet")
        if path:  # torchvision's builders would run code in a file that somebody put there
            weights.get_state_dict(weights_only=True)
        return get_model_builder(name)(weights=weights, **config)


def transform(name: str, weights: WeightsEnum | None, size: int | None) -> ImageClassification:
    """Return the transform that the weights expect, for a crop of `size` pixels."""
    weights = weights or get_model_weights(name).DEFAULT
    preset = weights.transforms()
    if size is None:
        return preset
    resize_size = round(size * preset.resize_size[0] / preset.crop_size[0])
    return weights.transforms(crop_size=size, resize_size=resize_size)
