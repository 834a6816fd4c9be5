"""Mixtures of experts in the training loop: losses of gates at the right weight, biases that move with the weights."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from groundup.layers.moe.losses import z_loss
from groundup.models.configs.deepseek_v3 import DeepseekV3Config
from groundup.models.configs.mixtral import MixtralConfig
from groundup.models.hub import build_model
from groundup.observe import observe
from groundup.training.activation_checkpointing import checkpointed
from groundup.training.distributed import Workers
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import SGDConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.step import Step

TINY = dict(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, num_experts_per_tok=2,
)  # fmt: skip


def mixtral(**changes):
    torch.manual_seed(0)
    return build_model(MixtralConfig(**TINY | dict(num_local_experts=4, router_aux_loss_coef=0.0) | changes)).train()


def rows(count=4, trained=None):
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(1, 32, (count, 9), generator=generator)
    labels = torch.randint(1, 32, (count, 9), generator=generator)
    documents = torch.ones_like(ids)
    documents[0, 5:] = 0
    labels[0, 5:] = -100
    if trained is not None:
        labels[:, trained:] = -100
    return {"ids": ids, "labels": labels, "documents": documents, "sources": [""] * count}


def step_of(model, **options):
    optimizer = SGDConfig(lr=1.0, momentum=0.0, weight_decay=0.0).build(model.named_parameters())
    options = {"precision": PrecisionConfig()} | options
    precision = options.pop("precision")
    return Step(model, model, LanguageModeling(), optimizer, precision, Workers(torch.device("cpu")), **options)


def moved(model, batch, **options):
    """By how much one step of plain descent at rate 1 lowers each gate: the gradient that the loop used."""
    gates = [block.mlp.gate for block in model.blocks.values()]
    before = [gate.weight.detach().clone() for gate in gates]
    result = step_of(model, **options)(batch)
    return [a - gate.weight.detach() for a, gate in zip(before, gates, strict=True)], result


def with_z(model, z=0.05):
    for block in model.blocks.values():
        block.mlp.gate.z = z
    return model


def reference(batch, z=0.05):
    """The gradient of the mean cross-entropy plus z times the mean over real tokens, added openly."""
    model = mixtral()
    real = batch["documents"].flatten() != 0
    inputs = []
    for block in model.blocks.values():
        block.mlp.gate.register_forward_pre_hook(lambda gate, args: inputs.append((gate, args[0])))
    logits = model(batch["ids"], documents=batch["documents"])
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    total = loss + z * sum(z_loss(gate.logits(x), real) for gate, x in inputs)
    weights = [block.mlp.gate.weight for block in model.blocks.values()]
    return torch.autograd.grad(total, weights), loss


@pytest.mark.parametrize("trained", [None, 2])
@pytest.mark.parametrize("micro", [None, 1, 3])
def test_a_gates_loss_counts_once_however_the_batch_is_split(trained, micro):
    """And is a mean over tokens even where few of them are trained; it does not show in the reported loss."""
    batch = rows(trained=trained)
    wanted, loss = reference(batch)
    mine, result = moved(with_z(mixtral()), batch, micro_batch_size=micro)
    for a, b in zip(mine, wanted, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    without, _ = moved(mixtral(), batch)
    assert not torch.allclose(without[0], mine[0], rtol=0.1)


def test_a_gates_loss_is_scaled_with_fp16s_loss():
    batch = rows(trained=4)
    wanted, _ = reference(batch)
    mine, result = moved(with_z(mixtral()), batch, precision=PrecisionConfig(dtype="fp16", initial_scale=1024.0))
    assert result.applied
    for a, b in zip(mine, wanted, strict=True):
        assert_close(a, b, rtol=0.05, atol=2e-4)  # products in 16 bits


def test_a_gates_loss_survives_activation_checkpointing():
    batch = rows()
    wanted, _ = reference(batch)
    model = with_z(mixtral())
    with checkpointed(model):
        mine, _ = moved(model, batch)
    for a, b in zip(mine, wanted, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_balance_loss_evens_the_loads():
    """From a start where one expert is wanted by nearly all."""
    torch.manual_seed(0)
    spread = {}
    for coefficient in (0.0, 0.5):
        model = mixtral(router_aux_loss_coef=coefficient, num_experts_per_tok=1, hidden_size=32, num_hidden_layers=1)
        gate = model.blocks["0"].mlp.gate
        with torch.no_grad():
            gate.weight[1:] = gate.weight[0] * torch.tensor([0.9, 0.8, 0.7])[:, None]
        step = step_of(model)
        for _ in range(40):
            step(rows(8))
        with observe(model, ["blocks.0.mlp.gate"]) as seen, torch.no_grad():
            model(rows(8)["ids"])
        spread[coefficient] = seen.loads("blocks.0.mlp").float().std().item()
    assert spread[0.5] < 0.6 * spread[0.0], spread


def test_biases_of_experts_move_with_each_update_and_not_without():
    torch.manual_seed(0)
    model = build_model(
        DeepseekV3Config(
            **TINY, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4,
            n_routed_experts=4, n_group=1, topk_group=1, moe_intermediate_size=8, first_k_dense_replace=1,
            bias_update_rate=0.01,
        )
    ).train()  # fmt: skip
    gate, step = model.blocks["1"].mlp.gate, step_of(model, micro_batch_size=2)
    with observe(model, ["blocks.1.mlp.gate"]) as seen:
        step(rows())
    loads = sum(routing.loads for routing in seen.calls["blocks.1.mlp.gate"]).float()
    assert loads.sum() == 2 * 32  # 4 x 9 tokens, 4 of them padding, two experts each
    assert_close(gate.correction, 0.01 * (loads.mean() - loads).sign())
    before = gate.correction.clone()
    step.loss_limit = 0.0  # a spike: the update is left out
    step(rows())
    assert torch.equal(gate.correction, before)
    model.eval()(rows()["ids"])
    assert gate._pending is None
