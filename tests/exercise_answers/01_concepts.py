"""Answers to the exercises of notebook 01: wrong ones with words of their hint, and right ones."""

WRONG = {
    1: [
        ('chosen = "convnext_tiny"', "28.6 million parameters"),
        ('chosen = "efficientnet_b0"', "number 2 in accuracy"),
        ('chosen = "densenet121"', "number 5 in accuracy"),
        ("chosen = 5", "not a name"),
        ('chosen = get_model_weights("regnet_y_800mf").DEFAULT', "not a name"),
    ],
    2: [
        (
            'transform = data_setup.create_transform("efficientnet_lite0", size=96)\n'
            "transform.mean, transform.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]",
            "take mean and spread from the weights",
        ),
        (
            "from torchvision.transforms import v2\n"
            "steps = [v2.Resize(110), v2.CenterCrop(96), v2.PILToTensor()]\n"
            "transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])",
            "black becomes 0.00 and white 1.00",
        ),
        ("transform = weights.transforms()", "(3, 224, 224)"),
        ("transform = weights.transforms(crop_size=96)", "shrink it before you crop"),
        ("transform = weights.transforms(crop_size=96, resize_size=96)", "outer edge"),
        (
            "from torchvision.transforms import v2\n"
            "to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]\n"
            "norm = v2.Normalize([0.5] * 3, [0.5] * 3)\n"
            "transform = v2.Compose([v2.Resize((96, 96)), *to_tensor, norm])",
            "squeezed",
        ),
        (
            "from torchvision.transforms import InterpolationMode, v2\n"
            "size = v2.Resize(110, interpolation=InterpolationMode.NEAREST)\n"
            "to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]\n"
            "norm = v2.Normalize([0.5] * 3, [0.5] * 3)\n"
            "transform = v2.Compose([size, v2.CenterCrop(96), *to_tensor, norm])",
            "pixels are left out",
        ),
        ("transform = weights.transforms", "stops with"),
        ('transform = data_setup.create_transform("efficientnet_lite0", size=96)(photo)', "stops"),
    ],
    3: [
        (
            "from_scratch = full_fine_tuning = sum(p.numel() for p in model.parameters())\n"
            "feature_extraction = 1280 * 5",
            "biases",
        ),
        (
            "from_scratch = full_fine_tuning = sum(p.numel() for p in model.parameters())\n"
            "feature_extraction = 1280 * 12 + 12",
            "5 kinds of flowers",
        ),
        (
            "from_scratch = sum(p.numel() for p in model.parameters())\n"
            "feature_extraction = 1280 * 5 + 5\n"
            "full_fine_tuning = from_scratch - feature_extraction",
            "trains the head, too",
        ),
        (
            "full_fine_tuning = sum(p.numel() for p in model.parameters())\n"
            "from_scratch, feature_extraction = 0, 1280 * 5 + 5",
            "Which layers does this strategy keep",
        ),
        (
            "from_scratch = full_fine_tuning = sum(p.numel() for p in model.parameters())\n"
            "feature_extraction = len(list(model.parameters())) * 5",
            "count what is not frozen",
        ),
    ],
    4: [
        ("return (val_labels == val_labels.mode().values).float().mean().item()", "not have seen"),
        ("return train_labels.bincount().max().item() / len(train_labels)", "in training"),
        ("return int((val_labels == train_labels.mode().values).sum())", "not a count"),
        ("return 1 / len(train_labels.unique())", "right in 3 of 10"),
        ("guess = train_labels.mode().values", "`return`"),
    ],
    5: [
        (
            "where = similarity.topk(k, dim=1, largest=False).indices\n"
            "return train_labels[where].mode(dim=1).values",
            "least similar",
        ),
        ("return train_labels[similarity.argmax(dim=1)]", "five voters"),
        ("return similarity.topk(k, dim=1).indices.mode(dim=1).values", "not yet its class"),
        (
            "where = similarity.topk(k, dim=1).indices\n"
            "return train_labels[where].float().mean(dim=1)",
            "counted, not averaged",
        ),
        (
            "where = similarity.topk(k, dim=1).indices\n"
            "return train_labels[where].mode(dim=0).values",
            "is `dim` right",
        ),
        ("train_labels[similarity.topk(k, dim=1).indices].mode(dim=1).values", "`return`"),
        (
            "return train_labels[similarity.topk(5, dim=1).indices].mode(dim=1).values",
            "is `k` used",
        ),
        (
            "near, where = similarity.topk(k, dim=1)\n"
            "votes = torch.zeros(len(similarity), int(train_labels.max()) + 1)\n"
            "return votes.scatter_add(1, train_labels[where], near).argmax(dim=1)",
            "do not weigh",
        ),
    ],
}

RIGHT = {
    1: ['chosen = "regnet_y_800mf"'],
    2: [
        "transform = weights.transforms(crop_size=96, resize_size=110)",
        "from torchvision.transforms import InterpolationMode, v2\n"
        "size = v2.Resize(110, interpolation=InterpolationMode.BICUBIC)\n"
        "to_tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]\n"
        "norm = v2.Normalize([0.5] * 3, [0.5] * 3)\n"
        "transform = v2.Compose([size, v2.CenterCrop(96), *to_tensor, norm])",
    ],
    3: [
        "from_scratch = model_builder.count_parameters(model)[0]\n"
        "full_fine_tuning = model_builder.count_parameters(model_builder.unfreeze(model))[0]\n"
        "feature_extraction = model_builder.count_parameters(model_builder.freeze(model))[0]",
    ],
    4: [
        "counts = {}\n"
        "for label in train_labels.tolist():\n"
        "    counts[label] = counts.get(label, 0) + 1\n"
        "guess = max(counts, key=counts.get)\n"
        "return sum(label == guess for label in val_labels.tolist()) / len(val_labels)",
    ],
    5: [
        "from collections import Counter\n"
        "said = []\n"
        "for row in similarity:\n"
        "    where = row.argsort(descending=True)[:k]\n"
        "    said.append(Counter(train_labels[where].tolist()).most_common(1)[0][0])\n"
        "return said",
        "votes = torch.nn.functional.one_hot(train_labels[similarity.topk(k).indices]).sum(dim=1)\n"
        "return votes.argmax(dim=1)",
    ],
}
