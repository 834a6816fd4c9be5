"""Unicode normalization, where a tokenizer asks for it (Unicode Standard Annex 15)."""

import itertools
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Literal, cast, get_args

import regex

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[str, ...] = get_args(NormalForm)

_LONG_RUN = regex.compile(r"\p{M}{32,}+")


def normalizer(form: str | None) -> Callable[[str], str] | None:
    """The function for a form's name; None for None."""
    return None if form is None else partial(normalize, cast(NormalForm, form))


def normalize(form: NormalForm, text: str) -> str:
    """`text` in a Unicode normal form, in time that grows about linearly.

    CPython sorts the marks after a letter by insertion, which is quadratic: long runs are put in canonical order first.
    """
    if text.isascii():
        return text
    return unicodedata.normalize(form, _LONG_RUN.sub(_in_canonical_order, text))


def _in_canonical_order(match: "regex.Match[str]") -> str:
    marks = "".join(unicodedata.normalize("NFD", mark) for mark in match.group())
    ordered: list[str] = []
    # A character of class 0 stands still, and nothing moves across it.
    for _, piece in itertools.groupby(marks, key=lambda mark: unicodedata.combining(mark) == 0):
        ordered.extend(sorted(piece, key=unicodedata.combining))
    return "".join(ordered)
