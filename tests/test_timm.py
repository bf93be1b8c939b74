"""timm's models through the same calls as torchvision's, at small sizes and without a download."""

import functools
import itertools
import sys
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from going_modular import data_setup, utils
from going_modular.model_builder import (
    WeightsError,
    blocks,
    count_parameters,
    create_model,
    freeze,
    head,
    head_features,
    heads,
    load_model,
    parameter_groups,
    unfreeze,
)
from going_modular.training import cutting

NUM_CLASSES = 3

# A small member of each family: side of the images, blocks, the first and the last of them.
FAMILIES = {
    "resnet18": (64, 5, "conv1 + bn1", "layer4"),
    "vit_tiny_patch16_224": (64, 13, "cls_token + pos_embed + patch_embed", "blocks.11 + norm"),
    "vit_small_patch14_dinov2": (
        (56, 13, "cls_token + pos_embed + patch_embed", "blocks.11 + norm")
    ),
    "vit_small_patch14_reg4_dinov2": (
        (56, 13, "cls_token + reg_token + pos_embed + patch_embed", "blocks.11 + norm")
    ),
    "vit_small_patch16_dinov3": (64, 13, "cls_token + reg_token + patch_embed", "blocks.11 + norm"),
    "eva02_tiny_patch14_224": (
        (56, 13, "cls_token + pos_embed + patch_embed", "blocks.11 + fc_norm")
    ),
    "vit_base_patch16_siglip_224": (32, 14, "pos_embed + patch_embed", "attn_pool"),
    "deit_tiny_distilled_patch16_224": (
        (64, 13, "cls_token + pos_embed + dist_token + patch_embed", "blocks.11 + norm")
    ),
    "swin_tiny_patch4_window7_224": (64, 5, "patch_embed", "layers.3 + norm"),
    "hiera_tiny_224": (64, 13, "pos_embed + patch_embed", "blocks.11 + head.norm"),
    "convnextv2_atto": (64, 5, "stem", "stages.3 + head.norm"),
    "mobilenetv4_conv_small": (64, 7, "conv_stem + bn1", "conv_head + norm_head"),
    "fastvit_t8": (64, 6, "stem", "final_conv"),
    "efficientnet_lite0": (64, 9, "conv_stem + bn1", "conv_head + bn2"),
}


@functools.cache
def build(name: str) -> nn.Module:
    """Build each model once; tests may freeze parts of it, and nothing else."""
    torch.manual_seed(0)
    size = FAMILIES[name][0]
    return create_model(f"timm:{name}", NUM_CLASSES, weights=None, image_size=size).eval()


def images(name: str) -> torch.Tensor:
    size = FAMILIES[name][0]
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


# Structure


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_and_blocks(name):
    model = build(name)
    _, count, first, last = FAMILIES[name]
    names = [block.name for block in blocks(model)]
    assert (len(names), names[0], names[-1]) == (count, first, last)
    told = model.get_classifier()  # timm's own word for it
    assert set(heads(model).values()) == set(told if isinstance(told, tuple) else [told])
    head_parameters = [p for module in heads(model).values() for p in module.parameters()]
    parameters = [p for block in blocks(model) for p in block.parameters] + head_parameters
    assert len(set(parameters)) == len(parameters)
    assert set(parameters) == set(model.parameters())
    freeze(model)
    assert {p for p in model.parameters() if p.requires_grad} == set(head_parameters)
    (group,) = parameter_groups(model, lr=0.1, layer_decay=0.5)
    assert group["params"] == head_parameters
    assert head_features(model) == model.head_hidden_size


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_in_forward_order(name):
    model = build(name)
    order: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, block_name=block.name: order.append(block_name))
        for block in blocks(model)
        for module in block.modules
        for layer in module.modules()
    ]
    with torch.inference_mode():
        assert model(images(name)).shape == (2, NUM_CLASSES)
    for hook in hooks:
        hook.remove()
    assert [name for name, _ in itertools.groupby(order)] == [b.name for b in blocks(model)]


@pytest.mark.parametrize("name", FAMILIES)
def test_trunk_and_tail_give_the_models_logits(name):
    model = build(name)
    with torch.inference_mode():
        expected = model(images(name))
    for last in (0, 1, len(blocks(model)) // 2):
        halves = cutting.cut(unfreeze(model, last), training=False)
        with torch.inference_mode():
            values = halves.trunk(images(name))
            torch.testing.assert_close(halves.tail(values), expected, rtol=0, atol=0)
        if last == 0:
            assert [v.shape for v in values] == [(2, head_features(model))] * len(heads(model))
        if name != "vit_small_patch16_dinov3":  # which makes its RoPE anew for each size of images
            assert all(len(value) == 2 for value in values)


def test_a_distilled_models_two_heads_vote(name="deit_tiny_distilled_patch16_224"):
    own = nn.Sequential(nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, NUM_CLASSES))
    model = create_model(f"timm:{name}", NUM_CLASSES, weights=None, head=own, image_size=32).eval()
    assert list(heads(model)) == ["head_dist", "head"]
    assert head(model) is model.head is own
    assert model.head_dist.out_features == NUM_CLASSES
    images = torch.randn(2, 3, 32, 32)
    class_token, distillation_token = model.forward_features(images)[:, :2].unbind(1)
    expected = (own(class_token) + model.head_dist(distillation_token)) / 2
    torch.testing.assert_close(model(images), expected)


