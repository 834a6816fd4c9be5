"""Infilling: the text between a prefix and a suffix (Bavarian et al. 2022; Code Llama, Roziere et al. 2023).

The model reads the parts in another order, marked by three tokens, and goes on with the middle until a fourth ends it:

    PSM   <PRE> prefix <SUF> suffix <MID> | middle <EOT>
    SPM   <PRE> <SUF> suffix <MID> prefix | middle <EOT>       the suffix first: the middle goes on from the prefix
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from groundup.base.errors import UsageError
from groundup.generation.config import SamplingConfig, with_overrides
from groundup.generation.generate import Completion, begins_texts, generate

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


class Marks(NamedTuple):
    """How the four tokens are spelled."""

    prefix: str
    suffix: str
    middle: str
    end: str | None


KNOWN = (
    Marks("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),  # Code Llama
    Marks("<PRE>", "<SUF>", "<MID>", "<EOT>"),
    Marks("<fim_prefix>", "<fim_suffix>", "<fim_middle>", None),  # SantaCoder, StarCoder: ends with end-of-text
    Marks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", None),  # Qwen2.5-Coder
)
BEFORE = "☺"
"""A text is encoded behind it to be encoded as the middle of a line, without the space that begins a text."""


def infill(
    model: Any,
    tokenizer: "Tokenizer",
    gaps: tuple[str, str] | Sequence[tuple[str, str]],
    sampling: SamplingConfig | None = None,
    *,
    suffix_first: bool = False,
    samples: int = 1,
    batch_size: int = 32,
    logprobs: bool = False,
    **overrides: Any,
) -> list[Completion]:
    """Fill gaps.

    Args:
        model: a causal language model that was trained to infill.
        tokenizer: its tokenizer, with the tokens that mark the parts.
        gaps: (prefix, suffix), or several.
        sampling: the settings; a stop text there ends the middle too.
        suffix_first: SPM instead of PSM.
        samples: fillings a gap; those of one gap stand together.
        batch_size: most rows at once.
        logprobs: fill `Completion.logprobs`.
        overrides: settings by name.

    Returns:
        One Completion a gap and sample: prefix + text + suffix is the whole.

    Raises:
        UsageError: a tokenizer without such tokens, and what `generate` raises.
    """
    pairs = [gaps] if isinstance(gaps, tuple) and isinstance(gaps[0], str) else gaps
    prompts = [infilling_prompt(tokenizer, *pair, suffix_first=suffix_first) for pair in pairs]  # type: ignore[misc]
    config = with_overrides(sampling, None, overrides)
    end = marks_of(tokenizer).end
    if end is not None:
        config = config.model_copy(update={"stop_ids": [*config.stop_ids, tokenizer.vocab[end]]})
    return generate(model, tokenizer, prompts, config, samples=samples, batch_size=batch_size, logprobs=logprobs)


def infilling_prompt(tokenizer: "Tokenizer", prefix: str, suffix: str, *, suffix_first: bool = False) -> list[int]:
    """The ids that the model continues with the middle; a begin token in front where the tokenizer's texts have one."""
    marks = marks_of(tokenizer)
    pre, suf, mid = (tokenizer.vocab[token] for token in (marks.prefix, marks.suffix, marks.middle))
    before, after = tokenizer.encode(prefix), encode_inside(tokenizer, suffix)
    bos = [tokenizer.bos_id] if tokenizer.bos_id is not None and _has_bos(tokenizer) else []
    return [*bos, pre, suf, *after, mid, *before] if suffix_first else [*bos, pre, *before, suf, *after, mid]


def marks_of(tokenizer: "Tokenizer") -> Marks:
    """The marks that a tokenizer has; a UsageError where it has none."""
    for marks in KNOWN:
        if all(token in tokenizer.vocab for token in marks if token is not None):
            return marks
    raise UsageError(
        "this tokenizer has no tokens for infilling such as ▁<PRE>, ▁<SUF>, ▁<MID>, ▁<EOT> or <fim_prefix>, "
        "<fim_suffix>, <fim_middle>: the model was not trained to fill gaps"
    )


def encode_inside(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of a text that stands inside a line: a SentencePiece tokenizer puts no space before it."""
    try:
        start, whole = tokenizer.encode(BEFORE), tokenizer.encode(BEFORE + text)
    except UsageError:  # single characters, and not this one
        return tokenizer.encode(text)
    return whole[len(start) :] if whole[: len(start)] == start else tokenizer.encode(text)


def _has_bos(tokenizer: "Tokenizer") -> bool:
    """Whether prompts begin with the begin token: SentencePiece files do not say, and Llama's texts all do."""
    return tokenizer.kind == "sentencepiece" or begins_texts(tokenizer)
