"""Pretrained models made ready for new classes: head, blocks, freeze, unfreeze, parameter groups.

Knows models by their structure only: no table of names, no data, no training loop.
"""

import contextlib
import difflib
import hashlib
import os
import re
import socket
import threading
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights, list_models

from going_modular import utils
from going_modular.models import saved

CONNECT_SECONDS = 10  # until a server must have answered, name lookup included
STALL_SECONDS = 30  # between two pieces of a running download, however long it takes in all
NEARLY_ALL = 0.95  # torchvision's containers hold over 0.99, its largest stage 0.89

Part = tuple[str, nn.Module | nn.Parameter]  # of a model: its name in it, and what it is

_unreachable: set[str] = set()  # hosts that `_is_at_hand` has asked in vain


class WeightsError(RuntimeError):
    """Pretrained weights cannot be downloaded, or their file is damaged."""


@dataclass(frozen=True)
class Block:
    """A stretch of the trunk, from input to head; `name` joins the names of its parts."""

    name: str
    modules: list[nn.Module]
    parameters: list[nn.Parameter]


def model_names() -> list[str]:
    """List the classification models: torchvision's own and those registered from outside it."""
    others = [
        name
        for name in list_models()
        if not get_model_builder(name).__module__.startswith("torchvision.")
    ]
    return sorted(list_models(module=torchvision.models) + others)


def create_model(
    name: str,
    num_classes: int,
    weights: str | WeightsEnum | None = "DEFAULT",
    head: nn.Module | None = None,
    *,
    random_if_absent: bool = False,
) -> nn.Module:
    """Build a torchvision model with a new head for `num_classes` classes.

    `weights` is "DEFAULT", another of the model's weights or its name, or None for the same
    network from random weights. `head` takes the place of the last layer instead of a new one of
    the same kind: it maps (N, F) to (N, num_classes), F being `head_features(model)`, 512 for
    ResNet-18. (Where the last layer is a 1x1 convolution, as in SqueezeNet, it maps
    (N, F, H, W) to (N, num_classes, H, W).) Auxiliary heads always get a new last layer.
    `random_if_absent` is for trying things out without a network: where the weights can be neither
    found nor downloaded, it says so on standard output and takes random ones.

    Raises ValueError for an unknown model, unknown weights or a head that does not fit, and
    WeightsError where the weights can be neither found nor downloaded.
    """
    name = _check_name(name)
    found = _find_weights(name, weights)
    config = _config(name, found)
    if random_if_absent and found and not _is_at_hand(name, found):
        found = None
    return _create(name, num_classes, found, config, head)


def _create(
    name: str,
    num_classes: int,
    weights: WeightsEnum | None,
    config: dict[str, Any],
    head: nn.Module | None,
) -> nn.Module:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: classification needs at least 2")
    model = _build(name, weights, config)
    model.head_names = _find_heads(model)
    *auxiliary, main = model.head_names
    for prefix in auxiliary:
        layer_name, layer = _layers(model, prefix)[-1]
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
    name = _check_name(architecture)
    known = _config(name, None)
    if unknown := config.keys() - known.keys():
        raise ValueError(f"it has no setting {', '.join(map(repr, sorted(unknown)))}")
    return _create(name, num_classes, None, known | config, head)


def head(model: nn.Module) -> nn.Module:
    """Return the module that turns features into logits: the last layer, or what replaced it."""
    return list(heads(model).values())[-1]


def heads(model: nn.Module) -> dict[str, nn.Module]:
    """Return every head by name: the auxiliary ones (Inception, GoogLeNet), then the main one."""
    modules = dict(model.named_modules())
    names = getattr(model, "head_names", ())
    if not names or not modules.keys() >= set(names):
        names = _find_heads(model)
    return {name: modules[name] for name in names}


def head_features(model: nn.Module) -> int:
    """Return the number of features that the main head takes: 512 for ResNet-18."""
    return _sizes(_layers(head(model))[0][1])[0]


def blocks(model: nn.Module) -> list[Block]:
    """List the blocks between input and head, in forward order.

    Each parameter that is not a head's is in exactly one block. The rule: open the model into
    its children; while one of them holds nearly all parameters of those that can be opened
    (`features`, `encoder`), or holds a head, open it too. What has no weight matrix or kernel of
    its own, a normalisation layer or a class token, joins the block before it, or the first.
    """
    head_modules = set(heads(model).values())
    parts = _open("", model, head_modules)
    while (index := _dominant(parts)) is not None:
        parts[index : index + 1] = _open(*parts[index], head_modules)
    groups: list[list[Part]] = []
    for part in parts:
        if not groups or (_has_weights(part) and any(map(_has_weights, groups[-1]))):
            groups.append([])
        groups[-1].append(part)
    return [_to_block(group) for group in groups]


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


