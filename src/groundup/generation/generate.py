"""generate and stream: continue prompts with a causal language model.

Prompts of different lengths share a batch by left padding (documents = 0), so the last column is the last token of
every row. The state is allocated once; a prompt is read in chunks; the head sees the last token only; rows that end
leave the batch. A decoding step asks the device once: for the tokens.
"""

import contextlib
import secrets
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from groundup.base.errors import NotFiniteError, UsageError
from groundup.generation.config import SamplingConfig, with_overrides
from groundup.generation.few_rows import for_decoding
from groundup.generation.sampler import Sampler
from groundup.generation.text import TextStream
from groundup.quantization.kv_cache import quantize_cache

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "eos"]
Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]

DEFAULT_NEW_TOKENS = 256
PREFILL_CHUNK = 1024


@dataclass(frozen=True)
class Completion:
    """What a prompt became.

    Attributes:
        text: the new text: no prompt, no stop text, no special tokens.
        ids: the new tokens, the last one (end-of-text, part of a stop text) included.
        finish_reason: "eos" (end-of-text), "stop" (a stop text or stop id) or "length".
        prompt_tokens: length of the prompt.
        logprobs: log-probability of each new token under the model itself, before any setting; None unless asked for.
    """

    text: str
    ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    logprobs: list[float] | None = None


def generate(
    model: Any,
    tokenizer: "Tokenizer",
    prompts: Prompts,
    sampling: SamplingConfig | None = None,
    stop: str | Sequence[str] | None = None,
    *,
    samples: int = 1,
    batch_size: int = 32,
    logprobs: bool = False,
    bos: bool | None = None,
    **overrides: Any,
) -> list[Completion]:
    """Continue every prompt.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: a text, texts, a list of ids, or lists of ids. An empty one starts from the tokenizer's begin
            (or end-of-text) token.
        sampling: the settings.
        stop: stop texts, in place of the settings'.
        samples: completions a prompt; those of one prompt stand together in the result.
        batch_size: most rows at once. It does not change what is generated (up to rounding).
        logprobs: fill `Completion.logprobs`.
        bos: begin text prompts with the begin token; None: where the tokenizer's own file puts one around a text.
        overrides: settings by name, as `temperature=0`.

    Returns:
        One Completion a prompt and sample, in order.

    Raises:
        UsageError: an unknown setting, an id outside the vocabulary, or a prompt that does not fit the context.
        NotFiniteError: the model gave NaN or +inf (see `SamplingConfig.invalid_scores`).
    """
    config = _with_seed(with_overrides(sampling, stop, overrides))
    listed = [ids for ids in encode_prompts(tokenizer, prompts, bos) for _ in range(samples)]
    rows = _rows(model, tokenizer, listed, config, logprobs)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))  # rows of like length: little padding
    for start in range(0, len(order), batch_size):
        for _ in decode(model, tokenizer, [rows[i] for i in order[start : start + batch_size]], config):
            pass
    return [row.completion() for row in rows]


def stream(
    model: Any,
    tokenizer: "Tokenizer",
    prompt: str | Sequence[int],
    sampling: SamplingConfig | None = None,
    stop: str | Sequence[str] | None = None,
    *,
    bos: bool | None = None,
    **overrides: Any,
) -> Iterator[str]:
    """Continue one prompt; yields the text in pieces as soon as they are certain.

    Joined they are the text that `generate` gives. The generator's return value is the Completion. Arguments and errors
    as in `generate`; errors in the arguments come before the first piece is asked for.
    """
    config = _with_seed(with_overrides(sampling, stop, overrides))
    (row,) = _rows(model, tokenizer, encode_prompts(tokenizer, prompt, bos), config, False)
    return _pieces(model, tokenizer, row, config)


def _pieces(model: Any, tokenizer: "Tokenizer", row: "Row", config: SamplingConfig) -> Iterator[str]:
    with contextlib.closing(decode(model, tokenizer, [row], config)) as steps:
        for _ in steps:
            if piece := row.text.take():
                yield piece
    return row.completion()


