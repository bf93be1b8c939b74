"""Answers to the exercises of notebook 03: wrong ones with words of their hint, and right ones."""

CREATE = 'model = model_builder.create_model("efficientnet_lite0", 12)\n'
GROUPS = "groups = model_builder.parameter_groups(model, lr=1e-3, trunk_lr=1e-4)\n"
ADAMW = "optimizer = torch.optim.AdamW(groups)\n"
LAST_TWO = "model_builder.unfreeze(model, last=2)\n"

BY_NAME = """\
model.requires_grad_(False)
for name in names:
    found = [p for key, p in model.named_parameters() if key.startswith(name + ".")]
    if not found:
        raise ValueError(name)
    for parameter in found:
        parameter.requires_grad = True
"""
MOVING = """\
before = {n: t.clone() for n, t in model.named_buffers() if n.endswith(".running_mean")}
optimizer = torch.optim.SGD(model_builder.parameter_groups(model, lr=0.01))
engine.train_step(model, dataloader, nn.CrossEntropyLoss(), optimizer, device)
after = dict(model.named_buffers())
return [n[: -len(".running_mean")] for n in before if not torch.equal(before[n], after[n])]
"""

WRONG = {
    1: [
        (CREATE + GROUPS + ADAMW, "parameters still train"),
        (CREATE + "model_builder.unfreeze(model, last=1)\n" + GROUPS + ADAMW, "features.7 has"),
        (
            CREATE + "model_builder.freeze(model)\n" + GROUPS + LAST_TWO + ADAMW,
            "moves only what it was given",
        ),
        (
            CREATE + LAST_TWO + "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)",
            "not at a tenth of that",
        ),
        (
            CREATE
            + LAST_TWO
            + GROUPS.replace("lr=1e-3, trunk_lr=1e-4", "lr=1e-4, trunk_lr=1e-3")
            + ADAMW,
            "the head learns at 0.0001",
        ),
        (
            CREATE + "model.requires_grad_(False)\n"
            "model.features[-2:].requires_grad_(True)\n" + GROUPS + ADAMW,
            "head has 15,360 frozen weights",
        ),
        (
            CREATE.replace("12)", "12, weights=None)") + LAST_TWO + GROUPS + ADAMW,
            "is the model pretrained",
        ),
        (CREATE.replace("12)", "1000)") + LAST_TWO + GROUPS + ADAMW, "the head names 1000 classes"),
        (CREATE + LAST_TWO + GROUPS + ADAMW.replace("AdamW", "SGD"), "SGD is not AdamW"),
    ],
    2: [
        ("return remains ** (1 / steps)", "the share that moves"),
        ("return (1 - remains) / steps", "multiplied at each step"),
        ("return remains / steps", "multiplied at each step"),
        ("return 1 - remains ** steps", "between 0 and 1"),
        ("return math.log(remains) / steps", "stops"),
        ("return torch.tensor(remains).log().item() / steps", "between 0 and 1"),
    ],
    3: [
        (
            "if training < 0.5:\n"
            '    return "rate too large"\n'
            "if training - validation > 0.1:\n"
            '    return "overfitting"\n'
            'return "statistics lag" if own_statistics - validation > 0.1 else "healthy"',
            "many more validation images right",
        ),
        (
            "if validation < 0.5:\n"
            '    return "rate too large"\n'
            "if own_statistics - validation > 0.1:\n"
            '    return "statistics lag"\n'
            'return "overfitting" if training - validation > 0.1 else "healthy"',
            "many more validation images right",
        ),
        (
            "if training < 0.5:\n"
            '    return "rate too large"\n'
            'return "statistics lag" if own_statistics - validation > 0.1 else "overfitting"',
            "no two of these numbers have a gap",
        ),
        (
            "if own_statistics - validation > 0.1:\n"
            '    return "statistics lag"\n'
            'return "overfitting" if training - validation > 0.1 else "healthy"',
            "less than half of its training images",
        ),
        (
            "if training < 0.5:\n"
            '    return "rate too large"\n'
            'return "statistics lag" if training - validation > 0.1 else "healthy"',
            "BatchNorm's stored statistics do little harm",
        ),
        (
            "if training < 0.2:\n"
            '    return "rate too large"\n'
            "if own_statistics - validation > 0.1:\n"
            '    return "statistics lag"\n'
            'return "overfitting" if training - validation > 0.1 else "healthy"',
            "less than half of its training images",
        ),
        (
            "if training < 0.5:\n"
            '    return "rate too large"\n'
            "if own_statistics - validation > 0.05:\n"
            '    return "statistics lag"\n'
            'return "overfitting" if training - validation > 0.05 else "healthy"',
            "stored statistics do little harm",
        ),
        (
            "if training < 0.5:\n"
            '    return "rate too large"\n'
            "if own_statistics - validation > 0.3:\n"
            '    return "statistics lag"\n'
            'return "overfitting" if training - validation > 0.1 else "healthy"',
            "many more validation images right",
        ),
    ],
    4: [
        (
            "found = [n for n, _ in model.named_parameters() if n.startswith(tuple(names))]\n"
            "if not found:\n"
            "    raise ValueError(names)\n"
            + BY_NAME.replace("    if not found:\n        raise ValueError(name)\n", ""),
            "no error says so",
        ),
        (BY_NAME.replace('name + "."', "name"), "features.10."),
        (BY_NAME.replace("model.requires_grad_(False)\n", ""), "is trainable"),
        (
            BY_NAME.replace("    if not found:\n        raise ValueError(name)\n", ""),
            "no error says so",
        ),
        (
            "for name in names:\n"
            "    model.get_submodule(name).requires_grad_(True)\n"
            "for key, parameter in model.named_parameters():\n"
            "    if not parameter.requires_grad:\n"
            "        parameter.requires_grad = False",
            "is trainable",
        ),
        (
            "for name in names:\n"
            "    model.requires_grad_(False)\n"
            "    model.get_submodule(name).requires_grad_(True)",
            "layer4.0.conv1.weight is frozen",
        ),
        (
            "if not any(p.requires_grad is False for p in model.parameters()):\n"
            "    model.requires_grad_(False)\n"
            "for name in names:\n"
            "    model.get_submodule(name).requires_grad_(True)",
            "called again with fewer names",
        ),
    ],
    5: [
        (MOVING.replace("t.clone()", "t"), "is what you keep from before a copy"),
        (
            "return [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]",
            "keeps these in eval mode",
        ),
        (MOVING.replace('n[: -len(".running_mean")]', "n"), "is not the name of a BatchNorm layer"),
        (
            MOVING.replace(
                "engine.train_step(model, dataloader, nn.CrossEntropyLoss(), optimizer, device)",
                "model.train()\nfor images, _ in dataloader:\n    model(images.to(device))",
            ),
            "keeps these in eval mode",
        ),
        (
            "norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}\n"
            "return [n for n, m in norms.items() if m.weight.requires_grad]",
            "compare its running mean before and after",
        ),
    ],
}

