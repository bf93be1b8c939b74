"""Saved models: one safetensors file, whose header holds all that is needed to use its weights.

Knows the file and what it may hold; `model_builder` tells it how to build a network.
"""

import copy
import json
import platform
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torchvision.transforms._presets import ImageClassification

from going_modular.utils import build_transform, describe_transform, one_line, printable

FORMAT = 3  # 1 and 2 were pickles
ENTRY = "going_modular"  # in the file's header: the description, as JSON
MOST_LETTERS = 2**22  # of a description; 22,000 classes take a fifth
MOST_HEADER_BYTES = 2**24  # description, quotes escaped, and the names of some 50,000 tensors
LARGEST_SIZE = 2048  # pixels that an image is resized to; models see at most 600

# What reading raises where a file is damaged or something else: AttributeError for number formats
# of the future, and for a description that is no mapping.
UNREADABLE = (SafetensorError, AttributeError, json.JSONDecodeError, RecursionError)

# (architecture, number of classes, config, head or None) -> the network with random weights
Build = Callable[[str, int, dict[str, Any], nn.Module | None], nn.Module]


@dataclass(frozen=True)
class Blueprint:
    """What it takes to build a model's network again; `create_model` attaches it to the model."""

    architecture: str
    config: dict[str, Any]
    build: Build

    def check(
        self, weights: Mapping[str, Tensor], num_classes: int, head: nn.Module | None
    ) -> None:
        """Raise an error where weights do not fit, before any memory is taken for the network."""
        try:
            network = self._build_on("meta", num_classes, head)
        except NotImplementedError:  # RegNet works out its widths with tensors of numbers
            network = self._build_on("cpu", num_classes, head)
        _load_weights(network, weights, assign=True)

    def _build_on(self, device: str, num_classes: int, head: nn.Module | None) -> nn.Module:
        if head is not None:
            head = copy.deepcopy(head).to(device, torch.float32)
        with torch.device(device):
            return self.build(self.architecture, num_classes, self.config, head)

    def pack(
        self,
        model: nn.Module,
        class_names: Iterable[Any],
        transform: ImageClassification,
        metrics: Mapping[str, Any],
        training: Mapping[str, Any],
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return what `safetensors.torch.save_file` takes, once it is sure that `load` reads it.

        Raises ValueError, or TypeError for another kind of transform, where it could not.
        """
        description = {
            "format": FORMAT,
            "architecture": self.architecture,
            "config": self.config,
            "class_names": _texts(class_names),
            "transform": describe_transform(transform),
            "metrics": {str(name): value for name, value in metrics.items()},
            "training": dict(training),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "torchvision": str(torchvision.__version__),
            },
        }
        text = json.dumps(description, default=_plain)
        for key, rule in _broken_rules(json.loads(text)):
            raise ValueError(f"The model cannot be saved: its {key} must be {rule}.")
        if len(text) > MOST_LETTERS:
            raise ValueError(
                f"The model cannot be saved: its description has {len(text):,} letters, and at "
                f"most {MOST_LETTERS:,} are read. Shorten class_names or training."
            )
        self._check_model(model, len(description["class_names"]))
        # Copies: the format takes no tied weights, and no parts of a larger tensor.
        tensors = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in model.state_dict().items()
        }
        return tensors, {ENTRY: text, "crc32": _checksum(text, tensors)}

    def _check_model(self, model: nn.Module, num_classes: int) -> None:
        if prune.is_pruned(model) or any(map(parametrize.is_parametrized, model.modules())):
            raise ValueError(
                "The model cannot be saved while layers are pruned or parametrized: make that "
                "permanent with torch.nn.utils.prune.remove(layer, name) or "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, name)."
            )
        try:
            head = model.get_submodule(model.head_names[-1])
            self.check(model.state_dict(), num_classes, head)
        except Exception as error:  # a learner may have changed anything
            raise ValueError(
                f"The model cannot be saved with {num_classes} class_names: it is not "
                f"{self.architecture} with that many classes ({one_line(error)}). Without "
                "class_names and transform, only its weights are saved."
            ) from error


def load(
    path: str | Path, build: Build, device: torch.device | str, head: nn.Module | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of a file, in eval mode, and its description; nothing in it is run."""
    path = Path(path)
    name = printable(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file. Train first, or check the path.")
    try:
        _check_kind(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            description = _read(header.get(ENTRY))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # mapped into memory
            if header.get("crc32") != _checksum(header[ENTRY], weights):
                raise ValueError("is damaged: its checksum does not match. Copy it here again.")
            model = _build(description, build, weights, head)
    except UNREADABLE as error:
        raise ValueError(
            f"{name} cannot be read as a saved model: it is damaged, or was not written by "
            f"utils.save_model ({one_line(error)})."
        ) from error
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    transform = build_transform(description["transform"])
    return model.to(device).eval(), {**description, "transform": transform}


def _check_kind(path: Path) -> None:
    """Raise ValueError for the files that people take for saved models, and absurd headers."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        raise ValueError(
            "holds weights alone, written by torch.save: "
            "model.load_state_dict(torch.load(path, weights_only=True)) takes them. (A model.pt of "
            'an earlier version has them under "state_dict".) For a file that can be used by '
            "itself, pass class_names=... and transform=... to utils.save_model"
        )
    if int.from_bytes(start, "little") > MOST_HEADER_BYTES:
        raise SafetensorError("its header is too large")


def _read(text: str | None) -> dict[str, Any]:
    """Return the description in a header; ValueError where it is not what `pack` writes."""
    if text is None:
        raise ValueError(
            "holds weights alone: "
            "model.load_state_dict(safetensors.torch.load_file(path)) takes them."
        )
    description = json.loads(text)
    number = description.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(
            f"has format {one_line(number)}, and this version of going_modular reads format "
            f"{FORMAT}: update it."
        )
    for key, rule in _broken_rules(description):
        raise ValueError(
            f"cannot be used: its {key} is not {rule}. Get the file again from its source."
        )
    return description


def _build(
    description: Mapping[str, Any],
    build: Build,
    weights: Mapping[str, Tensor],
    head: nn.Module | None,
) -> nn.Module:
    architecture, config = description["architecture"], description["config"]
    classes = len(description["class_names"])
    try:
        Blueprint(architecture, config, build).check(weights, classes, head)
        model = build(architecture, classes, config, head)
        _load_weights(model, weights)
        return model
    except Exception as error:  # what a file's values lead the model's own code to
        raise ValueError(
            f"does not fit: its weights are not those of {printable(architecture)} with {classes} "
            f"classes ({one_line(error)}). If the model was created with a head of its own, give "
            "the same as head=."
        ) from error


def _load_weights(model: nn.Module, weights: Mapping[str, Tensor], assign: bool = False) -> None:
    # safetensors keeps no versions of modules, which MNASNet asks for.
    versioned = OrderedDict(weights)
    versioned._metadata = model.state_dict()._metadata
    model.load_state_dict(versioned, assign=assign)


def _checksum(text: str, weights: Mapping[str, Tensor]) -> str:
    """Return a CRC-32 of description and weights: the format itself notices no changed byte."""
    crc = zlib.crc32(text.encode())
    for name, tensor in sorted(weights.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def _texts(class_names: Iterable[Any]) -> list[str]:
    if isinstance(class_names, str | set | frozenset):
        raise ValueError(
            f"class_names is a {type(class_names).__name__}: give a list, in the labels' order."
        )
    # Of a tensor, str would name its elements' kind, too.
    return [str(name) for name in getattr(class_names, "tolist", lambda: class_names)()]


def _plain(value: Any) -> Any:
    """Return what JSON can hold instead: lists for arrays and tensors, texts for the rest."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


# --- what a description may hold ------------------------------------------------------------------


def _broken_rules(description: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the keys with values that nobody could use, or of absurd size, and what is right."""
    for key, (is_right, rule) in RULES.items():
        if not is_right(description.get(key)):
            yield key, rule


def _are_class_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) for v in value)


def _are_settings(value: Any) -> bool:
    return _is_mapping(value) and all(
        isinstance(v, int) and v <= LARGEST_SIZE for v in value.values()
    )


def _are_numbers(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(v, int | float) for v in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_transform(value: Any) -> bool:
    """Tell whether it prepares a small image, and none of absurd size."""
    try:
        sizes = [*value["resize_size"], *value["crop_size"]]
        if not all(type(size) is int and 1 <= size <= LARGEST_SIZE for size in sizes):
            return False
        return bool(build_transform(value)(Image.new("RGB", (8, 9))).isfinite().all())
    except Exception:  # what wrong values lead torchvision's code to
        return False


RULES = {
    "format": (lambda value: value == FORMAT, str(FORMAT)),
    "architecture": (lambda value: isinstance(value, str), "a network's name"),
    "config": (_are_settings, f"whole numbers up to {LARGEST_SIZE}, by name"),
    "class_names": (_are_class_names, "two names or more"),
    "transform": (_is_transform, "the preprocessing of pretrained weights"),
    "metrics": (_are_numbers, "single numbers by name"),
    "training": (_is_mapping, "a mapping from names"),
    "versions": (_is_mapping, "a mapping from names"),
}
