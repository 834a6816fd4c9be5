"""Mixtures of experts: gates and experts against transformers, scipy, and a second implementation with loops."""

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.testing import assert_close
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.nllb_moe.modeling_nllb_moe import NllbMoeTop2Router
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from groundup.layers.activations import activation
from groundup.layers.context import Context
from groundup.layers.feedforward import GatedMLP
from groundup.layers.moe.experts import ClampedExperts, Experts, GatedExperts
from groundup.layers.moe.gates.base import BaseGate, balanced_assignment
from groundup.layers.moe.gates.dense import DenseGate
from groundup.layers.moe.gates.expert_choice import ExpertChoiceGate
from groundup.layers.moe.gates.group_limited import GroupLimitedGate
from groundup.layers.moe.gates.gshard import GShardGate
from groundup.layers.moe.gates.loss_free import LossFreeGate
from groundup.layers.moe.gates.switch import SwitchGate
from groundup.layers.moe.gates.top2 import Top2Gate
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.losses import balance_loss, importance, scaled, with_loss, z_loss
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.layers.moe.routing import Routing
from moe_by_hand import mixture, network, within_capacity

N, D, F_, E = 24, 16, 20, 8
GATES = {
    "dense": lambda: DenseGate(D, E),
    "top-k": lambda: TopKGate(D, E, 2),
    "top-3, not normalised": lambda: TopKGate(D, E, 3, normalise=False, bias=True),
    "gshard": lambda: GShardGate(D, E),
    "switch": lambda: SwitchGate(D, E),
    "top-2": lambda: Top2Gate(D, E),
    "base": lambda: BaseGate(D, E),
    "expert choice": lambda: ExpertChoiceGate(D, E, 2),
    "group-limited": lambda: GroupLimitedGate(D, E, 3, num_groups=4, kept_groups=2, scale=1.5),
    "loss-free": lambda: LossFreeGate(D, E, 3, num_groups=4, kept_groups=2, scale=2.5),
}
EXPERTS = {
    "relu": lambda: Experts(E, D, F_),
    "biased": lambda: Experts(E, D, F_, activation("gelu"), bias=True),
    "gated": lambda: GatedExperts(E, D, F_),
    "clamped": lambda: ClampedExperts(E, D, F_, limit=0.3),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tokens(n=N, scale=1.0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(5)) * scale


def sharpened(gate):
    """With logits far enough apart that choices differ between tokens and nothing is a tie."""
    with torch.no_grad():
        gate.weight.normal_()
        if gate.bias is not None:
            gate.bias.normal_()
    return gate


def spread(weights, experts, num_experts):
    """(N, k) weights at their experts, (N, E); empty places vanish."""
    return torch.zeros(len(weights), num_experts + 1).scatter_add(1, experts, weights)[:, :num_experts]


# -- experts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("gate", ["dense", "top-k", "switch", "expert choice"])
@pytest.mark.parametrize("training", [False, True])
def test_a_mixture_and_its_gradients_are_those_of_loops_over_tokens(name, gate, training):
    gate, experts, x = sharpened(GATES[gate]()).train(training), EXPERTS[name](), tokens().requires_grad_()
    if experts.up_proj.bias is not None:
        for part in (experts.up_proj, experts.down_proj):
            nn.init.normal_(part.bias)
    routing = gate(x)
    parameters = [x, *experts.parameters()]
    wanted = mixture(x, routing, experts)
    assert_close(experts(x, routing), wanted)
    mine, theirs = (
        torch.autograd.grad(y.square().sum(), parameters, retain_graph=True) for y in (experts(x, routing), wanted)
    )
    assert_close(mine, theirs, rtol=1e-4, atol=1e-4)  # sums over tokens in another order


@pytest.mark.row("LAY-52", reference="formula, with loops")
def test_the_dense_gate_weighs_all_experts_by_softmax():
    moe, x = MixtureOfExperts(sharpened(DenseGate(D, E)), Experts(E, D, F_)), tokens()
    g = (x @ moe.gate.weight.T).softmax(-1)
    h = torch.stack([torch.stack([network(moe.experts, e, row) for e in range(E)]) for row in x])  # (N, E, D)
    assert_close(moe(x[None])[0], torch.einsum("ne,ned->nd", g, h))


@pytest.mark.row("LAY-52", reference="formula")
def test_the_gradient_of_the_dense_mixture_is_the_published_formula():
    """Of log f where f = sum g h for one number: sum_e g_e (d log g_e h_e + d h_e)."""
    gate, x = sharpened(DenseGate(D, E)), tokens(1)
    experts = Experts(E, D, F_)
    f = experts(x, gate(x))[0, 0]
    mine = torch.autograd.grad(f, [gate.weight, experts.up_proj.weight], retain_graph=True)
    g = (x @ gate.weight.T).softmax(-1)[0]
    h = torch.stack([network(experts, e, x[0])[0] for e in range(E)])
    formula = [torch.zeros_like(gate.weight), torch.zeros_like(experts.up_proj.weight)]
    for e in range(E):
        dlog = torch.autograd.grad(g[e].log(), gate.weight, retain_graph=True)[0]
        dh = torch.autograd.grad(h[e], experts.up_proj.weight, retain_graph=True)[0]
        formula[0] += (g[e] * h[e]).detach() * dlog
        formula[1] += g[e].detach() * dh
    assert_close(mine, tuple(formula))


@pytest.mark.row("LAY-56", reference="transformers")
@pytest.mark.parametrize("bias", [None, "padding"])
def test_mixtral_equals_transformers(bias):
    config = tf.MixtralConfig(hidden_size=D, intermediate_size=F_, num_local_experts=E, num_experts_per_tok=2)
    theirs = MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = MixtureOfExperts(TopKGate(D, E, 2), GatedExperts(E, D, F_))
    with torch.no_grad():
        ours.gate.weight.copy_(theirs.gate.weight)
        gate, up = theirs.experts.gate_up_proj.chunk(2, dim=1)
        ours.experts.gate_proj.weight.copy_(gate)
        ours.experts.up_proj.weight.copy_(up)
        ours.experts.down_proj.weight.copy_(theirs.experts.down_proj)
    x = tokens().view(2, 12, D).requires_grad_()
    context = None
    if bias == "padding":
        documents = torch.ones(2, 12, dtype=torch.int64)
        documents[0, :5] = 0
        context = Context(torch.arange(12)[None], documents)
    mine, wanted = ours(x, context), theirs(x)
    if context is not None:
        assert (mine[0, :5] == 0).all()
        mine, wanted = mine[context.documents != 0], wanted[context.documents != 0]
    assert_close(mine, wanted)
    grads = [torch.autograd.grad(y.square().sum(), [x, w])[1] for y, w in (
        (mine, ours.gate.weight), (wanted, theirs.gate.weight))]  # fmt: skip
    assert_close(*grads, rtol=1e-4, atol=1e-3)  # gradients of thousands, summed in another order


@pytest.mark.row("LAY-57", reference="transformers")
def test_a_shared_expert_with_its_sigmoid_equals_transformers():
    config = tf.Qwen2MoeConfig(
        hidden_size=D, moe_intermediate_size=F_, shared_expert_intermediate_size=36, num_experts=E,
        num_experts_per_tok=4, norm_topk_prob=False,
    )  # fmt: skip
    theirs = Qwen2MoeSparseMoeBlock(config)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = MixtureOfExperts(
        *(TopKGate(D, E, 4, normalise=False), GatedExperts(E, D, F_), GatedMLP(D, 36), nn.Linear(D, 1, bias=False))
    )
    with torch.no_grad():
        ours.gate.weight.copy_(theirs.gate.weight)
        gate, up = theirs.experts.gate_up_proj.chunk(2, dim=1)
        ours.experts.gate_proj.weight.copy_(gate)
        ours.experts.up_proj.weight.copy_(up)
        ours.experts.down_proj.weight.copy_(theirs.experts.down_proj)
        ours.shared.load_state_dict(theirs.shared_expert.state_dict())
        ours.shared_gate.weight.copy_(theirs.shared_expert_gate.weight)
        x = tokens().view(2, 12, D)
        assert_close(ours(x), theirs(x))


@pytest.mark.row("LAY-57", reference="formula, with loops")
def test_dropout_inside_experts():
    """Each inner activation is dropped or doubled (rate 1/2), in training alone."""
    experts, gate, x = Experts(E, D, F_, dropout=0.5), sharpened(TopKGate(D, E, 2)), tokens()
    routing = gate(x)
    seen = []
    experts.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    experts.eval()(x, routing)
    whole = seen.pop()
    experts.train()(x, routing)
    dropped = seen.pop()
    kept = dropped != 0
    assert_close(dropped[kept], 2 * whole[kept])
    alive = whole != 0
    assert 0.4 < (dropped[alive] == 0).float().mean() < 0.6


def test_grouped_products_run_in_low_precision():
    moe = MixtureOfExperts(sharpened(TopKGate(D, E, 2)), GatedExperts(E, D, F_))
    x = tokens().view(2, 12, D)
    whole = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = moe(x)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), whole, rtol=0.1, atol=0.05)
    assert_close(moe.bfloat16()(x.bfloat16()).float(), whole, rtol=0.1, atol=0.05)


