"""Cross-entropy of an output head without all logits in memory.

For N tokens and V words the logits are N x V numbers, in training the largest tensor of a small model by far, and as
many again for their gradient. Both are only needed a few rows at a time: the gradient of a sum of cross-entropies with
respect to the logits is known as soon as the logits are,

    d loss / d logits = softmax(logits) - onehot(label)

so the forward pass makes a chunk of logits, takes loss and gradients from it, and drops it. Nothing is computed twice.
The memory goes from 2 N V to 2 chunk V plus one gradient of the head's matrix.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORED = -100
FUSED = "loss_and_gradient"
"""Name of a head's attribute that may hold a compiled `loss_and_gradient`."""


def chunked_cross_entropy(
    hidden: Tensor,
    lm_head: nn.Module,
    labels: Tensor,
    chunk: int = 1024,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    accuracy: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of `lm_head(hidden)` against `labels`.

    Args:
        hidden: (..., D) vectors.
        lm_head: from D to V logits. What computes as `nn.Linear` does takes the path described above; any other module
            is run chunk by chunk and computed again in the backward pass.
        labels: (...) int64; -100 is left out.
        chunk: tokens whose logits exist at one time.
        label_smoothing: share of the target spread evenly over all V words.
        z_loss: weight of log(Z)^2, with Z the sum of exp(logits).
        accuracy: whether to count right first guesses (a pass over the logits more).

    Returns:
        (sum of losses, number of labelled tokens, number of labelled tokens whose largest logit is the label, 0 unless
        `accuracy`): scalars, the loss in fp32.
    """
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    chosen = labels != IGNORED
    weight = chosen.sum()
    if not bool(chosen.all()):
        hidden, labels = hidden[chosen], labels[chosen]
    if type(lm_head).forward is nn.Linear.forward:
        loss, right = _LinearCrossEntropy.apply(
            hidden, lm_head.weight, lm_head.bias, labels, chunk, label_smoothing, z_loss, accuracy,
            torch.is_grad_enabled(), vars(lm_head).get(FUSED, loss_and_gradient),
        )  # fmt: skip
    else:
        loss, right = _by_recomputation(hidden, lm_head, labels, chunk, label_smoothing, z_loss, accuracy)
    return loss, weight, right


def token_losses(logits: Tensor, labels: Tensor, smoothing: float, z_loss: float) -> tuple[Tensor, Tensor]:
    """(N, V) fp32 logits, (N,) -> losses (N,), log Z (N,)."""
    log_z = logits.logsumexp(-1)
    losses = log_z - logits.gather(-1, labels[:, None])[:, 0]
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * (log_z - logits.mean(-1))
    if z_loss:
        losses = losses + z_loss * log_z.square()
    return losses, log_z


def loss_and_gradient(logits: Tensor, labels: Tensor, smoothing: float, z_loss: float) -> tuple[Tensor, Tensor]:
    """(N, V), (N,) -> the sum of the losses, at least fp32, and its gradient (N, V) in the dtype of the logits.

    d loss / d logits = (1 + 2 z log Z) softmax - (1 - s) onehot - s / V
    """
    dtype, words = logits.dtype, logits.shape[1]
    logits = logits.to(torch.promote_types(dtype, torch.float32))
    losses, log_z = token_losses(logits, labels, smoothing, z_loss)
    gradient = (logits - log_z[:, None]).exp_()
    if z_loss:
        gradient *= (1 + 2 * z_loss * log_z)[:, None]
    if smoothing:
        gradient -= smoothing / words
    if torch.compiler.is_compiling():  # a comparison is fused with the rest; a scattered write is not
        onehot = torch.arange(words, device=labels.device) == labels[:, None]
        gradient = torch.where(onehot, gradient - (1 - smoothing), gradient)
    else:
        gradient[torch.arange(len(labels), device=labels.device), labels] -= 1 - smoothing
    return losses.sum(), gradient.to(dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made in the forward pass and scaled by the incoming one in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # (N, D)
        weight: Tensor,  # (V, D)
        bias: Tensor | None,  # (V,)
        labels: Tensor,  # (N,)
        chunk: int,
        smoothing: float,
        z_loss: float,
        accuracy: bool,
        grad_enabled: bool,
        loss_and_gradient: Callable[..., tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_bias = (grad_enabled and need for need in ctx.needs_input_grad[:3])
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        right = torch.zeros((), dtype=torch.int64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # Summed in fp32 (fp64 for fp64 weights) whatever the weight's dtype: a frequent word gets many small terms.
        summed = torch.promote_types(weight.dtype, torch.float32)
        # (a single chunk has no sum to make: the product itself is rounded once).
        several = len(hidden) > chunk
        grad_weight = torch.zeros_like(weight, dtype=summed) if need_weight and several else None
        grad_bias = torch.zeros_like(bias, dtype=summed) if need_bias and bias is not None else None
        if hidden.dtype == torch.float64:
            total = total.double()

        for start in range(0, len(hidden), chunk):
            part, target = hidden[start : start + chunk], labels[start : start + chunk]
            logits = F.linear(part, weight, bias)  # (n, V)
            if accuracy:
                right += (logits.argmax(-1) == target).sum()
            if not (need_hidden or need_weight or need_bias):
                total += token_losses(logits.to(summed), target, smoothing, z_loss)[0].sum()
                continue
            loss, grad = loss_and_gradient(logits, target, smoothing, z_loss)
            total += loss
            if grad_bias is not None:
                grad_bias += grad.sum(0, dtype=summed)
            if grad_hidden is not None:
                grad_hidden[start : start + chunk] = grad @ weight.to(grad.dtype)
            if need_weight:
                product = grad.t() @ part.to(grad.dtype)
                grad_weight = product if grad_weight is None else grad_weight.add_(product)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        upstream = outputs[0]
        # A factor of 1 costs a pass over a large matrix; asking a GPU for it would cost a wait.
        whole = upstream.device.type == "cpu" and float(upstream) == 1.0
        scaled = (
            None if grad is None else (grad if whole else grad * upstream).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return *scaled, None, None, None, None, None, None, None


def _by_recomputation(
    hidden: Tensor, lm_head: nn.Module, labels: Tensor, chunk: int, smoothing: float, z_loss: float, accuracy: bool
) -> tuple[Tensor, Tensor]:
    def one(part: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = lm_head(part).float()
        losses, _ = token_losses(logits, target, smoothing, z_loss)
        right = (logits.argmax(-1) == target).sum() if accuracy else torch.zeros_like(target[:0]).sum()
        return losses.sum(), right

    total = hidden.new_zeros((), dtype=torch.float32)
    right = labels.new_zeros(())
    for part, target in zip(hidden.split(chunk), labels.split(chunk), strict=True):
        loss, hits = checkpoint(one, part, target, use_reentrant=False)
        total, right = total + loss, right + hits
    return total, right
