"""Llama 3, tensor by tensor: the forward pass written out with bare matrices, every intermediate under a name.

For reading and for checking: it uses nothing of `layers/`. Attention goes head by head, and positions are turned as
Meta's code does it, as complex numbers made of neighbouring features. The logits equal those of the model itself.
"""

from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.rope import half_split_to_interleaved
from groundup.models.text.llama import Llama


def forward_by_hand(model: Llama, ids: list[int]) -> dict[str, Tensor]:
    """One text through a Llama, step by step.

    Args:
        model: Llama 1 to 3; its weights are read, nothing is changed.
        ids: T token ids.

    Returns:
        name -> tensor, in the order of computation: `embeddings` (T, D); for each layer i `layers.{i}.normed` (T, D),
        `.q` (H, T, d), `.k` and `.v` (K, T, d), `.q_turned`, `.k_turned`, `.scores` and `.weights` (H, T, T), `.heads`
        (H, T, d), `.joined` (T, H d), `.attended` (T, D), `.after_attention` (T, D), `.mlp_normed` (T, D), `.gate`,
        `.up` (T, F), `.down` (T, D), `.output` (T, D); then `normed` (T, D), `logits` (T, V) and `probabilities` (V,)
        of the next token.

    Raises:
        UsageError: no ids, or a model that is not a plain Llama.
    """
    if type(model) is not Llama:
        raise UsageError(f"this walk is Llama's; a {type(model).__name__} computes something else")
    if not ids:
        raise UsageError("there is no token to walk with: give at least one id")
    weights = {name: parameter.detach().float() for name, parameter in model.named_parameters()}
    weights.setdefault("lm_head.weight", weights["embed.tokens.weight"])  # tied

    found: dict[str, Tensor] = {}
    x = found["embeddings"] = weights["embed.tokens.weight"][torch.tensor(ids, device=model.device)]
    for i in range(model.config.num_hidden_layers):
        steps = layer_by_hand(x, {n.removeprefix(f"blocks.{i}."): w for n, w in weights.items()}, model)
        found |= {f"layers.{i}.{name}": tensor for name, tensor in steps.items()}
        x = steps["output"]
    found["normed"] = rms_norm(x, weights["norm.weight"], model.config.rms_norm_eps)
    found["logits"] = found["normed"] @ weights["lm_head.weight"].T
    found["probabilities"] = found["logits"][-1].softmax(dim=-1)
    return found


def layer_by_hand(x: Tensor, weights: dict[str, Tensor], model: Llama) -> dict[str, Tensor]:
    """One layer: x (T, D) and the layer's weights by their names in a block -> its steps by name."""
    c, d = model.config, model.head_dim
    heads, kv_heads = c.num_attention_heads, c.num_key_value_heads or c.num_attention_heads
    steps: dict[str, Tensor] = {}

    # Attention reads the stream through a norm:  n = x / rms(x) * g
    n = steps["normed"] = rms_norm(x, weights["norm1.weight"], c.rms_norm_eps)

    # Each head has its own rows of W_q; H / K query heads share one head of keys and values.
    steps["q"] = split_heads(project(n, weights, "attn.q_proj", heads), heads)
    steps["k"] = split_heads(project(n, weights, "attn.k_proj", kv_heads), kv_heads)
    steps["v"] = split_heads(project(n, weights, "attn.v_proj"), kv_heads)

    # Position t turns the pair j of features, seen as a complex number, by the angle t * frequency_j.
    turns = rotations(len(x), model.make_rope(0).frequencies(x.device))
    steps["q_turned"], steps["k_turned"] = (turn(steps[name], turns) for name in ("q", "k"))

    # scores = q k^T / sqrt(d), and -inf where the key comes after the query
    future = torch.full((len(x), len(x)), -torch.inf, device=x.device).triu(diagonal=1)
    scores, mixed = [], []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        scores.append(steps["q_turned"][head] @ steps["k_turned"][shared].T / d**0.5 + future)
        mixed.append(scores[-1].softmax(dim=-1) @ steps["v"][shared])
    steps["scores"] = torch.stack(scores)
    steps["weights"] = steps["scores"].softmax(dim=-1)
    steps["heads"] = torch.stack(mixed)

    # The heads side by side, mixed by W_o, added to the stream
    steps["joined"] = torch.cat(mixed, dim=-1)
    steps["attended"] = project(steps["joined"], weights, "attn.o_proj")
    x = steps["after_attention"] = x + steps["attended"]

    # SwiGLU:  W_down (silu(W_gate n) * W_up n)
    n = steps["mlp_normed"] = rms_norm(x, weights["norm2.weight"], c.rms_norm_eps)
    steps["gate"], steps["up"] = project(n, weights, "mlp.gate_proj"), project(n, weights, "mlp.up_proj")
    steps["down"] = project(steps["gate"] * steps["gate"].sigmoid() * steps["up"], weights, "mlp.down_proj")
    steps["output"] = x + steps["down"]
    return steps


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """X / sqrt(mean(x^2) + eps) * gain, over the last dimension."""
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain


def project(x: Tensor, weights: dict[str, Tensor], name: str, turned_heads: int | None = None) -> Tensor:
    """X W^T (+ b). For queries and keys (`turned_heads` of them) the rows are first put back into Meta's order, in
    which the two features of a pair are neighbours.
    """
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    if turned_heads is not None:
        weight = half_split_to_interleaved(weight, turned_heads)
        bias = None if bias is None else half_split_to_interleaved(bias, turned_heads)
    return x @ weight.T if bias is None else x @ weight.T + bias


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(T, H d) -> (H, T, d)"""
    return x.view(len(x), heads, -1).transpose(0, 1)


def rotations(length: int, frequencies: Tensor) -> Tensor:
    """exp(i t frequency_j), (T, d / 2) complex64: a point on the unit circle for each position and pair."""
    angles = torch.outer(torch.arange(length, device=frequencies.device).float(), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def turn(x: Tensor, turns: Tensor) -> Tensor:
    """Multiply neighbouring features, as complex numbers, by the rotations. (H, T, d) -> (H, T, d)"""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())  # (H, T, d/2)
    return torch.view_as_real(pairs * turns).flatten(-2)


def summary(tensor: Tensor) -> dict[str, Any]:
    """Shape, mean, standard deviation, smallest and largest finite value."""
    finite = tensor[tensor.isfinite()]
    return {
        "shape": list(tensor.shape),
        "mean": float(finite.mean()),
        "std": float(finite.std(correction=0)),
        "min": float(finite.min()),
        "max": float(finite.max()),
    }
