"""Time depthwise convolutions as torch trains them, and as going_modular.depthwise does.

`python tests/benchmark_depthwise.py`, by hand, on a machine that does nothing else. Both take
turns; a row gives the median milliseconds of forward and backward pass for 32 pictures, and of a
step of all of EfficientNet-Lite0 in the precision that `utils.pick_precision` chooses.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from going_modular import depthwise, engine, model_builder, utils

ROUNDS = 15
LAYERS = [  # channels, pixels, kernel
    (240, 28, 5), (480, 14, 5), (672, 14, 5), (1152, 7, 5), (1152, 3, 5), (1152, 2, 3),  # Lite0
    (96, 56, 7), (192, 28, 7), (384, 14, 7), (768, 7, 7),  # ConvNeXt-Tiny
]  # fmt: skip


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'channels':>8}  {'pixels':>6}  {'kernel':>6}  {'torch':>8}  {'strips':>8}  ratio")
    for channels, pixels, kernel in LAYERS:
        layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        images = pictures(channels, pixels).requires_grad_()
        gradient = torch.randn_like(images)

        def run(layer=layer, images=images, gradient=gradient) -> None:
            layer(images).backward(gradient)

        print_row(channels, pixels, kernel, *compare(run, depthwise.FasterOnCPU))
    for size in (64, 96, 128, 224):
        model = utils.model_to_device(model_builder.create_model("efficientnet_lite0", 12), "cpu")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        batches = [(pictures(3, size), torch.arange(32) % 12)]

        def run(model=model, optimizer=optimizer, batches=batches) -> None:
            engine.train_step(model, batches, nn.CrossEntropyLoss(), optimizer, "cpu")

        print_row("step", size, "", *compare(run, contextlib.nullcontext))


def pictures(channels: int, pixels: int) -> torch.Tensor:
    images = torch.randn(32, channels, pixels, pixels)
    return images.contiguous(memory_format=torch.channels_last)


def compare(run: Callable, mode: Callable) -> tuple[float, float]:
    """Return the median seconds of `run` without strips and with them."""
    without = mock.patch.object(depthwise, "_is_faster_in_strips", lambda *_: False)
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        for context, times in zip((without, contextlib.nullcontext()), seconds, strict=True):
            with context, mode():
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1])


def print_row(channels: object, pixels: int, kernel: object, plain: float, strips: float) -> None:
    print(
        f"{channels:>8}  {pixels:>6}  {kernel:>6}  {plain * 1e3:8.1f}  {strips * 1e3:8.1f}"
        f"  {plain / strips:5.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
