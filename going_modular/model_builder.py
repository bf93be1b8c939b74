"""Pretrained models made ready for new classes: create, freeze, unfreeze, parameter groups, load.

Knows a model by its head and its blocks (`models.structure`), whichever library it comes from
(`models.weights`): no table of names, no data, no training loop.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import WeightsEnum

from going_modular.models import saved
from going_modular.models.fetching import WeightsError
from going_modular.models.structure import (
    Layer,
    blocks,
    find_heads,
    head,
    head_features,
    heads,
    layers,
    sizes,
)
from going_modular.models.weights import library, spell

__all__ = [
    "WeightsError",
    "blocks",
    "count_parameters",
    "create_model",
    "freeze",
    "head",
    "head_features",
    "heads",
    "load_model",
    "parameter_groups",
    "unfreeze",
]


def create_model(
    name: str,
    num_classes: int,
    weights: str | WeightsEnum | None = "DEFAULT",
    head: nn.Module | None = None,
    *,
    image_size: int | None = None,
    random_if_absent: bool = False,
) -> nn.Module:
    """Build a pretrained model with a new head for `num_classes` classes.

    `name` is torchvision's, or timm's with a prefix: "timm:vit_small_patch14_dinov2". `weights` is
    "DEFAULT", another of the model's weights or its name, or None for the same network from random
    weights. `head` takes the place of the last layer instead of a new one of the same kind: it
    maps (N, F) to (N, num_classes), F being `head_features(model)`, 512 for ResNet-18. (Where the
    last layer is a 1x1 convolution, as in SqueezeNet, it maps (N, F, H, W) to
    (N, num_classes, H, W).) Auxiliary heads always get a new last layer.

    Many transformers are built for one size of images. `image_size`, in pixels, is another one:
    timm fits the weights to it, torchvision's go with their own only.
    `random_if_absent` is for trying things out without a network: where the weights can be neither
    found nor downloaded, it says so on standard output and takes random ones.

    Raises ValueError for an unknown model, unknown weights or a head that does not fit, and
    WeightsError where the weights can be neither found nor downloaded.
    """
    source = library(name)
    name, found = source.find(spell(name), weights)
    config = source.config(name, found, image_size)
    if random_if_absent and found:
        try:
            source.fetch(found)
        except WeightsError as error:
            found = None
            print(str(error).splitlines()[0])
            print(f"RANDOM WEIGHTS: {name} runs, but what comes out means nothing.")
    return _create(name, num_classes, found, config, head)


def _create(
    name: str,
    num_classes: int,
    weights: Any,
    config: dict[str, Any],
    head: nn.Module | None,
) -> nn.Module:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: classification needs at least 2")
    model = library(name).build(name, weights, config)
    model.head_names = find_heads(model)
    *auxiliary, main = model.head_names
    for prefix in auxiliary:
        layer_name, layer = layers(model, prefix)[-1]
        _replace(model, layer_name, _like(layer, num_classes))
    layer = model.get_submodule(main)
    if head is None:
        head = _like(layer, num_classes)
    else:
        _check_head(head, layer, num_classes)
    _replace(model, main, head)
    model.blueprint = saved.Blueprint(name, config, _build_again)  # for utils.save_model
    return model


def load_model(
    path: str | Path, device: str | torch.device = "cpu", head: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a saved model, in eval mode, and what its file says about it.

    That is architecture, config (its constructor's arguments beside the number of classes),
    class_names, transform (ready to call), metrics, training and versions. A model that was created
    with a `head` of its own needs one of the same shape here.
    Raises FileNotFoundError, or ValueError for a file that is something else, damaged, or whose
    weights do not fit; nothing in it is run.
    """
    return saved.load(path, _build_again, device, head)


def _build_again(
    architecture: str, num_classes: int, config: dict[str, Any], head: nn.Module | None
) -> nn.Module:
    """Build the network of a saved model, with random weights."""
    name = spell(architecture)
    known = library(name).config(name, None)
    if unknown := config.keys() - known.keys():
        raise ValueError(f"it has no setting {', '.join(map(repr, sorted(unknown)))}")
    return _create(name, num_classes, None, known | config, head)