@pytest.mark.slow
def test_a_mixture_compiles_with_equal_results_and_gradients():
    moe = MixtureOfExperts(sharpened(TopKGate(D, E, 2, balance=0.1)), GatedExperts(E, D, F_)).train()
    x = tokens().view(2, 12, D)
    whole, compiled = moe(x), torch.compile(moe)(x)
    assert_close(compiled, whole)
    parameters = list(moe.parameters())
    assert_close(*(torch.autograd.grad(y.square().sum(), parameters) for y in (compiled, whole)))


# -- GShard ------------------------------------------------------------------------------------------------------------


def nllb(gate, policy, before, capacity):
    router = NllbMoeTop2Router(
        tf.NllbMoeConfig(
            hidden_size=D, num_experts=E, expert_capacity=capacity, second_expert_policy=policy,
            normalize_router_prob_before_dropping=before, moe_eval_capacity_token_fraction=0.0,
        )
    )  # fmt: skip
    with torch.no_grad():
        router.classifier.weight.copy_(gate.weight)
    return router


@pytest.mark.row("LAY-53", reference="transformers (NLLB-MoE)")
def test_gshard_draws_the_second_expert_as_transformers_does():
    gate, x = sharpened(GShardGate(D, E, capacity=None)).train(), tokens(200)
    theirs = nllb(gate, "random", before=False, capacity=1000).train()
    torch.manual_seed(3)
    routing = gate(x)
    torch.manual_seed(3)
    first, weights, _ = theirs(x)
    assert_close(spread(routing.weights, routing.experts, E), weights)
    assert torch.equal(F.one_hot(routing.experts[:, 0], E), first)
    alone = (routing.experts[:, 1] == E).float().mean()
    assert 0.1 < alone < 0.9
    assert_close(routing.weights.sum(1), torch.ones(200))


