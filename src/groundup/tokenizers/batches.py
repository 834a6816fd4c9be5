"""Large batches of the kinds without compiled loops: encoded by processes, one for each processor.

A process is worth its start and the loading of the tokenizer only for much text. So batches are encoded one text after
the other until a tokenizer has met `WORTH` characters in large batches; then it is saved to a temporary folder, each
process loads it once and says whether what it loaded is the same, and from then on they wait for further batches. They
end with the tokenizer, or with the program. Small batches never come here.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import threading
import weakref
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from groundup.base.errors import GroundupError
from groundup.base.threads import default_threads
from groundup.tokenizers.compiled import portions
from groundup.tokenizers.processes import Helper, start
from groundup.tokenizers.tokenizer import Tokenizer, without_surrogates

WORTH = 2**23  # characters: some ten seconds of work
PORTION = 2**17
WORKER = "groundup.tokenizers.batches_worker"

Ids = list[list[int]]
Options = dict[str, bool]
Here = Callable[[Sequence[str]], Ids]


def encode(tokenizer: Tokenizer, texts: Sequence[str], options: Options, here: Here) -> Ids:
    """The ids of each text.

    Args:
        tokenizer: any that can be saved; others are encoded with here.
        texts: a large batch.
        options: of `Tokenizer.encode`.
        here: encodes texts in this process.
    """
    team = _team(tokenizer, sum(map(len, texts)))
    if team is None:
        return here(texts)
    try:
        return team.encode(texts, options, here)
    finally:
        with _teams.lock:
            if team.dead:  # a process died: no more of them
                _teams.teams[tokenizer] = None
            elif team.closed:  # interrupted: the next large batch starts others
                _teams.teams.pop(tokenizer, None)


class _Teams:
    """The processes of each tokenizer (None: there can be none), and how many characters it has met."""

    def __init__(self) -> None:
        self.lock, self.owner = threading.Lock(), os.getpid()
        self.met: weakref.WeakKeyDictionary[Tokenizer, int] = weakref.WeakKeyDictionary()
        self.teams: weakref.WeakKeyDictionary[Tokenizer, Team | None] = weakref.WeakKeyDictionary()


_teams = _Teams()


def _team(tokenizer: Tokenizer, size: int) -> "Team | None":
    """The processes for a tokenizer; None where they are not worth it, or there can be none."""
    global _teams
    if _teams.owner != os.getpid():  # after a fork: they are the parent's
        _teams = _Teams()
    if default_threads() == 1:
        return None
    with _teams.lock:
        met = _teams.met[tokenizer] = _teams.met.get(tokenizer, 0) + size
        if met >= WORTH and tokenizer not in _teams.teams:
            _teams.teams[tokenizer] = _start(tokenizer)
        return _teams.teams.get(tokenizer)


def _start(tokenizer: Tokenizer) -> "Team | None":
    try:
        return Team(tokenizer, default_threads())
    except (OSError, GroundupError, NotImplementedError) as error:
        _warn(f"no process to encode in could be started ({error}): encoding in this one")
        return None


class Team:
    """Processes that hold a tokenizer.

    Args:
        tokenizer: what they load.
        count: how many.

    Attributes:
        dead: one of them ended by itself.
        closed: they were ended.

    Raises:
        OSError, GroundupError, NotImplementedError: they do not start, or do not load the same tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, count: int):
        self.dead = self.closed = False
        self._lock = threading.Lock()
        with tempfile.TemporaryDirectory(prefix="groundup-tokenizer-") as folder, contextlib.ExitStack() as stack:
            tokenizer.save_pretrained(folder)
            self.helpers = start(WORKER, count, stack)
            expected = identity(tokenizer)
            for helper in self.helpers:
                helper.send(json.dumps(folder).encode("utf-8"))
            for helper in self.helpers:
                if (found := helper.receive().decode("utf-8")) != expected:
                    raise GroundupError(f"what was saved of a {type(tokenizer).__name__} is not the same: {found}")
            self.close = weakref.finalize(tokenizer, _close, stack.pop_all(), os.getpid())

    def encode(self, texts: Sequence[str], options: Options, here: Here) -> Ids:
        """The ids of each text; one batch at a time."""
        with self._lock:
            return here(texts) if self.dead or self.closed else _Batch(self, texts, options, here).run()


def _close(processes: contextlib.ExitStack, owner: int) -> None:
    if owner == os.getpid():
        processes.close()


class _Batch:
    """Portions of texts, handed to whichever process is free; results in the order of the texts."""

    def __init__(self, team: Team, texts: Sequence[str], options: Options, here: Here):
        self.team, self.texts, self.options, self.here = team, texts, options, here
        places = list(portions(texts, PORTION))
        self._waiting, self._lock = iter(enumerate(places)), threading.Lock()
        self.results: list[Ids] = [[] for _ in places]
        self.errors: dict[int, Exception] = {}

    def run(self) -> Ids:
        """Ids of all texts.

        Raises:
            Exception: what `encode` says of the first text that has no ids.
        """
        team = self.team
        with ThreadPoolExecutor(len(team.helpers)) as pool:
            try:
                list(pool.map(self._work, team.helpers))
            except BaseException:  # an interrupt
                team.closed = True
                for helper in team.helpers:
                    helper.kill()
                team.close()
                raise
        if self.errors:
            raise self.errors[min(self.errors)]
        return list(itertools.chain.from_iterable(self.results))

    def _take(self) -> tuple[int, tuple[int, int]] | None:
        with self._lock:  # after an error nothing new is begun, but all that stands before it is finished
            return None if self.errors or self.team.closed else next(self._waiting, None)

    def _work(self, helper: Helper) -> None:
        while (taken := self._take()) is not None:
            number, (start, end) = taken
            texts = self.texts[start:end]
            try:
                self.results[number] = self._asked(helper, texts) or self.here(texts)
            except Exception as error:
                self.errors[number] = error

    def _asked(self, helper: Helper, texts: Sequence[str]) -> Ids | None:
        """What the process answers; None where it cannot: then the same is done here, with the same error."""
        if self.team.dead or self.team.closed:
            return None
        try:
            helper.send(json.dumps([list(map(without_surrogates, texts)), self.options]).encode("utf-8"))
            return ids_from(helper.receive(), len(texts))
        except GroundupError as error:
            with self._lock:
                if not (self.team.dead or self.team.closed):
                    self.team.dead = True
                    _warn(f"{error}: encoding in this one")
            return None


def _warn(text: str) -> None:
    from groundup.base.console import warn  # a process that encodes need not load it

    warn(text)


def identity(tokenizer: Tokenizer) -> str:
    """What tells whether two tokenizers, perhaps of different classes, give the same ids.

    Of a class that is not of this package nobody knows what it does beside what it writes down.
    """
    kind = type(tokenizer)
    if not kind.__module__.startswith(f"{__package__}."):
        return f"{kind.__module__}.{kind.__qualname__}"
    written = tokenizer.fingerprint() if tokenizer.kind == "sentencepiece" else tokenizer.to_json()
    parts = [written, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()


def ids_as_bytes(ids: Ids) -> bytes:
    """How many ids each text has, and then all of them."""
    numbers = array("i", map(len, ids))
    for some in ids:
        numbers.extend(some)
    return numbers.tobytes()


def ids_from(message: bytes, texts: int) -> Ids | None:
    """The ids in the bytes; None for a message of no bytes: they could not be told."""
    numbers = array("i", message).tolist()
    if not numbers:
        return None
    ends = list(itertools.accumulate(numbers[:texts], initial=texts))
    return [numbers[start:end] for start, end in itertools.pairwise(ends)]
