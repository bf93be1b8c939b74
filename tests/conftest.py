"""What several test files share: small data whose labels can be learned, and float32."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

# A bar that appears only on a slow machine would be output that a notebook has not stored; the
# kernels that nbval starts inherit this.
os.environ.setdefault("TQDM_DISABLE", "1")


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Compute as exactly as the processor can, wherever the tests run; they use two threads."""
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
