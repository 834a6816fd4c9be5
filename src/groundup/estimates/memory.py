"""Memory of training and inference, in bytes."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from groundup.base.errors import UsageError
from groundup.estimates.adapted import count_adapted
from groundup.estimates.built import Built, shape_of
from groundup.estimates.params import BYTES, count_parameters
from groundup.estimates.shape import Shape

OPTIMIZER_STATE = {"sgd": 0, "sgd-momentum": 1, "adam": 2, "adamw": 2}
"""fp32 numbers of state a parameter, masters not counted; AdaFactor and Muon depend on shapes."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by purpose."""

    weights: int
    gradients: int
    masters: int
    optimizer: int
    activations: int
    average: int = 0
    adapter: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """All together on the device; temporary buffers and fragmentation come on top, and what is kept on the host is
        left out.
        """
        return sum(asdict(self).values()) - self.host

    @property
    def per_parameter_part(self) -> int:
        """Without activations: 16 bytes a parameter for Adam in mixed precision (Rajbhandari et al. 2020)."""
        return self.total - self.activations


def training_memory(
    config: Any,
    *,
    batch: int = 1,
    seq_len: int | None = None,
    dtype: str = "bf16",
    optimizer: str = "adamw",
    gradient_dtype: str | None = None,
    recompute: str = "none",
    average: bool = False,
    adapter: Any = None,
    quantization: Any = None,
    offload: bool = False,
) -> TrainingMemory:
    """Memory of a training step with weights and activations in `dtype`; below fp32 with fp32 masters.

    Gradients are kept in `gradient_dtype` (default: as the weights). `recompute`: "none", "selective" (attention scores
    again) or "full" (each block again from its input). `average`: an fp32 moving average of the weights is kept too.
    `adapter`, `quantization`: settings of what is put on the model: then the base has no gradients and no state.
    `offload`: masters and optimizer state are kept on the host (Ren et al. 2021, ZeRO-Offload).
    """
    s = shape_of(config)
    n, size = count_parameters(s), BYTES[dtype]
    tokens = batch * (seq_len or s.context)
    activations = activation_memory(s, batch=batch, seq_len=seq_len or s.context, dtype=dtype, recompute=recompute)
    found = TrainingMemory(
        weights=round(n * size),
        gradients=round(n * BYTES[gradient_dtype or dtype]),
        masters=4 * n if size < 4 else 0,
        optimizer=4 * optimizer_numbers(s, optimizer),
        activations=activations,
        average=4 * n if average else 0,
    )
    if adapter is not None or quantization is not None:
        counted = count_adapted(config, adapter, quantization, dtype)
        learning = counted.learning / n
        found = TrainingMemory(
            weights=counted.weights,
            gradients=round(learning * found.gradients),
            masters=round(learning * found.masters),
            optimizer=round(learning * found.optimizer),
            activations=max(0, activations + round(tokens * counted.saved)) if recompute != "full" else activations,
            average=round(learning * found.average),
            adapter=round(size * counted.added),
        )
    if not offload:
        return found
    return replace(found, masters=0, optimizer=0, host=found.masters + found.optimizer)


def optimizer_numbers(config: Any, optimizer: str) -> int:
    """How many fp32 numbers of state an optimizer keeps: Adam 2 N; AdaFactor m + n for each m x n matrix."""
    s = shape_of(config)
    n = count_parameters(s)
    if optimizer in OPTIMIZER_STATE:
        return OPTIMIZER_STATE[optimizer] * n
    matrices = matrix_shapes(s)
    vectors = n - sum(a * b * copies for a, b, copies, _ in matrices)
    if optimizer in ("adafactor", "adafactor-momentum"):
        momentum = n if optimizer == "adafactor-momentum" else 0
        return sum((a + b) * copies for a, b, copies, _ in matrices) + vectors + momentum
    if optimizer == "muon":
        hidden = sum(a * b * copies for a, b, copies, hidden in matrices if hidden)
        return hidden + 2 * (n - hidden)
    raise UsageError(f"no estimate for optimizer `{optimizer}`: one of {[*OPTIMIZER_STATE, 'adafactor', 'muon']}")


def matrix_shapes(config: Any) -> list[tuple[int, int, int, bool]]:
    """(rows, columns, copies, inside a block) of every matrix, q, k and v counted apart."""
    s = shape_of(config)
    if isinstance(s, Built):
        return [(rows, columns, 1, inside) for rows, columns, inside in s.matrices]
    tables = [(s.vocab, s.vectors, 1 if s.tied else 2, False)]
    if s.narrow is not None:
        tables += [(s.hidden, s.narrow, 1, False), (s.narrow, s.hidden, 1, False)]
    if s.learned_positions:
        tables.append((s.learned_positions, s.hidden, s.position_tables, False))
    return tables + [shape for level in s.levels for shape in _block_matrices(level)]


