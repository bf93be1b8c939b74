"""Answers to the exercises of notebook 05: wrong ones with words of their hint, and right ones."""

WILSON = """\
z, p = 1.96, correct / total
centre = p + z**2 / (2 * total)
half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
return (centre - half) / (1 + z**2 / total), (centre + half) / (1 + z**2 / total)
"""
COMPARE = """\
only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
return only_a, only_b, binomtest(only_a, only_a + only_b).pvalue
"""
TEMPERATURE = """\
values = torch.logspace(-1, 1, 401)
losses = [nn.functional.cross_entropy(logits / value, labels) for value in values]
return values[torch.stack(losses).argmin()].item()
"""
THRESHOLD = """\
result = val["20 of each"]
confidences = result.probabilities.max(dim=1).values.tolist()
threshold = min(c for c in confidences if answered(result, c)[1] >= 0.9)
"""

WRONG = {
    1: [
        (
            "p = correct / total\n"
            "half = 1.96 * math.sqrt(p * (1 - p) / total)\n"
            "return p - half, p + half",
            "which no accuracy can be",
        ),
        (WILSON.replace("z, p = 1.96", "z, p = 1.645"), "too narrow"),
        (WILSON.replace("z, p = 1.96", "z, p = 2.576"), "too wide"),
        (
            "found = binomtest(correct, total).proportion_ci(0.95)\nreturn found.low, found.high",
            "too wide",
        ),
        (WILSON.replace(" / (1 + z**2 / total)", ""), "no accuracy can be"),
        (
            WILSON.replace("centre = p + z**2 / (2 * total)", "centre = p * (1 + z**2 / total)"),
            "no accuracy can be",
        ),
        (
            "z, p = 1.96, correct / total\n"
            "half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))\n"
            "half /= 1 + z**2 / total\n"
            "return max(0, p - half), min(1, p + half)",
            "look at the centre",
        ),
        (WILSON.replace("return (", "return (centre + half) / (1 + z**2 / total), ("), "too many"),
    ],
    2: [
        (
            "right = matrix.diagonal()\n"
            "return right / matrix.sum(dim=0), right / matrix.sum(dim=1)",
            "changed places",
        ),
        (
            "right = matrix.diagonal()\n"
            "return right / matrix.sum(dim=1), right / matrix.sum(dim=1)",
            "named 8 + 1 + 4 times",
        ),
        (
            "right = matrix.diagonal()\nreturn right / matrix.sum(), right / matrix.sum(dim=0)",
            "class 0 has 8 + 2 + 0 pictures",
        ),
        (
            "return matrix.diagonal().sum() / matrix.sum(), matrix.diagonal() / matrix.sum(dim=0)",
            "stops",
        ),
    ],
    3: [
        (
            COMPARE.replace("(right_a & ~right_b)", "right_a").replace(
                "(right_b & ~right_a)", "right_b"
            ),
            "leave out",
        ),
        (
            COMPARE.replace("only_a + only_b)", 'only_a + only_b, alternative="greater")'),
            "that is one side",
        ),
        (COMPARE.replace("only_a + only_b)", "len(right_a))"), "there are 11 tosses"),
        (
            "only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())\n"
            "from scipy.stats import chi2\n"
            "return only_a, only_b, chi2.sf((only_a - only_b) ** 2 / (only_a + only_b), 1)",
            "9 heads in 11 tosses",
        ),
        ("return COUNTS", "stops with NameError"),
        (COMPARE.replace("return only_a, only_b", "return only_b, only_a"), "you say 2, 9"),
    ],
    4: [
        (TEMPERATURE.replace("logits / value", "logits * value"), "the inverse"),
        (TEMPERATURE.replace("-1, 1, 401", "-0.5, 0.5, 401"), "from 0.1 to 10"),
        (TEMPERATURE.replace("logspace(-1, 1, 401)", "linspace(0.1, 10, 12)"), "in fine steps"),
        (
            "values = torch.logspace(-1, 1, 401)\n"
            "gaps = []\n"
            "right = (logits.argmax(dim=1) == labels).float().mean()\n"
            "for value in values:\n"
            "    gaps.append(((logits / value).softmax(dim=1).max(dim=1).values).mean() - right)\n"
            "return values[torch.stack(gaps).argmin()].item()",
            "the smallest cross-entropy",
        ),
        (
            "values = torch.logspace(-1, 1, 401)\n"
            "right = [((logits / t).argmax(dim=1) == labels).float().mean() for t in values]\n"
            "return values[torch.stack(right).argmax()].item()",
            "the smallest cross-entropy",
        ),
    ],
    5: [
        (THRESHOLD.replace('val["20', 'test["20'), "chosen on the test pictures"),
        ("threshold = 0.9", "more could be"),
        ("threshold = 0.0", "too few"),
        (
            'sure = val["20 of each"].probabilities.max(dim=1).values\n'
            "threshold = sure.quantile(0.9).item()",
            "more could be",
        ),
        ("threshold = 90", "nothing is answered"),
        (THRESHOLD.replace("min(c", "max(c"), "more could be"),
    ],
}

RIGHT = {
    1: [
        "return evaluation.wilson_interval(correct, total)",
        "from scipy.stats import binomtest\n"
        'found = binomtest(correct, total).proportion_ci(0.95, method="wilson")\n'
        "return found.low, found.high",
    ],
    2: [
        "counts = matrix.double()\n"
        "share = counts / counts.sum(dim=1, keepdim=True)\n"
        "return share.diag().tolist(), (counts / counts.sum(0)).diag().tolist()",
    ],
    3: [
        "only_a = sum(a and not b for a, b in zip(right_a.tolist(), right_b.tolist()))\n"
        "only_b = sum(b and not a for a, b in zip(right_a.tolist(), right_b.tolist()))\n"
        "n, k = only_a + only_b, min(only_a, only_b)\n"
        "return only_a, only_b, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n",
        COMPARE.replace(
            "binomtest(only_a, only_a + only_b).pvalue", "evaluation.mcnemar(right_a, right_b)"
        ),
    ],
    4: [
        "return evaluation.fit_temperature(logits, labels)",
        "inverse = torch.ones((), requires_grad=True)\n"
        "optimizer = torch.optim.LBFGS([inverse], max_iter=100, line_search_fn='strong_wolfe')\n"
        "def closure():\n"
        "    optimizer.zero_grad()\n"
        "    loss = nn.functional.cross_entropy(logits * inverse, labels)\n"
        "    loss.backward()\n"
        "    return loss\n"
        "optimizer.step(closure)\n"
        "return 1 / inverse.item()",
    ],
    5: [
        'result = val["20 of each"]\n'
        "sure = result.probabilities.max(dim=1).values\n"
        "share, accuracy = evaluation.coverage_curve(sure, result.predicted == result.labels)\n"
        "most = max(i for i in range(len(sure)) if accuracy[i] >= 0.9)\n"
        "threshold = sure.sort(descending=True).values[most].item()",
    ],
}
