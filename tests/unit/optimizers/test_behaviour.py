"""Storage, state, precision, averages, ramp, early stopping, presets, search."""

import copy
import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from groundup.base.config import Config
from groundup.base.errors import CheckpointError, DataError, UsageError
from groundup.training import presets, schedules
from groundup.training.averaging import average_checkpoints
from groundup.training.batch_ramp import BatchRamp
from groundup.training.checkpoint import Checkpoints
from groundup.training.clipping import clip_gradients
from groundup.training.config import TrainingConfig
from groundup.training.early_stopping import EarlyStopping, EarlyStoppingConfig
from groundup.training.ema import EMAConfig
from groundup.training.optimizers.adam import AdamW
from groundup.training.optimizers.config import (
    AdaFactorConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    SGDConfig,
)
from groundup.training.optimizers.groups import decay_groups, group_table
from groundup.training.precision import LossScaler, PrecisionConfig
from groundup.training.search import GridSearch, RandomSearch, Range, SuccessiveHalving, search

CONFIGS = [SGDConfig(lr=0.05), AdamConfig(), AdamWConfig(), AdaFactorConfig(), MuonConfig()]


def small_model(dtype=torch.float32):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.LayerNorm(10), torch.nn.GELU(), torch.nn.Linear(10, 3))
    return model.to(dtype)


def train(model, optimizer, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 6, generator=generator).to(next(model.parameters()).dtype)
        model(x).float().square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_through_a_file_is_bit_exact(config, dtype, tmp_path):
    straight = small_model(dtype)
    train(straight, config.build(straight.named_parameters()), 0, 12)

    first = small_model(dtype)
    optimizer = config.build(first.named_parameters())
    train(first, optimizer, 0, 5)
    save_file({k: v.contiguous() for k, v in optimizer.state_tensors().items()}, tmp_path / "optimizer.safetensors")
    weights = values(first)

    second = small_model(dtype)
    second.load_state_dict(weights)
    resumed = config.build(second.named_parameters())
    resumed.load_state_tensors(load_file(tmp_path / "optimizer.safetensors"))
    train(second, resumed, 5, 12)
    assert_equal(values(second), values(straight))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_state_moves_between_flat_and_separate_layouts(config):
    flat, separate = small_model(), small_model()
    a = config.build(flat.named_parameters())
    b = config.model_copy(update={"flat": False}).build(separate.named_parameters())
    train(flat, a, 0, 4)
    separate.load_state_dict(values(flat))
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    train(flat, a, 4, 8)
    train(separate, b, 4, 8)
    for x, y in zip(flat.parameters(), separate.parameters(), strict=True):
        # Muon's bf16 iteration rounds at another place when its input differs in the last bit.
        torch.testing.assert_close(x, y, **({"rtol": 1e-3, "atol": 1e-4} if config.kind == "muon" else {}))


def test_loading_the_wrong_state_is_refused_and_changes_nothing():
    model = small_model()
    optimizer = AdamWConfig().build(model.named_parameters())
    train(model, optimizer, 0, 2)
    before = {k: v.clone() for k, v in optimizer.state_tensors().items()}
    wrong = {k: v for k, v in before.items() if not k.startswith("3.")}
    with pytest.raises(CheckpointError, match=r"3\.bias"):
        optimizer.load_state_tensors(wrong)
    misshapen = {**before, "0.weight.mean": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"0\.weight\.mean has shape \(2, 2\)"):
        optimizer.load_state_tensors(misshapen)
    assert_equal(before, optimizer.state_tensors())


def test_a_parameter_without_gradient_is_left_alone_as_in_torch():
    """Steps then differ between tensors of one flat buffer, so the update falls back to single tensors."""
    ours, theirs = small_model(), small_model()
    a = AdamW([{"params": list(ours.named_parameters())}], lr=1e-2, weight_decay=0.1)
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(6):
        for model, optimizer in ((ours, a), (theirs, b)):
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().sum().backward()
            if step % 2:
                model[0].weight.grad = None
            optimizer.step()
            optimizer.zero_grad()
    for x, y in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_gathering_micro_batches_sums_in_fp32():
    """1 + 64 x 2^-9 is 1.125; summed in bf16 each small term is lost."""
    parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    optimizer = AdamWConfig().build([("w", parameter)])
    for value in [1.0] + [2.0**-9] * 64:
        (parameter * value).sum().backward()
        optimizer.gather()
    assert optimizer.gradients()[0].max() == 1.125
    plain = torch.zeros(1, dtype=torch.bfloat16)
    for value in [1.0] + [2.0**-9] * 64:
        plain += value
    assert plain.item() == 1.0


