"""Answers to the exercises of notebook 10: wrong ones with words of their hint, and right ones."""

TEMPERATURE = """\
values = torch.logspace(-1, 1, 401)
losses = [nn.functional.cross_entropy(logits / value, labels) for value in values]
return values[torch.stack(losses).argmin()].item()
"""
SETS = """\
import math
of_true_label = val.gather(1, val_labels[:, None])[:, 0].sort(descending=True).values
return new >= of_true_label[math.ceil((len(val) + 1) * target) - 1]
"""
GROUP = """\
accuracy = {}
for name in set(groups):
    own = [bool(r) for r, group in zip(right, groups) if group == name]
    if len(own) >= at_least:
        accuracy[name] = sum(own) / len(own)
worst = min(accuracy, key=accuracy.get)
return worst, accuracy[worst]
"""
CHANGED = """\
model.eval()
before = model(images).argmax(dim=1)
after = model(change(images)).argmax(dim=1)
return (before != after).float().mean().item()
"""

WRONG = {
    1: [
        ("return torch.multinomial(probabilities, 1)", "(6000, 1)"),
        ("return probabilities.argmax(dim=1)", "draw, do not choose"),
        ("return torch.randint(0, 3, (len(probabilities),))", "come with shares"),
        ("return torch.multinomial(probabilities[0], len(probabilities), True)", "you mix them"),
        ("torch.multinomial(probabilities, 1)[:, 0]", "`return`"),
    ],
    2: [
        (TEMPERATURE.replace("logits / value", "logits * value"), "the inverse"),
        (TEMPERATURE.replace("-1, 1, 401", "-0.5, 0.5, 401"), "from 0.1 to 10"),
        (TEMPERATURE.replace("logspace(-1, 1, 401)", "linspace(0.1, 10, 12)"), "in fine steps"),
        (
            "values = torch.logspace(-1, 1, 401)\n"
            "right = [((logits / t).argmax(dim=1) == labels).float().mean() for t in values]\n"
            "return values[torch.stack(right).argmax()].item()",
            "the smallest cross-entropy",
        ),
    ],
    3: [
        (SETS.replace("descending=True", "descending=False"), "some set is empty"),
        (SETS.replace("new >=", "new <="), "some set is empty"),
        (SETS.replace("target) - 1]", "target)]"), "a probability of 0.0625 is in"),
        (SETS.replace("(len(val) + 1) * target) - 1", "len(val) * target) - 2"), "0.125 is not in"),
        (SETS.replace("new >=", "new >"), "0.125 is not in"),
        (
            SETS.replace("val.gather(1, val_labels[:, None])[:, 0]", "val[:, 1]"),
            "when the classes change places",
        ),
        (SETS.replace("return new >=", "return new.max(dim=1).values >="), "that of `new`"),
    ],
    4: [
        (GROUP.replace("len(own) >= at_least", "own"), "leave it out"),
        (
            GROUP.replace("sum(own) / len(own)", "sum(own) - len(own)"),
            "compare shares",
        ),
        (GROUP.replace("sum(own) / len(own)", "1 - sum(own) / len(own)"), "compare shares"),
        (GROUP.replace("return worst, accuracy[worst]", "return worst, 1"), "2 of 4 are right"),
        (GROUP.replace(">= at_least", "> at_least"), "with at_least=2"),
    ],
    5: [
        (CHANGED.replace("model.eval()\n", ""), "in training mode"),
        (CHANGED.replace("(before != after)", "(before == after)"), "answers that stay"),
        (CHANGED.replace(".float().mean()", ".sum()"), "not a count"),
        (CHANGED.replace("(before != after)", "(after == 1)"), "compare with the answers before"),
        (CHANGED.replace("model(change(images))", "change(model(images))"), "stops"),
    ],
}

RIGHT = {
    1: [
        "edges = probabilities.double().cumsum(dim=1)\n"
        "point = torch.rand(len(probabilities), 1, dtype=torch.float64) * edges[:, -1:]\n"
        "return (point >= edges).sum(dim=1)",
        "return torch.distributions.Categorical(probabilities).sample()",
    ],
    2: ["return evaluation.fit_temperature(logits, labels)"],
    3: [
        SETS,
        "import math\n"
        "scores = 1 - val[torch.arange(len(val)), val_labels]\n"
        "k = math.ceil((len(val) + 1) * target)\n"
        "return (1 - new <= scores.sort().values[k - 1]).int()",
    ],
    4: [
        "names = sorted(set(groups))\n"
        "best = None\n"
        "for name in names:\n"
        "    mask = torch.tensor([group == name for group in groups])\n"
        "    if mask.sum() < at_least:\n"
        "        continue\n"
        "    share = torch.as_tensor(right)[mask].float().mean()\n"
        "    if best is None or share < best[1]:\n"
        "        best = (name, share)\n"
        "return best",
    ],
    5: [CHANGED],
}
