"""The training loop: train, evaluate, predict.

It does not know where images come from or what kind of model it trains. Every metric sums over
examples and divides by examples, and what is frozen stays frozen.
"""

import copy
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CyclicLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from going_modular.training import cutting, folding, processes, resuming
from going_modular.utils import (
    autocast,
    is_watched,
    model_to_device,
    pick_device,
    pick_precision,
    to_device,
)

# The weight of an auxiliary head's loss (Inception v3, GoogLeNet) beside that of the main head.
AUXILIARY_WEIGHT = 0.4


class History(dict):
    """What `train` measured: a dict of lists with one entry an epoch, and `best_epoch`.

    The keys: train_loss, train_acc, lr, seconds, and val_loss, val_acc for the loader that is
    looked at after every epoch. Losses and accuracies are means over examples.
    """

    best_epoch: int | None = None  # counted from 1

    def __missing__(self, key: str) -> list[float]:
        # Many notebooks call the validation set "test"; their keys still find it.
        if key in ("test_loss", "test_acc"):
            return self[key.replace("test", "val")]
        raise KeyError(key)


class Predictions(NamedTuple):
    """Logits (N, classes) and labels (N,), float32 and int64 on the CPU, in the loader's order."""

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> int:
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        return self.correct / len(self.labels)


# --- one epoch -----------------------------------------------------------------------------------


def train_step(
    model: nn.Module,
    dataloader: DataLoader,
    loss_fn: nn.Module,
    optimizer: Optimizer,
    device: torch.device | str,
    *,
    scheduler: LRScheduler | None = None,
    max_grad_norm: float | None = None,
    dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    epoch: int = 1,
    progress: bool = False,
) -> tuple[float, float]:
    """Train for one epoch; return loss and accuracy, averaged over the examples seen.

    `scheduler` is stepped after every batch; `max_grad_norm` clips the gradients' joint norm;
    `scaler` carries float16's loss scale from one epoch to the next.
    Raises FloatingPointError when the loss is no longer a finite number.
    """
    dtype = dtype or pick_precision(device)
    cutting.set_train_mode(model)
    scaler = scaler or _scaler(device, dtype)
    loss_sum, correct, examples = 0.0, 0, 0
    batches = _bar(processes.share(dataloader), f"epoch {epoch}", progress)
    for number, (images, labels) in enumerate(batches, start=1):
        images, labels = to_device(images, device), to_device(labels, device)
        with autocast(device, dtype):
            outputs = model(images)
            loss = _loss(outputs, labels, loss_fn)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"The loss became {loss.item()} in epoch {epoch}, batch {number}, at "
                f"learning rate {_largest_lr(optimizer):g}: try a smaller one, or clip the "
                "gradients."
            )

        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if max_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        if scheduler is not None:
            scheduler.step()

        loss_sum += loss.item() * len(labels)
        correct += int((_main(outputs).argmax(dim=1) == labels).sum())
        examples += len(labels)
    loss_sum, correct, examples = processes.all_reduce(loss_sum, correct, examples)
    return loss_sum / examples, correct / examples


