"""Published training recipes as settings: GPT-3 (Brown et al. 2020, table 2.1), Llama 1 (Touvron et al. 2023).

`gpt3("175B")` and `llama1("65B")` return dicts for the optimizer, the schedule and the batch ramp. Nothing is repaired:
GPT-3 13B has width 5140 with 40 heads of 128 (5120), and 1.3B has 24 heads of 128 at width 2048, as printed.
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


def gpt3(size: str) -> dict[str, Any]:
    """Settings of one of the eight GPT-3 models.

    AdamW with betas (0.9, 0.95), eps 1e-8, weight decay 0.1; norm clipped at 1; warmup over 375M tokens; cosine to 10 %
    over 260B of 300B tokens; the batch rises from 32k tokens over the first 4B (small models) to 12B tokens.
    """
    row = _row(GPT3_SIZES, size)
    recipe = _recipe(row, eps=1e-8, warmup_steps=round(375e6 / row.batch_tokens))
    recipe |= {"warmup_tokens": 375_000_000, "decay_tokens": 260_000_000_000}
    recipe["schedule"]["decay_steps"] = round(260e9 / row.batch_tokens)
    recipe["batch_ramp"] = {"start_tokens": 32_000, "ramp_tokens": _gpt3_ramp(size)}
    return recipe


def _gpt3_ramp(size: str) -> int:
    # The paper says 4 to 12 billion tokens "depending on the model size", without a table: equal steps between them.
    position = list(GPT3_SIZES).index(size) / (len(GPT3_SIZES) - 1)
    return round(4e9 + 8e9 * position)


def llama1(size: str) -> dict[str, Any]:
    """Settings of one of the four Llama 1 models.

    AdamW with betas (0.9, 0.95), weight decay 0.1; norm clipped at 1; 2,000 warmup steps; cosine to 10 %; 4M tokens a
    batch from the start. The paper names no eps: 1e-8.
    """
    return _recipe(_row(LLAMA1_SIZES, size), eps=1e-8, warmup_steps=2000)


def _recipe(row: PublishedSize, *, eps: float, warmup_steps: int) -> dict[str, Any]:
    optimizer = {"kind": "adamw", "lr": row.lr, "betas": (0.9, 0.95), "eps": eps, "weight_decay": 0.1}
    return {
        "optimizer": optimizer,
        "schedule": {"kind": "cosine", "warmup_steps": warmup_steps, "minimum": 0.1},
        "max_norm": 1.0,
        "batch_tokens": row.batch_tokens,
        "train_tokens": int(row.train_tokens),
        "steps": round(row.train_tokens / row.batch_tokens),
    }


def _row(sizes: dict[str, PublishedSize], size: str) -> PublishedSize:
    if size not in sizes:
        raise UsageError(f"no published size `{size}`.{did_you_mean(size, sizes)} One of: {', '.join(sizes)}")
    return sizes[size]
