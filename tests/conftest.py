"""What several test files share: small data whose labels can be learned, and float32."""

import os
import tempfile
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import VisionTransformer, Weights, WeightsEnum, _api
from torchvision.transforms._presets import ImageClassification

if "PYTEST_XDIST_WORKER" in os.environ:  # one of two processes: more threads would be in the way
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the kernels and commands that it starts
    torch.set_num_threads(1)
# A bar that appears only on a slow machine would be output that a notebook has not stored; the
# kernels that nbval starts inherit this.
os.environ.setdefault("TQDM_DISABLE", "1")
# Trunk outputs of the tests stay out of the user's own cache; gone when pytest ends.
CACHE = tempfile.TemporaryDirectory(prefix="going_modular_tests_")
os.environ["GOING_MODULAR_CACHE"] = CACHE.name


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Compute as exactly as the processor can, wherever the tests run."""
    monkeypatch.setenv("GOING_MODULAR_PRECISION", "float32")


@pytest.fixture
def make_dataloader():
    """Build a DataLoader of random images (N, 3, size, size) whose classes differ in brightness."""

    def make(examples=24, size=32, classes=3, batch_size=8, shuffle=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(examples) % classes
        images = torch.randn(examples, 3, size, size, generator=generator)
        images += labels[:, None, None, None] - 1.0
        return DataLoader(TensorDataset(images, labels), batch_size, shuffle=shuffle)

    return make


@pytest.fixture
def photo_folder(tmp_path):
    """Make a folder of two classes, "dark" and "light", with 20 small photos each."""
    rng = np.random.default_rng(0)
    for name, base in (("dark", 40), ("light", 200)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(20):
            pixels = rng.normal(base, 20, size=(48, 56, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.jpg")
    return tmp_path / "photos"


class ViTTinyWeights(WeightsEnum):
    """Weights for two image sizes, made on the spot: SMALL is the default, LARGE like SWAG_E2E."""

    SMALL = Weights(
        url="made:small",
        transforms=partial(ImageClassification, crop_size=32, resize_size=36),
        meta={"min_size": (32, 32)},
    )
    LARGE = Weights(
        url="made:large",
        transforms=partial(ImageClassification, crop_size=48, resize_size=48),
        meta={"min_size": (48, 48)},
    )
    DEFAULT = SMALL


def build_vit_tiny(*, weights: ViTTinyWeights | None = None, **config) -> VisionTransformer:
    torch.manual_seed(0 if weights is None else 1)
    return VisionTransformer(
        patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, **config
    )


@pytest.fixture
def vit_tiny():
    """Register a ViT of two layers with torchvision, as it registers its own; return its name."""
    _api.register_model("vit_tiny")(build_vit_tiny)
    yield "vit_tiny"
    del _api.BUILTIN_MODELS["vit_tiny"]


@pytest.fixture
def no_warnings():
    """Fail where anything warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
