"""What llama.cpp calls the tensors and settings of each family.

An `Architecture` pairs a family with one of llama.cpp's: the metadata that it wants, the names of the tensors, and the
operations between them; loading and saving both follow from these. What llama.cpp computes otherwise is refused.

    arch = architecture_of(model.config)     arch.metadata(config)     arch.weight_map(config)
    arch = architecture_in(metadata)         arch.config(metadata, tensors)

Source: the graphs in llama.cpp's `src/models/` and the tables in its package `gguf` (0.19).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from groundup.base.errors import CheckpointError, UsageError
from groundup.models.catalogue import config_from_hf
from groundup.models.configs.base import ModelConfig
from groundup.weights import Fused, Mapped, Rule, WeightMap, rule

ROPE_FACTORS = "rope_freqs.weight"
"""A divisor for each rotary frequency, (d / 2,) float32: Llama 3.1's stretching."""


class Interleaved:
    """Rows of queries and keys in the order in which llama.cpp turns them: pairs side by side, head by head.

    Hugging Face's order has the first features of all pairs, then the second ones: row i and row i + d/2 turn together.

    Args:
        heads: how many; the rows are heads * d.
    """

    def __init__(self, heads: int):
        self.heads = heads

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """(i, 0), (i, 1) side by side -> halves."""
        return [x.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2) for x in tensors]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Halves -> side by side."""
        return [x.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2) for x in tensors]


def offset() -> Mapped:
    """Gains that are 1 + w here are stored as they are used."""
    return Mapped(load=lambda gain: gain - 1, save=lambda w: w + 1)


class Architecture:
    """Llama and all that differs little from it.

    Attributes:
        name: llama.cpp's.
        model_type: the family here that a file of this kind is read as.
    """

    name: ClassVar[str] = "llama"
    model_type: ClassVar[str] = "llama"
    interleaved: ClassVar[bool] = True
    """Whether llama.cpp turns neighbours, so that the rows of queries and keys change places."""
    attention_biases: ClassVar[bool] = True
    free_heads: ClassVar[bool] = True
    """Whether the width of a head is a setting of its own."""
    activation: ClassVar[str] = "silu"

    # -- from here to there -------------------------------------------------------------------------------------------

    def refuse(self, c: Any) -> None:
        """Raise a `UsageError` for what llama.cpp computes otherwise in this architecture."""
        self.need(c, c.hidden_act == self.activation, f"the activation {c.hidden_act}")
        self.need(c, not (c.attention_bias and not self.attention_biases), "biases in attention")
        rope = c.rope_parameters
        self.need(c, rope.rope_type in ("default", "linear", "llama3"), f"rotary positions of type {rope.rope_type}")

    @staticmethod
    def need(c: ModelConfig, holds: bool, what: str) -> None:
        """Refuse a model that has `what`, unless `holds`."""
        if not holds:
            raise UsageError(f"llama.cpp's {c.family()} has no place for {what}: this model cannot be a GGUF file")

    def metadata(self, c: Any) -> dict[str, Any]:
        """The settings, without those of the tokenizer."""
        head = c.head_dim or c.hidden_size // c.num_attention_heads
        values = {
            "block_count": c.num_hidden_layers,
            "context_length": self.context(c),
            "embedding_length": c.hidden_size,
            "feed_forward_length": c.intermediate_size,
            "attention.head_count": c.num_attention_heads,
            "attention.head_count_kv": c.num_key_value_heads or c.num_attention_heads,
            "attention.key_length": head,
            "attention.value_length": head,
            "attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
            "rope.dimension_count": int(head * c.rope_parameters.partial_rotary_factor),
            "rope.freq_base": float(c.rope_parameters.rope_theta),
            "vocab_size": c.vocab_size,
        }
        if c.rope_parameters.rope_type == "linear":
            values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(c.rope_parameters.factor)}
        return {f"{self.name}.{key}": value for key, value in values.items()}

    def context(self, c: Any) -> int:
        """The longest context for which llama.cpp computes the same: it sees no window in most architectures."""
        window = getattr(c, "sliding_window", None)
        return min(c.max_position_embeddings, window or c.max_position_embeddings)

    def weight_map(self, c: Any) -> WeightMap:
        """Our names and theirs."""
        return WeightMap(*self.rules(c), ignore=(ROPE_FACTORS,), i=c.num_hidden_layers)

    def rules(self, c: Any) -> list[Rule]:
        """The parts."""
        return [*self.ends(), *self.norms(), *self.attention(c), *self.mlp(c)]

    def ends(self) -> list[Rule]:
        """Embedding, last norm, head."""
        return [rule("embed.tokens", "token_embd"), rule("norm", "output_norm"), rule("lm_head", "output")]

    def norms(self) -> list[Rule]:
        """Of a block."""
        return [rule("blocks.{i}.norm1", "blk.{i}.attn_norm"), rule("blocks.{i}.norm2", "blk.{i}.ffn_norm")]

    def attention(self, c: Any) -> list[Rule]:
        """Queries, keys, values, output."""
        ours, theirs = "blocks.{i}.attn.", "blk.{i}.attn_"
        if self.interleaved:
            heads = c.num_attention_heads
            queries, keys = Interleaved(heads), Interleaved(c.num_key_value_heads or heads)
            turned = [rule(ours + "q_proj", theirs + "q", queries), rule(ours + "k_proj", theirs + "k", keys)]
        else:
            turned = [rule(ours + f"{p}_proj", theirs + p) for p in "qk"]
        return [*turned, rule(ours + "v_proj", theirs + "v"), rule(ours + "o_proj", theirs + "output")]

    def mlp(self, c: Any) -> list[Rule]:
        """The feed-forward network."""
        return [rule(f"blocks.{{i}}.mlp.{p}_proj", f"blk.{{i}}.ffn_{p}") for p in ("gate", "up", "down")]

    def extra(self, c: Any) -> dict[str, Tensor]:
        """Tensors that are settings: name -> float32."""
        if getattr(c, "rope_parameters", None) is None or c.rope_parameters.rope_type != "llama3":
            return {}
        from groundup.layers.rope import Rope
        from groundup.models.text.llama import rope_scaling

        head = c.head_dim or c.hidden_size // c.num_attention_heads
        rope = c.rope_parameters
        plain = Rope(head, rope.rope_theta)
        scaled = Rope(head, rope.rope_theta, scaling=rope_scaling(rope, c.max_position_embeddings))
        return {ROPE_FACTORS: plain.frequencies() / scaled.frequencies()}

    # -- and back -----------------------------------------------------------------------------------------------------

    def config(self, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], factors: Any) -> ModelConfig:
        """The shape of the model.

        Args:
            metadata: of the file.
            tensors: name -> shape.
            factors: the divisors of the rotary frequencies, a list of numbers, or None.
        """
        get = Settings(metadata, self.name)
        width = get.number("embedding_length")
        heads = get.number("attention.head_count")
        head = get.number("attention.key_length", width // max(heads, 1))
        values: dict[str, Any] = {
            "model_type": self.model_type,
            "vocab_size": tensors.get("token_embd.weight", (0,))[0],
            "hidden_size": width,
            "num_hidden_layers": get.number("block_count"),
            "num_attention_heads": heads,
            "max_position_embeddings": get.number("context_length"),
            "tie_word_embeddings": "output.weight" not in tensors,
        }
        get.refuse_scaling()
        if get.number("attention.value_length", head) != head:
            raise CheckpointError(f"values of another width than keys are not known in {self.name} models")
        return config_from_hf(values | self.own_values(get, tensors, head, factors) | special_ids(metadata))

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        """What this architecture tells besides sizes that all have."""
        rope: dict[str, Any] = {"rope_theta": get.real("rope.freq_base", 10_000.0), "rope_type": "default"}
        factor = get.scaling()
        if factors is not None and factor is not None:
            raise CheckpointError("a file that scales its rotary positions in two ways is not known here")
        if factor is not None:
            rope |= {"rope_type": "linear", "factor": factor}
        if factors is not None:
            rope |= {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "factor": 1.0}
            rope |= {"attention_factor": 1.0}
        turned = get.number("rope.dimension_count", head)
        if turned != head:
            rope["partial_rotary_factor"] = turned / head
        values = {
            "intermediate_size": get.number("feed_forward_length"),
            "num_key_value_heads": get.number("attention.head_count_kv", get.number("attention.head_count")),
            "hidden_act": self.activation,
            "rms_norm_eps": get.real("attention.layer_norm_rms_epsilon", 1e-6),
            "rope_parameters": rope,
        }
        if self.free_heads:
            values["head_dim"] = head
        elif head * get.number("attention.head_count") != get.number("embedding_length"):
            raise CheckpointError(f"heads of {head} features are of another width than those of {self.name} models")
        if self.attention_biases:
            values["attention_bias"] = "blk.0.attn_q.bias" in tensors
        return values


class Llama(Architecture):
    """Llama 1 to 3, and Mistral, which llama.cpp runs as one, within its window."""

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        return super().own_values(get, tensors, head, factors) | {"mlp_bias": "blk.0.ffn_up.bias" in tensors}


class Mistral(Llama):
    """Written as a Llama."""

    attention_biases = False


class Mixtral(Mistral):
    """A Llama with experts: llama.cpp stacks them, as we do."""

    model_type = "mixtral"

    def metadata(self, c: Any) -> dict[str, Any]:
        own = {"expert_count": c.num_local_experts, "expert_used_count": c.num_experts_per_tok}
        return super().metadata(c) | {f"{self.name}.{key}": value for key, value in own.items()}

    def mlp(self, c: Any) -> list[Rule]:
        names = ("gate", "up", "down")
        experts = [rule(f"blocks.{{i}}.mlp.experts.{p}_proj", f"blk.{{i}}.ffn_{p}_exps") for p in names]
        return [rule("blocks.{i}.mlp.gate", "blk.{i}.ffn_gate_inp"), *experts]

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        values = Architecture.own_values(self, get, tensors, head, factors)
        return values | {
            "num_local_experts": get.number("expert_count"),
            "num_experts_per_tok": get.number("expert_used_count"),
            "sliding_window": None,
        }


class Qwen2(Architecture):
    """Halves turn together, as here; biases on queries, keys and values."""

    name, model_type, interleaved, attention_biases = "qwen2", "qwen2", False, False

    def refuse(self, c: Any) -> None:
        super().refuse(c)
        windows = any(c.window(i) is not None for i in range(c.num_hidden_layers))
        self.need(c, not windows, "windows in some layers")

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        return super().own_values(get, tensors, head, factors) | {"use_sliding_window": False}


class Qwen3(Qwen2):
    """Norms over each head's queries and keys."""

    name, model_type = "qwen3", "qwen3"

    def attention(self, c: Any) -> list[Rule]:
        norms = [rule(f"blocks.{{i}}.attn.{p}_norm", f"blk.{{i}}.attn_{p}_norm") for p in "qk"]
        return [*super().attention(c), *norms]


