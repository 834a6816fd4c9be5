"""A model of named parts: no library has it, so its behaviour is tested on every name of its tables."""

from families.reference import Reference
from families.shapes import LLAMA
from groundup.models.configs.parts import PartsConfig

CHOICES = {
    "positions": (
        "none", "learned", "sinusoidal", "rope", "rope_interleaved", "alibi", "kerple_power", "kerple_log", "t5",
        "shaw", "transformer_xl",
    ),
    "norm": ("layernorm", "std_layernorm"),
    "residual": ("post", "sandwich", "end", "deepnorm"),
    "attention": ("gqa", "mqa", "gated", "dual_chunk", "performer", "gated_delta"),
    "mlp": ("dense",),
    "gate": (
        "dense", "top_k", "gshard", "switch", "top2", "base", "expert_choice", "group_limited", "loss_free",
    ),
    "mask": ("prefix", "alternating", "strided", "fixed"),
    "initializer": ("gpt2", "xavier", "orthogonal"),
}  # fmt: skip
SMALL = {name: LLAMA[name] for name in LLAMA if name != "intermediate_size"} | {"num_hidden_layers": 2}


def make(**choice):
    return lambda: PartsConfig(**SMALL | {"position_buckets": 8, "max_distance": 6, "stride": 3} | choice)


SUMS, DELTAS = ("performer",), ("gated_delta",)
"""Attention that remembers tensors of fixed size: `parts_of_sums.py` and `parts_of_deltas.py` hold it."""

reference = Reference(
    # counts of these shapes; `test_moe_configurations.py` holds them against those that the papers print
    parameters={
        "glam-0.1b-64e": 1_907_612_928,
        "glam-1.7b-32e": 13_957_969_920,
        "glam-1.7b-64e": 26_843_658_240,
        "glam-1.7b-128e": 52_615_034_880,
        "glam-1.7b-256e": 104_157_788_160,
        "glam-8b-64e": 142_943_227_904,
        "glam-64b-64e": 1_161_756_418_048,
        "switch-base": 7_386_904_320,
        "switch-large": 26_208_625_664,
        "switch-xxl": 393_064_452_096,
        "switch-c": 1_571_088_252_960,
        "facebook-moe-15b": 14_604_994_560,
        "facebook-moe-52b": 51_830_413_312,
        "facebook-moe-207b": 207_142_694_912,
        "facebook-moe-1.1t": 1_104_215_187_456,
    },
    theirs_count=False,
    own={
        f"parts-{value}": make(**{name: value})
        for name, values in CHOICES.items()
        for value in values
        if value not in SUMS + DELTAS
    },
)
