"""One contender of the tokenizer benchmark in a process of its own.

    python -m groundup.benchmarks.tokenizers_worker train WHO DOCUMENTS THREADS VOCAB_SIZE
    python -m groundup.benchmarks.tokenizers_worker encode|batch|fast WHO DOCUMENTS THREADS FOLDER PATTERN

It answers with megabytes a second, a digest of what came out, or its peak memory.
"""

import base64
import hashlib
import itertools
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from groundup.benchmarks.workers import serve

Texts = list[str]
Rows = list[list[int]]


def train_ours(texts: Texts, vocab_size: int) -> Any:
    """Our trainer, from a stream."""
    from groundup.tokenizers.training.byte_bpe import train_byte_bpe

    return train_byte_bpe(iter(texts), vocab_size, min_frequency=2)


def train_tokenizers(texts: Texts, vocab_size: int) -> Any:
    """The library's trainer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(trained: Any) -> Iterable[Any]:
    """The merges, as pairs of spellings."""
    if hasattr(trained, "merges"):
        return [list(pair) for pair in trained.merges]
    return json.loads(trained.to_str())["model"]["merges"]


def encoder(way: str, who: str, threads: int, folder: Path, pattern: str) -> Callable[[Texts], Rows]:
    """The function that encodes texts, in a way that the contender has."""
    if who == "ours":
        from groundup.tokenizers.hub import load_tokenizer

        ours = load_tokenizer(folder)
        return ours.encode_batch if way == "batch" else lambda texts: [ours.encode(text) for text in texts]
    if who == "tiktoken":
        theirs = tiktoken_encoding(folder, pattern)
        if way == "batch":
            return lambda texts: theirs.encode_ordinary_batch(texts, num_threads=threads)
        return lambda texts: [theirs.encode_ordinary(text) for text in texts]
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if way == "encode":
        return lambda texts: [library.encode(text).ids for text in texts]
    many = library.encode_batch if way == "batch" else library.encode_batch_fast
    return lambda texts: [one.ids for one in many(texts)]


def tiktoken_encoding(folder: Path, pattern: str) -> Any:
    """An Encoding from the file of ranks: nothing is fetched."""
    import tiktoken

    from groundup.tokenizers.pretokenize import PATTERNS

    lines = (line.split() for line in (folder / "ranks.tiktoken").read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding(folder.name, pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})


def digest(result: Rows) -> str:
    """SHA-256 of all ids and of where each text ends."""
    lengths = array("q", map(len, result))
    return hashlib.sha256(lengths.tobytes() + array("q", itertools.chain.from_iterable(result)).tobytes()).hexdigest()


def peak_memory() -> float | None:
    """The most memory that this process has held, in MB; None where the system does not tell.

    Linux counts in `ru_maxrss` what the process held from which this one was started; VmHWM begins anew.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return None if line is None else int(line.split()[1]) / 1e3
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(way: str, who: str, documents: str, threads: str, *rest: str) -> None:
    """Load, then answer."""
    os.environ |= {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
    texts = json.loads(Path(documents).read_text(encoding="utf-8"))
    size = sum(len(text.encode()) for text in texts) / 1e6
    if way == "train":
        learn = {"ours": train_ours, "tokenizers": train_tokenizers}[who]

        def run() -> Any:
            return learn(texts, int(rest[0]))

        def checked(result: Any) -> str:
            return hashlib.sha256(json.dumps(merges_of(result)).encode()).hexdigest()

    else:
        encode = encoder(way, who, int(threads), Path(rest[0]), rest[1])

        def run() -> Any:
            return encode(texts)

        checked = digest

    def answer(check: bool = False, memory: bool = False) -> Any:
        if memory:
            return {"memory": peak_memory()}
        start = time.perf_counter()
        result = run()
        speed = size / (time.perf_counter() - start)
        return {"speed": speed, "result": checked(result) if check else None}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
