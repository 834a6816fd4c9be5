"""What the loop works with: the parts of a training, where it stands, and how it is saved and resumed."""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.adapters.attach import adapters_of
from groundup.base.config import Config
from groundup.base.console import warn
from groundup.base.device import peak_memory, synchronize
from groundup.base.errors import CheckpointError, NotFiniteError, UsageError
from groundup.base.peak import peak_flops
from groundup.estimates.flops import training_flops_per_token, utilisation
from groundup.models.configs.base import ModelConfig
from groundup.training import checkpoint
from groundup.training.activation_checkpointing import checkpointed
from groundup.training.callbacks.callback import Callback
from groundup.training.callbacks.checkpoint import SaveCheckpoints
from groundup.training.callbacks.early_stopping import StopEarly
from groundup.training.callbacks.log import Log
from groundup.training.checkpoint import (
    Checkpoints,
    Saved,
    differences,
    kept_tensors,
    load_model_tensors,
    model_tensors,
)
from groundup.training.compilation import compiled
from groundup.training.config import TrainingConfig
from groundup.training.distributed import Workers
from groundup.training.feed import Feed
from groundup.training.kernels.install import accelerated
from groundup.training.objectives.objective import Batch, Objective
from groundup.training.random_state import random_state, seed_everything, seed_of, set_random_state
from groundup.training.run import Run
from groundup.training.signals import StopSignals
from groundup.training.spikes import LossSpikes
from groundup.training.step import Step, StepResult

STEPS_WORTH_COMPILING = 200
"""A training of so many steps gains more by compiled blocks than the ten seconds or so that they take."""


