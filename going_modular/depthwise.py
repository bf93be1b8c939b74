"""Depthwise convolutions, trained on a CPU without the slow ways of its library, oneDNN.

In bfloat16 both gradients are slow: those of a 5x5 one over 672 channels at 14x14 pixels took 4.7
times as long as in float32 (torch 2.14, AVX-512). In float32 the gradient of the weight is slow
where the kernel is wider than 3, or the map less than 3 pixels high or wide: oneDNN then computes
it for blocks of 16 x 16 channels, of which only the diagonal is wanted, and that takes up to 20
times as long as the convolution. Here it is computed three columns at a time.
"""

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

COLUMNS = 3  # of a kernel whose gradient is fast
SMALLEST = 3  # pixels along the side of a map for which it is
BYTES_AT_ONCE = 8 * 2**20  # of copied pictures: what fits into caches, and memory used before


class FasterOnCPU(TorchFunctionMode):
    """Compute depthwise convolutions in float32 inside, and their weights' gradients in strips."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.conv2d or not _is_depthwise(*args, **(kwargs or {})):
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return _conv2d(*args, **(kwargs or {}))


# The parameters of these two are torch.conv2d's own: some models name them in the call.


def _is_depthwise(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    return input.ndim == 4 and groups == input.shape[1] == len(weight) > 1


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    images = input
    if input.dtype.itemsize < 4:
        images, weight = images.float(), weight.float()
    if _is_faster_in_strips(images, weight, stride, padding, dilation):
        output = _InStrips.apply(images, weight, bias, _pair(padding))
    else:
        output = torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    return output.to(input.dtype)


def _is_faster_in_strips(images, weight, stride, padding, dilation) -> bool:
    is_slow = weight.shape[3] > COLUMNS or min(images.shape[2:]) < SMALLEST
    return (
        is_slow
        and weight.requires_grad
        and weight.shape[3] >= COLUMNS
        and weight.shape[3] % 2 == 1
        and images.dtype == weight.dtype == torch.float32
        and images.is_contiguous(memory_format=torch.channels_last)
        and _pair(stride) == _pair(dilation) == (1, 1)
        and not isinstance(padding, str)
        and torch.backends.mkldnn.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _InStrips(torch.autograd.Function):
    """A depthwise convolution with stride 1; `_strips` computes its weight's gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return torch.conv2d(images, weight, bias, 1, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images, _ = _gradients(gradient, images, weight, ctx.padding, (True, False))
        if ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight)
            for first, strip in _strips(gradient, images, weight, ctx.padding):
                of_weight[..., first : first + COLUMNS] += strip
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None


def _strips(
    gradient: Tensor, images: Tensor, weight: Tensor, padding: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Give the weight's gradient, some pictures and three columns at a time, to be added up.

    Beside each strip stands its first column in the kernel: 0, 2, 4... The column that a strip
    shares with the one before is zero. Three columns see a window of the pictures, cut out of them
    and padded, as the whole kernel sees all of them.
    """
    channels, _, rows, columns = weight.shape
    height, width = gradient.shape[2] + rows - 1, gradient.shape[3] + COLUMNS - 1
    top, bottom = padding[0], height - images.shape[2] - padding[0]
    at_once = max(1, BYTES_AT_ONCE // (channels * height * width * images.itemsize))
    for part, of_part in zip(images.split(at_once), gradient.split(at_once), strict=True):
        for first in range(0, columns - COLUMNS + 1, COLUMNS - 1):
            left = padding[1] - first
            window = F.pad(part, (left, width - images.shape[3] - left, top, bottom))
            # Of the weight, its shape matters here, not its values.
            _, strip = _gradients(of_part, window, weight[..., :COLUMNS], (0, 0), (False, True))
            if first > 0:
                strip[..., 0] = 0
            yield first, strip


def _gradients(gradient, images, weight, padding, wanted) -> tuple[Tensor | None, Tensor | None]:
    # torch.nn.grad has functions for each, but they lose the layout, which takes three times as
    # long.
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        bias_sizes=None,
        stride=(1, 1),
        padding=padding,
        dilation=(1, 1),
        transposed=False,
        output_padding=(0, 0),
        groups=len(weight),
        output_mask=(*wanted, False),
    )
    return of_images, of_weight
