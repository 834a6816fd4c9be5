"""`groundup tokenizer convert|extend`: other files, and more tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, warn
from groundup.base.errors import UsageError
from groundup.base.files import check_writable
from groundup.commands.command import Command
from groundup.commands.tokenizer import load, refuse_full

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


class TokenizerConvert(Command):
    """Write a tokenizer in another project's form of files, checked by reading it back."""

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    to: Literal["json", "tiktoken", "openai", "vocab", "sentencepiece", "bert", "rwkv"] = "json"
    """The form: json (tokenizer.json), tiktoken (ranks), openai (encoder.json + vocab.bpe), vocab (vocab.json +
    merges.txt), sentencepiece (tokenizer.model), bert (vocab.txt), rwkv."""
    out_dir: Path = Path("converted")
    """The folder to write; other files in it stay."""
    lossy: bool = False
    """Write the files even where they have no place for something; the ids are the same in any case."""
    pattern: str | None = None
    """How text is cut, for files that do not say it."""

    def run(self) -> dict[str, Any]:
        """Write, and say what the files cannot tell."""
        from groundup.tokenizers.conversion import FORMS, convert

        check_writable(self.out_dir)
        tokenizer = load(self.path, self.pattern)
        lost = convert(tokenizer, self.to, self.out_dir, lossy=self.lossy)
        for what in lost:
            warn(f"not in these files: {what}")
        say(f"written to {self.out_dir / FORMS[self.to].file}")
        return {"folder": str(self.out_dir), "form": self.to, "kind": tokenizer.algorithm, "lost": lost}


class TokenizerExtend(Command):
    """Give a trained tokenizer more tokens, and its model rows for them."""

    path: CliPositionalArg[str]
    """A tokenizer: folder, file or hub name."""
    special: list[str] = []
    """New control tokens: `--special '<|tool|>' --special '<|end|>'`."""
    plain: list[str] = []
    """New plain tokens: wherever their spelling stands in a text they are one token."""
    merge: str | None = None
    """A second tokenizer of the same kind, whose vocabulary is put behind."""
    model: str | None = None
    """The model trained with the tokenizer: written too, with rows for the new tokens, which begin as the mean."""
    out_dir: Path = Path("extended")
    """The folder to write; it must not be there, or be empty."""
    pattern: str | None = Field(default=None)
    """How text is cut, for files that do not say it."""

    def run(self) -> dict[str, Any]:
        """Extend, write, and say what is new."""
        if not (self.special or self.plain or self.merge):
            raise UsageError("nothing to add: give --special, --plain or --merge")
        refuse_full(self.out_dir)
        tokenizer = load(self.path, self.pattern)
        extended = self._extend(tokenizer)
        rows = None if self.model is None else self._write_model(self.model, tokenizer, extended)
        extended.save_pretrained(self.out_dir)
        new = len(extended.vocab) - len(tokenizer.vocab)
        say(f"{new} new tokens: {tokenizer.vocab_size} -> {extended.vocab_size} ids, written to {self.out_dir}")
        result = {"folder": str(self.out_dir), "new": new, "vocab_size": extended.vocab_size}
        return result if rows is None else result | {"rows": rows}

    def _extend(self, tokenizer: "Tokenizer") -> "Tokenizer":
        from groundup.tokenizers.extension import add_tokens, merge_vocabularies

        if self.merge is not None:
            tokenizer = merge_vocabularies(tokenizer, load(self.merge, self.pattern))
        for tokens, special in ((self.special, True), (self.plain, False)):
            if tokens:
                tokenizer = add_tokens(tokenizer, tokens, special=special)
        return tokenizer

    def _write_model(self, path: str, before: "Tokenizer", after: "Tokenizer") -> int:
        """The model with rows for the new tokens; how many it has then."""
        from groundup.models.hub import load_model
        from groundup.models.resize import resize_embeddings
        from groundup.tokenizers.extension import next_id

        model = load_model(path)
        rows = model.config.vocab_size
        if next_id(before) > rows:
            raise UsageError(
                f"the tokenizer has ids up to {next_id(before) - 1}, but {path} has {rows} rows: they do not match"
            )
        resize_embeddings(model, max(rows, after.vocab_size), learned=next_id(before))
        model.save_pretrained(self.out_dir)
        say(f"{path}: {rows} -> {model.config.vocab_size} rows")
        return model.config.vocab_size
