"""Claims against independent oracles: scipy, scikit-learn, NumPy, and values computed by hand."""

import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from scipy.stats import binomtest
from sklearn.metrics import log_loss, precision_score, recall_score
from torch import nn

from going_modular import evaluation, model_builder


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


# --- per class -----------------------------------------------------------------------------------


def test_per_class_table_has_scikit_learns_recall_and_precision():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    predicted = np.where(rng.random(90) < 0.7, labels, rng.integers(0, 3, 90))
    table = evaluation.per_class_table(torch.tensor(labels), torch.tensor(predicted), "abc")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert [int(row[1]) for row in rows] == np.bincount(labels).tolist()
    recall, precision = ([float(row[column]) for row in rows] for column in (2, 5))
    assert recall == pytest.approx(recall_score(labels, predicted, average=None), abs=5e-4)
    assert precision == pytest.approx(precision_score(labels, predicted, average=None), abs=5e-4)
    assert recall != precision


def test_per_class_table_says_what_it_cannot_know():
    table = evaluation.per_class_table([0, 0, 1, 1], [0, 0, 0, 0], ["area", "bar", "pie"])
    _, area, bar, pie = table.splitlines()
    assert "1.000 [0.342, 1.000]" in area and "0.500 [0.150, 0.850]" in area
    assert "0.000 [0.000, 0.658]" in bar and bar.endswith("never named")
    assert "no images" in pie and pie.endswith("never named")


# --- calibration ---------------------------------------------------------------------------------


def two_classes(confidences, correct):
    """Build probabilities (N, 2) whose first class has the confidence; label 0 where correct."""
    confidences = np.asarray(confidences)
    return np.stack([confidences, 1 - confidences], axis=1), 1 - np.asarray(correct, dtype=int)


def test_calibration_error_by_hand():
    # 15 bins: 0.95 is in the last one, with 1 of 2 right; 0.72 and 0.70 in (10/15, 11/15], 1 of 2.
    probabilities, labels = two_classes([0.95, 0.95, 0.72, 0.70], [1, 0, 1, 0])
    expected = 0.5 * abs(0.5 - 0.95) + 0.5 * abs(0.5 - 0.71)
    error = evaluation.expected_calibration_error(torch.tensor(probabilities), labels)
    assert error == pytest.approx(expected)
    # One bin over all: |1/2 - mean confidence|, and it sees less.
    assert evaluation.expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(
        0.83 - 0.5
    )


def test_calibration_error_of_a_perfect_and_of_a_boastful_model():
    probabilities, labels = two_classes([0.8] * 10, [1] * 8 + [0] * 2)
    assert evaluation.expected_calibration_error(probabilities, labels) == pytest.approx(0)
    probabilities, labels = two_classes([1.0] * 4, [1, 0, 0, 0])
    assert evaluation.expected_calibration_error(probabilities, labels) == pytest.approx(0.75)


def test_reliability_bins_hold_their_upper_edge():
    probabilities, labels = two_classes([0.6, 0.8, 0.801, 1.0], [1, 1, 0, 1])
    counts, confidence, accuracy = evaluation.reliability_bins(probabilities, labels, bins=5)
    assert counts.tolist() == [0, 0, 1, 1, 2]
    assert confidence[2:] == pytest.approx([0.6, 0.8, 0.9005])
    assert accuracy[2:] == pytest.approx([1, 1, 0.5]) and np.isnan(accuracy[:2]).all()


def test_temperature_is_found_again():
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 4)
    labels = torch.distributions.Categorical(logits=logits).sample()  # T = 1 is right by design
    assert evaluation.fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert evaluation.fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.1)


def test_temperature_has_the_smallest_cross_entropy_of_a_grid():
    torch.manual_seed(1)
    logits, labels = 5 * torch.randn(200, 3), torch.randint(3, (200,))
    logits[torch.arange(200), labels] += 4
    grid = np.geomspace(0.3, 10, 200)
    losses = [log_loss(labels, (logits.double() / t).softmax(dim=1).numpy()) for t in grid]
    best = grid[np.argmin(losses)]
    assert best not in (grid[0], grid[-1])
    assert evaluation.fit_temperature(logits, labels) == pytest.approx(best, rel=0.02)


def test_reliability_plot_draws_a_panel_for_each_and_names_the_error():
    probabilities, labels = two_classes([0.8] * 10, [1] * 6 + [0] * 4)
    panels = {"all": (probabilities, labels), "right": (probabilities[:6], labels[:6])}
    evaluation.plot_reliability(panels)
    figure = plt.gcf()
    assert [axis.get_title() for axis in figure.axes] == ["all: ECE 0.200", "right: ECE 0.200"]
    chance, points = figure.axes[0].collections
    assert np.allclose(points.get_offsets().compressed(), [0.8, 0.6])
    drawn = np.random.default_rng(0).binomial(10, 0.8, 100_000) / 10
    (bar,) = chance.get_segments()
    assert bar[:, 1] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    plt.close(figure)


# --- paired comparison ---------------------------------------------------------------------------


def paired(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 5), (9, 2), (4, 4), (30, 12)])
def test_mcnemar_is_the_sum_of_binomial_tails(only_a, only_b):
    n, small = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(small + 1)) / 2**n
    a, b = paired(50, only_a, only_b, 7)
    assert evaluation.mcnemar(a, b) == pytest.approx(min(1, 2 * tail))


