"""timm's networks under the name "timm:NAME" or "timm:NAME.TAG", and their weights from its hub.

The tag names the weights, as in timm. Only weights in the safetensors format are read: nothing in
such a file is run.
"""

import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from going_modular.models.fetching import fetching, reading

PREFIX = "timm:"


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Models whose names begin with {PREFIX} come from timm, which is not installed: "
            "run `pip install timm`",
            name="timm",
        ) from error
    return timm


def names() -> list[str]:
    """List the networks, without the tags of their weights."""
    return [PREFIX + name for name in _timm().list_models()]


def find(name: str, weights: str | None) -> tuple[str, Any]:
    """Return a known network's name with the tag of its weights, and timm's record of these."""
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    if weights not in (None, "DEFAULT"):
        tag = weights
    tags = [known.partition(".")[2] for known in _timm().list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"{PREFIX}{architecture} has no weights {tag!r}: choose from "
            f"{', '.join(['DEFAULT', *tags])}, or None for random weights"
        )
    record = _record(f"{architecture}.{tag}" if tag else architecture)
    if weights is not None and not record.hf_hub_id:
        raise ValueError(
            f"The weights of {name} are not on timm's hub: take another model, or weights=None "
            "for random ones"
        )
    name = f"{PREFIX}{architecture}.{record.tag}" if record.tag else name
    return name, None if weights is None else record


def config(name: str, weights: Any, image_size: int | None = None) -> dict[str, Any]:
    """Return the side of the images in pixels, where the network is built for one size."""
    record = _record(name)
    return {"img_size": image_size or record.input_size[-1]} if record.fixed_input_size else {}


def fetch(weights: Any) -> Path:
    """Return the file of the weights in the hub's cache, downloaded if need be."""
    import huggingface_hub as hub

    repository, file = weights.hf_hub_id, weights.hf_hub_filename or "model.safetensors"
    cached = hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    folder = Path(hub.constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
    with fetching(repository, hub.hf_hub_url(repository, file), folder):
        return Path(hub.hf_hub_download(repository, file))


def build(name: str, weights: Any, config: dict[str, Any]) -> nn.Module:
    """Build the network as timm does, with the head of its own classes; say the weights' licence.

    Weights without a head, such as DINOv2's, get one for 1,000 classes.
    """
    timm, record = _timm(), _record(name)
    options = {**config, "num_classes": record.num_classes or 1000}
    name = name.removeprefix(PREFIX)
    if weights is None:
        return timm.create_model(name, **options)
    path = fetch(weights)
    print(
        f"{PREFIX}{name}: licence of the weights: {record.license or 'not known to timm'} "
        f"(https://huggingface.co/{record.hf_hub_id})"
    )
    here = {"file": str(path), "custom_load": False}
    with reading(path):
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=here, **options)


def transform(name: str, weights: Any, size: int | None) -> ImageClassification:
    """Return timm's transform for the weights as torchvision's preset, for a crop of `size` pixels.

    Warns where timm does not crop the middle: the preset always does.
    """
    chosen = _timm().data.resolve_data_config(pretrained_cfg=(weights or _record(name)).to_dict())
    if chosen["crop_mode"] != "center":
        warnings.warn(
            f"For {name}, timm prepares images by {chosen['crop_mode']!r}, which loses nothing of "
            "a long one; here the middle is cropped, as for other models",
            stacklevel=4,  # whoever called data_setup.create_transform
        )
    size = size or chosen["input_size"][-1]
    return ImageClassification(
        crop_size=size,
        resize_size=math.floor(size / chosen["crop_pct"]),
        mean=chosen["mean"],
        std=chosen["std"],
        interpolation=InterpolationMode(chosen["interpolation"]),
    )


def _record(name: str) -> Any:
    """Return timm's PretrainedCfg of a network: its weights, their licence and their images."""
    record = _timm().get_pretrained_cfg(name.removeprefix(PREFIX))
    channels, height, width = record.input_size
    if channels != 3 or height != width:
        raise ValueError(
            f"{name} takes images of {height} x {width} pixels in {channels} channels: "
            "choose a model for square colour images"
        )
    return record
