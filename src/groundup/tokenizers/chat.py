"""Messages and tools straight to token ids, with a mask of what the assistant says.

There is no detour over one text that is then cut up: control tokens come from the template alone. What a user writes
is tokenized as plain text even where it spells <|im_end|>, so nobody can end their turn and speak as someone else.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groundup.base.errors import UsageError
from groundup.tokenizers import chat_templates
from groundup.tokenizers.guarding import Guards, Spellings, spellings, unused_signs
from groundup.tokenizers.pieces import encoder_of
from groundup.tokenizers.rendering import render_safely
from groundup.tokenizers.template import Block, Limits, Rendered, Signs
from groundup.tokenizers.tokenizer import Tokenizer

# For our own models: ChatML (OpenAI, 2023), one line end after each turn; and turns in plain words, for models that only
# ever read text: the built-in stories hold conversations of that form.
CHATML = chat_templates.source("chatml")
TURNS = chat_templates.source("turns")

Message = Mapping[str, Any]
Turns = Literal["marked", "all", "last"]

ASSISTANT = ("assistant", "model")
# transformers' names for what a reasoning model thinks; templates read the first, gpt-oss the second.
REASONING = ("reasoning_content", "thinking", "reasoning")

_ROLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")


@dataclass(frozen=True)
class ChatIds:
    """A conversation as tokens.

    Attributes:
        ids: the tokens.
        mask: for each token, 1 where the assistant says it and the turn counts, else 0; None where the template marks
            no `{% generation %}` blocks.
        text: the rendered text, for people.
        speakers: for each token, the place of the assistant's message that says it, or -1; None as for `mask`.
    """

    ids: list[int]
    mask: list[int] | None
    text: str
    speakers: list[int] | None = None


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    *,
    tools: Sequence[Mapping[str, Any]] | str | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    turns: Turns = "marked",
    continue_final_message: bool | str = False,
    limits: Limits | None = None,
    **variables: Any,
) -> ChatIds:
    """Messages as ids, by a chat template.

    There is exactly one BOS in front where the tokenizer has one. Text is tokenized apart inside and outside of
    `{% generation %}` blocks, so the ids of a prompt are the beginning of the ids of the prompt with its answer.

    Args:
        tokenizer: its templates are used, and its special tokens' names are given to the template.
        messages: each with `role` and `content` (and what else the template reads). Keys that are None count as absent.
        add_generation_prompt: end where the assistant is to begin.
        tools: JSON schemas of functions, or a JSON text of them.
        documents: for templates that quote sources, each with `title` and `text`.
        template: Jinja text, or the name of one of the tokenizer's or of the built-in templates; without it the
            tokenizer's own: `tool_use` where tools are given and it has such a one, else its default.
        turns: which of the assistant's turns the mask covers: "all", the "last", or ("marked") all but those whose
            message says `"train": false` or `"weight": 0`.
        continue_final_message: end inside the last message, to be gone on with; or the name of its field that is.
        limits: of the rendering.
        variables: more for the template.

    Raises:
        UsageError: there is no template, it is wrong, passes a limit or refuses the messages; a message lacks a role;
            tools are no JSON; a built-in template's control tokens are not in the tokenizer.
    """
    source = choose_template(tokenizer, template, tools)
    conversation = _prepare(messages)
    values = {"messages": conversation, "tools": read_tools(tools), "documents": _documents(documents), **variables}
    mark, guard, stop = _signs(3, source, values)
    if continue_final_message:
        if add_generation_prompt:
            raise UsageError("continue_final_message and add_generation_prompt exclude each other")
        field = _continue(values["messages"], continue_final_message, stop)
    controls = spellings(tuple(tokenizer.special_tokens))
    written = spellings(_written_tokens(tokenizer, source))
    guarded, used = _protect(values, controls, written, guard)
    names = {f"{part}_token": getattr(tokenizer.names, part) for part in ("bos", "eos", "pad", "unk")}
    known = {key: token for key, token in names.items() if token is not None}
    signs = Signs(mark, guard, tuple(controls.tokens + written.tokens)) if used else Signs(mark, "")
    given = known | guarded | {"add_generation_prompt": add_generation_prompt}
    rendered = render_safely(source, given, signs, limits)
    if continue_final_message:
        rendered = _cut_short(rendered, stop, field)
    speakers = _speakers(rendered, conversation)
    ids, said = _to_ids(tokenizer, rendered, speakers, controls, written, guard)
    ids, said = _one_bos(tokenizer.bos_id, ids, said)
    text = rendered.text.replace(guard, "")
    if rendered.blocks is None:
        return ChatIds(ids, None, text)
    counted = _counted(conversation, speakers, turns)
    return ChatIds(ids, [int(place in counted) for place in said], text, [max(place, -1) for place in said])


def choose_template(tokenizer: Tokenizer, template: str | None = None, tools: Any = None) -> str:
    """The Jinja text that `render_chat` uses.

    Raises:
        UsageError: no template, or none of this name; a built-in one whose control tokens are not in the tokenizer.
    """
    named = tokenizer.chat_templates
    if template is None:
        if tools is not None and "tool_use" in named:
            return named["tool_use"]
        if tokenizer.chat_template is not None:
            return tokenizer.chat_template
        others = f", or one of its own by name: {', '.join(named)}" if named else ""
        raise UsageError(
            f"this tokenizer has no chat template: set `tokenizer.chat_template`, or choose a built-in one by name "
            f"({', '.join(chat_templates.TEMPLATES)}){others}"
        )
    if template in named:
        return named[template]
    if "{" in template:
        return template
    source = chat_templates.source(template)
    chat_templates.check(template, tokenizer)
    return source


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `UsageError` for a message without a proper role."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError(f"messages must be a list of objects with `role` and `content`, got {type(messages).__name__}")
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise UsageError(f"message {place} needs a `role` that is a word such as user, got {role!r:.80}")
        if not all(isinstance(key, str) for key in message):
            raise UsageError(f"message {place} has a key that is no text")


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


def _documents(documents: Any) -> list[dict[str, Any]] | None:
    if documents is None:
        return None
    if not isinstance(documents, Sequence) or not all(isinstance(item, Mapping) for item in documents):
        raise UsageError("documents must be a list of objects with `title` and `text`")
    return [dict(item) for item in documents]


def _prepare(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as the template sees them: without keys that are None, reasoning under each of its names."""
    check_messages(messages)
    prepared = []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        thought = next((message[key] for key in REASONING if key in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        prepared.append(message)
    return prepared


def _signs(count: int, *values: Any) -> list[str]:
    try:
        return unused_signs(count, *values)
    except RecursionError:
        raise UsageError("the messages or tools are nested too deeply") from None


def _written_tokens(tokenizer: Tokenizer, source: str) -> tuple[str, ...]:
    """Added tokens that are not special but that the template writes, such as Qwen's <tool_call>."""
    return tuple(
        token.content for token in tokenizer.added.tokens
        if not token.special and token.content in source and not token.content.isspace()
    )  # fmt: skip


def _protect(values: dict[str, Any], controls: Spellings, written: Spellings, guard: str) -> tuple[dict, bool]:
    """The values with guards, and whether there are any. An assistant may write what is not special."""
    plain = Guards(controls, guard)
    strict = Guards(spellings((*controls.tokens, *written.tokens)), guard) if written.tokens else plain
    messages = [(plain if message["role"] in ASSISTANT else strict).protect(message) for message in values["messages"]]
    others = {key: strict.protect(value) for key, value in values.items() if key != "messages"}
    return {"messages": messages, **others}, plain.used or strict.used


def _continue(messages: list[dict[str, Any]], field: bool | str, stop: str) -> str:
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


def _cut_short(rendered: Rendered, stop: str, field: str) -> Rendered:
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


def _speakers(rendered: Rendered, messages: list[dict[str, Any]]) -> list[int]:
    """For each block the place of its message, or -2 where that is unknown.

    As many blocks as assistant messages: one each, in order. Otherwise the message that the block read.
    """
    blocks = rendered.blocks or []
    said = [place for place, message in enumerate(messages) if message["role"] in ASSISTANT]
    if len(said) == len(blocks):
        return said
    return [-2 if block.message is None else block.message for block in blocks]


def _counted(messages: list[dict[str, Any]], speakers: list[int], turns: Turns) -> set[int]:
    """The places of the messages that the mask covers."""
    said = [place for place, message in enumerate(messages) if message["role"] in ASSISTANT]
    if turns == "all":
        return {*said, -2}
    if turns == "last":
        counted = set(said[-1:])
    elif turns == "marked":
        counted = {place for place in said if _is_marked(place, messages[place])}
    else:
        raise UsageError(f'`turns` must be "marked", "all" or "last", got {turns!r:.80}')
    if counted == set(said):
        return {*counted, -2}
    if -2 in speakers:
        raise UsageError('the chat template does not tell whose words its blocks are: only turns="all" is possible')
    return counted


def _is_marked(place: int, message: Mapping[str, Any]) -> bool:
    for key in ("train", "weight"):
        if key in message and message[key] not in (0, 1):
            raise UsageError(f"message {place}: `{key}` must be 0, 1, true or false, got {message[key]!r:.80}")
    return bool(message.get("train", True)) and bool(message.get("weight", 1))


def _to_ids(
    tokenizer: Tokenizer,
    rendered: Rendered,
    speakers: list[int],
    controls: Spellings,
    written: Spellings,
    guard: str,
) -> tuple[list[int], list[int]]:
    """Ids, and for each the place of the message that says it; -1 outside of blocks."""
    encoder = encoder_of(tokenizer)
    stripping = {token.content: token for token in tokenizer.added.tokens if _strips(token)}
    ids: list[int] = []
    said: list[int] = []
    encode, before = encoder.start, None
    for text, speaker, begins in _sections(rendered, speakers):
        pieces = list(controls.cut(text))
        for place, (piece, is_control) in enumerate(pieces):
            if is_control:
                found = [tokenizer.special_tokens[piece]]
            else:
                after = pieces[place + 1][0] if place + 1 < len(pieces) else None
                piece = _stripped(piece, None if begins and not place else before, after, stripping)
                found = [number for part in _parts(piece, written, guard) for number in encode(part)] if piece else []
            ids += found
            said += [speaker] * len(found)
            if piece:
                encode, before = (encoder.after_control, piece) if is_control else (encoder.go_on, None)
    return ids, said


def _strips(token: Any) -> bool:
    return getattr(token, "lstrip", False) or getattr(token, "rstrip", False)


def _stripped(text: str, before: str | None, after: str | None, stripping: Mapping[str, Any]) -> str:
    """A text without the spaces that the control tokens around it take to themselves."""
    if before in stripping and getattr(stripping[before], "rstrip", False):
        text = text.lstrip()
    if after in stripping and getattr(stripping[after], "lstrip", False):
        text = text.rstrip()
    return text


def _parts(text: str, written: Spellings, guard: str) -> list[str]:
    """A text without guards; cut at them where it would else become a token that the template writes."""
    plain = text.replace(guard, "")
    if guard in text and written.whole is not None and written.whole.search(plain):
        return [part for part in text.split(guard) if part]
    return [plain] if plain else []


def _sections(rendered: Rendered, speakers: list[int]) -> Iterator[tuple[str, int, bool]]:
    """The text outside and inside of blocks: (text, speaker, whether a block begins here)."""
    end = 0
    for block, speaker in zip(rendered.blocks or (), speakers, strict=True):
        yield rendered.text[end : block.start], -1, False
        yield rendered.text[block.start : block.end], speaker, True
        end = block.end
    yield rendered.text[end:], -1, False


def _one_bos(bos: int | None, ids: list[int], said: list[int]) -> tuple[list[int], list[int]]:
    """Exactly one BOS in front, where there is such a token."""
    if bos is None:
        return ids, said
    extra = next((i for i, number in enumerate(ids) if number != bos), len(ids))
    return [bos, *ids[extra:]], [-1, *said[extra:]]
