"""What one may claim from a result: intervals, calibration, comparisons, and where a model looks.

It knows counts, labels, logits and probabilities and, for Grad-CAM, a model and one of its layers;
not where images or models come from.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike
from torch import Tensor, nn

from going_modular.utils import BLUE, ORANGE, printable

# scikit-learn and scipy are imported by the functions that use them: they take 1.5 seconds, and
# most notebooks and commands want an interval only.

# --- counts and intervals ------------------------------------------------------------------------

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured as `correct` of `total` examples.

    Wilson's score interval stays in [0, 1] and holds for small counts and accuracies near 1.
    Source: https://doi.org/10.1080/01621459.1927.10502953.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total} examples is not an accuracy.")
    share, spread = correct / total, Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # Rounding may push the exact bounds 0 and 1 out by a hair.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def format_accuracy(correct: int, total: int) -> str:
    """Write an accuracy with its 95 % interval, as in "0.933 [0.903, 0.955]"."""
    low, high = wilson_interval(correct, total)
    return f"{correct / total:.3f} [{low:.3f}, {high:.3f}]"


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation, of accuracies over seeds for example."""
    if len(values) < 2:
        raise ValueError(f"A standard deviation needs two values or more, not {len(values)}.")
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def balanced_accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean recall of the classes that have images: a rare one counts as much."""
    from sklearn.metrics import recall_score

    return float(recall_score(labels, predicted, labels=np.unique(labels), average="macro"))


def per_class_table(labels: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]) -> str:
    """Write recall and precision of each class with their 95 % intervals, as an aligned table.

    Recall: of the images of a class, how many were found. Precision: of the answers that name a
    class, how many were right; "never named" where there is no such answer.
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    of_class, named, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    names = [printable(name) for name in class_names]
    width = max(map(len, names))
    lines = [f"{'':<{width}}  {'images':>6}  {'recall':<20}  precision"]
    for i, name in enumerate(names):
        recall = format_accuracy(hits[i], of_class[i]) if of_class[i] else "no images"
        precision = format_accuracy(hits[i], named[i]) if named[i] else "never named"
        lines.append(f"{name:<{width}}  {of_class[i]:>6}  {recall:<20}  {precision}")
    return "\n".join(lines)


# --- calibration: does 90 % mean 90 %? -----------------------------------------------------------


class Bins(NamedTuple):
    """Predictions sorted into bins by confidence: how many, and their means (NaN where none)."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Bins:
    """Sort predictions by confidence, the highest probability, into bins of equal width.

    `probabilities` is (N, classes). Bin m of M holds confidences in (m/M, (m+1)/M].
    """
    probabilities, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return Bins(
            counts,
            np.bincount(index, confidence, bins) / counts,
            np.bincount(index, correct, bins) / counts,
        )


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15
) -> float:
    """Return the mean distance between confidence and accuracy over bins, weighted by examples.

    0 is perfect. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    counts, confidence, accuracy = reliability_bins(probabilities, labels, bins)
    return float(np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum())


