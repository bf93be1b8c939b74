"""A model cut in two where gradients begin: what is frozen before, and the rest.

Knows a model only by its modules and their `requires_grad` flags.
"""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

RANDOM_MODULES = (nn.modules.dropout._DropoutNd, StochasticDepth)


class CannotCut(Exception):
    """A model cannot be cut, or its data not be run once; the message says why."""


def is_frozen(module: nn.Module) -> bool:
    """Tell whether a module has parameters and none of them is trainable."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def set_train_mode(model: nn.Module) -> None:
    """Put `model` in training mode, but every part whose parameters are all frozen in eval mode.

    `requires_grad=False` alone does not freeze a BatchNorm: in training mode its running mean and
    variance, which are buffers, go on moving, and dropout and stochastic depth stay random.
    """
    model.train()
    parts = [model]
    while parts:
        part = parts.pop()
        if is_frozen(part):
            part.eval()
        else:
            parts.extend(part.children())


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the part of `model.state_dict()` that training can change."""
    fixed = tuple(f"{name}." for name, module in model.named_modules() if is_frozen(module))
    return {k: value for k, value in model.state_dict().items() if not k.startswith(fixed)}


def settings(module: nn.Module) -> list[tuple[str, object]]:
    """List a layer's own settings; repr leaves some out, such as an attention's heads."""
    plain = (bool, int, float, str, tuple, type(None))
    return sorted((name, v) for name, v in vars(module).items() if isinstance(v, plain))


def arguments_left_out(model: nn.Module) -> dict[str, object]:
    """Return what torch.fx is told of a call with images alone: the defaults of the rest."""
    parameters = inspect.signature(model.forward).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


# --- cutting a model -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A model in two: `trunk` maps images to a tuple of tensors, `tail` maps those to the output.

    Both share the model's own modules: training `tail` trains the model.
    """

    trunk: nn.Module
    tail: nn.Module


def cut(model: nn.Module, training: bool) -> Cut:
    """Cut `model` where gradients begin, as it computes in training or in eval mode.

    The trunk is all that depends on no trainable parameter and on nothing random; the tail is the
    rest. Raises CannotCut where torch.fx cannot trace the model, or where nothing is frozen.
    """
    if training:
        set_train_mode(model)
    else:
        model.eval()
    graph = _trace(model)
    live = _reached(graph, lambda node: _changes(model, node))
    varying = _reached(graph, lambda node: node.op == "placeholder")
    frozen_modules = [n for n in graph.nodes if n.op == "call_module" and n not in live]
    if not any(is_frozen(model.get_submodule(node.target)) for node in frozen_modules):
        raise CannotCut("no part of the model before its first trainable layer is frozen")
    return Cut(*(fx.GraphModule(model, half) for half in _halves(graph, live, varying)))


class _Tracer(fx.Tracer):
    """Looks only inside modules that mix frozen and trainable parts, or only wrap one layer.

    All others stay whole. timm's heads wrap one: what is pooled before it is frozen work, too.
    """

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        flags = {p.requires_grad for p in module.parameters()}
        mixed = len(flags) == 2 or (flags == {True} and _wraps_one_layer(module))
        return not mixed or super().is_leaf_module(module, qualified_name)


def _wraps_one_layer(module: nn.Module) -> bool:
    owners = [child for child in module.children() if any(True for _ in child.parameters())]
    return len(owners) == 1 and not any(True for _ in owners[0].children())


def _trace(model: nn.Module) -> fx.Graph:
    if not any(p.requires_grad for p in model.parameters()):
        raise CannotCut("the model has no trainable parameter")
    try:
        return _Tracer().trace(model, arguments_left_out(model))
    except Exception as error:  # whatever a model's own forward raises when it meets a proxy
        raise CannotCut(f"torch.fx cannot trace {type(model).__name__}: {error}") from error


def _reached(graph: fx.Graph, begins: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Collect the nodes where something `begins`, and all that follow from them."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "output" and (begins(node) or not reached.isdisjoint(node.all_input_nodes)):
            reached.add(node)
    return reached


def _changes(model: nn.Module, node: fx.Node) -> bool:
    """Tell whether training can change what a node gives for the same input."""
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        if list(module.parameters()):
            return not is_frozen(module)
        return any(map(_varies, module.modules()))  # a Sequential may hold a dropout
    if node.op == "get_attr":
        owner, _, name = node.target.rpartition(".")
        return getattr(model.get_submodule(owner), name).requires_grad
    return node.op == "call_function" and (
        "dropout" in str(node.target) or node.kwargs.get("training") is True
    )


def _varies(module: nn.Module) -> bool:
    """Tell whether a module without parameters can give another output for the same input."""
    if isinstance(module, RANDOM_MODULES):
        return module.p > 0
    kind = type(module)
    known = kind.__module__.startswith(("torch.nn.", "torchvision.", "timm."))
    buffers = list(module.buffers(recurse=False))
    return bool(buffers) or not known or "drop" in kind.__name__.lower()


def _halves(
    graph: fx.Graph, live: set[fx.Node], varying: set[fx.Node]
) -> tuple[fx.Graph, fx.Graph]:
    """Divide the graph: the tail has what is live, and both what does not depend on images."""
    crossing = [
        node
        for node in graph.nodes
        if node in varying - live
        and any(user in live or user.op == "output" for user in node.users)
    ]
    trunk, copies = fx.Graph(), {}
    for node in graph.nodes:
        if node not in live and node.op != "output":
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(tuple(copies[node] for node in crossing))

    tail = fx.Graph()
    values = tail.placeholder("values")
    copies = {
        node: tail.call_function(operator.getitem, (values, i)) for i, node in enumerate(crossing)
    }
    for node in graph.nodes:
        if node not in varying - live:
            copies[node] = tail.node_copy(node, copies.__getitem__)
    return trunk, tail
