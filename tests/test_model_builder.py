"""The model builder, on every classification model that torchvision lists and the embedded one."""

import functools
import hashlib
import http.server
import itertools
import os
import socket
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torchinfo
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, get_model, get_model_weights

from going_modular.model_builder import (
    WeightsError,
    blocks,
    count_parameters,
    create_model,
    freeze,
    head,
    head_features,
    heads,
    parameter_groups,
    unfreeze,
)
from going_modular.models import fetching, from_torchvision

NAMES = [*torchvision.models.list_models(module=torchvision.models), "efficientnet_lite0"]
NUM_CLASSES = 12

# The smallest member of each family and the smallest square images that it takes.
FAMILIES = {
    "alexnet": 63,
    "vgg11_bn": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "wide_resnet50_2": 32,
    "regnet_y_400mf": 32,
    "densenet121": 32,
    "googlenet": 64,
    "inception_v3": 299,
    "squeezenet1_1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "mnasnet0_5": 32,
    "shufflenet_v2_x0_5": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "efficientnet_lite0": 32,
    "convnext_tiny": 32,
    "vit_b_32": 224,
    "swin_t": 32,
    "swin_v2_t": 32,
    "maxvit_t": 224,
}


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Put new parameters on the meta device: shapes without numbers, so that size costs nothing.

    `torch.device("meta")` will not do: RegNet computes its widths with tensors. Initialising what
    has no numbers is skipped, which halves the time.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "register_parameter", register_on_meta)
        for init in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_"):
            patch.setattr(nn.init, init, lambda tensor, *_, **__: tensor)
        yield


@functools.cache
def meta_model(name: str) -> nn.Module:
    """Build each model once; tests may freeze parts of it, and nothing else."""
    with parameters_on_meta():
        return create_model(name, NUM_CLASSES, weights=None)