def _check_name(name: str) -> str:
    """Return the name as torchvision spells it."""
    names = model_names()
    if name.lower() in names:
        return name.lower()
    close = difflib.get_close_matches(name.lower(), names)
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known are: {', '.join(names)}."
    raise ValueError(f"Unknown model {name!r}. {hint}")


def _find_weights(name: str, weights: str | WeightsEnum | None) -> WeightsEnum | None:
    """Return the member of the model's weights that is meant."""
    if weights is None:
        return None
    members = get_model_weights(name)
    try:
        return members.verify(weights)
    except (KeyError, TypeError):
        known = ", ".join(member.name for member in members)
        raise ValueError(
            f"{name} has no weights {weights!r}: choose from DEFAULT, {known}, "
            "or None for random weights"
        ) from None


def _build(name: str, weights: WeightsEnum | None, config: dict[str, Any]) -> nn.Module:
    """Build the model as torchvision does, the weights' file fetched first."""
    build = get_model_builder(name)
    if weights is None:
        return build(weights=None, **config)
    path = _fetch(weights)
    try:
        with warnings.catch_warnings():
            # GoogLeNet's warning: they are replaced and trained here.
            warnings.filterwarnings("ignore", "auxiliary heads in the pretrained googlenet")
            with _weights_only():
                return build(weights=weights, **config)
    except Exception as error:
        if _is_damaged(path):
            raise WeightsError(
                f"{path} is damaged, or is not the file at {weights.url}: delete it and try again"
            ) from error
        raise


def _config(name: str, weights: WeightsEnum | None) -> dict[str, Any]:
    """Return the arguments that make the network the same with and without weights.

    Some of torchvision's builders change the network together with the weights: auxiliary heads
    and input scaling (Inception, GoogLeNet), the size of the position embedding (ViT).
    """
    model_class = typing.get_type_hints(get_model_builder(name)).get("return", nn.Module)
    same = {"aux_logits": True, "transform_input": True, "init_weights": weights is None}
    parameters = signature(model_class).parameters
    config = {key: value for key, value in same.items() if key in parameters}
    if "image_size" in parameters:
        config["image_size"] = (weights or get_model_weights(name).DEFAULT).meta["min_size"][0]
    return config


def _is_at_hand(name: str, weights: WeightsEnum) -> bool:
    """Tell whether the weights are in the cache now, downloaded if need be; if not, say so.

    A host that cannot be reached is asked once a process: a lesson with many models, in a room
    without a network, waits for the first of them only.
    """
    path, host = _cache_path(weights), urlparse(weights.url).netloc
    if path.exists() or host not in _unreachable:
        try:
            _fetch(weights)
            return True
        except WeightsError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not isinstance(cause, HTTPError):
                _unreachable.add(host)
            print(
                f"{path.name} is not in {path.parent} and cannot be downloaded: {cause}. "
                "To try again, restart Python."
            )
    print(f"RANDOM WEIGHTS: {name} runs, but what comes out means nothing.")
    return False


def _fetch(weights: WeightsEnum) -> Path:
    """Return the path of the weights' file in torchvision's cache, downloaded if need be."""
    path = _cache_path(weights)
    if weights.url.startswith("http") and not path.exists():
        _download(weights, path)
    return path


