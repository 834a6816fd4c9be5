"""Rendering Jinja chat templates: sandboxed, bounded in size, steps and time.

The template cannot reach Python's internals or change what it is given (Jinja's ImmutableSandboxedEnvironment), and
every loop turn and call checks the time. A single step, such as a filter asked for a huge width, can still take much
memory, so `rendering.render` runs templates of unknown origin in a process whose memory and time the system bounds.

What templates see is what transformers' `apply_chat_template` gives them: the same whitespace rules, `raise_exception`,
`strftime_now`, `tojson` with its arguments, loop controls and `{% generation %}`.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import CodeType
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from groundup.base.errors import UsageError
from groundup.tokenizers.chat.builtin import MAX_TEMPLATE
from groundup.tokenizers.chat.guarding import Guards, spellings

MAX_POWER = 64


@dataclass(frozen=True)
class Limits:
    """What one rendering may take: characters of output, seconds of processor time."""

    output: int = 2**24
    seconds: float = 5.0


@dataclass(frozen=True)
class Block:
    """A `{% generation %}` block: its characters in the text, and the place of the message that it speaks for.

    `message` is None where the block read no assistant's message.
    """

    start: int
    end: int
    message: int | None


@dataclass(frozen=True)
class Rendered:
    """A rendered text and its generation blocks in order; `blocks` is None where the template has no such block."""

    text: str
    blocks: list[Block] | None


@dataclass(frozen=True)
class Signs:
    """Characters that occur nowhere else: one marks generation blocks, the other guards spelled control tokens.

    guard is empty where no text spells a control token; else it stands inside each spelling of one of `tokens`.
    """

    mark: str
    guard: str
    tokens: Sequence[str] = ()


class _LimitError(Exception):
    """A limit was passed."""


class _Refusal(Exception):
    """The template refuses the messages."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: what the model is to learn to say."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([_call(f"generation_{side}")]) for side in ("begin", "end"))
        return nodes.Scope([begin, *body, end]).set_lineno(line)


def _call(attribute: str) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(attribute), [], [], None, None)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with a clock, bounded arithmetic, and an eye on which message is being read."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, limits: Limits, signs: Signs):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.limits, self.deadline = limits, time.thread_time() + limits.seconds
        self.mark, self.guards = signs.mark, Guards(spellings(tuple(signs.tokens)), signs.guard)
        self.places: dict[int, int] = {}
        self.speaker: int | None = None
        self.filters["tojson"] = self._to_json
        self.filters["length"] = self.filters["count"] = self._size
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _strftime_now

    def watch(self, messages: Any) -> None:
        """Remember the assistant's messages, so that blocks can be told apart."""
        if isinstance(messages, list):
            said = (pair for pair in enumerate(messages) if isinstance(pair[1], dict))
            self.places = {id(message): i for i, message in said if message.get("role") in ("assistant", "model")}

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.speaker = self.places.get(id(obj), self.speaker)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.speaker = self.places.get(id(obj), self.speaker)
        return super().getitem(self.sliceable(obj), argument)

    def sliceable(self, value: Any) -> Any:
        """What places in `value` are counted on: a text with guards as if it had none."""
        guard = self.guards.guard
        return self.guards.units(value) if guard and isinstance(value, str) and guard in value else value

    def generation_begin(self) -> str:
        """What stands before a block."""
        return self.mark + "("

    def generation_end(self) -> str:
        """What stands after a block: it tells whose words they were."""
        return f"{self.mark}){'' if self.speaker is None else self.speaker};"

    def tick(self) -> None:
        """Called at every turn of a loop."""
        if time.thread_time() > self.deadline:
            raise _LimitError(f"takes longer than {self.limits.seconds:g} s")

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.tick()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not all(isinstance(x, (int, float)) and abs(x) <= MAX_POWER for x in (left, right)):
            raise _LimitError(f"raises to a power beyond {MAX_POWER}")
        if operator == "*":
            size = _length(left) * _length(right)
            if size > self.limits.output:
                raise _LimitError(f"multiplies to a size of {size:.3g}")
        return super().call_binop(context, operator, left, right)

    def _size(self, value: Any) -> int:
        """`length`, without guards."""
        return len(self.guards.remove(value) if self.guards.guard and isinstance(value, str) else value)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        def dump(value: Any) -> str:
            return json.dumps(
                value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
            )

        # A guard would be escaped like any character beyond ASCII, so it is put in again afterwards.
        return self.guards.inside(dump(self.guards.remove(value))) if self.guards.guard else dump(value)


