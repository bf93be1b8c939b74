"""Transfer learning for image classification: data, models, training and honest evaluation."""

from going_modular import efficientnet_lite as efficientnet_lite  # registers the embedded backbone
