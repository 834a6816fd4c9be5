"""`groundup chat`: talk with a model in the terminal."""

import sys
from collections.abc import Iterator
from typing import Any, Literal

from pydantic_settings import CliPositionalArg

from groundup.base.console import json_output, say
from groundup.base.errors import GroundupError, UsageError, did_you_mean
from groundup.commands.command import Command
from groundup.commands.generate import describe, sampling_of, write
from groundup.commands.named_model import model_and_tokenizer
from groundup.generation.config import SamplingConfig

HELP = """\
/help          this list
/reset         forget the conversation; the system text stays
/system TEXT   set the system text (nothing: remove it)
/undo          forget the last question and its answer
/retry         answer the last question again
/save FILE     write the conversation as JSON
/load FILE     go on with a saved conversation
/quit          leave; so does end of input
A line that ends in a backslash goes on in the next one; a line of three double quotes begins and ends a longer text."""

COMMANDS = ("/help", "/reset", "/system", "/undo", "/retry", "/save", "/load", "/quit")


class Chat(Command, SamplingConfig):
    """Talk with a model. Without a chat template the model continues the text so far. /help lists the commands."""

    model: CliPositionalArg[str] = "tiny"
    """A model folder, that of a run or of an adapter, a .gguf file, or a name."""
    system: str = ""
    """System text."""
    load: str | None = None
    """Begin with a saved conversation."""
    overflow: Literal["refuse", "drop"] = "refuse"
    """When the conversation no longer fits the context: refuse the answer, or drop the oldest turns."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str | None = None
    """float32, bfloat16 or float16; as stored when not given."""

    def run(self) -> dict[str, Any]:
        """Read lines until the end of input; `--json` prints the conversation at the end."""
        from groundup.generation.dialogue import Dialogue

        model, tokenizer = model_and_tokenizer(self.model, self.dtype, self.device)
        dialogue = Dialogue(model, tokenizer, sampling_of(self), self.system, self.overflow)
        if self.load is not None:
            dialogue.load(self.load)
        with json_output():
            say(describe(self))
            if not tokenizer.chat_template:
                say("this model has no chat template: it continues the text so far, it does not answer")
            if sys.stdin.isatty():
                say("/help lists the commands, /quit leaves")
        session = Session(dialogue, quiet=self.as_json)
        for text in entries(sys.stdin):
            if not session.handle(text):
                break
        return {"model": self.model, "messages": dialogue.messages}


class Session:
    """What each entry of the user does.

    Args:
        dialogue: the conversation.
        quiet: print no answers on stdout.
    """

    def __init__(self, dialogue: Any, quiet: bool = False):
        self.dialogue, self.quiet = dialogue, quiet

    def handle(self, text: str) -> bool:
        """Do what an entry asks; False when it asks to leave. Errors are said, and the conversation goes on."""
        try:
            if text.startswith("/"):
                return self._command(*split(text))
            if text.strip():
                self._show(self.dialogue.say(text))
        except GroundupError as error:
            with json_output():
                say(f"groundup: {error}")
        return True

    def _command(self, name: str, argument: str) -> bool:
        dialogue = self.dialogue
        if name == "/quit":
            return False
        if name == "/help":
            say(HELP)
        elif name == "/retry":
            self._show(dialogue.retry())
        elif name == "/undo":
            dialogue.undo()
            say("undone")
        elif name == "/reset":
            dialogue.reset()
            say("the conversation is empty")
        elif name == "/system":
            dialogue.system = argument
            say("system text set" if argument else "system text removed")
        elif name in ("/save", "/load"):
            self._file(name, argument)
        else:
            raise UsageError(f"`{name}` is not a command.{did_you_mean(name, COMMANDS)} /help lists them")
        return True

    def _file(self, name: str, path: str) -> None:
        if not path:
            raise UsageError(f"{name} needs a file name")
        if name == "/save":
            self.dialogue.save(path)
            say(f"saved to {path}")
        else:
            self.dialogue.load(path)
            say(f"{len(self.dialogue.turns)} messages loaded")

    def _show(self, pieces: Iterator[str]) -> None:
        if self.dialogue.dropped:
            with json_output():
                say(f"({self.dialogue.dropped} oldest messages are left out: the context is full)")
        try:
            for piece in pieces:
                if not self.quiet:
                    write(piece)
        except KeyboardInterrupt:  # ends this answer only; what was said of it stays
            pass
        if not self.quiet:
            write("\n")


def split(text: str) -> tuple[str, str]:
    """A command and its argument."""
    name, _, argument = text.strip().partition(" ")
    return name, argument.strip()


def entries(source: Any) -> Iterator[str]:
    """What the user enters, a text each: a line, lines joined by a backslash, or a block in triple quotes."""
    lines = prompted_lines(source)
    for line in lines:
        if line.strip() == '"""':
            block = []
            for inner in lines:
                if inner.strip() == '"""':
                    break
                block.append(inner)
            yield "\n".join(block)
            continue
        while line.endswith("\\"):
            line = line[:-1] + "\n" + next(lines, "")
        yield line


def prompted_lines(source: Any) -> Iterator[str]:
    """Lines without their ends; a terminal gets a prompt sign and line editing."""
    if not source.isatty():
        for line in source:
            yield line.rstrip("\r\n")
        return
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then has history and editing)
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