def test_shared_parameters_are_in_the_first_block_that_holds_them():
    with torch.device("meta"):
        model = create_model("timm:coat_tiny", NUM_CLASSES, weights=None)
    parameters = [p for block in blocks(model) for p in block.parameters]
    assert len(set(parameters)) == len(parameters)
    assert set(parameters) | set(model.head.parameters()) == set(model.parameters())


# Transforms: pixel for pixel timm's own


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", None),
        ("resnet18", 96),
        ("vit_small_patch14_dinov2", 56),
        ("vit_base_patch16_siglip_224", None),
        ("fastvit_t8", 128),
        ("resnet18.tv_in1k", None),
    ],
)
def test_images_are_prepared_as_timm_does(name, size):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (300, 420, 3), dtype=torch.uint8, generator=rng)
    photo = Image.fromarray(pixels.numpy())
    chosen = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    if size:
        chosen["input_size"] = (3, size, size)
    preset = data_setup.create_transform(f"timm:{name}", size=size)
    assert torch.equal(preset(photo), timm.data.create_transform(**chosen)(photo))


def test_a_transform_that_timm_does_not_crop_warns():
    with pytest.warns(UserWarning, match="'squash'.*the middle is cropped"):
        data_setup.create_transform("timm:coat_lite_medium_384")


@pytest.mark.skipif(not timm.is_model("vit_base_patch16_sapiens2"), reason="timm is older")
def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="1024 x 768 pixels"):
        data_setup.create_transform("timm:vit_base_patch16_sapiens2")


# Saved models


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_a_saved_model_gives_the_same_logits(name, tmp_path):
    model = create_model(f"timm:{name}", NUM_CLASSES, weights=None, image_size=64).eval()
    assert model.blueprint.architecture == f"timm:{name}.r160_in1k"
    assert model.blueprint.config == ({"img_size": 64} if name == "test_vit" else {})
    transform = data_setup.create_transform(model.blueprint.architecture, size=64)
    path = utils.save_model(
        model, tmp_path, "model.safetensors", class_names=["a", "b", "c"], transform=transform
    )
    loaded, saved = load_model(path)
    assert str(saved["transform"]) == str(transform)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(images), model(images))


# Weights: a file in the hub's cache, never the network


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of the hub's cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("GOING_MODULAR_OFFLINE", "1")
    return tmp_path


def publish(name: str, cache: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write random weights where the hub keeps what it has downloaded."""
    folder = cache / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1234")
    path = folder / "snapshots" / "1234" / "model.safetensors"
    path.parent.mkdir(parents=True)
    state = timm.create_model(name).state_dict()
    save_file(state, path)
    return path, state


def test_weights_come_from_the_hubs_cache_and_name_their_licence(cache, capsys):
    _, state = publish("test_resnet.r160_in1k", cache)
    model = create_model("timm:test_resnet", NUM_CLASSES)
    licence = timm.get_pretrained_cfg("test_resnet").license or "not known to timm"
    assert f"licence of the weights: {licence} (https://hug" in capsys.readouterr().out
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items() if n[:3] != "fc.")
    assert model.fc.out_features == NUM_CLASSES
    tagged = create_model("timm:test_resnet", NUM_CLASSES, weights="r160_in1k")
    assert (
        tagged.blueprint.architecture
        == model.blueprint.architecture
        == "timm:test_resnet.r160_in1k"
    )


def test_weights_fit_another_size_of_images(cache):
    _, state = publish("test_vit.r160_in1k", cache)
    model = create_model("timm:test_vit", NUM_CLASSES, image_size=64)
    assert state["pos_embed"].shape[1] == 1 + 10 * 10 and model.pos_embed.shape[1] == 1 + 4 * 4
    assert torch.equal(model.patch_embed.proj.weight, state["patch_embed.proj.weight"])
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, NUM_CLASSES)


def test_absent_weights_say_what_to_do(cache, capsys):
    folder = str(cache / "models--timm--test_resnet.r160_in1k")
    with pytest.raises(WeightsError, match="GOING_MODULAR_OFFLINE is set") as caught:
        create_model("timm:test_resnet", NUM_CLASSES)
    for hint in (
        folder,
        "timm/test_resnet.r160_in1k/",
        "the model efficientnet_lite0, whose weights need no download",
    ):
        assert hint in str(caught.value)
    create_model("timm:test_resnet", NUM_CLASSES, random_if_absent=True)
    assert "RANDOM WEIGHTS: timm:test_resnet.r160_in1k" in capsys.readouterr().out


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_damaged_file_is_named(cache, size):
    path, _ = publish("test_resnet.r160_in1k", cache)
    with path.open("rb+") as file:
        file.truncate(size)
    with pytest.raises(WeightsError, match=r"is damaged.*move it away") as caught:
        create_model("timm:test_resnet", NUM_CLASSES)
    assert str(path) in str(caught.value)


# What a user may get wrong


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("timm:resnet81", None, "Unknown model .*Did you mean timm:resnet"),
        ("timm:resnet18", "a9_in1k", "no weights 'a9_in1k'.*DEFAULT, a1_in1k"),
        ("timm:resnet18.a9_in1k", None, "no weights 'a9_in1k'"),
        ("timm:gcvit_xxtiny", "DEFAULT", "not on timm's hub"),
    ],
)
def test_unknown_names_and_weights(name, weights, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, NUM_CLASSES, weights=weights)


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="run `pip install timm`"):
        create_model("timm:resnet18", NUM_CLASSES)


def test_frozen_blocks_do_not_train(name="test_vit"):
    model = create_model(f"timm:{name}", NUM_CLASSES, weights=None, image_size=64)
    trainable, total = count_parameters(unfreeze(model, last=1))
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert reached == {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable < total
