"""Parameters, counted part by part: exact, not a rule of thumb."""

from dataclasses import dataclass
from typing import Any

from groundup.estimates.built import Built, shape_of
from groundup.estimates.shape import Shape


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
    norm = s.hidden * ((2 if s.layer_norm else 1) if s.norm_width is None else s.norm_width)
    rows = [
        Part("token embedding", s.vocab * s.vectors),
        Part("projections of the embedding", 0 if s.narrow is None else s.hidden * s.narrow, 2),
        Part("position embedding", s.learned_positions * s.hidden, s.position_tables),
        *(part for level in s.levels for part in _branches(level)),
        *_mixture_parts(s),
        Part("relative positions", s.position_parameters, s.layers),
        Part("norms", norm, s.block_norms * s.layers + s.last_norm),
        Part("elsewhere", s.elsewhere),
        Part("output head", 0 if s.tied else s.vocab * s.vectors),
    ]
    return [row for row in rows if row.total]


def _branches(s: Shape) -> list[Part]:
    """Attention and feed-forward network of layers that are alike."""
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
    if s.gates:
        attention += (s.hidden + s.attention_bias) * query
    attention += s.head_norms + (s.heads if s.sinks else 0) + s.mixer_parameters
    if s.latent is not None:
        attention = s.latent.parameters(s.hidden, s.heads)
    return [
        Part("attention", attention, s.attention_layers),
        *([Part("memories", s.memories.parameters(s.hidden), s.memories.layers)] if s.memories else []),
        Part("feed-forward", mlp, s.dense_layers),
    ]


def _mixture_parts(s: Shape) -> list[Part]:
    """Gate, experts and shared expert of the layers that have them."""
    m = s.mixture
    if m is None:
        return []
    return [
        Part("gates", m.gate(s.hidden), m.layers),
        Part("experts", m.experts * m.network(s.hidden), m.layers),
        Part("shared experts", m.shared_network(s.hidden), m.layers),
    ]


def count_parameters(config: Any) -> int:
    """All parameters; a tied output head counts once."""
    return sum(part.total for part in parts(config))


def active_parameters(config: Any) -> int:
    """Those that one token visits: all but the experts that its gates did not choose."""
    s = shape_of(config)
    if isinstance(s, Built):
        return count_parameters(s) - s.idle
    return count_parameters(s) - (s.mixture.layers * s.mixture.idle(s.hidden) if s.mixture else 0)


def matrix_parameters(config: Any) -> int:
    """Parameters that take part in a matrix product for each token: the head counts, tied or not."""
    s = shape_of(config)
    if isinstance(s, Built):
        return s.products + s.head
    projected = 0 if s.narrow is None else 2 * s.hidden * s.narrow
    blocks = sum(mixing_matrices(level) + mlp_matrices(level) for level in s.levels)
    return blocks + projected + s.vocab * s.vectors


def mlp_matrices(s: Shape) -> int:
    """Numbers of all MLPs that a token is multiplied by; of mixtures the gate and what it chose."""
    dense = s.dense_layers * (3 if s.gated else 2) * s.hidden * s.intermediate
    return dense + (s.mixture.layers * s.mixture.active_matrices(s.hidden) if s.mixture else 0)


def mixing_matrices(s: Shape) -> int:
    """Parameters of the projections of all layers, with attention or with a memory."""
    attention = s.attention_layers * attention_matrices(s)
    if s.memories is None:
        return attention
    return attention + s.memories.layers * sum(rows * columns for rows, columns in s.memories.matrices(s.hidden))


def attention_matrices(s: Shape) -> int:
    """Parameters of the projections of a layer with attention."""
    if s.latent is not None:
        return sum(rows * columns for rows, columns in s.latent.matrices(s.hidden, s.heads))
    return s.hidden * s.head_dim * ((3 if s.gates else 2) * s.heads + 2 * s.kv_heads)


def moe_parameters(*, hidden: int, intermediate: int, experts: int, active: int) -> tuple[int, int]:
    """(all, active for one token) of a layer of gated experts, each 3 x hidden x intermediate, without router."""
    return experts * 3 * hidden * intermediate, active * 3 * hidden * intermediate


def model_bytes(config: Any, dtype: str = "fp32") -> int:
    """Bytes of the weights in a dtype."""
    return round(count_parameters(config) * BYTES[dtype])


BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1, "int4": 0.5}
"""Bytes of one number."""