class Training:
    """A training in progress; callbacks get it as their argument.

    Attributes:
        step: updates made (or skipped) so far; tokens: input tokens so far.
        run, checkpoints, model, optimizer, ema, feed, objective, config, tokenizer, workers: its parts.
        total_steps: what the schedule spans.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        data: Iterable[Batch],
        config: TrainingConfig,
        callbacks: Sequence[Callback] = (),
        tokenizer: Any = None,
        settings: Any = None,
    ):
        self.model, self.objective, self.config, self.tokenizer = model, objective, config, tokenizer
        self._settings = settings if settings is not None else config
        self.device = next(model.parameters()).device
        self._open = contextlib.ExitStack()
        self.workers = Workers.start(self.device, config.timeout)
        self._open.callback(self.workers.stop)
        if config.out_dir is None and self.workers.size > 1:
            raise UsageError("several ranks need one run folder: give `out_dir`")
        self.run = Run(config.out_dir or Run.new_path())
        self.checkpoints = Checkpoints(self.run.checkpoints, config.keep)

        model_config = getattr(model, "config", None)
        self.feed = Feed(data, getattr(model_config, "vocab_size", None))
        self._check_batch_size()
        self.precision = config.precision.resolved(self.device.type)
        model.to(self.precision.parameter_dtype())
        self.workers.broadcast_(list(model_tensors(model).values()))
        self.optimizer = config.optimizer.build(model.named_parameters(), lora_plus=lora_plus_ratios(model))
        self.ema = config.ema.build(self.optimizer.masters()) if config.ema else None
        self._step = Step(
            model, model, objective, self.optimizer, self.precision, self.workers,
            micro_batch_size=config.micro_batch_size, clip=config.clip, ema=self.ema,
        )  # fmt: skip
        self._spikes = LossSpikes(config.nonfinite.spike)
        self._callbacks = self._choose_callbacks(callbacks)

        self.step = self.tokens = self._width = 0
        self.total_steps = config.steps or 0
        self.best_step: int | None = None
        self.stop_reason = ""
        self.signal = 0
        self._first_step = self._skipped_in_a_row = 0
        self._rolled_back = False  # and no good step since then
        self._elapsed_before, self._started, self._last_time, self._last_tokens = 0.0, time.perf_counter(), 0.0, 0

    def _choose_callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        if not self.workers.first:
            return []
        early = [StopEarly(self.config.early_stopping)] if self.config.early_stopping else []
        # Checkpoints come last, so that what the others wrote at this step is covered.
        return [Log(), *given, *early, SaveCheckpoints()]

    def _check_batch_size(self) -> None:
        share = self.workers.size * self.objective.rows_together
        if self.config.batch_size % share:
            raise UsageError(
                f"batch_size {self.config.batch_size} cannot be shared by {self.workers.size} ranks in groups of "
                f"{self.objective.rows_together}: make it a multiple of {share}"
            )
        if self.feed.shards not in (1, self.workers.size):
            raise UsageError(f"the loader was made for {self.feed.shards} ranks, there are {self.workers.size}")

    # -- begin and end ------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Training":
        self._signals = self._open.enter_context(StopSignals())
        return self

    def __exit__(self, *error: Any) -> None:
        for callback in self._callbacks if error[0] is not None else ():
            callback.on_error(self)
        self._open.close()

    def start(self) -> None:
        """Seed, resume or begin the run folder, look at the first batch, tell the callbacks."""
        seed_everything(seed_of(self.config.seed, self.workers.rank))
        saved = self._find_checkpoint()
        if self.workers.first:
            self.run.begin(self._settings, self.config.seed)
        for callback in self._callbacks:
            callback.on_load(self)
        if saved is not None:
            self._restore(saved)
        elif self.workers.first:
            self.run.rewind({})
        self._started, self._first_step = time.perf_counter(), self.step
        self._look_ahead()
        self._speed_up()
        self._measure_peak()
        self.model.train()
        for callback in self._callbacks:
            callback.on_start(self)

    def _speed_up(self) -> None:
        """Kernels, compiled blocks, activation checkpointing: until the training ends."""
        on_cpu = self.device.type == "cpu"
        wanted = self.config.compile
        if wanted == "auto":
            wanted = on_cpu and self.total_steps >= STEPS_WORTH_COMPILING
        self._step.forward = compiled(self.model, wanted)
        kernels = self.config.kernels and on_cpu
        self._open.enter_context(accelerated(self.model, kernels, compiled=self._step.forward is not self.model))
        self._open.enter_context(checkpointed(self.model, self.config.activation_checkpointing))

    def _measure_peak(self) -> None:
        """What `utilisation` is a fraction of; models whose operations cannot be counted have none."""
        shape = getattr(self.model, "config", None)
        self._peak = self._flops_per_token = 0.0
        if self.workers.first and isinstance(shape, ModelConfig):
            self._flops_per_token = training_flops_per_token(shape, self._width, learning_share(self.model))
            peak = self.config.peak_flops or peak_flops(self.device.type, self.precision.dtype)
            self._peak = peak * self.workers.size

    def _look_ahead(self) -> None:
        """Learn the rows' width from the first batch and with it how many steps there will be."""
        self._width = self.feed.width(self.config.batch_size)
        limits = [self.config.steps] if self.config.steps else []
        if self.config.tokens:
            limits.append(math.ceil(self.config.tokens / (self.config.batch_size * self._width)))
        if self.config.epochs:
            rows = self.feed.rows_in_epoch
            if rows is None and not limits:
                raise UsageError("`epochs` needs data that knows its size: give `steps` or `tokens`")
            if rows is not None:
                limits.append(math.ceil(self.config.epochs * rows / self.config.batch_size))
        self.total_steps = max(1, min(limits))

    def ended(self) -> bool:
        """Whether it is time to stop, agreed on by all ranks."""
        if not self.stop_reason and self._past_the_end():
            self.stop_reason = "finished"
        signal, stop = self._signals.requested, float(bool(self.stop_reason))
        if self.workers.size > 1:
            counts = self.workers.sum([float(signal == 15), float(signal == 2), stop])
            signal = 15 if counts[0] else 2 if counts[1] else 0
            stop = counts[2]
        if signal:
            self.signal, self.stop_reason = signal, f"signal {signal}"
        elif stop and not self.stop_reason:
            self.stop_reason = "stopped by the first rank"
        return bool(self.stop_reason)

    def _past_the_end(self) -> bool:
        by_tokens = self.config.tokens is not None and self.tokens >= self.config.tokens
        by_epochs = self.config.epochs is not None and (
            self.feed.epoch >= self.config.epochs or (not self.config.batch_ramp and self.step >= self.total_steps)
        )
        return by_tokens or by_epochs or self.step >= (self.config.steps or math.inf)

    def stop(self, reason: str) -> None:
        """Ask the loop to end after this step."""
        self.stop_reason = self.stop_reason or reason

    def end(self) -> None:
        """A last checkpoint and the stop event; callbacks' on_end."""
        for callback in self._callbacks:
            callback.on_end(self)
        self.log("stop", {"reason": self.stop_reason})
        for callback in self._callbacks:
            callback.on_close(self)
        self.workers.wait()
        self.model.eval()

    def farewell(self) -> str:
        """What a signal's end says."""
        return f"stopped by signal {self.signal} after step {self.step}; the same command goes on from {self.run.path}"

    # -- one step -----------------------------------------------------------------------------------------------------

    def next_batch(self) -> Batch:
        """This rank's rows of the next step."""
        rows = self.rows_of_step()
        batch = self.feed.take(rows)
        if self.feed.shards == 1:
            batch = self.workers.share(batch, self.objective.rows_together)
        return batch

    def rows_of_step(self) -> int:
        """Rows of the coming update over all ranks."""
        if self.config.batch_ramp is None:
            return self.config.batch_size
        unit = self._share_unit()
        full = self.config.batch_size // unit
        return unit * min(full, self.config.batch_ramp.micro_batches(self.tokens, full, unit * self._width))

    def _share_unit(self) -> int:
        return self.workers.size * self.objective.rows_together

    def set_rate(self) -> float:
        """Put the schedule's learning rate into the optimizer; the rate of the first group."""
        self.config.schedule.apply(self.optimizer, self.step, self.total_steps, self.tokens)
        return self.optimizer.param_groups[0]["lr"]

    def update(self, batch: Batch) -> StepResult:
        """One update. Its randomness (dropout) depends on seed, step and rank alone: evaluations do not disturb it."""
        torch.manual_seed(seed_of(self.config.seed, self.step, self.workers.rank))
        self._step.loss_limit = self._spikes.limit()
        result = self._step(batch)
        self.step += 1
        self.tokens += result.tokens
        return result

    def record(self, result: StepResult, rate: float) -> None:
        """Write the metrics of a good step."""
        self._spikes.observe(result.loss)
        self._skipped_in_a_row, self._rolled_back = 0, False
        if self.step % self.config.log_every and self.step != self.total_steps:
            return
        self.log("train", self._numbers(result) | {"lr": rate} | self._speed())

    def _numbers(self, result: StepResult) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            **result.metrics,
            "tokens": self.tokens,
            "epoch": self.feed.epoch,
            "trained_share": result.trained / result.tokens if result.tokens else 0.0,
        }
        if self.precision.dtype == "fp16":
            numbers["loss_scale"] = self._step.scaler.scale
        return numbers

    def _speed(self) -> dict[str, float]:
        synchronize(self.device)
        now = self.elapsed
        rate = (self.tokens - self._last_tokens) / max(now - self._last_time, 1e-9)
        self._last_time, self._last_tokens = now, self.tokens
        speed = {"tokens_per_second": rate}
        if self._peak:
            share = utilisation(rate, self._flops_per_token, self._peak)
            if share > 1:  # the peak was measured while other work had the processors
                self._measure_peak()
                share = min(1.0, utilisation(rate, self._flops_per_token, self._peak))
            speed["utilisation"] = share
        return speed | {"memory": peak_memory(self.device)}

    def skip(self, result: StepResult, batch: Batch) -> None:
        """A step that was not finite, or a spike: write it down, and do what the policy says."""
        self._skipped_in_a_row += 1
        sources = list(dict.fromkeys(self.workers.gather(list(batch.get("sources", [])))))
        self.log("skip", {"loss": result.loss, "grad_norm": result.grad_norm, "sources": sources})
        what = f"step {self.step}: loss {result.loss}, gradient norm {result.grad_norm}; documents: {_shorten(sources)}"
        if result.loss > self._step.loss_limit:
            what += f" (a spike: nonfinite.spike {self.config.nonfinite.spike:g} allows {self._step.loss_limit:g})"
        if self.config.nonfinite.policy == "stop":
            raise NotFiniteError(f"{what}. The weights are those of step {self.step - 1}; see nonfinite.policy")
        if self.workers.first:
            warn(f"left out {what}")
        if self._skipped_in_a_row >= self.config.nonfinite.patience:
            self._give_up(what)

    def _give_up(self, what: str) -> None:
        count = self._skipped_in_a_row
        latest = self.checkpoints.latest()
        if self.config.nonfinite.then == "stop" or latest is None:
            raise NotFiniteError(f"{count} steps in a row were not finite or spikes, the last at {what}")
        if self._rolled_back:
            raise NotFiniteError(
                f"{count} steps in a row were not finite or spikes again after going back to {latest}; {what}"
            )
        saved = checkpoint.load(latest)
        self._rolled_back, self._skipped_in_a_row = True, 0
        self._restore_tensors(saved)
        self._step.scaler.load_state_dict(saved.state["scaler"])
        self.log("rollback", {"to": saved.step})
        warn(
            f"{count} steps in a row were not finite or spikes: back to the weights of step {saved.step}, on with new "
            "data"
        )

    def after_step(self, result: StepResult) -> None:
        """Callbacks."""
        for callback in self._callbacks:
            callback.on_step(self, result)

    @property
    def callbacks(self) -> list[Callback]:
        """Those at work in this process."""
        return self._callbacks

    @property
    def healthy(self) -> bool:
        """Whether the last step was finite: a checkpoint worth going back to."""
        return self._skipped_in_a_row == 0 and not self._rolled_back

    @property
    def updates_here(self) -> int:
        """Steps since this process began (or resumed)."""
        return self.step - self._first_step

    @property
    def seconds_here(self) -> float:
        """Seconds since then."""
        return self.elapsed - self._elapsed_before

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[Any]:
        """The model in eval mode, with the moving average of its weights if there is one; put back afterwards."""
        synchronize(self.device)
        average = self.ema.swapped_in(self.model.named_parameters()) if self.ema else contextlib.nullcontext()
        self.model.eval()
        try:
            with average:
                yield self.model
        finally:
            self.model.train()

    # -- what is written ----------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._elapsed_before + time.perf_counter() - self._started

    def log(self, event: str, numbers: dict[str, Any]) -> None:
        """Add an event to metrics.jsonl and show it to the callbacks; the first rank's affair."""
        if not self.workers.first:
            return
        record = {"step": self.step, "event": event, "time": round(self.elapsed, 3), **numbers}
        self.run.append(record)
        for callback in self._callbacks:
            callback.on_log(self, record)

    def evaluated(self, numbers: dict[str, float]) -> None:
        """Note the result of an evaluation (`loss` is the validation loss) and tell the callbacks."""
        self.log("evaluate", numbers)
        for callback in self._callbacks:
            callback.on_evaluate(self, numbers)

    # -- saving and resuming ------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        tensors = {"model": kept_tensors(self.model), "optimizer": self.optimizer.state_tensors()}
        if self.ema is not None:
            tensors["ema"] = self.ema.state_tensors()
        return self.checkpoints.save(tensors, self._state(), self.best_step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.elapsed,
            "best_step": self.best_step,
            "skipped_in_a_row": self._skipped_in_a_row,
            "rolled_back": self._rolled_back,
            "recent_losses": self._spikes.state_dict(),
            "feed": self.feed.state_dict(),
            "scaler": self._step.scaler.state_dict(),
            "random": random_state(),
            "callbacks": {type(callback).__name__: callback.state_dict() for callback in self._callbacks},
            "identity": self._identity(),
            "config": self.config.model_dump(mode="json"),
            "sizes": self.run.sizes(),
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same to go on: the model's shape and the tokenizer."""
        model_config = getattr(self.model, "config", None)
        described = model_config.model_dump(mode="json") if isinstance(model_config, Config) else None
        return {
            "model": described,
            "tokenizer": self.tokenizer.fingerprint() if self.tokenizer is not None else None,
            "optimizer": self.config.optimizer.model_dump(mode="json")["kind"],
            "adapters": {
                name: config.model_dump(mode="json") for name, config in adapters_of(self.model).configs.items()
            },
        }

    def _find_checkpoint(self) -> Saved | None:
        resume = self.config.resume
        if resume in ("auto", "none"):
            exists = self.run.config_path.exists()
            self.workers.wait()  # before the first rank writes config.yaml
            if exists and resume == "none":
                raise UsageError(f"{self.run.path} holds a run already: choose another out_dir, or resume: auto")
            latest = self.checkpoints.latest()
            return checkpoint.load(latest) if latest else None
        path = Path(resume)
        if not path.is_dir():
            raise UsageError(f"nothing to resume from at {path}: give `auto`, `none`, a checkpoint or a run folder")
        own = (path / checkpoint.STATE).exists()
        return checkpoint.load(path) if own else Checkpoints(path / "checkpoints").load()

    def _restore(self, saved: Saved) -> None:
        different = differences({"adapters": {}} | saved.state["identity"], self._identity())
        if different:
            raise CheckpointError(f"cannot go on from {saved.path}, it is of another training: {'; '.join(different)}")
        state = saved.state
        self._restore_tensors(saved)
        self.step, self.tokens, self._elapsed_before = saved.step, state["tokens"], state["seconds"]
        self.best_step = state["best_step"]
        self._skipped_in_a_row, self._rolled_back = state["skipped_in_a_row"], state["rolled_back"]
        self._spikes.load_state_dict(state.get("recent_losses", []))
        self._last_time, self._last_tokens = self._elapsed_before, self.tokens
        self.feed.load_state_dict(state["feed"])
        self._step.scaler.load_state_dict(state["scaler"])
        if self.workers.first:
            set_random_state(state["random"])
        for callback in self._callbacks:
            if type(callback).__name__ in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][type(callback).__name__])
        inside = saved.path.resolve().parent == self.run.checkpoints.resolve()
        if self.workers.first:
            self.run.rewind(state["sizes"] if inside else {})
            if inside:
                self.log("checkpoint", {})  # written after the checkpoint, so cut off with the rest

    def _restore_tensors(self, saved: Saved) -> None:
        load_model_tensors(self.model, saved.tensors["model"], saved.path)
        self.optimizer.load_state_tensors(saved.tensors["optimizer"])
        if self.ema is not None:
            if "ema" not in saved.tensors:
                raise CheckpointError(f"{saved.path} has no moving average of the weights: resume without `ema`")
            self.ema.load_state_tensors(saved.tensors["ema"])


def _shorten(names: list[str]) -> str:
    if not names:
        return "unknown"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def learning_share(model: Any) -> float:
    """The share of a model's numbers that learn; those in fewer bits count, where the model knows of them."""
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    count = getattr(model, "num_parameters", lambda: sum(p.numel() for p in model.parameters()))
    return learning / max(count(), 1)


def lora_plus_ratios(model: Any) -> dict[str, float]:
    """Adapter -> how many times faster its matrices B learn than the rest, where its settings say so (LoRA+)."""
    ratios = {name: getattr(config, "lr_ratio", 1.0) for name, config in adapters_of(model).configs.items()}
    return {name: ratio for name, ratio in ratios.items() if ratio != 1.0}
