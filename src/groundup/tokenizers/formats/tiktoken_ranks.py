r"""tiktoken's files: a line for each token, its bytes in base64 and its rank, which is its id.

The rank is also the order of merging: of all neighbours whose bytes joined are a token, the pair with the smallest rank
is merged first. A file says nothing of merges: here every way to cut a token into two tokens is one.

A file carries no regular expression and no special tokens. Those of published vocabularies are facts about them
(tiktoken's own list; Meta's Llama 3; Zhipu's GLM-4; Alibaba's Qwen). OpenAI's files are recognised by the digest that
tiktoken names. For the others no digest is published: they are told by their number of ranks, the order of the single
bytes and a few known ranks, and a warning says so. For other files the caller must know the pattern.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from groundup.base.console import warn
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import write_atomic
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE, Merge
from groundup.tokenizers.byte_symbols import BYTE_ORDER, to_bytes, to_symbols
from groundup.tokenizers.formats.bounded import head, read_bounded
from groundup.tokenizers.merging import Merges, apply_merges
from groundup.tokenizers.pretokenize import PATTERNS
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames

LONGEST_LINE = 4096

# White space at the end of a text is one piece, which the older spelling ("gpt4" in PATTERNS) cuts after line ends.
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s"""
)
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = PATTERNS["llama3"].replace(r"\p{N}{1,3}", r"\p{N}")

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Published:
    """What is known of a published vocabulary besides its ranks.

    Attributes:
        name: what its pattern is called here.
        ranks: how many there are.
        pattern: how text is cut.
        special: spelling -> id.
        names: the parts that special tokens play.
        normal_form: Unicode normal form applied before all else.
        sha256: of the file, where it is published; otherwise size and `known` tell.
        known: some of the ranks.
    """

    name: str
    ranks: int
    pattern: str
    special: Mapping[str, int]
    names: SpecialNames = field(default_factory=lambda: SpecialNames(eos=END_OF_TEXT))
    normal_form: str | None = None
    sha256: str | None = None
    known: Mapping[bytes, int] = field(default_factory=dict)

    def fits(self, ranks: Mapping[bytes, int]) -> bool:
        """Whether these are its ranks; without a published digest, as far as can be told."""
        if self.sha256 is not None:
            return digest(ranks) == self.sha256
        bytes_first = all(ranks.get(bytes([byte])) == rank for rank, byte in enumerate(BYTE_ORDER))
        return bytes_first and self.known.items() <= ranks.items()


def _from(start: int, tokens: Iterable[str]) -> dict[str, int]:
    return {token: start + place for place, token in enumerate(tokens)}


def _llama3() -> list[str]:
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(251)]
    return [
        "<|begin_of_text|>", "<|end_of_text|>", *reserved[:4], "<|start_header_id|>", "<|end_header_id|>", reserved[4],
        "<|eot_id|>", *reserved[5:],
    ]  # fmt: skip


