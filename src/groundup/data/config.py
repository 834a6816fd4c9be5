"""The settings that lead from a source to training batches."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from groundup.base.config import Config
from groundup.data.split import Split


class SourceConfig(Config):
    """How a source is read."""

    separator: str | None = None
    """Cut text files into documents at this string, or at blank lines if it is `paragraphs`; without it a text file
    is one document."""
    column: str = "text"
    """The column of JSONL, JSON, CSV and Parquet files that holds the text."""
    render: bool = False
    """Read records in a conversation or instruction format as plain text."""
    problems: Literal["error", "skip"] = "error"
    """What to do with a record that cannot be read: stop and name it, or count it and go on."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many documents of each source."""


class DataConfig(SourceConfig):
    """What to train on, and how it is cut into rows."""

    source: list[str] = ["stories"]
    """Files, folders, folders of prepared shards, or built-in corpora (stories, pydocs, pystdlib)."""
    weights: list[float] | None = None
    """How often rows of each source are drawn, relative to each other; default: in proportion to their tokens."""
    split: Split = Split()
    """What is held out for validation and test."""
    context_length: int = Field(default=256, ge=1)
    """Tokens in a row."""
    packing: Literal["stream", "documents", "pad"] = "stream"
    """stream: documents follow each other and are cut anywhere. documents: the same rows, with attention and loss
    inside each document.
    pad: one document a row."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens between the beginnings of two rows of a stream; default: context_length."""
    sampling: Literal["shuffled", "sequential", "random"] = "shuffled"
    """shuffled: every row once an epoch. sequential: in the order of the data. random: windows that begin anywhere."""
    seed: int = 0
    """Of the order of rows and of generated corpora."""
    workers: int = Field(default=0, ge=0)
    """Threads that read batches ahead."""
    cache: Path | None = None
    """Keep the tokens as shards below this folder and use them again when nothing has changed; default: hold them in
    memory."""

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [str(value)] if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if not self.source:
            raise ValueError("name at least one source")
        if len(set(self.source)) < len(self.source):
            raise ValueError("a source is named twice; use weights to draw more from it")
        if self.weights is not None and len(self.weights) != len(self.source):
            raise ValueError(f"{len(self.weights)} weights for {len(self.source)} sources")
        if self.stride is not None and self.packing != "stream":
            raise ValueError("stride is for the stream packing")
        return self
