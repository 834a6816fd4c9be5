"""The settings of a training. Imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config, one_of
from groundup.training.batch_ramp import BatchRamp
from groundup.training.early_stopping import EarlyStoppingConfig
from groundup.training.ema import EMAConfig
from groundup.training.optimizers.config import AdamWConfig, OptimizerConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.schedules import Cosine, ScheduleConfig

if TYPE_CHECKING:  # for a type checker the members are their base
    from groundup.training.optimizers.config import OptimizerConfig as AnyOptimizer
    from groundup.training.schedules import ScheduleConfig as AnySchedule
else:
    AnyOptimizer = one_of(OptimizerConfig)
    AnySchedule = one_of(ScheduleConfig)


class NonFiniteConfig(Config):
    """What happens when a loss or gradient is NaN or infinite, or a loss a spike. Weights and optimizer state never
    take part in such a step.
    """

    policy: Literal["skip", "stop"] = "skip"
    """Leave the step out and go on, or stop with exit code 4."""
    patience: int = Field(default=10, ge=1)
    """Skipped steps in a row after which `then` happens (the scale search of fp16 may need several)."""
    spike: float | None = Field(default=100.0, gt=1)
    """A loss above so many times the median of the last 101 good steps is treated in the same way; None takes every
    finite loss. It acts from the eleventh step on, and on losses above 1 only."""
    then: Literal["rollback", "stop"] = "rollback"
    """Go back to the last checkpoint's weights and on with the data that follows, or stop. A second time without a
    good step in between stops."""


class TrainingConfig(Config):
    """How long, how fast, how exactly, and what is kept."""

    steps: int | None = Field(default=None, ge=1)
    """Updates. The first of `steps`, `tokens` and `epochs` to be reached ends the training; the schedule spans it."""
    tokens: int | None = Field(default=None, ge=1)
    """Input tokens."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data; needs data that knows its size."""

    batch_size: int = Field(default=32, ge=1)
    """Rows (sequences) of one update, over all ranks and micro-batches."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows in one forward pass of one rank: less needs less memory and gives the same gradient. None takes the whole
    share of a rank, and halves it where the device's memory does not suffice."""
    batch_ramp: BatchRamp | None = None
    """Begin with smaller batches."""

    optimizer: AnyOptimizer = AdamWConfig()
    """Rule and peak learning rate."""
    schedule: AnySchedule = Cosine(warmup_steps=100)
    """Learning rate over the steps."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest global norm of the gradient; None does not clip."""
    precision: PrecisionConfig = PrecisionConfig()
    """Number format."""
    ema: EMAConfig | None = None
    """Keep a moving average of the weights beside them."""
    activation_checkpointing: bool = False
    """Keep only each block's input in the forward pass and compute the rest again in the backward pass (Chen et al.
    2016)."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile the model's blocks; runs uncompiled where no compiler is found. auto: on CPUs, for trainings of at
    least 200 steps. With dropout, compiled and uncompiled steps draw other random numbers."""
    kernels: bool = True
    """On CPUs, train with faster forms of attention, GELU and RMSNorm, equal to rounding."""
    nonfinite: NonFiniteConfig = NonFiniteConfig()
    """NaN and infinity."""
    early_stopping: EarlyStoppingConfig | None = None
    """End when the validation loss no longer falls."""

    log_every: int = Field(default=1, ge=1)
    """Steps between two lines of metrics.jsonl."""
    evaluate_every: int = Field(default=100, ge=1)
    """Steps between two evaluations."""
    sample_every: int = Field(default=500, ge=1)
    """Steps between two generated samples."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between two checkpoints; the last step has one too."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints to keep, besides the one with the best validation loss."""

    out_dir: Path | None = None
    """The run folder; None makes runs/<date>."""
    resume: str = "auto"
    """auto: go on where `out_dir` stopped, if it holds a run; none: refuse a folder that holds one; a path: begin at
    this checkpoint (or the newest one of this run)."""
    seed: int = Field(default=0, ge=0)
    """Of everything random in training."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds after which a rank that does not answer counts as lost."""
    peak_flops: float | None = Field(default=None, gt=0)
    """Operations per second that count as full use of one rank's device; None measures a matrix product at the
    start."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "TrainingConfig":
        if self.steps is None and self.tokens is None and self.epochs is None:
            raise ValueError("give `steps`, `tokens` or `epochs`: how long to train")
        return self