def _cache_path(weights: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def _download(weights: WeightsEnum, path: Path) -> None:
    """Let torchvision download the file, after the server has shown that it is there.

    Before the network is built, so that the error comes within seconds for a large one too.
    """
    timeout = socket.getdefaulttimeout()
    try:
        if utils.is_offline():
            raise ConnectionError("GOING_MODULAR_OFFLINE is set")
        _knock(weights.url)
        socket.setdefaulttimeout(STALL_SECONDS)
        with _weights_only():
            weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"The weights {weights} cannot be downloaded: {error}\n"
            f"  from  {weights.url}\n"
            f"  to    {path}\n"
            "Fetch that file on another machine and put it there under this name, or use "
            'create_model("efficientnet_lite0", ...), whose weights need no download.'
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let no file in the cache run code: torchvision opens it with weights_only=False."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ |= {name: value for name, value in before.items() if value is not None}


def _knock(url: str) -> None:
    """Open the URL and close it again; raise what prevents it.

    In a thread, which is left behind if it hangs: a socket's timeout bounds neither the name
    lookup nor the sum over all addresses of a host.
    """
    errors: list[Exception] = [TimeoutError(f"no answer within {CONNECT_SECONDS} seconds")]

    def knock() -> None:
        try:
            request = Request(url, headers={"User-Agent": "torch.hub"})
            urlopen(request, timeout=CONNECT_SECONDS).close()
            errors.clear()
        except Exception as error:
            errors[:] = [error]

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if errors:
        raise errors[0]


def _is_damaged(path: Path) -> bool:
    """Compare the file with the start of its SHA-256 in its name: resnet18-f37072fd.pth."""
    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if not named or not path.is_file():
        return False
    return not hashlib.sha256(path.read_bytes()).hexdigest().startswith(named[1])


def _layers(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    """List the Linear and Conv2d layers in the submodule `prefix`, by their names in the model."""
    module = model.get_submodule(prefix)
    layers = [
        (name, layer)
        for name, layer in module.named_modules(prefix=prefix)
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise ValueError(f"{type(module).__name__} has no Linear or Conv2d layer")
    return layers


def _sizes(layer: nn.Linear | nn.Conv2d) -> tuple[int, int]:
    """Return the number of features that go in and come out."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _find_heads(model: nn.Module) -> tuple[str, ...]:
    """Find the heads by inspection, the main one last.

    The main head is the model's last layer. An auxiliary head is another child of the model, of
    several layers, that ends in a Linear with as many outputs.
    """
    main, layer = _layers(model)[-1]
    num_classes = _sizes(layer)[1]
    auxiliary = []
    for name, child in model.named_children():
        owners = [m for m in child.modules() if any(True for _ in m.parameters(recurse=False))]
        if main.split(".")[0] == name or len(owners) < 2:
            continue
        if isinstance(owners[-1], nn.Linear) and owners[-1].out_features == num_classes:
            auxiliary.append(name)
    return (*auxiliary, main)


def _like(layer: nn.Linear | nn.Conv2d, num_classes: int) -> nn.Linear | nn.Conv2d:
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


def _check_head(head: nn.Module, layer: nn.Linear | nn.Conv2d, num_classes: int) -> None:
    """Raise ValueError where the head cannot take the layer's place, by trying it."""
    features, _ = _sizes(layer)
    shape = (2, features) if isinstance(layer, nn.Linear) else (2, features, 8, 8)
    training = head.training
    try:
        with torch.no_grad():
            logits = head.eval()(layer.weight.new_zeros(shape))
    except RuntimeError as error:
        raise ValueError(f"The head does not take {shape}, as the old one did: {error}") from error
    finally:
        head.train(training)
    if logits.shape[:2] != (2, num_classes) or logits.ndim != len(shape):
        raise ValueError(
            f"The head maps {shape} to {tuple(logits.shape)}: "
            f"it must give {num_classes} logits an image"
        )


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _open(name: str, module: nn.Module, head_modules: set[nn.Module]) -> list[Part]:
    """List a module's own parameters and its children that have some, heads left out."""
    prefix = f"{name}." if name else ""
    parts: list[Part] = [
        (prefix + own, parameter) for own, parameter in module.named_parameters(recurse=False)
    ]
    for child_name, child in module.named_children():
        if child in head_modules or not _size(child):
            continue
        if head_modules.isdisjoint(child.modules()):
            parts.append((prefix + child_name, child))
        else:
            parts += _open(prefix + child_name, child, head_modules)
    return parts


def _dominant(parts: list[Part]) -> int | None:
    """Return the index of the part that nearly all parameters in openable parts belong to."""
    sizes = [
        _size(part) if isinstance(part, nn.Module) and any(map(_size, part.children())) else 0
        for _, part in parts
    ]
    largest = max(sizes, default=0)
    return sizes.index(largest) if largest and largest >= NEARLY_ALL * sum(sizes) else None


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_weights(part: Part) -> bool:
    """Tell a layer or block from a normalisation layer (vectors only) or a bare parameter."""
    _, item = part
    return isinstance(item, nn.Module) and any(p.ndim > 1 for p in item.parameters())


def _to_block(group: list[Part]) -> Block:
    modules = [item for _, item in group if isinstance(item, nn.Module)]
    parameters = []
    for _, item in group:
        parameters += item.parameters() if isinstance(item, nn.Module) else [item]
    return Block(" + ".join(name for name, _ in group), modules, parameters)
