"""The training loop: counts, freezing, schedules, stopping, and the calls that learners know."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import get_model

from going_modular import engine, model_builder, utils


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


def test_the_calls_of_the_well_known_course(model, make_dataloader):
    with pytest.warns(UserWarning, match="makes it a validation set"):
        results = engine.train(
            model=model,
            train_dataloader=make_dataloader(),
            test_dataloader=make_dataloader(seed=1),
            optimizer=sgd(model),
            loss_fn=nn.CrossEntropyLoss(),
            epochs=2,
            device="cpu",
        )
    for key in ("train_loss", "train_acc", "test_loss", "test_acc"):
        assert len(results[key]) == 2
    loss, accuracy = engine.train_step(
        model=model,
        dataloader=make_dataloader(),
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=sgd(model),
        device="cpu",
    )
    assert loss > 0 and 0 <= accuracy <= 1
    loss, accuracy = engine.test_step(
        model=model, dataloader=make_dataloader(), loss_fn=nn.CrossEntropyLoss(), device="cpu"
    )
    assert loss > 0 and 0 <= accuracy <= 1


def test_a_validation_history_answers_to_both_names(model, make_dataloader):
    history = engine.train(
        model, make_dataloader(), make_dataloader(seed=1), sgd(model), epochs=1, verbose=False
    )
    assert history["val_acc"] == history["test_acc"]
    assert "test_acc" not in history
    with pytest.raises(KeyError):
        history["nothing"]


def test_metrics_are_means_over_examples(model, make_dataloader):
    # 23 examples in batches of 8, 8 and 7: a mean of batch means would be another number.
    dataloader = make_dataloader(examples=23)
    result = engine.evaluate(model, dataloader, "cpu")
    images, labels = dataloader.dataset.tensors
    with torch.no_grad():
        logits = model.eval()(images)
    assert (result.total, result.correct) == (23, int((logits.argmax(1) == labels).sum()))
    assert result.accuracy == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert result.loss == pytest.approx(log_loss(labels, logits.double().softmax(1)), abs=1e-5)
    assert engine.test_step(model, dataloader, nn.CrossEntropyLoss(), "cpu") == pytest.approx(
        (result.loss, result.accuracy)
    )


def test_training_metrics_are_means_over_examples(model, make_dataloader):
    # With a learning rate of 0 and BatchNorm frozen, training sees the model that we evaluate.
    model.trunk.requires_grad_(False)
    dataloader = make_dataloader(examples=23)
    result = engine.train_step(model, dataloader, nn.CrossEntropyLoss(), sgd(model, lr=0.0), "cpu")
    expected = engine.evaluate(model, dataloader, "cpu")
    assert result == pytest.approx((expected.loss, expected.accuracy), abs=1e-5)


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


def test_predictions_keep_order_and_leave_the_model_alone(model, make_dataloader):
    dataloader = make_dataloader(examples=10)
    before = state_bytes(model)
    predictions = engine.predict(model, dataloader)
    assert predictions.logits.shape == (10, 3)
    assert torch.equal(predictions.labels, dataloader.dataset.tensors[1])
    assert torch.allclose(predictions.probabilities.sum(dim=1), torch.ones(10))
    assert state_bytes(model) == before


def test_auxiliary_heads_add_to_the_loss():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    loss_fn = nn.CrossEntropyLoss()
    total = engine._loss((logits, None, -logits), labels, loss_fn)
    assert total == pytest.approx((loss_fn(logits, labels) + 0.4 * loss_fn(-logits, labels)).item())


def test_per_epoch_schedule(model, make_dataloader):
    optimizer = sgd(model, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    history = engine.train(
        model,
        make_dataloader(),
        optimizer=optimizer,
        epochs=5,
        scheduler=scheduler,
        verbose=False,
    )
    assert history["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_per_batch_schedules_end_where_they_should(model, make_dataloader):
    for build in (
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6),
        lambda optimizer: engine.warmup_cosine(optimizer, total_steps=6, warmup_steps=2),
    ):
        optimizer = sgd(model)
        scheduler = build(optimizer)
        engine.train(
            model,
            make_dataloader(),  # 3 batches
            optimizer=optimizer,
            epochs=2,
            scheduler=scheduler,
            verbose=False,
        )
        assert scheduler.last_epoch == 6 or optimizer.param_groups[0]["lr"] < 1e-4
        with pytest.raises(ValueError, match="made for 6 steps, but this run takes 15"):
            engine.train(
                model, make_dataloader(), optimizer=optimizer, epochs=5, scheduler=scheduler
            )


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


def test_plateau_schedule_gets_the_validation_loss(model, make_dataloader):
    optimizer = sgd(model, lr=0.0)  # the loss stays where it is
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    model.trunk.requires_grad_(False)
    loader = make_dataloader()
    engine.train(model, loader, loader, optimizer, epochs=3, scheduler=scheduler, verbose=False)
    assert scheduler.num_bad_epochs == 0 and scheduler.best == pytest.approx(
        engine.evaluate(model, loader, "cpu").loss, abs=1e-5
    )


def test_best_epoch_is_kept_and_patience_stops(model, make_dataloader):
    train_dataloader, val_dataloader = make_dataloader(), make_dataloader(seed=1)
    optimizer = sgd(model, lr=0.5)
    # Raised a hundredfold after three epochs, the rate ruins what was learned.
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=100)
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


def test_a_loss_that_is_no_number_stops_with_epoch_batch_and_rate(model, make_dataloader):
    dataloader = make_dataloader()
    dataloader.dataset.tensors[0][10] = math.nan  # in the second batch of eight
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, batch 2, at learning rate 0\.1"):
        engine.train(model, dataloader, optimizer=sgd(model), epochs=2, verbose=False)


def test_gradients_are_clipped(model, make_dataloader):
    before = {name: value.clone() for name, value in model.named_parameters()}
    engine.train_step(
        model,
        make_dataloader(examples=8),
        nn.CrossEntropyLoss(),
        sgd(model, lr=1.0),
        "cpu",
        max_grad_norm=0.01,
    )
    moved = sum(((p - before[name]) ** 2).sum() for name, p in model.named_parameters())
    assert moved.sqrt().item() == pytest.approx(0.01, rel=1e-3)


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
    start = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        model.load_state_dict(start)
        history = engine.train(
            model,
            make_dataloader(),
            optimizer=sgd(model),
            epochs=3,
            device="cpu",
            dtype=dtype,
            verbose=False,
        )
        losses.append(history["train_loss"][-1])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


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


def test_a_progress_bar_changes_neither_order_nor_batches(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)

    def order():
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(range(12), batch_size=4, shuffle=True, generator=generator)
        return [batch.tolist() for batch in engine._bar(loader, "epoch 1", show=True)]

    monkeypatch.setattr(engine, "is_watched", lambda: False)
    bare = order()
    monkeypatch.setattr(engine, "is_watched", lambda: True)
    assert order() == bare
