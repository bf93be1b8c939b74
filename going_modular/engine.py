"""The training loop: train, evaluate, predict.

It does not know where images come from or what kind of model it trains. Every metric sums over
examples and divides by examples, and what is frozen stays frozen.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from going_modular.training import checks, cutting, processes, resuming, trunk
from going_modular.training.fusing import fused
from going_modular.training.metrics import Best, Evaluation, History, Predictions, count_correct
from going_modular.training.reporting import epoch_line, progress_bar, say
from going_modular.utils import autocast, model_to_device, pick_device, pick_precision, to_device

LossFunction = Callable[[Tensor, Tensor], Tensor]  # a module of torch.nn, or any such function

# The weight of an auxiliary head's loss (Inception v3, GoogLeNet) beside that of the main head.
AUXILIARY_WEIGHT = 0.4


# --- one epoch -----------------------------------------------------------------------------------


def train_step(
    model: nn.Module,
    dataloader: DataLoader,
    loss_fn: LossFunction,
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

    `scheduler` is stepped after every step of the optimizer; `max_grad_norm` clips the gradients'
    joint norm; `scaler` carries float16's loss scale from one epoch to the next. With class weights
    the loss is the batches' weighted means, averaged by their numbers of examples.

    Raises FloatingPointError, before the weights change, when the loss or a gradient is no longer
    a finite number. (In float16 the scaler leaves such steps out; the error comes when no step of
    the epoch is left.) Raises ValueError for labels, a loss or an optimizer that do not fit the
    model.
    """
    dtype = dtype or pick_precision(device)
    scaler = scaler or _scaler(device, dtype)
    checks.check_optimizer(optimizer, model, loss_fn)
    cutting.set_train_mode(model)
    total_loss, total_correct, examples, steps = 0.0, 0, 0, 0
    batches = progress_bar(processes.share(dataloader), f"epoch {epoch}", progress)
    for batch, (images, labels) in enumerate(batches, start=1):
        images, labels = to_device(images, device), to_device(labels, device)
        with autocast(device, dtype):
            outputs = model(images) if len(labels) > 1 else _outputs_of_one(model, images, batch)
            if outputs is None:
                continue
            loss = _loss(outputs, labels, loss_fn)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = _clip(model, max_grad_norm)
        correct = count_correct(_main(outputs), labels)
        # In one go: one wait for the GPU per batch.
        loss, norm, correct = torch.stack([loss.detach(), norm, correct]).tolist()

        overflows = scaler.is_enabled() and not math.isfinite(norm)
        if not math.isfinite(loss) or not (math.isfinite(norm) or overflows):
            raise FloatingPointError(
                f"The loss became {loss} and its gradient's norm {norm} in epoch {epoch}, batch "
                f"{batch}, at learning rate {_largest_lr(optimizer):g}: try a smaller one, or clip "
                "the gradients."
            )
        scaler.step(optimizer)  # unless the gradients overflow, which a smaller scale may mend
        scaler.update()
        if not overflows:
            steps += 1
            if scheduler is not None:
                scheduler.step()
        total_loss += loss * len(labels)
        total_correct += correct
        examples += len(labels)
    total_loss, total_correct, examples = processes.all_reduce(total_loss, total_correct, examples)
    checks.check_steps(steps, examples, epoch, scaler.get_scale())
    return total_loss / examples, total_correct / examples


