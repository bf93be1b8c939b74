"""Predictions from folded models: the same answers, whatever was done to the model."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model

from going_modular import engine
from going_modular.training import folding

BF16 = torch.bfloat16


@pytest.fixture
def pictures():
    """Give images (24, 3, 64, 64) and labels."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(24, 3, 64, 64, generator=generator), torch.arange(24).remainder(5)
    )


@pytest.fixture
def model():
    """Give a network whose BatchNorms have something to do."""
    torch.manual_seed(0)
    model = get_model("efficientnet_lite0", weights="DEFAULT")
    model.classifier[-1] = nn.Linear(1280, 5)
    return model


def logits(model, pictures, dtype=BF16):
    return engine.predict(model, DataLoader(pictures, batch_size=8), "cpu", dtype=dtype).logits


def by_hand(model, pictures, dtype):
    """Compute the logits as anybody would: eval mode, autocast, one call."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        return model(pictures.tensors[0]).float()


def test_as_near_to_float32_as_without_folding(model, pictures):
    exact = by_hand(model, pictures, torch.float32)
    plain_error = (by_hand(model, pictures, BF16) - exact).norm()
    assert 0 < (logits(model, pictures) - exact).norm() < 1.3 * plain_error
    assert 0.001 < plain_error / exact.norm() < 0.1  # an error that one can see
    torch.testing.assert_close(logits(model, pictures, torch.float32), exact, atol=1e-4, rtol=1e-4)


def test_the_model_is_left_alone(model, pictures):
    before = copy.deepcopy(model.state_dict())
    kinds = [type(module) for module in model.modules()]
    logits(model, pictures)
    assert [type(module) for module in model.modules()] == kinds
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("part", ["convolution", "statistics", "head", "layer"])
def test_each_prediction_is_the_present_models(part, model, pictures):
    """Nothing is kept from one prediction to the next."""
    first = logits(model, pictures)
    with torch.no_grad():
        if part == "convolution":
            model.features[3][0].block[0][0].weight.mul_(1.5)
        elif part == "statistics":
            model.features[3][0].block[0][1].running_mean.add_(3)
        elif part == "head":
            model.classifier[-1].weight.mul_(2)
        else:
            model.features[8] = nn.Sequential(model.features[8], nn.Hardtanh(0, 1))
    second, expected = logits(model, pictures), by_hand(model, pictures, BF16)
    assert (second - expected).norm() < 0.3 * (second - first).norm()  # rounding, or another model


def test_hooks_are_called(model, pictures):
    """Hooks are how people take features out of a layer."""
    seen = []
    handle = model.features[-1].register_forward_hook(lambda *call: seen.append(call[2].shape))
    logits(model, pictures)
    assert seen == [(8, 1280, 2, 2)] * 3
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *call: seen.append(None))
    logits(model, pictures)
    handle.remove()
    assert len(seen) > 100


def test_models_that_cannot_be_traced_predict(pictures):
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
            self.head = nn.Linear(8 * 62 * 62, 5)

        def forward(self, images):
            return self.head(self.layers(images if images.mean() > -1 else -images))

    torch.manual_seed(0)
    model = Untraceable()
    assert folding.fold(model, BF16) is model
    torch.testing.assert_close(
        logits(model, pictures), by_hand(model, pictures, BF16), atol=0.02, rtol=0.02
    )


def test_parts_with_nested_names_keep_apart(pictures):
    """A layer and one of its own tensors are both read: under names of their own."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten())
            self.narrow = nn.Linear(6 * 62 * 62, 5)
            self.norm = nn.BatchNorm1d(5)

        def forward(self, images):
            values = self.norm(self.narrow(self.stem(images)))
            return values + self.narrow.bias - self.norm.running_mean

    torch.manual_seed(0)
    model = Tied()
    model.norm.running_mean.normal_()
    folded = folding.fold(model.eval(), BF16)
    assert folded is not model and not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(
        logits(model, pictures), by_hand(model, pictures, torch.float32), atol=0.02, rtol=0.02
    )