def _block_matrices(s: Shape) -> list[tuple[int, int, int, bool]]:
    """Those of blocks that are alike."""
    query, key_value = s.heads * s.head_dim, s.kv_heads * s.head_dim
    gates: list[tuple[int, int, int, bool]] = []
    projections = [(query, s.hidden, 2 if s.gates else 1), (key_value, s.hidden, 2), (s.hidden, query, 1)]
    if s.latent is not None:
        projections = [(*shape, 1) for shape in s.latent.matrices(s.hidden, s.heads)]
    projections = [(rows, columns, copies * s.attention_layers) for rows, columns, copies in projections]
    if s.memories is not None:
        projections += [(*shape, s.memories.layers) for shape in s.memories.matrices(s.hidden)]
    networks = [(s.intermediate, s.dense_layers, True)]
    if s.mixture is not None:
        m = s.mixture
        # stacked experts are one tensor of three dimensions, which Muon leaves to AdamW
        networks += [(m.width, m.layers * m.experts, False), (m.shared, m.layers if m.shared else 0, True)]
        gates.append((m.experts, s.hidden, m.layers, True))
    ups = 2 if s.gated else 1
    inner = [
        shape
        for width, copies, hidden in networks
        for shape in ((width, s.hidden, ups * copies, hidden), (s.hidden, width, copies, hidden))
        if copies
    ]
    return [*gates, *((rows, columns, copies, True) for rows, columns, copies in projections), *inner]


