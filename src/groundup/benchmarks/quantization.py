"""`groundup bench quantization`: what each form of weights costs and keeps, and how fast it decodes.

Quality is measured on the built-in model, which was trained here: loss of the next token on held-out stories. Speed and
memory are measured on a model of more than 100 million parameters (random weights: they do not change the work),
decoding one row, each form in a process of its own, taking turns.
"""

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.base.console import as_size, say, table, warn
from groundup.base.errors import UsageError, did_you_mean
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.workers import Worker

EVERYWHERE = ["*"]
FORMS: dict[str, Mapping[str, Any] | None] = {
    "fp32": None,
    "bf16": None,
    "int8": {"kind": "int8"},
    "int8 groups": {"kind": "int", "bits": 8, "group": 32},
    "int4": {"kind": "int4"},
    "int4 affine": {"kind": "int", "bits": 4, "group": 32, "symmetric": False},
    "int3": {"kind": "int", "bits": 3, "group": 32},
    "chatglm int8": {"kind": "chatglm_int8"},
    "chatglm int4": {"kind": "chatglm_int4"},
    "nf4": {"kind": "nf4"},
    "fp4": {"kind": "fp4"},
    "llm.int8": {"kind": "llm_int8"},
    "gptq 4": {"kind": "gptq", "bits": 4, "group_size": 8},
    "awq 4": {"kind": "awq", "group_size": 8},
    "smoothquant": {"kind": "smoothquant"},
}
"""Name -> settings; rows of the built-in model's widest matrix have 344 numbers, so groups of 8 fit all."""
SPEED = ("bf16", "int8", "int4", "nf4")
TARGETS = {"int8": 1.5, "int4": 2.0}


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    forms: Sequence[str] = tuple(FORMS)
    model: str = "tiny"
    rows: int = 64
    speed: Sequence[str] = SPEED
    layers: int = 12
    width: int = 768
    vocab: int = 32_000
    new: int = 32
    rounds: int = 7
    threads: int | None = None


def measure_forms(settings: Settings) -> list[dict[str, Any]]:
    """A row of figures for each form: bits, bytes of the folder, loss and perplexity."""
    unknown = [name for name in [*settings.forms, *settings.speed] if name not in FORMS]
    if unknown:
        raise UsageError(f"no form `{unknown[0]}`.{did_you_mean(unknown[0], FORMS)} There are: {', '.join(FORMS)}")
    rows = []
    for name in settings.forms:
        with Worker("groundup.benchmarks.quantization_worker") as worker:
            found = worker.ask(quality=dict(model=settings.model, form=FORMS[name], name=name, rows=settings.rows))
        if "refused" in found:
            warn(f"{name} is left out: {found['refused']}")
            continue
        rows.append({"form": name, **found})
    say(forms_table(rows))
    return rows


def forms_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The forms side by side."""
    cells = [
        [
            row["form"],
            f"{row['bits_per_weight']:.2f}",
            as_size(row["file_bytes"]),
            as_size(row["peak_memory"]),
            f"{row['loss']:.4f}",
            f"{row['perplexity']:.3f}",
            f"{row['seconds']:.1f} s",
        ]
        for row in rows
    ]
    return table(cells, ["form", "bits a weight", "folder", "peak memory", "loss", "perplexity", "quantizing"])


def measure_speed(settings: Settings) -> list[Comparison]:
    """Tokens a second of one row, each form beside bf16."""
    if "bf16" not in settings.speed:
        return []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_model(settings, Path(folder))
        workers = {
            name: stack.enter_context(Worker("groundup.benchmarks.quantization_worker")) for name in settings.speed
        }
        memory = {
            name: worker.ask(prepare=dict(folder=folder, form=FORMS[name], threads=settings.threads))
            for name, worker in workers.items()
        }
        cases = {name: functools.partial(worker.ask, new=settings.new) for name, worker in workers.items()}
        measured = in_turn(cases, settings.rounds, warmup=1)
    found = []
    for name in settings.speed:
        if name == "bf16":
            continue
        one = compare(
            f"{name}, 1 row, {memory[name]['parameters']:,} parameters",
            "bf16",
            measured[name],
            {"bf16": measured["bf16"]},
            "tokens/s",
            higher_is_better=True,
            target=f"{TARGETS[name]:g}x" if name in TARGETS else "",
            more={
                "memory": memory[name],
                "bf16_memory": memory["bf16"],
                "gigabytes_per_second": _rate(memory, name, measured),
            },
        )
        met = one.ratio >= TARGETS[name] if name in TARGETS else None
        found.append(Comparison(**{**vars(one), "met": met}))
    return found


def _rate(memory: Mapping[str, Any], name: str, measured: Mapping[str, Sequence[float]]) -> float:
    """Bytes of weights read a second, in 10^9."""
    return memory[name]["weight_bytes"] * statistics.median(measured[name]) / 1e9


def write_model(settings: Settings, folder: Path) -> None:
    """A Llama of random weights in bfloat16."""
    import torch

    from groundup.models.configs.llama import LlamaConfig
    from groundup.models.hub import build_model

    hidden = -(-8 * settings.width // 3 // 64) * 64
    config = LlamaConfig(
        vocab_size=settings.vocab,
        hidden_size=settings.width,
        intermediate_size=hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.width // 64,
        max_position_embeddings=1024,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build_model(config, dtype="bfloat16").save_pretrained(folder)
