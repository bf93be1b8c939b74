"""Depthwise convolutions on a CPU: the values and gradients of the plain ones, in float64."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from going_modular import depthwise, utils


@pytest.fixture
def strips(monkeypatch):
    """Note for how many convolutions the weight's gradient came in strips."""
    calls, apply = [], depthwise._InStrips.apply
    monkeypatch.setattr(depthwise._InStrips, "apply", lambda *a: calls.append(1) or apply(*a))
    return calls


def incoming(output):
    """Return a gradient that is the same in every precision."""
    torch.manual_seed(1)
    return torch.randn(output.shape).bfloat16().to(output.dtype)


def gradients(images, weight, bias, **options):
    tensors = [tensor.detach().clone().requires_grad_() for tensor in (images, weight, bias)]
    output = F.conv2d(*tensors, groups=len(weight), **options)
    output.backward(incoming(output))
    return output, *(tensor.grad for tensor in tensors)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (3, 7), (7, 3), (1, 5)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 3), (9, 4)])
@pytest.mark.parametrize("at_once", [2000, 10**9])
def test_gradients_are_those_of_float64(kernel, size, at_once, strips, monkeypatch):
    monkeypatch.setattr(depthwise, "BYTES_AT_ONCE", at_once)
    torch.manual_seed(0)
    images = torch.randn(5, 20, *size).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(20, 1, *kernel), torch.randn(20)
    for padding in itertools.product(range(kernel[0] + 1), range(kernel[1] + 1)):
        if any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
            continue
        expected = gradients(*(t.double() for t in (images, weight, bias)), padding=padding)
        with depthwise.FasterOnCPU():
            found = gradients(images, weight, bias, padding=padding)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    assert bool(strips) == (kernel[1] > 3 or min(size) < 3)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5, "stride": 2},
        {"kernel_size": 5, "dilation": 2, "padding": 4},
        {"kernel_size": 5, "padding": "same"},
        {"kernel_size": 4},
        {"kernel_size": (5, 1)},
        {"kernel_size": 5, "padding_mode": "circular", "padding": 2},
        {"kernel_size": 5, "groups": 2},
        {"kernel_size": 5, "out_channels": 8},
    ],
)
def test_other_convolutions_are_as_they_were(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, **{"out_channels": 4, "groups": 4} | options)
    images = torch.randn(2, 4, 10, 10).contiguous(memory_format=torch.channels_last)
    results = []
    for dtype in (torch.float32, torch.float64):
        layer, images = layer.to(dtype), images.to(dtype)
        layer.zero_grad()
        with depthwise.FasterOnCPU():
            output = layer(images)
        output.square().sum().backward()
        results.append([output, *(p.grad.clone() for p in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_call_may_name_its_arguments(strips):
    images = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 1, 5, 5, requires_grad=True)
    with depthwise.FasterOnCPU():
        found = F.conv2d(input=images, weight=weight, padding=2, groups=4)
        ungrouped = F.conv2d(input=images, weight=weight.expand(4, 4, 5, 5))
    torch.testing.assert_close(found, F.conv2d(images, weight, padding=2, groups=4))
    assert strips == [1] and ungrouped.shape == (2, 4, 4, 4)


def test_what_is_frozen_gets_no_gradient(strips):
    layer = nn.Conv2d(4, 4, 5, padding=2, groups=4).requires_grad_(False)
    images = torch.randn(2, 4, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    with utils.autocast("cpu", torch.float32):
        layer(images).sum().backward()
    assert layer.weight.grad is None and images.grad is not None and not strips


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_computes_in_float32_and_evaluation_as_autocast_says(dtype, kernel, strips):
    layer = nn.Conv2d(16, 16, kernel, padding=kernel // 2, groups=16)
    images = torch.randn(2, 16, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last)
    exact = [tensor.double() for tensor in (images, layer.weight, layer.bias)]
    expected, _, *of_parameters = gradients(*exact, padding=kernel // 2)
    with utils.autocast("cpu", dtype):
        output = layer(images)
    assert output.dtype == dtype and bool(strips) == (kernel == 5)
    rounding = torch.finfo(dtype).eps + 1e-5
    torch.testing.assert_close(output.double(), expected, rtol=rounding, atol=1e-4)
    output.backward(incoming(output))
    for parameter, other in zip(layer.parameters(), of_parameters, strict=True):
        torch.testing.assert_close(parameter.grad.double(), other, rtol=1e-4, atol=1e-4)
    strips.clear()
    with torch.inference_mode(), utils.autocast("cpu", dtype):
        assert layer(images).dtype == dtype and not strips