@pytest.mark.row("LAY-53", reference="transformers (NLLB-MoE)")
def test_gshard_drops_beyond_twice_the_mean_as_transformers_does():
    gate, x = sharpened(GShardGate(D, E, eval_capacity=2.0)).eval(), tokens(40)
    gate.weight.data[0] *= 3  # one expert is wanted by too many
    _, weights, _ = nllb(gate, "all", before=True, capacity=2 * 40 // E).eval()(x)
    routing = gate(x)
    assert_close(spread(routing.weights, routing.experts, E), weights)
    assert (routing.loads <= 10).all()
    assert (routing.loads == 10).any()
    assert not routing.complete


@pytest.mark.row("LM-43", reference="transformers (NLLB-MoE)")
@pytest.mark.parametrize("capacity", [2.0, 0.5])
def test_facebooks_gate_weighs_what_had_room_as_transformers_does(capacity):
    gate, x = sharpened(Top2Gate(D, E, capacity=capacity)).train(), tokens(40)
    gate.weight.data[0] *= 3  # one expert is wanted by too many
    _, weights, _ = nllb(gate, "all", before=False, capacity=int(capacity * 40 / E + 0.5)).train()(x)
    routing = gate(x)
    assert_close(spread(routing.weights, routing.experts, E), weights)
    lost = (routing.experts == E).sum(dim=1)
    assert {0, 1} <= set(lost.tolist())
    assert_close(routing.weights.sum(dim=1)[lost == 0], torch.ones(int((lost == 0).sum())))
    assert (gate.eval()(x).loads.sum(), gate.train()(x, decoding=True).loads.sum()) == (80, 80)


@pytest.mark.row("LAY-53", reference="published example")
def test_the_published_example_of_gshard():
    """B = 2, E = 4: gates, the chosen two, counts, soft counts."""
    g = torch.tensor([[0.2, 0.6, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1]])
    gate = GShardGate(D, 4).eval()
    routing = gate.choose(g.log(), None)
    assert_close(spread(routing.weights, routing.experts, 4), torch.tensor([[0.25, 0.75, 0, 0], [0, 0.75, 0.25, 0]]))
    assert routing.loads.tolist() == [1, 2, 1, 0]
    assert_close(importance(routing.scores, None), torch.tensor([0.3, 1.2, 0.3, 0.2]))
    # lambda sum m c with lambda = 0.01 / B, for the batch; a token's share is that over B
    assert_close(2 * gate.loss(routing, g.log(), None), torch.tensor(0.01 / 2 * (0.3 + 2.4 + 0.3)))
    first = gate.choose(torch.tensor([[0.04, 0.8, 0.01, 0.15]]).log(), None)
    assert_close(spread(first.weights, first.experts, 4), torch.tensor([[0, 0.8 / 0.95, 0, 0.15 / 0.95]]))


@pytest.mark.row("LAY-53", reference="formula, with loops")
@pytest.mark.parametrize("padded", [False, True])
def test_capacity_serves_first_choices_first_and_padding_takes_none(padded):
    gate, x = sharpened(GShardGate(D, E, eval_capacity=1.0)).eval(), tokens(40)
    real = torch.rand(40) > 0.4 if padded else None
    capacity = (40 if real is None else int(real.sum())) / E
    choices = gate.choose(gate.logits(x), None).experts
    if real is not None:
        choices = choices.masked_fill(~real[:, None], E)
    served = torch.tensor(within_capacity(choices.tolist(), E, capacity))
    routing = gate(x, real)
    assert torch.equal(routing.experts, choices.masked_fill(~served, E))
    assert (routing.weights[~served] == 0).all()
    assert torch.equal(gate(x, real, decoding=True).experts, choices)


@pytest.mark.row("LAY-53", reference="formula")
def test_a_dropped_token_passes_by():
    moe, x = MixtureOfExperts(sharpened(GShardGate(D, E, eval_capacity=0.2)), Experts(E, D, F_)).eval(), tokens()
    dropped = moe.gate(x).dropped
    assert dropped.any()
    assert not dropped.all()
    assert (moe(x[None])[0][dropped] == 0).all()


# -- Switch ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("LAY-54", reference="transformers")
@pytest.mark.parametrize("capacity", [1000, 3])
def test_switch_equals_transformers(capacity):
    config = tf.SwitchTransformersConfig(
        hidden_size=D, d_model=D, d_ff=F_, num_experts=E, expert_capacity=capacity, dropout_rate=0.0
    )
    theirs = switch.SwitchTransformersSparseMLP(config).eval()
    gate = sharpened(SwitchGate(D, E, eval_capacity=capacity * E / N))
    ours = MixtureOfExperts(gate, Experts(E, D, F_)).eval()
    with torch.no_grad():
        theirs.router.classifier.weight.copy_(gate.weight)
        for e in range(E):
            theirs.experts[f"expert_{e}"].wi.weight.copy_(ours.experts.up_proj.weight[e])
            theirs.experts[f"expert_{e}"].wo.weight.copy_(ours.experts.down_proj.weight[e])
        x = tokens()[None]
        assert_close(ours(x), theirs(x))
    assert bool(ours.gate(x[0]).dropped.any()) == (capacity == 3)


@pytest.mark.row("LAY-54", reference="transformers")
def test_the_losses_of_switch_equal_transformers():
    logits = torch.randn(N, E)
    probabilities, best = logits.softmax(-1), logits.argmax(-1)
    theirs = switch.load_balancing_loss_func(probabilities[None], best[None])
    assert_close(balance_loss(probabilities, best.bincount(minlength=E)), theirs)
    assert_close(z_loss(logits), switch.router_z_loss_func(logits[None]))
    real = torch.rand(N) > 0.4
    assert_close(z_loss(logits, real), switch.router_z_loss_func(logits[None, real]))
    loads = best[real].bincount(minlength=E)
    assert_close(
        balance_loss(probabilities, loads, real),
        switch.load_balancing_loss_func(probabilities[None, real], best[None, real]),
    )


@pytest.mark.row("LAY-54", reference="transformers")
def test_jitter_is_that_of_transformers():
    config = tf.SwitchTransformersConfig(d_model=D, num_experts=E, expert_capacity=1000, router_jitter_noise=0.3)
    theirs, gate, x = (
        switch.SwitchTransformersTop1Router(config).train(),
        sharpened(SwitchGate(D, E, jitter=0.3)),
        tokens(),
    )
    with torch.no_grad():
        theirs.classifier.weight.copy_(gate.weight)
    torch.manual_seed(4)
    mine = gate.train().logits(x)
    torch.manual_seed(4)
    assert_close(mine, theirs(x.clone()[None])[2][0])
    assert_close(gate.eval().logits(x), x @ gate.weight.T)


@pytest.mark.row("LAY-54", reference="formula")
def test_what_sends_a_token_learns_from_one_expert():
    gate, experts, x = sharpened(SwitchGate(D, E)).eval(), Experts(E, D, F_), tokens()
    experts(x, gate(x)).square().sum().backward()
    assert (gate.weight.grad.abs().sum(1) > 0).all()


# -- losses enter at the gate ------------------------------------------------------------------------------------------


@pytest.mark.row("LAY-56", reference="transformers")
@pytest.mark.parametrize("padded", [False, True])
def test_the_balance_loss_reaches_the_gate_as_if_it_were_added(padded):
    gate, x = sharpened(TopKGate(D, E, 2, balance=0.02, z=0.003)).train(), tokens()
    real = torch.rand(N) > 0.3 if padded else None
    routing = gate(x, real)
    mine = torch.autograd.grad(routing.weights[:, 0].square().sum(), gate.weight)[0]
    logits = x @ gate.weight.T
    weights = logits.softmax(-1).topk(2).values
    first = (weights / weights.sum(1, keepdim=True))[:, 0]
    mask = None if real is None else real.long()[None]
    kept = torch.ones(N, dtype=torch.bool) if real is None else real
    total = 0.02 * load_balancing_loss_func((logits,), E, 2, mask) + 0.003 * switch.router_z_loss_func(
        logits[None, kept]
    )
    wanted = torch.autograd.grad(first[kept].square().sum() + int(kept.sum()) * total, gate.weight)[0]
    assert_close(mine, wanted)


def test_an_auxiliary_loss_changes_gradients_alone_and_follows_the_scale():
    a = torch.tensor([2.0, 3.0], requires_grad=True)
    b = with_loss(a * 2, a.square().sum())
    assert_close(b, a * 2)
    with scaled(0.5):
        assert_close(torch.autograd.grad(b.sum(), a, retain_graph=True)[0], 2 + 0.5 * 2 * a)
    assert_close(torch.autograd.grad(b.sum(), a)[0], 2 + 2 * a)
    with torch.no_grad():
        assert not with_loss(a * 2, a.sum()).requires_grad


# -- BASE --------------------------------------------------------------------------------------------------------------


@pytest.mark.row("LAY-55", reference="scipy")
@pytest.mark.parametrize("n", [N, 27, 64, 5])
def test_base_assignment_is_the_best_balanced_one(n):
    scores = torch.randn(n, E, generator=torch.Generator().manual_seed(n))
    experts = balanced_assignment(scores, tolerance=1e-5)
    room = -(-n // E)
    rows, slots = linear_sum_assignment(scores.double().repeat_interleave(room, dim=1).numpy(), maximize=True)
    best = scores[rows, torch.as_tensor(slots) // room].double().sum()
    mine = scores.double().gather(1, experts[:, None]).sum()
    spread_of_scores = float(scores.max() - scores.min())
    assert float(best) - n * 1e-5 * spread_of_scores - 1e-6 <= float(mine) <= float(best) + 1e-6
    loads = experts.bincount(minlength=E)
    assert loads.max() <= room
    if n % E == 0:
        assert (loads == n // E).all()


@pytest.mark.row("LAY-55", reference="formula")
def test_base_balances_in_training_and_goes_to_the_best_in_evaluation():
    gate, x = sharpened(BaseGate(D, E)), tokens(64)
    gate.weight.data[0] *= 4
    real = torch.arange(64) < 48
    assert (gate.train()(x).loads == 8).all()
    assert (gate(x, real).loads == 6).all()
    routing = gate.eval()(x)
    assert torch.equal(routing.experts[:, 0], (x @ gate.weight.T).argmax(1))
    assert_close(routing.weights[:, 0], (x * gate.weight[routing.experts[:, 0]]).sum(1).sigmoid())


# -- expert choice, groups, loss-free ----------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_expert_choice_takes_each_experts_best_tokens(padded):
    gate, x = sharpened(ExpertChoiceGate(D, E, 2)), tokens(32)
    real = torch.arange(32) >= 8 if padded else torch.ones(32, dtype=torch.bool)
    routing = gate.train()(x, real if padded else None)
    g = (x @ gate.weight.T).softmax(-1)
    wanted = torch.zeros_like(g)
    for e in range(E):
        best = sorted(torch.where(real)[0].tolist(), key=lambda n: -g[n, e].item())[: 2 * int(real.sum()) // E]
        wanted[best, e] = g[best, e]
    assert_close(spread(routing.weights, routing.experts, E), wanted)
    assert (routing.loads == 2 * int(real.sum()) // E).all()
    assert torch.equal(gate.eval()(x).experts, g.topk(2).indices)


def test_group_limited_gates_equal_transformers():
    v2 = tf.DeepseekV2Config(
        hidden_size=D, n_routed_experts=E, num_experts_per_tok=3, n_group=4, topk_group=2,
        topk_method="group_limited_greedy", routed_scaling_factor=1.5, num_attention_heads=4,
    )  # fmt: skip
    v3 = tf.DeepseekV3Config(
        hidden_size=D, n_routed_experts=E, num_experts_per_tok=3, n_group=4, topk_group=2, routed_scaling_factor=2.5
    )
    for theirs, ours in (
        (DeepseekV2TopkRouter(v2), GATES["group-limited"]()),
        (DeepseekV3TopkRouter(v3), GATES["loss-free"]()),
    ):
        sharpened(ours)
        with torch.no_grad():
            theirs.weight.copy_(ours.weight)
            if isinstance(ours, LossFreeGate):
                ours.correction.normal_()
                theirs.e_score_correction_bias.copy_(ours.correction)
            _, weights, experts = theirs(tokens(100))
            routing = ours(tokens(100))
        assert_close(spread(routing.weights, routing.experts, E), spread(weights, experts, E))


def test_loss_free_biases_even_the_loads_without_touching_the_weights():
    gate, x = sharpened(LossFreeGate(D, E, 2, rate=0.01)).train(), tokens(256) + 1
    before = gate(x).loads
    gate.end_step(applied=False, sum_=lambda tensors: None)
    assert (gate.correction == 0).all()
    gate(x)
    gate(x[:100])
    counted = before + gate.eval()(x[:100]).loads
    gate.train().end_step(applied=True, sum_=lambda tensors: None)
    assert_close(gate.correction, 0.01 * (counted.float().mean() - counted).sign())
    for _ in range(300):
        gate(x)
        gate.end_step(applied=True, sum_=lambda tensors: None)
    after = gate(x).loads
    assert after.float().std() < 0.2 * before.float().std()
    scores = (x @ gate.weight.T).sigmoid()
    routing = gate(x)
    chosen = scores.gather(1, routing.experts)
    assert_close(routing.weights, chosen / chosen.sum(1, keepdim=True))
    assert gate.bfloat16().correction.dtype == torch.float32


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("training", [False, True])
def test_padding_goes_nowhere_and_changes_nothing(name, training, monkeypatch):
    """Every gate: the real tokens' choices, loads and losses are those of a batch without padding."""
    gate, x = sharpened(GATES[name]()).train(training), tokens(40)
    gate.jitter = 0.0
    if isinstance(gate, TopKGate):
        gate.balance = 0.01
    real = torch.arange(40) % 5 != 0
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # GShard always draws the second expert
    padded, alone = gate(x, real), gate(x[real])
    assert (padded.experts[~real] == E).all()
    assert torch.equal(padded.experts[real], alone.experts)
    assert_close(padded.weights[real], alone.weights)
    assert torch.equal(padded.loads, alone.loads)
    gradients = [
        torch.autograd.grad(r.weights[keep].square().sum(), gate.weight)[0]
        for r, keep in ((padded, real), (alone, slice(None)))
    ]
    assert_close(*gradients)


def test_a_routing_tells_loads_and_dropped_tokens():
    routing = Routing(torch.tensor([[0, 2], [2, 3], [3, 3]]), torch.ones(3, 2), torch.ones(3, 3), 3, complete=False)
    assert routing.loads.tolist() == [1, 0, 2]
    assert routing.dropped.tolist() == [False, False, True]
