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
        "dense", "top_k", "gshard", "switch", "base", "expert_choice", "group_limited", "loss_free",
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
    # Du et al. 2021 as 1.2T (96.6B active), Artetxe et al. 2021 as 15B, 52B, 207B and 1.1T: counts of these
    # shapes by the formulas of the papers
    parameters={
        "glam-64b-64e": 1_161_756_418_048,
        "facebook-moe-15b": 14_605_713_408,
        "facebook-moe-52b": 51_831_371_776,
        "facebook-moe-207b": 207_144_611_840,
        "facebook-moe-1.1t": 1_104_219_021_312,
    },
    theirs_count=False,
    own={
        f"parts-{value}": make(**{name: value})
        for name, values in CHOICES.items()
        for value in values
        if value not in SUMS + DELTAS
    },
)
