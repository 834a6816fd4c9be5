"""Messages straight to token ids, with a mask of what the assistant says.

There is no detour over one text that is then cut up: control tokens come from the template alone. What a user writes
is tokenized as plain text even where it spells <|im_end|>, so nobody can end their turn and speak as someone else.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.base.errors import UsageError
from groundup.tokenizers.template import Limits, Rendered, render
from groundup.tokenizers.tokenizer import Tokenizer

# ChatML (OpenAI, 2023) for our own models, one line end after each turn.
CHATML = """\
{%- if bos_token %}{{ bos_token }}{% endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- "<|im_start|>assistant\\n" }}
        {%- generation %}{{ message.content + "<|im_end|>" }}{% endgeneration %}
        {{- "\\n" }}
    {%- else %}
        {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\\n" }}{% endif %}
"""

# Turns in plain words, for models that only ever read text: the built-in stories hold conversations of this form.
TURNS = """\
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- "Assistant:" }}{% generation %}{{ " " + message.content }}{% endgeneration %}{{ "\\n\\n" }}
    {%- elif message.role == "user" %}
        {{- "User: " + message.content + "\\n\\n" }}
    {%- else %}
        {{- message.content + "\\n\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "Assistant:" }}{% endif %}
"""

Message = Mapping[str, Any]

_ROLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")
# Unicode noncharacters: never part of a text that is exchanged.
_SIGNS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


@dataclass(frozen=True)
class ChatIds:
    """A conversation as tokens.

    Attributes:
        ids: the tokens.
        mask: for each token, 1 where the assistant says it (inside `{% generation %}`), else 0; None where the
            template marks no such blocks.
        text: the rendered text, for people.
    """

    ids: list[int]
    mask: list[int] | None
    text: str


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    *,
    limits: Limits | None = None,
    **variables: Any,
) -> ChatIds:
    """Messages as ids, by the tokenizer's chat template.

    There is exactly one BOS in front where the tokenizer has one. Text is tokenized apart inside and outside of
    `{% generation %}` blocks, so the ids of a prompt are the beginning of the ids of the prompt with its answer.

    Args:
        tokenizer: its `chat_template` is used, and its special tokens' names are given to the template.
        messages: each with `role` and `content` (and what else the template reads).
        add_generation_prompt: end where the assistant is to begin.
        limits: of the rendering.
        variables: more for the template, such as `tools`.

    Raises:
        UsageError: there is no template, it is wrong or passes a limit, or a message lacks a role.
    """
    if tokenizer.chat_template is None:
        raise UsageError(
            "this tokenizer has no chat template: set `tokenizer.chat_template` (chat.CHATML is a plain one)"
        )
    check_messages(messages)
    guard, mark = _unused_signs(messages, variables, tokenizer.chat_template)
    specials = tuple(tokenizer.special_tokens)
    protected = {"messages": list(messages), **variables}
    values = {key: protect(value, specials, guard) for key, value in protected.items()}
    names = {f"{part}_token": getattr(tokenizer.names, part) for part in ("bos", "eos", "pad", "unk")}
    known = {key: token for key, token in names.items() if token is not None}
    rendered = render(
        tokenizer.chat_template, known | values | {"add_generation_prompt": add_generation_prompt}, mark, limits
    )
    ids, mask = _to_ids(tokenizer, rendered, guard)
    ids, mask = _one_bos(tokenizer.bos_id, ids, mask)
    return ChatIds(ids, None if rendered.spans is None else mask, rendered.text.replace(guard, ""))


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `UsageError` for a message without a proper role."""
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise UsageError(f"message {place} needs a `role` that is a word such as user, got {role!r:.80}")


def protect(value: Any, specials: Sequence[str], guard: str) -> Any:
    """`value` with `guard` put inside every special token that a text in it spells.

    The guard is put also at a text's edge where it holds a part of a special token, of which the rest could stand
    beyond the edge.
    """
    if isinstance(value, str):
        return _protect_text(value, specials, guard)
    if isinstance(value, Mapping):
        return {key: protect(item, specials, guard) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [protect(item, specials, guard) for item in value]
    return value


def _protect_text(text: str, specials: Sequence[str], guard: str) -> str:
    begins = any(text.startswith(token[i:]) for token in specials for i in range(1, len(token)))
    ends = any(text.endswith(token[:i]) for token in specials for i in range(1, len(token)))
    for token in specials:
        if len(token) > 1:
            text = text.replace(token, token[0] + guard + token[1:])
    return guard * begins + text + guard * ends


def _unused_signs(*values: Any) -> tuple[str, str]:
    """Two characters that occur nowhere in the values."""
    used = {character for text in _texts(values) for character in _SIGNS if character in text}
    free = [character for character in _SIGNS if character not in used]
    if len(free) < 2:
        raise UsageError("the messages hold all of Unicode's noncharacters U+FDD0 to U+FDEF: they are no text")
    return free[0], free[1]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _to_ids(tokenizer: Tokenizer, rendered: Rendered, guard: str) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    mask: list[int] = []
    for text, said in _sections(rendered):
        found = list(_encode(tokenizer, text, guard))
        ids += found
        mask += [said] * len(found)
    return ids, mask


def _sections(rendered: Rendered) -> Iterator[tuple[str, int]]:
    end = 0
    for start, stop in rendered.spans or ():
        yield rendered.text[end:start], 0
        yield rendered.text[start:stop], 1
        end = stop
    yield rendered.text[end:], 0


def _encode(tokenizer: Tokenizer, text: str, guard: str) -> Iterator[int]:
    for piece in tokenizer.added.special_finder.cut(text):
        if isinstance(piece, int):
            yield piece
        else:
            yield from tokenizer.encode(piece.replace(guard, ""))


def _one_bos(bos: int | None, ids: list[int], mask: list[int]) -> tuple[list[int], list[int]]:
    """Exactly one BOS in front, where there is such a token."""
    if bos is None:
        return ids, mask
    extra = next((i for i, number in enumerate(ids) if number != bos), len(ids))
    return [bos, *ids[extra:]], [0, *mask[extra:]]
