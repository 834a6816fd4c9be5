"""How often each piece occurs in a stream of texts, counted side by side.

Texts are taken from the stream a portion at a time, and no more portions wait than there are workers, so memory is that
of the different pieces, however long the stream. A worker is

- a thread with compiled loops, for the named patterns where numba is there (it holds no lock of the interpreter);
- else a process of its own (`counting_worker`), fed through a pipe with JSON, for a stream that is worth starting one.

A short stream, or a machine with one processor and no numba, is counted here, in plain Python.
"""

import contextlib
import functools
import itertools
import json
import operator
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import groundup
from groundup.base.console import warn
from groundup.base.errors import GroundupError
from groundup.base.threads import default_threads
from groundup.tokenizers import kernels
from groundup.tokenizers.pipeline.normal_forms import normalizer
from groundup.tokenizers.pretokenize import RULES, PreTokenizer, chunks
from groundup.tokenizers.tokenizer import without_surrogates

if TYPE_CHECKING:
    from groundup.tokenizers.training.compiled import Pieces

MUCH = 2**22  # characters from which loading the compiled loops pays
WORTH_A_PROCESS = 2**24
PORTION = 2**20

Result = TypeVar("Result", covariant=True)


def count_pieces(
    texts: Iterable[str], pre_tokenizer: PreTokenizer, normal_form: str | None = None, workers: int | None = None
) -> "Counter[str] | Pieces":
    """How often each piece occurs in all texts.

    Args:
        texts: read once, as they are needed.
        pre_tokenizer: cuts each text on its own.
        normal_form: Unicode normal form applied before.
        workers: threads or processes that count; by default as many as there are processors.

    Returns:
        A Counter, or for much text with a named pattern `Pieces`: the same in arrays.
    """
    workers = default_threads() if workers is None else workers
    portions = _portions(map(without_surrogates, texts), normal_form, pre_tokenizer.named)
    compiled = kernels.available() and pre_tokenizer.pattern in RULES
    enough = MUCH if compiled else WORTH_A_PROCESS
    first: list[list[str]] = []
    total = 0
    while total < enough and (portion := next(portions, None)) is not None:
        first.append(portion)
        total += sum(map(len, portion))
    if total < enough or not (compiled or workers > 1):
        return count_here(itertools.chain(first, portions), pre_tokenizer)
    return _side_by_side(itertools.chain(first, portions), pre_tokenizer, workers, compiled)


def count_here(portions: Iterable[Iterable[str]], pre_tokenizer: PreTokenizer) -> Counter[str]:
    """In one process, in plain Python."""
    counts: Counter[str] = Counter()
    for texts in portions:
        for text in texts:
            counts.update(pre_tokenizer.split(text))
    return counts


def _portions(texts: Iterable[str], normal_form: str | None, named: bool) -> Iterator[list[str]]:
    """Lists of about `PORTION` characters; a named pattern lets a long text be cut (`chunks`)."""
    portion: list[str] = []
    size, normalize = 0, normalizer(normal_form) or str
    for text in map(normalize, texts):
        for part in chunks(text, PORTION) if named else (text,):
            portion.append(part)
            size += len(part)
            if size >= PORTION:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion


class _Worker(Protocol[Result]):
    def add(self, texts: list[str]) -> None: ...
    def result(self) -> Result: ...


class ProcessCounter:
    """Counts in a process of its own."""

    def __init__(self, pattern: str):
        # The process finds this package where we found it, whatever it is started from.
        places = [str(Path(groundup.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "groundup.tokenizers.training.counting_worker", pattern],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
        )

    def add(self, texts: list[str]) -> None:
        """Send texts."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended: `result` says so
            self._process.stdin.write(json.dumps(texts) + "\n")

    def result(self) -> Counter[str]:
        """Wait for the counts."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        answer = self._process.stdout.read()
        if self._process.wait():
            raise GroundupError(f"a process that counted words ended with status {self._process.returncode}")
        return Counter(json.loads(answer))

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _side_by_side(
    portions: Iterator[list[str]], pre_tokenizer: PreTokenizer, workers: int, compiled: bool
) -> "Counter[str] | Pieces":
    pattern = pre_tokenizer.pattern
    if compiled:
        from groundup.tokenizers.training.compiled import CompiledCounter, together

        return together(_feed(portions, [CompiledCounter(pattern) for _ in range(workers)]))
    with contextlib.ExitStack() as stack:
        try:
            made = [stack.enter_context(contextlib.closing(ProcessCounter(pattern))) for _ in range(workers)]
        except OSError as error:
            warn(f"no process to count in could be started ({error}): counting in this one")
            return count_here(portions, pre_tokenizer)
        return functools.reduce(operator.iadd, _feed(portions, made))


def _feed(portions: Iterator[list[str]], workers: "Sequence[_Worker[Result]]") -> "list[Result]":
    """Hand the portions to whichever worker is free, and gather what they counted."""
    waiting: queue.Queue[list[str] | None] = queue.Queue(maxsize=len(workers))
    failed = threading.Event()

    def work(worker: "_Worker[Result]") -> "Result":
        error = None
        while (texts := waiting.get()) is not None:  # to the end, even after a failure: the queue must empty
            try:
                if not failed.is_set():
                    worker.add(texts)
            except Exception as raised:
                error = raised
                failed.set()
        if error is not None:
            raise error
        return worker.result()

    with ThreadPoolExecutor(len(workers)) as pool:
        futures = [pool.submit(work, worker) for worker in workers]
        try:
            for portion in itertools.takewhile(lambda _: not failed.is_set(), portions):
                waiting.put(portion)
        finally:
            for _ in workers:
                waiting.put(None)
        return [future.result() for future in futures]