def test_replaced_storage_is_taken_over():
    model = small_model()
    optimizer = SGDConfig(lr=0.0, momentum=0.0).build(model.named_parameters())
    model[0].weight.data = torch.full_like(model[0].weight, 3.0)
    train(model, optimizer, 0, 1)
    assert torch.equal(model[0].weight, torch.full_like(model[0].weight, 3.0))
    assert torch.equal(optimizer.masters()["0.weight"], model[0].weight)


def test_group_table_and_choice_for_embeddings():
    named = [
        ("embed.weight", torch.nn.Parameter(torch.zeros(5, 4))),
        ("norm.weight", torch.nn.Parameter(torch.zeros(4))),
    ]
    assert group_table(decay_groups(named, 0.1)) == [("embed.weight", (5, 4), 0.1, ""), ("norm.weight", (4,), 0.0, "")]
    optimizer = AdamWConfig(decay_embeddings=False).build(named)
    assert {row[0]: row[2] for row in group_table(optimizer.param_groups)} == {"embed.weight": 0.0, "norm.weight": 0.0}


def test_nothing_to_train_is_an_error():
    model = small_model().requires_grad_(False)
    with pytest.raises(UsageError, match="requires a gradient"):
        AdamWConfig().build(model.named_parameters())


def test_a_tied_parameter_is_updated_once():
    shared = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = SGDConfig(lr=1.0, momentum=0.0).build([("a", shared), ("b", shared)])
    shared.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.equal(shared.detach(), torch.zeros(3, 3))


@pytest.mark.row("OPT-05", reference="published: Rajbhandari et al. 2020, 16 bytes a parameter; Shazeer and Stern 2018")
def test_optimizer_memory_measured():
    """Bytes of real state: SGD 0, momentum 1x, Adam 2x the fp32 weights; AdaFactor rows + columns."""
    parameters = sum(p.numel() for p in small_model().parameters())

    def measured(config, dtype=torch.float32):
        return config.build(small_model(dtype).named_parameters()).state_nbytes()

    weights = 4 * parameters
    assert measured(SGDConfig(momentum=0.0)) == 0
    assert measured(SGDConfig()) == weights
    assert measured(AdamWConfig()) == 2 * weights
    # With weights and gradients Adam holds 4x what the weights take; SGD holds 2x.
    assert 2 * weights + measured(AdamWConfig()) == 4 * weights
    assert 2 * weights + measured(SGDConfig(momentum=0.0)) == 2 * weights
    # bf16 weights 2 + bf16 gradients 2 + fp32 master 4 + two fp32 moments 8 = 16 bytes a parameter
    assert (2 + 2) * parameters + measured(AdamWConfig(), torch.bfloat16) == 16 * parameters
    vectors = 10 + 10 + 10 + 3
    assert measured(AdaFactorConfig()) == 4 * ((6 + 10) + (10 + 3) + vectors)


@pytest.mark.row("OPT-12", reference="published: Micikevicius et al. 2018")
def test_gradients_below_2_to_minus_24_vanish_in_fp16_and_survive_with_scaling():
    def gradient(size, scaler):
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float16))
        optimizer = AdamWConfig().build([("w", weight)])
        # The gradient flows through an fp16 product, where it underflows.
        scaler.scale_loss((weight * torch.tensor(1.0, dtype=torch.float16)).float().sum() * size).backward()
        optimizer.gather()
        assert scaler.unscale(optimizer.gradients())
        return optimizer.gradients()[0][0].item()

    off = LossScaler(1.0)
    assert gradient(2.0**-24, off) == 2.0**-24
    assert gradient(2.0**-26, off) == 0.0
    assert gradient(2.0**-26, LossScaler(1024.0)) == 2.0**-26


@pytest.mark.row("OPT-12", reference="property: fp32 training")
@pytest.mark.parametrize("weights", ["copies", "autocast"])
def test_fp16_training_with_dynamic_scaling_follows_fp32(weights):
    reference, low = fit_regression(PrecisionConfig()), fit_regression(PrecisionConfig(dtype="fp16", weights=weights))
    assert low["skipped"] >= 1  # the first scale overflows, so backing off is exercised
    assert low["loss"] == pytest.approx(reference["loss"], rel=0.1)


