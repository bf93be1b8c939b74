"""Transfer learning for image classification: data, models, training and honest evaluation."""

# Registers the embedded backbone with torchvision.
from going_modular.models import efficientnet_lite as efficientnet_lite

__version__ = "0.2.0"
