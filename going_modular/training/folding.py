"""A model made ready to answer: every BatchNorm folded into the convolution before it.

In eval mode a BatchNorm multiplies and adds fixed numbers, which the convolution's own weight and
bias can do. And autocast converts weights anew for every batch; here they are converted once.
"""

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.nn.utils.fusion import fuse_conv_bn_weights


class _FlatTracer(fx.Tracer):
    """Looks inside everything but torch's own layers, and inside convolutions, too."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) is not nn.Conv2d and super().is_leaf_module(module, qualified_name)


def _trace(model: nn.Module) -> fx.Graph | None:
    try:
        return _FlatTracer().trace(model)
    except Exception:  # whatever a model's own forward raises when it meets a proxy
        return None


def flatten(model: nn.Module) -> fx.GraphModule | None:
    """Write a model as calls of torch's own layers and functions; None where fx cannot."""
    graph = _trace(model)
    return graph and fx.GraphModule(model, graph)


def ready(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return `model`, which is in eval mode, or a folded copy that gives the same answers sooner.

    Not for float32: the rounding differs in the seventh digit, which a BatchNorm that sees few
    values can make grow in training, and it was a tenth faster there at most. Nor where a hook
    waits for a layer's call.
    """
    return model if dtype == torch.float32 or _has_hooks(model) else fold(model, dtype)


def _has_hooks(model: nn.Module) -> bool:
    return bool(_global_forward_hooks or _global_forward_pre_hooks) or any(
        module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    )


def fold(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a model in eval mode with its BatchNorms folded and its weights converted to `dtype`.

    Returns `model` itself where fx cannot trace it. The copy keeps to the weights of now.
    """
    graph = _trace(model)
    if graph is None:
        return model
    for node in list(graph.nodes):
        if node.target is torch.conv2d and _has_own_weights(node):
            _fold_convolution(model, graph, node, dtype)
    parts = {}
    for node in graph.nodes:  # each part under a name of its own: no two can get into their way
        if node.op == "call_module":
            layer = model.get_submodule(node.target)
            node.target = node.name
            parts[node.name] = _linear_in(layer, dtype) if type(layer) is nn.Linear else layer
        elif node.op == "get_attr":
            tensor = node.meta.get("folded")
            parts[node.name] = _tensor(model, node) if tensor is None else tensor
            node.target = node.name
    return fx.GraphModule(parts, graph)


def _fold_convolution(model: nn.Module, graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> None:
    old = node.args[1:3]
    weight, bias = (source and _tensor(model, source).detach() for source in old)
    (user,) = node.users if len(node.users) == 1 else (None,)
    if user is not None and user.op == "call_module":
        norm = model.get_submodule(user.target)
        if type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            mean, variance = norm.running_mean, norm.running_var
            weight, bias = fuse_conv_bn_weights(
                weight, bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            user.replace_all_uses_with(node)
            graph.erase_node(user)
    with graph.inserting_before(node):
        new = [_constant(graph, tensor, dtype) for tensor in (weight, bias)]
    node.args = (node.args[0], *new, *node.args[3:])
    for source in old:
        if source is not None and not source.users:
            graph.erase_node(source)


def _has_own_weights(convolution: fx.Node) -> bool:
    """Tell whether weight and bias are the layer's own tensors, not something computed."""
    sources = [source for source in convolution.args[1:3] if source is not None]
    return len(convolution.args) >= 3 and all(source.op == "get_attr" for source in sources)


def _tensor(model: nn.Module, source: fx.Node) -> Tensor:
    owner, _, name = source.target.rpartition(".")
    return getattr(model.get_submodule(owner), name)


def _constant(graph: fx.Graph, tensor: Tensor | None, dtype: torch.dtype) -> fx.Node | None:
    """Add a tensor that no module of the model has; `fold` gives it a name."""
    if tensor is None:
        return None
    tensor = tensor.detach().to(dtype)
    if tensor.ndim == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    node = graph.create_node("get_attr", "folded")
    node.meta["folded"] = tensor
    return node


def _linear_in(layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        copied = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    state = {name: value.to(dtype) for name, value in layer.state_dict().items()}
    copied.load_state_dict(state, assign=True)
    return copied.eval()
