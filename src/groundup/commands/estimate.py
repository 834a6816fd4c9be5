"""`groundup estimate params|memory|flops`: what a model costs before it is built."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, table
from groundup.base.errors import UsageError, did_you_mean
from groundup.commands.command import Command
from groundup.estimates.built import Built, shape_of
from groundup.estimates.flops import flops, palm_flops_per_token
from groundup.estimates.memory import InferenceMemory, TrainingMemory, inference_memory, training_memory
from groundup.estimates.params import BYTES, active_parameters, count_parameters, model_bytes, parts
from groundup.estimates.shape import Shape
from groundup.models.catalogue import sizes

if TYPE_CHECKING:
    from groundup.adapters.config import AdapterConfig as AnyAdapter
    from groundup.quantization.config import QuantizationConfig as AnyQuantization
else:
    from groundup.adapters.configs import AnyAdapter
    from groundup.quantization.configs import AnyQuantization

Dtype = Literal["fp32", "bf16", "fp16", "int8", "int4"]


class Estimate(Command):
    """What the three share: the model."""

    model: CliPositionalArg[str]
    """A model folder, a config.json, or a published size: gpt2, gpt2-xl, llama-7b, llama-2-70b, llama-3-8b..."""

    def shape(self) -> Shape | Built:
        """The model's dimensions."""
        return shape_of(read_config(self.model))


class EstimateParams(Estimate):
    """Parameters of a model, part by part."""

    def run(self) -> dict[str, Any]:
        """Print the table."""
        shape = self.shape()
        rows, total = parts(shape), count_parameters(shape)
        lines = [[p.name, f"{p.each:,}", p.copies, f"{p.total:,}", f"{p.total / total:.1%}"] for p in rows]
        lines.append(["all", "", "", f"{total:,}", "100.0%"])
        active = active_parameters(shape)
        if active != total:
            lines.append(["active for one token", "", "", f"{active:,}", f"{active / total:.1%}"])
        say(table(lines, ["part", "parameters", "copies", "together", "share"]))
        sizes = {dtype: model_bytes(shape, dtype) for dtype in BYTES}
        say("size: " + ", ".join(f"{dtype} {as_size(sizes[dtype])}" for dtype in ("fp32", "bf16", "int8", "int4")))
        return {
            "model": self.model,
            "total": total,
            "active": active,
            "parts": [asdict(p) | {"total": p.total} for p in rows],
            "bytes": sizes,
        }


class EstimateMemory(Estimate):
    """Memory of training (default) or inference, by purpose."""

    task: Literal["training", "inference"] = "training"
    """What the memory is for."""
    batch: int = Field(default=1, ge=1)
    """Sequences at once."""
    seq_len: int | None = Field(default=None, ge=1)
    """Tokens a sequence; default: the model's context."""
    dtype: Dtype = "bf16"
    """Of weights, activations and cache; below fp32 training also keeps fp32 masters."""
    optimizer: Literal["sgd", "sgd-momentum", "adam", "adamw", "adafactor", "muon"] = "adamw"
    """Training: whose state to count."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Training: activations computed again in backward."""
    cache_dtype: Dtype | None = None
    """Inference: of keys and values; as `dtype` when not given."""
    adapter: AnyAdapter | None = None
    """What is put on the model: `--adapter.kind lora --adapter.rank 16`. In training it alone learns."""
    quantization: AnyQuantization | None = None
    """What the base is stored as: `--quantization.kind nf4`."""
    offload: bool = False
    """Training: keep fp32 masters and optimizer state on the host."""

    def run(self) -> dict[str, Any]:
        """Print the table."""
        memory = self._memory()
        total = memory.total
        purposes = {name: value for name, value in asdict(memory).items() if name != "host"}
        rows = [[name, f"{value:,}", as_size(value), f"{value / total:.1%}"] for name, value in purposes.items()]
        say(table([*rows, ["all", f"{total:,}", as_size(total), "100.0%"]], ["purpose", "bytes", "size", "share"]))
        if getattr(memory, "host", 0):
            say(f"on the host: {as_size(memory.host)} of masters and optimizer state")  # type: ignore[union-attr]
        return {"model": self.model, "task": self.task, **asdict(memory), "total": total}

    def _memory(self) -> TrainingMemory | InferenceMemory:
        config = read_config(self.model)
        on_it: dict[str, Any] = {"adapter": self.adapter, "quantization": self.quantization}
        if any(value is not None for value in on_it.values()) and BYTES[self.dtype] < 2:
            raise UsageError(f"--dtype {self.dtype} is told by --quantization.kind here: give fp32, bf16 or fp16")
        sizes: dict[str, Any] = {"batch": self.batch, "seq_len": self.seq_len, "dtype": self.dtype}
        if self.task == "inference":
            return inference_memory(config, cache_dtype=self.cache_dtype, **sizes, **on_it)
        if BYTES[self.dtype] < 2:
            raise UsageError(f"training in {self.dtype} is not estimated: use fp32, bf16 or fp16")
        if self.quantization is not None and self.adapter is None and self.quantization.frozen:
            raise UsageError("weights in fewer bits do not learn: name what does with --adapter.kind")
        return training_memory(
            config, optimizer=self.optimizer, recompute=self.recompute, offload=self.offload, **sizes, **on_it
        )


class EstimateFlops(Estimate):
    """Floating-point operations of training or inference, by kind of matrix product."""

    batch: int = Field(default=1, ge=1)
    """Sequences at once."""
    seq_len: int | None = Field(default=None, ge=1)
    """Tokens a sequence; default: the model's context."""
    tokens: float | None = Field(default=None, gt=0)
    """Training tokens: also print the cost of the whole run."""

    def run(self) -> dict[str, Any]:
        """Print the table."""
        shape = self.shape()
        seq_len = self.seq_len or shape.context
        cost = flops(shape, seq_len, self.batch)
        rows = [[name, f"{value:.4g}", f"{value / cost.forward:.1%}"] for name, value in asdict(cost).items()]
        say(table([*rows, ["forward", f"{cost.forward:.4g}", "100.0%"]], ["product", "operations", "share"]))
        per_token = cost.training / (self.batch * seq_len)
        n = count_parameters(shape)
        palm = palm_flops_per_token(shape, seq_len)
        say(f"training, a token: {per_token:.4g} exact, {6 * n:.4g} by 6 N, {palm:.4g} by PaLM's rule")
        result = {
            "model": self.model,
            **asdict(cost),
            "forward": cost.forward,
            "training": cost.training,
            "training_per_token": per_token,
            "rule_6n_per_token": 6 * n,
            "palm_per_token": palm,
        }
        if self.tokens:
            result["training_run"] = per_token * self.tokens
            say(f"training on {self.tokens:.4g} tokens: {per_token * self.tokens:.4g} operations")
        return result


def read_config(model: str) -> dict[str, Any]:
    """The config fields of a folder, a config.json, or a known name; `UsageError` says what was looked for."""
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{path} must hold a JSON object")
        return values
    known = sizes()
    if model in known:
        return known[model].to_hf()
    raise UsageError(f"no model folder or known size `{model}`.{did_you_mean(model, known)} Known: {', '.join(known)}")
