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

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from torchvision.models import (
    convnext,
    densenet,
    get_model,
    inception_v3,
    swin_transformer,
    vision_transformer,
)
from torchvision.transforms import v2

from going_modular import data_setup, engine, model_builder
from going_modular.training import cutting, folding

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep the tests' files out of the user's own cache folder."""
    monkeypatch.setenv("GOING_MODULAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_memory(monkeypatch):
    """Have all outputs of trunks go to files."""
    monkeypatch.setattr(cutting, "memory_budget", lambda: 0)


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
    assert cutting.draws_random_numbers(Augmented())
    assert torch.equal(before, torch.random.get_rng_state())
    assert not cutting.draws_random_numbers(make_dataloader().dataset)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
    loader = DataLoader(Augmented(), 4)
    engine.train(model, loader, optimizer=optimizer, epochs=1, cache_frozen=True)
    assert "augmented" in capsys.readouterr().out


def test_batches_that_are_mixed_are_never_cached(make_dataloader):
    mixup = v2.MixUp(num_classes=3)
    dataloader = DataLoader(
        make_dataloader().dataset, 4, collate_fn=lambda items: mixup(*default_collate(items))
    )
    trunk = cutting.split(model_builder.freeze(resnet()), training=True).trunk
    with pytest.raises(cutting.CannotSplit, match="augmented"):
        cutting.run_trunk(trunk, dataloader, CPU, torch.float32)


def test_what_cannot_be_split_trains_as_usual_and_says_so(make_dataloader, capsys):
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


def test_reasons_not_to_split():
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(3, 8, 8), 0

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(cutting.CannotSplit, match="no part of the model"):
        cutting.split(model, training=True)
    with pytest.raises(cutting.CannotSplit, match="stream"):
        cutting.run_trunk(model, DataLoader(Stream()), torch.device("cpu"), torch.float32)
    with pytest.raises(cutting.CannotSplit, match="no trainable parameter"):
        cutting.split(model.requires_grad_(False), training=True)


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


@pytest.mark.parametrize("noise", [partial(nn.Dropout, 0.5), partial(nn.Dropout2d, 0.3)])
def test_randomness_before_the_head_stays_random(noise):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), noise(), nn.Flatten(), nn.Linear(8 * 16, 2))
    model[0].requires_grad_(False)
    split = cutting.split(model, training=True)
    (value,) = split.trunk(torch.ones(2, 3, 4, 4))
    assert value.shape == (2, 8, 4, 4)  # the cut is before the dropout
    assert not torch.equal(split.tail([value]), split.tail([value]))


# --- the trunk, made ready to run ----------------------------------------------------------------


class Standardised(nn.Conv2d):
    """A convolution whose weights are not used as they are, so that no BatchNorm folds into it."""

    def forward(self, images):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(images, weight / weight.std(), None, 1, 1)


def odd():
    shared = nn.Conv2d(8, 8, 1)
    return nn.Sequential(
        nn.Sequential(Standardised(3, 8, 3), nn.BatchNorm2d(8), shared, nn.BatchNorm2d(8), shared),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * 32 * 32, 3)),
    )


@pytest.mark.parametrize(
    ("builder", "size", "folded"),
    [(lite, 64, 49), (resnet, 64, 20), (inception, 96, 94), (dense, 64, 7), (vit, 32, 0)]
    + [(odd, 32, 1)],
)
def test_folded_trunks_compute_the_same(builder, size, folded):
    torch.manual_seed(0)
    model = builder().requires_grad_(False)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_(0, 0.2)
    (model[-1] if builder is odd else model_builder.head(model)).requires_grad_(True)
    trunk = cutting.split(model, training=False).trunk
    images = torch.randn(2, 3, size, size)

    def count(module):
        calls = (node for node in folding.flatten(module).graph.nodes if node.op == "call_module")
        return sum(type(module.get_submodule(n.target)) is nn.BatchNorm2d for n in calls)

    before = copy.deepcopy(model.state_dict())
    expected, result = trunk(images), folding.fold(trunk, torch.float32)(images)
    for value, value_ in zip(result, expected, strict=True):
        torch.testing.assert_close(value, value_, atol=1e-4, rtol=1e-4)
    assert count(trunk) - count(folding.fold(trunk, torch.float32)) == folded

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for value, value_, exact in zip(
            folding.fold(trunk, torch.bfloat16)(images), trunk(images), expected, strict=True
        ):
            assert (value - exact).norm() < 1.5 * (value_ - exact).norm() + 1e-6
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # the model is left alone


# --- outputs in a file ---------------------------------------------------------------------------


@pytest.mark.parametrize(("builder", "size", "last"), [(resnet, 64, 1), (dense, 64, 1)])
def test_same_from_a_file(builder, size, last, make_dataloader, cache, no_memory):
    plain, cached = train_both_ways(builder, last, make_dataloader, size, examples=11, batch_size=4)
    assert len(list(cache.glob("*.outputs"))) == 2  # of train and validation
    assert_same(plain, cached)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_holds_what_memory_would(dtype, make_dataloader):
    class TwoBranches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 1, 2)
            self.requires_grad_(False)
            self.left_head, self.right_head = nn.Conv2d(4, 3, 1), nn.Conv2d(2, 3, 1)

        def forward(self, images):
            left = self.left_head(self.left(images))
            return left.mean((2, 3)) + self.right_head(self.right(images)).mean((2, 3))

    model = TwoBranches()
    dataloader = make_dataloader(examples=10, batch_size=4)
    trunk = cutting.split(model, training=True).trunk
    in_memory, in_file = (
        cutting.run_trunk(trunk, dataloader, CPU, dtype, budget=budget) for budget in (10**9, 0)
    )
    assert in_memory.dataset.file is None and in_file.dataset.rows is None
    for (values, labels), (values_, labels_) in zip(in_memory, in_file, strict=True):
        assert len(values) == 2 and torch.equal(labels, labels_)
        for value, value_ in zip(values, values_, strict=True):
            assert value.dtype == dtype and torch.equal(value, value_)
            assert value_.is_contiguous(memory_format=torch.channels_last)


def test_the_budget_decides(make_dataloader, cache):
    dataloader = make_dataloader(examples=10, batch_size=4)
    trunk = cutting.split(model_builder.freeze(resnet()), training=True).trunk
    needed = 10 * 512 * 4
    run = partial(cutting.run_trunk, trunk, dataloader, CPU, torch.float32)
    assert run(budget=needed).dataset.path is None and not cache.exists()
    assert run(budget=needed - 1).dataset.path.is_file()
    assert run().dataset.reused  # from a file, once there is one
    assert 0 < cutting.memory_budget() < 2**50


def runs_of_trunk(model, dataloader, dtype=torch.float32) -> int:
    """Count the batches that a model's trunk computes, all outputs going to files."""
    calls = []
    trunk = cutting.split(model, training=False).trunk
    hook = model.layer1.register_forward_hook(
        lambda _, inputs, output: calls.append(type(output) is torch.Tensor)
    )
    cutting.run_trunk(trunk, dataloader, CPU, dtype, budget=0)
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


