"""Mixtral (Jiang et al. 2024), from Mistral 7B: each token's MLP is two of eight, chosen by a gate for every layer and
token; the window is gone. All experts have to be in memory, two of them compute.
"""

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.moe.experts import GatedExperts
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.models.configs.mixtral import MixtralConfig
from groundup.models.text.mistral import Mistral
from groundup.weights import Rule, Stacked, WeightMap, rule


class Mixtral(Mistral):
    """Mixtral 8x7B and 8x22B."""

    Config = MixtralConfig
    config: MixtralConfig  # type: ignore[assignment]

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        loss, noise = c.router_aux_loss_coef, c.router_jitter_noise
        gate = TopKGate(c.hidden_size, c.num_local_experts, c.num_experts_per_tok, balance=loss, jitter=noise)
        experts = GatedExperts(c.num_local_experts, c.hidden_size, c.intermediate_size, activation(c.hidden_act))
        return MixtureOfExperts(gate, experts)

    @classmethod
    def weight_map(cls, config: MixtralConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "attn", theirs + "self_attn"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp.gate", theirs + "block_sparse_moe.gate"),
            *stacked_experts(theirs + "block_sparse_moe.experts", config.num_local_experts, names),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )


def stacked_experts(theirs: str, num_experts: int, names: dict[str, str] | None = None, suffix: str = "") -> list[Rule]:
    """Rules for experts that lie apart in the files: `theirs`.{e}.NAME; `names` tells theirs by ours. With a `suffix`
    they are of tensors, such as other rules of the family may be.
    """
    names = names or {name: name for name in ("gate_proj", "up_proj", "down_proj")}
    experts = range(num_experts)
    return [
        rule(f"blocks.{{i}}.mlp.experts.{own}{suffix}", [f"{theirs}.{e}.{name}{suffix}" for e in experts], Stacked())
        for own, name in names.items()
    ]
