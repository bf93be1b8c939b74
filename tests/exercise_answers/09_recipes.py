"""Answers to the exercises of notebook 09: wrong ones with words of their hint, and right ones."""

NOT_HELD = """\
held = {id(p) for group in optimizer.param_groups for p in group["params"]}
return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in held)
"""
KEEP = """\
best_accuracy = -1
for epoch in range(1, epochs + 1):
    train_epoch(model)
    accuracy = validate(model)
    if accuracy > best_accuracy:
        best_accuracy, best_epoch = accuracy, epoch
        best_state = copy.deepcopy(model.state_dict())
model.load_state_dict(best_state)
return best_epoch
"""
COUNTS = """\
found = set()
for counts in itertools.product(*(range(size + 1) for size in sizes)):
    accuracies = [count / size for count, size in zip(counts, sizes)]
    if round(sum(accuracies) / len(sizes), 4) == reported:
        found.add(sum(counts))
return found
"""
FIND = """\
ran, handles = [], []
for name, module in network.named_modules():
    if list(module.parameters()) and not list(module.children()):
        hook = module.register_forward_hook(lambda *call, name=name: ran.append(name))
        handles.append(hook)
network(images)
for handle in handles:
    handle.remove()
return ran[-1]
"""

WRONG = {
    1: [
        (
            "trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)\n"
            "groups = optimizer.param_groups\n"
            "return trainable - sum(p.numel() for group in groups for p in group['params'])",
            "the frozen ones too",
        ),
        (
            "trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)\n"
            "held = [p for group in optimizer.param_groups for p in group['params']]\n"
            "return trainable - sum(p.numel() for p in held if p.requires_grad)",
            "copied after its optimizer was made",
        ),
        (NOT_HELD.replace("p.numel() for", "1 for"), "count the numbers in them"),
        (NOT_HELD.replace("p.requires_grad and ", ""), "head trainable, head held"),
        (
            NOT_HELD.replace(
                "for group in optimizer.param_groups for p in group[",
                "for p in optimizer.param_groups[0][",
            ),
            "an optimizer with two groups",
        ),
        (NOT_HELD.replace("id(p)", "p.shape"), "copied after its optimizer was made"),
        (
            NOT_HELD.replace("{id(p) for", "[p for").replace("]}", "]]").replace("id(p)", "p"),
            "stops",
        ),
    ],
    2: [
        (KEEP.replace("copy.deepcopy(model.state_dict())", "model.state_dict()"), "a copy"),
        (KEEP.replace("copy.deepcopy(", "dict("), "a copy"),
        (KEEP.replace("model.load_state_dict(best_state)\n", ""), "do you load it"),
        (KEEP.replace("accuracy > best", "accuracy >= best"), "the model ends with epoch 3"),
        (KEEP.replace("best_accuracy = -1", "best_accuracy = 0"), "stops"),
        (KEEP.replace("range(1, epochs + 1)", "range(epochs)"), "you return 1"),
        (
            KEEP.replace("model.state_dict()", "list(model.parameters())").replace(
                "model.load_state_dict(best_state)",
                "for p, kept in zip(model.parameters(), best_state):\n    p.data = kept.data",
            ),
            "a model is more than its parameters",
        ),
        (
            KEEP.replace("    train_epoch(model)\n", "").replace(
                "deepcopy(model.state_dict())",
                "deepcopy(model.state_dict())\n    train_epoch(model)",
            ),
            "the model ends with epoch",
        ),
        (KEEP.replace("range(1, epochs + 1)", "range(1, epochs + 2)"), "you train"),
        (  # stops at the first epoch that is no better
            KEEP.replace(
                "best_state = copy.deepcopy(model.state_dict())",
                "best_state = copy.deepcopy(model.state_dict())\n    else:\n        break",
            ),
            "the first of the best is epoch 3",
        ),
    ],
    3: [
        ("return {round(reported * sum(sizes))}", "two counts are possible"),
        ("return {reported * sum(sizes)}", "no image is half right"),
        ("return round(reported * sum(sizes))", "a set is wanted"),
        (
            COUNTS.replace(
                "round(sum(accuracies) / len(sizes), 4)", "sum(accuracies) / len(sizes)"
            ),
            "a printed number is rounded",
        ),
        (COUNTS.replace("found.add(sum(counts))", "found.add(counts)"), "add up the batches"),
        (
            COUNTS.replace("sum(accuracies) / len(sizes)", "sum(counts) / sum(sizes)"),
            "two counts are possible",
        ),
        (
            COUNTS.replace(
                "round(sum(accuracies) / len(sizes), 4) == reported",
                "abs(sum(accuracies) / len(sizes) - reported) < 1e-3",
            ),
            "64 of 75 are 0.8533",
        ),
        (COUNTS.replace("range(size + 1)", "range(1, size + 1)"), "two counts are possible"),
        (COUNTS.replace("return found", "return max(found)"), "a set is wanted"),
    ],
    4: [
        (
            "linear = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)]\n"
            "return linear[-1]",
            "what is defined last need not run last",
        ),
        ("return list(dict(network.named_children()))[-1]", "its last child is no layer"),
        (
            "for name in ('fc', 'classifier', 'heads.head', 'head'):\n"
            "    if name in dict(network.named_modules()):\n"
            "        return name",
            "a head can be a convolution",
        ),
        (FIND.replace("list(module.parameters()) and ", ""), "with pooling after"),
        (FIND.replace(" and not list(module.children())", ""), "which has layers inside"),
        (FIND.replace(", name=name", ""), "what is defined last"),
        (FIND.replace("handle.remove()", "pass"), "hooks are still there"),
        (
            FIND.replace("network(images)", "network.train()(images)"),
            "you leave it in training mode",
        ),
        (
            FIND.replace("return ran[-1]", "return network.get_submodule(ran[-1])"),
            "a name is wanted",
        ),
        (
            "return list(model_builder.heads(network))[-1]",
            "what is defined last need not run last",
        ),
        (
            "fits = [n for n, m in network.named_modules() if getattr(m, 'out_features', 0) == 5]\n"
            "return fits[0]",
            "the auxiliary head runs in training only",
        ),
    ],
}

