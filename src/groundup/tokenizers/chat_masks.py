"""Whose words a template's blocks are, and which turns of the assistant a loss counts."""

from collections.abc import Mapping
from typing import Any, Literal

from groundup.base.errors import UsageError
from groundup.tokenizers.chat_messages import ASSISTANT
from groundup.tokenizers.template import Rendered

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
            raise UsageError(f"message {place}: `{key}` must be 0, 1, true or false, got {message[key]!r:.80}")
    return bool(message.get("train", True)) and bool(message.get("weight", 1))
