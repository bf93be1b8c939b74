"""Frozen work done once: the same result as the plain loop, whatever the model and the cut."""

import copy
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate
from torchvision.models import (
    convnext,
    densenet,
    get_model,
    inception_v3,
    swin_transformer,
    vision_transformer,
)
from torchvision.transforms import v2

from going_modular import data_setup, engine, model_builder, utils
from going_modular.training import cutting, outputs, trunk

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep the tests' files out of the user's own cache folder."""
    monkeypatch.setenv("GOING_MODULAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_memory(monkeypatch):
    """Have all outputs of trunks go to files."""
    monkeypatch.setattr(outputs, "memory_budget", lambda: 0)


def vit():
    return vision_transformer.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
        dropout=0.1,
        num_classes=3,
    )


def swin():
    return swin_transformer.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=[4, 4],
        dropout=0.1,
        stochastic_depth_prob=0.2,
        num_classes=3,
    )


def next_net():
    setting = [convnext.CNBlockConfig(16, 32, 2), convnext.CNBlockConfig(32, None, 2)]
    return convnext.ConvNeXt(setting, stochastic_depth_prob=0.2, num_classes=3)


def dense():
    return densenet.DenseNet(8, (2, 2, 2), num_init_features=16, drop_rate=0.1, num_classes=3)


def lite():
    return get_model("efficientnet_lite0", num_classes=3)


def resnet():
    return get_model("resnet18", num_classes=3)


def inception():
    return inception_v3(num_classes=3, init_weights=False, aux_logits=True)


BUILDERS = [(resnet, 64), (lite, 64), (dense, 64), (vit, 32), (swin, 32), (next_net, 32)]
BOUNDARIES = [
    pytest.param(builder, size, last, id=f"{builder.__name__}-{last}")
    for builder, size in BUILDERS
    for last in range(len(model_builder.blocks(builder())))
]


def train_both_ways(builder, last, make_dataloader, size, epochs=3, **data):
    """Train twice from the same start: the plain loop, and with frozen work done once."""
    results = []
    torch.manual_seed(1)
    original = model_builder.unfreeze(builder(), last=last)
    for cache_frozen in (False, True):
        model = copy.deepcopy(original)
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9
        )
        history = engine.train(
            model,
            make_dataloader(size=size, shuffle=True, **data),
            make_dataloader(size=size, seed=1, **data),
            optimizer,
            epochs=epochs,
            device="cpu",
            cache_frozen=cache_frozen,
            verbose=False,
        )
        results.append((model, history))
    return results


def assert_same(plain, cached):
    for key in ("train_loss", "train_acc", "val_loss", "val_acc"):
        assert cached[1][key] == pytest.approx(plain[1][key], abs=1e-4), key
    for name, value in plain[0].state_dict().items():
        assert torch.allclose(cached[0].state_dict()[name], value, atol=1e-4), name


@pytest.mark.parametrize(("builder", "size", "last"), BOUNDARIES)
def test_same_histories_and_weights_as_the_plain_loop(builder, size, last, make_dataloader):
    plain, cached = train_both_ways(builder, last, make_dataloader, size, examples=11, batch_size=4)
    assert plain[1]["train_loss"][0] != plain[1]["train_loss"][-1]  # something was learned
    assert_same(plain, cached)


@pytest.mark.parametrize("last", [0, 1, 4])
def test_same_with_an_auxiliary_head(last, make_dataloader):
    plain, cached = train_both_ways(
        inception, last, make_dataloader, 299, epochs=1, examples=5, batch_size=3
    )
    assert_same(plain, cached)


def test_features_are_what_the_head_sees(make_dataloader):
    model = model_builder.freeze(lite()).eval()
    seen = []
    model.classifier[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    dataloader = make_dataloader(examples=10, batch_size=4)
    engine.predict(model, dataloader)
    features, labels = engine.extract_features(model, dataloader).tensors
    assert torch.allclose(features, torch.cat(seen), atol=1e-6)
    assert torch.equal(labels, dataloader.dataset.tensors[1])


def test_the_trunk_runs_once_for_all_epochs(make_dataloader):
    model = model_builder.freeze(resnet())
    calls = []
    model.layer4.register_forward_hook(lambda *_: calls.append(1))
    engine.train(
        model,
        make_dataloader(size=32, examples=16, batch_size=8),
        optimizer=torch.optim.SGD(model.fc.parameters(), lr=0.1),
        epochs=5,
        cache_frozen=True,
        verbose=False,
    )
    assert len(calls) == 2  # two batches, not two batches in each of five epochs


def test_augmented_pictures_are_never_cached(make_dataloader, capsys):
    class Augmented(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.rand(3, 32, 32), index % 3

    model = model_builder.freeze(resnet())
    before = torch.random.get_rng_state()
    assert trunk.differs_each_time(Augmented())
    assert torch.equal(before, torch.random.get_rng_state())
    assert not trunk.differs_each_time(make_dataloader().dataset)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
    loader = DataLoader(Augmented(), 4)
    engine.train(model, loader, optimizer=optimizer, epochs=1, cache_frozen=True)
    assert "augmented" in capsys.readouterr().out


def test_random_numbers_of_the_data_sets_own_are_noticed():
    class Augmented(Dataset):
        rng = np.random.default_rng(0)

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.from_numpy(self.rng.normal(size=(3, 4, 4))), index

    assert trunk.differs_each_time(Augmented())


def test_batches_that_are_mixed_are_never_cached(make_dataloader):
    mixup = v2.MixUp(num_classes=3)
    dataloader = DataLoader(
        make_dataloader().dataset, 4, collate_fn=lambda items: mixup(*default_collate(items))
    )
    frozen = cutting.cut(model_builder.freeze(resnet()), training=True).trunk
    with pytest.raises(cutting.CannotCut, match="augmented"):
        trunk.run_trunk(frozen, dataloader, CPU, torch.float32)


def test_what_cannot_be_cut_trains_as_usual_and_says_so(make_dataloader, capsys):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(3, 4), nn.Linear(4, 3)
            self.trunk.requires_grad_(False)

        def forward(self, images):
            features = self.trunk(images.mean(dim=(2, 3)))
            if features.sum() > 0:  # depends on the data, which torch.fx cannot follow
                features = features * 2
            return self.head(features)

    model = Branching()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    history = engine.train(
        model, make_dataloader(), optimizer=optimizer, epochs=4, cache_frozen=True
    )
    assert "cannot trace Branching" in capsys.readouterr().out
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_reasons_not_to_cut():
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(3, 8, 8), 0

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(cutting.CannotCut, match="no part of the model"):
        cutting.cut(model, training=True)
    with pytest.raises(cutting.CannotCut, match="stream"):
        trunk.run_trunk(model, DataLoader(Stream()), torch.device("cpu"), torch.float32)
    with pytest.raises(cutting.CannotCut, match="no trainable parameter"):
        cutting.cut(model.requires_grad_(False), training=True)


def test_frozen_parts_run_in_eval_mode():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout()),
    )
    model[0].requires_grad_(False)
    model[1][1].requires_grad_(False)  # a BatchNorm alone
    model.train()
    cutting.set_train_mode(model)
    assert not any(module.training for module in model[0].modules())
    assert [module.training for module in model[1]] == [True, False, True]


@pytest.mark.parametrize(
    "noise",
    [
        partial(nn.Dropout, 0.5),
        partial(nn.Dropout2d, 0.3),
        lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),  # inside something harmless
    ],
)
def test_randomness_before_the_head_stays_random(noise):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), noise(), nn.Flatten(), nn.Linear(8 * 16, 2))
    model[0].requires_grad_(False)
    halves = cutting.cut(model, training=True)
    (value,) = halves.trunk(torch.ones(2, 3, 4, 4))
    assert value.shape == (2, 8, 4, 4)  # the cut is before the dropout
    assert not torch.equal(halves.tail([value]), halves.tail([value]))


# --- outputs in a file ---------------------------------------------------------------------------


@pytest.mark.parametrize(("builder", "size", "last"), [(resnet, 64, 1), (dense, 64, 1)])
def test_same_from_a_file(builder, size, last, make_dataloader, cache, no_memory):
    plain, cached = train_both_ways(builder, last, make_dataloader, size, examples=11, batch_size=4)
    assert len(list(cache.glob("*.npy"))) == 2  # of train and validation
    assert_same(plain, cached)


class TwoBranches(nn.Module):
    """Two maps cross the cut."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 1, 2)
        self.requires_grad_(False)
        self.left_head, self.right_head = nn.Conv2d(4, 3, 1), nn.Conv2d(2, 3, 1)

    def forward(self, images):
        left = self.left_head(self.left(images))
        return left.mean((2, 3)) + self.right_head(self.right(images)).mean((2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("labels", ["numbers", "shares"])
def test_a_file_holds_what_memory_would(dtype, labels, make_dataloader, monkeypatch):
    images, numbers = make_dataloader(examples=10).dataset.tensors
    targets = numbers if labels == "numbers" else torch.rand(10, 3)
    dataloader = DataLoader(TensorDataset(images, targets), 4)
    frozen = cutting.cut(TwoBranches(), training=True).trunk
    loaders = []
    for budget in (10**9, 0):
        monkeypatch.setattr(outputs, "memory_budget", lambda budget=budget: budget)
        loaders.append(trunk.run_trunk(frozen, dataloader, CPU, dtype))
    in_memory, in_file = loaders
    assert in_memory.dataset.path is None and in_file.dataset.path.is_file()
    with torch.inference_mode(), utils.autocast(CPU, dtype):
        expected = frozen(images)
    start = 0
    for (values, given), (values_, given_) in zip(in_memory, in_file, strict=True):
        rows = slice(start, start := start + len(given))
        assert torch.equal(given, targets[rows]) and torch.equal(given_, targets[rows])
        for value, value_, wanted in zip(values, values_, expected, strict=True):
            assert torch.equal(value, value_) and value.dtype == dtype
            torch.testing.assert_close(value, wanted[rows], atol=1e-2, rtol=1e-2)
    assert start == 10


def test_what_is_not_one_row_per_image_is_not_kept(make_dataloader):
    class OfTheBatch(TwoBranches):
        def forward(self, images):
            brightness = self.right(images).mean()  # of the batch, no image's own
            return self.left_head(self.left(images)).mean((2, 3)) - brightness

    model = OfTheBatch()
    with pytest.raises(cutting.CannotCut, match="one row per image"):
        engine.extract_features(model, make_dataloader(), CPU)


def test_what_does_not_depend_on_images_is_no_output(make_dataloader):
    class Shifted(TwoBranches):
        def forward(self, images):
            shift = self.right.weight.sum(0).mean()  # frozen, and met after the cut
            return (self.left_head(self.left(images)) + shift).mean((2, 3))

    torch.manual_seed(0)
    model, dataloader = Shifted().eval(), make_dataloader(examples=10)
    halves = cutting.cut(model, training=False)
    images = dataloader.dataset.tensors[0]
    values = halves.trunk(images)
    assert [value.shape for value in values] == [(10, 4, 30, 30)]
    torch.testing.assert_close(halves.tail(values), model(images))


def test_a_model_is_cut_as_it_is_called_with_images_alone(make_dataloader):
    class Masked(TwoBranches):
        def forward(self, images, mask=None, pool=True):
            values = self.left(images)
            values = self.left_head(values if mask is None else values * mask)
            return values.mean((2, 3)) if pool else values

    model, dataloader = Masked().eval(), make_dataloader(examples=10)
    halves, images = cutting.cut(model, training=False), dataloader.dataset.tensors[0]
    torch.testing.assert_close(halves.tail(halves.trunk(images)), model(images))


def test_the_budget_decides(make_dataloader, cache, monkeypatch):
    dataloader = make_dataloader(examples=10, batch_size=4)
    frozen = cutting.cut(model_builder.freeze(resnet()), training=True).trunk
    needed = 10 * (512 * 4 + 8)  # features and labels
    assert 0 < outputs.memory_budget() < 2**50

    def run():
        return trunk.run_trunk(frozen, dataloader, CPU, torch.float32).dataset

    monkeypatch.setattr(outputs, "memory_budget", lambda: needed)
    assert run().path is None and not cache.exists()
    monkeypatch.setattr(outputs, "memory_budget", lambda: needed - 1)
    assert run().path.is_file()
    monkeypatch.setattr(outputs, "memory_budget", lambda: needed)
    assert run().reused  # from a file, once there is one


def runs_of_trunk(model, dataloader, dtype=torch.float32) -> int:
    """Count the batches that a model's trunk computes."""
    calls = []
    frozen = cutting.cut(model, training=False).trunk
    hook = model.layer1.register_forward_hook(
        lambda _, inputs, output: calls.append(type(output) is torch.Tensor)
    )
    trunk.run_trunk(frozen, dataloader, CPU, dtype)
    hook.remove()
    return sum(calls)


def change_weight(model, dataset):
    with torch.no_grad():
        model.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3


def change_buffer(model, dataset):
    model.layer2[1].bn2.running_var[0] += 1e-3


def change_setting(model, dataset):
    model.bn1.eps = 1e-4


def change_graph(model, dataset):
    model.maxpool = nn.AvgPool2d(3, 2, 1)


def change_code(model, dataset):
    block = model.layer1[0]
    block.forward = lambda images: block.conv2(block.conv1(images))


def change_cut(model, dataset):
    model_builder.unfreeze(model, last=1)


def change_image(model, dataset):
    path, _ = dataset.samples[3]
    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(date, date))


def change_label(model, dataset):
    path, label = dataset.samples[3]
    dataset.samples[3] = path, 1 - label


def change_order(model, dataset):
    dataset.samples.reverse()


def change_transform(model, dataset):
    dataset.transform = data_setup.create_transform("efficientnet_lite0", size=32)


CHANGES = [change_weight, change_buffer, change_setting, change_graph, change_code, change_cut]
CHANGES += [change_image, change_label, change_order, change_transform]


@pytest.fixture
def photos(photo_folder):
    transform = data_setup.create_transform("resnet18", size=32)
    splits = data_setup.load(photo_folder)
    return partial(data_setup.create_dataloader, splits.train, transform)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_earlier_run_is_used_only_if_nothing_differs(change, photos, no_memory):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    assert runs_of_trunk(copy.deepcopy(model), photos(batch_size=5, shuffle=True)) == 0
    dataloader = photos(batch_size=8)
    change(model, dataloader.dataset)
    assert runs_of_trunk(model, dataloader) == 3


def test_an_earlier_run_in_another_precision_is_not_used(photos, no_memory, monkeypatch):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    assert runs_of_trunk(model, photos(batch_size=8), torch.bfloat16) == 3
    assert runs_of_trunk(model, photos(batch_size=8), torch.bfloat16) == 0
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert runs_of_trunk(model, photos(batch_size=8)) == 3


def test_an_earlier_process_is_reused(capsys):
    script = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model
from going_modular import model_builder
from going_modular.training import cutting, outputs, trunk
outputs.memory_budget = lambda: 0
torch.manual_seed(0)
model = model_builder.freeze(get_model("efficientnet_lite0", num_classes=3))
data = TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4))
frozen = cutting.cut(model, training=True).trunk
found = trunk.run_trunk(frozen, DataLoader(data), torch.device("cpu"), torch.float32).dataset
print(found.reused, found[[0, 3]][0][0].sum().item())
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert runs == [["False", runs[0][1]], ["True", runs[0][1]]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: bytes(len(content)),
    ],
)
def test_what_is_not_whole_is_computed_again(damage, photos, cache, no_memory):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    assert path.read_bytes() == content
    assert runs_of_trunk(model, photos(batch_size=8)) == 0


