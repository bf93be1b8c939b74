"""The training loop: the same as plain PyTorch where that is right, and a word where it is not."""

import copy
import math
import pickle
from collections import namedtuple

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.models import get_model
from torchvision.transforms import v2

from going_modular import engine, model_builder, utils
from going_modular.training import reporting


class Tiny(nn.Module):
    """A convolution, a BatchNorm and a head: trained in milliseconds."""

    def __init__(self, classes=3):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, images):
        return self.head(self.trunk(images).mean(dim=(2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def state_bytes(module):
    """Everything that a module holds, parameters and buffers, bit for bit."""
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def plain_step(model, dataloader, optimizer, loss_fn=F.cross_entropy):
    """Train for an epoch as anybody would; return mean loss and accuracy over the examples."""
    model.train()
    losses, hits = [], []
    for images, labels in dataloader:
        logits = model(images)
        loss = loss_fn(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += [loss.item()] * len(labels)
        hits += (logits.argmax(dim=1) == labels).tolist()
    return sum(losses) / len(losses), sum(hits) / len(hits)


def assert_same_weights(model, other):
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name)


# --- the same as plain PyTorch -------------------------------------------------------------------


def test_the_calls_of_the_well_known_course(model, make_dataloader):
    """Batches of 8, 8 and 7: a mean of batch means would be another number."""
    train, test = make_dataloader(examples=23), make_dataloader(examples=23, seed=1)
    twin = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="makes it a validation set"):
        results = engine.train(
            model=model,
            train_dataloader=train,
            test_dataloader=test,
            optimizer=sgd(model),
            loss_fn=nn.CrossEntropyLoss(),
            epochs=2,
            device="cpu",
        )
    optimizer = sgd(twin)
    images, labels = test.dataset.tensors
    for epoch in range(2):
        expected = plain_step(twin, train, optimizer)
        found = results["train_loss"][epoch], results["train_acc"][epoch]
        assert found == pytest.approx(expected)
        with torch.no_grad():
            probabilities = twin.eval()(images).double().softmax(dim=1)
        expected = log_loss(labels, probabilities), accuracy_score(labels, probabilities.argmax(1))
        found = results["test_loss"][epoch], results["test_acc"][epoch]
        assert found == pytest.approx(expected, abs=1e-6)
    assert_same_weights(model, twin)

    loss_fn = nn.CrossEntropyLoss()
    step = engine.test_step(model=model, dataloader=test, loss_fn=loss_fn, device="cpu")
    assert step == pytest.approx(expected, abs=1e-6)
    expected = plain_step(twin, train, sgd(twin))
    step = engine.train_step(
        model=model, dataloader=train, loss_fn=loss_fn, optimizer=sgd(model), device="cpu"
    )
    assert step == pytest.approx(expected)


def test_the_history_is_a_plain_dict_of_what_was_asked_for(model, make_dataloader):
    train, val = make_dataloader(), make_dataloader(seed=1)
    history = engine.train(model, train, optimizer=sgd(model), epochs=1, verbose=False)
    assert list(history) == ["train_loss", "train_acc", "lr", "seconds"]
    assert history.best_epoch is None
    history = engine.train(model, train, val, sgd(model), epochs=1, verbose=False)
    assert [key for key in history if "val" in key] == ["val_loss", "val_acc"]
    assert history.get("test_acc") is None and "test_acc" not in history
    with pytest.raises(KeyError):
        history["test_acc"]
    copied = pickle.loads(pickle.dumps(history))
    assert copied == history == dict(history) and copied.best_epoch == 1


def test_evaluate_is_the_loss_and_accuracy_of_all_examples(model, make_dataloader):
    dataloader = make_dataloader(examples=23)
    images, labels = dataloader.dataset.tensors
    with torch.no_grad():
        logits = model.eval()(images)
    result = engine.evaluate(model, dataloader, "cpu")
    assert (result.total, result.correct) == (23, int((logits.argmax(1) == labels).sum()))
    assert result.accuracy == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert result.loss == pytest.approx(log_loss(labels, logits.double().softmax(1)), abs=1e-5)
    weights = torch.tensor([1.0, 5.0, 0.5])
    loss = engine.evaluate(model, dataloader, "cpu", nn.CrossEntropyLoss(weights)).loss
    expected = log_loss(labels, logits.double().softmax(1), sample_weight=weights[labels])
    assert loss == pytest.approx(expected, abs=1e-5)


def test_predictions_keep_order_and_leave_the_model_alone(model, make_dataloader):
    dataloader = make_dataloader(examples=10)
    before = state_bytes(model)
    predictions = engine.predict(model, dataloader)
    images, labels = dataloader.dataset.tensors
    with torch.no_grad():
        assert torch.allclose(predictions.logits, model(images), atol=1e-6)
    assert torch.equal(predictions.labels, labels)
    assert torch.allclose(predictions.probabilities.sum(dim=1), torch.ones(10))
    assert state_bytes(model) == before


def test_auxiliary_heads_add_to_the_loss():
    class TwoHeads(nn.Linear):
        def forward(self, images):
            logits = super().forward(images)
            return namedtuple("Outputs", "logits aux2 aux1")(logits, None, -logits)

    images, labels = torch.randn(6, 4), torch.arange(6) % 2
    model = TwoHeads(4, 2)
    logits = nn.Linear.forward(model, images)
    expected = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(-logits, labels)
    batches = [(images, labels)]
    loss, _ = engine.train_step(model, batches, nn.CrossEntropyLoss(), sgd(model), "cpu")
    assert loss == pytest.approx(expected.item())


def test_two_runs_with_one_seed_are_identical(make_dataloader):
    histories = []
    for _ in range(2):
        utils.seed_everything(7)
        model = get_model("efficientnet_lite0", num_classes=3)
        loader = make_dataloader(shuffle=True)
        history = engine.train(
            model, loader, loader, sgd(model), epochs=2, device="cpu", verbose=False
        )
        del history["seconds"]
        histories.append(history)
    assert histories[0] == histories[1]


def test_bfloat16_trains_to_about_the_same(model, make_dataloader):
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        twin = copy.deepcopy(model)
        options = {"epochs": 3, "device": "cpu", "dtype": dtype, "verbose": False}
        history = engine.train(twin, make_dataloader(), optimizer=sgd(twin), **options)
        losses.append(history["train_loss"][-1])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


def test_gradients_are_clipped(model, make_dataloader):
    before = copy.deepcopy(dict(model.named_parameters()))
    dataloader, optimizer = make_dataloader(examples=8), sgd(model, lr=1.0)
    engine.train_step(
        model, dataloader, nn.CrossEntropyLoss(), optimizer, "cpu", max_grad_norm=0.01
    )
    moved = sum(((p - before[name]) ** 2).sum() for name, p in model.named_parameters())
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_hook_sees_each_epoch(model, make_dataloader):
    seen = []

    def hook(epoch, trained, history):
        seen.append((epoch, trained is model, len(history["val_acc"])))

    loader = make_dataloader()
    engine.train(model, loader, loader, sgd(model), epochs=3, after_epoch=hook, verbose=False)
    assert seen == [(1, True, 1), (2, True, 2), (3, True, 3)]


def test_a_progress_bar_changes_neither_order_nor_batches(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)

    def order():
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(range(12), batch_size=4, shuffle=True, generator=generator)
        return [batch.tolist() for batch in reporting.progress_bar(loader, "epoch 1", show=True)]

    monkeypatch.setattr(reporting, "is_watched", lambda: False)
    bare = order()
    monkeypatch.setattr(reporting, "is_watched", lambda: True)
    assert order() == bare


# --- frozen means frozen -------------------------------------------------------------------------


def test_frozen_means_frozen_buffers_included(make_dataloader):
    model = model_builder.freeze(get_model("efficientnet_lite0", num_classes=3))
    before = state_bytes(model.features)
    model.train()  # what a caller did does not matter
    engine.train(model, make_dataloader(), optimizer=sgd(model), epochs=2, verbose=False)
    assert state_bytes(model.features) == before


def test_the_naive_way_moves_a_frozen_batchnorm(make_dataloader):
    # The control of the test above: the same hash does notice what requires_grad alone lets pass.
    model = model_builder.freeze(get_model("efficientnet_lite0", num_classes=3))
    before = state_bytes(model.features)
    model.train()
    model(next(iter(make_dataloader()))[0])
    assert state_bytes(model.features) != before


# --- schedules, and the best epoch ---------------------------------------------------------------


def test_per_epoch_schedule(model, make_dataloader):
    optimizer = sgd(model, lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    options = {"optimizer": optimizer, "scheduler": scheduler, "epochs": 5, "verbose": False}
    history = engine.train(model, make_dataloader(), **options)
    assert history["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


PER_BATCH = {
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6),
    "warm-up and cosine": lambda optimizer: engine.warmup_cosine(optimizer, 6, warmup_steps=2),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=2),
}


@pytest.mark.parametrize("name", PER_BATCH)
def test_schedules_that_count_batches(name, model, make_dataloader):
    optimizer, loader = sgd(model), make_dataloader()  # 3 batches
    scheduler = PER_BATCH[name](optimizer)
    engine.train(model, loader, optimizer=optimizer, epochs=2, scheduler=scheduler, verbose=False)
    assert scheduler.last_epoch == 6
    if name != "cyclic":
        with pytest.raises(ValueError, match="made for 6 steps, but this run takes 15"):
            engine.train(model, loader, optimizer=optimizer, epochs=5, scheduler=scheduler)


def test_a_schedule_of_another_optimizer_is_refused(model, make_dataloader):
    scheduler = lr_scheduler.StepLR(sgd(model), 1)
    with pytest.raises(ValueError, match="is for another optimizer"):
        engine.train(model, make_dataloader(), optimizer=sgd(model), scheduler=scheduler)


def test_warmup_cosine_by_hand():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = engine.warmup_cosine(optimizer, total_steps=6, warmup_steps=2)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    half = [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert rates == pytest.approx([1 / 3, 2 / 3, *half])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


@pytest.mark.parametrize(("mode", "key"), [("min", "val_loss"), ("max", "val_acc")])
def test_plateau_schedules_get_what_falls_or_rises(mode, key, model, make_dataloader):
    optimizer = sgd(model, lr=0.01)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=0)
    train, val = make_dataloader(), make_dataloader(seed=1)
    options = {"epochs": 3, "scheduler": scheduler, "verbose": False}
    history = engine.train(model, train, val, optimizer, **options)
    assert scheduler.best == (min if mode == "min" else max)(history[key])
    assert history["val_loss"] != history["val_acc"]


def test_best_epoch_is_kept_and_patience_stops(model, make_dataloader):
    train_dataloader, val_dataloader = make_dataloader(), make_dataloader(seed=1)
    optimizer = sgd(model, lr=0.5)
    # Raised a hundredfold after three epochs, the rate ruins what was learned.
    scheduler = lr_scheduler.StepLR(optimizer, step_size=3, gamma=100)
    history = engine.train(
        model,
        train_dataloader,
        val_dataloader,
        optimizer,
        epochs=12,
        scheduler=scheduler,
        keep_best="loss",
        patience=2,
        verbose=False,
    )
    best = min(history["val_loss"])
    assert history["val_loss"][history.best_epoch - 1] == best
    assert len(history["val_loss"]) == history.best_epoch + 2 < 12
    assert engine.evaluate(model, val_dataloader, "cpu").loss == pytest.approx(best, abs=1e-5)


class Overflowing(Tiny):
    """Gives NaN in eval mode in the epochs that `bad` names, as a spoiled BatchNorm does."""

    def __init__(self, bad):
        super().__init__()
        self.bad, self.epoch = bad, 0

    def eval(self):
        self.epoch += self.training
        return super().eval()

    def forward(self, images):
        bad = not self.training and self.epoch in self.bad
        return super().forward(images) * (math.nan if bad else 1.0)


@pytest.mark.parametrize("quantity", ["loss", "acc"])
def test_an_epoch_without_a_finite_loss_is_never_the_best(quantity, make_dataloader):
    loader = make_dataloader()
    options = {"epochs": 3, "device": "cpu", "keep_best": quantity, "verbose": False}
    model = Overflowing(bad={1, 3})
    history = engine.train(model, loader, loader, sgd(model, lr=1e-9), **options)
    assert [math.isnan(loss) for loss in history["val_loss"]] == [True, False, True]
    assert history.best_epoch == 2
    model = Overflowing(bad={1, 2, 3})
    with pytest.raises(FloatingPointError, match="not a finite number in any epoch"):
        engine.train(model, loader, loader, sgd(model), **options)


# --- numbers that are none -----------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_with_epoch_batch_and_rate(model, make_dataloader):
    dataloader = make_dataloader()
    dataloader.dataset.tensors[0][10] = math.nan  # in the second batch of eight
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, batch 2, at learning rate 0\.1"):
        engine.train(model, dataloader, optimizer=sgd(model), epochs=2, verbose=False)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(model, make_dataloader):
    def loss_fn(logits, labels):
        return F.cross_entropy(logits, labels) + (logits * 0).abs().sqrt().sum()  # d/dx is 0 * inf

    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(FloatingPointError, match="norm nan in epoch 1, batch 1"):
        engine.train(model, make_dataloader(), None, sgd(model), loss_fn, 2, verbose=False)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


class Steep(nn.Linear):
    """Logits so large that float16's scaled gradients overflow until the scale is small enough."""

    def forward(self, images):
        return super().forward(images.flatten(1)) * self.slope


def test_steps_that_float16_leaves_out_do_not_count():
    torch.manual_seed(0)
    model = Steep(12, 2)
    images, labels = torch.randn(64, 3, 2, 2), torch.arange(64) % 2
    options = {"epochs": 1, "device": "cpu", "dtype": torch.float16, "verbose": False}

    def train(slope, batches=16):
        model.slope = slope
        loader = DataLoader(TensorDataset(images, labels), 64 // batches)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
        scheduler = lr_scheduler.OneCycleLR(optimizer, 1e-6, total_steps=batches)
        engine.train(model, loader, None, optimizer, scheduler=scheduler, **options)
        (steps,) = {int(state["step"]) for state in optimizer.state.values()}
        return steps, scheduler.last_epoch

    steps, scheduled = train(30)
    assert steps == scheduled and 0 < steps < 16
    assert train(0.01) == (16, 16)
    with pytest.raises(FloatingPointError, match="No step was taken in epoch 1"):
        train(3000, batches=4)


# --- a last batch of one -------------------------------------------------------------------------


def pooled():
    """Give a BatchNorm after pooling to 1 x 1: it sees one value of each image."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(8, 3))


def test_a_last_batch_of_one_is_left_out_of_a_batchnorm(make_dataloader):
    model = pooled()
    twin, loader = copy.deepcopy(model), make_dataloader(examples=9)
    with pytest.warns(UserWarning, match="drop_last=True"):
        found = engine.train_step(model, loader, nn.CrossEntropyLoss(), sgd(model), "cpu")
    expected = plain_step(twin, DataLoader(loader.dataset, 8, drop_last=True), sgd(twin))
    assert found == pytest.approx(expected)
    assert_same_weights(model, twin)


@pytest.mark.filterwarnings("error")
def test_a_last_batch_of_one_trains_where_it_can(make_dataloader):
    frozen = pooled()
    frozen[0].requires_grad_(False)
    for model in (frozen, Tiny()):  # which has many values of each image
        calls = []
        model.register_forward_hook(lambda _, inputs, __, calls=calls: calls.append(len(inputs[0])))
        engine.train(model, make_dataloader(9), optimizer=sgd(model), epochs=1, verbose=False)
        assert calls == [8, 1]


def test_batches_of_one_alone_are_refused(make_dataloader):
    model = pooled()
    with pytest.raises(ValueError, match="batch_size of 2 or more"):
        engine.train(model, make_dataloader(3, batch_size=1), optimizer=sgd(model), verbose=False)


# --- what does not belong together ---------------------------------------------------------------


def another_model(model):
    return sgd(Tiny())


def made_too_early(model):
    model.trunk.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.trunk.requires_grad_(True)
    return optimizer


def head_replaced(model):
    optimizer = sgd(model)
    model.head = nn.Linear(8, 3)
    return optimizer


def one_more(model):
    return torch.optim.SGD([*model.parameters(), nn.Parameter(torch.zeros(7, 5))], lr=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_model, r"does not hold trunk.0.weight, trunk.0.bias, trunk.1.weight and 3 more"),
        (made_too_early, r"does not hold trunk.0.weight"),
        (head_replaced, r"does not hold head.weight, head.bias, which would not train"),
        (one_more, r"shape \(7, 5\) that are not the model's"),
    ],
)
def test_the_optimizer_holds_what_is_trainable(make, message, model, make_dataloader):
    optimizer = make(model)
    with pytest.raises(ValueError, match=message):
        engine.train(model, make_dataloader(), optimizer=optimizer, verbose=False)
    with pytest.raises(ValueError, match=message):
        engine.train_step(model, make_dataloader(), nn.CrossEntropyLoss(), optimizer, "cpu")


def test_a_model_with_nothing_to_train_is_refused(model, make_dataloader):
    optimizer = sgd(model.requires_grad_(False))
    with pytest.raises(ValueError, match="no trainable parameter"):
        engine.train(model, make_dataloader(), optimizer=optimizer, verbose=False)


@pytest.mark.parametrize("classes", [3, 8])
@pytest.mark.parametrize("mixing", [v2.MixUp, v2.CutMix])
def test_soft_labels_count_by_their_largest_class(mixing, classes):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(16, 3, 8, 8), torch.arange(16) % classes)
    mix = mixing(num_classes=classes)
    torch.manual_seed(1)
    batches = [mix(*default_collate([data[j] for j in range(i, i + 8)])) for i in (0, 8)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    images, labels = map(torch.cat, zip(*batches, strict=True))
    logits = model(images)
    expected = accuracy_score(labels.argmax(dim=1), logits.argmax(dim=1))
    loss_fn = nn.CrossEntropyLoss()
    loss, accuracy = engine.train_step(model, batches, loss_fn, sgd(model, lr=0.0), "cpu")
    assert (loss, accuracy) == pytest.approx((loss_fn(logits, labels).item(), expected))
    result = engine.evaluate(model, batches, "cpu")
    assert (result.loss, result.accuracy) == pytest.approx((loss, accuracy))


CLASS_1 = torch.ones(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("classes", "labels", "loss_fn", "message"),
    [
        (1, torch.ones(8, 1), nn.BCEWithLogitsLoss(), r"logits \(8, 1\) and labels \(8, 1\)"),
        (3, torch.ones(8, 3), nn.BCEWithLogitsLoss(), r"labels \(8, 3\) in float32"),  # all three
        (1, torch.ones(8), lambda logits, labels: F.mse_loss(logits[:, 0], labels), r"labels \(8,"),
        (4, torch.ones(8).long(), nn.CrossEntropyLoss(reduction="sum"), 'reduction="sum"'),
        (4, torch.ones(8).long(), nn.CrossEntropyLoss(reduction="none"), 'reduction="none"'),
        (
            4,
            torch.ones(8).long(),
            lambda *a: F.cross_entropy(*a, reduction="none"),
            r"shape \(8,\)",
        ),
    ],
)
def test_labels_and_losses_without_a_mean_are_refused(classes, labels, loss_fn, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    before = state_bytes(model)
    loader = DataLoader(TensorDataset(torch.randn(8, 3, 2, 2), labels), 8)
    with pytest.raises(ValueError, match=message):
        engine.train(model, loader, None, sgd(model), loss_fn, device="cpu", verbose=False)
    with pytest.raises(ValueError, match=message):
        engine.test_step(model, loader, loss_fn, "cpu")
    assert state_bytes(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": None}, "needs an optimizer"),
        ({"keep_best": "loss"}, "need a val_dataloader"),
        ({"keep_best": "f1", "val_dataloader": True}, 'use "loss" or "acc"'),
        ({"val_dataloader": True, "test_dataloader": True}, "keep the test set"),
    ],
)
def test_contradictions_are_explained(model, make_dataloader, options, message):
    loader = make_dataloader()
    options = {"optimizer": sgd(model)} | {
        key: loader if value is True else value for key, value in options.items()
    }
    with pytest.raises(ValueError, match=message):
        engine.train(model, loader, epochs=1, verbose=False, **options)


def test_a_loader_without_batches_is_refused(model, make_dataloader):
    empty = DataLoader(make_dataloader(examples=5).dataset, 8, drop_last=True)
    with pytest.raises(ValueError, match="drop_last=True"):
        engine.train(model, empty, optimizer=sgd(model), verbose=False)
    with pytest.raises(ValueError, match="drop_last=True"):
        engine.evaluate(model, empty)


def test_gradients_that_frozen_parts_kept_do_not_count(model, make_dataloader):
    # Those of a run that diverged before the trunk was frozen.
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    model.trunk.requires_grad_(False)
    before = state_bytes(model.head)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    engine.train(model, make_dataloader(), None, optimizer, epochs=1, max_grad_norm=1.0)
    assert state_bytes(model.head)["weight"] != before["weight"]


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_is_at_least_one(model, make_dataloader, patience):
    loader = make_dataloader()
    with pytest.raises(ValueError, match=f"patience={patience}"):
        engine.train(model, loader, loader, sgd(model), epochs=1, patience=patience)
