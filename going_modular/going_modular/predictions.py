"""`pred_and_plot_image`, under the course's name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from going_modular.data_setup import load_image
from going_modular.utils import pick_device


def pred_and_plot_image(
    model: nn.Module,
    class_names: Sequence[str],
    image_path: str | Path,
    image_size: tuple[int, int] = (224, 224),
    transform: Callable[[Image.Image], Tensor] | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Draw one image, and above it the class that the model names and its probability.

    Without `transform`, the image is resized to `image_size` and normalised as for most of
    torchvision's ImageNet weights; where yours want something else, pass their own. Grey and
    transparent images are read as RGB.
    """
    image = load_image(image_path)
    device = device or pick_device()
    prepared = (transform or _imagenet(image_size))(image)
    model.to(device).eval()
    with torch.inference_mode():
        probabilities = model(prepared[None].to(device))[0].softmax(dim=0)
    top = int(probabilities.argmax())
    plt.figure()
    plt.imshow(image)
    plt.title(f"Pred: {class_names[top]} | Prob: {probabilities[top]:.3f}", parse_math=False)
    plt.axis("off")


def _imagenet(size: tuple[int, int]) -> v2.Compose:
    return v2.Compose(
        [
            v2.Resize(size, antialias=True),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