class Gemma(Architecture):
    """Gains of 1 + w are stored whole."""

    name, model_type, interleaved, attention_biases = "gemma", "gemma", False, False
    activation = "gelu_pytorch_tanh"

    def refuse(self, c: Any) -> None:
        super().refuse(c)
        self.need(c, c.tie_word_embeddings, "a head of its own")
        self.need(c, c.rope_parameters.rope_type == "default", "stretched rotary positions")

    def ends(self) -> list[Rule]:
        return [rule("embed.tokens", "token_embd"), rule("norm", "output_norm", offset()), rule("lm_head", "output")]

    def norms(self) -> list[Rule]:
        pairs = {"norm1": "attn_norm", "norm2": "ffn_norm"}
        return [rule(f"blocks.{{i}}.{ours}", f"blk.{{i}}.{theirs}", offset()) for ours, theirs in pairs.items()]


class Gemma2(Gemma):
    """Norms at both ends of each branch, caps, and a window in every other layer, the first one included."""

    name, model_type = "gemma2", "gemma2"

    def refuse(self, c: Any) -> None:
        super().refuse(c)
        for i in range(c.num_hidden_layers):
            self.need(c, (c.window(i) is None) == (i % 2 == 1), "windows in other layers than every second one")
        caps = c.attn_logit_softcapping and c.final_logit_softcapping
        self.need(c, bool(caps), "scores or logits without a cap")
        # The largest size, known by its 46 layers, divides by the square root of D / H, the others by that of d.
        width = c.hidden_size // c.num_attention_heads if c.num_hidden_layers == 46 else c.head_dim
        self.need(c, c.query_pre_attn_scalar == width, f"query_pre_attn_scalar {c.query_pre_attn_scalar}")

    def context(self, c: Any) -> int:
        return c.max_position_embeddings

    def metadata(self, c: Any) -> dict[str, Any]:
        own = {
            "attention.sliding_window": c.sliding_window,
            "attn_logit_softcapping": float(c.attn_logit_softcapping),
            "final_logit_softcapping": float(c.final_logit_softcapping),
        }
        return super().metadata(c) | {f"{self.name}.{key}": value for key, value in own.items()}

    def norms(self) -> list[Rule]:
        pairs = {
            **{"norm1": "attn_norm", "end1": "post_attention_norm"},
            **{"norm2": "ffn_norm", "end2": "post_ffw_norm"},
        }
        return [rule(f"blocks.{{i}}.{ours}", f"blk.{{i}}.{theirs}", offset()) for ours, theirs in pairs.items()]

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        heads, width = get.number("attention.head_count"), get.number("embedding_length")
        return super().own_values(get, tensors, head, factors) | {
            "sliding_window": get.number("attention.sliding_window", 4096),
            "attn_logit_softcapping": get.real("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": get.real("final_logit_softcapping", 30.0),
            "query_pre_attn_scalar": width // heads if get.number("block_count") == 46 else head,
        }


class Olmo2(Architecture):
    """Norms at the ends of the branches, and over the queries and keys of all heads."""

    name, model_type, interleaved, attention_biases = "olmo2", "olmo2", False, False
    free_heads = False

    def norms(self) -> list[Rule]:
        pairs = {"norm1": "post_attention_norm", "norm2": "post_ffw_norm"}
        return [rule(f"blocks.{{i}}.{ours}", f"blk.{{i}}.{theirs}") for ours, theirs in pairs.items()]

    def attention(self, c: Any) -> list[Rule]:
        norms = [rule(f"blocks.{{i}}.attn.{p}_norm.norm", f"blk.{{i}}.attn_{p}_norm") for p in "qk"]
        return [*super().attention(c), *norms]


class Phi3(Architecture):
    """Queries, keys and values in one tensor, gate and up projection in another."""

    name, model_type, interleaved, attention_biases = "phi3", "phi3", False, False
    free_heads = False

    def attention(self, c: Any) -> list[Rule]:
        head = c.hidden_size // c.num_attention_heads
        query, key = c.num_attention_heads * head, (c.num_key_value_heads or c.num_attention_heads) * head
        parts = [f"blocks.{{i}}.attn.{p}_proj" for p in "qkv"]
        return [
            rule(parts, "blk.{i}.attn_qkv", Fused(query, key, key)),
            rule("blocks.{i}.attn.o_proj", "blk.{i}.attn_output"),
        ]

    def mlp(self, c: Any) -> list[Rule]:
        halves = Fused(c.intermediate_size, c.intermediate_size)
        return [
            rule(["blocks.{i}.mlp.gate_proj", "blocks.{i}.mlp.up_proj"], "blk.{i}.ffn_up", halves),
            rule("blocks.{i}.mlp.down_proj", "blk.{i}.ffn_down"),
        ]


class GPT2(Architecture):
    """Learned positions, LayerNorm, biases, one tensor for queries, keys and values."""

    name, model_type = "gpt2", "gpt2"
    activations = ("gelu_new", "gelu_pytorch_tanh")

    def refuse(self, c: Any) -> None:
        self.need(c, c.hidden_act in self.activations, f"the activation {c.hidden_act}")

    def metadata(self, c: Any) -> dict[str, Any]:
        values = {
            "block_count": c.num_hidden_layers,
            "context_length": c.max_position_embeddings,
            "embedding_length": c.hidden_size,
            "feed_forward_length": c.intermediate_size or 4 * c.hidden_size,
            "attention.head_count": c.num_attention_heads,
            "attention.layer_norm_epsilon": float(c.layer_norm_epsilon),
            "vocab_size": c.vocab_size,
        }
        return {f"{self.name}.{key}": value for key, value in values.items()}

    def ends(self) -> list[Rule]:
        return [*super().ends(), rule("embed.positions", "position_embd")]

    def attention(self, c: Any) -> list[Rule]:
        d = c.hidden_size
        parts = [f"blocks.{{i}}.attn.{p}_proj" for p in "qkv"]
        return [
            rule(parts, "blk.{i}.attn_qkv", Fused(d, d, d)),
            rule("blocks.{i}.attn.o_proj", "blk.{i}.attn_output"),
        ]

    def mlp(self, c: Any) -> list[Rule]:
        return [rule(f"blocks.{{i}}.mlp.{p}_proj", f"blk.{{i}}.ffn_{p}") for p in ("up", "down")]

    def own_values(self, get: "Settings", tensors: Any, head: int, factors: Any) -> dict[str, Any]:
        return {
            "intermediate_size": get.number("feed_forward_length"),
            "layer_norm_epsilon": get.real("attention.layer_norm_epsilon", 1e-5),
            "hidden_act": "gelu_new",
        }


class Settings:
    """The metadata of one architecture, checked as it is asked for."""

    def __init__(self, metadata: Mapping[str, Any], name: str):
        self.metadata, self.name = metadata, name

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number; a list of equal ones, as some files give for each layer, is that number."""
        value = self.metadata.get(f"{self.name}.{key}", default)
        if hasattr(value, "tolist"):
            each = set(value.tolist())  # type: ignore[union-attr]
            value = each.pop() if len(each) == 1 else None
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{self.name}.{key} must be a whole number above 0, found {value!r:.40}")
        return value

    def real(self, key: str, default: float) -> float:
        """A number; what float32 made of a round one is that round one."""
        value = self.metadata.get(f"{self.name}.{key}", default)
        if type(value) not in (int, float):
            raise CheckpointError(f"{self.name}.{key} must be a number, found {value!r:.40}")
        return float(f"{value:.7g}")

    def scaling(self) -> float | None:
        """The factor of linear scaling."""
        if self.metadata.get(f"{self.name}.rope.scaling.type") != "linear":
            return None
        factor = self.real("rope.scaling.factor", 1.0)
        return None if factor == 1 else factor

    def refuse_scaling(self) -> None:
        """Rotary positions that are stretched in ways that are not known here."""
        kind = self.metadata.get(f"{self.name}.rope.scaling.type", "none")
        if kind not in ("none", "linear"):
            raise CheckpointError(f"{self.name}.rope.scaling.type {kind!r:.40} is not known here")


def special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Begin, end and padding ids, as config.json has them."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    found = {f"{ours}_token_id": metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
    return {name: number for name, number in found.items() if type(number) is int}


BY_FAMILY: dict[str, Architecture] = {
    "llama": Llama(),
    "mistral": Mistral(),
    "mixtral": Mixtral(),
    "qwen2": Qwen2(),
    "qwen3": Qwen3(),
    "gemma": Gemma(),
    "gemma2": Gemma2(),
    "olmo2": Olmo2(),
    "phi3": Phi3(),
    "gpt2": GPT2(),
}
"""model_type -> how it is written."""


def architecture_of(config: ModelConfig) -> Architecture:
    """How a model is written.

    Raises:
        UsageError: llama.cpp does not know the family, or computes something in it otherwise.
    """
    family = config.family()
    if family not in BY_FAMILY:
        raise UsageError(f"{family} models cannot be written as GGUF files; these can: {', '.join(BY_FAMILY)}")
    BY_FAMILY[family].refuse(config)
    return BY_FAMILY[family]


def architecture_in(metadata: Mapping[str, Any], where: str) -> Architecture:
    """How a file is read.

    Raises:
        CheckpointError: a kind of model that is not known here.
    """
    name = metadata.get("general.architecture")
    if name == "llama":
        return BY_FAMILY["mixtral" if metadata.get("llama.expert_count") else "llama"]
    known = {each.name: each for each in BY_FAMILY.values()}
    if name not in known:
        raise CheckpointError(f"{where} holds a model of the kind {name!r:.40}; known are {', '.join(known)}")
    return known[name]
