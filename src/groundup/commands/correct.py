"""`groundup correct`: spelling by the noisy channel, with a language model and a channel learned from text."""

import sys
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.base.errors import UsageError
from groundup.commands.command import Command
from groundup.commands.entropy import read_text

SHOWN = 5


class Correct(Command):
    """Correct words by argmax P(words) P(typed | words). Without words: garble held-out text and measure how much is
    mended.
    """

    words: CliPositionalArg[list[str]] = []
    """What was typed; `-` reads lines from standard input."""
    source: str = "pydocs"
    """Where the language is learned: a text file, or a built-in corpus."""
    pairs: Path | None = None
    """A file of lines `typed<TAB>word`, right ones among them, that the channel is learned from; without it the channel
    is a typist's on a QWERTY keyboard."""
    rate: float = Field(default=0.1, gt=0, lt=1)
    """Share of garbled words (without --pairs)."""
    order: int = Field(default=3, ge=1, le=6)
    """n of the language model over words."""
    beam: int = Field(default=32, ge=1)
    """Most histories kept at each word."""
    held_out: int = Field(default=300, ge=1)
    """Sentences of the measurement."""
    seed: int = 0
    """Of the garbling."""

    def run(self) -> dict[str, Any]:
        """Print the corrections, or the measurement."""
        from groundup.generation.noisy_channel import keyboard_channel, learn_channel, sentences

        text = sentences(read_text(self.source))
        channel = keyboard_channel(self.rate) if self.pairs is None else learn_channel(read_pairs(self.pairs))
        return self._measure(text, channel) if not self.words else self._correct(text, channel)

    def _correct(self, text: list[list[str]], channel: Any) -> dict[str, Any]:
        from groundup.generation.noisy_channel import Corrector, sentences

        lines = [line.rstrip("\n") for line in sys.stdin] if self.words == ["-"] else [" ".join(self.words)]
        corrector, results = Corrector(text, channel, self.order, self.beam), []
        for typed in [words for line in lines for words in sentences(line)]:
            decoded = corrector.decode(typed)
            say(" ".join(decoded.words))
            rows = self._told(corrector, typed, decoded.words)
            if rows:
                say(table(rows, ["typed", "meant", "log2 P(typed | meant)", "other candidates"]) + "\n")
            results.append({"typed": typed, "corrected": decoded.words, "bits": decoded.bits})
        if not results:
            raise UsageError("there is no word to correct: give some, or `-` for standard input")
        return {"sentences": results}

    def _told(self, corrector: Any, typed: list[str], corrected: list[str]) -> list[list[str]]:
        rows = []
        for was, word in zip(typed, corrected, strict=True):
            if was != word:
                choices = sorted(corrector.candidates(was), key=lambda choice: -choice[1])
                channel = dict(choices)
                others = [w for w, _ in choices if w not in (was, word)][:SHOWN]
                rows.append([was, word, f"{channel[word]:.1f}", " ".join(others)])
        return rows

    def _measure(self, text: list[list[str]], channel: Any) -> dict[str, Any]:
        from groundup.generation.noisy_channel import Corrector, corrupted
        from groundup.generation.noisy_channel.decoder import judged

        cut = len(text) - min(self.held_out, len(text) // 2)
        meant = text[cut:]
        if not cut or not meant:
            raise UsageError(f"{self.source} is too short to hold sentences back from")
        typed = [corrupted(words, channel, self.seed + number) for number, words in enumerate(meant)]
        rows: dict[str, dict[str, float]] = {}
        for order in sorted({1, self.order}):
            corrector = Corrector(text[:cut], channel, order, self.beam)
            decoded = [corrector.decode(words).words for words in typed]
            rows[f"{order}-grams"] = judged(_flat(meant), _flat(typed), _flat(decoded))
        names = ["right_before", "right_after", "mended", "spoilt"]
        shown = [[name, *(f"{row[n]:.1%}" for n in names)] for name, row in rows.items()]
        first = next(iter(rows.values()))
        say(f"{int(first['words']):,} words of held-out text, garbled by the channel")
        say(table(shown, ["language model", *(n.replace("_", " ") for n in names)]))
        return {"measures": rows}


def _flat(rows: list[list[str]]) -> list[str]:
    return [word for row in rows for word in row]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Lines `typed<TAB>word` in lower case; a `UsageError` names file and line of what is not one."""
    if not path.is_file():
        raise UsageError(f"no file of pairs at {path}")
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.lower().split("\t")
        if len(parts) != 2 or not all(parts):
            raise UsageError(f"{path}, line {number}: expected `typed<TAB>word`, found {line[:60]!r}")
        pairs.append((parts[0], parts[1]))
    return pairs
