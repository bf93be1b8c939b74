"""What a network is made of: its heads, and the blocks between its input and them.

Finds both by looking at the modules; knows no table of names, no weights and no data.
"""

from dataclasses import dataclass

from torch import nn

NEARLY_ALL = 0.9  # torchvision's and timm's containers hold over 0.91, their largest stages 0.89

Layer = nn.Linear | nn.Conv2d
Part = tuple[str, nn.Module | nn.Parameter]  # of a model: its name in it, and what it is


@dataclass(frozen=True)
class Block:
    """A stretch of the trunk, from input to head; `name` joins the names of its parts."""

    name: str
    modules: list[nn.Module]
    parameters: list[nn.Parameter]


# --- Heads --------------------------------------------------------------------------------------


def head(model: nn.Module) -> nn.Module:
    """Return the module that turns features into logits: the last layer, or what replaced it."""
    return list(heads(model).values())[-1]


def heads(model: nn.Module) -> dict[str, nn.Module]:
    """Return every head by name: the auxiliary ones (Inception, GoogLeNet), then the main one."""
    modules = dict(model.named_modules())
    names = getattr(model, "head_names", ())
    if not names or not modules.keys() >= set(names):
        names = find_heads(model)
    return {name: modules[name] for name in names}


def head_features(model: nn.Module) -> int:
    """Return the number of features that the main head takes: 512 for ResNet-18."""
    return sizes(layers(head(model))[0][1])[0]


def find_heads(model: nn.Module) -> tuple[str, ...]:
    """Find the heads' names, the main one last.

    timm's models tell. In others, the main head is the last layer, and an auxiliary head is
    another child of the model, of several layers, that ends in a Linear with as many outputs.
    """
    told = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    told = (told,) if isinstance(told, str) else tuple(told)[::-1]  # timm's main one comes first
    modules = dict(model.named_modules())
    if told and all(name in modules and _size(modules[name]) for name in told):
        return told
    main, layer = layers(model)[-1]
    num_classes = sizes(layer)[1]
    auxiliary = []
    for name, child in model.named_children():
        owners = [m for m in child.modules() if any(True for _ in m.parameters(recurse=False))]
        if main.split(".")[0] == name or len(owners) < 2:
            continue
        if isinstance(owners[-1], nn.Linear) and owners[-1].out_features == num_classes:
            auxiliary.append(name)
    return (*auxiliary, main)


def layers(model: nn.Module, prefix: str = "") -> list[tuple[str, Layer]]:
    """List the Linear and Conv2d layers in the submodule `prefix`, by their names in the model."""
    module = model.get_submodule(prefix)
    found = [
        (name, layer)
        for name, layer in module.named_modules(prefix=prefix)
        if isinstance(layer, Layer)
    ]
    if not found:
        raise ValueError(f"{type(module).__name__} has no Linear or Conv2d layer")
    return found


def sizes(layer: Layer) -> tuple[int, int]:
    """Return the number of features that go in and come out."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


# --- Blocks -------------------------------------------------------------------------------------


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
    counted = {p for module in head_modules for p in module.parameters()}
    found = [_to_block(group, counted) for group in groups]
    return [block for block in found if block.parameters]


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


def _to_block(group: list[Part], counted: set[nn.Parameter]) -> Block:
    """Join parts; a parameter that an earlier block or a head shares is theirs (CoaT has some)."""
    modules = [item for _, item in group if isinstance(item, nn.Module)]
    parameters = []
    for _, item in group:
        parameters += item.parameters() if isinstance(item, nn.Module) else [item]
    parameters = [p for p in dict.fromkeys(parameters) if p not in counted]
    counted.update(parameters)
    return Block(" + ".join(name for name, _ in group), modules, parameters)
