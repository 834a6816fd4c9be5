"""The numbers of a config that estimates need, read by their Hugging Face names."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from groundup.base.errors import UsageError
from groundup.estimates.mixture import Latent, Memories, Mixture


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions and which parts it has.

    Attributes:
        learned_positions: rows of a learned position table; 0 for none. `position_tables`: how many such tables.
        attention_bias, mlp_bias: whether their linear layers have biases.
        layer_norm: LayerNorm (gain and bias) in place of RMSNorm (gain).
        gated: the MLP has three matrices (SwiGLU) in place of two.
        out_bias: whether the output projection of attention has a bias; as attention_bias when None.
        head_norms: gains of the norms over queries and keys in a layer.
        block_norms: norms over the residual stream in a layer.
        norm_width: gains and biases of a norm for each feature; by `layer_norm` when None.
        elsewhere: parameters in no layer: the last norm counts on its own, a bias of the head or a projection here.
        last_norm: whether a norm stands before the head.
        narrow: width of the token vectors, projected up and down, where it is another than `hidden`.
        sinks: a learned number for each head in a layer, for attention that may go nowhere.
        mixture: the layers whose MLP is a mixture of experts, or None.
        latent: the widths of latent attention, or None.
        position_parameters: what a layer's relative positions have to learn.
        mixer_parameters: what a layer's attention has besides the four projections of a plain one.
        widths: (heads, key-value heads, width of the MLP) of each layer, where they differ; `heads`, `kv_heads` and
            `intermediate` are those of the last one then.
        gates: whether attention has a gate for each feature of each head: one more projection.
        memories: the layers that remember in another way than by keys and values, or None.
    """

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    tied: bool
    learned_positions: int
    attention_bias: bool
    mlp_bias: bool
    layer_norm: bool
    gated: bool
    out_bias: bool | None = None
    head_norms: int = 0
    block_norms: int = 2
    norm_width: int | None = None
    elsewhere: int = 0
    last_norm: bool = True
    narrow: int | None = None
    sinks: bool = False
    mixture: Mixture | None = None
    latent: Latent | None = None
    position_parameters: int = 0
    mixer_parameters: int = 0
    widths: tuple[tuple[int, int, int], ...] = ()
    position_tables: int = 1
    gates: bool = False
    memories: Memories | None = None

    @property
    def levels(self) -> list["Shape"]:
        """Shapes whose layers are alike and make up the model's together: one, unless layers differ in width."""
        if not self.widths:
            return [self]
        return [
            replace(self, heads=heads, kv_heads=kv_heads, intermediate=inner, layers=count, widths=())
            for (heads, kv_heads, inner), count in Counter(self.widths).items()
        ]

    @property
    def vectors(self) -> int:
        """Width of the token vectors and of the head."""
        return self.hidden if self.narrow is None else self.narrow

    @property
    def attention_layers(self) -> int:
        """Layers with attention."""
        return self.layers - (self.memories.layers if self.memories else 0)

    @property
    def dense_layers(self) -> int:
        """Layers with one MLP for all tokens."""
        return self.layers - (self.mixture.layers if self.mixture else 0)

    @property
    def active_width(self) -> int:
        """Inner widths of the MLPs that a token visits, summed over layers."""
        m = self.mixture
        return self.dense_layers * self.intermediate + (m.layers * m.active_width() if m else 0)

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """The shape of a config object, or of a mapping such as a parsed config.json.

        Both spellings are read: `hidden_size` and GPT-2's own `n_embd`. `UsageError` names what is missing or unknown.
        """
        read = _Reader(config)
        family = read.optional("model_type", "llama")
        if family == "parts":
            return _parts(read)
        if family in GPT_LIKE:
            return _gpt_like(config)
        if family == "openelm":
            return _openelm(config)
        if family not in KNOWN:
            known = ", ".join((*KNOWN, *GPT_LIKE))
            raise UsageError(f"estimates know the families {known}, not `{family}`")
        gpt2 = family == "gpt2"
        if family in RENAMED and isinstance(config, dict):
            from groundup.models.catalogue import config_from_hf

            renamed = config_from_hf(config)
            family, read = renamed.model_type, _Reader(renamed)
        hidden, heads = read.number("hidden_size", "n_embd"), read.number("num_attention_heads", "n_head")
        intermediate = read.optional("intermediate_size") or read.optional("n_inner")
        intermediate = intermediate or read.optional("moe_intermediate_size")
        if intermediate is None and family not in FOUR_TIMES:
            raise UsageError("the config lacks `intermediate_size`")
        if intermediate is not None and family == "qwen":
            intermediate //= 2  # told for both halves together
        kv_heads = read.optional("num_key_value_heads") or heads
        head_dim = read.optional("head_dim") or HEAD_DIM.get(family, hidden // heads)
        context = read.optional("max_position_embeddings") or read.optional("n_positions") or (1024 if gpt2 else 2048)
        return cls(
            vocab=read.number("vocab_size"),
            hidden=hidden,
            intermediate=intermediate or 4 * hidden,
            layers=read.number("num_hidden_layers", "n_layer"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            context=context,
            tied=bool(read.optional("tie_word_embeddings", family in TIED)),
            learned_positions=context if gpt2 else 2 * (context + 1) if family == "glm_2021" else 0,
            attention_bias=bool(read.optional("attention_bias", gpt2 or family in BIASED))
            or family in BIASED_QUERIES
            or (family == "chatglm" and bool(read.optional("mlp_bias"))),
            mlp_bias=bool(read.optional("mlp_bias", gpt2 or family in FIRST_GLM)),
            layer_norm=gpt2 or family in FIRST_GLM,
            gated=family not in (*FOUR_TIMES, "chatglm_6b"),
            out_bias=bool(read.optional("mlp_bias")) if family in OWN_OUT_BIAS else None,
            block_norms=BLOCK_NORMS.get(family, 2),
            norm_width=0 if family == "olmo" else None,
            head_norms=(heads + kv_heads) * head_dim if family in ALL_HEADS else HEAD_NORMS.get(family, 0) * head_dim,
            sinks=family == "gpt_oss",
            mixture=Mixture.of(read, family, read.number("num_hidden_layers", "n_layer")),
            latent=Latent.of(read),
            gates=family in HYBRID,
            memories=Memories.of(read, read.number("num_hidden_layers", "n_layer")) if family in HYBRID else None,
        )


HYBRID = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
"""Families whose layers remember in two ways: most by a gated DeltaNet, the others by attention with gates."""

KNOWN = (
    *HYBRID,
    *("gpt2", "gemma", "llama", "minicpm", "mistral", "olmo", "olmo2", "openelm", "parts", "phi3", "qwen2", "qwen3"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt_oss"),
    *("glm_2021", "glm_130b", "chatglm_6b", "chatglm", "glm", "glm4", "gemma2", "gemma3_text", "qwen"),
    *("olmo3", "cohere2"),
)
"""The families whose parts are counted here."""

RENAMED = ("qwen", "chatglm", "chatglm_6b", "glm", "glm_130b", "glm_2021")
"""Families whose config.json has names of its own, or stands for one of two families (`glm`)."""

FOUR_TIMES = ("gpt2", "glm_2021")
"""Families whose MLP has four times the width of the stream, without a gate, unless a config says otherwise."""

FIRST_GLM = ("glm_2021", "glm_130b", "chatglm_6b")
"""Families with LayerNorm and biases in every layer."""

TIED = ("gpt2", "gemma", "gemma2", "gemma3_text", "minicpm", "cohere2", *FIRST_GLM)
"""Families whose head is the embedding unless a config says otherwise."""

BIASED = (*FIRST_GLM, "glm", "glm4")
"""Families with biases in attention unless a config says otherwise."""

BLOCK_NORMS = {"glm4": 4, "gemma2": 4, "gemma3_text": 4, "cohere2": 1}
"""Norms of a block: at both ends of each branch, or one for both branches; else 2."""

HEAD_DIM = {"qwen3": 128, "gemma": 256, "gpt_oss": 64, "gemma2": 256, "gemma3_text": 256, "glm": 128, "glm4": 128}
HEAD_DIM |= dict.fromkeys(HYBRID, 256)
"""Width of a head where a config does not tell, unless it follows from the others."""

HEAD_NORMS = {"qwen3": 2, "qwen3_moe": 2, "gemma3_text": 2, **dict.fromkeys(HYBRID, 2)}
"""Norms over each head's queries and keys, whose gains all heads share."""

ALL_HEADS = ("olmo2", "olmo3")
"""Families with norms over the queries, and the keys, of all heads together."""

BIASED_QUERIES = ("qwen", "qwen2", "qwen2_moe")
"""Families with biases on queries, keys and values alone, whatever the config says."""

OWN_OUT_BIAS = (*BIASED_QUERIES, "chatglm", "glm", "glm4")
"""Families whose output projection has no bias where queries, keys and values have one."""


def _parts(read: "_Reader") -> Shape:
    """A model put together from named parts; parts that were added to its tables are not counted."""
    hidden, heads = read.number("hidden_size"), read.number("num_attention_heads")
    width, context = read.optional("head_dim") or hidden // heads, read.number("max_position_embeddings")
    positions, residual, distance = read.optional("positions"), read.optional("residual"), read.number("max_distance")
    learned = {
        "kerple_power": 2 * heads,
        "kerple_log": 2 * heads,
        "t5": read.number("position_buckets") * heads,
        "shaw": 2 * (2 * distance + 1) * width,
        "transformer_xl": hidden * hidden + 2 * hidden,
    }
    bias, key_value = bool(read.optional("bias", False)), 2 * read.number("num_key_value_heads") * width
    mixer = {
        "gated": hidden * (hidden + bias),
        # a gate, decay and share of each head, the convolution of 4, the norm of a head; and no biases
        "gated_delta": hidden * (hidden + 2 * heads) + 4 * (key_value + hidden) + 2 * heads + width
        - bias * (2 * hidden + key_value),
    }  # fmt: skip
    return Shape(
        vocab=read.number("vocab_size"),
        hidden=hidden,
        intermediate=read.number("intermediate_size"),
        layers=read.number("num_hidden_layers"),
        heads=heads,
        kv_heads=read.number("num_key_value_heads"),
        head_dim=width,
        context=context,
        tied=bool(read.optional("tie_word_embeddings", False)),
        learned_positions=context if positions == "learned" else 0,
        attention_bias=bias,
        mlp_bias=bias,
        layer_norm=read.optional("norm") != "rmsnorm",
        gated=read.optional("mlp") == "gated",
        block_norms=4 if residual == "sandwich" else 2,
        last_norm=residual not in ("post", "deepnorm"),
        position_parameters=learned.get(str(positions), 0),
        mixture=Mixture.of(read, "parts", read.number("num_hidden_layers")) if read.optional("gate") else None,
        mixer_parameters=mixer.get(str(read.optional("attention")), 0),
    )


GPT_LIKE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "openai-gpt": lambda c: {
        **{"learned_positions": c.max_position_embeddings, "last_norm": False},
        "elsewhere": (c.task_outputs or 0) * (c.hidden_size + 1),
    },
    "gpt3": lambda c: {
        "learned_positions": c.max_position_embeddings,
        "head_dim": c.heads_width // c.num_attention_heads,
    },
    "gpt_neo": lambda c: {"learned_positions": c.max_position_embeddings, "attention_bias": False, "out_bias": True},
    "opt": lambda c: {
        **{"learned_positions": c.max_position_embeddings + 2, "last_norm": c.has_final_norm, "narrow": c.narrow},
        **{"attention_bias": c.enable_bias, "mlp_bias": c.enable_bias},
        "norm_width": 2 if c.layer_norm_elementwise_affine else 0,
    },
    "gpt_neox": lambda c: {"attention_bias": c.attention_bias},
    "bloom": lambda c: {"elsewhere": 2 * c.hidden_size},
    "falcon": lambda c: {
        **{"kv_heads": c.kv_heads, "attention_bias": c.bias, "mlp_bias": c.bias, "block_norms": c.norms_in_block},
    },
    "phi": lambda c: {
        **{"block_norms": 1, "elsewhere": c.vocab_size, "kv_heads": c.num_key_value_heads or c.num_attention_heads},
        "head_norms": 4 * (c.hidden_size // c.num_attention_heads) if c.qk_layernorm else 0,
    },
    "gpt_pangu": lambda c: {"learned_positions": c.max_position_embeddings, "position_tables": 2},
    "gptj": lambda c: {"attention_bias": False, "block_norms": 1, "elsewhere": c.vocab_size},
}
"""Families told as differences from GPT-2: what their own config says of the shape."""


def _own(config: Any) -> Any:
    """Our config, from one of any spelling."""
    from groundup.models.catalogue import config_from_hf
    from groundup.models.configs.base import ModelConfig

    if isinstance(config, ModelConfig):
        return config
    return config_from_hf(config if isinstance(config, dict) else config.to_dict())


def _openelm(config: Any) -> Shape:
    """Layers of different widths."""
    c = _own(config)
    widths = tuple(zip(c.query_heads, c.key_value_heads, c.mlp_widths, strict=True))
    heads, kv_heads, intermediate = widths[-1]
    return Shape(
        vocab=c.vocab_size,
        hidden=c.hidden_size,
        intermediate=intermediate,
        layers=c.num_hidden_layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=c.head_dim,
        context=c.max_position_embeddings,
        tied=c.tie_word_embeddings,
        learned_positions=0,
        attention_bias=False,
        mlp_bias=False,
        layer_norm=False,
        gated=c.ffn_with_glu,
        head_norms=2 * c.head_dim if c.normalize_qk_projections else 0,
        widths=widths,
    )


def _gpt_like(config: Any) -> Shape:
    """GPT-2's shape, without learned positions, and what the family changes."""
    c = _own(config)
    numbers = {
        "vocab": c.vocab_size,
        "hidden": c.hidden_size,
        "intermediate": c.intermediate_size or 4 * c.hidden_size,
        "layers": c.num_hidden_layers,
        "heads": c.num_attention_heads,
        "kv_heads": c.num_attention_heads,
        "head_dim": c.hidden_size // c.num_attention_heads,
        "context": c.max_position_embeddings,
        "tied": c.tie_word_embeddings,
    }
    parts = {"learned_positions": 0, "attention_bias": True, "mlp_bias": True, "layer_norm": True, "gated": False}
    return Shape(**{**numbers, **parts, **GPT_LIKE[c.model_type](c)})


class _Reader:
    def __init__(self, config: Any):
        self.get = config.get if isinstance(config, dict) else lambda name, default=None: getattr(config, name, default)

    def optional(self, name: str, default: Any = None) -> Any:
        value = self.get(name, None)
        return default if value is None else value

    def number(self, *names: str) -> int:
        for name in names:
            value = self.get(name, None)
            if value is not None:
                if not isinstance(value, int) or value < 1:
                    raise UsageError(f"`{name}` must be a whole number above 0, got {value!r}")
                return value
        raise UsageError(f"the config lacks `{names[0]}`")
