"""Optimizers as settings: `AdamWConfig(lr=3e-4).build(model.named_parameters())`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config

if TYPE_CHECKING:
    from torch.nn import Parameter

    from groundup.training.optimizers.base import Optimizer

    NamedParameters = Iterable[tuple[str, Parameter]]

Betas = tuple[float, float]


class OptimizerConfig(Config):
    """What all optimizers share. Weight decay reaches matrices only (see `groups.py`)."""

    lr: float = Field(default=1e-3, ge=0)
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of matrices; biases, gains and other vectors never decay."""
    decay_embeddings: bool = True
    """Whether embedding tables decay too, as in GPT-2's and GPT-3's rule that every matrix does."""
    layer_factor: float | None = Field(default=None, ge=1)
    """Discriminative learning rates: each block's rate is that of the block above it divided by this (Howard & Ruder
    2018: 2.6). None gives all tensors the same."""
    flat: bool = True
    """Keep weights, gradients and state in flat buffers (fast); off for tensors sharded over devices."""

    def build(self, named_parameters: NamedParameters, *, lora_plus: Mapping[str, float] | None = None) -> Optimizer:
        """The optimizer over those parameters that require a gradient; it takes over their storage when `flat`.

        `lora_plus`: adapter -> how many times faster its matrices B learn (`optimizers.lora_plus`).
        """
        from groundup.training.optimizers.groups import decay_groups

        groups = decay_groups(named_parameters, self.weight_decay, decay_embeddings=self.decay_embeddings)
        return self._make(self._parted(groups, lora_plus))

    def _parted(self, groups: list[dict[str, Any]], lora_plus: Mapping[str, float] | None) -> list[dict[str, Any]]:
        """The groups with learning rates for layers, and for LoRA's matrices, as the settings say."""
        from groundup.training.optimizers.groups import layer_groups
        from groundup.training.optimizers.lora_plus import lora_plus_groups

        if self.layer_factor is not None:
            groups = layer_groups(groups, self.lr, self.layer_factor)
        return lora_plus_groups(groups, self.lr, lora_plus) if lora_plus else groups

    def _make(self, groups: list[dict[str, Any]]) -> Optimizer:
        raise NotImplementedError


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's variant (Sutskever et al. 2013)."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, ge=0)
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty on matrices, added to the gradient."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last velocity that is kept; 0 is plain SGD and holds no state."""
    nesterov: bool = False
    """Look ahead along the velocity."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGDConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self

    def _make(self, groups: list[dict[str, Any]]) -> Optimizer:
        from groundup.training.optimizers.sgd import SGD

        return SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, flat=self.flat)


class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba 2015); weight decay is an L2 penalty inside the gradient."""

    kind: Literal["adam"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty on matrices, added to the gradient."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running mean of the gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the mean square."""

    def _make(self, groups: list[dict[str, Any]]) -> Optimizer:
        from groundup.training.optimizers.adam import Adam

        return Adam(groups, lr=self.lr, betas=self.betas, eps=self.eps, flat=self.flat)


class AdamWConfig(OptimizerConfig):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019): the default for transformers."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=3e-4, ge=0)
    """Peak learning rate; the schedule multiplies it."""
    betas: Betas = (0.9, 0.95)
    """Decay of the running mean of the gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the mean square."""
    paged: bool = False
    """Keep the state in a file mapped into memory, which the system may write out when memory runs short (QLoRA). CPU
    only; its folder is that for temporary files (TMPDIR)."""

    def _make(self, groups: list[dict[str, Any]]) -> Optimizer:
        from groundup.training.optimizers.adam import AdamW

        return AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, flat=self.flat, paged=self.paged)


class AdaFactorConfig(OptimizerConfig):
    """AdaFactor (Shazeer and Stern 2018): the mean square of an m x n matrix is kept as m + n numbers."""

    kind: Literal["adafactor"] = "adafactor"
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of matrices, apart from the gradient."""
    relative_step: bool = False
    """Step size min(1e-2, 1/sqrt(t)) of the paper, times `lr` (give lr: 1)."""
    warmup_init: bool = False
    """With relative_step: begin at 1e-6 t in place of 1e-2."""
    scale_parameter: bool = False
    """Multiply the step by the root mean square of the tensor itself."""
    beta1: float | None = None
    """Momentum; None keeps none, as in the paper's large runs."""
    decay_rate: float = Field(default=-0.8, lt=0)
    """The mean square's decay at step t is 1 - t^decay_rate."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """Largest root mean square of one tensor's update before the learning rate."""

    @model_validator(mode="after")
    def _relative_step_is_explicit(self) -> AdaFactorConfig:
        if self.relative_step and "lr" not in self.model_fields_set:
            raise ValueError("relative_step multiplies `lr` with min(1e-2, 1/sqrt(t)): also give lr (1 in the paper)")
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init needs relative_step")
        return self

    def _make(self, groups: list[dict[str, Any]]) -> Optimizer:
        from groundup.training.optimizers.adafactor import AdaFactor

        return AdaFactor(
            groups,
            lr=self.lr,
            relative_step=self.relative_step,
            warmup_init=self.warmup_init,
            scale_parameter=self.scale_parameter,
            beta1=self.beta1,
            decay_rate=self.decay_rate,
            clip_threshold=self.clip_threshold,
            flat=self.flat,
        )


class MuonConfig(OptimizerConfig):
    """Muon (Jordan et al. 2024): orthogonalised momentum for hidden matrices; AdamW for all other tensors."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(default=1e-3, ge=0)
    """Peak learning rate of both; with scale `match_rms_adamw` a value made for AdamW fits both."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Share of the last velocity that is kept."""
    nesterov: bool = True
    """Look ahead along the velocity."""
    scale: Literal["original", "match_rms_adamw"] = "match_rms_adamw"
    """Step by shape (A, B): sqrt(max(1, A/B)), or 0.2 sqrt(max(A, B)), which gives AdamW's usual update size."""
    newton_schulz_steps: int = Field(default=5, ge=1, le=20)
    """Rounds of the iteration that makes the update orthogonal."""
    betas: Betas = (0.9, 0.95)
    """AdamW's betas for the other tensors."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's eps for the other tensors."""

    def build(self, named_parameters: NamedParameters, *, lora_plus: Mapping[str, float] | None = None) -> Optimizer:
        """Muon over hidden matrices, AdamW over embeddings, output head, biases and norms."""
        from groundup.training.optimizers.groups import decay_groups, is_embedding
        from groundup.training.optimizers.muon import Muon

        named = [(name, tensor) for name, tensor in named_parameters if tensor.requires_grad]
        matrices = [(n, p) for n, p in named if p.ndim == 2 and not is_embedding(n)]
        others = [(n, p) for n, p in named if p.ndim != 2 or is_embedding(n)]
        groups = [{"params": matrices, "weight_decay": self.weight_decay, "rule": "muon"}] if matrices else []
        if others:
            rest = decay_groups(others, self.weight_decay, decay_embeddings=self.decay_embeddings)
            groups += [{**group, "rule": "adamw"} for group in rest]
        return Muon(
            self._parted(groups, lora_plus),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            scale=self.scale,
            newton_schulz_steps=self.newton_schulz_steps,
            betas=self.betas,
            eps=self.eps,
            flat=self.flat,
        )