def _length(value: Any) -> int:
    """How often a sequence is repeated, or how long it is; 1 for what does not grow by multiplication."""
    if isinstance(value, (str, list, tuple)):
        return len(value)
    return max(int(value), 1) if isinstance(value, int) and abs(value) < 2**63 else 2**63


def _raise(message: Any) -> None:
    raise _Refusal(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def render(template: str, variables: Mapping[str, Any], signs: Signs, limits: Limits | None = None) -> Rendered:
    """The template's text for `variables`, rendered in this process.

    Args:
        template: Jinja source; `{% generation %}` blocks mark what the model says.
        variables: what the template can name; `messages` are watched for who speaks.
        signs: characters that occur neither in the template nor in the variables.
        limits: of output and time.

    Raises:
        UsageError: the template is too large, wrong, unsafe, or passes a limit, or it refuses the messages.
    """
    check_size(template)
    limits = limits or Limits()
    try:
        code, has_blocks = _compiled(template)
        text = _run(_Environment(limits, signs), code, variables, limits)
    except _Refusal as error:
        raise UsageError(f"the chat template refuses these messages: {error}") from None
    except TemplateSyntaxError as error:
        raise UsageError(f"the chat template, line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise UsageError(f"the chat template fails: {error}") from None
    except _LimitError as error:
        raise UsageError(f"the chat template {error}") from None
    except Exception as error:  # whatever a stranger's template does, the caller learns that the template did it
        raise UsageError(f"the chat template fails: {type(error).__name__}: {str(error)[:500]}") from None
    plain, blocks = _take_marks(text, signs.mark)
    return Rendered(plain, blocks if has_blocks else None)


def check_size(template: str) -> None:
    """Raise `UsageError` for a template that no model needs."""
    if len(template) > MAX_TEMPLATE:
        raise UsageError(f"the chat template has {len(template):,} characters; at most {MAX_TEMPLATE:,} are accepted")


@lru_cache(maxsize=16)
def _compiled(template: str) -> tuple[CodeType, bool]:
    """The template's code, and whether it has generation blocks."""
    environment = _Environment(Limits(), Signs("", ""))
    tree = environment.parse(template)
    has_blocks = any(node.name == "generation_begin" for node in tree.find_all(nodes.EnvironmentAttribute))
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Slice):  # Jinja does not ask the environment for these
            item.node = nodes.Call(nodes.EnvironmentAttribute("sliceable"), [item.node], [], None, None)
    for loop in tree.find_all(nodes.For):
        loop.body.insert(0, nodes.ExprStmt(_call("tick")).set_lineno(loop.lineno))
    return environment.compile(tree), has_blocks


def _run(environment: _Environment, code: CodeType, variables: Mapping[str, Any], limits: Limits) -> str:
    environment.watch(variables.get("messages"))
    template = Template.from_code(environment, code, environment.make_globals(None))
    pieces, size = [], 0
    for piece in template.generate(**variables):
        size += len(piece)
        if size > limits.output:
            raise _LimitError(f"writes more than {limits.output:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _take_marks(text: str, mark: str) -> tuple[str, list[Block]]:
    """The text without its marks, and the blocks that they stood around; of nested blocks the outermost."""
    pieces, blocks = [], []
    size = depth = start = end = 0
    for found in re.finditer(rf"{re.escape(mark)}(?:(\()|\)(\d*);)", text):
        pieces.append(text[end : found.start()])
        size, end = size + len(pieces[-1]), found.end()
        if found[1]:
            start, depth = (start, depth + 1) if depth else (size, 1)
        elif depth:
            depth -= 1
            if not depth:
                blocks.append(Block(start, size, int(found[2]) if found[2] else None))
    pieces.append(text[end:])
    return "".join(pieces), blocks