def freeze(model: nn.Module) -> nn.Module:
    """Freeze everything but the heads, in place."""
    return unfreeze(model, last=0)


def unfreeze(model: nn.Module, last: int | None = None) -> nn.Module:
    """Make the heads and the `last` blocks trainable and freeze the others, in place.

    None stands for all blocks, 0 for the heads alone; what was frozen before does not matter.
    """
    trunk = blocks(model)
    if last is None:
        last = len(trunk)
    if not 0 <= last <= len(trunk):
        raise ValueError(
            f"last is {last}: this model has {len(trunk)} blocks, so it can be "
            f"from 0 (the head alone) to {len(trunk)} (everything)"
        )
    model.requires_grad_(False)
    for block in trunk[len(trunk) - last :]:
        for parameter in block.parameters:
            parameter.requires_grad = True
    for module in heads(model).values():
        module.requires_grad_(True)
    return model


def parameter_groups(
    model: nn.Module,
    lr: float,
    trunk_lr: float | None = None,
    layer_decay: float | None = None,
    weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups for a torch optimizer, the heads' last.

    The heads learn at `lr`; the trunk at `trunk_lr` or, with `layer_decay` in (0, 1], the i-th
    block before the head at lr * layer_decay**i (https://arxiv.org/abs/1801.06146, section 3.2);
    with neither, at `lr`. `weight_decay` spares biases and normalisation: parameters with one
    dimension. None leaves it to the optimizer.
    """
    if trunk_lr is not None and layer_decay is not None:
        raise ValueError("trunk_lr and layer_decay both set the trunk's learning rate: give one")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay is {layer_decay}: it must be above 0 and at most 1")
    trunk = blocks(model)
    if layer_decay is None:
        trunk_parameters = [parameter for block in trunk for parameter in block.parameters]
        rates = [("trunk", trunk_parameters, lr if trunk_lr is None else trunk_lr)]
    else:
        rates = [
            (block.name, block.parameters, lr * layer_decay ** (len(trunk) - i))
            for i, block in enumerate(trunk)
        ]
    head_parameters = [p for module in heads(model).values() for p in module.parameters()]
    groups = []
    for name, parameters, rate in [*rates, ("head", head_parameters, lr)]:
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if weight_decay is None:
            groups.append({"name": name, "lr": rate, "params": trainable})
            continue
        decayed = [p for p in trainable if p.ndim > 1]
        spared = [p for p in trainable if p.ndim <= 1]
        groups.append({"name": name, "lr": rate, "weight_decay": weight_decay, "params": decayed})
        name = f"{name} (no decay)"
        groups.append({"name": name, "lr": rate, "weight_decay": 0.0, "params": spared})
    return [group for group in groups if group["params"]]


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the trainable parameters and all of them."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def _like(layer: Layer, num_classes: int) -> Layer:
    """Return a new layer of the same kind, with PyTorch's initial weights."""
    options = {
        "bias": layer.bias is not None,
        "device": layer.weight.device,
        "dtype": layer.weight.dtype,
    }
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes, **options)
    return nn.Conv2d(
        layer.in_channels, num_classes, layer.kernel_size, layer.stride, layer.padding, **options
    )


def _check_head(head: nn.Module, layer: Layer, num_classes: int) -> None:
    """Raise ValueError where the head cannot take the layer's place, by trying it."""
    features, _ = sizes(layer)
    shape = (2, features) if isinstance(layer, nn.Linear) else (2, features, 8, 8)
    modes = {module: module.training for module in head.modules()}
    try:
        with torch.no_grad():
            logits = head.eval()(layer.weight.new_zeros(shape))
    except RuntimeError as error:
        raise ValueError(f"The head does not take {shape}, as the old one did: {error}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if logits.shape[:2] != (2, num_classes) or logits.ndim != len(shape):
        raise ValueError(
            f"The head maps {shape} to {tuple(logits.shape)}: "
            f"it must give {num_classes} logits per image"
        )


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
