"""Intervals against scipy's and NumPy's."""

import numpy as np
import pytest
from scipy.stats import binomtest

from going_modular import evaluation


@pytest.mark.parametrize(("correct", "total"), [(0, 5), (1, 1), (65, 75), (68, 75), (720, 720)])
def test_wilson_interval_is_scipys(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert evaluation.wilson_interval(correct, total) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(ValueError, match=f"{correct} correct of {total}"):
        evaluation.wilson_interval(correct, total)


def test_accuracy_is_written_with_its_interval():
    assert evaluation.format_accuracy(65, 75) == "0.867 [0.772, 0.926]"


def test_mean_and_std_are_numpys():
    values = [0.91, 0.94, 0.925]
    expected = np.mean(values), np.std(values, ddof=1)
    assert evaluation.mean_and_std(values) == pytest.approx(expected)
    with pytest.raises(ValueError, match="two values"):
        evaluation.mean_and_std([0.9])
