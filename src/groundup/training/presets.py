"""Published training recipes as settings: GPT-3 (Brown et al. 2020, table 2.1), Llama 1 (Touvron et al. 2023).

`gpt3("175B")` and `llama1("65B")` return settings of `TrainingConfig`; `preset("gpt3-125M")` those of `groundup train`:
model, data and training. Nothing is repaired: GPT-3 13B has width 5140 with 40 heads of 128 (5120), and 1.3B has 24
heads of 128 at width 2048, as printed.
"""

from dataclasses import dataclass
from typing import Any

from groundup.base.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class PublishedSize:
    """One row of a paper's table of sizes."""

    layers: int
    width: int
    heads: int
    head_size: int
    batch_tokens: int
    lr: float
    train_tokens: float


_M = 1_000_000
GPT3_SIZES = {
    "125M": PublishedSize(12, 768, 12, 64, _M // 2, 6e-4, 300e9),
    "350M": PublishedSize(24, 1024, 16, 64, _M // 2, 3e-4, 300e9),
    "760M": PublishedSize(24, 1536, 16, 96, _M // 2, 2.5e-4, 300e9),
    "1.3B": PublishedSize(24, 2048, 24, 128, _M, 2e-4, 300e9),
    "2.7B": PublishedSize(32, 2560, 32, 80, _M, 1.6e-4, 300e9),
    "6.7B": PublishedSize(32, 4096, 32, 128, 2 * _M, 1.2e-4, 300e9),
    "13B": PublishedSize(40, 5140, 40, 128, 2 * _M, 1e-4, 300e9),
    "175B": PublishedSize(96, 12288, 96, 128, 3_200_000, 0.6e-4, 300e9),
}
"""As printed, the batch in tokens."""

LLAMA1_SIZES = {
    "7B": PublishedSize(32, 4096, 32, 128, 4 * _M, 3e-4, 1.0e12),
    "13B": PublishedSize(40, 5120, 40, 128, 4 * _M, 3e-4, 1.0e12),
    "33B": PublishedSize(60, 6656, 52, 128, 4 * _M, 1.5e-4, 1.4e12),
    "65B": PublishedSize(80, 8192, 64, 128, 4 * _M, 1.5e-4, 1.4e12),
}
"""As printed; Llama 1 has 2,000 warmup steps at every size."""


CONTEXT = 2048
"""Tokens of a row in both papers."""


def preset(name: str, context_length: int = CONTEXT) -> dict[str, Any]:
    """Settings of `groundup train` for `gpt3-125M`, `llama1-7B`, ...: sections model, data and training.

    The model's vocabulary is the tokenizer's. Two printed shapes of GPT-3 (1.3B, 13B) are no shapes of that
    architecture, because heads x head size is not the width: these have no section `model`.
    """
    family, _, size = name.partition("-")
    sizes = {"gpt3": GPT3_SIZES, "llama1": LLAMA1_SIZES}
    if family not in sizes or size not in sizes[family]:
        known = [f"{one}-{row}" for one, rows in sizes.items() for row in rows]
        raise UsageError(f"no preset `{name}`.{did_you_mean(name, known)} One of: {', '.join(known)}")
    training = (gpt3 if family == "gpt3" else llama1)(size, context_length)
    row = sizes[family][size]
    model = {} if row.heads * row.head_size != row.width else {"model": _shape(family, row)}
    return {**model, "data": {"context_length": context_length}, "training": training}


def _shape(family: str, row: PublishedSize) -> dict[str, Any]:
    shape = {"hidden_size": row.width, "num_hidden_layers": row.layers, "num_attention_heads": row.heads}
    if family == "gpt3":
        return {"model_type": "gpt2", **shape}
    # SwiGLU with 2/3 of 4 d, in multiples of 256
    return {"model_type": "llama", **shape, "intermediate_size": -(-8 * row.width // (3 * 256)) * 256}


def gpt3(size: str, context_length: int = CONTEXT) -> dict[str, Any]:
    """Training settings of one of the eight GPT-3 models.

    AdamW with betas (0.9, 0.95), eps 1e-8, weight decay 0.1; norm clipped at 1; warmup over 375M tokens; cosine to 10 %
    over 260B of 300B tokens; the batch rises from 32k tokens over the first 4B (small models) to 12B tokens.
    """
    schedule = {"warmup_tokens": 375_000_000, "decay_tokens": 260_000_000_000}
    recipe = _recipe(_row(GPT3_SIZES, size), schedule, context_length)
    return {**recipe, "batch_ramp": {"start_tokens": 32_000, "ramp_tokens": _gpt3_ramp(size)}}


def _gpt3_ramp(size: str) -> int:
    # The paper says 4 to 12 billion tokens "depending on the model size", without a table: equal steps between them.
    position = list(GPT3_SIZES).index(size) / (len(GPT3_SIZES) - 1)
    return round(4e9 + 8e9 * position)


def llama1(size: str, context_length: int = CONTEXT) -> dict[str, Any]:
    """Training settings of one of the four Llama 1 models.

    AdamW with betas (0.9, 0.95), weight decay 0.1; norm clipped at 1; 2,000 warmup steps; cosine to 10 %; 4M tokens a
    batch from the start. The paper names no eps: 1e-8.
    """
    return _recipe(_row(LLAMA1_SIZES, size), {"warmup_steps": 2000}, context_length)


def _recipe(row: PublishedSize, schedule: dict[str, Any], context_length: int) -> dict[str, Any]:
    return {
        "optimizer": {"kind": "adamw", "lr": row.lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
        "schedule": {"kind": "cosine", "minimum": 0.1, **schedule},
        "clip": 1.0,
        "batch_size": max(1, round(row.batch_tokens / context_length)),
        "tokens": int(row.train_tokens),
    }


def _row(sizes: dict[str, PublishedSize], size: str) -> PublishedSize:
    if size not in sizes:
        raise UsageError(f"no published size `{size}`.{did_you_mean(size, sizes)} One of: {', '.join(sizes)}")
    return sizes[size]
