"""`groundup tokenizer train|encode|decode`, and what all tokenizer commands share."""

import itertools
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import CliPositionalArg

from groundup.base.console import progress, say, visible, warn
from groundup.base.errors import DataError, GroundupError, UsageError
from groundup.base.files import check_writable, explain_write_errors, no_file
from groundup.commands.command import Command
from groundup.data.config import SourceConfig
from groundup.data.problems import ColumnError
from groundup.tokenizers.registry import AnyTokenizer, ByteBPEConfig
from groundup.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from groundup.data.document import Document


class TokenizerTrain(Command, SourceConfig):
    """Learn a vocabulary from text, and write a folder that Hugging Face libraries read."""

    sources: CliPositionalArg[list[str]]
    """Files, folders, or built-in corpora (stories, pydocs, pystdlib), read as for training."""
    out_dir: Path = Path("tokenizer")
    """The folder to write; it must not be there, or be empty."""
    tokenizer: AnyTokenizer = ByteBPEConfig()  # pyright: ignore[reportInvalidTypeForm]
    """What to train: its kind (byte_bpe, characters, words, wordpiece, ...) and settings."""

    def run(self) -> dict[str, Any]:
        """Train, write, and say what came out."""
        refuse_full(self.out_dir)
        started = time.perf_counter()
        trained, documents, size = self._train()
        seconds = time.perf_counter() - started
        wanted = getattr(self.tokenizer, "vocab_size", trained.vocab_size)
        if trained.vocab_size < wanted:
            warn(f"the text held enough for {trained.vocab_size:,} tokens only, not {wanted:,}")
        trained.save_pretrained(self.out_dir)
        say(f"{documents:,} documents, {size / 1e6:.2f} MB: {trained.vocab_size:,} tokens in {seconds:.1f} s")
        say(f"written to {self.out_dir}; try: groundup tokenizer inspect {self.out_dir}")
        return {
            "folder": str(self.out_dir),
            "kind": trained.algorithm,
            "vocab_size": trained.vocab_size,
            "documents": documents,
            "bytes": size,
            "seconds": seconds,
            "fingerprint": trained.fingerprint(),
        }

    def _train(self) -> tuple[Tokenizer, int, int]:
        """The tokenizer, and how many documents and bytes it was learned from."""
        sizes = []

        def texts() -> Iterator[str]:
            for document in progress(self._documents(), label="reading", unit="document"):
                sizes.append(len(document.text.encode()))
                yield document.text
            if not sum(sizes):
                where = ", ".join(self.sources)
                raise DataError(f"{where}: no text to learn from; `groundup data inspect` shows what a source holds")

        with progress(total=None, label="learning", unit="token") as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                trained = self.tokenizer.train(texts(), progress=advance)
            except ColumnError as error:
                example = f". For example: {self._as_command(error.columns[0])}" if error.columns else ""
                raise DataError(f"{error}{example}") from None
        return trained, len(sizes), sum(sizes)

    def _as_command(self, column: str) -> str:
        """This command with another column, as one types it."""
        words = ["groundup", "tokenizer", "train", *self.sources, "--column", column, "--out-dir", str(self.out_dir)]
        given = self.tokenizer.model_dump(mode="json", exclude_defaults=True)
        chosen = {"kind": self.tokenizer.kind} if self.tokenizer.kind != ByteBPEConfig().kind else {}
        for name, value in (chosen | given).items():
            option = f"tokenizer.{name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", value if isinstance(value, str) else json.dumps(value)]
        return shlex.join(words)

    def _documents(self) -> "Iterator[Document]":
        from groundup.data.load import read_source  # loads numpy and torch, which --help need not wait for

        return itertools.chain.from_iterable(read_source(source, self) for source in self.sources)


class WithText(Command):
    """A command that takes a text from the words, a file, or what is piped in."""

    file: Path | None = None
    """Read the text from this file."""

    def read(self, words: list[str]) -> str:
        """The text: the words, or the file, or standard input."""
        if words and self.file:
            raise UsageError("give the text or --file, not both")
        if words:
            return " ".join(words)
        if self.file is not None:
            return read_text(self.file)
        if sys.stdin.isatty():
            raise UsageError("no text: give it as words, with --file, or through a pipe")
        try:
            return sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"standard input: byte {error.start} is not UTF-8") from None


class TokenizerEncode(WithText):
    """Text to token ids."""

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    pattern: str | None = None
    """How text is cut, for files that do not say it."""
    text: CliPositionalArg[list[str]] = []
    """The text; without it --file or standard input is read."""
    bos: bool = False
    """Put the beginning-of-sequence token in front."""
    eos: bool = False
    """Put the end-of-sequence token at the end."""
    allowed_special: bool = False
    """Spellings of special tokens in the text become control tokens."""

    def run(self) -> dict[str, Any]:
        """Print the ids, separated by spaces."""
        tokenizer = load(self.path, self.pattern)
        text = self.read(self.text)
        ids = tokenizer.encode(text, bos=self.bos, eos=self.eos, allowed_special=self.allowed_special)
        say(*ids)
        return {"ids": ids, "tokens": [tokenizer.token(number) for number in ids]}


class TokenizerDecode(WithText):
    """Token ids to text."""

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    pattern: str | None = None
    """How text is cut, for files that do not say it."""
    ids: CliPositionalArg[list[str]] = []
    """The ids; without them --file or standard input is read."""
    skip_special: bool = False
    """Leave special tokens out."""

    def run(self) -> dict[str, Any]:
        """Print the text: as it is to a file or pipe; on a terminal with what could steer it spelled."""
        tokenizer = load(self.path, self.pattern)
        words = self.read(self.ids).replace(",", " ").strip("[] \n").split()
        wrong = next((word for word in words if not (word.isascii() and word.isdigit())), None)
        if wrong is not None:
            raise UsageError(f"{wrong!r} is not a token id: whole numbers separated by spaces or commas are expected")
        text = tokenizer.decode([int(word) for word in words], skip_special=self.skip_special)
        say(visible(text, keep="\n\t") if sys.stdout.isatty() else text)
        return {"text": text}


def refuse_full(folder: Path) -> None:
    """A folder to write must not be there, or be empty: what is in it may belong to a model.

    Raises:
        GroundupError: it holds something, is a file, or cannot be written.
    """
    with explain_write_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GroundupError(f"{folder} exists already: choose another folder (--out-dir), or remove it first")
    check_writable(folder)


def load(path: str, pattern: str | None = None) -> Tokenizer:
    """The tokenizer at a path; imported late so that --help is quick."""
    from groundup.tokenizers.hub import load_tokenizer

    return load_tokenizer(path, pattern)


def read_text(path: Path) -> str:
    """A file's text, line ends as they stand.

    Raises:
        DataError: no such file, or not UTF-8; the message names the byte and line.
    """
    if not path.is_file():
        raise DataError(no_file(path))
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
