"""Dialogue: a conversation with a model, turn by turn, that can be undone, saved and loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.base.errors import DataError, UsageError
from groundup.base.files import read_json, write_atomic
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import DEFAULT_NEW_TOKENS, context_limit, start_id, stream

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

Message = dict[str, str]
Overflow = Literal["refuse", "drop"]


class Dialogue:
    """Messages so far, and how they become a prompt.

    With a chat template, messages are rendered by it. Without one, the model continues plain text: the system text and
    all turns, one after another.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        sampling: the settings of every answer.
        system: the system text; none where empty.
        overflow: "refuse" an answer that no longer fits the context, or "drop" the oldest turns.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "Tokenizer",
        sampling: SamplingConfig,
        system: str = "",
        overflow: Overflow = "refuse",
    ):
        self.model, self.tokenizer = model, tokenizer
        ends = [*sampling.stop_ids, *turn_end(tokenizer)]
        stops = [*sampling.stop, *next_turn(tokenizer)]
        self.sampling = sampling.model_copy(
            update={"stop_ids": list(dict.fromkeys(ends)), "stop": list(dict.fromkeys(stops))}
        )
        self.system, self.overflow = system, overflow
        self.turns: list[Message] = []
        self.dropped = 0  # messages at the begin that the last prompt left out
        self._tries = 0  # how often the last question was asked again

    @property
    def messages(self) -> list[Message]:
        """The system text and all turns."""
        return self._with_system(self.turns)

    def say(self, text: str, seed: int | None = None) -> Iterator[str]:
        """Add a user message and stream the answer; both are kept once the answer began, and also when it is cut off.

        Raises:
            UsageError: it does not fit the context (and turns are not to be dropped); the dialogue is then as before.
        """
        turns = [*self.turns, {"role": "user", "content": text}]
        sampling = self.sampling if seed is None else self.sampling.model_copy(update={"seed": seed})
        pieces = stream(self.model, self.tokenizer, self._fit(turns), sampling)
        self.turns, self._tries = turns, 0
        return self._answer(pieces)

    def retry(self) -> Iterator[str]:
        """Answer the last user message again, with the next seed."""
        last = self._last_question()
        asked, before, tries = self.turns[last]["content"], self.turns, self._tries + 1
        self.turns = self.turns[:last]
        try:
            seed = None if self.sampling.seed is None else self.sampling.seed + tries
            pieces = self.say(asked, seed)
        except UsageError:
            self.turns = before
            raise
        self._tries = tries
        return pieces

    def undo(self) -> None:
        """Forget the last user message and what came after it."""
        self.turns = self.turns[: self._last_question()]

    def reset(self) -> None:
        """Forget all turns; the system text stays."""
        self.turns = []

    def save(self, path: str | Path) -> None:
        """Write the messages as JSON: {"messages": [{"role", "content"}, ...]}."""
        write_atomic(path, json.dumps({"messages": self.messages}, indent=2, ensure_ascii=False) + "\n")

    def load(self, path: str | Path) -> None:
        """Replace the dialogue by one that `save` wrote; nothing changes where the file cannot be used (DataError)."""
        messages = read_messages(Path(path))
        begins = bool(messages) and messages[0]["role"] == "system"
        self.system = messages[0]["content"] if begins else ""
        self.turns = messages[begins:]

    def prompt(self, turns: list[Message]) -> list[int]:
        """The ids that an answer to `turns` continues."""
        messages = self._with_system(turns)
        if self.tokenizer.chat_template:
            from groundup.tokenizers.chat.render import render_chat

            return render_chat(self.tokenizer, messages, add_generation_prompt=True).ids
        return self.tokenizer.encode(plain_text(messages)) or [start_id(self.tokenizer)]

    def _last_question(self) -> int:
        last = max((i for i, turn in enumerate(self.turns) if turn["role"] == "user"), default=None)
        if last is None:
            raise UsageError("nothing has been said yet")
        return last

    def _with_system(self, turns: list[Message]) -> list[Message]:
        return [{"role": "system", "content": self.system}] * bool(self.system) + turns

    def _fit(self, turns: list[Message]) -> list[int]:
        """The prompt; where asked for, without as many of the oldest turns as do not fit."""
        limit, self.dropped = context_limit(self.model), 0
        ids = self.prompt(turns)
        if limit is None:
            return ids
        room = self.sampling.max_new_tokens or min(DEFAULT_NEW_TOKENS, limit // 4)
        fewest = self.sampling.max_new_tokens or 1
        while self.overflow == "drop" and len(ids) + room > limit and self.dropped + 1 < len(turns):
            self.dropped += 1
            while turns[self.dropped]["role"] != "user":
                self.dropped += 1
            ids = self.prompt(turns[self.dropped :])
        if len(ids) + fewest > limit:
            raise UsageError(
                f"the conversation has {len(ids)} tokens and the answer needs {fewest} more, "
                f"but the model's context holds {limit}: "
                "/undo or /reset, lower --max-new-tokens, or start with --overflow drop"
            )
        return ids

    def _answer(self, pieces: Iterator[str]) -> Iterator[str]:
        answer: Message = {"role": "assistant", "content": ""}
        self.turns = [*self.turns, answer]
        for piece in pieces:
            if not answer["content"]:
                piece = piece.lstrip(" ")  # the space after `Assistant:` belongs to the template
            answer["content"] += piece
            yield piece


def turn_end(tokenizer: "Tokenizer") -> list[int]:
    """The token by which the chat template ends an answer: its last special token; none without one."""
    if not tokenizer.chat_template:
        return []
    from groundup.tokenizers.chat.render import render_chat

    asked = [{"role": "user", "content": "a"}]
    prompt = render_chat(tokenizer, asked, add_generation_prompt=True).ids
    whole = render_chat(tokenizer, [*asked, {"role": "assistant", "content": "b"}]).ids
    special = set(tokenizer.special_tokens.values())
    return [token for token in whole[len(prompt) :] if token in special][-1:]


def next_turn(tokenizer: "Tokenizer") -> list[str]:
    r"""How the template begins the user's next turn (`\n\nUser:`): where the model writes that, its answer is over."""
    if not tokenizer.chat_template or turn_end(tokenizer):
        return []
    from groundup.tokenizers.chat.render import render_chat

    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "\x01"},
        {"role": "user", "content": "\x02"},
    ]
    between = render_chat(tokenizer, turns).text.partition("\x01")[2].partition("\x02")[0].rstrip(" ")
    return [between] if between.strip() else []


def plain_text(messages: list[Message]) -> str:
    """Messages as one text: an answer follows its question directly, everything else begins a new line."""
    parts = []
    for message in messages:
        begins = bool(parts) and message["role"] != "assistant"
        parts.append("\n" * begins + message["content"])
    return "".join(parts)


def read_messages(path: Path) -> list[Message]:
    """The messages of a saved dialogue; an error that says what is wrong otherwise."""
    values = read_json(path)
    messages = values.get("messages") if isinstance(values, dict) else None
    if not isinstance(messages, list):
        raise DataError(f'{path} must hold {{"messages": [...]}}')
    for i, message in enumerate(messages):
        known = isinstance(message, dict) and message.get("role") in ("system", "user", "assistant")
        if not known or not isinstance(message.get("content"), str) or (message["role"] == "system" and i > 0):
            raise DataError(
                f'{path}: message {i + 1} must have a "role" (system first, user, assistant) and a "content" text'
            )
    return [{"role": message["role"], "content": message["content"]} for message in messages]
