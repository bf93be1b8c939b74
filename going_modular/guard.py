"""Look through a saved model's file before PyTorch opens it: nothing in it is run or unpacked.

`torch.load(weights_only=True)` refuses code, but by itself not all that is meant to harm: before
PyTorch 2.6 it could be made to run code all the same (CVE-2025-32434), before 2.10 to write beyond
its memory (CVE-2026-24747), and in any version a small file can ask for all memory there is. So
only what `torch.save` writes for numbers, texts, lists, dictionaries and dense tensors passes here.
"""

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torchvision.transforms import InterpolationMode

MOST_PICKLE_BYTES = 2**21  # names, shapes, settings: 0.7 MB for 22,000 classes; read in seconds
MOST_DIMENSIONS = 8  # of a tensor
LONGEST_NAME = 1000  # letters, of a class or a parameter
LARGEST_SIZE = 2048  # pixels that a picture is resized to; models see at most 600
ITEM_BYTES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
DICTIONARY, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
GLOBALS = {DICTIONARY, TENSOR, *ITEM_BYTES}
PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}  # their values as given
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


class Global(NamedTuple):
    """A function or class that the file names; it is never looked up."""

    name: str


class Storage(NamedTuple):
    """The bytes that tensors are views of."""

    items: int


class Tensor(NamedTuple):
    """A tensor whose values lie within its storage."""

    shape: tuple[int, ...]


def outline(path: str | Path) -> Any:
    """Return what `torch.load` would give, with stand-ins for tensors, functions and classes.

    Raises ValueError, saying why, where the file is not plain data as `torch.save` writes it. What
    loading takes in memory is at most what the file takes on disk, and a little more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = _check_members(archive, Path(path).stat().st_size)
            top = archive.namelist()[0].partition("/")[0]
            if sizes.get(f"{top}/data.pkl", MOST_PICKLE_BYTES + 1) > MOST_PICKLE_BYTES:
                raise ValueError("it has no data.pkl, or one of absurd size")
            if damaged := archive.testzip():  # which torch.load would not notice
                raise ValueError(f"its part {damaged!r} is damaged")
            return _read(archive.read(f"{top}/data.pkl"), f"{top}/data/", sizes)
    except ValueError:
        raise
    except Exception as error:  # what a damaged file leads zipfile and the stand-ins to
        raise ValueError(f"it is damaged, or torch.save did not write it: {error!r}") from error


def _check_members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, int]:
    """Return the members' sizes, which add up to no more than the file: none is compressed."""
    members = archive.infolist()
    names = {member.filename.lower() for member in members}
    # Another reader could take an archive for a different one if it were after or before something
    # else, or held a name twice.
    starts = [member.header_offset for member in members]
    if archive.comment or len(names) < len(members) or min(starts, default=-1) != 0:
        raise ValueError("it is not an archive as torch.save writes it")
    for member in members:
        stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not stored or member.file_size != member.compress_size:
            raise ValueError(
                f"its part {member.filename!r} is packed, as {member.file_size:,} bytes: "
                "torch.save packs nothing"
            )
    sizes = {member.filename: member.file_size for member in members}
    if sum(sizes.values()) > file_bytes:
        raise ValueError(
            f"it declares {sum(sizes.values()):,} bytes and the file has {file_bytes:,}"
        )
    return sizes


def _read(pickled: bytes, folder: str, sizes: dict[str, int]) -> Any:
    """Follow a pickle's instructions with stand-ins for all that is not plain, and return it."""
    stack, marks, memo = [], [], {}

    def since_mark() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for instruction, value, _ in pickletools.genops(pickled):
        match instruction.name:
            case "PROTO" | "STOP":
                pass
            case name if name in PLAIN:
                stack.append(value)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case name if name in EMPTY:
                stack.append(EMPTY[name]())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(items[::-1]))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND":
                _append(stack[-2], [stack.pop()])
            case "APPENDS":
                items = since_mark()
                _append(stack[-1], items)
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                _set(stack[-1], items)
            case "SETITEMS":
                items = since_mark()
                _set(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "GLOBAL":
                if value not in GLOBALS:
                    raise ValueError(f"it asks for {value!r}, which is not plain data")
                stack.append(Global(value))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), folder, sizes))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                _check_attributes(stack.pop(), stack[-1])
            case name:
                raise ValueError(f"it holds the instruction {name}, which plain data does not need")
    return stack.pop()


