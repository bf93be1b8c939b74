"""Answers to the exercises of notebook 04: wrong ones with words of their hint, and right ones."""

COSINE = """\
if step < warmup:
    return lr * (step + 1) / (warmup + 1)
progress = (step - warmup) / (total - warmup)
return lr * (1 + math.cos(math.pi * progress)) / 2
"""
UPDATES = """\
updates = []
for old, new in zip(model_builder.blocks(before), model_builder.blocks(after)):
    a = torch.cat([p.detach().flatten() for p in old.parameters if p.ndim > 1])
    b = torch.cat([p.detach().flatten() for p in new.parameters if p.ndim > 1])
    updates.append(((b - a).norm() / a.norm()).item())
return updates
"""
LP_FT = """\
options = {"device": device, "verbose": False}
model_builder.freeze(model)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=0.01))
engine.train(model, dataloader, optimizer=optimizer, epochs=2, **options)
probe = copy.deepcopy(model.state_dict())
model_builder.unfreeze(model)
optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=0.001))
engine.train(model, dataloader, optimizer=optimizer, epochs=1, **options)
return probe
"""
SECOND = "optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=0.001))\n"

WRONG = {
    1: [
        ("return sum(p.numel() for p in model.parameters()) * 12", "leave them out"),
        (
            "return sum(p.numel() for p in model.parameters() if p.requires_grad) * 3",
            "numbers, not bytes",
        ),
        (
            "return sum(p.numel() for p in model.parameters() if p.requires_grad) * 4",
            "the gradients alone",
        ),
        (
            "return sum(p.numel() for p in model.parameters() if p.requires_grad) * 8",
            "the gradient and two averages",
        ),
        ("return sum(len(p) for p in model.parameters() if p.requires_grad) * 12", "all of its"),
    ],
    2: [
        ("return [lr * decay**i for i in range(blocks + 1)]", "the order is forward"),
        ("return [lr * decay ** (blocks - i) for i in range(blocks)]", "you give 3 rates"),
        ("return [lr * decay ** (blocks + 1 - i) for i in range(blocks + 1)]", "not at 0.05"),
        (
            "return [lr - lr * decay / blocks * (blocks - i) for i in range(blocks + 1)]",
            "have the ratios",
        ),
        ("return [lr * decay] * blocks + [lr]", "have the ratios"),
    ],
    3: [
        (COSINE.replace("(step + 1) / (warmup + 1)", "step / warmup"), "batch 0 learns nothing"),
        (
            COSINE.replace("(step - warmup) / (total - warmup)", "step / total"),
            "batch 7 should have the full rate",
        ),
        (
            COSINE.replace(
                "(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi * progress)"
            ),
            "a cosine ends at -1",
        ),
        (
            COSINE.replace("(step - warmup) / (total - warmup)", "(step - warmup) / total"),
            "where does the fall begin",
        ),
        (
            COSINE.replace("lr * (1 + math.cos(math.pi * progress)) / 2", "lr * (1 - progress)"),
            "where does the fall begin",
        ),
        (COSINE.replace("(step + 1) / (warmup + 1)", "(step + 1) / warmup"), "not equally"),
    ],
    4: [
        (UPDATES.replace("/ a.norm()", "/ b.norm()"), "not after"),
        (UPDATES.replace(" / a.norm()", ""), "divide the length of the change"),
        (UPDATES.replace(" if p.ndim > 1", ""), "only vectors have changed"),
        (
            "updates = []\n"
            "for old, new in zip(model_builder.blocks(before), model_builder.blocks(after)):\n"
            "    pairs = zip(old.parameters, new.parameters)\n"
            "    ratios = [(b - a).norm() / a.norm() for a, b in pairs if a.ndim > 1]\n"
            "    updates.append(torch.stack(ratios).mean().item())\n"
            "return updates",
            "Join the weights of a block",
        ),
        (
            "pairs = zip(before.parameters(), after.parameters())\n"
            "return [((b - a).norm() / a.norm()).item() for a, b in pairs]",
            "values for 9 blocks",
        ),
    ],
    5: [
        (LP_FT.replace("copy.deepcopy(model.state_dict())", "model.state_dict()"), "it is no copy"),
        (
            LP_FT.replace("copy.deepcopy(model.state_dict())", "dict(model.state_dict())"),
            "it is no copy",
        ),
        (LP_FT.replace("model_builder.unfreeze(model)\n", ""), "where it began"),
        (LP_FT.replace(SECOND, ""), "make it after the last change to the model"),
        (LP_FT.replace("model_builder.freeze(model)\n", ""), "freeze it"),
        (
            "model_builder.freeze(model).train()\n"
            "for images, labels in dataloader:\n"
            "    model.to(device)(images.to(device))\n" + LP_FT,
            "running_mean, ...): freeze it, its buffers, too",
        ),
        (LP_FT.replace("epochs=2", "epochs=0"), "the probe has not learned"),
        (LP_FT.replace("return probe", "return model"), "stops with AttributeError"),
    ],
}

RIGHT = {
    1: [
        "from copy import deepcopy\n"
        "trainable = [p for p in deepcopy(model).parameters() if p.requires_grad]\n"
        "return sum(3 * p.element_size() * p.nelement() for p in trainable)",
    ],
    2: [
        "rates = [lr]\n"
        "for _ in range(blocks):\n"
        "    rates.insert(0, rates[0] * decay)\n"
        "return torch.tensor(rates, dtype=torch.float64)",
    ],
    3: [
        "rise = (step + 1) / (warmup + 1)\n"
        "fall = math.cos(math.pi / 2 * max(0, step - warmup) / (total - warmup)) ** 2\n"
        "return lr * min(rise, fall)",
    ],
    4: [
        "def length(tensors):\n"
        "    return math.sqrt(sum(t.detach().double().square().sum().item() for t in tensors))\n"
        "updates = []\n"
        "for old, new in zip(model_builder.blocks(before), model_builder.blocks(after)):\n"
        "    pairs = [(a, b) for a, b in zip(old.parameters, new.parameters) if a.ndim > 1]\n"
        "    updates.append(length([b - a for a, b in pairs]) / length([a for a, _ in pairs]))\n"
        "return updates",
    ],
    5: [
        LP_FT.replace(
            "copy.deepcopy(model.state_dict())",
            "{name: tensor.clone() for name, tensor in model.state_dict().items()}",
        ).replace("**options", "cache_frozen=True, **options"),
    ],
}
