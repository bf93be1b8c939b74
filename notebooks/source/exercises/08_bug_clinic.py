# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · Practise finding bugs that stop no program
#
# Each function below runs, returns something that looks fine, and has one bug. Find it and fix it:
# change the lines below `# There is a bug here.` Run the check first: before your fix it shows a
# symptom, as you would meet it in practice. It tells you that something is wrong, but not what.

# %%
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from going_modular import data_setup, utils
from going_modular.classroom import marks

utils.seed_everything(42)
print("torch", torch.__version__.split("+")[0])

# %% [markdown]
# ## Exercise 1 · A loss that depends on the batch size
#
# `mean_loss` should return the mean cross-entropy over all examples. How they are cut into batches
# must not matter.
#
# <details><summary>Hint</summary>
#
# How much does an example count in a batch of one, and how much in a batch of four?
# </details>

# %%
def mean_loss(model, dataloader):
    """Return the mean cross-entropy over all examples."""
    loss_fn = nn.CrossEntropyLoss()
    model.eval()
    # solution
    total = examples = 0
    with torch.inference_mode():
        for inputs, labels in dataloader:
            total += loss_fn(model(inputs), labels).item() * len(labels)
            examples += len(labels)
    return total / examples
    # student: There is a bug here.
    # losses = []
    # with torch.inference_mode():
    #     for inputs, labels in dataloader:
    #         losses.append(loss_fn(model(inputs), labels).item())
    # return sum(losses) / len(losses)
    # end of solution

# %%
with marks.exercise(1, mean_loss=mean_loss):
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    inputs = torch.eye(3)[labels] * 4
    inputs[-1] = torch.tensor([4.0, 0.0, 0.0])  # the last one is confidently wrong
    examples = TensorDataset(inputs, labels)
    said = [mean_loss(nn.Identity(), DataLoader(examples, size)) for size in (9, 4, 3)]
    wanted = nn.functional.cross_entropy(inputs, labels).item()
    assert abs(said[0] - wanted) < 1e-4, (
        f"the mean over 9 examples in one batch is {wanted:.3f}, and you say {said[0]:.3f}: divide "
        "a sum over examples by the number of examples"
    )
    assert abs(said[1] - wanted) < 1e-4, (
        f"9 examples have the mean {wanted:.3f}; in batches of 4, 4 and 1 it becomes {said[1]:.3f}"
    )
    assert abs(said[2] - wanted) < 1e-4, f"in batches of 3, it becomes {said[2]:.3f}"

# %% [markdown]
# ## Exercise 2 · A report that is too good
#
# `choose_and_report` gets the validation and test accuracies of several models. It should choose
# one model, and return its index and the accuracy to expect of it on new images.
#
# <details><summary>Hint</summary>
#
# An image that helped to choose cannot also judge the choice.
# </details>

# %%
def choose_and_report(val_accuracies, test_accuracies):
    """Return the index of the chosen model, and the accuracy to report for it."""
    # solution
    best = max(range(len(val_accuracies)), key=lambda index: val_accuracies[index])
    return best, test_accuracies[best]
    # student: There is a bug here.
    # best = max(range(len(test_accuracies)), key=lambda index: test_accuracies[index])
    # return best, test_accuracies[best]
    # end of solution

# %%
with marks.exercise(2, choose_and_report=choose_and_report):
    generator = torch.Generator().manual_seed(0)
    guesses = torch.randint(12, (2, 200, 75), generator=generator)  # right where 0
    guessers = (guesses == 0).float().mean(dim=2).tolist()
    index, report = choose_and_report([0.80, 0.90, 0.89], [0.95, 0.78, 0.84])
    assert (index, report) != (0, 0.95), (
        "200 models that only guess among 12 classes come in. Guessing gives 0.083, and the report "
        f"says {choose_and_report(*guessers)[1]:.3f}"
    )
    assert report != 0.90, "the report is the number that the choice was made by: it is too high"
    assert index == 1, (
        f"validation accuracies are [0.80, 0.90, 0.89], and you choose number {index}: what else "
        "took part in the choice?"
    )
    assert report == 0.78, f"you report {report}, which is not what the chosen model has on test"
    said = choose_and_report([0.70, 0.60], [0.75, 0.90])
    assert said == (0, 0.75), (
        f"validation says [0.70, 0.60], test [0.75, 0.90], and you return {said}: the chosen model "
        "may be better on test than on validation; report it as it is"
    )

# %% [markdown]
# ## Exercise 3 · Prepared one way in training, another in use
#
# `logits_of` runs a trained model on a new image. `checkpoint` is what was saved with the model;
# `checkpoint["transform"]` is what prepared its training images. The function has to serve every
# model that we save.
#
# <details><summary>Hint</summary>
#
# Where do the size, and the mean and spread of the pixel values, come from here? Where should they
# come from?
# </details>

# %%
def logits_of(model, checkpoint, image):
    """Return the logits (classes,) of a PIL image."""
    model.eval()
    # solution
    prepare = checkpoint["transform"]
    # student: There is a bug here.
    # from torchvision.transforms import v2
    #
    # prepare = v2.Compose(
    #     [
    #         v2.Resize(146),
    #         v2.CenterCrop(128),
    #         v2.PILToTensor(),
    #         v2.ToDtype(torch.float32, scale=True),
    #         v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    #     ]
    # )
    # end of solution
    with torch.inference_mode():
        return model(prepare(image)[None])[0]

