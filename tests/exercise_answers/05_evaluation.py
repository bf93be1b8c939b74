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
CHOOSE = """\
shares = {name: runs.float().mean(dim=0) for name, runs in rights.items()}
best = max(shares, key=lambda name: shares[name].mean())
tied = []
for name in shares:
    low, high = evaluation.bootstrap_difference(shares[best], shares[name])
    if low <= 0:
        tied.append(name)
return min(tied, key=lambda name: seconds[name])
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
            "class 0 has 8 + 2 + 0 images",
        ),
        (
            "return matrix.diagonal().sum() / matrix.sum(), matrix.diagonal() / matrix.sum(dim=0)",
            "a value per class",
        ),
        (
            "right = matrix[range(3), range(3)]\n"
            "return right / matrix.sum(dim=1), right / matrix.sum(dim=0)",
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
        (
            "only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())\n"
            'side = binomtest(only_a, only_a + only_b, alternative="greater").pvalue\n'
            "return only_a, only_b, 2 * side",
            "with A and B swapped",
        ),
    ],
    4: [
        ("return max(rights, key=lambda name: rights[name].float().mean())", "not 'partial'"),
        ("return min(seconds, key=seconds.get)", "you choose 'probe'"),
        (CHOOSE.replace("low <= 0", "high >= 0"), "you choose 'probe'"),
        (CHOOSE.replace("runs.float().mean(dim=0)", "runs[0].float()"), "use all seeds"),
        (
            CHOOSE.replace("runs.float().mean(dim=0)", "runs.flatten()").replace(
                "shares[name].mean()", "shares[name].float().mean()"
            ),
            "not 1,800",
        ),
        (
            # Do the two models' own intervals overlap?
            "wilson = evaluation.wilson_interval\n"
            "means = {name: runs.float().mean().item() for name, runs in rights.items()}\n"
            "ends = {name: wilson(round(360 * mean), 360) for name, mean in means.items()}\n"
            "best = max(means, key=means.get)\n"
            "tied = [name for name in ends if ends[name][1] >= ends[best][0]]\n"
            "return min(tied, key=seconds.get)",
            "own intervals overlap",
        ),
        (
            # What is within two points of the best is as good.
            "means = {name: runs.float().mean().item() for name, runs in rights.items()}\n"
            "tied = [name for name in means if means[name] > max(means.values()) - 0.02]\n"
            "return min(tied, key=seconds.get)",
            "paired, that is clear",
        ),
        (
            # The cheapest of all but the best.
            "best = max(rights, key=lambda name: rights[name].float().mean())\n"
            "return min((name for name in rights if name != best), key=seconds.get)",
            "you choose 'probe'",
        ),
        (
            # McNemar, of seed 0 alone.
            "best = max(rights, key=lambda name: rights[name].float().mean())\n"
            "p = {n: evaluation.mcnemar(rights[best][0], rights[n][0]) for n in rights}\n"
            "tied = [name for name in rights if p[name] > 0.05]\n"
            "return min(tied, key=seconds.get)",
            "use all seeds",
        ),
        (CHOOSE.replace("min(tied", "max(tied"), "you choose 'full', not 'partial'"),
    ],
    5: [
        (THRESHOLD.replace('val["20', 'test["20'), "chosen on the test images"),
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
        CHOOSE,
        "cheap_first = sorted(rights, key=seconds.get)\n"
        "shares = {name: rights[name].double().mean(0) for name in rights}\n"
        "best = max(cheap_first, key=lambda name: shares[name].mean())\n"
        "for name in cheap_first:\n"
        "    if not evaluation.bootstrap_difference(shares[best], shares[name])[0] > 0:\n"
        "        return name",
    ],
    5: [
        'result = val["20 of each"]\n'
        "sure = result.probabilities.max(dim=1).values\n"
        "share, accuracy = evaluation.coverage_curve(sure, result.predicted == result.labels)\n"
        "most = max(i for i in range(len(sure)) if accuracy[i] >= 0.9)\n"
        "threshold = sure.sort(descending=True).values[most].item()",
    ],
}
