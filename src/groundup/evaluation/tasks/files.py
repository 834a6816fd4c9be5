"""Tasks from the user's own files."""

import json
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.evaluation.task import Cloze, Item, ItemTask, MultipleChoice, TextTask


def question_file(path: str | Path) -> ItemTask:
    r"""A JSONL file of questions, one JSON object a line.

    {"context": "The sky is", "choices": ["blue", "square"], "answer": 0}              continue a text
    {"question": "Capital of France?", "choices": ["Paris", "Rome"], "answer": "Paris"}   asked as below
    {"context": "Roses are", "answer": "red"}                                          without choices: cloze

    A question is asked as "Question: ...\nAnswer:". `answer` is the index or the text of a choice. A choice that begins
    with a letter or digit gets a space before it, unless the context ends in white space.
    """
    path = Path(path)
    items: list[Item] = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if line.strip():
            items.append(_item(line, f"{path}:{number}"))
    if not items:
        raise DataError(f"{path} holds no questions")
    return ItemTask(path.stem, items)


def text_file(path: str | Path) -> TextTask:
    """A text file as one document, or a folder of .txt files as one document each."""
    path = Path(path)
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    texts = [text for text in map(_read, files) if text]
    if not texts:
        raise DataError(f"{path} holds no text: give a text file or a folder of .txt files")
    return TextTask(path.stem, texts)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None


def _item(line: str, where: str) -> Item:
    record = _record(line, where)
    context = _context(record, where)
    answer, choices = record.get("answer"), record.get("choices")
    if choices is None:
        if not isinstance(answer, str) or not answer:
            raise DataError(f'{where}: without "choices", "answer" must be a text')
        return Cloze(context, spaced(context, answer))
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f'{where}: "choices" must be a list of two or more texts')
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f'{where}: "answer" must be one of the choices or an index from 0 to {len(choices) - 1}')
    return MultipleChoice(context, tuple(spaced(context, choice) for choice in choices), answer)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is wanted, found {type(record).__name__}")
    return record


def _context(record: dict[str, Any], where: str) -> str:
    if isinstance(record.get("context"), str):
        return record["context"]
    if isinstance(record.get("question"), str):
        return f"Question: {record['question']}\nAnswer:"
    raise DataError(f'{where}: a "context" or "question" text is missing; the keys are {", ".join(record) or "none"}')


def spaced(context: str, answer: str) -> str:
    """The answer with the space that separates it from its context."""
    return " " + answer if context and not context[-1].isspace() and answer[0].isalnum() else answer