def test_step(
    model: nn.Module,
    dataloader: DataLoader,
    loss_fn: nn.Module,
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[float, float]:
    """Measure loss and accuracy, averaged over all examples, without training."""
    predictions = predict(model, dataloader, device, dtype=dtype)
    loss = loss_fn(predictions.logits.to(device), predictions.labels.to(device))
    return loss.item(), predictions.accuracy


def predict(
    model: nn.Module,
    dataloader: DataLoader,
    device: torch.device | str | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Predictions:
    """Run the model in eval mode over all batches and return its logits beside the labels."""
    device = device or next(model.parameters()).device
    dtype = dtype or pick_precision(device)
    ready = model.eval()
    if torch.device(device).type == "cpu":  # elsewhere, tracing may take longer than it saves
        ready = folding.ready(model, dtype)
    logits, labels = [], []
    with torch.inference_mode(), autocast(device, dtype):
        for images, batch_labels in processes.share(dataloader):
            outputs = _main(ready(to_device(images, device))).float().cpu()
            logits.append(processes.gather(outputs))
            labels.append(processes.gather(batch_labels))
    return Predictions(torch.cat(logits), torch.cat(labels))


def extract_features(
    model: nn.Module,
    dataloader: DataLoader,
    device: torch.device | str | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> TensorDataset:
    """Run the frozen part of `model` once over the data; return what its trainable part takes in.

    The features, (N, ...) in float32, and labels (N,) are in the data set's own order. Raises
    cutting.CannotSplit where no part of the model is frozen, or the pictures are augmented.
    """
    device = torch.device(device or next(model.parameters()).device)
    model_to_device(model, device)
    trunk = cutting.split(model, training=False).trunk
    outputs = cutting.run_trunk(trunk, dataloader, device, dtype or pick_precision(device)).dataset
    values, labels = outputs[range(len(outputs))]
    return TensorDataset(*(value.float() for value in values), labels)


@dataclass(frozen=True)
class Evaluation:
    """One loader's result: mean loss, and `correct` of `total` examples."""

    loss: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


def evaluate(
    model: nn.Module,
    dataloader: DataLoader,
    device: torch.device | str | None = None,
    loss_fn: nn.Module | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Evaluation:
    """Measure a model on all examples of `dataloader`; the loss is cross-entropy by default."""
    predictions = predict(model, dataloader, device, dtype=dtype)
    loss = (loss_fn or nn.CrossEntropyLoss())(predictions.logits, predictions.labels)
    return Evaluation(loss.item(), predictions.correct, len(predictions.labels))


# --- all epochs ----------------------------------------------------------------------------------


def train(
    model: nn.Module,
    train_dataloader: DataLoader,
    val_dataloader: DataLoader | None = None,
    optimizer: Optimizer | None = None,
    loss_fn: nn.Module | None = None,
    epochs: int = 5,
    device: torch.device | str | None = None,
    *,
    test_dataloader: DataLoader | None = None,
    scheduler: LRScheduler | None = None,
    step_per_batch: bool | None = None,
    max_grad_norm: float | None = None,
    keep_best: str | None = None,
    patience: int | None = None,
    cache_frozen: bool = False,
    resume_from: str | Path | None = None,
    dtype: torch.dtype | None = None,
    verbose: bool = True,
) -> History:
    """Train `model` and look at the validation set after every epoch; return the history.

    `test_dataloader` is another name for `val_dataloader`, and its keys are then test_loss and
    test_acc: a loader that is looked at after every epoch is a validation set, whatever it is
    called, and its accuracy is no longer an honest estimate once a choice was made by it.

    `scheduler` is stepped once an epoch, or after every batch where `step_per_batch` is True (the
    default for OneCycleLR, CyclicLR and `warmup_cosine`).
    `keep_best` ("loss" or "acc") ends with the weights of the best epoch on the validation set;
    `patience` stops after that many epochs without an improvement.
    `cache_frozen` runs the frozen part of the model once over the data instead of in every epoch,
    where that is exact; where it is not, it says why and trains as usual.
    `resume_from` is a file that follows the run: after an interruption the same call goes on from
    the last finished epoch, as if nothing had happened.
    `dtype` is the precision; by default what `utils.pick_precision` chooses for the device.

    Raises FloatingPointError when the loss is no longer a finite number, and ValueError for
    options that contradict each other, or the run that `resume_from` is of.
    """
    watched, prefix = _watched_loader(val_dataloader, test_dataloader)
    if optimizer is None:
        raise ValueError("train needs an optimizer, such as torch.optim.Adam(parameters, lr=1e-3).")
    if (keep_best or patience) and watched is None:
        raise ValueError("keep_best and patience need a val_dataloader to judge the epochs by.")
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    device = torch.device(device or pick_device())
    dtype = dtype or pick_precision(device)
    model_to_device(model, device)
    if step_per_batch is None:
        step_per_batch = _is_stepped_per_batch(scheduler)
    if step_per_batch:
        _check_total_steps(scheduler, epochs * len(train_dataloader))

    about = {}
    if resume_from is not None:
        about = {
            "scheduler": type(scheduler).__name__,
            "precision": dtype,
            "number of epochs": epochs if step_per_batch else "not fixed",
            "keep_best": keep_best,
            "patience": patience,
            "max_grad_norm": max_grad_norm,
        } | resuming.describe(model, optimizer, loss_fn, train_dataloader, watched)
    part, eval_part = model, model
    if cache_frozen:
        try:
            part, eval_part, train_dataloader, watched = _run_frozen_once(
                model, train_dataloader, watched, device, dtype, verbose
            )
        except cutting.CannotSplit as reason:
            _say(f"Nothing to do only once: {reason}. The plain loop runs.", verbose)

    history = History(train_loss=[], train_acc=[])
    if watched is not None:
        history |= {f"{prefix}_loss": [], f"{prefix}_acc": []}
    history |= {"lr": [], "seconds": []}
    best = _Best(keep_best or "loss")
    scaler = _scaler(device, dtype)
    changing = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": scaler,
        "history": history,
        "best": best,
    }
    with resuming.follow(resume_from, changing, about, train_dataloader.generator) as run:
        _say(run.greeting(epochs), verbose)
        part = processes.parallel(part)
        train_dataloader = processes.share(train_dataloader)
        for epoch in run.epochs(epochs):
            if patience and epoch - 1 - best.epoch >= patience:
                _say(f"No improvement for {patience} epochs: stopping.", verbose)
                break
            start, lr, result = time.perf_counter(), _largest_lr(optimizer), {}
            result["train_loss"], result["train_acc"] = train_step(
                part,
                train_dataloader,
                loss_fn,
                optimizer,
                device,
                scheduler=scheduler if step_per_batch else None,
                max_grad_norm=max_grad_norm,
                dtype=dtype,
                scaler=scaler,
                epoch=epoch,
                progress=verbose,
            )
            if watched is not None:
                result[f"{prefix}_loss"], result[f"{prefix}_acc"] = test_step(
                    eval_part, watched, loss_fn, device, dtype=dtype
                )
            if scheduler is not None and not step_per_batch:
                _step_epoch(scheduler, result.get(f"{prefix}_loss", result["train_loss"]))

            result |= {"lr": lr, "seconds": time.perf_counter() - start}
            for key, value in result.items():
                history[key].append(value)
            _say(_line(epoch, epochs, result), verbose)
            if watched is not None:
                best.update(epoch, result, prefix, model if keep_best else None)

    model.eval()
    if watched is not None:
        history.best_epoch = best.epoch
    if keep_best:
        model.load_state_dict(best.state, strict=False)  # what is frozen is as it was
        _say(f"Kept the weights of epoch {best.epoch}.", verbose)
    return history


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LRScheduler:
    """Raise the learning rates linearly, then lower them along a cosine to zero, batch by batch.

    `total_steps` is epochs times batches an epoch. Source: https://arxiv.org/abs/1608.03983.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} should be in [0, {total_steps}).")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    scheduler = LambdaLR(optimizer, factor)
    scheduler.total_steps = total_steps  # as OneCycleLR has it: marks what is stepped per batch
    return scheduler


# --- helpers -------------------------------------------------------------------------------------


class _Best:
    """The best epoch so far by validation loss or accuracy, and the weights it ended with."""

    def __init__(self, quantity: str) -> None:
        if quantity not in ("loss", "acc"):
            raise ValueError(f'keep_best={quantity!r}: use "loss" or "acc".')
        self.quantity, self.score, self.epoch, self.state = quantity, -math.inf, 0, {}

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def update(
        self, epoch: int, result: dict[str, float], prefix: str, model: nn.Module | None
    ) -> None:
        value = result[f"{prefix}_{self.quantity}"]
        score = -value if self.quantity == "loss" else value
        if score > self.score:
            self.score, self.epoch = score, epoch
            if model is not None:
                self.state = copy.deepcopy(cutting.trained_state(model))


def _watched_loader(
    val_dataloader: DataLoader | None, test_dataloader: DataLoader | None
) -> tuple[DataLoader | None, str]:
    if test_dataloader is None:
        return val_dataloader, "val"
    if val_dataloader is not None:
        raise ValueError(
            "train looks at one loader after every epoch: give val_dataloader, and keep the test "
            "set for one call of evaluate() at the very end."
        )
    warnings.warn(
        "test_dataloader is looked at after every epoch, which makes it a validation set: choose "
        "by it, but keep other pictures for the final test.",
        stacklevel=3,
    )
    return test_dataloader, "test"


def _run_frozen_once(
    model: nn.Module,
    train_dataloader: DataLoader,
    watched: DataLoader | None,
    device: torch.device,
    dtype: torch.dtype,
    verbose: bool,
) -> tuple[nn.Module, nn.Module, DataLoader, DataLoader | None]:
    """Return what is left to train and to evaluate, and loaders of what the frozen part gave."""
    start = time.perf_counter()

    def run(trunk: nn.Module, dataloader: DataLoader) -> DataLoader:
        return cutting.run_trunk(
            trunk, dataloader, device, dtype, progress=lambda it: _bar(it, "frozen part", verbose)
        )

    split = cutting.split(model, training=False)
    eval_tail = split.tail
    if watched is not None:
        watched = run(split.trunk, watched)
    split = cutting.split(model, training=True)
    train_dataloader = run(split.trunk, train_dataloader)
    outputs = [loader.dataset for loader in (train_dataloader, watched) if loader is not None]
    images = sum(map(len, outputs))
    if all(output.reused for output in outputs):
        done = f"The frozen part's outputs for {images} images are those of an earlier run"
    else:
        done = f"The frozen part ran once over {images} images"
    files = "".join(f" Kept: {output.path}." for output in outputs if output.path)
    _say(
        f"{done} in {time.perf_counter() - start:.1f} s; the epochs below train the rest on its "
        f"outputs.{files}",
        verbose,
    )
    return split.tail, eval_tail, train_dataloader, watched


def _scaler(device: torch.device | str, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Return what keeps float16's small gradients from vanishing; idle in other formats."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=dtype == torch.float16)


def _main(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _loss(outputs: Any, labels: Tensor, loss_fn: nn.Module) -> Tensor:
    heads = [outputs] if isinstance(outputs, Tensor) else outputs
    logits, *auxiliary = (head for head in heads if head is not None)
    if not len(labels):  # another process has the last, small batch: no mean, but it takes part
        return sum(head.sum() for head in (logits, *auxiliary))
    if not auxiliary:
        return loss_fn(logits, labels)
    return loss_fn(logits, labels) + AUXILIARY_WEIGHT * sum(
        loss_fn(head, labels) for head in auxiliary
    )


def _largest_lr(optimizer: Optimizer) -> float:
    return max(group["lr"] for group in optimizer.param_groups)


def _is_stepped_per_batch(scheduler: LRScheduler | None) -> bool:
    return isinstance(scheduler, (OneCycleLR, CyclicLR)) or hasattr(scheduler, "total_steps")


def _check_total_steps(scheduler: LRScheduler | None, steps: int) -> None:
    planned = getattr(scheduler, "total_steps", steps)
    if planned != steps:
        raise ValueError(
            f"The {type(scheduler).__name__} was made for {planned} steps, but this run takes "
            f"{steps} (epochs x batches an epoch)."
        )


def _step_epoch(scheduler: LRScheduler, loss: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def _line(epoch: int, epochs: int, result: dict[str, float]) -> str:
    figures = "  ".join(
        f"{key} {value:.4f}" for key, value in result.items() if key.endswith(("_loss", "_acc"))
    )
    return f"epoch {epoch}/{epochs}  {figures}  {result['seconds']:.1f} s"


def _say(text: str, verbose: bool) -> None:
    if text and verbose and processes.is_main():
        print(text, flush=True)


def _bar(dataloader: DataLoader, name: str, show: bool) -> Any:
    """Wrap in a progress bar where somebody watches it."""
    if not show or not is_watched():
        return dataloader
    # A generator: of a loader itself, tqdm.auto makes one iterator more than it uses, which draws
    # from the loader's random numbers and starts its workers twice.
    batches = (batch for batch in dataloader)
    return tqdm(batches, desc=name, total=len(dataloader), leave=False, unit="batch")
