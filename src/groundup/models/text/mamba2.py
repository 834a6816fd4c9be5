"""Mamba-2 (Dao & Gu 2024), from Mamba: heads whose states fade by one number a token, so that training is products of
matrices and a state can be eight times as large. Time step, b and c come from the first projection; a gated norm stands
before the last one.
"""

from typing import Any

import torch
from torch import nn

from groundup.layers import init
from groundup.layers.block import OneBranchBlock
from groundup.layers.state_space_duality import StateSpaceDuality
from groundup.models.configs.mamba2 import Mamba2Config
from groundup.models.text.mamba import Mamba, first_time_steps


class Mamba2(Mamba):
    """Mamba-2, 130M to 2.7B, and Codestral Mamba."""

    Config = Mamba2Config
    config: Mamba2Config  # type: ignore[assignment]

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        sizes = (c.hidden_size, c.num_attention_heads, c.head_dim, c.state_size, c.n_groups, c.conv_kernel)
        mixer = StateSpaceDuality(
            *sizes, limits=c.time_step_limit, eps=c.layer_norm_epsilon, bias=c.use_bias, conv_bias=c.use_conv_bias
        )
        return OneBranchBlock(self.make_norm(), mixer)

    @torch.no_grad()
    def init_weights(self) -> None:
        c = self.config
        init.normal(self, c.initializer_range)
        mixers: list[Any] = [block.mixer for block in self.blocks.values()]
        for mixer in mixers:
            mixer.A_log.uniform_(1, 16).log_()
            mixer.D.fill_(1)
            mixer.dt_bias.copy_(first_time_steps(c, mixer.dt_bias))