def block_activations(
    config: Any, *, batch: int, seq_len: int, dtype: str = "bf16", recompute: str = "none", dropout: bool = False
) -> int:
    """Bytes that one block keeps for backward, part by part; for GPT with dropout in 16 bits it is the published
    s b h (34 + 5 a s / h) of Korthikanti et al. (2022, equation 2). Masks of dropout take a byte a number.

    "selective" keeps no (T, T) matrices: s b h 34; "full" keeps the block's input: 2 s b h. Where blocks differ in
    width it is the one that keeps most.
    """
    s = shape_of(config)
    if isinstance(s, Shape) and s.widths:
        settings = {"batch": batch, "seq_len": seq_len, "dtype": dtype, "recompute": recompute, "dropout": dropout}
        return max(block_activations(level, **settings) for level in s.levels)
    if isinstance(s, Built):
        scores = s.scores * seq_len if recompute == "none" else 0
        numbers = s.hidden if recompute == "full" else (s.blocks + scores) / s.layers
        return round(batch * seq_len * numbers * BYTES[dtype])
    tokens, query, key_value = batch * seq_len, s.heads * s.head_dim, s.kv_heads * s.head_dim
    if recompute == "full":
        return round(tokens * s.hidden * BYTES[dtype])
    # Numbers kept: inputs of both norms (2 d), of q, k, v (d), q k v themselves, input of the output projection,
    # input of the MLP (d), its inner activation before and after (2 f), or gate, up, activated gate and product (4 f).
    attention = tokens * (s.hidden + 2 * query + 2 * key_value)
    attention += tokens * (query + key_value) if s.head_norms else 0  # inputs of the norms over queries and keys
    attention += tokens * 3 * query if s.gates else 0  # the gate, its sigmoid and what it multiplies
    mask_bytes = tokens * 2 * s.hidden if dropout else 0
    if recompute == "none":
        pairs = batch * s.heads * seq_len * seq_len
        attention += pairs * (2 if dropout else 1)  # softmax output, and the same after dropout
        mask_bytes += pairs if dropout else 0
    elif recompute != "selective":
        raise UsageError(f"recompute is none, selective or full, not `{recompute}`")
    numbers = tokens * (3 * s.hidden + (4 if s.gated else 2) * s.active_width // s.layers)
    if s.memories is None:
        return round((numbers + attention) * BYTES[dtype]) + mask_bytes
    # the mean of both kinds of layers
    memory, single = (tokens * count * s.memories.layers for count in s.memories.kept(s.hidden))
    numbers += (s.attention_layers * attention + memory) // s.layers
    return round(numbers * BYTES[dtype] + 4 * single / s.layers) + mask_bytes


def activation_memory(
    config: Any, *, batch: int, seq_len: int, dtype: str = "bf16", recompute: str = "none", dropout: bool = False
) -> int:
    """Bytes kept for backward by all blocks, the last norm and the output head with fp32 logits.

    With full recompute one block's own activations come back while its backward runs.
    """
    s = shape_of(config)
    settings = {"batch": batch, "seq_len": seq_len, "dtype": dtype, "dropout": dropout}
    levels = s.levels if isinstance(s, Shape) else [s]
    blocks = sum(level.layers * block_activations(level, recompute=recompute, **settings) for level in levels)
    if recompute == "full":
        blocks += block_activations(s, recompute="none", **settings)
    ends = batch * seq_len * (2 * s.hidden * BYTES[dtype] + s.vocab * 4)
    return blocks + round(ends)


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes by purpose."""

    weights: int
    kv_cache: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.kv_cache


def inference_memory(
    config: Any,
    *,
    batch: int = 1,
    seq_len: int | None = None,
    dtype: str = "bf16",
    cache_dtype: str | None = None,
    adapter: Any = None,
    quantization: Any = None,
) -> InferenceMemory:
    """Memory to hold a model and the keys and values of `batch` sequences of `seq_len` tokens; memories of one size
    count with them where a model has both. `adapter`, `quantization`: settings of what is put on the model.
    """
    if adapter is not None or quantization is not None:
        plain = inference_memory(config, batch=batch, seq_len=seq_len, dtype=dtype, cache_dtype=cache_dtype)
        counted = count_adapted(config, adapter, quantization, dtype)
        return InferenceMemory(weights=counted.weights + round(BYTES[dtype] * counted.added), kv_cache=plain.kv_cache)
    s = shape_of(config)
    if isinstance(s, Built):  # without attention a state of fixed size, which is nothing beside the weights
        cache = round(batch * (seq_len or s.context) * s.cached * BYTES[cache_dtype or dtype])
        return InferenceMemory(weights=round(count_parameters(s) * BYTES[dtype]), kv_cache=cache)
    settings: dict[str, Any] = {"layers": s.attention_layers, "seq_len": seq_len or s.context, "batch": batch}
    settings["dtype"] = cache_dtype or dtype
    if s.latent is not None:
        cache = latent_cache_bytes(latent_dim=s.latent.cached, rope_dim=s.latent.rope, **settings)
    else:
        cache = 0
        for level in s.levels:
            alike = {**settings, "layers": level.attention_layers}
            cache += kv_cache_bytes(kv_heads=level.kv_heads, head_dim=s.head_dim, **alike)
    if s.memories is not None:
        cache += batch * s.memories.state_bytes(BYTES[dtype])
    return InferenceMemory(weights=round(count_parameters(s) * BYTES[dtype]), kv_cache=cache)


def kv_cache_bytes(
    *, layers: int, kv_heads: int, head_dim: int, seq_len: int, batch: int = 1, dtype: str = "bf16"
) -> int:
    """2 x layers x tokens x key-value heads x head size x bytes. With kv_heads below heads this is GQA (1: MQA)."""
    return round(2 * layers * batch * seq_len * kv_heads * head_dim * BYTES[dtype])


def latent_cache_bytes(
    *, layers: int, latent_dim: int, seq_len: int, batch: int = 1, rope_dim: int = 0, dtype: str = "bf16"
) -> int:
    """Multi-head latent attention (DeepSeek-V2 2024): one latent and one shared rotary key a token and layer."""
    return round(layers * batch * seq_len * (latent_dim + rope_dim) * BYTES[dtype])


def window_cache_bytes(
    *,
    layers: int,
    kv_heads: int,
    head_dim: int,
    seq_len: int,
    window: int,
    local_per_global: int,
    batch: int = 1,
    dtype: str = "bf16",
) -> int:
    """Sliding-window layers keep `window` tokens; `local_per_global` of them to each full layer (Gemma 3: 5)."""
    full = layers // (local_per_global + 1)
    settings = {"kv_heads": kv_heads, "head_dim": head_dim, "batch": batch, "dtype": dtype}
    local = kv_cache_bytes(layers=layers - full, seq_len=min(window, seq_len), **settings)
    return local + kv_cache_bytes(layers=full, seq_len=seq_len, **settings)


def zero_memory(parameters: float, ranks: int, stage: int, optimizer_bytes: int = 12) -> float:
    """Bytes a rank under ZeRO (Rajbhandari et al. 2020): 16 Ψ; 4 Ψ + 12 Ψ/n; 2 Ψ + 14 Ψ/n; 16 Ψ/n for stages 0 to 3."""
    weights, gradients, states = 2.0, 2.0, float(optimizer_bytes)
    states /= ranks if stage >= 1 else 1
    gradients /= ranks if stage >= 2 else 1
    weights /= ranks if stage >= 3 else 1
    return parameters * (weights + gradients + states)