def trainable_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def all_logits(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


# Every model, by shape


def test_every_model_is_listed():
    assert len(NAMES) >= 81
    assert from_torchvision.names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_new_heads_give_the_network_that_torchvision_builds_for_as_many_classes(name):
    config = {"image_size": 518} if name == "vit_h_14" else {}  # the size of its weights
    with parameters_on_meta(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = get_model(name, num_classes=NUM_CLASSES, **config)
    model = meta_model(name)
    assert model.blueprint.architecture == name
    assert shapes(model) == shapes(expected)


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_is_the_heads_or_in_exactly_one_block(name):
    model = meta_model(name)
    head_parameters = [p for module in heads(model).values() for p in module.parameters()]
    parameters = [p for block in blocks(model) for p in block.parameters] + head_parameters
    assert len({id(p) for p in parameters}) == len(parameters)
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters()}
    assert len(blocks(model)) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_trainable_parameters_grow_from_the_heads_to_all(name):
    model = freeze(meta_model(name))
    grown = [trainable_names(model)]
    prefixes = tuple(f"{head_name}." for head_name in heads(model))
    assert grown[0] == {p for p, _ in model.named_parameters() if p.startswith(prefixes)}
    for last in range(1, len(blocks(model)) + 1):
        grown.append(trainable_names(unfreeze(model, last=last)))
    assert all(fewer < more for fewer, more in itertools.pairwise(grown))
    assert grown[-1] == {p for p, _ in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_in_forward_order(name):
    model = unfreeze(meta_model(name)).to("meta").eval()
    order: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, block_name=block.name: order.append(block_name))
        for block in blocks(model)
        for module in block.modules
        for layer in module.modules()
    ]
    # Shapes, not numbers: as large as the model's own images.
    size = {"inception_v3": 299, "vit_h_14": 518}.get(name, 224)
    logits = model(torch.empty(2, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    assert logits.shape == (2, NUM_CLASSES)
    # Each block runs once, without a break, after the one before it.
    assert [name for name, _ in itertools.groupby(order)] == [block.name for block in blocks(model)]


# One model of each family, with numbers


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread: for small tensors, threads that wait for each other cost the most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_gradients_reach_what_is_trainable_and_nothing_else(name, size, one_thread):
    torch.manual_seed(0)
    model = create_model(name, NUM_CLASSES, weights=None)
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0  # it would skip a layer, and so its gradient, at random
    images = torch.randn(2, 3, size, size)
    for last in (None, 1):
        unfreeze(model, last)
        model.zero_grad(set_to_none=True)
        logits = all_logits(model(images))
        assert all(part.shape == (2, NUM_CLASSES) for part in logits)
        sum(nn.functional.cross_entropy(part, torch.tensor([0, 1])) for part in logits).backward()
        reached = {p for p, parameter in model.named_parameters() if parameter.grad is not None}
        assert reached == trainable_names(model)
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# Heads, blocks and counts, known by hand


def test_resnet18_is_as_counted_by_hand():
    model = freeze(create_model("resnet18", NUM_CLASSES, weights=None))
    total = 11_689_512 - (512 * 1000 + 1000) + (512 * 12 + 12)
    assert count_parameters(model) == (512 * 12 + 12, total)
    assert head(model) is model.fc
    assert head_features(model) == 512
    names = ["conv1 + bn1", "layer1", "layer2", "layer3", "layer4"]
    assert [block.name for block in blocks(model)] == names
    assert blocks(model)[0].modules == [model.conv1, model.bn1]
    unfreeze(model, last=1)
    assert trainable_names(model) == {
        name for name, _ in model.named_parameters() if name.startswith(("layer4.", "fc."))
    }
    table = torchinfo.summary(model, verbose=0)
    assert count_parameters(model) == (table.trainable_params, table.total_params)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("alexnet", "features.0", "classifier.4"),
        ("vgg11_bn", "features.0 + features.1", "classifier.3"),
        ("efficientnet_b0", "features.0", "features.8"),
        ("densenet121", "features.conv0 + features.norm0", "features.denseblock4 + features.norm5"),
        ("regnet_y_400mf", "stem", "trunk_output.block4"),
        ("inception_v3", "Conv2d_1a_3x3", "Mixed_7c"),
        ("swin_t", "features.0", "features.7 + norm"),
        ("maxvit_t", "stem", "classifier.3"),
        (
            "vit_b_16",
            "class_token + conv_proj + encoder.pos_embedding",
            "encoder.layers.encoder_layer_11 + encoder.ln",
        ),
    ],
)
def test_first_and_last_block(name, first, last):
    names = [block.name for block in blocks(meta_model(name))]
    assert (names[0], names[-1]) == (first, last)


def test_auxiliary_heads_are_heads():
    assert list(heads(meta_model("inception_v3"))) == ["AuxLogits", "fc"]
    assert list(heads(meta_model("googlenet"))) == ["aux1", "aux2", "fc"]


def test_as_many_classes_as_a_hidden_layer_has_outputs_are_no_trap():
    # Swin-T's and ConvNeXt's `features` end in a Linear layer with 768 outputs.
    for name in ("swin_t", "convnext_tiny"):
        with parameters_on_meta():
            model = create_model(name, 768, weights=None)
        assert list(heads(model)) == list(heads(meta_model(name)))
        assert len(blocks(model)) == len(blocks(meta_model(name)))


def test_unfreeze_depends_on_its_argument_alone():
    model = create_model("efficientnet_lite0", 2, weights=None)
    expected = trainable_names(unfreeze(model, last=2))
    for before in (lambda: freeze(model), lambda: unfreeze(model), lambda: unfreeze(model, last=2)):
        before()
        assert trainable_names(unfreeze(model, last=2)) == expected


@pytest.mark.parametrize("last", [-1, 6])
def test_unfreeze_names_its_range(last):
    with pytest.raises(ValueError, match=r"5 blocks.*from 0 .* to 5"):
        unfreeze(meta_model("resnet18"), last=last)


# A head of one's own


def small_mlp(features: int = 512) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 2))


def test_custom_head_is_trained_whole():
    model = create_model("resnet18", 2, weights=None, head=small_mlp())
    assert head(model) is model.fc
    assert head_features(model) == 512
    assert count_parameters(freeze(model))[0] == (512 * 256 + 256) + (256 * 2 + 2)
    assert len(blocks(model)) == 5
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 2)


