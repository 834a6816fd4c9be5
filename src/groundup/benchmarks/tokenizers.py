"""Byte-level BPE beside `tokenizers` and `tiktoken`: training, and encoding on one thread and in batches.

All get the same documents, the same vocabulary and the same number of threads; merges and ids must be equal, or the
benchmark ends with an error. Each contender works in a process of its own, whose peak memory is told.
"""

import base64
import contextlib
import gzip
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.base.console import say
from groundup.base.errors import GroundupError
from groundup.base.threads import default_threads
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.workers import Worker
from groundup.data.builtin import pystdlib

WORKER = "groundup.benchmarks.tokenizers_worker"
BEHIND_TIKTOKEN = 1.5
PATTERNS = {"gpt2": "gpt2", "trained": "gpt4"}
CASES = ("train", *PATTERNS)


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        megabytes: size of the corpus to train on; sources are repeated until it is reached.
        encoded: megabytes of it that are encoded (evenly spread documents).
        vocab_size: of the tokenizers that are trained.
        threads: of training and batches; None for all processors.
        shared: the folder of real data and vocabularies, or None.
        cases: some of `CASES`: training, and encoding with GPT-2's vocabulary and with one trained here.
    """

    megabytes: float
    encoded: float
    vocab_size: int
    threads: int | None
    shared: Path | None
    cases: tuple[str, ...] = CASES


def find_shared() -> Path | None:
    """GROUNDUP_SHARED, or `shared` beside the working folder, where there is one."""
    places = [os.environ.get("GROUNDUP_SHARED"), "../shared", "shared"]
    return next((Path(place) for place in places if place and (Path(place) / "data").is_dir()), None)


def sources(shared: Path | None) -> dict[str, list[str]]:
    """The documents of each source that is present: a file, a play, a problem with its answer, or a sentence each."""
    found = {"pystdlib": [document.text for document in pystdlib.documents()]}
    if shared is None:
        return found
    data = shared / "data"
    readers: dict[str, tuple[str, Callable[[Path], Iterator[str]]]] = {
        "tinyshakespeare": ("tinyshakespeare.txt", lambda path: iter([path.read_text(encoding="utf-8")])),
        "gsm8k": ("gsm8k/*.jsonl", _problems),
        "multi30k": ("multi30k/*.gz", lambda path: iter(gzip.decompress(path.read_bytes()).decode().splitlines(True))),
    }
    for name, (pattern, read) in readers.items():
        if documents := [text for path in sorted(data.glob(pattern)) for text in read(path)]:
            found[name] = documents
    return found


def _problems(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        yield f"{item['question']}\n{item['answer']}"


def corpus(found: dict[str, list[str]], megabytes: float) -> list[str]:
    """All documents, again from the first one until there are so many megabytes; where they are more, every n-th."""
    documents = [text for texts in found.values() for text in texts]
    if _megabytes(documents) >= megabytes:
        return evenly(documents, megabytes)
    chosen, size = [], 0
    for text in itertools.cycle(documents):
        chosen.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return chosen


def evenly(documents: list[str], megabytes: float) -> list[str]:
    """Every n-th document, for about so many megabytes."""
    return documents[:: max(1, round(_megabytes(documents) / megabytes))]


def measure(work: Work, rounds: int) -> list[Comparison]:
    """Medians over the rounds.

    Raises:
        GroundupError: a contender's merges or ids differ from ours.
    """
    threads = work.threads or default_threads()
    found = sources(work.shared)
    documents = corpus(found, work.megabytes)
    sizes = ", ".join(f"{name} {sum(len(t.encode()) for t in texts) / 1e6:.1f} MB" for name, texts in found.items())
    say(
        f"corpus: {sizes}; together, repeated as needed, {_megabytes(documents):.1f} MB in {len(documents):,} documents"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "train.json", documents)
        _write(folder / "encode.json", evenly(documents, work.encoded))
        results = [training(folder, work, threads, rounds)] if "train" in work.cases else []
        for vocabulary in vocabularies(folder, documents, work):
            results += encoding(folder, vocabulary, threads, rounds)
    return results


def _megabytes(documents: list[str]) -> float:
    return sum(len(text.encode()) for text in documents) / 1e6


def _write(path: Path, documents: list[str]) -> None:
    path.write_text(json.dumps(documents), encoding="utf-8")


def training(folder: Path, work: Work, threads: int, rounds: int) -> Comparison:
    """Ours beside `tokenizers`: the same merges."""
    arguments = (str(folder / "train.json"), str(threads), str(work.vocab_size))
    case = f"train {work.vocab_size:,}, {threads} threads"
    names = {"ours": "ours", "tokenizers": "tokenizers"}
    measured, memory = race(case, {name: ("train", who, *arguments) for name, who in names.items()}, rounds)
    return _row(case, "tokenizers", measured, memory, 1.0, ["tokenizers"])


def vocabularies(folder: Path, documents: list[str], work: Work) -> Iterator[str]:
    """Names of folders with tokenizer.json and the same vocabulary as ranks for tiktoken."""
    from groundup.tokenizers.hub import load_vocab_and_merges
    from groundup.tokenizers.training.byte_bpe import train_byte_bpe

    files = work.shared / "tokenizers" if work.shared else Path("nowhere")
    if "gpt2" in work.cases and (files / "gpt2-encoder.json").is_file() and (files / "gpt2.tiktoken").is_file():
        load_vocab_and_merges(files / "gpt2-encoder.json", files / "gpt2-vocab.bpe").save_pretrained(folder / "gpt2")
        (folder / "gpt2" / "ranks.tiktoken").write_bytes((files / "gpt2.tiktoken").read_bytes())
        yield "gpt2"
    if "trained" not in work.cases:
        return
    trained = train_byte_bpe(documents, work.vocab_size, pattern=PATTERNS["trained"])
    trained.save_pretrained(folder / "trained")
    ranks = (f"{base64.b64encode(trained.token_bytes(n)).decode()} {n}\n" for n in range(trained.vocab_size))
    (folder / "trained" / "ranks.tiktoken").write_text("".join(ranks))
    yield "trained"


def encoding(folder: Path, vocabulary: str, threads: int, rounds: int) -> list[Comparison]:
    """One thread, text by text; then batches with all threads. The peers in each way that they offer."""
    results = []
    for many, ways in (
        (1, {"ours": "encode", "tokenizers encode": "encode", "tokenizers batch": "batch", "tiktoken": "encode"}),
        (threads, {"ours": "batch", "tokenizers batch": "batch", "tokenizers fast": "fast", "tiktoken": "batch"}),
    ):
        case = f"encode {vocabulary}, " + ("one thread" if many == 1 else f"batch, {many} threads")
        tail = (str(folder / "encode.json"), str(many), str(folder / vocabulary), PATTERNS[vocabulary])
        questions = {name: (way, name.split()[0], *tail) for name, way in ways.items()}
        measured, memory = race(case, questions, rounds)
        for peer, target in (("tokenizers", 1.0), ("tiktoken", 1 / BEHIND_TIKTOKEN if many == 1 else None)):
            variants = [name for name in ways if name.startswith(peer)]
            results.append(_row(case, peer, measured, memory, target, variants))
    return results


def race(
    case: str, contenders: dict[str, tuple[str, ...]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float | None]]:
    """MB/s of each contender in each round, and its peak memory in MB; their results must be equal."""
    say(f"{case}: warming up, comparing results")
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(WORKER, *words)) for name, words in contenders.items()}
        answers: dict[str, Any] = {name: worker.ask(check=True)["result"] for name, worker in workers.items()}
        for name, answer in answers.items():
            if answer != answers["ours"]:
                raise GroundupError(f"{case}: the result of {name} is not ours")
        measured = in_turn({name: _speed(worker) for name, worker in workers.items()}, rounds, warmup=0)
        return measured, {name: worker.ask(memory=True)["memory"] for name, worker in workers.items()}


def _speed(worker: Worker) -> Callable[[], float]:
    return lambda: worker.ask()["speed"]


def _row(
    case: str,
    peer: str,
    measured: dict[str, list[float]],
    memory: dict[str, float | None],
    target: float | None,
    variants: list[str],
) -> Comparison:
    theirs = {name: measured[name] for name in variants}
    found = compare(case, peer, measured["ours"], theirs, "MB/s", higher_is_better=True)
    found = replace(found, more={"memory_mb": {name: memory[name] for name in ("ours", *variants)}})
    if target is None:
        return found
    return replace(found, target=f"{target:.2g}x", met=found.ratio >= target)