def test_a_crash_leaves_nothing(photos, cache, no_memory):
    dataloader = photos(batch_size=8)
    broken, _ = dataloader.dataset.samples[-1]
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    model = model_builder.freeze(resnet())
    with pytest.raises(ValueError, match=broken.name):
        runs_of_trunk(model, dataloader)
    assert list(cache.iterdir()) == []
    broken.write_bytes(content)
    assert runs_of_trunk(model, photos(batch_size=8)) == 3


def test_two_runs_may_write_the_same(make_dataloader, cache, no_memory):
    dataloader = make_dataloader(examples=10, batch_size=4)
    model = model_builder.freeze(resnet())
    frozen = cutting.cut(model, training=True).trunk
    run = partial(trunk.run_trunk, frozen, dataloader, CPU, torch.float32)
    batches, others = [], []

    def meanwhile(_, __, output):
        if type(output) is torch.Tensor:
            batches.append(output)
            if len(batches) == 2:
                others.append(run().dataset)

    model.layer1.register_forward_hook(meanwhile)
    first = run().dataset
    assert len(others) == 1 and first.path == others[0].path
    assert list(cache.iterdir()) == [first.path]
    for values, values_ in zip(first[[0, 9]][0], others[0][[0, 9]][0], strict=True):
        assert torch.equal(values, values_)