def change_cut(model, dataset):
    model_builder.unfreeze(model, last=1)


def change_picture(model, dataset):
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


CHANGES = [change_weight, change_buffer, change_setting, change_graph, change_cut]
CHANGES += [change_picture, change_label, change_order, change_transform]


@pytest.fixture
def photos(photo_folder):
    transform = data_setup.create_transform("resnet18", size=32)
    splits = data_setup.load(photo_folder)
    return partial(data_setup.create_dataloader, splits.train, transform)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_earlier_run_is_used_only_if_nothing_differs(change, photos):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    assert runs_of_trunk(copy.deepcopy(model), photos(batch_size=5, shuffle=True)) == 0
    dataloader = photos(batch_size=8)
    change(model, dataloader.dataset)
    assert runs_of_trunk(model, dataloader) == 3


def test_an_earlier_run_in_another_precision_is_not_used(photos, monkeypatch):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    computed = []
    compute = cutting._compute
    monkeypatch.setattr(cutting, "_compute", lambda *a: computed.append(1) or compute(*a))
    runs_of_trunk(model, photos(), torch.bfloat16)
    runs_of_trunk(model, photos(), torch.bfloat16)
    monkeypatch.setattr(torch, "__version__", "0.0")
    runs_of_trunk(model, photos())
    assert len(computed) == 2


