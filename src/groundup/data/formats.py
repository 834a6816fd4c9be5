"""What the columns of a record say about its format, and how a record becomes plain text."""

from collections.abc import Iterable, Mapping
from typing import Any

# The columns that must be there, the most telling format first.
FORMATS: dict[str, frozenset[str]] = {
    "preference": frozenset({"chosen", "rejected"}),
    "unpaired preference": frozenset({"prompt", "completion", "label"}),
    "stepwise": frozenset({"prompt", "completions", "labels"}),
    "messages": frozenset({"messages"}),
    "ShareGPT": frozenset({"conversations"}),
    "prompt-completion": frozenset({"prompt", "completion"}),
    "Alpaca": frozenset({"instruction", "output"}),
    "text": frozenset({"text"}),
    "prompt only": frozenset({"prompt"}),
}


def guess_format(columns: Iterable[str]) -> str | None:
    """The name of the known format whose columns are all there, or None."""
    names = set(columns)
    return next((name for name, needed in FORMATS.items() if needed <= names), None)


def nearest_format(columns: Iterable[str]) -> str:
    """The known format that misses the smallest share of its columns, with what it wants."""
    names = {column.lower() for column in columns}
    name = min(FORMATS, key=lambda key: (len(FORMATS[key] - names) / len(FORMATS[key]), key != "text"))
    return f"{name} ({', '.join(sorted(FORMATS[name]))})"


def render_record(record: Mapping[str, Any]) -> str | None:
    """A conversation, prompt-completion, Alpaca or preference record as plain text; None for other records.

    One paragraph a turn. This is for reading and for pre-training on such data as prose; fine-tuning renders the same
    records with the model's chat template and a loss mask instead.
    """
    format = guess_format(record)
    if format == "messages":
        return _turns((m.get("role"), m.get("content")) for m in _dicts(record["messages"]))
    if format == "ShareGPT":
        return _turns((m.get("from"), m.get("value")) for m in _dicts(record["conversations"]))
    if format in ("prompt-completion", "unpaired preference"):
        return _join(record["prompt"], record["completion"])
    if format == "Alpaca":
        return _join(record["instruction"], record.get("input"), record["output"])
    if format == "preference":
        return _join(record.get("prompt"), record["chosen"])
    return None


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _turns(turns: Iterable[tuple[Any, Any]]) -> str:
    return "\n\n".join(f"{role}: {content}" for role, content in turns if content)


def _join(*parts: Any) -> str:
    texts = [_turns((m.get("role"), m.get("content")) for m in _dicts(p)) if isinstance(p, list) else p for p in parts]
    return "\n\n".join(str(text) for text in texts if text)
