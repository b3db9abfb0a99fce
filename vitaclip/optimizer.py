"""AdamW, its learning-rate schedule, and one exact optimizer step over micro-batches.

Shape legend: B clips of this worker, C classes (or color channels in ``BCTHW``), T frames, H and W
pixels, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from vitaclip.config import OptimizerConfig
from vitaclip.errors import NonFiniteLossError
from vitaclip.methods.video_model import VideoModel, is_clips_own

# Of the clips, the model's features of them, and of the classes: what is added to the mean loss.
Penalty = Callable[[Tensor, Tensor, Tensor], Tensor]


def build_optimizer(model: VideoModel, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over everything trainable, weight decay on all of it (released recipe). CLIP's own
    weights are a group with a learning rate of their own.
    """
    trainable = model.trainable()
    added = [parameter for name, parameter in trainable.items() if not is_clips_own(name)]
    clips_own = [parameter for name, parameter in trainable.items() if is_clips_own(name)]
    return torch.optim.AdamW(
        # As groups: of a model without trainable parameters they are empty.
        [
            {"params": added, "lr_scale": 1.0},
            {"params": clips_own, "lr_scale": config.clip_lr_scale},
        ],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        # One kernel instead of a dozen. On the CPU it would round otherwise.
        fused=model.device.type == "cuda" or None,
    )


def learning_rate(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """The learning rate of optimizer step ``step`` (0-based) of ``num_steps``: linear warm-up, then
    the schedule.

    It stays where it ended: a cosine would rise again past its last step.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def accumulate_gradients(
    model: VideoModel,
    video_BCTHW: Tensor,
    labels_B: Tensor,
    *,
    micro_batch_size: int | None,
    scaler: torch.amp.GradScaler | None = None,
    penalty: Penalty | None = None,
    weight: float = 1.0,
    before_last_backward: Callable[[], None] = lambda: None,
) -> Tensor:
    """Adds the gradient of the mean cross-entropy over the batch; returns that loss, detached.

    The text tower runs once, whatever the number of micro-batches: their gradients with respect to
    the text features are summed and sent back through it in one pass. That is the same gradient as
    one pass per micro-batch.

    Args:
        model: whose parameters get the gradient.
        video_BCTHW: the clips, as the model takes them.
        labels_B: their classes.
        micro_batch_size: how many clips pass through the model at once; None: all.
        scaler: scales the loss, where fp16 would lose small gradients.
        penalty: what is added to the loss before its gradient is taken; it is not in what is
            returned.
        weight: by how much the gradient is multiplied.
        before_last_backward: called when the last micro-batch's gradients, and then those of the
            texts, are all that is missing.
    """
    # micro-batches' gradients add up in full precision
    text_CE = model.encode_classes().to(model.logit_scale.dtype)
    text_leaf_CE = text_CE.detach().requires_grad_(text_CE.requires_grad)
    total = torch.zeros((), device=video_BCTHW.device)
    size = micro_batch_size or len(labels_B)
    num_left = len(labels_B)
    for video, labels in zip(video_BCTHW.split(size), labels_B.split(size), strict=True):
        features = model.encode_video(video)
        logits = model.logits(features, text_leaf_CE)
        loss = F.cross_entropy(logits, labels, reduction="sum") / len(labels_B)
        total += loss.detach()
        if penalty is not None:
            loss = loss + penalty(video, features, text_leaf_CE) * len(labels) / len(labels_B)
        loss = loss * weight
        num_left -= len(labels)
        if num_left == 0:
            before_last_backward()
        (scaler.scale(loss) if scaler else loss).backward()
    if text_leaf_CE.grad is not None:
        text_CE.backward(text_leaf_CE.grad)
    return total


def apply_gradients(
    parameters: Iterable[nn.Parameter],
    optimizer: torch.optim.AdamW,
    config: OptimizerConfig,
    *,
    lr: float,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """One AdamW step at the given learning rate, with gradient clipping if configured; gradients
    are cleared.

    Args:
        parameters: what is trained.
        optimizer: theirs.
        config: says whether, and to which norm, gradients are clipped.
        lr: the learning rate of this step, before the scale of CLIP's own weights.
        scaler: the one that scaled the loss.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    if scaler:
        scaler.unscale_(optimizer)
    if config.clip_grad_norm is not None:
        clip_grad_norm_(parameters, config.clip_grad_norm)
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch found no memory for a tensor, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def check_finite(loss: float, step: int) -> None:
    """Raises NonFiniteLossError if the loss is NaN or infinite; training on would only waste
    time.
    """
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"step {step}: the loss is {loss}; lower optimizer.lr or set optimizer.clip_grad_norm"
        )
