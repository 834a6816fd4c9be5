"""gpt-oss (OpenAI 2025), from Llama 3: every second layer sees a window of 128 tokens; attention may go nowhere (a
learned sink for each head); the MLP is 4 of 32 or 128 experts with a clamped SwiGLU; biases everywhere; YaRN.

The released experts are in MXFP4: 32 numbers of 4 bits share a power of two. They are widened to bfloat16 while they
are loaded, and saved in that form.
"""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers.attention_sinks import SinkCore
from groundup.layers.masks import Causal, MaskRule
from groundup.layers.moe.experts import ClampedExperts
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.models.configs.gpt_oss import GptOssConfig
from groundup.models.text.llama import Llama
from groundup.weights import Chain, Mapped, WeightMap, rule


class GptOss(Llama):
    """gpt-oss-20b and gpt-oss-120b."""

    Config = GptOssConfig
    config: GptOssConfig  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        attention = super().make_attention(i, **changes)
        attention.core = SinkCore(self.config.num_attention_heads, self.config.attention_dropout)
        return attention

    def make_mlp(self, i: int) -> nn.Module:
        c, loss = self.config, self.config.router_aux_loss_coef
        gate = TopKGate(c.hidden_size, c.num_local_experts, c.num_experts_per_tok, bias=True, balance=loss)
        experts = ClampedExperts(c.num_local_experts, c.hidden_size, c.intermediate_size, limit=c.swiglu_limit)
        return MixtureOfExperts(gate, experts)

    @classmethod
    def weight_map(cls, config: GptOssConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs = "blocks.{i}.", "model.layers.{i}."
        mine, files = ours + "mlp.experts.", theirs + "mlp.experts."
        weights, biases = ([f"{mine}{p}_proj.{kind}" for p in ("gate", "up")] for kind in ("weight", "bias"))
        turned = Mapped(_turn, _turn)
        packed = [f"{files}{{name}}_{part}" for part in ("blocks", "scales")]
        return WeightMap(
            rule("embed.tokens", "model.embed_tokens"),
            rule(ours + "attn", theirs + "self_attn"),
            rule(ours + "attn.core.sinks", theirs + "self_attn.sinks"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp.gate", theirs + "mlp.router"),
            # of the two forms of a tensor the last one is written
            rule(weights, [name.replace("{name}", "gate_up_proj") for name in packed], Chain(Mxfp4(), Alternating())),
            rule(mine + "down_proj.weight", [name.replace("{name}", "down_proj") for name in packed], Mxfp4()),
            rule(weights, files + "gate_up_proj", Chain(turned, Alternating())),
            rule(biases, files + "gate_up_proj_bias", Alternating()),
            rule(mine + "down_proj.weight", files + "down_proj", turned),
            rule(mine + "down_proj.bias", files + "down_proj_bias"),
            rule("norm", "model.norm"),
            rule("lm_head", "lm_head"),
            ignore=("*.rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )


def _turn(tensor: Tensor) -> Tensor:
    return tensor.mT


class Alternating:
    """Rows of gate and up projection take turns along dimension 1. (E, 2 F, ...) <-> twice (E, F, ...)"""

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split."""
        return [tensors[0][:, 0::2], tensors[0][:, 1::2]]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Interleave."""
        return [torch.stack(tensors, dim=2).flatten(1, 2)]


class Mxfp4:
    """Numbers of 4 bits in blocks of 32 with one power of two (Rouhani et al. 2023, microscaling formats).

    A number is a sign, two bits of exponent and one of mantissa (E2M1); a byte holds two, the earlier in its low bits.
    blocks (E, F, G, 16) uint8 and scales (E, F, G) uint8, a power of two plus 127 -> (E, F, 32 G) bfloat16
    """

    values = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

    def load(self, tensors: list[Tensor]) -> list[Tensor]:
        """Widen."""
        blocks, scales = tensors
        table = torch.tensor([*self.values, *(-v for v in self.values)], dtype=torch.bfloat16, device=blocks.device)
        pairs = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)  # (E, F, G, 32)
        numbers = torch.ldexp(table[pairs.int()], scales[..., None].int() - 127)
        return [numbers.to(torch.bfloat16).flatten(-2)]

    def save(self, tensors: list[Tensor]) -> list[Tensor]:
        """Refused: what was trained further would be rounded to 4 bits."""
        raise NotImplementedError("experts are saved in bfloat16, not in 4 bits")
