"""`groundup tokenizer inspect|compare`: what a tokenizer holds, one token's history, several on one text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import in_colour, say, table, visible, warn
from groundup.base.errors import UsageError
from groundup.commands.tokenizer import WithText, load
from groundup.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from groundup.tokenizers.comparison import Difference, Measured
    from groundup.tokenizers.history import History

# Dark text on light blue, green, yellow and pink: readable on dark and light terminals.
_COLOURS = tuple(f"\x1b[30;48;5;{number}m" for number in (153, 157, 229, 218))
_PLAIN = "\x1b[0m"


class TokenizerInspect(WithText):
    """What a tokenizer holds, how it cuts a text, and how one token was built."""

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    text: CliPositionalArg[list[str]] = []
    """A text to show cut into tokens."""
    token: str | None = None
    """One token (its spelling, its text, or its id), whose history to show: bytes, rank, the merges that build it."""
    pattern: str | None = None
    """How text is cut, for files that do not say it."""

    def run(self) -> dict[str, Any]:
        """Print the facts, one token's history, and the tokens of the text."""
        tokenizer = load(self.path, self.pattern)
        facts = describe(tokenizer)
        if self.token is not None:
            return facts | {"history": self._history(tokenizer, self.token)}
        say(table(((key, value) for key, value in facts.items()), ("what", "value")))
        if not self.text and self.file is None:
            return facts
        text = self.read(self.text)
        ids = tokenizer.encode(text)
        rows = [(number, repr(tokenizer.token(number)), repr(tokenizer.token_bytes(number))) for number in ids]
        say("\n" + table(rows, ("id", "token", "bytes")))
        say(f"\n{len(text)} characters, {len(text.encode(errors='replace'))} bytes, {len(ids)} tokens")
        return facts | {"tokens": [{"id": number, "token": tokenizer.token(number)} for number in ids]}

    def _history(self, tokenizer: Tokenizer, wanted: str) -> dict[str, Any]:
        from groundup.tokenizers.history import find, history

        found = history(tokenizer, find(tokenizer, wanted))
        say(tell(found))
        return {
            "id": found.id,
            "token": found.token,
            "bytes": found.data.hex(" "),
            "sort": found.sort,
            "start": found.start,
            "merges": [{"rank": step.rank, "left": step.left, "right": step.right} for step in found.merges],
            "whole": found.whole,
            "notes": found.notes,
        }


def tell(found: "History") -> str:
    """A token's history for people."""
    facts = [
        ("id", found.id),
        ("token", repr(found.token)),
        ("bytes", f"{found.data.hex(' ')} ({len(found.data)})"),
        ("text", repr(found.data.decode("utf-8", errors="backslashreplace"))),
        ("kind", f"{found.kind}, {found.sort}"),
        *(("note", note) for note in found.notes),
    ]
    lines = [table(facts, ("what", "value"))]
    if found.start:
        lines.append(f"\nfrom {visible(' '.join(found.start))}")
        rows = [(step.rank, f"{step.left} + {step.right}", " ".join(step.state)) for step in found.merges]
        lines.append(table(rows, ("rank", "merge", "symbols after it")) if rows else "no merge builds it")
    if not found.whole:
        lines.append(
            "\nmerges alone do not lead to this token: it occurs only where a piece of the text is it as a whole"
        )
    return "\n".join(lines)


class TokenizerCompare(WithText):
    """Several tokenizers on one text: tokens per byte and word, coverage, speed, where ids differ, and the pieces."""

    paths: CliPositionalArg[list[str]]
    """Tokenizers: folders, files or hub names; the text comes from --text, --file or a pipe."""
    text: str | None = None
    """The text to compare on."""
    pattern: str | None = None
    """How text is cut, for those of the files that do not say it."""
    pieces: int = Field(default=400, ge=0)
    """How many characters of the text to show cut into tokens; 0 for none."""

    def run(self) -> dict[str, Any]:
        """Print a line for each tokenizer, where they differ from the first, and the pieces."""
        from groundup.tokenizers.comparison import compare

        tokenizers = {path: self._load(path) for path in self.paths}
        text = self.read([] if self.text is None else [self.text])
        measured = compare(tokenizers, text)
        for row in measured:
            if row.error:
                warn(f"{row.name}: {row.error}")
        say(table((_line(row).values() for row in measured), _line(measured[0])))
        agreement = self._agreement(tokenizers, measured)
        self._show_pieces(tokenizers, measured, text)
        size = len(text.encode("utf-8", errors="replace"))
        return {"bytes": size, "results": [as_json(row) for row in measured], "agreement": agreement}

    def _load(self, path: str) -> Tokenizer:
        try:
            return load(path, self.pattern)
        except UsageError as error:
            if self.pattern is None or "leave `pattern` off" not in str(error):
                raise
            return load(path)  # this file says itself how text is cut

    def _agreement(self, tokenizers: dict[str, Tokenizer], measured: "list[Measured]") -> list[dict[str, Any]]:
        """Whether each tokenizer's ids are those of the first, or where they first differ."""
        from groundup.tokenizers.comparison import first_difference

        able = [row for row in measured if row.error is None]
        found = []
        for row in able[1:]:
            first = able[0]
            difference = first_difference(tokenizers[first.name], first.ids, tokenizers[row.name], row.ids)
            say(f"\n{row.name}: {_tell_difference(first.name, difference)}")
            found.append({"first": first.name, "second": row.name, "equal": difference is None})
            if difference is not None:
                found[-1] |= {"token": difference.token, "cut": difference.cut, "byte": difference.byte}
        return found

    def _show_pieces(self, tokenizers: dict[str, Tokenizer], measured: "list[Measured]", text: str) -> None:
        from groundup.tokenizers.comparison import pieces

        colour = in_colour()
        for row in measured if self.pieces > 0 else []:
            if row.error is None:
                tokenizer = tokenizers[row.name]
                ids = row.ids if len(text) <= self.pieces else tokenizer.encode(text[: self.pieces])
                say(f"\n{row.name}\n{paint(pieces(tokenizer, ids), colour)}")


