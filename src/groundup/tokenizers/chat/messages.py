"""A conversation as templates see it: checked, without empty keys, and how its last message is gone on with."""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.base.errors import UsageError, did_you_mean
from groundup.tokenizers.chat.template import Block, Rendered

Message = Mapping[str, Any]

ASSISTANT = ("assistant", "model")
# transformers' names for what a reasoning model thinks; templates read the first, gpt-oss the second.
REASONING = ("reasoning_content", "thinking", "reasoning")

# Whose words a message can be; published templates know some or all of these.
ROLES = ("system", "developer", "user", *ASSISTANT, "tool", "function", "ipython", "observation")
# The roles of tools' answers.
ANSWERING = ("tool", "function", "ipython", "observation")
# Where a message without content says something.
SAYS_ELSEWHERE = {"assistant": ("tool_calls", "function_call", *REASONING), "system": ("tools",)}

_ROLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")


def check_messages(messages: Sequence[Message], template: str = "") -> None:
    """Refuse what no template could write well: each message needs a known role and something that it says.

    A role is known if it is one of `ROLES`, or the template names it. What is said is `content`, a text or a list of
    parts. An assistant's message may hold calls or thoughts instead (`SAYS_ELSEWHERE`), and a system message `tools`;
    what a tool answers may be any JSON.

    Raises:
        UsageError: an empty conversation, or a message that is wrong; it says which, what, and what is allowed.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError(f"messages must be a list of objects with `role` and `content`, got {type(messages).__name__}")
    if not messages:
        raise UsageError(
            'the conversation is empty: at least one message is needed, such as {"role": "user", "content": "Hello"}'
        )
    for place, message in enumerate(messages):
        _check_role(place, message, template)
        _check_content(place, message)


def _check_role(place: int, message: Any, template: str) -> None:
    if not isinstance(message, Mapping):
        raise UsageError(
            f"message {place} is {type(message).__name__}: each must be an object with `role` and `content`"
        )
    if not all(isinstance(key, str) for key in message):
        raise UsageError(f"message {place} has a key that is no text")
    role = message.get("role")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise UsageError(f"message {place} needs a `role` that is a word such as user, got {reprlib.repr(role)}")
    if role not in ROLES and not re.search(rf"""(['"]){re.escape(role)}\1""", template):
        raise UsageError(
            f"message {place}: `{role}` is not a role.{did_you_mean(role, ROLES)} One of {', '.join(ROLES)} is "
            "expected, or one that the chat template names"
        )


def _check_content(place: int, message: Message) -> None:
    role, content = message["role"], message.get("content")
    elsewhere = SAYS_ELSEWHERE.get("assistant" if role in ASSISTANT else role, ())
    if content is None:
        if any(message.get(key) for key in elsewhere):
            return
        instead = f" (or {', '.join(f'`{key}`' for key in elsewhere)})" if elsewhere else ""
        raise UsageError(f"message {place} ({role}) says nothing: it needs `content`, a text{instead}")
    if isinstance(content, str) or role in ANSWERING:
        return
    if not isinstance(content, Sequence) or not all(isinstance(part, (str, Mapping)) for part in content):
        raise UsageError(
            f"message {place} ({role}): `content` must be a text or a list of parts such as "
            f'{{"type": "text", "text": "Hello"}}, got {reprlib.repr(content)}'
        )


def read_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools as a list of objects; JSON text is read.

    Raises:
        UsageError: anything else.
    """
    if tools is None:
        return None
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the tools are no JSON: {error}") from None
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UsageError("tools must be a list of objects: JSON schemas of functions")
    return [dict(tool) for tool in tools]


def read_documents(documents: Any) -> list[dict[str, Any]] | None:
    """Documents as a list of objects; `UsageError` for anything else."""
    if documents is None:
        return None
    if not isinstance(documents, Sequence) or not all(isinstance(item, Mapping) for item in documents):
        raise UsageError("documents must be a list of objects with `title` and `text`")
    return [dict(item) for item in documents]


def prepare(messages: Sequence[Message], template: str = "") -> list[dict[str, Any]]:
    """The messages as the template sees them: without keys that are None, reasoning under each of its names.

    Raises:
        UsageError: as `check_messages`.
    """
    check_messages(messages, template)
    prepared = []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        thought = next((message[key] for key in REASONING if key in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        prepared.append(message)
    return prepared


def mark_end(messages: list[dict[str, Any]], field: bool | str, stop: str) -> str:
    """Put the stop sign at the end of the last message's field; the field's name."""
    name = field if isinstance(field, str) else "content"
    value = messages[-1].get(name) if messages else None
    if value is None:
        raise UsageError(f"there is no last message with `{name}` to be continued")
    last = dict(messages[-1])
    if isinstance(value, str):
        last[name] = value + stop + " "
    else:
        parts = [dict(part) if isinstance(part, Mapping) else part for part in value]
        final = next((part for part in reversed(parts) if isinstance(part, dict) and "text" in part), None)
        if final is None:
            raise UsageError("the last message holds no text to be continued")
        final["text"] = final["text"] + stop + " "
        last[name] = parts
    messages[-1] = last
    return name


def cut_at_end(rendered: Rendered, stop: str, field: str) -> Rendered:
    """The text up to the stop sign. Where the template trimmed the message, its trailing spaces are gone too."""
    end = rendered.text.rfind(stop)
    if end < 0:
        raise UsageError(f"the chat template does not write the last message's `{field}`, so it cannot be continued")
    text = rendered.text[:end]
    if rendered.text[end : end + 2] != stop + " ":
        text = text.rstrip()
    text = text.replace(stop, "")
    if rendered.blocks is None:
        return Rendered(text, None)
    return Rendered(
        text, [Block(b.start, min(b.end, len(text)), b.message) for b in rendered.blocks if b.start < len(text)]
    )