_GLM4 = [
    END_OF_TEXT, "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
]  # fmt: skip
_QWEN = [END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
_CL100K = {
    END_OF_TEXT: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}  # fmt: skip

PUBLISHED = (
    Published(
        "gpt2", 50256, PATTERNS["gpt2"], {END_OF_TEXT: 50256}, SpecialNames(bos=END_OF_TEXT, eos=END_OF_TEXT),
        sha256="306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ),
    Published(
        "p50k", 50280, PATTERNS["gpt2"], {END_OF_TEXT: 50256},
        sha256="94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    ),
    Published(
        "cl100k", 100256, CL100K, _CL100K,
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    Published(
        "o200k", 199998, O200K, {END_OF_TEXT: 199999, "<|endofprompt|>": 200018},
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    Published(
        "llama3", 128000, PATTERNS["llama3"], _from(128000, _llama3()),
        SpecialNames(bos="<|begin_of_text|>", eos="<|end_of_text|>"), known={b"Hello": 9906, b" world": 1917},
    ),
    Published(
        "glm4", 151329, PATTERNS["llama3"], _from(151329, _GLM4), SpecialNames(eos=END_OF_TEXT, pad=END_OF_TEXT)
    ),
    Published("qwen", 151643, QWEN, _from(151643, _QWEN), normal_form="NFC", known={b"Hello": 9707, b" world": 1879}),
)  # fmt: skip

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?(\n|$)")


def sniff(path: str | Path) -> bool:
    """Whether the file begins as one of ranks does."""
    return _LINE.match(head(path)) is not None


def read(
    path: str | Path,
    pattern: str | None = None,
    *,
    special_tokens: Mapping[str, int] | None = None,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> ByteBPE:
    """The tokenizer of a file of ranks.

    Args:
        path: the file.
        pattern: how text is cut before merging: a name in `PATTERNS` or here (cl100k, o200k, qwen, glm4), or a regular
            expression; not needed for a published vocabulary.
        special_tokens: spelling -> id; those of the published vocabulary if not given.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.

    Raises:
        CheckpointError: a damaged file; the message names the line.
        UsageError: not a published vocabulary, and no pattern given.
    """
    ranks = read_ranks(path)
    known = _published(ranks)
    if known is None and pattern is None:
        raise UsageError(
            f"{path} holds {len(ranks):,} ranks, {_unlike(ranks)}, and such a file does not say how text is cut: "
            f"give `pattern` ({', '.join(_patterns())}, or a regular expression)"
        )
    if known and known.sha256 is None and (pattern is None or special_tokens is None):
        what = " and ".join(
            name for name, given in (("the pattern", pattern), ("special tokens", special_tokens)) if given is None
        )
        warn(f"{path}: {what} chosen by size: {len(ranks):,} ranks, as {known.name} has; give them if it is another")
    cut = known.pattern if known and pattern is None else _patterns().get(str(pattern), str(pattern))
    if special_tokens is None:
        special_tokens = known.special if known else {}
    try:
        return from_ranks(
            ranks,
            cut,
            special_tokens,
            normal_form=known.normal_form if known else None,
            names=names or _present(known, special_tokens),
            chat_template=chat_template,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _published(ranks: Mapping[bytes, int]) -> Published | None:
    for known in PUBLISHED:
        free = not set(known.special.values()) & set(ranks.values())
        if known.ranks == len(ranks) and free and known.fits(ranks):
            return known
    return None


def _unlike(ranks: Mapping[bytes, int]) -> str:
    """Why no published vocabulary is it."""
    for known in PUBLISHED:
        if known.ranks == len(ranks):
            return f"as many as {known.name} has, but they are others"
    return "which is no published vocabulary that is known here"


def digest(ranks: Mapping[bytes, int]) -> str:
    """SHA-256 (hexadecimal) of the file that `write` makes of ranks, which is how the published files are written."""
    return hashlib.sha256(_lines(ranks)).hexdigest()


def _lines(ranks: Mapping[bytes, int]) -> bytes:
    in_order = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in in_order)


def _patterns() -> dict[str, str]:
    return {**PATTERNS, **{known.name: known.pattern for known in PUBLISHED}}


def _present(known: Published | None, special: Mapping[str, int]) -> SpecialNames:
    """The parts that the published vocabulary gives to special tokens, where there are these tokens."""
    if known is None:
        return SpecialNames()
    parts = {part: getattr(known.names, part) for part in ("bos", "eos", "pad", "unk")}
    return SpecialNames(**{part: token for part, token in parts.items() if token in special})


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """The ranks in a file: the bytes of a token -> its rank.

    Raises:
        CheckpointError: a damaged line, a repeated token or rank, or nothing at all; the message names the line.
    """
    ranks: dict[bytes, int] = {}
    seen: dict[int, int] = {}  # rank -> line
    for number, line in enumerate(read_bounded(path).split(b"\n"), start=1):
        if not (line := line.removesuffix(b"\r")):
            continue
        token, rank = _parse(line, f"{path}, line {number}")
        if token in ranks or rank in seen:
            what = f"rank {rank} stands in line {seen[rank]} already" if rank in seen else f"{token!r:.80} is repeated"
            raise CheckpointError(f"{path}, line {number}: {what}")
        ranks[token], seen[rank] = rank, number
    if not ranks:
        raise CheckpointError(f"{path} holds no ranks")
    return ranks


def _parse(line: bytes, where: str) -> tuple[bytes, int]:
    expected = "a token in base64, a space and its rank are expected"
    if len(line) > LONGEST_LINE or _LINE.fullmatch(line) is None:
        raise CheckpointError(f"{where}: {expected}, found {line[:80]!r}")
    coded, number = line.split(b" ")
    try:
        token = base64.b64decode(coded, validate=True)
    except binascii.Error as error:
        raise CheckpointError(f"{where}: {coded[:80]!r} is not base64 ({error}); {expected}") from None
    if len(number) > len(str(MAX_ID)) or int(number) >= MAX_ID or not token:
        raise CheckpointError(f"{where}: the rank must be below {MAX_ID:,} and the token not empty")
    return token, int(number)


def from_ranks(
    ranks: Mapping[bytes, int],
    pattern: str,
    special_tokens: Mapping[str, int] | None = None,
    *,
    normal_form: str | None = None,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> ByteBPE:
    """The tokenizer that merges by ranks.

    A piece that is a token as a whole is that token. Every way to cut a token into two is a merge; where a token's own
    derivation from its bytes is the only way that occurs, `derive_merges` finds it.
    """
    return ByteBPE(
        {to_symbols(token): rank for token, rank in ranks.items()},
        _all_merges(ranks),
        [AddedToken(token, number) for token, number in (special_tokens or {}).items()],
        pattern=pattern,
        normal_form=normal_form,
        ignore_merges=True,
        names=names,
        chat_template=chat_template,
    )


def _all_merges(ranks: Mapping[bytes, int]) -> list[Merge]:
    merges: list[Merge] = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        ways = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        ways.sort(key=lambda way: (ranks[way[0]], ranks[way[1]]))
        merges.extend((to_symbols(left), to_symbols(right)) for left, right in ways)
    return merges


def derive_merges(ranks: Mapping[bytes, int]) -> list[Merge] | None:
    """The one merge that makes each token, in order of rank; None where that is not all there is to the vocabulary.

    A token is first brought as far as merges of lower rank bring it. If two parts are left for every token, merging by
    ranks and by these merges is the same: inside a text, what becomes of a token's bytes before its rank's turn is what
    becomes of them alone, for a merge across their border could not be undone.
    """
    found: dict[tuple[int, int], tuple[int, int]] = {}
    merges: list[Merge] = []
    spelling = {rank: to_symbols(token) for token, rank in ranks.items()}
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = _reduce(token, ranks, found)
        if parts is None or len(parts) != 2:
            return None
        found[parts[0], parts[1]] = (rank, rank)
        merges.append((spelling[parts[0]], spelling[parts[1]]))
    return merges


def _reduce(token: bytes, ranks: Mapping[bytes, int], merges: Merges) -> list[int] | None:
    single = [ranks.get(token[i : i + 1], -1) for i in range(len(token))]
    return None if min(single) < 0 else apply_merges(single, merges)


def ranks_of(tokenizer: ByteBPE) -> dict[bytes, int]:
    """The ranks that encode as the tokenizer does, given its pattern.

    Raises:
        CheckpointError: there are none: its merges are not in the order of the ids, or a token is not bytes.
    """
    special = {token.content for token in tokenizer.added.tokens}
    ranks: dict[bytes, int] = {}
    for token, number in tokenizer.model_vocab.items():
        if token in special:
            continue
        data = to_bytes(token)
        if data is None:
            raise CheckpointError(f"the token {token!r} is not the spelling of bytes: ranks cannot express it")
        ranks[data] = number
    # Either the vocabulary came from ranks, or each token is made in the one way that its rank says.
    if tokenizer.merges != _all_merges(ranks) or not tokenizer.ignore_merges:
        in_order = sorted(tokenizer.merges, key=lambda pair: tokenizer.model_vocab[pair[0] + pair[1]])
        if in_order != tokenizer.merges or derive_merges(ranks) != tokenizer.merges:
            raise CheckpointError(
                "ranks cannot express these merges: a file of ranks merges in the order of the ids, and any two "
                "neighbours that make a token; write tokenizer.json instead"
            )
    return ranks


def write(tokenizer: ByteBPE, path: str | Path) -> None:
    """Write the ranks; the pattern, the normal form and the special tokens have no place in such a file.

    Raises:
        CheckpointError: ranks cannot express the tokenizer's merges.
    """
    write_atomic(path, _lines(ranks_of(tokenizer)))
