"""Answers to the exercises of notebook 02: wrong ones with words of their hint, and right ones."""

LOOP = """\
model.eval()
features, labels = [], []
with torch.inference_mode():
    for images, batch_labels in dataloader:
        features.append(model.avgpool(model.features(images.to(device))).flatten(1).cpu())
        labels.append(batch_labels)
return torch.cat(features), torch.cat(labels)
"""
CURVE = """\
curve = {}
for number, chosen in positions.items():
    head = train_head(train_features[chosen], train_labels[chosen])
    correct, total = int((head(val_features).argmax(1) == val_labels).sum()), len(val_labels)
    low, high = evaluation.wilson_interval(correct, total)
    curve[number] = low, correct / total, high
"""

WRONG = {
    1: [
        (
            'model = model_builder.create_model("efficientnet_lite0", num_classes=12).eval()',
            "the trunk still has 3.4 million trainable parameters",
        ),
        (
            'model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))',
            "buffers",
        ),
        (
            'model = model_builder.create_model("efficientnet_lite0", 12).eval()\n'
            "model.requires_grad_(False)",
            "the head is frozen, too",
        ),
        (
            "from torchvision.models import get_model\n"
            'model = get_model("efficientnet_lite0", weights="DEFAULT").eval()\n'
            "model.features.requires_grad_(False)",
            "1000 logits",
        ),
        (
            'model = model_builder.create_model("efficientnet_lite0", 12, weights=None)\n'
            "model = model_builder.freeze(model).eval()",
            "pretrained weights",
        ),
        (
            'model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12)).eval()\n'
            "model = None",
            "stops with",
        ),
    ],
    2: [
        (
            "model.eval()\n"
            "shares = []\n"
            "for inputs, labels in dataloader:\n"
            "    shares.append((model(inputs).argmax(dim=1) == labels).float().mean().item())\n"
            "return sum(shares) / len(shares)",
            "mean over three batches",
        ),
        (
            "model.eval()\n"
            "correct = 0\n"
            "for inputs, labels in dataloader:\n"
            "    correct += int((model(inputs).argmax(dim=1) == labels).sum())\n"
            "return correct / (len(dataloader) * dataloader.batch_size)",
            "you divide by 12",
        ),
        (
            "correct = examples = 0\n"
            "for inputs, labels in dataloader:\n"
            "    correct += int((model(inputs).argmax(dim=1) == labels).sum())\n"
            "    examples += len(labels)\n"
            "return correct / examples",
            "dropout on",
        ),
        (
            "model.eval()\n"
            "for inputs, labels in dataloader:\n"
            "    correct = int((model(inputs).argmax(dim=1) == labels).sum())\n"
            "return correct",
            "6 of 9 answers are right",
        ),
        (
            "model.eval()\n"
            "correct = 0\n"
            "for inputs, labels in dataloader:\n"
            "    correct += int((model(inputs).argmax(dim=1) == labels).sum())\n"
            "return correct",
            "not a count",
        ),
        (
            "said = torch.cat([inputs.argmax(dim=1) for inputs, _ in dataloader])\n"
            "truth = torch.cat([labels for _, labels in dataloader])\n"
            "return (said == truth).float().mean()",
            "6 of 9 answers are right",
        ),
    ],
    3: [
        (LOOP.replace("model.eval()\n", ""), "BatchNorm's buffers"),
        (LOOP.replace(".flatten(1)", ""), "(36, 1280, 1, 1)"),
        (
            LOOP.replace(
                "model.avgpool(model.features(images.to(device)))",
                "model.features(images.to(device)).amax(dim=(2, 3))",
            ),
            "not what the head takes in",
        ),
        (
            "model.eval()\n"
            "with torch.inference_mode():\n"
            "    features = [model.avgpool(model.features(x)).flatten(1) for x, _ in dataloader]\n"
            "    labels = [y for _, y in dataloader]\n"
            "return torch.cat(features), torch.cat(labels)",
            "do not belong together",
        ),
        ("engine.predict(model, dataloader, device)\n" + LOOP, "once is enough"),
    ],
    4: [
        (
            "order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))\n"
            "return order[: number * len(labels.unique())]",
            "of each are wanted",
        ),
        (
            "where = [torch.where(labels == label)[0][:number] for label in labels.unique()]\n"
            "return torch.cat(where)",
            "not a random choice",
        ),
        (
            "generator = torch.Generator().manual_seed(seed)\n"
            "chosen = []\n"
            "for label in labels.unique():\n"
            "    where = torch.where(labels == label)[0]\n"
            "    chosen.append(where[torch.randint(len(where), (number,), generator=generator)])\n"
            "return torch.cat(chosen)",
            "chosen twice",
        ),
        (
            "order = torch.randperm(len(labels))\n"
            "return torch.cat([order[labels[order] == c][:number] for c in labels.unique()])",
            "the same seed gives another choice",
        ),
        (
            "generator = torch.Generator().manual_seed(seed + number)\n"
            "order = torch.randperm(len(labels), generator=generator)\n"
            "return torch.cat([order[labels[order] == c][:number] for c in labels.unique()])",
            "does not depend on `number`",
        ),
        (
            "where = [torch.where(labels == label)[0] for label in labels.unique()]\n"
            "return torch.cat([rows[seed : seed + number] for rows in where])",
            "row of neighbours",
        ),
    ],
    5: [
        (
            CURVE.replace("head(val_features)", "head(train_features[chosen])").replace(
                "val_labels", "train_labels[chosen]"
            ),
            "Measure on other images",
        ),
        (
            CURVE.replace(
                "wilson_interval(correct, total)", "wilson_interval(correct, 120 * number)"
            ),
            "the images that you measure on",
        ),
        (
            CURVE.replace(
                "wilson_interval(correct, total)",
                "wilson_interval(correct, total)\n"
                "    half = 1.645 * (correct / total * (1 - correct / total) / total) ** 0.5\n"
                "    low, high = correct / total - half, correct / total + half",
            ),
            "not Wilson's interval",
        ),
        (
            CURVE.replace(
                "train_features[chosen], train_labels[chosen]", "train_features, train_labels"
            ),
            "its own positions",
        ),
        (
            CURVE.replace("low, correct / total, high", "correct / total, low, high"),
            "is the order right",
        ),
        (
            CURVE.replace(
                "low, correct / total, high", "100 * low, 100 * correct / total, 100 * high"
            ),
            "not counts or percentages",
        ),
        (
            CURVE.replace("[chosen]", "[: 12 * number]"),
            "its own positions",
        ),
        (CURVE.replace("curve = {}", "curve = {}\ndel positions[20]"), "1, 5 and 20 are wanted"),
    ],
}

