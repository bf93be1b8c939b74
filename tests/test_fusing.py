"""A fused model answers as the model itself does, and leaves the model as it was."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from going_modular.training.fusing import fused


def trained_for_a_moment(model):
    """Give every BatchNorm statistics and weights that are not the first ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


def norms_in(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "mobilenet_v3_small"])
def test_a_fused_model_gives_the_same_logits(name):
    torch.manual_seed(0)
    model = trained_for_a_moment(get_model(name, num_classes=5)).to(torch.float64)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(images)
        copy = fused(model, torch.bfloat16)
        # The fused convolutions are in bfloat16: eight bits.
        copy.to(torch.float64)
        assert norms_in(copy) < norms_in(model)
        error = (copy(images) - expected).norm() / expected.norm()
    assert error < 0.05
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class Shared(nn.Module):
    """One convolution that two BatchNorms follow, and an argument that a caller may leave out."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images, extra=None):
        outputs = self.second(self.convolution(self.first(self.convolution(images))))
        return outputs if extra is None else outputs + extra


def test_a_convolution_that_is_used_twice_stays():
    torch.manual_seed(0)
    model = trained_for_a_moment(Shared())
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fused(model, torch.bfloat16)(images), model(images))


def test_hooks_keep_the_model_itself():
    model = get_model("resnet18").eval()
    model.layer4.register_forward_hook(lambda *_: None)
    assert fused(model, torch.bfloat16) is model


def test_what_fx_cannot_trace_is_returned_as_it_is():
    class Counts(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    model = Counts().eval()
    assert fused(model, torch.bfloat16) is model
