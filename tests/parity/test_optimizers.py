"""Optimizers, schedules, clipping and loss scaling against torch and transformers."""

import copy
import math

import pytest
import torch
from transformers import optimization as hf

from groundup.training import schedules
from groundup.training.clipping import clip_gradients
from groundup.training.optimizers.adafactor import AdaFactor
from groundup.training.optimizers.adam import Adam, AdamW
from groundup.training.optimizers.config import AdaFactorConfig, AdamConfig, AdamWConfig, MuonConfig, SGDConfig
from groundup.training.optimizers.groups import decay_groups
from groundup.training.optimizers.muon import Muon, orthogonalise
from groundup.training.precision import LossScaler

STEPS = 60
# fp32 runs end a little apart: Adam divides by sqrt(v), so where a gradient is nearly 0 a rounding turns a whole step.
# Formulas are therefore also compared in fp64, to 1e-12 or so, where nothing of the kind can hide.
FP32 = {"rtol": 1e-4, "atol": 2e-5}


def small_model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Embedding(11, 12),
        torch.nn.Linear(12, 20),
        torch.nn.LayerNorm(20),
        torch.nn.GELU(),
        torch.nn.Linear(20, 7),
    )


def batches(steps=STEPS):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield torch.randint(11, (16,), generator=generator), torch.randint(7, (16,), generator=generator)


def train(model, optimizer, *, steps=STEPS, schedule=None):
    for step, (x, y) in enumerate(batches(steps)):
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
        optimizer.step()
        optimizer.zero_grad()
    return model


def torch_groups(model, weight_decay):
    groups = decay_groups(model.named_parameters(), weight_decay)
    return [{**group, "params": [p for _, p in group["params"]]} for group in groups]


def assert_same(ours, theirs, **tolerance):
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def run_pair(config, make_theirs, **kwargs):
    ours, theirs = small_model(), small_model()
    train(ours, config.build(ours.named_parameters()), **kwargs)
    train(theirs, make_theirs(theirs), **kwargs)
    return ours, theirs


