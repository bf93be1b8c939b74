"""Frozen work done once: the same result as the plain loop, whatever the model and the cut."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.models import (
    convnext,
    densenet,
    get_model,
    inception_v3,
    swin_transformer,
    vision_transformer,
)

from going_modular import engine, frozen, model_builder


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
    assert frozen.draws_random_numbers(Augmented())
    assert torch.equal(before, torch.random.get_rng_state())
    assert not frozen.draws_random_numbers(make_dataloader().dataset)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
    loader = DataLoader(Augmented(), 4)
    engine.train(model, loader, optimizer=optimizer, epochs=1, cache_frozen=True)
    assert "augmented" in capsys.readouterr().out


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
    with pytest.raises(frozen.CannotSplit, match="no part of the model"):
        frozen.split(model, training=True)
    with pytest.raises(frozen.CannotSplit, match="stream"):
        frozen.run_trunk(model, DataLoader(Stream()), torch.device("cpu"), torch.float32)
    with pytest.raises(frozen.CannotSplit, match="no trainable parameter"):
        frozen.split(model.requires_grad_(False), training=True)


def test_frozen_parts_run_in_eval_mode():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout()),
    )
    model[0].requires_grad_(False)
    model[1][1].requires_grad_(False)  # a BatchNorm alone
    model.train()
    frozen.set_train_mode(model)
    assert not any(module.training for module in model[0].modules())
    assert [module.training for module in model[1]] == [True, False, True]


@pytest.mark.parametrize("noise", [partial(nn.Dropout, 0.5), partial(nn.Dropout2d, 0.3)])
def test_randomness_before_the_head_stays_random(noise):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), noise(), nn.Flatten(), nn.Linear(8 * 16, 2))
    model[0].requires_grad_(False)
    split = frozen.split(model, training=True)
    (value,) = split.trunk(torch.ones(2, 3, 4, 4))
    assert value.shape == (2, 8, 4, 4)  # the cut is before the dropout
    assert not torch.equal(split.tail([value]), split.tail([value]))
