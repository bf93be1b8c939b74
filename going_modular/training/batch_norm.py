"""BatchNorm over a batch that several processes share, on any device.

PyTorch's own SyncBatchNorm needs a GPU, and a model whose layers have been replaced.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OverAllProcesses(TorchFunctionMode):
    """Let BatchNorm see the rows of all processes; everything else is computed as usual."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what F.batch_norm does, with the statistics of the whole batch."""
    if not training:
        return F.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
    channels = images.shape[1]
    exact = torch.promote_types(images.dtype, torch.float32)
    count = images.numel() // channels
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=images.device)
    if count:
        with torch.no_grad():
            mean, variance = torch.batch_norm_update_stats(images.to(exact), None, None, 0.0)
        mean, variance = mean.double(), variance.double()
        sums = torch.cat([mean * count, (variance + mean**2) * count, sums[-1:] + count])
    dist.all_reduce(sums)
    count = sums[-1].item()
    if count < 2:
        raise ValueError(
            f"BatchNorm cannot train on one value per channel: the batch gives {count:.0f}"
        )
    mean, mean_of_squares = (sums[:-1] / count).split(channels)
    variance = mean_of_squares - mean**2
    if running_mean is not None:
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    if weight is None:
        weight = torch.ones(channels, dtype=exact, device=images.device)
        bias = torch.zeros_like(weight)
    return _Normalize.apply(images, weight, bias, mean.to(exact), variance.to(exact), count, eps)


class _Normalize(torch.autograd.Function):
    """Normalize by statistics to which the images of all processes have contributed."""

    @staticmethod
    def forward(ctx, images, weight, bias, mean, variance, count, eps):
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient):
        images, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        sums = mean.new_zeros(2, len(mean))
        direct = gradient
        if len(images):  # as if mean and variance were constants
            direct, *own = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, mean, variance, mean, scale, False, ctx.eps, [True] * 3
            )
            sums = torch.stack(own)
        of_weight, of_bias = sums.clone()
        dist.all_reduce(sums)
        # They are not: all images moved them, so all share what the gradients have in common.
        by_scale, by_shift = sums * weight * scale / ctx.count
        slope = by_scale * scale
        offset = by_shift - mean * slope
        shape = (1, -1) + (1,) * (images.ndim - 2)
        common = torch.addcmul(offset.view(shape), images, slope.view(shape))
        return (direct - common).to(images.dtype), of_weight, of_bias, None, None, None, None
