"""Answers to the exercises of notebook 08: wrong ones with words of their hint, and right ones."""

SUM = """\
total = examples = 0
with torch.inference_mode():
    for inputs, labels in dataloader:
        total += loss_fn(model(inputs), labels).item() * len(labels)
        examples += len(labels)
return total / examples
"""

WRONG = {
    1: [
        (SUM.replace(" * len(labels)", ""), "divide a sum over examples"),
        (
            SUM.replace(" * len(labels)", "").replace("+= len(labels)", "+= 1"),
            "in batches of 4, 4 and 1",
        ),
        (SUM.replace("* len(labels)", "* dataloader.batch_size"), "in batches of 4, 4 and 1"),
        (
            'loss_fn = nn.CrossEntropyLoss(reduction="sum")\n'
            + SUM.replace(" * len(labels)", "").replace("+= len(labels)", "+= 1"),
            "divide a sum over examples",
        ),
        (SUM.replace("return total / examples", "total / examples"), "`return`"),
    ],
    2: [
        (
            "best = max(range(3), key=lambda index: test_accuracies[index])\n"
            "return best, max(test_accuracies)",
            "200 models that only guess",
        ),
        (
            "best = max(range(len(val_accuracies)), key=lambda index: val_accuracies[index])\n"
            "return best, val_accuracies[best]",
            "the choice was made by",
        ),
        (
            "best = max(range(len(val_accuracies)), key=lambda index: val_accuracies[index])\n"
            "return best, max(test_accuracies)",
            "not what the chosen model has on test",
        ),
        (
            "both = [v + t for v, t in zip(val_accuracies, test_accuracies)]\n"
            "best = both.index(max(both))\n"
            "return best, (val_accuracies[best] + test_accuracies[best]) / 2",
            "what else took part",
        ),
        (
            "best = max(range(len(val_accuracies)), key=lambda index: val_accuracies[index])\n"
            "return best, min(val_accuracies[best], test_accuracies[best])",
            "report it as it is",
        ),
        (
            "lower = [min(pair) for pair in zip(val_accuracies, test_accuracies)]\n"
            "best = lower.index(max(lower))\n"
            "return best, test_accuracies[best]",
            "what else took part",
        ),
    ],
    3: [
        ('prepare = data_setup.create_transform("efficientnet_lite0", size=128)', "of resnet18"),
        ('prepare = data_setup.create_transform("resnet18", size=128)', "is shown 2"),
        (
            "from torchvision.transforms import v2\n"
            "steps = [v2.Resize(146), v2.CenterCrop(128), v2.PILToTensor()]\n"
            "prepare = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])",
            "cropped and normalised",
        ),
        (
            'size = checkpoint["transform"].crop_size[0]\n'
            'prepare = data_setup.create_transform("efficientnet_lite0", size=size)',
            "learned that white is 2",
        ),
        (
            'preset = checkpoint["transform"]\n'
            "from torchvision.transforms import v2\n"
            "steps = [v2.Resize(146), v2.CenterCrop(128), v2.PILToTensor()]\n"
            "steps += [v2.ToDtype(torch.float32, scale=True)]\n"
            "prepare = v2.Compose([*steps, v2.Normalize(preset.mean, preset.std)])",
            "is shown (1, 3, 128, 128)",
        ),
        (
            "from torchvision.transforms import v2\n"
            'preset = checkpoint["transform"]\n'
            "steps = [v2.Resize((preset.crop_size[0],) * 2), v2.PILToTensor()]  # squashed\n"
            "steps += [v2.ToDtype(torch.float32, scale=True)]\n"
            "prepare = v2.Compose([*steps, v2.Normalize(preset.mean, preset.std)])",
            "resized, cropped",
        ),
        (
            'prepare = lambda image: checkpoint["transform"](image).flip(0)  # BGR',
            "colours in their order",
        ),
    ],
    4: [
        ("return self.augment(self.read(index))", "was read 3 times"),
        (
            "if index not in self.kept:\n"
            "    self.kept[index] = self.read(index)\n"
            "self.kept[index] = self.augment(self.kept[index])\n"
            "return self.kept[index]",
            "not what an earlier change has left",
        ),
        (
            "if index not in self.kept:\n"
            "    self.kept[index] = self.read(index)\n"
            "    return self.augment(self.kept[index])\n"
            "return self.kept[index]",
            "three looks at one image",
        ),
        (
            "if not self.kept:\n"
            "    self.kept[index] = self.read(index)\n"
            "return self.augment(next(iter(self.kept.values())))",
            "item 2 is not image 2",
        ),
        (
            "if index not in self.kept:\n"
            "    self.kept = {index: self.read(index)}\n"
            "return self.augment(self.kept[index])",
            "not the last one only",
        ),
    ],
    5: [
        ("model.eval()", "the head's dropout was off"),
        ("model.features.eval()", "the model came in eval mode"),
        ("model.features.eval()\nmodel.train()", "the trunk's fingerprint went from"),
        (
            "model.train()\nmodel.features.requires_grad_(False)",
            "the trunk's fingerprint went from",
        ),
        (
            "model.train()\nfor p in model.features.buffers():\n    p.requires_grad = False",
            "the trunk",
        ),
        (
            "model.train()\nfor module in model.features.modules():\n"
            "    module.track_running_stats = False",
            "normalised by each batch",
        ),
    ],
}

RIGHT = {
    1: [
        'loss_fn = nn.CrossEntropyLoss(reduction="sum")\n'
        "with torch.inference_mode():\n"
        "    losses = [loss_fn(model(inputs), labels).item() for inputs, labels in dataloader]\n"
        "return sum(losses) / len(dataloader.dataset)",
        "with torch.inference_mode():\n"
        "    pairs = [(model(inputs), labels) for inputs, labels in dataloader]\n"
        "return loss_fn(*(torch.cat(column) for column in zip(*pairs)))",
    ],
    2: [
        "best = torch.tensor(val_accuracies).argmax().item()\nreturn best, test_accuracies[best]",
    ],
    3: [
        "from torchvision.transforms import functional as F\n"
        'preset = checkpoint["transform"]\n'
        "def prepare(image):\n"
        "    image = F.resize(image, preset.resize_size, preset.interpolation)\n"
        "    image = F.to_tensor(F.center_crop(image, preset.crop_size))\n"
        "    return F.normalize(image, preset.mean, preset.std)",
    ],
    4: [
        "image = self.kept.setdefault(index, None)\n"
        "if image is None:\n"
        "    image = self.kept[index] = self.read(index)\n"
        "return self.augment(image)",
    ],
    5: [
        "from going_modular.training import cutting\ncutting.set_train_mode(model)",
        "model.train()\nfor module in model.features.modules():\n    module.training = False",
    ],
}