def plot_reliability(panels: Mapping[str, tuple[ArrayLike, ArrayLike]], bins: int = 15) -> None:
    """Draw accuracy against confidence, one panel for each named (probabilities, labels).

    The area of a point shows how many predictions it stands for; on the diagonal, confidence is
    right, below it, too high. Grey: where 95% of the accuracies of a perfectly calibrated model
    would lie, with as many predictions in the bin.
    """
    from scipy.stats import binom

    _, axes = plt.subplots(
        1,
        len(panels),
        figsize=(3.6 * len(panels), 3.7),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for axis, (name, (probabilities, labels)) in zip(axes.flat, panels.items(), strict=True):
        counts, confidence, accuracy = reliability_bins(probabilities, labels, bins)
        error = expected_calibration_error(probabilities, labels, bins)
        axis.plot([0, 1], [0, 1], "--", color="0.5", label="confidence is right")
        filled = counts > 0
        axis.plot(confidence[filled], accuracy[filled], color=BLUE, alpha=0.5)
        chance = np.stack(binom.interval(0.95, counts[filled], confidence[filled])) / counts[filled]
        axis.vlines(confidence[filled], *chance, color="0.8", linewidth=5, label="chance alone")
        area = 15 + 600 * counts / counts.sum()
        axis.scatter(confidence, accuracy, area, color=BLUE, zorder=3)
        axis.set(title=f"{name}: ECE {error:.3f}", xlabel="Confidence", aspect="equal")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("Accuracy")
    axes[0, 0].legend(loc="lower right", fontsize=8)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T above 0 at which softmax(logits / T) has the smallest cross-entropy.

    Fit it on validation data. It changes confidences and no prediction.
    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return nn.functional.cross_entropy(logits / math.exp(log_temperature), labels).item()

    # Cross-entropy is convex in 1 / T, so it has one minimum along log T too.
    return math.exp(minimize_scalar(loss, bounds=(math.log(0.01), math.log(100))).x)


# --- comparing two models on the same images ---------------------------------------------------


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Return the p-value of the exact McNemar test: could both models be equally good?

    Only images that one model gets right and the other wrong count: between equals, each of
    these is a fair coin. Both arguments are booleans (N,) for the same images.
    Source: https://doi.org/10.1007/BF02295996.
    """
    from scipy.stats import binomtest

    difference = _paired_difference(correct_a, correct_b)
    if not np.isin(difference, (-1, 0, 1)).all():
        raise ValueError("McNemar's test compares two runs: give True or False for each image.")
    only_a, only_b = int((difference == 1).sum()), int((difference == -1).sum())
    return binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0


def bootstrap_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of accuracy A - accuracy B on the same images.

    Both are (N,): whether each image was named rightly, or the share of several runs that did.
    """
    difference = _paired_difference(correct_a, correct_b)
    # Drawing images with replacement is drawing how often each value of the difference comes.
    values, counts = np.unique(difference, return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(difference), counts / len(difference), size=resamples)
    low, high = np.quantile(drawn @ values / len(difference), [0.025, 0.975])
    return float(low), float(high)


def format_difference(correct_a: ArrayLike, correct_b: ArrayLike) -> str:
    """Write accuracy A - accuracy B with its paired 95 % interval, as in "+0.047 [+0.031, +0.063]".

    The arguments are those of `bootstrap_difference`.
    """
    low, high = bootstrap_difference(correct_a, correct_b)
    return f"{_paired_difference(correct_a, correct_b).mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def _paired_difference(correct_a: ArrayLike, correct_b: ArrayLike) -> np.ndarray:
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(
            f"Shapes {a.shape} and {b.shape}: a paired comparison needs one value for each "
            "image, of the same images in the same order."
        )
    if not all(((0 <= values) & (values <= 1)).all() for values in (a, b)):
        raise ValueError("A paired comparison takes whether each image was right: 0 to 1.")
    return a - b


# --- abstaining ----------------------------------------------------------------------------------


def coverage_curve(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return shares answered (N,), 1/N to 1, and the accuracy of what is answered at each.

    The most confident answers come first: what a model gains by leaving the others to a person.
    """
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    answered = np.arange(1, len(order) + 1)
    return answered / len(order), np.cumsum(np.asarray(correct)[order]) / answered


# --- where a model looks -------------------------------------------------------------------------


def grad_cam(
    model: nn.Module, layer: nn.Module, image: Tensor, class_index: int | None = None
) -> Tensor:
    """Return a map (H, W) in [0, 1] of where `image` (3, H, W) speaks for a class.

    `layer` gives (1, channels, h, w): the last block before pooling, usually. `class_index` None
    stands for the class that the model names. All zeros where nothing speaks for the class.
    Raises ValueError for a layer of another shape.
    Source: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """
    kept = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # gradients start here, frozen trunk or not
        return kept[-1].clone()  # what follows may work in place

    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    hook = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model.eval()(image[None].to(device))[0]
            chosen = logits.argmax() if class_index is None else class_index
            (gradient,) = torch.autograd.grad(logits[chosen], kept[-1])
    finally:
        hook.remove()
        for module, mode in modes.items():  # frozen parts may be in eval mode, beside others
            module.training = mode
    if gradient.ndim != 4:
        raise ValueError(
            f"The layer gives {tuple(gradient.shape)}, and Grad-CAM needs a map: "
            "(1, channels, height, width), as the last block before pooling gives"
        )
    importance = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (importance * kept[-1].detach()).sum(dim=1, keepdim=True).relu()
    heat = nn.functional.interpolate(heat, image.shape[1:], mode="bilinear", align_corners=False)
    return (heat / heat.max().clamp(min=1e-12))[0, 0].cpu()


def plot_grad_cam(
    images: Sequence[Tensor], maps: Sequence[Tensor], titles: Sequence[str], columns: int = 6
) -> None:
    """Draw each image in grey under its Grad-CAM map, from transparent (0) to orange (1).

    `images` are (3, H, W) as the model sees them; their value range does not matter.
    """
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(
        rows, columns, figsize=(1.8 * columns, 2.1 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    drawn = zip(images, maps, titles, strict=True)
    for axis, (image, heat, title) in zip(axes.flat, drawn, strict=False):
        axis.imshow(image.mean(dim=0).numpy(), cmap="gray")
        overlay = np.empty((*heat.shape, 4))
        overlay[..., :3] = to_rgb(ORANGE)
        overlay[..., 3] = 0.8 * heat.numpy()
        axis.imshow(overlay)
        axis.set_title(title, fontsize=9, parse_math=False)