RIGHT = {
    1: [
        "groups = optimizer.param_groups\n"
        "held = [p for group in groups for p in group['params']]\n"
        "lost = [p for p in model.parameters() if not any(p is other for other in held)]\n"
        "return sum(p.numel() for p in lost if p.requires_grad)",
        "held = set().union(*(group['params'] for group in optimizer.param_groups))\n"
        "trainable = {p for p in model.parameters() if p.requires_grad}\n"
        "return sum(map(torch.numel, trainable - held))",
    ],
    2: [
        "accuracies, states = [], []\n"
        "for _ in range(epochs):\n"
        "    train_epoch(model)\n"
        "    accuracies.append(validate(model))\n"
        "    states.append({key: t.clone() for key, t in model.state_dict().items()})\n"
        "best = torch.tensor(accuracies).argmax().item()\n"
        "model.load_state_dict(states[best])\n"
        "return best + 1",
        "import io\n"
        "best = float('-inf'), None, None\n"
        "for epoch in range(epochs):\n"
        "    train_epoch(model)\n"
        "    if (accuracy := validate(model)) > best[0]:\n"
        "        best = accuracy, epoch, io.BytesIO()\n"
        "        torch.save(model.state_dict(), best[2])\n"
        "best[2].seek(0)\n"
        "model.load_state_dict(torch.load(best[2], weights_only=True))\n"
        "return best[1] + 1",
    ],
    3: [
        "from fractions import Fraction\n"
        "reached = {(Fraction(0), 0)}\n"
        "for size in sizes:\n"
        "    part = [(Fraction(right, size), right) for right in range(size + 1)]\n"
        "    reached = {(mean + m, count + c) for mean, count in reached for m, c in part}\n"
        "texts = {(f'{float(mean / len(sizes)):.4f}', count) for mean, count in reached}\n"
        "return {count for text, count in texts if text == f'{reported:.4f}'}",
        COUNTS.replace(
            "round(sum(accuracies) / len(sizes), 4) == reported",
            "abs(sum(accuracies) / len(sizes) - reported) < 0.00005",
        ).replace("return found", "return sorted(found)"),
    ],
    4: [
        "from torch import fx\n"
        "modules = dict(network.named_modules())\n"
        "nodes = fx.symbolic_trace(network).graph.nodes\n"
        "called = [node.target for node in nodes if node.op == 'call_module']\n"
        "return [n for n in called if list(modules[n].parameters())][-1]",
        "from torch.nn.modules.module import register_module_forward_hook\n"
        "ran = []\n"
        "handle = register_module_forward_hook(lambda module, *_: ran.append(module))\n"
        "network(images)\n"
        "handle.remove()\n"
        "(last, *_) = [m for m in reversed(ran) if m._parameters and not m._modules]\n"
        "return next(name for name, m in network.named_modules() if m is last)",
    ],
}