@pytest.mark.row("OPT-01", reference="torch.optim")
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_equals_torch(momentum, nesterov, flat):
    config = SGDConfig(lr=0.05, momentum=momentum, nesterov=nesterov, weight_decay=0.01, flat=flat)
    ours, theirs = run_pair(
        config, lambda m: torch.optim.SGD(torch_groups(m, 0.01), lr=0.05, momentum=momentum, nesterov=nesterov)
    )
    assert_same(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.row("OPT-02", reference="torch.optim")
@pytest.mark.parametrize("flat", [True, False])
def test_adam_equals_torch(flat):
    ours, theirs = run_pair(
        AdamConfig(lr=3e-3, weight_decay=0.01, flat=flat), lambda m: torch.optim.Adam(torch_groups(m, 0.01), lr=3e-3)
    )
    assert_same(ours, theirs, **FP32)


@pytest.mark.row("OPT-03", reference="torch.optim")
@pytest.mark.parametrize("flat", [True, False])
def test_adamw_equals_torch_under_a_schedule(flat):
    config = AdamWConfig(lr=3e-3, weight_decay=0.1, flat=flat)
    ours, theirs = run_pair(
        config,
        lambda m: torch.optim.AdamW(torch_groups(m, 0.1), lr=3e-3, betas=(0.9, 0.95)),
        schedule=lambda step: 3e-3 * schedules.Cosine(warmup_steps=5).factor(step, STEPS),
    )
    assert_same(ours, theirs, **FP32)


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(Adam, marks=pytest.mark.row("OPT-02", reference="torch.optim")),
        pytest.param(AdamW, marks=pytest.mark.row("OPT-03", reference="torch.optim")),
    ],
)
def test_the_formula_equals_torch_in_double_precision(cls):
    """In fp64 rounding cannot hide a wrong formula: equal to 1e-12 after 60 steps."""
    ours, theirs = small_model().double(), small_model().double()
    train(ours, cls(decay_groups(ours.named_parameters(), 0.1), lr=3e-3, fused=False))
    train(theirs, getattr(torch.optim, cls.__name__)(torch_groups(theirs, 0.1), lr=3e-3))
    assert_same(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.row("OPT-04", reference="transformers")
@pytest.mark.parametrize("beta1", [None, 0.9])
@pytest.mark.parametrize(
    ("relative_step", "warmup_init", "scale_parameter"),
    [(False, False, False), (False, False, True), (True, False, True), (True, True, True)],
)
def test_adafactor_equals_transformers(beta1, relative_step, warmup_init, scale_parameter):
    settings = {
        "relative_step": relative_step,
        "warmup_init": warmup_init,
        "scale_parameter": scale_parameter,
        "beta1": beta1,
    }
    lr = 1.0 if relative_step else 1e-3
    ours, theirs = run_pair(
        AdaFactorConfig(lr=lr, weight_decay=0.01, **settings),
        lambda m: hf.Adafactor(torch_groups(m, 0.01), lr=None if relative_step else lr, **settings),
    )
    assert_same(ours, theirs, **FP32)


@pytest.mark.row("OPT-04", reference="transformers")
@pytest.mark.parametrize("beta1", [None, 0.9])
@pytest.mark.parametrize(("relative_step", "scale_parameter"), [(False, False), (True, True)])
def test_adafactors_formula_equals_transformers_in_double_precision(beta1, relative_step, scale_parameter):
    settings = {"relative_step": relative_step, "scale_parameter": scale_parameter, "beta1": beta1}
    lr = 1.0 if relative_step else 1e-3
    ours, theirs = small_model().double(), small_model().double()
    train(ours, AdaFactor(decay_groups(ours.named_parameters(), 0.01), lr=lr, **settings))
    train(theirs, hf.Adafactor(torch_groups(theirs, 0.01), lr=None if relative_step else lr, **settings))
    assert_same(ours, theirs, rtol=1e-12, atol=1e-12)


def test_adafactor_state_is_rows_plus_columns():
    weight = torch.nn.Parameter(torch.randn(40, 30))
    optimizer = AdaFactor([{"params": [("w", weight)]}])
    assert optimizer.state_nbytes() == 4 * (40 + 30)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_muon_equals_torch_on_matrices_and_adamw_elsewhere(scale, nesterov):
    ours, theirs = small_model(), small_model()
    named = [(n if n != "0.weight" else "embed.weight", p) for n, p in ours.named_parameters()]
    optimizer = MuonConfig(lr=2e-3, weight_decay=0.1, scale=scale, nesterov=nesterov).build(named)
    rules = {n: g["rule"] for g in optimizer.param_groups for n in g["param_names"]}
    assert {n for n, rule in rules.items() if rule == "muon"} == {"1.weight", "4.weight"}

    matrices = [theirs[1].weight, theirs[4].weight]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    pair = [
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.1, momentum=0.95, nesterov=nesterov, adjust_lr_fn=scale),
        torch.optim.AdamW(
            [{"params": [theirs[0].weight], "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=2e-3,
            betas=(0.9, 0.95),
        ),
    ]
    # bf16 inside the iteration turns a last-bit difference of a gradient into 1e-2 of an update: 10 steps, looser.
    train(ours, optimizer, steps=10)
    for x, y in batches(10):
        torch.nn.functional.cross_entropy(theirs(x), y).backward()
        for one in pair:
            one.step()
            one.zero_grad()
    assert_same(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_muon_single_step_is_torchs_exactly(shape):
    torch.manual_seed(0)
    start, gradient = torch.randn(shape), torch.randn(shape)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    Muon([{"params": [("w", ours)]}], lr=0.02, scale="original").step()
    torch.optim.Muon([theirs], lr=0.02).step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    matrix = torch.randn(24, 40)
    values = torch.linalg.svdvals(orthogonalise(matrix, dtype=torch.float32))
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(
        orthogonalise(matrix, dtype=torch.float32).flatten(), (u @ v).flatten(), 0
    )
    assert cosine > 0.97


@pytest.mark.row("OPT-11", reference="torch.optim")
def test_decay_reaches_matrices_only():
    """With zero gradients one AdamW step multiplies decayed tensors by 1 - lr wd and leaves the others."""
    ours, theirs = small_model(), small_model()
    before = copy.deepcopy(ours)
    optimizer = AdamWConfig(lr=0.5, weight_decay=0.1).build(ours.named_parameters())
    reference = torch.optim.AdamW(torch_groups(theirs, 0.1), lr=0.5)
    for model, one in ((ours, optimizer), (theirs, reference)):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        one.step()
    assert_same(ours, theirs)
    for new, old in zip(ours.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(new, old * (0.95 if new.ndim >= 2 else 1.0))


def lambda_factors(make, total, **kwargs):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = make(optimizer, **kwargs)
    factors = []
    for _ in range(total):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.row("OPT-07", reference="transformers")
@pytest.mark.parametrize(
    ("ours", "make", "kwargs"),
    [
        (schedules.Constant(warmup_steps=7), hf.get_constant_schedule_with_warmup, {"num_warmup_steps": 7}),
        (
            schedules.Linear(warmup_steps=7),
            hf.get_linear_schedule_with_warmup,
            {"num_warmup_steps": 7, "num_training_steps": 50},
        ),
        (
            schedules.Cosine(warmup_steps=7, minimum=0.0),
            hf.get_cosine_schedule_with_warmup,
            {"num_warmup_steps": 7, "num_training_steps": 50},
        ),
        (
            schedules.Cosine(warmup_steps=7, minimum=0.1),
            hf.get_cosine_with_min_lr_schedule_with_warmup,
            {"num_warmup_steps": 7, "num_training_steps": 50, "min_lr_rate": 0.1},
        ),
        (
            schedules.WSD(warmup_steps=7, decay_steps=20, minimum=0.1),
            hf.get_wsd_schedule,
            {
                "num_warmup_steps": 7,
                "num_decay_steps": 20,
                "num_training_steps": 50,
                "min_lr_ratio": 0.1,
                "decay_type": "linear",
            },
        ),
        (
            schedules.WSD(warmup_steps=7, decay_steps=20, minimum=0.1, shape="cosine"),
            hf.get_wsd_schedule,
            {"num_warmup_steps": 7, "num_decay_steps": 20, "num_training_steps": 50, "min_lr_ratio": 0.1},
        ),
    ],
)
def test_schedules_equal_transformers(ours, make, kwargs):
    # transformers' WSD warms up from the minimum, the others from 0; so does ours always: compare WSD after warmup.
    start = 7 if isinstance(ours, schedules.WSD) else 0
    assert ours.values(50)[start:] == pytest.approx(lambda_factors(make, 50, **kwargs)[start:], abs=1e-12)


@pytest.mark.row("OPT-06", reference="torch.optim.lr_scheduler")
def test_noam_equals_lambda_lr():
    ours = schedules.Noam(hidden_size=512, warmup_steps=40)

    def formula(step):
        return 1 / math.sqrt(512) * min(1 / math.sqrt(step + 1), (step + 1) / 40**1.5)

    theirs = lambda_factors(lambda o: torch.optim.lr_scheduler.LambdaLR(o, formula), 200)
    assert ours.values(200) == pytest.approx(theirs, rel=1e-12)
    assert max(ours.values(200)) == ours.factor(39, 200)  # the peak is at the last warmup step


@pytest.mark.row("OPT-08", reference="torch.nn.utils")
@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clipping_equals_torch(max_norm):
    ours, theirs = small_model(), small_model()
    x, y = next(batches(1))
    for model in (ours, theirs):
        torch.nn.functional.cross_entropy(model(x), y).backward()
    norm = clip_gradients([p.grad for p in ours.parameters()], max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    torch.testing.assert_close(norm, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=2e-4, atol=1e-8)  # torch adds 1e-6 to the norm


def test_clipping_on_flat_buffers_equals_clipping_each_tensor():
    ours, theirs = small_model(), small_model()
    optimizer = AdamWConfig().build(ours.named_parameters())
    x, y = next(batches(1))
    for model in (ours, theirs):
        torch.nn.functional.cross_entropy(model(x), y).backward()
    norm = clip_gradients(optimizer.gradients(), 0.1)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1))
    clipped = torch.cat([g.flatten() for g in optimizer.gradients()])
    torch.testing.assert_close(clipped.norm(), torch.tensor(0.1), rtol=1e-4, atol=0)


@pytest.mark.row("OPT-12", reference="torch.amp.GradScaler")
def test_loss_scale_follows_torchs_grad_scaler():
    """The same finite and overflowing steps give the same scale after each, and the same weights."""
    settings = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, **settings)
    ours = LossScaler(1024.0, growth_interval=3)
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    adam_a, adam_b = (
        AdamWConfig(flat=False).build([("a", a)]),
        torch.optim.AdamW([b], lr=3e-4, betas=(0.9, 0.95), weight_decay=0),
    )
    scales = set()
    factors = [1, 2, math.inf, 1, 1, 1, 5, 1, math.nan, math.inf, 1, 1, 1, 1, 1, 1]
    for factor in factors:
        ours.scale_loss((a * factor).sum()).backward()
        if ours.unscale(adam_a.gradients()):
            adam_a.step()
        ours.update()
        adam_a.zero_grad()

        theirs.scale((b * factor).sum()).backward()
        theirs.step(adam_b)
        theirs.update()
        adam_b.zero_grad()
        assert ours.scale == theirs.get_scale()
        scales.add(ours.scale)
    torch.testing.assert_close(a, b)
    assert scales == {512.0, 1024.0, 256.0}