# %%
class Spy(nn.Module):
    """Keep what comes in, and answer zeros."""

    def forward(self, images):
        self.seen = images
        return torch.zeros(len(images), 12)


with marks.exercise(3, logits_of=logits_of):
    white, spy = Image.new("RGB", (300, 200), "white"), Spy()
    ramp = Image.linear_gradient("L").rotate(90).resize((300, 200))  # black to white, left to right
    colored = Image.merge("RGB", (ramp, ramp, Image.new("L", ramp.size, 60)))
    for name, size in [("efficientnet_lite0", 128), ("resnet18", 128), ("resnet18", 64)]:
        transform = data_setup.create_transform(name, size=size)
        logits_of(spy, {"transform": transform}, white)
        wanted = transform(white)[None]
        model = f"a model of {name}, trained at {size} pixels,"
        assert spy.seen.shape == wanted.shape, f"{model} is shown {tuple(spy.seen.shape)}"
        assert torch.allclose(spy.seen, wanted, atol=0.02), (
            f"{model} learned that white is {wanted.mean():.2f}, and is shown {spy.seen.mean():.2f}"
        )
        logits_of(spy, {"transform": transform}, colored)
        assert torch.allclose(spy.seen, transform(colored)[None], atol=0.1), (
            f"{model} is shown white as it should be, but not an image with a pattern: how is it "
            "resized, cropped and normalised, and are its colours in their order?"
        )

# %% [markdown]
# ## Exercise 4 · Random changes that never change
#
# `InMemory` should read each image once, and return a new augmented version of it every time it is
# asked. But a training run with it overfits as if there were no augmentation.
#
# <details><summary>Hint</summary>
#
# Ask for the same item twice. There are two steps, reading and augmenting: which one may be kept?
# </details>

# %%
class InMemory(Dataset):
    """Images kept in memory; each look at one gives another version of it."""

    def __init__(self, read, augment):
        self.read, self.augment, self.kept = read, augment, {}

    def __getitem__(self, index):
        # solution
        if index not in self.kept:
            self.kept[index] = self.read(index)
        return self.augment(self.kept[index])
        # student: There is a bug here.
        # if index not in self.kept:
        #     self.kept[index] = self.augment(self.read(index))
        # return self.kept[index]
        # end of solution

# %%
with marks.exercise(4, InMemory=InMemory):
    read, shifts = [], iter([0.25, 0.5, 0.75, 0.125] * 9)
    images = InMemory(
        read=lambda index: read.append(index) or torch.tensor([10.0 * index]),
        augment=lambda image: image + next(shifts),
    )
    versions = [images[1].item() for _ in range(3)]
    assert len(set(versions)) == 3, f"three looks at one image give {versions}"
    assert read == [1], f"one image was read {len(read)} times: keep it"
    assert all(10 < version < 11 for version in versions), (
        f"an image of 10 and changes of at most 1 give {versions}: always change the image as it "
        "was read, and not what an earlier change has left"
    )
    assert 20 < images[2].item() < 21 and read == [1, 2], "item 2 is not image 2"
    assert 10 < images[1].item() < 11 and read == [1, 2], (
        f"after image 2, image 1 was asked for again, and the images read are {read}: keep every "
        "image, not the last one only"
    )

# %% [markdown]
# ## Exercise 5 · A frozen trunk that moves
#
# `train_epoch` trains the head of a model whose trunk, `model.features`, is frozen. Other heads use
# the same trunk, so it has to stay as it is, bit for bit, and give the head what it will give when
# the model is used. The head trains as usual, with its dropout on, whatever mode the model is in
# when the function is called.
#
# <details><summary>Hint</summary>
#
# What does a trunk hold besides parameters, and what moves it? `train()` and `eval()` also work on
# a part of a model, and the later call wins.
# </details>

# %%
def train_epoch(model, dataloader, optimizer):
    """Train the head for one epoch; `model.features` stays as it is."""
    # solution
    model.train()
    model.features.eval()
    # student: There is a bug here.
    # model.train()
    # end of solution
    for images, labels in dataloader:
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
class Small(nn.Module):
    """A small network with a frozen trunk, which notes the modes that its parts run in."""

    def __init__(self):
        super().__init__()
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), pool)
        self.features.requires_grad_(False)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.dropout_was_on, self.norm_was_training = [], []

    def forward(self, images):
        self.dropout_was_on.append(self.classifier[0].training)
        norm = self.features[1]
        self.norm_was_training.append(norm.training or not norm.track_running_stats)
        return self.classifier(self.features(images))


with marks.exercise(5, train_epoch=train_epoch):
    batches = DataLoader(TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 2), batch_size=4)
    for training in (True, False):
        net = Small().train(training)
        before = marks.fingerprint(net.features), marks.fingerprint(net.classifier)
        optimizer = torch.optim.SGD(net.classifier.parameters(), lr=0.1)
        train_epoch(net, batches, optimizer)
        after = marks.fingerprint(net.features), marks.fingerprint(net.classifier)
        assert after[0] == before[0], f"the trunk's fingerprint went from {before[0]} to {after[0]}"
        assert not any(net.norm_was_training), (
            "the trunk is as it was, but while the head learned, its BatchNorm normalised by each "
            "batch: the head has learned from features that it will not get in use"
        )
        assert all(net.dropout_was_on), (
            f"the model came in {'training' if training else 'eval'} mode, and the head's dropout "
            "was off: only the trunk should be in eval mode"
        )
        assert after[1] != before[1], "the head has not learned"
