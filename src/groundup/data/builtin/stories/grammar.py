"""A small template language, and the rules that turn facts into sentences.

    [one|two|]     one of these, chosen at random; may be nested
    <phrase>       one of the alternatives of PHRASES["phrase"]
    {a} {a:form}   the thing in slot `a`, in some form (see `Voice`)

A group of templates says one thing in several ways. Templates that begin with `~` are held out: training never uses
them, testing uses them for half of its sentences.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_TOKENS = re.compile(r"[\[\]|]|\{[^}]*\}|<[a-z_]+>|[^\[\]|{}<]+")


class Slot(NamedTuple):
    """A place in a template that is filled with something of the world."""

    name: str
    form: str


class Choice(NamedTuple):
    """One of several sequences of nodes."""

    options: tuple[tuple, ...]


class Group(NamedTuple):
    """The compiled templates that say one thing."""

    train: tuple[tuple, ...]
    held_out: tuple[tuple, ...]


def compile_template(text: str, phrases: Mapping[str, Sequence[str]]) -> tuple:
    """A template as nodes: str, `Slot` or `Choice`."""
    tokens = _TOKENS.findall(text)
    assert "".join(tokens) == text, f"unreadable template: {text}"
    options, rest = _options(tokens, 0, phrases)
    assert rest == len(tokens), f"unbalanced brackets: {text}"
    assert len(options) == 1, f"alternatives outside of brackets: {text}"
    return options[0]


def _options(tokens: list[str], at: int, phrases: Mapping[str, Sequence[str]]) -> tuple[list[tuple], int]:
    """Sequences separated by `|`, up to a closing bracket or the end; and the position of that."""
    options: list[list] = [[]]
    while at < len(tokens) and tokens[at] != "]":
        token = tokens[at]
        if token == "|":
            options.append([])
        elif token == "[":
            inner, at = _options(tokens, at + 1, phrases)
            assert at < len(tokens), "a bracket is not closed"
            options[-1].append(Choice(tuple(inner)))
        elif token[0] == "{":
            name, _, form = token[1:-1].partition(":")
            options[-1].append(Slot(name, form))
        elif token[0] == "<":
            options[-1].append(Choice(tuple(compile_template(p, phrases) for p in phrases[token[1:-1]])))
        else:
            options[-1].append(token)
        at += 1
    return [tuple(option) for option in options], at


def compile_groups(groups: Mapping[str, Sequence[str]], phrases: Mapping[str, Sequence[str]]) -> dict[str, Group]:
    """Every group compiled, its held-out templates apart."""
    compiled = {}
    for name, templates in groups.items():
        train = tuple(compile_template(t, phrases) for t in templates if t[0] != "~")
        held_out = tuple(compile_template(t[1:], phrases) for t in templates if t[0] == "~")
        assert train, f"{name} has no template for training"
        compiled[name] = Group(train, held_out)
    return compiled


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


_LOWER_START = re.compile(r'(?:^|[.!?] |: (?="))"?[a-z]')


def capitalise(text: str) -> str:
    """Sentences, and quotations that begin one, with a capital letter."""
    return _LOWER_START.sub(lambda match: match[0][:-1] + match[0][-1].upper(), text)


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
