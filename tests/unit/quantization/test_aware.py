"""Training with rounded weights: torch's own fake quantization is the reference."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.estimates.adapted import count_adapted
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model
from groundup.quantization import AwareConfig, finish, quantize
from groundup.quantization.aware import AwareLinear, RoundedInputLinear
from groundup.quantization.integers import IntegerLinear
from groundup.training.activation_checkpointing import checkpointed
from groundup.training.optimizers.config import AdamWConfig

PARITY = pytest.mark.row("QNT-11", reference="torch.fake_quantize_per_channel_affine")
ROW = pytest.mark.row("QNT-11", reference="rounding after training")


def linear(out=6, size=8, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(size, out)


def llama(seed=0):
    torch.manual_seed(seed)
    shape = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return build_model(LlamaConfig(**shape, num_attention_heads=2, max_position_embeddings=32))


def gradients(y, *tensors):
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad((y * g).sum(), tensors)


@PARITY
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 4])
def test_rounded_weights_and_their_gradient(bits, group):
    layer, x = linear(), torch.randn(5, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    ours = AwareLinear(copy.deepcopy(layer), AwareConfig(bits=bits, group_size=group))
    weight, most = layer.weight.view(-1, group or 8), 2 ** (bits - 1) - 1
    scale = (weight.detach().abs().amax(1) / most).half().float()
    rounded = torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale).int(), 0, -most, most)
    want = F.linear(x, rounded.view(6, 8), layer.bias)
    assert_close(ours(x), want)
    assert_close(gradients(ours(x), ours.weight, ours.bias, x), gradients(want, layer.weight, layer.bias, x))


@PARITY
def test_learned_steps_and_their_gradient():
    """LSQ: where a step of 1 / 10 cuts weights off, and where it does not."""
    layer = linear(out=2)
    ours = AwareLinear(copy.deepcopy(layer), AwareConfig(bits=3, learned_step=True))
    assert_close(ours.step.data, 2 * layer.weight.detach().abs().mean(1) / 3**0.5)  # where it begins
    ours.step.data = torch.tensor([0.1, 0.05]).half().float()
    step, zero = ours.step.detach().clone().requires_grad_(), torch.zeros(2, requires_grad=True)
    want = torch._fake_quantize_learnable_per_channel_affine(layer.weight, step, zero, 0, -3, 3, 1 / (8 * 3) ** 0.5)
    assert (want.abs() > 0.29).any()  # some are cut off
    assert_close(ours.rounded_weight(), want)
    assert_close(gradients(ours.rounded_weight(), ours.weight, ours.step), gradients(want, layer.weight, step))


@PARITY
def test_rounded_inputs_over_a_running_range():
    """The first step rounds over its own range, the next ones over what the range has become; evaluation as well."""
    ours = AwareLinear(linear(), AwareConfig(bits=8, activation_bits=4)).train()
    inputs = [torch.randn(4, 8, generator=torch.Generator().manual_seed(i)) * (1 + i) for i in range(3)]
    low = high = None
    for i, x in enumerate([*inputs, inputs[0]]):
        ours.train(i < 3)
        edges = (x.min().item(), x.max().item())
        now = edges if low is None else (low, high)
        step = (now[1] - now[0]) / 15
        want = torch.fake_quantize_per_tensor_affine(x, step, round(-now[0] / step), 0, 15)
        assert_close(ours(x), F.linear(want, ours.rounded_weight(), ours.bias))
        if i < 3:
            ours(x).sum().backward()
            low, high = edges if low is None else (0.99 * low + 0.01 * edges[0], 0.99 * high + 0.01 * edges[1])
            assert_close([ours.low.item(), ours.high.item()], [low, high])


@ROW
def test_recomputed_activations_change_nothing():
    """Activation checkpointing calls layers twice; the range moves once, and gradients are the same."""
    x, models = torch.randint(32, (2, 9)), []
    for checkpointing in (False, True):
        model = llama().train()
        quantize(model, AwareConfig(bits=4, activation_bits=8))
        for _ in range(2):
            with checkpointed(model, checkpointing):
                loss = model(x).square().mean()
            loss.backward()
        models.append(model)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert_close(ours.grad, theirs.grad)
    assert [b for _, b in models[0].named_buffers()] == [b for _, b in models[1].named_buffers()]


@ROW
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (AwareConfig(bits=4), IntegerLinear),
        (AwareConfig(bits=3, group_size=8, learned_step=True), IntegerLinear),
        (AwareConfig(bits=8), IntegerLinear),
        (AwareConfig(bits=2, group_size=8, activation_bits=8), RoundedInputLinear),
    ],
)
def test_finished_layers_say_the_same(config, kind, tmp_path):
    model, x = llama(), torch.randint(32, (2, 9), generator=torch.Generator().manual_seed(0))
    quantize(model, config)
    model.train()(x).square().mean().backward()
    model.eval()
    with torch.no_grad():
        want = model(x)
        model.save_pretrained(tmp_path)  # plain weights: the rounded ones
        if config.activation_bits is None:
            assert_close(load_model(tmp_path)(x), want)
        assert finish(model) == 14
        layer = model.blocks["0"].mlp.up_proj
        assert type(layer) is kind
        assert_close(model(x), want)
    assert layer.packed.nbytes == layer.in_features * layer.out_features * config.bits / 8
    if config.activation_bits is None:
        assert (model.quantization.kind, model.quantization.bits) == ("int", config.bits)
    x = torch.randn(3, 32, requires_grad=True)
    (gradient,) = gradients(layer(x), x)
    assert gradient.isfinite().all()  # an adapter below it can learn


@ROW
def test_refusals():
    with pytest.raises(UsageError, match="groups of 5"):
        quantize(llama(), AwareConfig(group_size=5))
    with pytest.raises(UsageError, match="quantization-aware"):
        finish(llama())
    model = llama()
    quantize(model, AwareConfig(activation_bits=8))
    with pytest.raises(UsageError, match="at least one step"):
        finish(model)
    assert isinstance(model.blocks["0"].mlp.up_proj, AwareLinear)  # nothing is left half done


def batches(seed):
    """Rows of a Markov chain: each of 32 tokens is followed by one of four."""
    g = torch.Generator().manual_seed(seed)
    follows = torch.randint(32, (32, 4), generator=torch.Generator().manual_seed(0))
    while True:
        rows = [torch.randint(32, (32,), generator=g)]
        for _ in range(16):
            rows.append(follows[rows[-1], (torch.rand(32, generator=g) ** 2 * 4).long()])
        yield torch.stack(rows, 1)


def loss_of(model, x):
    return F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def train(model, seed, steps, lr):
    optimizer, data = AdamWConfig(lr=lr).build(model.named_parameters()), batches(seed)
    for _ in range(steps):
        loss_of(model, next(data)).backward()
        optimizer.step()
        optimizer.zero_grad()


def measured(model):
    data = batches(99)
    with torch.no_grad():
        return sum(loss_of(model, next(data)).item() for _ in range(4)) / 4


@ROW
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_training_for_it_beats_rounding_afterwards(seed):
    """Weights of -1, 0, 1, the same number of steps of both: what rounding costs shrinks to less than half."""
    model = llama(seed)
    train(model, seed, 100, 1e-2)
    after = copy.deepcopy(model)
    train(after, seed + 10, 50, 2e-3)
    full = measured(after)
    quantize(after, AwareConfig(bits=2))
    lost = measured(after) - full
    for learned in (False, True):
        aware = copy.deepcopy(model)
        quantize(aware, AwareConfig(bits=2, learned_step=learned))
        train(aware, seed + 10, 50, 2e-3)
        assert measured(aware) - full < 0.5 * lost


@ROW
def test_the_command(tmp_path, capsys):
    """`groundup train --init-from X --quantization.kind aware`: final/ holds the rounded weights."""
    words = ["train", "--init-from", "tiny", "--quantization.kind", "aware", "--quantization.bits", "4"]
    (tmp_path / "text.txt").write_text("The cat sat on the mat and looked at the dog. " * 200)
    words += ["--data.source", str(tmp_path / "text.txt"), "--data.context_length", "32", "--training.steps", "1"]
    words += ["--training.batch_size", "2", "--out-dir", str(tmp_path / "run"), "--json", "--evaluate-batches", "1"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)
    weight = load_model(tmp_path / "run/final").blocks["0"].mlp.up_proj.weight
    assert len(weight[0].unique()) <= 15


@ROW
def test_memory_is_estimated_as_that_of_full_training():
    """The weights that learn are kept as they are: counted once, in their own dtype."""
    config = llama().config
    plain, aware = (count_adapted(config, None, q, "bf16") for q in (None, AwareConfig(bits=4)))
    assert aware == plain
    assert plain.weights == 2 * plain.base
