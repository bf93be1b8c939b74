"""Frozen work done once: find where gradients begin, run what comes before over the data one time.

Knows a model only by its modules and their `requires_grad` flags, and data only as a DataLoader.
"""

import operator
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.ops import StochasticDepth

from going_modular.utils import autocast, to_device

RANDOM_MODULES = (nn.modules.dropout._DropoutNd, StochasticDepth)


class CannotSplit(Exception):
    """A model or its data do not allow frozen work to be done once; the message says why."""


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


# --- splitting a model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """A model in two: `trunk` maps images to a tuple of tensors, `tail` maps those to the output.

    Both share the model's own modules: training `tail` trains the model.
    """

    trunk: nn.Module
    tail: nn.Module


def split(model: nn.Module, training: bool) -> Split:
    """Split `model` where gradients begin, as it computes in training or in eval mode.

    The trunk is all that depends on no trainable parameter and on nothing random; the tail is the
    rest. Raises CannotSplit where torch.fx cannot trace the model, or where nothing is frozen.
    """
    if training:
        set_train_mode(model)
    else:
        model.eval()
    graph = _trace(model)
    live = _live_nodes(model, graph)
    frozen_modules = [n for n in graph.nodes if n.op == "call_module" and n not in live]
    if not any(is_frozen(model.get_submodule(node.target)) for node in frozen_modules):
        raise CannotSplit("no part of the model before its first trainable layer is frozen")
    crossing = [
        node
        for node in graph.nodes
        if node not in live and any(user in live or user.op == "output" for user in node.users)
    ]
    return Split(_trunk(model, graph, live, crossing), _tail(model, graph, live, crossing))


class _Tracer(fx.Tracer):
    """Looks only inside modules that mix frozen and trainable parts; all others stay whole."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        flags = {p.requires_grad for p in module.parameters()}
        return len(flags) < 2 or super().is_leaf_module(module, qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    if not any(p.requires_grad for p in model.parameters()):
        raise CannotSplit("the model has no trainable parameter")
    try:
        return _Tracer().trace(model)
    except Exception as error:  # whatever a model's own forward raises when it meets a proxy
        raise CannotSplit(f"torch.fx cannot trace {type(model).__name__}: {error}") from error


def _live_nodes(model: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """Collect what training can change: nodes that are trainable or random, and all that follow."""
    live: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output":
            continue
        if _changes(model, node) or any(source in live for source in node.all_input_nodes):
            live.add(node)
    return live


def _changes(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        if list(module.parameters()):
            return not is_frozen(module)
        return _is_random(module)
    if node.op == "get_attr":
        owner, _, name = node.target.rpartition(".")
        return getattr(model.get_submodule(owner), name).requires_grad
    return node.op == "call_function" and (
        "dropout" in str(node.target) or node.kwargs.get("training") is True
    )


def _is_random(module: nn.Module) -> bool:
    """Tell whether a module without parameters can give another output for the same input."""
    if isinstance(module, RANDOM_MODULES):
        return module.p > 0
    known = type(module).__module__.startswith(("torch.nn.", "torchvision."))
    return bool(list(module.buffers())) or not known


def _trunk(
    model: nn.Module, graph: fx.Graph, live: set[fx.Node], crossing: list[fx.Node]
) -> nn.Module:
    trunk, copies = fx.Graph(), {}
    for node in graph.nodes:
        if node not in live and node.op != "output":
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(tuple(copies[node] for node in crossing))
    return fx.GraphModule(model, trunk)


def _tail(
    model: nn.Module, graph: fx.Graph, live: set[fx.Node], crossing: list[fx.Node]
) -> nn.Module:
    tail = fx.Graph()
    values = tail.placeholder("values")
    copies = {
        node: tail.call_function(operator.getitem, (values, i)) for i, node in enumerate(crossing)
    }
    for node in graph.nodes:
        if node in live or node.op == "output":
            copies[node] = tail.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, tail)


# --- running the trunk over the data, once -------------------------------------------------------


class TrunkOutputs(Dataset):
    """What a trunk made of a data set, in its order; indexed by a list, it gives a batch."""

    def __init__(self, values: list[Tensor], labels: Tensor) -> None:
        self.values, self.labels = values, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        index = torch.as_tensor(indices)
        return [value[index] for value in self.values], self.labels[index]


def run_trunk(
    trunk: nn.Module, dataloader: DataLoader, device: torch.device, dtype: torch.dtype
) -> DataLoader:
    """Run `trunk` over the data once and return a DataLoader of its outputs.

    The new loader draws the same batches as `dataloader` would, and the same random numbers for
    it. Raises CannotSplit where the data is a stream or its pictures differ from one reading to
    the next.
    """
    dataset = dataloader.dataset
    if isinstance(dataset, IterableDataset) or dataloader.batch_sampler is None:
        raise CannotSplit("the data is a stream, which cannot be read by index")
    if draws_random_numbers(dataset):
        raise CannotSplit("the pictures are augmented, so they differ in every epoch")
    in_order = DataLoader(
        dataset,
        batch_size=dataloader.batch_size or 32,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        generator=torch.Generator(),  # leaves the caller's random state alone
    )
    outputs: TrunkOutputs | None = None
    start = 0
    with torch.inference_mode(), autocast(device, dtype):
        for images, labels in in_order:
            values = trunk(to_device(images, device))
            if outputs is None:
                outputs = _allocate(values, labels, len(dataset))
            stop = start + len(labels)
            for store, value in zip(outputs.values, values, strict=True):
                store[start:stop] = value
            outputs.labels[start:stop] = labels
            start = stop
    return DataLoader(
        outputs,
        batch_size=None,
        sampler=dataloader.batch_sampler,
        collate_fn=_as_it_is,
        generator=dataloader.generator,
    )


def draws_random_numbers(dataset: Dataset) -> bool:
    """Tell whether reading an example draws random numbers, as an augmenting transform does."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        dataset[0]
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()
        return (
            not torch.equal(before[0], after[0])
            or before[1] != after[1]
            or not np.array_equal(before[2][1], after[2][1])
            or before[2][2] != after[2][2]
        )
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


def _allocate(values: Sequence[Tensor], labels: Tensor, length: int) -> TrunkOutputs:
    for value in values:
        if not isinstance(value, Tensor) or value.shape[:1] != labels.shape[:1]:
            raise CannotSplit("what crosses the cut is not one tensor row per picture")
    stores = [torch.empty((length, *value.shape[1:]), dtype=value.dtype) for value in values]
    return TrunkOutputs(stores, torch.empty((length, *labels.shape[1:]), dtype=labels.dtype))


def _as_it_is(batch: object) -> object:
    return batch
