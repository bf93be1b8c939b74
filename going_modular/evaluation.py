"""What one may claim from a result: intervals around counts, and means over seeds.

It knows counts, labels and probabilities; not where images or models come from.
"""

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured as `correct` of `total` examples.

    Wilson's score interval stays in [0, 1] and holds for small counts and accuracies near 1.
    Source: https://doi.org/10.1080/01621459.1927.10502953.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total} examples is no accuracy.")
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