RIGHT = {
    1: [
        CREATE + "model.requires_grad_(False)\n"
        "model.features[-2:].requires_grad_(True)\n"
        "model.classifier.requires_grad_(True)\n"
        'blocks = {"params": model.features[-2:].parameters(), "lr": 1e-4}\n'
        "optimizer = torch.optim.AdamW([blocks, {'params': model.classifier.parameters()}], 1e-3)",
        CREATE + LAST_TWO + "for module in model.features.modules():\n"
        "    if isinstance(module, nn.BatchNorm2d):\n"
        "        module.requires_grad_(False)\n" + GROUPS + ADAMW,
    ],
    2: ["import math\nreturn 1 - math.exp(math.log(remains) / steps)"],
    3: [
        "gaps = own_statistics - validation > 0.1, training - validation > 0.1\n"
        'names = {(True, True): "statistics lag", (True, False): "statistics lag"}\n'
        'names |= {(False, True): "overfitting", (False, False): "healthy"}\n'
        'return names[gaps] if training >= 0.5 else "rate too large"',
    ],
    4: [
        "parts = [model.get_submodule(name) for name in names]\n"
        "model.requires_grad_(False)\n"
        "for part in parts:\n"
        "    part.requires_grad_(True)",
    ],
    5: [
        "norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}\n"
        "before = {n: m.running_mean.clone() for n, m in norms.items()}\n"
        "optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)\n"
        "engine.train_step(model, dataloader, nn.CrossEntropyLoss(), optimizer, device)\n"
        "return [n for n, m in norms.items() if not torch.equal(m.running_mean, before[n])]",
    ],
}