@pytest.mark.row("OPT-13", reference="property: fp32 training")
@pytest.mark.parametrize("weights", ["copies", "autocast"])
def test_bf16_training_follows_fp32(weights):
    reference, low = fit_regression(PrecisionConfig()), fit_regression(PrecisionConfig(dtype="bf16", weights=weights))
    assert low["skipped"] == 0
    assert low["loss"] == pytest.approx(reference["loss"], rel=0.1)


def fit_regression(precision, steps=80):
    torch.manual_seed(0)
    x, noise = torch.randn(64, 6), 0.3 * torch.randn(64, 3)
    y = torch.sin(x @ torch.randn(6, 3)) + noise
    model = small_model(precision.parameter_dtype())
    optimizer, scaler, skipped = AdamWConfig(lr=1e-2).build(model.named_parameters()), precision.scaler(), 0
    scaler.scale = scaler.scale * 2**8 if precision.dtype == "fp16" else scaler.scale
    for _ in range(steps):
        with precision.autocast():
            loss = (model(x.to(precision.parameter_dtype())).float() - y).square().mean()
        scaler.scale_loss(loss).backward()
        optimizer.gather()
        if scaler.unscale(optimizer.gradients()):
            clip_gradients(optimizer.gradients(), 1.0)
            optimizer.step()
        else:
            skipped += 1
        scaler.update()
        optimizer.zero_grad()
    return {"loss": loss.item(), "skipped": skipped}


