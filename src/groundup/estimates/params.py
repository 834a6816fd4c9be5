"""Parameters, counted part by part: exact, not a rule of thumb."""

from dataclasses import dataclass
from typing import Any

from groundup.estimates.built import Built, shape_of


@dataclass(frozen=True)
class Part:
    """A row of the table: `each` parameters, `copies` times."""

    name: str
    each: int
    copies: int = 1

    @property
    def total(self) -> int:
        """All copies together."""
        return self.each * self.copies


def parts(config: Any) -> list[Part]:
    """Every part of a decoder with its count; their totals add up to the model's parameters.

    With hidden d, MLP width f, heads h of size k, key-value heads g:
        attention  d h k + 2 d g k + h k d         MLP  2 d f, or 3 d f when gated
    """
    s = shape_of(config)
    if isinstance(s, Built):
        return [Part(name, count) for name, count in s.parts]
    query, key_value = s.heads * s.head_dim, s.kv_heads * s.head_dim
    attention = s.hidden * (query + 2 * key_value) + query * s.hidden
    matrices = 3 if s.gated else 2
    mlp = matrices * s.hidden * s.intermediate
    if s.attention_bias:
        attention += query + 2 * key_value
    if s.attention_bias if s.out_bias is None else s.out_bias:
        attention += s.hidden
    if s.mlp_bias:
        mlp += (matrices - 1) * s.intermediate + s.hidden
    attention += s.head_norms
    norm = s.hidden * (2 if s.layer_norm else 1)
    rows = [
        Part("token embedding", s.vocab * s.hidden),
        Part("position embedding", s.learned_positions * s.hidden),
        Part("attention", attention, s.layers),
        Part("feed-forward", mlp, s.layers),
        Part("norms", norm, s.block_norms * s.layers + 1),
        Part("output head", 0 if s.tied else s.vocab * s.hidden),
    ]
    return [row for row in rows if row.total]


def count_parameters(config: Any) -> int:
    """All parameters; a tied output head counts once."""
    return sum(part.total for part in parts(config))


def matrix_parameters(config: Any) -> int:
    """Parameters that take part in a matrix product for each token: the head counts, tied or not."""
    s = shape_of(config)
    if isinstance(s, Built):
        return s.products + s.head
    per_layer = 2 * s.hidden * s.head_dim * (s.heads + s.kv_heads) + (3 if s.gated else 2) * s.hidden * s.intermediate
    return s.layers * per_layer + s.vocab * s.hidden


def moe_parameters(*, hidden: int, intermediate: int, experts: int, active: int) -> tuple[int, int]:
    """(all, active for one token) of a layer of gated experts, each 3 x hidden x intermediate, without router."""
    return experts * 3 * hidden * intermediate, active * 3 * hidden * intermediate


def model_bytes(config: Any, dtype: str = "fp32") -> int:
    """Bytes of the weights in a dtype."""
    return round(count_parameters(config) * BYTES[dtype])


BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1, "int4": 0.5}
"""Bytes of one number."""
