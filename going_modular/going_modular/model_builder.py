"""TinyVGG, the small network that the course builds from scratch."""

from torch import Tensor, nn


class TinyVGG(nn.Module):
    """Two blocks of two convolutions, and a linear layer, for images of 64 x 64 pixels.

    The architecture of the CNN Explainer: https://poloclub.github.io/cnn-explainer/.
    """

    def __init__(self, input_shape: int, hidden_units: int, output_shape: int) -> None:
        """Take the numbers of colour channels, of channels inside, and of classes."""
        super().__init__()
        self.conv_block_1 = _block(input_shape, hidden_units)
        self.conv_block_2 = _block(hidden_units, hidden_units)
        # Each block takes a margin of 2 on each side and halves the rest: 64, 30, 13.
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(hidden_units * 13 * 13, output_shape)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.conv_block_2(self.conv_block_1(images)))


def _block(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel_size=3),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
