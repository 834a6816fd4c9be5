"""Mamba (Gu & Dao 2023): no attention and no MLP, but one branch a block, a selective state space between two
projections. What it remembers is of one size, however long the text.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers import init
from groundup.layers.block import OneBranchBlock
from groundup.layers.norms import RMSNorm
from groundup.layers.selective_scan import SelectiveSSM
from groundup.models.configs.mamba import MambaConfig, StateSpaceConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import WeightMap, rule


class Mamba(CausalLM):
    """Mamba, 130M to 2.8B."""

    Config = MambaConfig
    config: MambaConfig

    def make_norm(self) -> nn.Module:
        return RMSNorm(self.config.hidden_size, self.config.layer_norm_epsilon)

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        sizes = (c.hidden_size, c.channels, c.state_size, c.rank, c.conv_kernel)
        return OneBranchBlock(self.make_norm(), SelectiveSSM(*sizes, bias=c.use_bias, conv_bias=c.use_conv_bias))

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"mixer": RecurrentState()}  # type: ignore[dict-item]

    @torch.no_grad()
    def init_weights(self) -> None:
        c = self.config
        init.normal(self, c.initializer_range)
        mixers: list[Any] = [block.mixer for block in self.blocks.values()]
        for mixer in mixers:
            mixer.A_log.copy_(torch.arange(1, c.state_size + 1).log().expand_as(mixer.A_log))  # A = -1, -2, .. -N
            mixer.D.fill_(1)
            nn.init.uniform_(mixer.dt_proj.weight, -(c.rank**-0.5), c.rank**-0.5)
            mixer.dt_proj.bias.copy_(first_time_steps(c, mixer.dt_proj.bias))

    @classmethod
    def weight_map(cls, config: MambaConfig, embedding: str = "backbone.embeddings") -> WeightMap:
        return WeightMap(
            rule("embed.tokens", embedding),
            rule("blocks.{i}.norm1", "backbone.layers.{i}.norm"),
            rule("blocks.{i}.mixer", "backbone.layers.{i}.mixer"),
            rule("norm", "backbone.norm_f"),
            rule("lm_head", "lm_head"),
            prefix="backbone.",
            i=config.num_hidden_layers,
        )


def first_time_steps(config: StateSpaceConfig, like: Tensor) -> Tensor:
    """Softplus's inverse of time steps that are log-uniform between the config's bounds: what biases begin with."""
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    step = (torch.rand_like(like) * (high - low) + low).exp().clamp(min=config.time_step_floor)
    return step + torch.log(-torch.expm1(-step))
