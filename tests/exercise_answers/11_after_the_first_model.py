"""Answers to the exercises of notebook 11: wrong ones with words of their hint, and right ones."""

ADJUSTED = "return logits - tau * (counts / counts.sum()).log()"
F1 = """\
values = []
for k in range(classes):
    both = ((labels == k) & (predicted == k)).sum()
    values.append(2 * both / ((labels == k).sum() + (predicted == k).sum()))
return float(sum(values) / classes)
"""
THRESHOLD = """\
def f1(threshold):
    named = (probabilities >= threshold).float()
    return 2 * (named * present).sum() / (named.sum() + present.sum())

return max(grid, key=f1)
"""
EXTEND = """\
larger = nn.Linear(head.in_features, head.out_features + 1)
with torch.no_grad():
    larger.weight.zero_()
    larger.bias.zero_()
    larger.weight[:-1] = head.weight
    larger.bias[:-1] = head.bias
return larger
"""
ASK = """\
top = probabilities.topk(2, dim=1).values
margin = top[:, 0] - top[:, 1]
margin[labelled] = float("inf")
return margin.argsort()[:number]
"""

WRONG = {
    1: [
        (ADJUSTED.replace("logits -", "logits +"), "you help the common class"),
        (ADJUSTED.replace(".log()", ""), "do you take the log"),
        ("return logits - tau * counts.sum().log()", "nothing has changed"),
        (ADJUSTED.replace("tau * ", ""), "half as much"),
        (ADJUSTED.replace("return logits", "return logits[0]"), "(2, 3) is wanted"),
    ],
    2: [
        ("return (labels == predicted).float().mean()", "that is accuracy"),
        (
            "own = [(predicted[labels == k] == k).float().mean() for k in range(classes)]\n"
            "return sum(own) / classes",
            "that is the mean recall",
        ),
        (
            "total = 0\n"
            "for k in range(classes):\n"
            "    both = ((labels == k) & (predicted == k)).sum()\n"
            "    p, r = both / (predicted == k).sum(), both / (labels == k).sum()\n"
            "    total += 2 * p * r / (p + r)\n"
            "return total / classes",
            "divide by zero",
        ),
        (F1.replace("/ classes", "/ len(predicted.unique())"), "is never named"),
        (F1.replace("2 * both", "both"), "their mean"),
        (
            "from sklearn.metrics import f1_score\n"
            "return f1_score(labels, predicted, average='weighted', zero_division=0)",
            "all count alike",
        ),
    ],
    3: [
        (
            "return max(grid, key=lambda t: ((probabilities >= t) == present).float().mean())",
            "take F1",
        ),
        ("return 0.5", "is not in the grid"),
        ("return max(grid, key=lambda t: (probabilities >= t).sum())", "every page is named"),
        (THRESHOLD.replace(">= threshold", "> threshold"), "is at least 0.35"),
        (THRESHOLD.replace("max(", "min("), "nothing is named"),
    ],
    4: [
        ("return nn.Linear(head.in_features, head.out_features + 1)", "first three rows"),
        (EXTEND.replace("    larger.bias[:-1] = head.bias\n", ""), "copy the biases"),
        (
            EXTEND.replace("    larger.weight.zero_()\n    larger.bias.zero_()\n", ""),
            "the new logit is not zero",
        ),
        ("return nn.Linear(head.in_features + 1, head.out_features)", "(4, 6) is wanted"),
        (
            "head.weight = nn.Parameter(torch.cat([head.weight, torch.zeros(1, 6)]))\n"
            "head.bias = nn.Parameter(torch.cat([head.bias, torch.zeros(1)]))\n"
            "return head",
            "change the old head itself",
        ),
    ],
    5: [
        (ASK.replace('margin[labelled] = float("inf")\n', ""), "has a label already"),
        (ASK.replace("[:, 0] - top[:, 1]", "[:, 1] - top[:, 0]"), "the surest of all"),
        (
            "sure = probabilities.max(dim=1).values\n"
            "sure[labelled] = 2\n"
            "return sure.argsort()[:number]",
            "the largest minus the second",
        ),
        (
            "top = probabilities[~labelled].topk(2, dim=1).values\n"
            "return (top[:, 0] - top[:, 1]).argsort()[:number]",
            "with row 0 labelled",
        ),
        (ASK.replace("[:number]", ""), "two rows are wanted"),
    ],
}

RIGHT = {
    1: [ADJUSTED, "return logits - tau * torch.log(counts.float())"],
    2: [
        F1,
        "from sklearn.metrics import f1_score\n"
        "return f1_score(labels, predicted, labels=range(classes), average='macro')",
    ],
    3: [
        THRESHOLD,
        "from sklearn.metrics import f1_score\n"
        "scores = [f1_score(present, probabilities >= t, zero_division=0) for t in grid]\n"
        "return grid[max(range(len(grid)), key=scores.__getitem__)]",
    ],
    4: [
        EXTEND,
        "larger = nn.Linear(head.in_features, head.out_features + 1)\n"
        "w, b = head.weight.detach(), head.bias.detach()\n"
        "larger.weight.data = torch.cat([w, torch.zeros(1, w.shape[1])])\n"
        "larger.bias.data = torch.cat([b, torch.zeros(1)])\n"
        "return larger",
    ],
    5: [
        ASK,
        "free = (~labelled).nonzero()[:, 0]\n"
        "top = probabilities[free].sort(dim=1, descending=True).values\n"
        "return free[(top[:, 0] - top[:, 1]).argsort()][:number].tolist()",
    ],
}