def test_step(
    model: nn.Module,
    dataloader: DataLoader,
    loss_fn: LossFunction,
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[float, float]:
    """Measure loss and accuracy, averaged over all examples, without training."""
    result = evaluate(model, dataloader, device, loss_fn, dtype=dtype)
    return result.loss, result.accuracy


def evaluate(
    model: nn.Module,
    dataloader: DataLoader,
    device: torch.device | str | None = None,
    loss_fn: LossFunction | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Evaluation:
    """Measure a model on all examples of `dataloader`; the loss is cross-entropy by default."""
    device = device or next(model.parameters()).device
    predictions = predict(model, dataloader, device, dtype=dtype)
    with torch.inference_mode():
        logits, labels = (tensor.to(device) for tensor in predictions)
        loss = _loss(logits, labels, loss_fn or nn.CrossEntropyLoss())
    return Evaluation(loss.item(), predictions.correct, len(labels))


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
    model = fused(model.eval(), dtype)
    logits, labels = [], []
    with torch.inference_mode(), autocast(device, dtype):
        for images, batch_labels in processes.share(dataloader):
            outputs = _main(model(to_device(images, device))).float().cpu()
            logits.append(processes.gather(outputs))
            labels.append(processes.gather(batch_labels))
    if not labels:
        raise ValueError(checks.NO_BATCH)
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
    cutting.CannotCut where no part of the model is frozen, or the images are augmented.
    """
    device = torch.device(device or next(model.parameters()).device)
    model_to_device(model, device)
    frozen = cutting.cut(model, training=False).trunk
    outputs = trunk.run_trunk(frozen, dataloader, device, dtype or pick_precision(device)).dataset
    values, labels = outputs[range(len(outputs))]
    return TensorDataset(*(value.float() for value in values), labels)


# --- all epochs ----------------------------------------------------------------------------------


def train(
    model: nn.Module,
    train_dataloader: DataLoader,
    val_dataloader: DataLoader | None = None,
    optimizer: Optimizer | None = None,
    loss_fn: LossFunction | None = None,
    epochs: int = 5,
    device: torch.device | str | None = None,
    *,
    test_dataloader: DataLoader | None = None,
    scheduler: LRScheduler | None = None,
    max_grad_norm: float | None = None,
    keep_best: str | None = None,
    patience: int | None = None,
    cache_frozen: bool = False,
    resume_from: str | Path | None = None,
    after_epoch: Callable[[int, nn.Module, History], None] | None = None,
    dtype: torch.dtype | None = None,
    verbose: bool = True,
) -> History:
    """Train `model` and look at the validation set after every epoch; return the history.

    Only `val_dataloader` and what follows `optimizer` may be left out.

    `test_dataloader` is another name for `val_dataloader`; its keys are then test_loss and
    test_acc. A loader that is looked at after every epoch is a validation set, whatever its name:
    once it has decided a choice, its accuracy is no longer an honest estimate.

    `scheduler` is stepped once per epoch, or once per batch if it has `total_steps`, as OneCycleLR
    and `warmup_cosine` do, or is a CyclicLR.
    `keep_best` ("loss" or "acc") ends with the weights of the best epoch on the validation set;
    `patience` stops after that many epochs without an improvement.
    `cache_frozen` runs the frozen part of the model once over the data instead of in every epoch,
    where that is exact; where it is not, it says why and trains as usual.
    `resume_from` is a file to which the run's state is saved after every epoch: after an
    interruption the same call continues from it, as if nothing had happened.
    `dtype` is the precision; by default what `utils.pick_precision` chooses for the device.
    `after_epoch` is called with each epoch's number, the model and the history so far:

        writer = torch.utils.tensorboard.SummaryWriter()
        after_epoch=lambda epoch, _, h: writer.add_scalar("val_acc", h["val_acc"][-1], epoch)

    Raises FloatingPointError where `train_step` does, or where no epoch's validation loss is a
    finite number that `keep_best` could go by, and ValueError for options that contradict each
    other, or the run that `resume_from` is of.
    """
    watched, prefix = checks.watched_loader(val_dataloader, test_dataloader)
    checks.check_best(watched, keep_best, patience)
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    checks.check_optimizer(optimizer, model, loss_fn)
    per_batch = checks.is_stepped_per_batch(scheduler, optimizer, train_dataloader, epochs)
    device = torch.device(device or pick_device())
    dtype = dtype or pick_precision(device)
    model_to_device(model, device)
    history, best, scaler = History(), Best(keep_best), _scaler(device, dtype)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    parts |= {"history": history, "best": vars(best), "shuffling": train_dataloader.generator}
    about = {"keep_best": keep_best, "patience": patience, "max_grad_norm": max_grad_norm}
    about |= {"precision": dtype, "number of epochs": epochs if per_batch else None}
    if resume_from is not None:
        about |= resuming.describe(model, optimizer, scheduler, loss_fn, train_dataloader, watched)
    part = eval_part = model
    if cache_frozen:
        part, eval_part, train_dataloader, watched = trunk.run_once(
            model, train_dataloader, watched, device, dtype, verbose
        )
    options = {"scheduler": scheduler if per_batch else None, "max_grad_norm": max_grad_norm}
    options |= {"dtype": dtype, "scaler": scaler, "progress": verbose}

    with resuming.follow(resume_from, parts, about) as run:
        say(run.greeting(epochs), verbose)
        part, train_dataloader = processes.parallel(part), processes.share(train_dataloader)
        for epoch in range(run.epoch, epochs + 1):
            if patience and epoch - 1 - best.epoch >= patience:
                say(f"No improvement for {patience} epochs: stopping.", verbose)
                break
            start, lr = time.perf_counter(), _largest_lr(optimizer)
            loss, accuracy = train_step(
                part, train_dataloader, loss_fn, optimizer, device, epoch=epoch, **options
            )
            row = {"train_loss": loss, "train_acc": accuracy}
            if watched is not None:
                loss, accuracy = test_step(eval_part, watched, loss_fn, device, dtype=dtype)
                row |= {f"{prefix}_loss": loss, f"{prefix}_acc": accuracy}
                best.update(epoch, loss, accuracy, model)
            if not per_batch:
                _step_epoch(scheduler, loss, accuracy)
            row |= {"lr": lr, "seconds": time.perf_counter() - start}
            for key, value in row.items():
                history.setdefault(key, []).append(value)
            run.finish_epoch()
            if after_epoch is not None:
                after_epoch(epoch, model, history)
            say(epoch_line(epoch, epochs, row), verbose)
    _finish(model, history, best, verbose)
    return history


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LRScheduler:
    """Raise the learning rates linearly, then lower them along a cosine to zero, batch by batch.

    `total_steps` is epochs times batches per epoch. Source: https://arxiv.org/abs/1608.03983.
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


def _scaler(device: torch.device | str, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Return what keeps float16's small gradients from vanishing; idle in other formats."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=dtype == torch.float16)


def _outputs_of_one(model: nn.Module, images: Any, batch: int) -> Any:
    """Return a model's outputs for one image, or None where a BatchNorm cannot train on it."""
    before = copy.deepcopy(list(model.buffers()))
    try:
        return model(images)
    except ValueError as error:
        checks.check_batch_of_one(error, batch)
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)  # some BatchNorms may have counted the batch
    return None


def _main(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _loss(outputs: Any, labels: Tensor, loss_fn: LossFunction) -> Tensor:
    """Return the batch's mean loss, that of auxiliary heads added."""
    if getattr(loss_fn, "reduction", "mean") not in ("mean", "batchmean"):
        raise ValueError(f'The loss has reduction="{loss_fn.reduction}": use "mean".')
    if isinstance(loss_fn, nn.Module):
        loss_fn.to(labels.device)  # its class weights
    heads = [outputs] if isinstance(outputs, Tensor) else outputs
    logits, *auxiliary = (head for head in heads if head is not None)
    if not len(labels):  # another process has the last, small batch: no mean, but it takes part
        return sum(head.sum() for head in (logits, *auxiliary))
    loss = loss_fn(logits, labels)
    if loss.ndim:
        raise ValueError(f"The loss has shape {tuple(loss.shape)}: it should be the batch's mean.")
    return loss + AUXILIARY_WEIGHT * sum(loss_fn(head, labels) for head in auxiliary)


def _clip(model: nn.Module, max_grad_norm: float | None) -> Tensor:
    """Return the joint norm of all gradients, and scale them down to `max_grad_norm`."""
    # What is frozen may still have the gradients of an earlier run.
    trained = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained])
    if max_grad_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
    return norm


def _largest_lr(optimizer: Optimizer) -> float:
    return max(group["lr"] for group in optimizer.param_groups)


def _step_epoch(scheduler: LRScheduler | None, loss: float, accuracy: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(accuracy if scheduler.mode == "max" else loss)
    elif scheduler is not None:
        scheduler.step()


def _finish(model: nn.Module, history: History, best: Best, verbose: bool) -> None:
    model.eval()
    history.best_epoch = best.epoch or None
    if best.quantity and history:
        if not best.epoch:
            raise FloatingPointError(
                "keep_best has nothing to keep: the validation loss was not a finite number in any "
                "epoch. Look at the model's outputs in eval mode."
            )
        model.load_state_dict(best.weights, strict=False)  # what is frozen is as it was
        say(f"Kept the weights of epoch {best.epoch}.", verbose)
