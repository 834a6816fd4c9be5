"""From a `DataConfig` and a tokenizer to rows and loaders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.errors import DataError
from groundup.data.config import DataConfig, SourceConfig
from groundup.data.document import Document
from groundup.data.loader import Loader
from groundup.data.mixture import Mixture
from groundup.data.packing import Rows, pack
from groundup.data.prepare import encode_groups, prepare, settings_key
from groundup.data.problems import Problems
from groundup.data.shards import open_shards
from groundup.data.sources import BUILTIN, open_source, source_hashes
from groundup.data.split import PARTS, Part, Split, split_documents
from groundup.data.tokens import Encoder, Tokens, in_groups, token_dtype

Parts = dict[Part, Tokens]


@dataclass(frozen=True)
class Data:
    """Everything that training and evaluation read.

    `train` is the mixture of the sources' training rows; `validation` and `test` the held-out rows of each source, by
    name (a source without such a part is not there). `tokens` holds all parts of all sources: tokens["a.txt"]["train"].
    """

    config: DataConfig
    train: Mixture
    validation: dict[str, Rows]
    test: dict[str, Rows]
    tokens: dict[str, Parts]

    def loader(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Loader:
        """Training batches; see `Loader`."""
        config = self.config
        return Loader(
            self.train,
            batch_size,
            seed=config.seed,
            sampling=config.sampling,
            rank=rank,
            world_size=world_size,
            workers=config.workers,
        )

    def summary(self) -> dict[str, dict[str, dict[str, int]]]:
        """Documents, tokens and bytes by source and part."""
        return {
            source: {
                part: {"documents": t.num_documents, "tokens": len(t), "bytes": t.num_bytes}
                for part, t in parts.items()
            }
            for source, parts in self.tokens.items()
        }


def load_data(config: DataConfig, tokenizer: Encoder) -> Data:
    """Read, split, tokenize and pack every source of `config`.

    Raises a `DataError` if a source cannot be read, or is too small for the context length (it says how many tokens
    are needed).
    """
    tokens = {source: load_tokens(source, config, tokenizer) for source in config.source}
    train = {source: _rows(config, tokenizer, parts["train"], "train") for source, parts in tokens.items()}

    def held_out(part: Part) -> dict[str, Rows]:
        return {s: _rows(config, tokenizer, parts[part], part) for s, parts in tokens.items() if len(parts[part])}

    return Data(config, Mixture(train, config.weights), held_out("validation"), held_out("test"), tokens)


def _rows(config: DataConfig, tokenizer: Encoder, tokens: Tokens, part: Part) -> Rows:
    pad = next((id for id in (tokenizer.pad_id, tokenizer.eos_id) if id is not None), 0)
    stride = config.stride if part == "train" else None  # held-out text is read once
    return pack(tokens, config.context_length, config.packing, stride=stride, pad_id=pad, part=part)


def load_tokens(source: str, config: DataConfig, tokenizer: Encoder) -> Parts:
    """The tokens of one source, by part: prepared shards, the cache, or encoded now into memory."""
    if (Path(source) / "manifest.json").is_file():
        return {part: open_shards(source, part, tokenizer) for part in PARTS}
    if config.cache is not None:
        folder = _cached(source, config, tokenizer, config.cache)
        return {part: open_shards(folder, part, tokenizer) for part in PARTS}
    parts = tokens_by_part(read_source(source, config, config.seed), config.split, tokenizer)
    if not any(map(len, parts.values())):
        raise DataError(f"{source} holds no documents with text")
    return parts


def read_source(source: str, config: SourceConfig, seed: int = 0) -> Iterator[Document]:
    """The documents of one source; what was left out is told at the end."""
    problems = Problems(config.problems)
    yield from open_source(
        source,
        separator=config.separator,
        column=config.column,
        render=config.render,
        limit=config.limit,
        seed=seed,
        problems=problems,
    )
    problems.report()


def prepare_source(
    source: str,
    config: SourceConfig,
    tokenizer: Encoder,
    out_dir: Path,
    *,
    split: Split,
    seed: int = 0,
    shard_tokens: int = 2**27,
    workers: int = 1,
) -> dict[str, Any]:
    """Write the shards of one source into `out_dir`; the manifest."""
    settings = {name: getattr(config, name) for name in SourceConfig.model_fields}
    return prepare(
        read_source(source, config, seed),
        tokenizer,
        out_dir,
        split=split,
        sources=source_hashes(source, seed),
        settings=settings,
        shard_tokens=shard_tokens,
        workers=workers,
    )


def _cached(source: str, config: DataConfig, tokenizer: Encoder, cache: Path) -> Path:
    reading = {name: getattr(config, name) for name in SourceConfig.model_fields}
    key = settings_key(source_hashes(source, config.seed), tokenizer.fingerprint(), config.split.model_dump(), reading)
    name = source if source in BUILTIN else Path(source).stem
    folder = cache / f"{name}-{key}"
    prepare_source(source, config, tokenizer, folder, split=config.split, seed=config.seed)
    return folder


def tokens_by_part(documents: Iterator[Document], split: Split, tokenizer: Encoder) -> Parts:
    """Split and encode documents, in memory."""
    arrays: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
    names: dict[Part, list[str]] = {part: [] for part in PARTS}
    sizes = dict.fromkeys(PARTS, 0)
    for group, encoded in encode_groups(in_groups(split_documents(documents, split)), tokenizer):
        for (part, document, _), ids in zip(group, encoded, strict=True):
            arrays[part].append(ids)
            names[part].append(document.id)
            sizes[part] += len(document.text.encode())
    return {part: _joined(arrays[part], names[part], sizes[part], tokenizer.vocab_size) for part in PARTS}


def _joined(arrays: list[np.ndarray], names: list[str], num_bytes: int, vocab_size: int) -> Tokens:
    segment = np.concatenate([np.empty(0, token_dtype(vocab_size)), *arrays])
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    return Tokens([segment], offsets, names, vocab_size=vocab_size, num_bytes=num_bytes)


def first_rows(data: Data, count: int = 2) -> list[list[int]]:
    """The token ids of the first rows that training will see, for `--dry-run`."""
    batch = data.loader(count).__next__()
    return batch["ids"].tolist()