def _tell_difference(first: str, difference: "Difference | None") -> str:
    if difference is None:
        return f"the same ids as {first}"
    if difference.cut is None:
        return f"cuts as {first} does, with other ids from token {difference.token} on ({difference.first!r})"
    ours, theirs = ("the end" if piece is None else repr(piece) for piece in (difference.first, difference.second))
    return (
        f"other ids than {first} from token {difference.token} on; cuts differ at token {difference.cut}, byte "
        f"{difference.byte}, after {difference.before!r}: {theirs} instead of {ours}"
    )


def _line(row: "Measured") -> dict[str, object]:
    def shown(value: float | None, digits: int) -> object:
        return "-" if value is None else round(value, digits)

    return {
        "tokenizer": row.name,
        "kind": row.kind,
        "vocabulary": row.vocabulary,
        "tokens": shown(row.tokens, 0),
        "tokens/byte": shown(row.tokens_per_byte, 4),
        "tokens/word": shown(row.tokens_per_word, 3),
        "unknown": shown(row.unknown, 0),
        "coverage": f"{row.coverage:.1%}",
        "MB/s": shown(row.megabytes_per_second, 2),
        "lossless": "yes" if row.lossless else "no",
    }


def as_json(row: "Measured") -> dict[str, Any]:
    """A tokenizer's figures, by name."""
    return {
        "tokenizer": row.name,
        "kind": row.kind,
        "vocabulary": row.vocabulary,
        "tokens": row.tokens,
        "tokens_per_byte": row.tokens_per_byte,
        "tokens_per_word": row.tokens_per_word,
        "unknown": row.unknown,
        "coverage": row.coverage,
        "megabytes_per_second": row.megabytes_per_second,
        "lossless": row.lossless,
        "error": row.error,
    }


def paint(pieces: Iterable[str], colour: bool) -> str:
    """Pieces side by side: in turning colours, or with bars between. Control characters are shown, never sent."""
    shown = [visible(piece) for piece in pieces]
    if not colour:
        return "|".join(piece.replace("\n", "\\n") for piece in shown)
    return "".join(_paint_one(piece, _COLOURS[i % len(_COLOURS)]) for i, piece in enumerate(shown))


def _paint_one(piece: str, colour: str) -> str:
    # A line's end stands outside of the colour, which would fill the rest of the line.
    return "\n".join(f"{colour}{part}{_PLAIN}" if part else "" for part in piece.replace("\n", "↵\n").split("\n"))


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer's facts and the statistics of its vocabulary, by name."""
    sizes = {number: len(tokenizer.token_bytes(number)) for number in tokenizer.vocab.values()}
    longest = max(sizes, key=lambda number: sizes[number])
    model = getattr(tokenizer, "model", None)
    merges = getattr(tokenizer, "merges", None) or getattr(model, "merges", None) or ()
    added = sum(not token.special for token in tokenizer.added.tokens)
    return {
        "kind": tokenizer.algorithm,
        "model": type(model).__name__ if model is not None else type(tokenizer).__name__,
        "vocabulary": tokenizer.vocab_size,
        "tokens": len(tokenizer.vocab),
        "merges": len(merges),
        "added tokens": added,
        "pattern": getattr(tokenizer, "pattern", None),
        "normal form": getattr(tokenizer, "normal_form", None),
        "special tokens": " ".join(_few(f"{token}={number}" for token, number in tokenizer.special_tokens.items())),
        "BOS, EOS, pad, unk": str((tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)),
        "mean bytes a token": round(sum(sizes.values()) / len(sizes), 3),
        "longest token": f"{tokenizer.token(longest)!r:.80} ({sizes[longest]} bytes)",
        "begin with a space": sum(tokenizer.token_bytes(number).startswith(b" ") for number in sizes),
        "chat template": "yes" if tokenizer.chat_template else "no",
        "fingerprint": tokenizer.fingerprint(),
    }


def _few(items: Iterable[str], most: int = 24) -> list[str]:
    shown = list(items)
    return shown if len(shown) <= most else [*shown[:most], f"and {len(shown) - most} more"]
