"""Parts that only some families have: mixtures of experts, latent attention and memories of one size, read by their
Hugging Face names.
"""

from dataclasses import dataclass
from typing import Any

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
WEIGHED = ("qwen2_moe", "qwen3_next", "qwen3_5_moe_text")
"""Families whose shared expert is weighed by a row of numbers."""


@dataclass(frozen=True)
class Mixture:
    """The layers whose MLP is a mixture of gated experts.

    Attributes:
        layers: how many there are.
        experts: in each of them; `active` for one token.
        width: of an expert; `shared`: of the expert that all tokens visit, 0 for none.
        shared_gate: whether one more row of numbers weighs the shared expert.
        biases: whether experts have them.
        gated, shared_gated: whether an expert, and the shared one, has three matrices in place of two.
        gate_bias: whether the gate has one.
    """

    layers: int
    experts: int
    active: int
    width: int
    shared: int = 0
    shared_gate: bool = False
    biases: bool = False
    gated: bool = True
    shared_gated: bool = True
    gate_bias: bool = False

    @classmethod
    def of(cls, read: Any, family: str, layers: int) -> "Mixture | None":
        """From a config; None where there are no experts."""
        experts = next((read.number(name) for name in EXPERTS if read.optional(name)), 0)
        if not experts:
            return None
        width = read.optional("moe_intermediate_size") or read.number("intermediate_size")
        shared = read.optional("shared_expert_intermediate_size") or read.optional("n_shared_experts", 0) * width
        step, dense = read.optional("decoder_sparse_step", 1), read.optional("mlp_only_layers", [])
        lowest = read.optional("decoder_sparse_first", step - 1)
        sparse = [i for i in range(lowest, layers, step) if i not in dense]
        first = read.optional("first_k_dense_replace", 0)
        return cls(
            layers=len([i for i in sparse if i >= first]),
            experts=experts,
            active=read.number("num_experts_per_tok"),
            width=width,
            shared=shared,
            shared_gate=family in WEIGHED,
            biases=family == "gpt_oss" or bool(family == "parts" and read.optional("bias")),
            gated=family != "parts" or bool(read.optional("gated_experts", read.optional("mlp") == "gated")),
            shared_gated=family != "parts" or read.optional("mlp") == "gated",
            gate_bias=family == "gpt_oss",
        )

    def network(self, hidden: int) -> int:
        """Parameters of one expert."""
        return network(hidden, self.width, self.gated, self.biases)

    def shared_network(self, hidden: int) -> int:
        """Parameters of the shared expert."""
        return network(hidden, self.shared, self.shared_gated, self.biases) if self.shared else 0

    def gate(self, hidden: int) -> int:
        """Parameters of what decides."""
        return self.experts * (hidden + int(self.gate_bias)) + (hidden if self.shared_gate else 0)

    def active_width(self) -> int:
        """Of all MLPs that one token visits, side by side."""
        return self.active * self.width + self.shared

    def active_matrices(self, hidden: int) -> int:
        """Numbers that one token is multiplied by: the gates' and those of the MLPs that it visits."""
        visited = self.active * network(hidden, self.width, self.gated) + network(
            hidden, self.shared, self.shared_gated
        )
        return self.experts * hidden + visited

    def idle(self, hidden: int) -> int:
        """Parameters of a layer that one token does not visit."""
        return (self.experts - self.active) * self.network(hidden)


