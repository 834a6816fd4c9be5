"""How often each word occurs in a stream of texts, counted side by side: the same for every trainer.

Texts are taken from the stream a portion at a time, and no more portions wait than there are workers, so memory is that
of the different words, however long the stream. A worker is

- a thread with compiled loops, for the named patterns where numba is there (it holds no lock of the interpreter);
- else a process of its own (`counting_worker`), told by JSON how to cut (`splitting`), for a stream worth starting one.

A short stream, or any on a machine with one processor and no compiled loops for it, is counted here, in plain Python.
Whoever counts, the counts come in the order of the words, so that what is learnt from them is the same.
"""

import contextlib
import functools
import itertools
import json
import operator
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

from groundup.base.errors import GroundupError
from groundup.base.threads import default_threads
from groundup.tokenizers import kernels
from groundup.tokenizers.pretokenize import RULES
from groundup.tokenizers.processes import Helper, start
from groundup.tokenizers.tokenizer import without_surrogates
from groundup.tokenizers.training.splitting import ByPattern, Splitter

if TYPE_CHECKING:
    from groundup.tokenizers.training.compiled import Pieces

MUCH = 2**22  # characters from which loading the compiled loops pays
WORTH_A_PROCESS = 2**21
PORTION = 2**20
WORKER = "groundup.tokenizers.training.counting_worker"

Result = TypeVar("Result", covariant=True)


def count_words(texts: Iterable[str], splitter: Splitter, workers: int | None = None) -> Counter[str]:
    """How often each word occurs in all texts, in the order of the words.

    Args:
        texts: read once, as they are needed.
        splitter: cuts each text on its own.
        workers: processes that count; by default as many as there are processors (OMP_NUM_THREADS sets another number).

    Raises:
        GroundupError: a process ended before its time.
    """
    workers = default_threads() if workers is None else workers
    portions = _portions(texts, splitter)
    first, more = _begin(portions, WORTH_A_PROCESS)
    whole = itertools.chain(first, portions)
    return in_order(_in_processes(whole, splitter, workers) if more and workers > 1 else count_here(whole, splitter))


def count_pieces(texts: Iterable[str], splitter: ByPattern, workers: int | None = None) -> "Counter[str] | Pieces":
    """`count_words`, or for much text with a named pattern `Pieces`: the same in arrays, in any order.

    Args:
        texts: read once, as they are needed.
        splitter: as for `count_words`.
        workers: threads or processes that count.
    """
    if not (kernels.available() and splitter.cutter.pattern in RULES):
        return count_words(texts, splitter, workers)
    portions = _portions(texts, splitter)
    first, more = _begin(portions, MUCH)
    whole = itertools.chain(first, portions)
    if not more:
        return in_order(count_here(whole, splitter))
    from groundup.tokenizers.training.compiled import CompiledCounter, together

    threads = default_threads() if workers is None else workers
    made = [CompiledCounter(splitter.cutter.pattern, splitter.normalized) for _ in range(threads)]
    return together(_feed(whole, made))


def count_here(portions: Iterable[Iterable[str]], splitter: Splitter) -> Counter[str]:
    """In one process, in plain Python."""
    counts: Counter[str] = Counter()
    for texts in portions:
        for text in texts:
            counts.update(splitter(text))
    return counts


def in_order(counts: Counter[str]) -> Counter[str]:
    """The same counts in the order of the words."""
    return Counter(dict(sorted(counts.items())))


def _begin(portions: Iterator[list[str]], enough: int) -> tuple[list[list[str]], bool]:
    """The portions that together have `enough` characters, and whether there are so many."""
    first, total = [], 0
    while total < enough and (portion := next(portions, None)) is not None:
        first.append(portion)
        total += sum(map(len, portion))
    return first, total >= enough


def _portions(texts: Iterable[str], splitter: Splitter) -> Iterator[list[str]]:
    """Lists of about `PORTION` characters; a long text comes in parts where the splitter allows it."""
    portion: list[str] = []
    size = 0
    for text in map(without_surrogates, texts):
        for part in splitter.parts(text, PORTION):
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

    def __init__(self, helper: Helper, splitter: Splitter):
        self._helper = helper
        helper.send(_to_bytes(splitter.to_json()))

    def add(self, texts: list[str]) -> None:
        """Send texts."""
        self._helper.send(_to_bytes(texts))

    def result(self) -> Counter[str]:
        """Wait for the counts."""
        self._helper.finish()
        return Counter(json.loads(self._helper.receive()))


def _to_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def _in_processes(portions: Iterator[list[str]], splitter: Splitter, workers: int) -> Counter[str]:
    with contextlib.ExitStack() as stack:
        try:
            helpers = start(WORKER, workers, stack)
        except (OSError, GroundupError) as error:
            from groundup.base.console import warn  # a process that counts need not load it

            warn(f"no process to count in could be started ({error}): counting in this one")
            return count_here(portions, splitter)

        def stop() -> None:
            for helper in helpers:
                helper.kill()

        return functools.reduce(
            operator.iadd, _feed(portions, [ProcessCounter(helper, splitter) for helper in helpers], stop)
        )


def _feed(
    portions: Iterator[list[str]], workers: "Sequence[_Worker[Result]]", stop: Callable[[], None] = lambda: None
) -> "list[Result]":
    """Hand the portions to whichever worker is free, and gather what they counted; `stop` is called after a failure."""
    waiting: queue.Queue[list[str] | None] = queue.Queue(maxsize=len(workers))
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        stop()

    def work(worker: "_Worker[Result]") -> "Result | None":
        error = None
        while (texts := waiting.get()) is not None:  # to the end, even after a failure: the queue must empty
            try:
                if not failed.is_set():
                    worker.add(texts)
            except Exception as raised:
                error = error or raised
                fail()
        if error is not None:
            raise error
        return None if failed.is_set() else worker.result()

    with ThreadPoolExecutor(len(workers)) as pool:
        futures = [pool.submit(work, worker) for worker in workers]
        try:
            for portion in itertools.takewhile(lambda _: not failed.is_set(), portions):
                waiting.put(portion)
        except BaseException:
            fail()
            raise
        finally:
            for _ in workers:
                waiting.put(None)
        try:
            results = [future.result() for future in futures]
        except BaseException:
            fail()
            raise
    return [result for result in results if result is not None]