def test_data_that_cannot_be_recognised_is_not_kept(cache, no_memory):
    class Unknown(Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return torch.full((3, 32, 32), float(index)), index % 3

    model = model_builder.freeze(resnet())
    loader = DataLoader(Unknown(), 4)
    assert [runs_of_trunk(model, loader) for _ in range(2)] == [3, 3]
    assert list(cache.iterdir()) == []
    with torch.inference_mode():
        expected = model.eval()(torch.stack([Unknown()[index][0] for index in range(10)]))
        features, labels = engine.extract_features(model, loader, CPU).tensors
        assert torch.allclose(model.fc(features), expected, atol=1e-5)
    assert labels.tolist() == [index % 3 for index in range(10)]


def test_a_full_disk_means_the_plain_loop(make_dataloader, cache, no_memory, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    model = model_builder.freeze(resnet())
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.01)
    history = engine.train(
        model, make_dataloader(), optimizer=optimizer, epochs=2, cache_frozen=True
    )
    said = capsys.readouterr().out
    assert "No space left" in said and str(cache) in said and "plain loop" in said
    assert history["train_loss"][1] < history["train_loss"][0]
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are Unix's")
def test_a_disk_that_fills_up_while_writing(make_dataloader, cache, no_memory):
    import resource

    frozen = cutting.cut(model_builder.freeze(resnet()), training=True).trunk
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(cutting.CannotCut, match=r"0\.0493 MB cannot be written.*too large"):
            trunk.run_trunk(frozen, make_dataloader(examples=24), CPU, torch.float32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache.iterdir()) == []


def test_what_was_used_longest_ago_makes_room(make_dataloader, cache, no_memory, monkeypatch):
    frozen = cutting.cut(model_builder.freeze(resnet()), training=True).trunk

    def run(seed):
        dataloader = make_dataloader(examples=10, seed=seed)
        return trunk.run_trunk(frozen, dataloader, CPU, torch.float32).dataset

    first, second = run(1).path, run(2).path
    for path, age in ((first, 2000), (second, 3000)):
        os.utime(path, (time.time() - age,) * 2)
    abandoned, fresh = cache / f".{first.name}.crashed", cache / f".{first.name}.writing"
    for path, age in ((abandoned, 10**6), (fresh, 0)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    usage = namedtuple("usage", "total used free")
    free = 3 * first.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
    third = run(3).path  # half of five: one that is kept, and this one
    assert set(cache.iterdir()) == {first, third, fresh}


def test_the_folder_is_the_users_choice_or_the_systems(monkeypatch, cache):
    assert outputs.cache_folder() == cache
    monkeypatch.delenv("GOING_MODULAR_CACHE")
    assert outputs.cache_folder() == platformdirs.user_cache_path("going_modular", appauthor=False)


def test_training_says_where_its_files_are(make_dataloader, no_memory, cache, capsys):
    for expected in ("ran once over 48 images (", "ran once over 48 images, in an earlier run ("):
        torch.manual_seed(0)
        model = model_builder.freeze(resnet())
        engine.train(
            model,
            make_dataloader(),
            make_dataloader(seed=1),
            torch.optim.SGD(model.fc.parameters(), lr=0.1),
            epochs=1,
            cache_frozen=True,
        )
        said = capsys.readouterr().out
        assert expected in said
        assert all(str(path) in said for path in cache.iterdir())