def _append(target: Any, items: list) -> None:
    if type(target) is not list:
        raise ValueError("it appends to what is no list")
    target += items


def _set(target: Any, items: list) -> None:
    if type(target) is not dict:
        raise ValueError("it sets items of what is no dictionary")
    if any(type(key) not in (str, int) for key in items[::2]):
        raise ValueError("a key in it is neither a text nor a number")
    target |= zip(items[::2], items[1::2], strict=True)


def _storage(identity: Any, folder: str, sizes: dict[str, int]) -> Storage:
    kind, item, key, _, items = identity
    if kind != "storage" or type(key) is not str or type(items) is not int or items < 0:
        raise ValueError("it holds something other than tensors")
    size = sizes.get(folder + key)
    if size != items * ITEM_BYTES[item.name]:
        raise ValueError(f"a tensor's values should be {items:,} and their part has {size} bytes")
    return Storage(items)


def _call(function: Any, arguments: tuple) -> Any:
    if function == Global(DICTIONARY) and arguments == ():
        return {}
    if function != Global(TENSOR):
        raise ValueError("it calls something other than what makes a tensor")
    storage, offset, shape, strides, requires_grad, hooks = arguments
    if type(storage) is not Storage or len(shape) > MOST_DIMENSIONS or len(shape) != len(strides):
        raise ValueError("a tensor in it has no valid shape")
    if any(type(number) is not int or number < 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor in it has no valid shape")
    if type(requires_grad) is not bool or hooks != {}:
        raise ValueError("a tensor in it brings more than values")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.items:
        raise ValueError(
            f"a tensor in it has shape {shape}, and {storage.items:,} values are there"
        )
    return Tensor(shape)


def _check_attributes(attributes: Any, target: Any) -> None:
    """Let pass what a state_dict carries: the versions of its modules."""
    if type(target) is not dict or attributes.keys() != {"_metadata"}:
        raise ValueError("it sets attributes of what has none")


# --- what utils.save_model writes ----------------------------------------------------------------


def wrong_values(content: dict[str, Any]) -> Iterator[str]:
    """Yield the keys whose values nobody could use, or that ask for absurd amounts of memory."""
    for key, is_right in CONTENT.items():
        if key in content and not is_right(content[key]):
            yield key


def _is_mapping(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is dict
        and all(map(_is_name, value))
        and all(type(item) in kinds for item in value.values())
    )


def _are_settings(value: Any) -> bool:
    return _is_mapping(bool, int, str)(value) and all(
        type(item) is str or 0 <= item <= LARGEST_SIZE for item in value.values()
    )


def _is_name(value: Any) -> bool:
    return type(value) is str and len(value) <= LONGEST_NAME


def _are_class_names(value: Any) -> bool:
    return type(value) is list and len(value) > 1 and all(map(_is_name, value))


def _is_transform(value: Any) -> bool:
    names = {"resize_size", "crop_size", "mean", "std", "interpolation", "antialias"}
    return (
        type(value) is dict
        and value.keys() == names
        and all(_are_numbers(value[key], 1, 1, LARGEST_SIZE, int) for key in SIZES)
        and _are_numbers(value["mean"], 3, -1000, 1000)
        and _are_numbers(value["std"], 3, 1e-6, 1000)
        and value["interpolation"] in [mode.value for mode in InterpolationMode]
        and value["antialias"] in (None, True, False)
    )


def _are_numbers(value: Any, count: int, low: float, high: float, kind: type = float) -> bool:
    return (
        type(value) is list
        and len(value) == count
        and all(type(number) in (int, kind) and low <= number <= high for number in value)
    )


SIZES = ("resize_size", "crop_size")
CONTENT = {
    "architecture": _is_name,
    "config": _are_settings,
    "class_names": _are_class_names,
    "transform": _is_transform,
    "metrics": _is_mapping(int, float),
    "versions": _is_mapping(str),
    "state_dict": _is_mapping(Tensor),
}