RIGHT = {
    1: [
        "from torchvision.models import get_model\n"
        'model = get_model("efficientnet_lite0", weights="DEFAULT")\n'
        "model.requires_grad_(False)\n"
        "model.classifier[1] = nn.Linear(1280, 12)\n"
        "model.features.eval()",
    ],
    2: [
        "return engine.evaluate(model, dataloader, device).accuracy",
        "was_training = model.training\n"
        "model.eval()\n"
        "pairs = [(model(inputs).argmax(dim=1), labels) for inputs, labels in dataloader]\n"
        "model.train(was_training)\n"
        "said, truth = (torch.cat(column) for column in zip(*pairs))\n"
        "return (said == truth).double().mean()",
    ],
    3: [
        "trunk = nn.Sequential(model.features, model.avgpool, nn.Flatten()).eval()\n"
        "with torch.no_grad():\n"
        "    pairs = [(trunk(images.to(device)).cpu(), labels) for images, labels in dataloader]\n"
        "return tuple(torch.cat(column) for column in zip(*pairs))",
        "in_order = data_setup.create_dataloader(dataloader.dataset, transform)\n"
        "return engine.extract_features(model, in_order, device).tensors",
    ],
    4: [
        "generator = torch.Generator().manual_seed(seed)\n"
        "chosen = []\n"
        "for label in labels.unique():\n"
        "    where = torch.where(labels == label)[0]\n"
        "    chosen += where[torch.randperm(len(where), generator=generator)][:number].tolist()\n"
        "return chosen",
    ],
    5: [
        CURVE.replace(
            "(head(val_features).argmax(1) == val_labels).sum()",
            "sum(head(x).argmax() == y for x, y in zip(val_features, val_labels))",
        )
    ],
}
