"""Saved models: one safetensors file, whose header says all that it takes to use its weights.

Knows the file and what may stand in it; how a network is built, `model_builder` tells it.
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
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torchvision.transforms._presets import ImageClassification

from going_modular.utils import build_transform, describe_transform, one_line, printable

FORMAT = 3  # 1 and 2 were pickles
ENTRY = "going_modular"  # in the file's header: the description, as JSON
MOST_LETTERS = 2**22  # of a description; 22,000 classes take a fifth
MOST_HEADER_BYTES = 2**24  # description, quotes escaped, and the names of some 50,000 tensors
LONGEST_NAME = 1000  # letters, of a class or a setting
LARGEST_SIZE = 2048  # pixels that an image is resized to; models see at most 600

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
            needed = self._build_on("meta", num_classes, head).state_dict()
        except NotImplementedError:  # RegNet works out its widths with tensors of numbers
            needed = self._build_on("cpu", num_classes, head).state_dict()
        for name in {**needed, **weights}:
            if name not in weights:
                raise ValueError(f"{name} is missing")
            if name not in needed:
                raise ValueError(f"{name} is not part of it")
            found, right = tuple(weights[name].shape), tuple(needed[name].shape)
            if found != right:
                raise ValueError(f"{name} is {found} instead of {right}")

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
            "metrics": {str(name): _number(name, value) for name, value in metrics.items()},
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
                f"The model cannot be saved: what describes it takes {len(text):,} letters, and "
                f"at most {MOST_LETTERS:,} are read. Shorten class_names or training."
            )
        self._check_model(model, len(description["class_names"]))
        tensors = _apart(model.state_dict())
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
                f"{self.architecture} with as many classes ({one_line(error)}). Without "
                "class_names and transform its weights are saved alone."
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
                raise ValueError("is damaged: its checksum is another. Copy it here again.")
            model = _build(description, build, weights, head)
    except (SafetensorError, AttributeError) as error:  # the second: number formats of the future
        raise ValueError(
            f"{name} cannot be read as a saved model: it is damaged, or not a file of "
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
            "itself, give utils.save_model class_names=... and transform=..."
        )
    if int.from_bytes(start, "little") > MOST_HEADER_BYTES:
        raise ValueError(
            "cannot be read as a saved model: it is damaged, or not a file of utils.save_model "
            "(its header is too large)."
        )


def _read(text: str | None) -> dict[str, Any]:
    """Return the description in a header; ValueError where it is not what `pack` writes."""
    if text is None:
        raise ValueError(
            "holds weights alone: "
            "model.load_state_dict(safetensors.torch.load_file(path)) takes them."
        )
    try:
        description = json.loads(text)
        number = description["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"cannot be read as a saved model: its header is damaged ({one_line(error)})."
        ) from error
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(
            f"has format {one_line(number)}, and this version of going_modular reads format "
            f"{FORMAT}: update it."
        )
    for key, rule in _broken_rules(description):
        raise ValueError(
            f"cannot be used: its {key} is not {rule}. Ask for the file again where it comes from."
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
        # safetensors keeps no versions of modules, which MNASNet asks for.
        versioned = OrderedDict(weights)
        versioned._metadata = model.state_dict()._metadata
        model.load_state_dict(versioned)
        return model
    except Exception as error:  # what a file's values lead the model's own code to
        raise ValueError(
            f"does not fit: its weights are not those of {printable(architecture)} with {classes} "
            f"classes ({one_line(error)}). If the model was created with a head of its own, give "
            "the same as head=."
        ) from error


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors in memory of their own, as the format asks."""
    result: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in taken:  # tied weights, or parts of one tensor
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result


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
    plain = class_names.tolist() if hasattr(class_names, "tolist") else class_names  # arrays
    return [str(name) for name in plain]


def _number(name: str, value: Any) -> float:
    try:
        return float(value)  # of NumPy and PyTorch, too
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metrics[{name!r}] is no single number: {one_line(value)}") from error


def _plain(value: Any) -> Any:
    """Return what JSON can hold instead: lists for arrays and tensors, texts for the rest."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


# --- what a description may hold ------------------------------------------------------------------


def _broken_rules(description: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the keys with values that nobody could use, or of absurd size, and what is right."""
    for key, (is_right, rule) in RULES.items():
        if not is_right(description.get(key)):
            yield key, rule


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _is_setting(value: Any) -> bool:
    is_number = isinstance(value, int | float) and 0 <= value <= LARGEST_SIZE
    return value is None or is_number or _is_name(value)


def _are_class_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_is_name, value))


def _by_name(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and all(_is_name(key) and is_right(item) for key, item in value.items())
    )


def _is_transform(value: Any) -> bool:
    """Tell whether it prepares a small image, and none of absurd size."""
    try:
        sizes = [*value["resize_size"], *value["crop_size"]]
        if not all(type(size) is int and 1 <= size <= LARGEST_SIZE for size in sizes):
            return False
        return bool(build_transform(value)(torch.zeros(3, 8, 8)).isfinite().all())
    except Exception:  # what wrong values lead torchvision's code to
        return False


RULES = {
    "format": (lambda value: value == FORMAT, str(FORMAT)),
    "architecture": (_is_name, "a network's name"),
    "config": (_by_name(_is_setting), f"texts and numbers up to {LARGEST_SIZE}, by name"),
    "class_names": (_are_class_names, f"two names or more, of at most {LONGEST_NAME} letters"),
    "transform": (_is_transform, "the preprocessing of pretrained weights"),
    "metrics": (_by_name(lambda value: isinstance(value, int | float)), "numbers by name"),
    "training": (_by_name(lambda value: True), "a mapping from names"),
    "versions": (_by_name(_is_name), "texts by name"),
}
