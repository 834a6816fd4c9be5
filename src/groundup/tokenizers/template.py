"""Rendering Jinja chat templates of unknown origin: sandboxed, bounded in size, steps and time.

The template cannot reach Python's internals or change what it is given (Jinja's ImmutableSandboxedEnvironment), and
every loop turn and call checks the limits. One filter called with a huge width can still ask for much memory in a
single step; whoever renders templates of strangers does so in a worker process with a memory limit.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from groundup.base.errors import UsageError

MAX_TEMPLATE = 2**20
MAX_NUMBER = 2**20


@dataclass(frozen=True)
class Limits:
    """What one rendering may take: characters of output, seconds."""

    output: int = 2**24
    seconds: float = 5.0


@dataclass(frozen=True)
class Rendered:
    """A rendered text, and the (start, end) character spans of its `{% generation %}` blocks.

    `spans` is None where the template has no such block.
    """

    text: str
    spans: list[tuple[int, int]] | None


class _LimitError(Exception):
    """A limit was passed."""


class _Mark:
    """The unique text that stands at a block's beginning and end until the text is whole."""

    def __init__(self, sign: str):
        self.begin, self.end = sign + "(", sign + ")"


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: what the model is to learn to say."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.Output([nodes.MarkSafe(nodes.EnvironmentAttribute(f"generation_{side}"))])
            for side in ("begin", "end")
        )
        return nodes.Scope([begin, *body, end]).set_lineno(line)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with a clock and bounded arithmetic."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, limits: Limits, mark: _Mark):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.limits, self.deadline = limits, time.monotonic() + limits.seconds
        self.generation_begin, self.generation_end = mark.begin, mark.end
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise

    def tick(self) -> None:
        """Called at every turn of a loop."""
        if time.monotonic() > self.deadline:
            raise _LimitError(f"takes longer than {self.limits.seconds:g} s")

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.tick()
        for value in (*args, *kwargs.values()):
            self._check_size(value)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise _LimitError("raises to a power, which chat templates have no need for")
        if operator == "*":
            size = _extent(left) * _extent(right)
            if size > MAX_NUMBER:
                raise _LimitError(f"multiplies to a size of {size:,}")
        if operator == "%" and isinstance(left, str) and len(left) < 2**31:
            raise _LimitError("formats with `%`: use `~` to join texts")
        return super().call_binop(context, operator, left, right)

    def _check_size(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise _LimitError(f"uses the number {value:.3g}")


def _extent(value: Any) -> int:
    if isinstance(value, (int, float)):
        return int(abs(value))
    return len(value) if hasattr(value, "__len__") else 1


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise UsageError(f"the chat template refuses these messages: {message}")


def render(template: str, variables: Mapping[str, Any], sign: str, limits: Limits | None = None) -> Rendered:
    """The template's text for `variables`.

    Args:
        template: Jinja source; `{% generation %}` blocks mark what the model says.
        variables: what the template can name.
        sign: a text that occurs neither in the template nor in the variables; marks the blocks meanwhile.
        limits: of output and time.

    Raises:
        UsageError: the template is too large, wrong, unsafe, or passes a limit, or it refuses the messages.
    """
    if len(template) > MAX_TEMPLATE:
        raise UsageError(f"the chat template has {len(template):,} characters; at most {MAX_TEMPLATE:,} are accepted")
    limits, mark = limits or Limits(), _Mark(sign)
    environment = _Environment(limits, mark)
    try:
        tree = environment.parse(template)
        has_blocks = any(True for _ in tree.find_all(nodes.EnvironmentAttribute))
        text = _run(environment, _with_ticks(tree), variables, limits)
    except TemplateSyntaxError as error:
        raise UsageError(f"the chat template, line {error.lineno}: {error.message}") from None
    except (TemplateError, _LimitError, TypeError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise UsageError(f"the chat template {error or type(error).__name__}") from None
    plain, spans = _take_marks(text, mark)
    return Rendered(plain, spans if has_blocks else None)


def _with_ticks(tree: nodes.Template) -> nodes.Template:
    for loop in tree.find_all(nodes.For):
        tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(tick).set_lineno(loop.lineno))
    return tree


def _run(environment: _Environment, tree: nodes.Template, variables: Mapping[str, Any], limits: Limits) -> str:
    code = environment.compile(tree)
    template = Template.from_code(environment, code, environment.make_globals(None))
    pieces, size = [], 0
    for piece in template.generate(**variables):
        size += len(piece)
        if size > limits.output:
            raise _LimitError(f"writes more than {limits.output:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _take_marks(text: str, mark: _Mark) -> tuple[str, list[tuple[int, int]]]:
    spans, plain = [], ""
    before, *blocks = text.split(mark.begin)
    plain = before
    for block in blocks:
        inside, _, after = block.partition(mark.end)
        spans.append((len(plain), len(plain) + len(inside)))
        plain += inside + after
    return plain, spans
