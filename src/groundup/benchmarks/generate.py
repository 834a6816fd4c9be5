"""Greedy decoding beside transformers' generate: the same weights from one folder on disk, the same ids.

Every variant runs in a process of its own; they take turns. A figure is the decoding alone: the time of a long answer
less that of a one-token answer, so that reading the prompt and setting up do not count.
"""

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from groundup.base.console import say
from groundup.base.errors import GroundupError
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.workers import Worker
from groundup.models.configs.llama import LlamaConfig

PEER = "transformers"
OURS = ("ours bfloat16", "ours float32")
TARGET_BANDWIDTH, TARGET_RATIO = 0.7, 2.0
Clock = Literal["wall", "processor"]
STORED_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Work:
    """What is decoded, and how it is timed.

    Attributes:
        config: the model's shape.
        prompt, new: tokens of each prompt (random ids) and of each answer.
        seed: of weights and prompts.
        threads: of each worker; None for all there are.
        clock: "wall", or "processor": the time that a process computed, for one thread on a machine that others use.
        device: where all of them compute.
    """

    config: LlamaConfig
    prompt: int
    new: int
    seed: int = 0
    threads: int | None = None
    clock: Clock = "wall"
    device: str = "cpu"

    def prompts(self, rows: int) -> list[list[int]]:
        """Random ids."""
        import numpy as np

        return np.random.default_rng(self.seed).integers(0, self.config.vocab_size, (rows, self.prompt)).tolist()


def measure(work: Work, rows: Sequence[int], rounds: int, compiled: bool = True) -> list[Comparison]:
    """Medians over the rounds: for each number of rows, ours in each dtype beside the best of the peer's variants.

    Raises:
        GroundupError: a worker failed, or ids differ that must be equal.
    """
    names = [*OURS, *(f"{PEER} {variant}" for variant in peer_variants(compiled))]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_folder(work, folder)
        workers = {name: stack.enter_context(start(name, folder, work)) for name in names}
        found = []
        for count in rows:
            say(f"{count} x {work.new} tokens: warming up, comparing ids")
            check_ids(workers, work, count)
            cases = {name: functools.partial(tokens_per_second, workers[name], work, count) for name in names}
            cases["bandwidth"] = functools.partial(workers[OURS[0]].ask)
            measured = in_turn(cases, rounds, warmup=1)
            memory = {name: worker.ask(memory=True) for name, worker in workers.items()}
            found += [
                replace(one, more={**one.more, "peak_memory": memory}) for one in comparisons(work, count, measured)
            ]
        return found


def peer_variants(compiled: bool) -> list[str]:
    """Dtype and cache of each variant."""
    caches = ["dynamic", "static", *["compiled"] * compiled]
    return [f"{dtype} {cache}" for dtype in STORED_BYTES for cache in caches]


def start(name: str, folder: str, work: Work) -> Worker:
    """The worker of a variant."""
    kind, *variant = name.split()
    return Worker(
        "groundup.benchmarks.generate_worker", kind, folder, str(work.threads or 0), work.clock, work.device, *variant
    )


def write_folder(work: Work, folder: str) -> None:
    """A model of random weights, stored in bfloat16, and a tokenizer with a character for every id."""
    import torch

    from groundup.models.hub import build_model
    from groundup.tokenizers.characters import Characters

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        build_model(work.config, dtype="bfloat16").save_pretrained(folder)
    first = 0x4E00 if work.config.vocab_size <= 0x5000 else 0x10000
    Characters({chr(first + i): i for i in range(work.config.vocab_size)}).save_pretrained(Path(folder))


def check_ids(workers: dict[str, Worker], work: Work, rows: int) -> None:
    """All that compute in float32 must give the same ids; ours with bfloat16 weights does on a CPU."""
    ours = "ours" if work.device == "cpu" else "ours float32"
    exact = [name for name in workers if name.startswith(ours) or " float32" in name]
    ids = {name: worker.ask(prompts=work.prompts(rows), new=work.new)["ids"] for name, worker in workers.items()}
    for name in exact:
        if ids[name] != ids[exact[0]]:
            raise GroundupError(f"{name} and {exact[0]} decode different ids from the same weights and {rows} prompts")


def tokens_per_second(worker: Worker, work: Work, rows: int) -> float:
    """New tokens a second over all rows, of all tokens but the first."""
    prompts = work.prompts(rows)
    first, all_of_them = (worker.ask(prompts=prompts, new=new)["seconds"] for new in (1, work.new))
    return rows * (work.new - 1) / max(all_of_them - first, 1e-9)


def comparisons(work: Work, rows: int, measured: dict[str, list[float]]) -> list[Comparison]:
    """One for each of our dtypes."""
    theirs = {name: values for name, values in measured.items() if name.startswith(PEER)}
    bandwidth = statistics.median(measured["bandwidth"])
    return [one_comparison(work, rows, name, measured[name], theirs, bandwidth) for name in OURS]


def one_comparison(
    work: Work, rows: int, name: str, ours: list[float], theirs: dict[str, list[float]], bandwidth: float
) -> Comparison:
    """A row of the result. The limit: each step reads all weights but the embedding's rows once."""
    from groundup.estimates.params import matrix_parameters

    dtype = name.split()[1]
    read = matrix_parameters(work.config) * STORED_BYTES[dtype]
    found = compare(f"{rows} rows, {dtype} weights", PEER, ours, theirs, "tokens/s", higher_is_better=True)
    fraction = found.ours / rows * read / bandwidth
    if rows == 1:
        target, met = f"{TARGET_BANDWIDTH:.0%} of bandwidth", fraction >= TARGET_BANDWIDTH
    else:
        target, met = f"{TARGET_RATIO}x", found.ratio >= TARGET_RATIO
    more = {
        "bytes_per_token": read,
        "bandwidth": bandwidth,
        "fraction_of_bandwidth": fraction,
        "limit_at_one_row": bandwidth / read,
    }
    return replace(found, target=target, met=met, more=more)
