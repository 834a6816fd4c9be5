"""`groundup data inspect | validate | prepare`."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.base.errors import DataError
from groundup.commands.command import Command
from groundup.data.config import SourceConfig
from groundup.data.split import Split

if TYPE_CHECKING:
    from groundup.data.document import Document
    from groundup.data.problems import Problems


class DataCommand(Command, SourceConfig):
    """What the data commands share."""

    source: CliPositionalArg[str]
    """A file, a folder, or a built-in corpus (stories, pydocs, pystdlib)."""
    seed: int = 0
    """Of generated corpora and of the split."""

    def documents(self, problems: "Problems") -> "Iterator[Document]":
        """The documents of the source."""
        from groundup.data.sources import open_source

        return open_source(
            self.source,
            separator=self.separator,
            column=self.column,
            render=self.render,
            limit=self.limit,
            seed=self.seed,
            problems=problems,
        )


class DataInspect(DataCommand):
    """What a file or folder of text holds: its format and why it is taken for that, sizes, the first document."""

    tokenizer: str | None = None
    """A tokenizer folder or name: count tokens too."""

    def run(self) -> dict[str, Any]:
        """Measure the source and show what was found."""
        from groundup.data.inspect import describe_source, inspect_documents
        from groundup.data.problems import Problems

        tokenizer = None
        if self.tokenizer:
            from groundup.tokenizers.hub import load_tokenizer

            tokenizer = load_tokenizer(self.tokenizer)
        problems = Problems("skip")
        report: dict[str, Any] = dict(describe_source(self.source, self.column, self.separator))
        report |= inspect_documents(self.documents(problems), problems, tokenizer)
        report |= {"problems": problems.count, "files_left_out": len(problems.skipped_files)}
        say(f"{self.source}: {report['format']} ({report['why']})\n")
        shown = ("documents", "characters", "bytes", "tokens", "bytes_per_token", "problems", "files_left_out")
        say(table([(key.replace("_", " "), report[key]) for key in shown if key in report], ("", "")), "\n")
        say(table([(key, *values.values()) for key, values in report["lengths"].items()], ("length in", *_LENGTHS)))
        say(f"\nfirst document ({report['first']['id']}):\n{report['first']['text']}")
        problems.report()
        return report


_LENGTHS = ("shortest", "10 %", "median", "90 %", "longest")


class DataValidate(DataCommand):
    """Check every record; name the file and line of what is wrong. Exit code 3 if anything is."""

    show: int = Field(default=100, ge=1)
    """Print at most so many problems."""

    def run(self) -> dict[str, Any]:
        """Read everything and list the problems."""
        from groundup.data.problems import Problems

        problems = Problems("skip", keep=self.show)
        count = sum(1 for _ in self.documents(problems))
        for message in problems.messages:
            say(message)
        for file in itertools.islice(problems.skipped_files, self.show):
            say(f"left out: {file}")
        report = {
            "documents": count,
            "problems": problems.count,
            "messages": problems.messages,
            "files_left_out": problems.skipped_files,
        }
        if problems.count or not count:
            if self.as_json:
                print(json.dumps(report, ensure_ascii=False, indent=2))
            what = (
                f"{problems.count} problem{'s' * (problems.count > 1)}, {count} usable documents"
                if problems.count
                else "no documents with text"
            )
            raise DataError(f"{self.source}: {what}")
        say(f"{self.source}: {count} documents, no problems")
        return report


class DataPrepare(DataCommand):
    """Tokenize text into memory-mapped shards. Run again after an interruption, it goes on where it stopped."""

    tokenizer: str
    """A tokenizer folder or name."""
    out_dir: Path
    """Where the shards and their manifest.json go."""
    split: Split = Split()
    """What is held out for validation and test."""
    shard_tokens: int = Field(default=2**27, ge=1)
    """Tokens in a shard, about."""
    workers: int = Field(default=1, ge=1)
    """Processes that tokenize; the result is the same for any number."""

    def run(self) -> dict[str, Any]:
        """Write the shards; the manifest."""
        from groundup.data.load import prepare_source
        from groundup.tokenizers.hub import load_tokenizer

        manifest = prepare_source(
            self.source,
            self,
            load_tokenizer(self.tokenizer),
            self.out_dir,
            split=self.split,
            seed=self.seed,
            shard_tokens=self.shard_tokens,
            workers=self.workers,
        )
        totals = manifest["totals"]
        rows = [(part, *counts.values(), len(manifest["parts"][part])) for part, counts in totals.items()]
        say(table(rows, ("part", "documents", "tokens", "bytes", "shards")))
        say(f"\nwritten to {self.out_dir}; train on it with `--data.source {self.out_dir}`")
        return manifest