def test_masters_keep_updates_too_small_for_bf16():
    """100 steps of 1e-4 move a weight of 1 by 1e-2; alone, bf16 (spacing 2^-8 below 1) would not move at all."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = SGDConfig(lr=1e-4, momentum=0.0).build([("w", weight)])
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.masters()["w"].item() == pytest.approx(0.99, abs=1e-5)
    assert weight.item() < 1.0
    assert (torch.ones(1, dtype=torch.bfloat16) - 1e-4).item() == 1.0


def test_scaler_state_and_norms_beyond_fp32():
    scaler = LossScaler(8.0, growth_interval=2)
    assert scaler.unscale([torch.full((4,), 3e38)])  # each is finite; only their norm overflows
    scaler.update()
    other = LossScaler()
    other.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    assert other.unscale([torch.ones(1)])
    other.growth_interval = 2
    other.update()
    assert other.scale == 16.0


def test_clipping_leaves_non_finite_gradients_to_the_caller():
    gradient = torch.tensor([1.0, math.inf])
    assert not torch.isfinite(clip_gradients([gradient], 1.0))
    assert gradient[0] == 1.0


@pytest.mark.row("OPT-16", reference="torch.optim.swa_utils")
def test_ema_equals_torchs_averaged_model(tmp_path):
    model = small_model()
    theirs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # torch's first call copies
    optimizer = AdamWConfig(lr=1e-2).build(model.named_parameters())
    ema = EMAConfig(decay=0.9, warmup=False).build(optimizer.masters())
    for step in range(5):
        train(model, optimizer, step, step + 1)
        ema.update()
        theirs.update_parameters(model)
    expected = dict(theirs.module.named_parameters())
    for name, average in ema.average.items():
        torch.testing.assert_close(average, expected[name].detach())

    own = values(model)
    with ema.swapped_in(model.named_parameters()):
        assert_equal(values(model), ema.average)
    assert_equal(values(model), own)

    save_file(ema.state_tensors(), tmp_path / "ema.safetensors")
    again = EMAConfig(decay=0.9, warmup=False).build(optimizer.masters())
    again.load_state_tensors(load_file(tmp_path / "ema.safetensors"))
    train(model, optimizer, 5, 6)
    ema.update()
    again.update()
    assert_equal(again.average, ema.average)
    with pytest.raises(CheckpointError, match="other tensors"):
        again.load_state_tensors({})


@pytest.mark.row("OPT-16", reference="hand calculation")
def test_checkpoint_average_of_folders_and_files(tmp_path):
    (tmp_path / "a").mkdir()
    save_file({"w": torch.tensor([1.0, 2.0]).bfloat16()}, tmp_path / "a" / "model-1.safetensors")
    save_file({"n": torch.tensor([7])}, tmp_path / "a" / "model-2.safetensors")
    save_file({"w": torch.tensor([3.0, 6.0]).bfloat16(), "n": torch.tensor([9])}, tmp_path / "b.safetensors")
    mean = average_checkpoints([tmp_path / "a", tmp_path / "b.safetensors"])
    assert torch.equal(mean["w"], torch.tensor([2.0, 4.0]).bfloat16())
    assert torch.equal(mean["n"], torch.tensor([7]))
    save_file({"w": torch.zeros(3)}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match=r"c\.safetensors has other tensors"):
        average_checkpoints([tmp_path / "a", tmp_path / "c.safetensors"])
    (tmp_path / "d.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="not a whole"):
        average_checkpoints([tmp_path / "d.safetensors"])


@pytest.mark.row("OPT-16", reference="hand calculation")
def test_the_average_of_a_runs_checkpoints_is_of_the_model_alone(tmp_path):
    saved = Checkpoints(tmp_path, keep=3)
    for step, value in ((1, 1.0), (2, 2.0), (3, 6.0)):
        weight = {"w": torch.full((2, 2), value)}
        tensors = {"model": weight, "optimizer": {"w.exp_avg": torch.ones(2)}, "ema": {"w": torch.zeros(2, 2)}}
        saved.save({**tensors, "ema": {**tensors["ema"], "updates": torch.tensor(step)}}, {"step": step})
    mean = average_checkpoints(saved.complete())
    assert mean.keys() == {"w"}
    assert torch.equal(mean["w"], torch.full((2, 2), 3.0))
    (saved.path(2) / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="step-000002"):
        average_checkpoints(saved.complete())


def test_ema_swap_restores_after_an_error():
    model = small_model()
    ema = EMAConfig().build(dict(model.named_parameters()))
    own = values(model)
    ema.average["0.weight"].zero_()

    def fail():
        with ema.swapped_in(model.named_parameters()):
            assert model[0].weight.abs().sum() == 0
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert_equal(values(model), own)


@pytest.mark.row("OPT-10", reference="published: Brown et al. 2020")
def test_batch_ramp_of_gpt3():
    ramp = BatchRamp(start_tokens=32_000, ramp_tokens=12_000_000_000)
    assert ramp.batch_tokens(0, 3_200_000) == 32_000
    assert ramp.batch_tokens(6_000_000_000, 3_200_000) == (32_000 + 3_200_000) // 2
    assert ramp.batch_tokens(12_000_000_000, 3_200_000) == 3_200_000
    assert ramp.micro_batches(0, 64, 50_000) == 1


@given(
    st.integers(1, 10**7), st.integers(0, 10**9), st.integers(1, 10**7), st.lists(st.integers(0, 10**10), min_size=2)
)
@settings(max_examples=80, deadline=None)
def test_batch_ramp_rises_and_stays_within_bounds(start, ramp, full, seen):
    config = BatchRamp(start_tokens=start, ramp_tokens=ramp)
    sizes = [config.batch_tokens(tokens, full) for tokens in sorted(seen)]
    assert sizes == sorted(sizes)
    assert all(min(start, full) <= size <= full for size in sizes)


@pytest.mark.row("OPT-24", reference="hand calculation")
def test_early_stopping_and_its_state():
    watcher = EarlyStopping(EarlyStoppingConfig(patience=2, min_delta=0.1))
    assert [watcher.observe(x, i) for i, x in enumerate([3.0, 2.0, 1.95, math.nan])] == [True, True, False, False]
    assert watcher.should_stop
    assert (watcher.best, watcher.best_step) == (2.0, 1)
    again = EarlyStopping(watcher.config)
    again.load_state_dict(json.loads(json.dumps(watcher.state_dict())))
    assert again.should_stop
    again.observe(1.0, 9)
    assert not again.should_stop
    fresh = EarlyStopping(watcher.config)
    fresh.load_state_dict(json.loads(json.dumps(EarlyStopping(watcher.config).state_dict())))
    assert fresh.observe(1e30, 0)


@pytest.mark.row("OPT-24", reference="property: held-out loss of an overfitting network")
def test_early_stopping_keeps_the_best_of_an_overfitting_run():
    """A wide network on 12 noisy points: training loss keeps falling, held-out loss turns; its minimum is kept."""
    torch.manual_seed(0)
    x, held_x = torch.randn(12, 4), torch.randn(256, 4)
    direction = torch.randn(4, 1)
    y, held_y = x @ direction + torch.randn(12, 1), held_x @ direction + torch.randn(256, 1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    optimizer = AdamWConfig(lr=1e-2, weight_decay=0.0).build(model.named_parameters())
    watcher, training, held, stopped = EarlyStopping(EarlyStoppingConfig(patience=5)), [], [], None
    for step in range(300):
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            held.append((model(held_x) - held_y).square().mean().item())
        training.append(loss.item())
        watcher.observe(held[-1], step)
        if watcher.should_stop and stopped is None:
            stopped = step, watcher.best
    assert stopped is not None
    assert training[-1] < 0.2 * training[stopped[0]]
    assert held[-1] > 1.2 * stopped[1]


@pytest.mark.row("OPT-22", reference="published: Brown et al. 2020; Touvron et al. 2023")
def test_presets_are_the_published_tables():
    printed = {
        "125M": (12, 768, 12, 64, 500_000, 6e-4),
        "350M": (24, 1024, 16, 64, 500_000, 3e-4),
        "760M": (24, 1536, 16, 96, 500_000, 2.5e-4),
        "1.3B": (24, 2048, 24, 128, 1_000_000, 2e-4),
        "2.7B": (32, 2560, 32, 80, 1_000_000, 1.6e-4),
        "6.7B": (32, 4096, 32, 128, 2_000_000, 1.2e-4),
        "13B": (40, 5140, 40, 128, 2_000_000, 1e-4),
        "175B": (96, 12288, 96, 128, 3_200_000, 0.6e-4),
    }
    rows = {
        name: (r.layers, r.width, r.heads, r.head_size, r.batch_tokens, r.lr) for name, r in presets.GPT3_SIZES.items()
    }
    assert rows == printed
    assert {n: (r.width, r.heads, r.layers, r.lr, r.train_tokens) for n, r in presets.LLAMA1_SIZES.items()} == {
        "7B": (4096, 32, 32, 3e-4, 1.0e12),
        "13B": (5120, 40, 40, 3e-4, 1.0e12),
        "33B": (6656, 52, 60, 1.5e-4, 1.4e12),
        "65B": (8192, 64, 80, 1.5e-4, 1.4e12),
    }


@pytest.mark.row("OPT-22", reference="published: Brown et al. 2020; Touvron et al. 2023")
@pytest.mark.parametrize("recipe", [*map(presets.gpt3, presets.GPT3_SIZES), *map(presets.llama1, presets.LLAMA1_SIZES)])
def test_presets_are_settings_of_a_training(recipe):
    config = TrainingConfig.parse(recipe)
    assert isinstance(config.optimizer, AdamWConfig)
    assert (config.optimizer.betas, config.optimizer.weight_decay, config.clip) == ((0.9, 0.95), 0.1, 1.0)
    steps, tokens = config.tokens // (config.batch_size * 2048), config.tokens
    assert config.schedule.factor(steps, steps, tokens) == pytest.approx(0.1)
    assert max(config.schedule.factor(2000, steps, 375_000_000), 0) == pytest.approx(1.0)


@pytest.mark.row("OPT-22", reference="published: Brown et al. 2020; Touvron et al. 2023")
def test_presets_by_tokens():
    big = TrainingConfig.parse(presets.gpt3("175B"))
    rates = [big.schedule.factor(9, 99, tokens) for tokens in (0, 187_500_000, 375_000_000, 260 * 10**9, 3 * 10**11)]
    assert rates == pytest.approx([0, 0.5, 1, 0.1, 0.1])
    assert big.batch_size * 2048 == pytest.approx(3_200_000, rel=0.001)
    assert big.batch_ramp.ramp_tokens == 12_000_000_000
    assert presets.gpt3("125M")["batch_ramp"]["ramp_tokens"] == 4_000_000_000
    assert presets.llama1("65B")["schedule"]["warmup_steps"] == 2000
    with pytest.raises(UsageError, match="Did you mean `175B`"):
        presets.gpt3("175")
    with pytest.raises(UsageError, match="steps or in tokens"):
        schedules.Cosine.parse({"warmup_tokens": 5, "decay_steps": 9})


@pytest.mark.row("OPT-22", reference="published: Touvron et al. 2023")
def test_a_preset_from_the_command_line_can_be_changed():
    from groundup.commands.parse import parse
    from groundup.commands.train import Train

    small = parse(
        Train, "train", ["--preset", "gpt3-125M", "--training.batch-size", "4", "--data.context-length", "64"]
    )
    assert (small.model.hidden_size, small.model.num_hidden_layers) == (768, 12)
    assert (small.training.batch_size, small.data.context_length) == (4, 64)
    assert small.training.tokens == 300_000_000_000
    assert Train.parse(small.model_dump(mode="json", by_alias=True)) == small
    widths = [presets.preset(f"llama1-{size}")["model"]["intermediate_size"] for size in presets.LLAMA1_SIZES]
    assert widths == [11008, 13824, 17920, 22016]
    assert "model" not in presets.preset("gpt3-13B")
    with pytest.raises(UsageError, match="no preset `gpt3-125`"):
        presets.preset("gpt3-125")


@given(st.integers(0, 50), st.integers(51, 400), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_schedules_stay_between_minimum_and_one_and_never_rise_after_warmup(warmup, total, minimum):
    for schedule in (
        schedules.Linear(warmup_steps=warmup, minimum=minimum),
        schedules.Cosine(warmup_steps=warmup, minimum=minimum),
        schedules.WSD(warmup_steps=warmup, decay_steps=(total - warmup) // 2, minimum=minimum, shape="sqrt"),
    ):
        after = schedule.values(total + 5)[warmup:]
        assert after[0] == 1.0
        assert all(minimum - 1e-12 <= b <= a + 1e-12 for a, b in itertools.pairwise(after))


def test_schedule_sets_every_group():
    optimizer = AdamWConfig(lr=2.0).build(small_model().named_parameters())
    schedules.Cosine(warmup_steps=4).apply(optimizer, 1, 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    assert schedules.Milestones(steps=[3, 6], factors=[0.5, 0.1]).values(8) == [1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.1]


class Inner(Config):
    lr: float = 1.0


class Outer(Config):
    inner: Inner = Inner()
    width: int = 4


def bowl(config, budget):
    return (math.log10(config.inner.lr) + 2) ** 2 + abs(config.width - 8) / budget


@pytest.mark.row("OPT-20", reference="hand calculation")
def test_grid_search_finds_the_minimum_and_resumes(tmp_path):
    table, calls = tmp_path / "search.jsonl", []

    def counted(config, budget):
        calls.append(config)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return bowl(config, budget)

    grid = GridSearch(space={"inner.lr": [1e-3, 1e-2, 1e-1], "width": [4, 8]})
    with pytest.raises(KeyboardInterrupt):
        search(Outer(), grid, counted, table)
    table.write_text(table.read_text() + '{"settings": {"inner')  # a line cut off by a crash
    best = search(Outer(), grid, counted, table)
    assert (best.settings, best.score) == ({"inner.lr": 1e-2, "width": 8}, 0.0)
    assert len(calls) == 6 + 1  # the interrupted trial ran twice, finished ones once
    assert len(table.read_text().splitlines()) == 6


@pytest.mark.row("OPT-20", reference="property")
def test_random_search_is_seeded_and_halving_spends_its_budget_on_the_best(tmp_path):
    space = {"inner.lr": Range(low=1e-4, high=1.0, log=True), "width": Range(low=2, high=32, integer=True)}
    assert RandomSearch(space=space, seed=3).draws() == RandomSearch(space=space, seed=3).draws()
    assert RandomSearch(space=space, seed=3).draws() != RandomSearch(space=space, seed=4).draws()
    halving = SuccessiveHalving(space=space, trials=27, budget=1.0, eta=3)
    best = search(Outer(), halving, bowl, tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [sum(r["budget"] == b for r in rows) for b in (1, 3, 9, 27)] == [27, 9, 3, 1]
    assert best.budget == 27
    survivors = {json.dumps(r["settings"]) for r in rows if r["budget"] == 3}
    first = sorted((r for r in rows if r["budget"] == 1), key=lambda r: r["score"])
    assert survivors == {json.dumps(r["settings"]) for r in first[:9]}


def test_search_reports_wrong_keys_before_any_trial_and_survives_nan(tmp_path):
    with pytest.raises(UsageError, match=r"Did you mean `width`"):
        search(Outer(), GridSearch(space={"widht": [1]}), bowl, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()
    best = search(
        Outer(), GridSearch(space={"width": [1, 8]}), lambda c, b: math.nan if c.width == 1 else 5, tmp_path / "b"
    )
    assert best.settings == {"width": 8}
    (tmp_path / "c").write_text("[]\n")
    with pytest.raises(DataError, match="c:1"):
        search(Outer(), GridSearch(space={"width": [1]}), bowl, tmp_path / "c")
