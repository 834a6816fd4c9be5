"""`groundup tokenizer chat`: what a conversation becomes: text, ids, and which of them the assistant says."""

import sys
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic_settings import CliPositionalArg

from groundup.base.console import in_colour, say, table, visible
from groundup.base.errors import DataError, UsageError
from groundup.base.files import no_file, parse_json, read_json
from groundup.commands.command import Command
from groundup.tokenizers.chat.builtin import TEMPLATES

if TYPE_CHECKING:
    from groundup.tokenizers.chat.render import ChatIds
    from groundup.tokenizers.tokenizer import Tokenizer

MAX_INPUT = 64 << 20
GREEN, DIM, BOLD, PLAIN = "\033[32m", "\033[2m", "\033[1m", "\033[0m"


class TokenizerChat(Command):
    r"""A conversation as text, ids and loss mask, by the tokenizer's chat template or a built-in one.

    On a terminal the assistant's words, those that the loss counts, are green, and control tokens are bold. Characters
    that cannot be seen are spelled (`\x1b`) in what is shown; ids and `--json` are exact.
    """

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    file: CliPositionalArg[str] = "-"
    """JSON: a list of messages with role and content, or an object with `messages` (and `tools`, `documents`);
    - is standard input."""
    template: str | None = None
    """A built-in template (chatml, qwen, llama-3, mistral, ...), one of the tokenizer's by name, or a file of Jinja
    text; without it the tokenizer's own."""
    tools: Path | None = None
    """JSON file: a list of function schemas."""
    generation_prompt: bool = False
    """End where the assistant is to begin."""
    turns: Literal["marked", "all", "last"] = "marked"
    """Which of the assistant's turns the mask covers: all, the last, or those not marked `"train": false`."""
    infer_mask: bool = False
    """Find the assistant's words also where the template has no {% generation %} blocks."""
    tokens: bool = False
    """Also list every token with its id."""

    def run(self) -> dict[str, Any]:
        """Print the text, coloured on a terminal, and the number of tokens; with --tokens all of them."""
        from groundup.tokenizers.chat.render import render_chat
        from groundup.tokenizers.hub import load_tokenizer

        tokenizer = load_tokenizer(self.path)
        conversation = read_conversation(self.file)
        if self.tools is not None:
            conversation["tools"] = read_json(self.tools)
        found = render_chat(
            tokenizer,
            add_generation_prompt=self.generation_prompt,
            template=self._template(tokenizer.chat_templates),
            turns=self.turns,
            infer_mask=self.infer_mask,
            **conversation,
        )
        say(coloured(tokenizer, found) if in_colour() else visible(found.text))
        rows = list(token_rows(tokenizer, found))
        if self.tokens:
            say("\n" + table(rows, ("id", "token", "said", "message")))
        unmarked = "no {% generation %} blocks, so no mask (--infer-mask finds one)"
        counted = unmarked if found.mask is None else f"{sum(found.mask)} count"
        say(f"\n{len(found.ids)} tokens, {counted}")
        return {"text": found.text, "ids": found.ids, "mask": found.mask, "speakers": found.speakers}

    def _template(self, named: Container[str]) -> str | None:
        """The name or Jinja text; what has an ending or a slash is a file, if the tokenizer has none of that name."""
        if self.template is None or self.template in named:
            return self.template
        path = Path(self.template)
        if (
            "{" in self.template
            or not (path.suffix[1:].isalpha() or "/" in self.template)
            or self.template in TEMPLATES
        ):
            return self.template
        if not path.is_file():
            raise UsageError(f"--template: {no_file(path)}, and no built-in template has that name")
        from groundup.tokenizers.chat.files import read_file

        return read_file(path)


def read_conversation(file: str) -> dict[str, Any]:
    """The messages, and the tools and documents where the file has some.

    Raises:
        DataError, CheckpointError: no such file, no JSON, or no messages.
        UsageError: nothing is piped in.
    """
    if file == "-":
        if sys.stdin.isatty():
            raise UsageError("no conversation: give a JSON file, or pipe one in")
        raw = sys.stdin.buffer.read(MAX_INPUT + 1)
        if len(raw) > MAX_INPUT:
            raise DataError(f"standard input holds more than {MAX_INPUT:,} bytes")
        value = parse_json(raw, "standard input")
    else:
        value = read_json(file, max_bytes=MAX_INPUT)
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise DataError(f'{file}: a list of messages, or an object {{"messages": [...]}}, is expected')
    return {key: value[key] for key in ("messages", "tools", "documents") if key in value}


def token_rows(tokenizer: "Tokenizer", found: "ChatIds") -> Any:
    """For each token: id, spelling, whether it counts, whose message says it."""
    mask = found.mask or [0] * len(found.ids)
    speakers = found.speakers or [-1] * len(found.ids)
    for number, counts, speaker in zip(found.ids, mask, speakers, strict=True):
        yield number, repr(tokenizer.token(number)), "yes" if counts else "", "" if speaker < 0 else speaker


def coloured(tokenizer: "Tokenizer", found: "ChatIds") -> str:
    """The decoded text: what counts green, control tokens bold, everything else dim; controls are spelled, not sent."""
    mask = found.mask or [0] * len(found.ids)
    special = set(tokenizer.special_tokens.values())
    styles = [
        (GREEN if counts else DIM) + BOLD * (number in special) for number, counts in zip(found.ids, mask, strict=True)
    ]
    shown, start = [], 0
    for end in range(1, len(styles) + 1):
        if end == len(styles) or styles[end] != styles[start]:
            shown.append(f"{styles[start]}{visible(tokenizer.decode(found.ids[start:end]))}{PLAIN}")
            start = end
    return "".join(shown)
