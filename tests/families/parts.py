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
    "attention": ("gqa", "mqa"),
    "mlp": ("dense",),
    "mask": ("prefix",),
    "initializer": ("gpt2", "xavier", "orthogonal"),
}  # fmt: skip
SMALL = {name: LLAMA[name] for name in LLAMA if name != "intermediate_size"} | {"num_hidden_layers": 2}


def make(**choice):
    return lambda: PartsConfig(**SMALL | {"position_buckets": 8, "max_distance": 6} | choice)


reference = Reference(
    own={f"parts-{value}": make(**{name: value}) for name, values in CHOICES.items() for value in values},
)
