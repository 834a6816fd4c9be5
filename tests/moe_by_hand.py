"""A mixture of experts token by token, written from the formulas: the second implementation of `layers/moe`."""

import torch


def mixture(x, routing, experts):
    """sum over a token's experts of weight * network(token), with loops. (N, D) -> (N, D)"""
    y = torch.zeros_like(x)
    for n in range(len(x)):
        for expert, weight in zip(routing.experts[n].tolist(), routing.weights[n], strict=True):
            if expert < routing.num_experts:
                y[n] = y[n] + weight * network(experts, expert, x[n])
    return y


def network(experts, e, x):
    """Expert e of a token. (D,) -> (D,)"""

    def linear(layer, v):
        y = layer.weight[e] @ v
        return y if layer.bias is None else y + layer.bias[e]

    up = linear(experts.up_proj, x)
    if not hasattr(experts, "gate_proj"):
        return linear(experts.down_proj, experts.act(up))
    gate = linear(experts.gate_proj, x)
    if hasattr(experts, "limit"):
        gate, up = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
        return linear(experts.down_proj, gate / (1 + torch.exp(-experts.alpha * gate)) * (up + 1))
    return linear(experts.down_proj, experts.act(gate) * up)


def within_capacity(choices, num_experts, capacity):
    """Who is served, one after another: all first choices in the order of tokens, then all second ones.

    choices: a list of lists, one a token -> the same shape, True where the expert had room.
    """
    taken, served = [0] * num_experts, [[False] * len(row) for row in choices]
    for k in range(len(choices[0])):
        for n, row in enumerate(choices):
            expert = row[k]
            if expert < num_experts and taken[expert] < capacity:
                taken[expert] += 1
                served[n][k] = True
    return served