def network(hidden: int, width: int, gated: bool, biases: bool = False) -> int:
    """Parameters of an MLP: 2 d f, or 3 d f when gated."""
    matrices = 3 if gated else 2
    return matrices * hidden * width + ((matrices - 1) * width + hidden if biases else 0)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2 2024): widths of what is projected.

    Attributes:
        query: of the queries' latent; None where they have none.
        cached: of the latent of keys and values; `rope`: of the rotary key; both are what a cache holds.
        plain: of a head's query and key without positions; `value`: of its values.
        biases: whether the first projections and the last have biases.
    """

    query: int | None
    cached: int
    rope: int
    plain: int
    value: int
    biases: bool = False

    @classmethod
    def of(cls, read: Any) -> "Latent | None":
        """From a config; None where attention has no latent."""
        if not read.optional("kv_lora_rank"):
            return None
        return cls(
            query=read.optional("q_lora_rank"),
            cached=read.number("kv_lora_rank"),
            rope=read.number("qk_rope_head_dim"),
            plain=read.number("qk_nope_head_dim"),
            value=read.number("v_head_dim"),
            biases=bool(read.optional("attention_bias")),
        )

    def matrices(self, hidden: int, heads: int) -> list[tuple[int, int]]:
        """(rows, columns) of every matrix of a layer."""
        turned = heads * (self.plain + self.rope)
        queries = [(turned, hidden)] if self.query is None else [(self.query, hidden), (turned, self.query)]
        keys = [(self.cached, hidden), (self.rope, hidden), (heads * (self.plain + self.value), self.cached)]
        return [*queries, *keys, (hidden, heads * self.value)]

    def parameters(self, hidden: int, heads: int) -> int:
        """Of one layer, norms of the latents included."""
        total = sum(rows * columns for rows, columns in self.matrices(hidden, heads)) + (self.query or 0) + self.cached
        return total + ((self.query or 0) + self.cached + self.rope + hidden if self.biases else 0)


@dataclass(frozen=True)
class Memories:
    """The layers that have a gated DeltaNet in place of attention: a matrix for each head (Yang et al. 2024).

    Attributes:
        layers: how many there are.
        heads: of values and memories; `key_heads`: of queries and keys.
        key_dim, value_dim: widths of a head.
        span: tokens of the convolution.
    """

    layers: int
    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    span: int

    @classmethod
    def of(cls, read: Any, layers: int) -> "Memories | None":
        """From a config; None where there are none."""
        if not read.optional("linear_num_value_heads"):
            return None
        interval = read.optional("full_attention_interval", 4)
        kinds = read.optional("layer_types") or [
            "full_attention" if (i + 1) % interval == 0 else "" for i in range(layers)
        ]
        return cls(
            layers=sum(kind != "full_attention" for kind in kinds),
            heads=read.number("linear_num_value_heads"),
            key_heads=read.number("linear_num_key_heads"),
            key_dim=read.number("linear_key_head_dim"),
            value_dim=read.number("linear_value_head_dim"),
            span=read.number("linear_conv_kernel_dim"),
        )

    @property
    def channels(self) -> int:
        """What is convolved: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.heads * self.value_dim

    def matrices(self, hidden: int) -> list[tuple[int, int]]:
        """(rows, columns) of every matrix of a layer: q, k, v, the gate, the output; decay and share of each head."""
        keys, values = self.key_heads * self.key_dim, self.heads * self.value_dim
        return [(keys, hidden)] * 2 + [(values, hidden)] * 2 + [(hidden, values)] + [(self.heads, hidden)] * 2

    def parameters(self, hidden: int) -> int:
        """Of one layer: matrices, the convolution, two numbers a head and the norm of a head."""
        matrices = sum(rows * columns for rows, columns in self.matrices(hidden))
        return matrices + self.span * self.channels + 2 * self.heads + self.value_dim

    def products(self) -> int:
        """Multiplications of one token beside the matrices': the convolution; asking, writing and reading a memory."""
        return self.span * self.channels + 3 * self.heads * self.key_dim * self.value_dim

    def kept(self, hidden: int, chunk: int = 64) -> tuple[int, int]:
        """Numbers of a token that a layer keeps for backward: in the type of the model (around convolution, gate
        and norm), and in float32 (normalised queries and keys, the solved system, six matrices of a chunk, the
        memory before it).
        """
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        matrices = self.heads * (6 * chunk + self.key_dim * self.value_dim // chunk)
        return hidden + 2 * self.channels + 3 * values, self.channels + 5 * keys + 7 * values + matrices

    def state_bytes(self, width: float) -> int:
        """What all layers remember of a row: matrices in float32, the last inputs of convolutions of `width` bytes."""
        matrices = 4 * self.heads * self.key_dim * self.value_dim
        return self.layers * (matrices + round(width * (self.span - 1) * self.channels))
