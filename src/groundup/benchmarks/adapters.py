"""`groundup bench adapters`: every way of adapting a model on one task, and a training step beside peft's.

The task: the built-in model reads a story and names its last scene (`story_plots`). Stories like those of the training
are the measure within the distribution; those of unseen worlds, names and sentence patterns the one out of it. Each
method has a process of its own, so peak memory is its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.base.console import as_size, say, table, warn
from groundup.base.errors import UsageError, did_you_mean
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.train import Settings as TrainSettings
from groundup.benchmarks.train import Trainee, most_memory
from groundup.benchmarks.train_cases import find_case
from groundup.benchmarks.workers import Worker

STEP_TARGET, MEMORY_TARGET, PEFT_TARGET = 1 / 0.75, 1.0, 1.0


@dataclass(frozen=True)
class Method:
    """A way of adapting: its adapter, what the base is stored as, and the peak learning rate that suits it."""

    lr: float
    adapter: Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None


METHODS: dict[str, Method] = {
    "base": Method(0.0),
    "full": Method(1e-3),
    "last block": Method(3e-3, {"kind": "partial", "train": ["norm", "last:1"]}),
    "bitfit": Method(1e-2, {"kind": "bitfit"}),
    "lora": Method(3e-3, {"kind": "lora", "rank": 8}),
    "rslora 32": Method(1e-3, {"kind": "lora", "rank": 32, "rslora": True}),
    "dora": Method(3e-3, {"kind": "lora", "rank": 8, "dora": True}),
    "pissa": Method(2e-3, {"kind": "lora", "rank": 8, "init": "pissa"}),
    "lora+": Method(1e-3, {"kind": "lora", "rank": 8, "lr_ratio": 8}),
    "qlora nf4": Method(3e-3, {"kind": "lora", "rank": 8}, {"kind": "nf4"}),
    "adalora": Method(3e-2, {"kind": "adalora"}),
    "ia3": Method(3e-1, {"kind": "ia3"}),
    "houlsby": Method(3e-3, {"kind": "bottleneck", "reduction_factor": 2}),
    "pfeiffer": Method(3e-3, {"kind": "bottleneck", "reduction_factor": 2, "places": ["block"], "activation": "relu"}),
    "prompt 20": Method(3e-1, {"kind": "prompt", "length": 20}),
    "p-tuning 20": Method(1e-2, {"kind": "p_tuning", "length": 20}),
    "prefix 20": Method(3e-2, {"kind": "prefix", "length": 20}),
    "p-tuning v2 20": Method(1e-1, {"kind": "p_tuning_v2", "length": 20}),
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long."""

    methods: Sequence[str] = tuple(METHODS)
    model: str = "tiny"
    steps: int = 400
    batch: int = 8
    examples: int = 4000
    tests: int = 400
    longest: int = 256
    seeds: int = 1
    threads: int | None = None
    case: str = "E"
    rounds: int = 5
    seconds: float = 1.0


def measure_methods(settings: Settings) -> list[dict[str, Any]]:
    """One row of figures for each method, and each seed's accuracies."""
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown:
        raise UsageError(
            f"no method `{unknown[0]}`.{did_you_mean(unknown[0], METHODS)} There are: {', '.join(METHODS)}"
        )
    model = str(Path(settings.model).expanduser()) if Path(settings.model).expanduser().exists() else settings.model
    rows = []
    for name in settings.methods:
        say(f"\n{name}")
        method = METHODS[name]
        found = []
        for seed in range(settings.seeds if method.lr else 1):
            with Worker("groundup.benchmarks.adapters_worker") as worker:
                answer = worker.ask(
                    model=model,
                    adapter=settings_of(method.adapter, settings.steps),
                    quantization=method.quantization and dict(method.quantization),
                    lr=method.lr,
                    seed=seed,
                    **{part: getattr(settings, part) for part in ("steps", "batch", "examples", "tests", "longest")},
                    threads=settings.threads,
                )
            found.append(answer)
        if "refused" in found[0]:
            warn(f"{name} is left out: {found[0]['refused']}")
            continue
        rows.append(row_of(name, found))
        say(methods_table(rows))
    return rows


def settings_of(adapter: Mapping[str, Any] | None, steps: int) -> dict[str, Any] | None:
    """An adapter's settings; those whose budget follows the training's length are told it."""
    if adapter is None:
        return None
    return {**adapter, "steps": steps} if adapter["kind"] == "adalora" else dict(adapter)


def row_of(name: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The means over the seeds."""
    mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
    accuracies = {part: [one[part] for one in found] for part in ("within", "outside")}
    return {"method": name, **mean, "share": mean["trained"] / mean["parameters"], "seeds": accuracies}


def methods_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The methods side by side."""
    cells = [
        [
            row["method"],
            f"{row['trained']:,.0f}",
            f"{row['share']:.2%}",
            as_size(round(row["weight_bytes"])),
            as_size(round(row["peak_memory"])),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['within']:.1%}",
            f"{row['outside']:.1%}",
        ]
        for row in rows
    ]
    head = ["method", "trained", "share", "weights", "peak memory", "tokens/s", "accuracy", "out of distribution"]
    return table(cells, head)


def measure_steps(settings: Settings) -> list[Comparison]:
    """A training step with LoRA: beside our full fine-tuning, and beside peft's LoRA."""
    case = find_case(settings.case)
    say(f"\n{case.title}; LoRA of rank 8 on all linear layers of blocks")
    train = TrainSettings((case.name,), settings.rounds, settings.seconds, settings.threads, peak=False)
    with ExitStack() as stack:
        ours, full, theirs = (
            stack.enter_context(Trainee(case, who, variant, train))
            for who, variant in (("groundup", "fp32+lora"), ("groundup", "fp32"), ("peft", "fp32"))
        )
        turns = {one.name: (lambda one=one: one.round(settings.seconds)) for one in (ours, full, theirs)}
        measured = in_turn(turns, settings.rounds, warmup=1)
    speed = [
        compare("LoRA step, beside full fine-tuning", "groundup", measured[ours.name], {"fp32": measured[full.name]},
                "tokens/s", higher_is_better=True, target="1.33x"),
        compare("LoRA step", "peft", measured[ours.name], {"fp32": measured[theirs.name]}, "tokens/s",
                higher_is_better=True, target="1x"),
    ]  # fmt: skip
    memory = {one.name: [float(most_memory(one))] for one in (ours, theirs)}
    held = compare(
        "LoRA, peak memory", "peft", memory[ours.name], {"fp32": memory[theirs.name]}, "bytes",
        higher_is_better=False, target="1x",
    )  # fmt: skip
    targets = (STEP_TARGET, PEFT_TARGET, MEMORY_TARGET)
    return [
        Comparison(**{**vars(one), "met": one.ratio >= target})
        for one, target in zip([*speed, held], targets, strict=True)
    ]
