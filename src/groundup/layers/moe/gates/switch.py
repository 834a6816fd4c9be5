"""The Switch gate: one expert a token."""

from typing import Any

from groundup.layers.moe.gates.top_k import TopKGate


class SwitchGate(TopKGate):
    """The expert with the largest probability, and that probability as its weight, so that the gate learns though only
    one expert is taken; an expert takes at most 1.25 N / E tokens (Fedus et al. 2021, Switch Transformer).

    Args:
        dim: D.
        num_experts: E.
        balance: coefficient of the load-balancing loss.
        jitter: noise on what the gate sees.
        capacity: as a multiple of N / E.
        settings: as for `Gate`.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        *,
        balance: float = 0.01,
        jitter: float = 0.01,
        capacity: float | None = 1.25,
        **settings: Any,
    ):
        more = {"balance": balance, "jitter": jitter, "capacity": capacity}
        super().__init__(dim, num_experts, 1, normalise=False, **more, **settings)
