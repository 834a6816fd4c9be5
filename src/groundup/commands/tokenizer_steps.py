"""`groundup tokenizer steps`: byte-pair encoding learnt before one's eyes, merge by merge."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table, visible
from groundup.commands.command import Command
from groundup.commands.tokenizer import read_text

if TYPE_CHECKING:
    from groundup.tokenizers.bpe_steps import Step, Trace

MOST_RIVALS = 3  # shown beside a step


class TokenizerSteps(Command):
    """Learn BPE from a small text and show each merge: pair, count, new symbol, and symbols that are used up."""

    files: CliPositionalArg[list[Path]]
    """Text files; words are what stands between white space."""
    steps: int = Field(default=20, ge=1, le=10_000)
    """How many merges to learn; every step counts all pairs anew, so this is for small texts."""
    end_of_word: Literal["none", "own", "joined"] = "none"
    """own: the symbol </w> stands behind each word, as in the paper; joined: it is joined to the last character, as the
    trainable kind bpe does; none: ends are not marked."""
    ties: Literal["first", "ids"] = "first"
    """Which of equally frequent pairs is merged: the first in the text, or that of older symbols, as in trainers."""
    min_frequency: int = Field(default=1, ge=1)
    """Pairs seen less often are not merged."""

    def run(self) -> dict[str, Any]:
        """Print a line for each merge, and the words as they are cut at the end."""
        from groundup.tokenizers.bpe_steps import learn_steps, words_of

        words = words_of(read_text(path) for path in self.files)
        trace = learn_steps(
            words, self.steps, end_of_word=self.end_of_word, ties=self.ties, min_frequency=self.min_frequency
        )
        say(tell(trace))
        if len(trace.steps) < self.steps:
            say(f"\nno pair occurs {self.min_frequency} times any more")
        return {
            "start": [{"symbols": word, "count": count} for word, count in trace.start.items()],
            "steps": [_as_json(number, step) for number, step in enumerate(trace.steps, start=1)],
            "vocabulary": dict(trace.vocabulary),
        }


def tell(trace: "Trace") -> str:
    """A trace for people."""
    rows = [
        (number, " + ".join(step.pair), step.count, step.symbol, " ".join(step.removed), len(step.vocabulary),
         _rivals(step))
        for number, step in enumerate(trace.steps, start=1)
    ]  # fmt: skip
    words = trace.steps[-1].words if trace.steps else trace.start
    most = sorted(words.items(), key=lambda item: -item[1])[:10]
    heads = ("step", "pair", "count", "new symbol", "used up", "symbols", "as frequent")
    lines = [table(rows, heads)] if rows else ["there is nothing to merge"]
    lines.append("\nwords, the most frequent first:")
    lines += [f"  {visible(' '.join(word))} ({count})" for word, count in most]
    return "\n".join(lines)


def _rivals(step: "Step") -> str:
    shown = ", ".join("+".join(pair) for pair in step.rivals[:MOST_RIVALS])
    more = len(step.rivals) - MOST_RIVALS
    return f"{shown} and {more} more" if more > 0 else shown


def _as_json(number: int, step: "Step") -> dict[str, Any]:
    return {
        "step": number,
        "pair": step.pair,
        "count": step.count,
        "symbol": step.symbol,
        "removed": step.removed,
        "rivals": step.rivals,
        "symbols": len(step.vocabulary),
    }