@dataclass
class Row:
    """A prompt on its way to a completion."""

    prompt: list[int]
    limit: int  # most new tokens
    text: TextStream
    copy: int  # rows with the same prompt before this one
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] | None = None
    finish_reason: FinishReason | None = None

    def push(self, token: int, eos: frozenset[int], stop_ids: frozenset[int]) -> None:
        """Add a token; sets `finish_reason` when it is the last."""
        self.ids.append(token)
        if token in eos:
            self.finish_reason = "eos"
        elif token in stop_ids or self.text.push(token):
            self.finish_reason = "stop"
        elif len(self.ids) >= self.limit:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            self.text.finish()
            if self.text.stopped:  # a stop text that only the last, unfinished character completed
                self.finish_reason = "stop"

    def completion(self) -> Completion:
        """The result."""
        assert self.finish_reason is not None
        return Completion(self.text.text, self.ids, self.finish_reason, len(self.prompt), self.logprobs)


@torch.inference_mode()
def decode(model: Any, tokenizer: "Tokenizer", rows: list[Row], config: SamplingConfig) -> Generator[None, None, None]:
    """Generate for all rows at once, in place; yields after every step."""
    device = next(model.parameters()).device
    eos, stop_ids = frozenset(() if config.ignore_eos else end_ids(model, tokenizer)), frozenset(config.stop_ids)
    longest, steps = max(len(row.prompt) for row in rows), max(row.limit for row in rows)
    sampler = Sampler(
        config,
        [row.prompt for row in rows],
        [row.copy for row in rows],
        sorted(eos | stop_ids),
        model.config.vocab_size,
        steps,
        device,
    )
    model = for_decoding(model)
    with evaluating(model):
        state = make_state(model, len(rows), longest + steps, config.cache_bits)
        logits = prefill(model, [row.prompt for row in rows], state, device)
        active = rows
        while True:
            tokens = sampler(logits)
            _record(active, tokens, logits, eos, stop_ids)
            yield
            keep = [i for i, row in enumerate(active) if row.finish_reason is None]
            if not keep:
                return
            if len(keep) < len(active):
                index = torch.tensor(keep, device=device)
                active = [active[i] for i in keep]
                tokens = tokens[index]
                state.select(index)
                sampler.select(index)
            logits = model(tokens[:, None], state=state, head=last_token)


def make_state(model: Any, batch: int, max_len: int, cache_bits: int | None = None) -> Any:
    """An empty state, with keys and values in fewer bits where that is asked for."""
    state = model.make_state(batch, max_len)
    if cache_bits is None:
        return state
    try:
        return quantize_cache(state, cache_bits)
    except UsageError as error:
        raise UsageError(f"cache_bits={cache_bits} does not fit {model.config.model_type}: {error}") from None


def _record(rows: list[Row], tokens: Tensor, logits: Tensor, eos: frozenset[int], stop_ids: frozenset[int]) -> None:
    scores: list[float] | None = None
    if rows[0].logprobs is not None:
        chosen = logits.float().log_softmax(-1).gather(-1, tokens.clamp(min=0)[:, None])
        values = torch.stack([tokens.double(), chosen[:, 0].double()]).tolist()  # one question to the device
        numbers, scores = [int(value) for value in values[0]], values[1]
    else:
        numbers = tokens.tolist()
    for i, (row, token) in enumerate(zip(rows, numbers, strict=True)):
        if token < 0:
            raise NotFiniteError(
                f"the model gave NaN or infinite scores for token {len(row.ids) + 1} "
                f"after a prompt of {len(row.prompt)}: "
                "check the checkpoint (`groundup models verify`) and dtype; invalid_scores=replace goes on regardless"
            )
        row.push(token, eos, stop_ids)
        if row.logprobs is not None and scores is not None:
            row.logprobs.append(scores[i])


def prefill(model: Any, prompts: Sequence[Sequence[int]], state: Any, device: torch.device) -> Tensor:
    """Read the prompts into the state, in chunks; the logits (B, V) after the last token of each."""
    ids, documents = pad_left(prompts, device)
    width = ids.shape[1]
    logits = None
    for start in range(0, width, PREFILL_CHUNK):
        part = slice(start, start + PREFILL_CHUNK)
        last = start + PREFILL_CHUNK >= width
        logits = model(
            ids[:, part],
            documents=None if documents is None else documents[:, part],
            state=state,
            head=last_token if last else no_logits,
        )
    assert logits is not None
    return logits