def test_an_earlier_process_is_reused(capsys):
    script = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model
from going_modular import model_builder
from going_modular.training import folding, cutting
torch.manual_seed(0)
model = model_builder.freeze(get_model("efficientnet_lite0", num_classes=3))
data = TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4))
trunk = cutting.split(model, training=True).trunk
loader = cutting.run_trunk(trunk, DataLoader(data), torch.device("cpu"), torch.float32, budget=0)
print(loader.dataset.reused, loader.dataset[[0, 3]][0][0].sum().item())
"""
    exec(script)
    first = capsys.readouterr().out.split()
    root = Path(cutting.__file__).parent.parent
    second = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True
    )
    assert first[0] == "False"
    assert second.stdout.split() == ["True", first[1]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content.replace(b'"key": "', b'"key": "0', 1),
    ],
)
def test_what_is_not_whole_is_computed_again(damage, photos, cache):
    model = model_builder.freeze(resnet())
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert runs_of_trunk(model, photos(batch_size=8)) == 3
    assert path.read_bytes() == content
    assert runs_of_trunk(model, photos(batch_size=8)) == 0


def test_a_crash_leaves_nothing(photos, cache):
    dataloader = photos(batch_size=8)
    broken, _ = dataloader.dataset.samples[-1]
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    model = model_builder.freeze(resnet())
    with pytest.raises(ValueError, match=broken.name):
        runs_of_trunk(model, dataloader)
    assert list(cache.iterdir()) == []
    broken.write_bytes(content)
    assert runs_of_trunk(model, photos(batch_size=8)) == 3


def test_two_runs_may_write_the_same(make_dataloader, cache):
    dataloader = make_dataloader(examples=10, batch_size=4)
    trunk = cutting.split(model_builder.freeze(resnet()), training=True).trunk
    run = partial(cutting.run_trunk, trunk, dataloader, CPU, torch.float32, budget=0)
    others = []

    def meanwhile(batches):
        for index, batch in enumerate(batches):
            if index == 1:
                others.append(run().dataset)
            yield batch

    first = run(progress=meanwhile).dataset
    assert len(others) == 1 and first.path == others[0].path
    assert list(cache.iterdir()) == [first.path]
    for values, values_ in zip(first[[0, 9]][0], others[0][[0, 9]][0], strict=True):
        assert torch.equal(values, values_)


def test_data_that_cannot_be_recognised_is_not_kept(make_dataloader, cache):
    class Unknown(Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return torch.full((3, 32, 32), float(index)), index % 3

    model = model_builder.freeze(resnet())
    loader = DataLoader(Unknown(), 4)
    assert [runs_of_trunk(model, loader) for _ in range(2)] == [3, 3]
    assert list(cache.iterdir()) == []


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
def test_a_disk_that_fills_up_while_writing(make_dataloader, cache):
    import resource

    trunk = cutting.split(model_builder.freeze(resnet()), training=True).trunk
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(cutting.CannotSplit, match=r"0\.0492 MB cannot be written.*too large"):
            cutting.run_trunk(trunk, make_dataloader(examples=24), CPU, torch.float32, budget=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache.iterdir()) == []


def test_what_was_used_longest_ago_makes_room(make_dataloader, cache, monkeypatch):
    trunk = cutting.split(model_builder.freeze(resnet()), training=True).trunk

    def run(seed):
        dataloader = make_dataloader(examples=10, seed=seed)
        return cutting.run_trunk(trunk, dataloader, CPU, torch.float32, budget=0).dataset

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


def test_the_folder_is_the_users_choice_or_the_systems(monkeypatch, tmp_path, cache):
    assert cutting.cache_folder() == cache
    monkeypatch.delenv("GOING_MODULAR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cutting.cache_folder() == tmp_path / "xdg" / "going_modular"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cutting.cache_folder() == tmp_path / ".cache" / "going_modular"


def test_training_says_where_its_files_are(make_dataloader, no_memory, cache, capsys):
    for expected in ("ran once over 48 images", "for 48 images are those of an earlier run"):
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
