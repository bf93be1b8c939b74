"""Images that look the same though their bytes differ: hashes of looks, and groups of copies.

It compares what it is given, and knows neither files nor folders.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GRID = 16  # cells of a difference hash, in each direction
NOISE = 2  # levels of brightness, of 256, that do not count as a difference


def hash_pixels(image: Image.Image) -> str:
    """Return the SHA-256 of an image's size and pixels."""
    digest = hashlib.sha256(repr(image.size).encode())
    for top in range(0, image.height, 256):  # in strips: a second copy could take 500 MB
        strip = (0, top, image.width, min(top + 256, image.height))
        digest.update(image.crop(strip).tobytes())
    return digest.hexdigest()


def difference_hash(image: Image.Image) -> np.ndarray:
    """Tell where a tiny grey version gets lighter (1), darker (-1) or neither (0): (2, 512).

    From left to right, and from top to bottom; the second row is that of the mirror image.
    """
    side = GRID + 1
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.LANCZOS), np.int16)
    return np.stack([_signs(grey), _signs(grey[:, ::-1])])


def _signs(grey: np.ndarray) -> np.ndarray:
    right, down = np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1]
    steps = np.concatenate([right.ravel(), down.ravel()])
    return (np.sign(steps) * (abs(steps) > NOISE)).astype(np.int8)


def similar_pairs(
    vectors: ArrayLike, threshold: float, others: ArrayLike | None = None
) -> np.ndarray:
    """Return (pairs, 2): the i < j where row i, and row j of `others` if given, are so similar.

    The similarity is the cosine, of difference hashes or of any features (N, F).
    """
    vectors = _normalized(vectors)
    others = vectors if others is None else _normalized(others)
    pairs = [np.empty((0, 2), int)]
    for start in range(0, len(vectors), 1024):  # 50,000 images have a billion pairs
        near = vectors[start : start + 1024] @ others[start:].T >= threshold
        pairs.append(np.argwhere(np.triu(near, 1)) + start)
    return np.concatenate(pairs)


def _normalized(vectors: ArrayLike) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


def group_copies(
    pixel_hashes: Sequence[str], looks: Sequence[np.ndarray], nearly: float
) -> list[list[int]]:
    """Return groups of positions: the same pixels, or looks so similar, mirrored or not."""
    if not pixel_hashes:
        return []
    first = {}  # where each image is met first
    links = [(i, first.setdefault(digest, i)) for i, digest in enumerate(pixel_hashes)]
    same, mirrored = np.stack(looks, axis=1)
    pairs = [links, similar_pairs(same, nearly), similar_pairs(same, nearly, mirrored)]
    rows, columns = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), [len(pixel_hashes)] * 2)
    groups = {}
    for position, group in enumerate(connected_components(graph, False)[1]):
        groups.setdefault(group, []).append(position)
    return [group for group in groups.values() if len(group) > 1]