def test_custom_head_leaves_auxiliary_heads():
    with parameters_on_meta():
        model = create_model("googlenet", 2, weights=None, head=nn.Linear(1024, 2))
    assert model.aux1.fc2.out_features == model.aux2.fc2.out_features == 2


def test_custom_head_for_a_convolutional_one():
    mlp = nn.Sequential(nn.Conv2d(512, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1))
    model = create_model("squeezenet1_1", 2, weights=None, head=mlp)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 2)
    with pytest.raises(ValueError, match="512, 8, 8"):
        create_model("squeezenet1_1", 2, weights=None, head=small_mlp())


def test_custom_head_that_does_not_fit():
    with pytest.raises(ValueError, match=r"does not take \(2, 512\)"):
        create_model("resnet18", 2, weights=None, head=small_mlp(features=1280))
    with pytest.raises(ValueError, match="must give 3 logits"):
        create_model("resnet18", 3, weights=None, head=small_mlp())


def test_a_head_replaced_by_hand_is_found():
    model = create_model("resnet18", 12, weights=None)
    model.fc = small_mlp()
    assert head(model) is model.fc
    assert count_parameters(freeze(model))[0] == 512 * 256 + 256 + 256 * 2 + 2


class TinyVGG(nn.Module):
    """A learner's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_block_1 = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.conv_block_2 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = nn.Identity()
        self.classifier = nn.Linear(512, 3)


def test_models_of_ones_own():
    tiny = freeze(TinyVGG())
    assert [block.name for block in blocks(tiny)] == ["conv_block_1", "conv_block_2"]
    assert trainable_names(tiny) == {"classifier.1.weight", "classifier.1.bias"}
    wrapped = unfreeze(Wrapped(), last=1)
    assert blocks(wrapped)[0].name == "backbone.conv1 + backbone.bn1"
    assert {name.split(".")[0:2][-1] for name in trainable_names(wrapped)} == {
        "layer4",
        "weight",
        "bias",
    }


# Parameter groups


def test_two_learning_rates():
    model = unfreeze(create_model("resnet18", 2, weights=None), last=2)
    trunk, head_group = parameter_groups(model, lr=0.1, trunk_lr=0.01)
    assert (trunk["name"], trunk["lr"]) == ("trunk", 0.01)
    assert (head_group["name"], head_group["lr"]) == ("head", 0.1)
    assert head_group["params"] == list(model.fc.parameters())
    expected = [*model.layer3.parameters(), *model.layer4.parameters()]
    assert {id(p) for p in trunk["params"]} == {id(p) for p in expected}
    optimizer = torch.optim.AdamW([trunk, head_group], weight_decay=0.3)
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)


def test_layer_decay_halves_the_rate_at_each_block():
    model = create_model("resnet18", 2, weights=None)
    groups = parameter_groups(model, lr=1.0, layer_decay=0.5)
    assert {group["name"]: group["lr"] for group in groups} == {
        "conv1 + bn1": 1 / 32,
        "layer1": 1 / 16,
        "layer2": 1 / 8,
        "layer3": 1 / 4,
        "layer4": 1 / 2,
        "head": 1.0,
    }
    parameters = [p for group in groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(model.parameters()))


def test_weight_decay_spares_biases_and_normalisation():
    model = create_model("resnet18", 2, weights=None)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.05)
    optimizer = torch.optim.SGD(groups, weight_decay=1.0)  # refuses a parameter given twice
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    spared = {id(p) for m in norms for p in m.parameters()} | {id(model.fc.bias)}
    assert {p for p, value in decay.items() if value == 0.0} == spared
    assert {p for p, value in decay.items() if value == 0.05} == {
        id(p) for p in model.parameters() if id(p) not in spared
    }


def test_frozen_parameters_are_in_no_group():
    model = freeze(create_model("resnet18", 2, weights=None))
    (group,) = parameter_groups(model, lr=0.1, layer_decay=0.5)
    assert group["name"] == "head"


def test_groups_refuse_two_rules_for_the_trunk():
    model = meta_model("resnet18")
    with pytest.raises(ValueError, match="give one"):
        parameter_groups(model, lr=0.1, trunk_lr=0.01, layer_decay=0.5)
    with pytest.raises(ValueError, match="layer_decay is"):
        parameter_groups(model, lr=0.1, layer_decay=1.5)


# What a user may get wrong


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet81", "Did you mean .*resnet18"), ("?", "Known models: alexnet"), ("raft_large", "")],
)
def test_unknown_model(name, message):
    with pytest.raises(ValueError, match=f"Unknown model .*{message}"):
        create_model(name, 2)


def test_unknown_weights():
    with pytest.raises(ValueError, match="DEFAULT, IMAGENET1K_V1"):
        create_model("resnet18", 2, weights="IMAGENET21K")
    with pytest.raises(ValueError, match="resnet50 has no weights"):
        create_model("resnet50", 2, weights=ResNet18_Weights.DEFAULT)


def test_one_class_is_no_classification():
    with pytest.raises(ValueError, match="num_classes is 1"):
        create_model("resnet18", 1)


# Weights: a file in the cache, a server on this machine, never the network


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GOING_MODULAR_OFFLINE", raising=False)
    folder = tmp_path / "cache" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(name: str, folder: Path, **config) -> Path:
    """Write random ImageNet weights as torchvision names its files."""
    path = folder / "weights.pth"
    torch.save(get_model(name, weights=None, **config).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / f"{name}-{digest[:8]}.pth")


def redirect(monkeypatch, name: str, url: str) -> None:
    monkeypatch.setattr(get_model_weights(name).DEFAULT.value, "url", url)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return os.path.join(self.directory, os.path.basename(path))  # a proxy gets a whole URL

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Take connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def weights_of(model: nn.Module) -> Tensor:
    return next(model.parameters()).detach()


@pytest.mark.parametrize("weights", ["DEFAULT", get_model_weights("squeezenet1_1").IMAGENET1K_V1])
def test_a_file_in_the_cache_is_used(cache, monkeypatch, weights):
    path = publish("squeezenet1_1", cache)
    redirect(monkeypatch, "squeezenet1_1", f"http://127.0.0.1:1/models/{path.name}")
    published = torch.load(path, weights_only=True)
    model = create_model("SqueezeNet1_1", 2, weights, random_if_absent=True)
    assert model.blueprint.architecture == "squeezenet1_1"
    for name, tensor in model.state_dict().items():
        assert name.startswith("classifier.1.") or torch.equal(tensor, published[name])


def test_the_embedded_model_needs_no_network(cache):
    published = get_model("efficientnet_lite0", weights="DEFAULT").features.state_dict()
    model = create_model("efficientnet_lite0", 2)
    assert all(torch.equal(t, published[name]) for name, t in model.features.state_dict().items())
    assert not list(cache.iterdir())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pretrained_and_scratch_are_one_network(name, cache, monkeypatch):
    path = publish(name, cache, aux_logits=True, init_weights=False)
    redirect(monkeypatch, name, f"http://127.0.0.1:1/models/{path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrained = create_model(name, 2)
        scratch = create_model(name, 2, weights=None)
    assert list(heads(scratch)) == list(heads(pretrained))
    scratch.load_state_dict(pretrained.state_dict())
    images = torch.rand(1, 3, 96, 96)
    assert torch.equal(scratch.eval()(images), pretrained.eval()(images))


def test_weights_are_downloaded_once_and_checked(cache, tmp_path, monkeypatch, capsys):
    path = publish("squeezenet1_1", tmp_path)
    with serve(tmp_path) as server:
        redirect(monkeypatch, "squeezenet1_1", f"{server}/{path.name}")
        model = create_model("squeezenet1_1", 2, random_if_absent=True)
    assert torch.equal(weights_of(create_model("squeezenet1_1", 2)), weights_of(model))
    assert (cache / path.name).read_bytes() == path.read_bytes()
    assert "RANDOM" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "reason"), [("login-0123abcd.pth", "invalid hash"), ("none-0123abcd.pth", "404")]
)
def test_what_a_server_sends_instead_is_refused(file, reason, cache, tmp_path, monkeypatch):
    (tmp_path / "login-0123abcd.pth").write_text("<html>Please log in to this network</html>")
    with serve(tmp_path) as server:
        redirect(monkeypatch, "squeezenet1_1", f"{server}/{file}")
        with pytest.raises(WeightsError, match=reason):
            create_model("squeezenet1_1", 2)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("name", ["resnet18", "vit_h_14"])
def test_an_unreachable_host_says_what_to_do_at_once(name, cache, monkeypatch):
    url = f"http://127.0.0.1:1/models/{name}-0123abcd.pth"
    redirect(monkeypatch, name, url)
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        create_model(name, 2)
    assert time.perf_counter() - start < 2  # vit_h_14 alone takes longer to build
    for hint in (
        url,
        str(cache / f"{name}-0123abcd.pth"),
        "the model efficientnet_lite0, whose weights need no download",
    ):
        assert hint in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_server_that_never_answers_is_given_up(cache, silent_server, monkeypatch):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    redirect(monkeypatch, "resnet18", f"{silent_server}/resnet18-0123abcd.pth")
    with pytest.raises(WeightsError, match="timed out"):
        create_model("resnet18", 2)
    assert socket.getdefaulttimeout() is None


def test_behind_a_proxy_the_proxy_is_asked(cache, tmp_path, monkeypatch):
    path = publish("squeezenet1_1", tmp_path)
    redirect(monkeypatch, "squeezenet1_1", f"http://nowhere.invalid/{path.name}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # which knows the proxies of its birth
    monkeypatch.delenv("no_proxy", raising=False)
    with serve(tmp_path) as server:
        monkeypatch.setenv("http_proxy", server)
        create_model("squeezenet1_1", 2)
    assert (cache / path.name).exists()


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_a_damaged_file_is_named(cache, monkeypatch, size):
    path = publish("squeezenet1_1", cache)
    redirect(monkeypatch, "squeezenet1_1", f"http://127.0.0.1:1/models/{path.name}")
    os.truncate(path, size)
    with pytest.raises(WeightsError, match=r"is damaged.*move it away") as caught:
        create_model("squeezenet1_1", 2, random_if_absent=True)
    assert str(path) in str(caught.value)


def test_another_models_weights_under_this_name_are_named(cache, monkeypatch):
    path = publish("shufflenet_v2_x0_5", cache)
    redirect(monkeypatch, "squeezenet1_1", f"http://127.0.0.1:1/models/{path.name}")
    with pytest.raises(WeightsError, match="holds other weights than its name says"):
        create_model("squeezenet1_1", 2)


def test_on_request_absent_weights_are_random_and_it_says_so(cache, monkeypatch, capsys):
    monkeypatch.setenv("GOING_MODULAR_OFFLINE", "1")
    torch.manual_seed(0)
    model = create_model("resnet18", 2, random_if_absent=True)
    out, err = capsys.readouterr()
    assert "cannot be downloaded: GOING_MODULAR_OFFLINE is set\n" in out
    assert "RANDOM WEIGHTS: resnet18 runs, but what comes out means nothing.\n" in out
    assert not err
    torch.manual_seed(0)
    scratch = create_model("resnet18", 2, weights=None)
    assert torch.equal(weights_of(model), weights_of(scratch))
    assert model.blueprint.config == scratch.blueprint.config
    with pytest.raises(WeightsError, match="GOING_MODULAR_OFFLINE is set"):
        create_model("resnet18", 2)


def test_random_weights_leave_the_network_as_those_asked_for(vit_tiny, cache, monkeypatch, capsys):
    weights = get_model_weights(vit_tiny).LARGE
    monkeypatch.setattr(weights.value, "url", "http://127.0.0.1:1/vit_tiny-0123abcd.pth")
    model = create_model(vit_tiny, 3, weights=weights, random_if_absent=True)
    assert model.image_size == 48
    assert "RANDOM WEIGHTS: vit_tiny" in capsys.readouterr().out


def test_torchvisions_weights_go_with_their_own_size_of_images(vit_tiny):
    assert create_model(vit_tiny, 3, weights=None, image_size=40).image_size == 40
    with pytest.raises(ValueError, match="are for images of 32 pixels, not 40"):
        create_model(vit_tiny, 3, image_size=40)