def pad_left(rows: Sequence[Sequence[int]], device: torch.device | None = None) -> tuple[Tensor, Tensor | None]:
    """Rows of ids -> ids (B, T), padded on the left, and documents (B, T): 0 for padding, else 1; None without any."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], dtype=torch.int64)
    if all(len(row) == width for row in rows):
        return ids.to(device), None
    documents = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.int64)
    return ids.to(device), documents.to(device)


def last_token(hidden: Tensor, lm_head: Any) -> Tensor:
    """A head: logits (B, V) of the last column of hidden (B, T, D)."""
    return lm_head(hidden[:, -1])


def no_logits(hidden: Tensor, lm_head: Any) -> None:
    """A head for tokens that are only to be remembered."""


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No dropout inside; the mode of every module is as before after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def encode_prompts(tokenizer: "Tokenizer", prompts: Prompts, bos: bool | None = None) -> list[list[int]]:
    """Prompts in any of their forms as lists of ids, none of them empty."""
    if isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int)):
        prompts = [prompts]  # type: ignore[list-item]
    bos = begins_texts(tokenizer) if bos is None else bos
    encoded = [tokenizer.encode(p, bos=bos) if isinstance(p, str) else [int(i) for i in p] for p in prompts]  # type: ignore[union-attr]
    return [ids or [start_id(tokenizer)] for ids in encoded]


def begins_texts(tokenizer: "Tokenizer") -> bool:
    """Whether tokenizer.json puts the begin token in front of a text, as Llama's does (post-processor, "single")."""
    whole = getattr(tokenizer, "post_processor", None) or {}
    for part in whole.get("processors", [whole]):
        first = next(iter(part.get("single") or []), {}).get("SpecialToken")
        if part.get("type") == "TemplateProcessing" and first is not None:
            return tokenizer.bos_id is not None and tokenizer.special_tokens.get(first["id"]) == tokenizer.bos_id
    return False


def start_id(tokenizer: "Tokenizer") -> int:
    """The token a text starts after: begin-of-text, else end-of-text."""
    for token in (tokenizer.bos_id, tokenizer.eos_id):
        if token is not None:
            return token
    raise UsageError("an empty prompt needs a begin-of-text or end-of-text token, and this tokenizer has neither")


def end_ids(model: Any, tokenizer: "Tokenizer") -> set[int]:
    """The end-of-text ids that the tokenizer and the model's checkpoint name, and the one that ends what fills a blank;
    a small GPT-2 may name one it has not.
    """
    named = getattr(model.config, "kept", {}).get("eos_token_id")
    ids = set(named) if isinstance(named, list | tuple) else {named}
    ids |= {tokenizer.eos_id, getattr(model.config, "eop_token_id", None)}
    return {token for token in ids if token is not None and token < model.config.vocab_size}


def context_limit(model: Any) -> int | None:
    """Most tokens the model can see, besides what its adapters put ahead; None where nothing bounds it."""
    limit = getattr(model.config, "max_position_embeddings", None) if getattr(model.config, "bounded", True) else None
    ahead = getattr(model, "prompt", None)
    return limit if limit is None or ahead is None else limit - ahead.room()


def new_tokens(model: Any, prompt_tokens: int, wanted: int | None) -> int:
    """How many tokens may follow a prompt; a UsageError with both numbers where the prompt and `wanted` do not fit."""
    limit = context_limit(model)
    if limit is None:
        return wanted or DEFAULT_NEW_TOKENS
    if wanted is None and prompt_tokens < limit:
        return min(DEFAULT_NEW_TOKENS, limit - prompt_tokens)
    if prompt_tokens + (wanted or 1) > limit:
        raise UsageError(
            f"the prompt has {prompt_tokens} tokens and {wanted or 1} more are wanted, "
            f"but the model's context holds {limit}: shorten the prompt or lower max_new_tokens"
        )
    return wanted or 1


def _rows(
    model: Any, tokenizer: "Tokenizer", prompts: list[list[int]], config: SamplingConfig, logprobs: bool
) -> list[Row]:
    vocab = model.config.vocab_size
    for token in [*(i for ids in prompts for i in ids), *config.stop_ids, *config.logit_bias]:
        if not 0 <= token < vocab:
            raise UsageError(f"token id {token} is outside the model's vocabulary of {vocab}")
    copies: Counter[tuple[int, ...]] = Counter()
    rows = []
    for ids in prompts:
        limit = new_tokens(model, len(ids), config.max_new_tokens)
        rows.append(
            Row(ids, limit, TextStream(tokenizer, config.stop), copies[tuple(ids)], [], [] if logprobs else None)
        )
        copies[tuple(ids)] += 1
    return rows


def _with_seed(config: SamplingConfig) -> SamplingConfig:
    return config if config.seed is not None else config.model_copy(update={"seed": secrets.randbits(63)})
