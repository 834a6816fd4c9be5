"""A pickle read as data: a small machine of our own that follows its instructions and can call nothing.

A pickle is a program for a stack machine, and Python's own runs it with full powers: any function of any module can be
named and called. This one knows numbers, texts, lists, tuples, dicts and references. A global name is a `Name`, a mark
without meaning, and only those that the caller lists are taken; "calling" one hands its arguments to a function of the
caller's that makes a plain record. Every other name or instruction ends the reading with an error. There is no other
way in, and no way back to Python's unpickler.

The instructions are described in CPython's `pickletools`, whose parser cuts the bytes into instructions here.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from groundup.base.errors import CheckpointError

MAX_INSTRUCTIONS = 5_000_000  # a tensor takes about 30
MAX_INTEGER_BITS = 128


class Name(NamedTuple):
    """A global that a pickle mentions: `module.attribute`, as text."""

    text: str


class Unreadable(ValueError):
    """The bytes are no pickle that can be read as data."""


def read_pickle(
    stream: io.BytesIO,
    *,
    records: Mapping[str, Callable[..., Any]],
    names: Callable[[str], bool],
    persistent: Callable[[Any], Any],
    where: str,
) -> Any:
    """The value of the next pickle in `stream`, which is left behind its end.

    Args:
        stream: the bytes, in memory.
        records: global name -> function that makes a record from the arguments of a "call" of it.
        names: which other global names may be mentioned (and stay marks).
        persistent: what stands for a persistent id.
        where: begins the error messages.

    Raises:
        CheckpointError: damaged, too long, or with names or instructions beyond plain data; nothing was executed.
    """
    machine = _Machine(records, names, persistent)
    try:
        for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise Unreadable(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if code.name == "STOP":
                return machine.pop()
            machine.step(code.name, argument)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{where} is damaged, or no pickle of tensors: {error}") from None
    raise AssertionError("genops ends with STOP or an error")


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "STRING BINSTRING SHORT_BINSTRING".split()
)
STORE = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
FETCH = frozenset(("GET", "BINGET", "LONG_BINGET"))
IGNORED = frozenset(("PROTO", "FRAME"))


class _Machine:
    def __init__(self, records: Mapping[str, Callable[..., Any]], names: Callable[[str], bool], persistent: Callable):
        self.records, self.names, self.persistent = records, names, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open MARK
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in LITERALS:
            self.push(_literal(argument))
        elif name in CONSTANTS:
            self.push(CONSTANTS[name])
        elif name in STORE:
            self.memo[argument] = self.stack[-1]
        elif name in FETCH:
            self.push(self.memo[argument])
        elif name not in IGNORED:
            handler = getattr(self, f"on_{name.lower()}", None)
            if handler is None:
                raise CheckpointError(f"the instruction {name} does more than describe tensors; nothing was executed")
            handler(argument)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the topmost value."""
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Everything above the last MARK."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def on_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def on_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def on_empty_list(self, _: Any) -> None:
        self.push([])

    def on_empty_dict(self, _: Any) -> None:
        self.push({})

    def on_tuple(self, _: Any) -> None:
        items = self.pop_mark()
        self.push(tuple(items))

    def on_tuple1(self, _: Any) -> None:
        self.push((self.pop(),))

    def on_tuple2(self, _: Any) -> None:
        b, a = self.pop(), self.pop()
        self.push((a, b))

    def on_tuple3(self, _: Any) -> None:
        c, b, a = self.pop(), self.pop(), self.pop()
        self.push((a, b, c))

    def on_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.push(items)

    def on_append(self, _: Any) -> None:
        item = self.pop()
        _expect(self.stack[-1], list).append(item)

    def on_appends(self, _: Any) -> None:
        items = self.pop_mark()
        _expect(self.stack[-1], list).extend(items)

    def on_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.push({})
        self._set(items)

    def on_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def on_setitems(self, _: Any) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = _expect(self.stack[-1], dict)
        for key, value in _pairs(items):
            # Only plain keys: the hash of a tuple that holds itself many times over would take for ever.
            if not isinstance(key, (str, int, float, type(None))):
                raise Unreadable(f"a dict has a key of type {type(key).__name__}")
            target[key] = value

    def on_build(self, _: Any) -> None:
        """The attributes of an object; only state dicts have some (`_metadata`), which nothing needs."""
        self.pop()
        _expect(self.stack[-1], dict)

    def on_global(self, argument: str) -> None:
        self._name(argument.replace(" ", "."))

    def on_stack_global(self, _: Any) -> None:
        attribute, module = self.pop(), self.pop()
        self._name(f"{_expect(module, str)}.{_expect(attribute, str)}")

    def _name(self, text: str) -> None:
        if text not in self.records and not self.names(text):
            raise CheckpointError(
                f"it asks for `{text:.80}`, which is not among the few names that describe tensors; nothing was "
                "executed. Where you trust its maker, save its state dict alone, or as safetensors"
            )
        self.push(Name(text))

    def on_reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or name.text not in self.records or not isinstance(arguments, tuple):
            raise CheckpointError("it calls something that is not known here; nothing was executed")
        self.push(self.records[name.text](*arguments))

    def on_binpersid(self, _: Any) -> None:
        self.push(self.persistent(self.pop()))


def _literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise Unreadable("a number is too large")
    return value


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise Unreadable(f"a {kind.__name__} is expected, found {type(value).__name__}")
    return value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise Unreadable("a dict has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))