def test_mcnemar_sees_only_where_the_models_differ():
    assert evaluation.mcnemar(*paired(5, 9, 2, 5)) == evaluation.mcnemar(*paired(500, 9, 2, 70))
    assert evaluation.mcnemar(*paired(5, 0, 0, 5)) == 1.0


def test_runs_over_several_seeds_are_compared_by_their_shares():
    generator = np.random.default_rng(0)
    a, b = generator.random((5, 300)) < 0.9, generator.random((5, 300)) < 0.8
    low, high = evaluation.bootstrap_difference(a.mean(0), b.mean(0))
    drawn = generator.integers(300, size=(4000, 300))
    means = (a.mean(0) - b.mean(0))[drawn].mean(axis=1)  # one image after another
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)
    with pytest.raises(ValueError, match="two runs"):
        evaluation.mcnemar(a.mean(0), b.mean(0))


def test_a_difference_is_written_with_its_interval():
    a, b = np.arange(100) < 90, np.arange(100) < 80
    low, high = evaluation.bootstrap_difference(a, b)
    assert evaluation.format_difference(a, b) == f"+0.100 [{low:+.3f}, {high:+.3f}]"


def test_bootstrap_interval_is_that_of_resampled_pictures():
    a, b = (np.array(values) for values in paired(60, 12, 4, 24))
    rng = np.random.default_rng(3)
    picked = rng.integers(0, 100, size=(20_000, 100))
    differences = a[picked].mean(axis=1) - b[picked].mean(axis=1)
    expected = np.quantile(differences, [0.025, 0.975])
    assert evaluation.bootstrap_difference(a, b) == pytest.approx(expected, abs=0.011)
    low, high = evaluation.bootstrap_difference(b, a)
    assert (-high, -low) == pytest.approx(expected, abs=0.011)
    assert evaluation.bootstrap_difference(a, b) == evaluation.bootstrap_difference(a, b)


def test_a_comparison_of_different_images_is_refused():
    for compare in (evaluation.mcnemar, evaluation.bootstrap_difference):
        with pytest.raises(ValueError, match="same images"):
            compare([True, False], [True])
        with pytest.raises(ValueError, match="same images"):
            compare([], [])


# --- abstaining ----------------------------------------------------------------------------------


def test_coverage_curve_answers_the_most_confident_first():
    shares, accuracy = evaluation.coverage_curve([0.5, 0.9, 0.7, 0.6], [False, True, True, False])
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1])
    assert accuracy == pytest.approx([1, 1, 2 / 3, 0.5])


# --- Grad-CAM ------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Features (the image's own channels), their mean over the pixels, and a linear head."""

    def __init__(self, weight):
        super().__init__()
        self.features = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, len(weight))
        self.head.weight.data = torch.tensor(weight)

    def forward(self, images):
        return self.head(self.relu(self.features(images)).mean(dim=(2, 3)))


@pytest.fixture
def linear():
    return Linear([[1.0, -2.0, 0.5], [-1.0, 3.0, 0.0]])


def test_grad_cam_of_a_linear_model_is_its_weighted_features(linear):
    # d logit / d pixel is weight / pixels everywhere, so the map is relu(sum of weight x feature).
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.01
    for class_index, weight in enumerate(linear.head.weight.detach()):
        expected = (weight[:, None, None] * image).sum(dim=0).relu()
        heat = evaluation.grad_cam(linear, linear.features, image, class_index)
        assert torch.allclose(heat, expected / expected.max(), atol=1e-6)


def test_grad_cam_explains_the_class_that_the_model_names(linear):
    image = torch.rand(3, 4, 6)
    named = int(linear(image[None].clone()).argmax())
    maps = [
        evaluation.grad_cam(linear, linear.features, image, c) for c in (None, named, 1 - named)
    ]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


def test_grad_cam_is_zero_where_nothing_speaks_for_the_class(linear):
    image = torch.zeros(3, 4, 4)
    image[1] = 1.0  # speaks against class 0
    assert evaluation.grad_cam(linear, linear.features, image, 0).eq(0).all()


def test_grad_cam_finds_the_place_and_leaves_the_model_as_it_was():
    """In a frozen network with a random trunk too: gradients start at the layer."""
    torch.manual_seed(0)
    model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 3, weights=None))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    heat = evaluation.grad_cam(model, model.features[-1], torch.randn(3, 64, 96))
    assert heat.shape == (64, 96) and heat.min() >= 0 and heat.max() == pytest.approx(1, abs=1e-3)
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_grad_cam_plot_shows_image_and_map(linear):
    image = torch.rand(3, 4, 4)
    heat = evaluation.grad_cam(linear, linear.features, image, 1)
    evaluation.plot_grad_cam([image], [heat], ["pie"])
    figure = plt.gcf()
    picture, overlay = figure.axes[0].get_images()
    assert np.allclose(picture.get_array(), image.mean(dim=0))
    assert np.allclose(overlay.get_array()[..., 3], 0.8 * heat)
    plt.close(figure)


def test_grad_cam_needs_a_map_and_leaves_each_part_in_its_mode(linear):
    linear.train()
    linear.features.eval()
    evaluation.grad_cam(linear, linear.features, torch.randn(3, 8, 8))
    assert linear.training and not linear.features.training
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"gives \(1, 4\)"):
        evaluation.grad_cam(net, net[1], torch.randn(3, 8, 8))
