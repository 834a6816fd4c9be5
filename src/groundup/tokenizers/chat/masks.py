"""Whose words a template's blocks are, and which turns of the assistant a loss counts."""

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from groundup.base.errors import UsageError
from groundup.tokenizers.chat.guarding import Spellings
from groundup.tokenizers.chat.messages import ASSISTANT
from groundup.tokenizers.chat.template import Block, Rendered

Turns = Literal["marked", "all", "last"]

# Places of tokens that are no assistant's, and of blocks that do not tell whose they are.
NOBODY, UNKNOWN = -1, -2


def block_speakers(rendered: Rendered, messages: list[dict[str, Any]]) -> list[int]:
    """For each block the place of its message, or UNKNOWN.

    As many blocks as assistant messages: one each, in order. Otherwise the message that the block read.
    """
    blocks = rendered.blocks or []
    said = [place for place, message in enumerate(messages) if message["role"] in ASSISTANT]
    if len(said) == len(blocks):
        return said
    return [UNKNOWN if block.message is None else block.message for block in blocks]


def counted_turns(messages: list[dict[str, Any]], speakers: list[int], turns: Turns) -> set[int]:
    """The places of the messages that the mask covers."""
    said = [place for place, message in enumerate(messages) if message["role"] in ASSISTANT]
    if turns == "all":
        return {*said, UNKNOWN}
    if turns == "last":
        counted = set(said[-1:])
    elif turns == "marked":
        counted = {place for place in said if _is_marked(place, messages[place])}
    else:
        raise UsageError(f'`turns` must be "marked", "all" or "last", got {turns!r:.80}')
    if counted == set(said):
        return {*counted, UNKNOWN}
    if UNKNOWN in speakers:
        raise UsageError('the chat template does not tell whose words its blocks are: only turns="all" is possible')
    return counted


def _is_marked(place: int, message: Mapping[str, Any]) -> bool:
    for key in ("train", "weight"):
        if key in message and message[key] not in (0, 1):
            raise UsageError(f"message {place}: `{key}` must be 0, 1, true or false, got {reprlib.repr(message[key])}")
    return bool(message.get("train", True)) and bool(message.get("weight", 1))


def infer_blocks(
    text: str, messages: list[dict[str, Any]], controls: Spellings, render: Callable[[int, bool], str]
) -> list[Block]:
    """Where the assistant's words stand, for a template that does not mark them.

    An answer is what stands between the prompt that asks for it and the end of its turn, as far as its last control
    token.

    Args:
        text: the whole conversation.
        messages: its messages.
        controls: the control tokens.
        render: the text of the first n messages, with the generation prompt or without.

    Raises:
        UsageError: the template writes an earlier turn otherwise once later ones follow, so it cannot be found again.
    """
    blocks = []
    for place, message in enumerate(messages):
        if message["role"] not in ASSISTANT:
            continue
        prompt, upto = render(place, True), render(place + 1, False)
        common = _common_beginning(text, upto)
        end = _end_of_turn(common, len(prompt), controls, whole=common == upto)
        if not common.startswith(prompt) or end is None:
            raise UsageError(
                f"the chat template marks no {{% generation %}} blocks, and without them the words of message {place} "
                "cannot be found: choose a built-in template, or mark the blocks"
            )
        blocks.append(Block(len(prompt), end, place))
    return blocks


def _common_beginning(first: str, second: str) -> str:
    if first.startswith(second):
        return second
    return first[: next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))]


def _end_of_turn(text: str, start: int, controls: Spellings, whole: bool) -> int | None:
    """Behind the last control token after `start`; where there is none, behind the last word of a whole turn."""
    found = list(controls.whole.finditer(text, start)) if controls.whole else []
    if found:
        return found[-1].end()
    return max(start, len(text.rstrip())) if whole else None
