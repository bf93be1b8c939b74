"""A set of labelled images that a DataLoader reads, decoded once where they fit into memory.

It knows paths, labels and one transform, not how the images were split.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification  # what weights.transforms() returns

from going_modular import utils
from going_modular.pictures.image import hash_file, load_image, map_files
from going_modular.pictures.splits import Sample

KNOWN = ImageClassification, utils.Padded  # transforms of which one can tell what they do


class ImageDataset(Dataset):
    """Labelled images on disk; without a transform, an item is a PIL image and its label.

    With a transform that comes from pretrained weights, each image is decoded, resized and
    cropped once and its bytes are kept, as long as the whole set fits into `memory_budget()`:
    later reads only normalise, with a result that is the same bit for bit.
    """

    def __init__(
        self, samples: Iterable[Sample], class_names: list[str], transform: Callable | None = None
    ):
        self.samples = list(samples)
        self.class_names = list(class_names)
        self.transform = transform

    @property
    def transform(self) -> Callable | None:
        return self._transform

    @transform.setter
    def transform(self, transform: Callable | None) -> None:
        self._transform = transform
        self._pixels = {}  # path -> uint8 (3, H, W), made by this transform and no other

    @property
    def classes(self) -> list[str]:
        return self.class_names

    @property
    def targets(self) -> list[int]:
        return [label for _, label in self.samples]

    @property
    def is_kept_in_memory(self) -> bool:
        """Whether images are decoded once only; each worker process keeps its own."""
        if type(self.transform) not in KNOWN:
            return False
        worker = get_worker_info()
        copies = worker.num_workers if worker else 1
        return copies * len(self) * 3 * self.transform.crop_size[0] ** 2 <= memory_budget()

    def few(self, per_class: int, seed: int = 42) -> "ImageDataset":
        """Return that many images of each class; a smaller number is part of a larger one."""
        rng = random.Random(seed)
        order = sorted(self.samples, key=lambda _: rng.random())
        taken, chosen = Counter(), []
        for path, label in order:
            if taken[label] < per_class:
                taken[label] += 1
                chosen.append((path, label))
        for label, name in enumerate(self.class_names):
            if taken[label] < per_class:
                raise ValueError(f"class {name!r} has {taken[label]} images, not {per_class}")
        return ImageDataset(chosen, self.class_names, self.transform)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple:
        path, label = self.samples[index]
        if self.is_kept_in_memory:
            if path not in self._pixels:
                self._pixels[path] = self._prepare(path)
            return _normalize(self._pixels[path], self.transform), label
        image = load_image(path)
        return (self.transform(image) if self.transform else image), label

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        """Return a batch's items, as a DataLoader asks for them: those to be kept in threads."""
        if self.is_kept_in_memory and get_worker_info() is None:
            paths = list({self.samples[index][0] for index in indices} - self._pixels.keys())
            if len(paths) > 1:
                with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                    self._pixels |= zip(paths, pool.map(self._prepare, paths), strict=True)
        return [self[index] for index in indices]

    def _prepare(self, path: Path) -> torch.Tensor:
        return _resize_and_crop(load_image(path), self.transform)

    def content_key(self) -> str:
        """Return a hash of all items in their order: files and labels, whatever the transform.

        Neither names, places nor dates matter. Files that did not change are not read again.
        """
        files = map_files(hash_file, [path for path, _ in self.samples], "Reading images")
        return hashlib.sha256(repr((self.targets, files)).encode()).hexdigest()

    def fingerprint(self) -> str | None:
        """Return a hash of what a dataloader gets: `content_key()` and the transform.

        None with a transform other than that of pretrained weights: what it does cannot be told.
        """
        if type(self.transform) not in KNOWN:
            return None
        self._pixels = {}  # what is kept may be older than the files are now
        made_of = utils.describe_transform(self.transform), self.content_key()
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pixels": {}}  # a worker process decodes what it is asked for

    def __repr__(self) -> str:
        return f"ImageDataset({len(self)} images, {len(self.class_names)} classes)"


# The two halves of ImageClassification.forward, as torchvision has it.


def _resize_and_crop(image: Image.Image, preset: ImageClassification) -> torch.Tensor:
    if isinstance(preset, utils.Padded):
        image = preset.pad(image)
    image = F.resize(image, preset.resize_size, preset.interpolation, antialias=preset.antialias)
    return F.pil_to_tensor(F.center_crop(image, preset.crop_size)).contiguous()


def _normalize(pixels: torch.Tensor, preset: ImageClassification) -> torch.Tensor:
    image = F.convert_image_dtype(pixels, torch.float)
    return F.normalize(image, preset.mean, preset.std, inplace=True)


def memory_budget() -> int:
    """Return how many bytes of images a data set may keep: 1/8 of the memory, at most 2 GB."""
    return min(psutil.virtual_memory().total // 8, 2 * 2**30)
