"""Where a chat template runs: ours in this process, every other in a sandboxed worker.

The worker is one process that stays, so a rendering there costs little more than one here. It can open no file and no
socket, and its memory and time are bounded; see `base.worker`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from groundup.base import sandbox
from groundup.base.errors import UsageError
from groundup.base.worker import Worker
from groundup.tokenizers.chat.builtin import is_ours
from groundup.tokenizers.chat.template import Block, Limits, Rendered, Signs, check_size, render

MEMORY = 384 << 20
# JSON around a text of Limits.output characters of up to 4 bytes each.
ANSWER_BYTES = 96 << 20


def render_safely(template: str, variables: Mapping[str, Any], signs: Signs, limits: Limits | None = None) -> Rendered:
    """As `template.render`, in a worker unless the template is one of ours.

    Raises:
        UsageError: as there; also where the worker runs out of memory or time, or the variables are no JSON.
    """
    check_size(template)
    if is_ours(template):
        return render(template, variables, signs, limits)
    limits = limits or Limits()
    request = {"template": template, "variables": dict(variables), "signs": asdict(signs), "limits": asdict(limits)}
    try:
        outcome = _worker().call(request, limits.seconds)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"messages, tools and documents must be plain JSON: {error}") from None
    if not outcome.ok:
        raise UsageError(f"the chat template was {_end(outcome)}")
    return _read(outcome.value)


def _end(outcome: sandbox.Outcome) -> str:
    what = {"memory": "stopped: out of memory", "crash": f"stopped: {outcome.message}"}
    return what.get(outcome.kind, outcome.message)


def _read(value: Any) -> Rendered:
    """The worker's answer; it comes from inside the sandbox, so it is checked."""
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        raise UsageError(value["error"])
    try:
        text, blocks = value["text"], value["blocks"]
        found = None if blocks is None else [Block(b["start"], b["end"], b["message"]) for b in blocks]
    except (TypeError, KeyError):
        raise UsageError("the chat template broke its sandbox: the answer is damaged") from None
    if not isinstance(text, str) or not _in_order(found or [], len(text)):
        raise UsageError("the chat template broke its sandbox: the answer is damaged")
    return Rendered(text, found)


def _in_order(blocks: list[Block], size: int) -> bool:
    edges = [edge for block in blocks for edge in (block.start, block.end)]
    whole = all(type(edge) is int for edge in edges) and all(type(b.message) in (int, type(None)) for b in blocks)
    return whole and edges == sorted(edges) and all(0 <= edge <= size for edge in edges)


@cache
def _worker() -> Worker:
    limits = sandbox.Limits(memory_bytes=MEMORY, output_bytes=ANSWER_BYTES)
    return Worker("groundup.tokenizers.chat.template_service:answer", limits)
