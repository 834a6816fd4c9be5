"""AWQ and SmoothQuant: factors that change nothing, the search for them, products of integers."""

import copy

import pytest
import torch

from families import CASES
from families.tiny import ids, make_ours
from groundup.base.errors import UsageError
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import AWQConfig, SmoothQuantConfig, quantize, token_rows
from groundup.quantization.awq import best_factors, cut
from groundup.quantization.calibration import BlockByBlock, Inputs, gather
from groundup.quantization.changes import Changes
from groundup.quantization.folding import Fold, folds
from groundup.quantization.groups import round_to_nearest
from groundup.quantization.smoothquant import W8A8Linear, integer_product

FAMILIES = [
    *("llama", "gpt2", "opt", "bloom", "falcon-7b-like", "gpt-neox", "gptj", "gemma", "gemma2", "gemma3", "gemma4-e"),
    *("gemma4-moe", "mistral", "mixtral", "qwen", "qwen2", "qwen2-moe", "qwen3", "qwen3-moe", "qwen3.5", "qwen3-next"),
    *(
        "olmo",
        "olmo2",
        "olmo3",
        "phi",
        "phi3",
        "cohere2",
        "minicpm",
        "glm",
        "glm4",
        "chatglm",
        "chatglm_6b",
        "glm_130b",
    ),
    *("deepseek-v2", "deepseek-v3", "gpt-oss", "gpt3", "openelm", "mamba", "mamba2", "rwkv", "rwkv6", "rwkv7", "pangu"),
    *("parts-gated", "parts-prefix", "parts-deepnorm", "parts-switch", "elmo-words", "rnn-lstm", "awd-lstm", "bengio"),
]


def place_names(model, x):
    """The places in the first block: what takes the division in -> the layers."""
    walk = BlockByBlock(model, [x])
    block, _ = next(iter(walk))
    return {
        fold.name.removeprefix(block + "."): {name.rpartition(".")[2] for name in fold.layers}
        for fold in folds(walk, block)[0]
    }


@pytest.mark.row("QNT-07", reference="the model before scaling")
@pytest.mark.row("QNT-08", reference="the model before scaling")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name in CASES])
def test_factors_change_nothing_and_block_by_block_is_the_model(name, tmp_path):
    model, x = make_ours(name, tmp_path), ids()
    with torch.no_grad():
        wanted = model(x)
        generator = torch.Generator().manual_seed(0)
        walk = BlockByBlock(model, [x])
        with Changes(model) as changes:
            for block, _ in walk:
                for fold in folds(walk, block)[0]:
                    fold.apply(torch.rand(fold.width, generator=generator) + 0.5, changes)
        scaled = model(x)
        h = walk.calls[0][0] if model.norm is None else model.norm(walk.calls[0][0])
        # factors that are no powers of two round, here and there in a deep sum
        torch.testing.assert_close(scaled, wanted, rtol=1e-4, atol=3e-5)
        torch.testing.assert_close(model.lm_head(h), scaled)
        changes.take_back()
        assert torch.equal(model(x), wanted)


@pytest.mark.row("QNT-07", reference="the structure of the blocks")
@pytest.mark.parametrize(
    ("name", "places"),
    [
        (
            "llama",
            {
                "norm1": {"q_proj", "k_proj", "v_proj"},
                "norm2": {"gate_proj", "up_proj"},
                "attn.v_proj": {"o_proj"},
                "mlp.up_proj": {"down_proj"},
            },
        ),
        # GELU takes no factors
        ("gpt2", {"norm1": {"q_proj", "k_proj", "v_proj"}, "norm2": {"up_proj"}, "attn.v_proj": {"o_proj"}}),
        # one norm for both branches
        ("falcon-7b-like", {"norm1": {"q_proj", "k_proj", "v_proj", "up_proj"}, "attn.v_proj": {"o_proj"}}),
        # norms stand at the ends of the branches
        ("olmo2", {"attn.v_proj": {"o_proj"}, "mlp.up_proj": {"down_proj"}}),
        # the experts read norm2 too, and keep their precision
        ("mixtral", {"norm1": {"q_proj", "k_proj", "v_proj"}, "attn.v_proj": {"o_proj"}}),
    ],
)
def test_places_are_those_of_the_block(name, places, tmp_path):
    assert place_names(make_ours(name, tmp_path), ids()) == places


def with_outliers():
    """A llama two of whose inputs are far larger than the others, as those of large models are."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_model(LlamaConfig(vocab_size=64, **shape, initializer_range=0.15)).eval()
    with torch.no_grad():
        for block in model.blocks.values():
            block.norm1.weight[[3, 17]] *= 60
            block.norm2.weight[[3, 17]] *= 60
    return model


def error_of(config, model, x):
    quantized = copy.deepcopy(model)
    quantize(quantized, config, x)
    with torch.no_grad():
        wanted, given = model(x).log_softmax(-1), quantized(x).log_softmax(-1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean().item()


@pytest.mark.row("QNT-07", reference="round to nearest")
def test_awq_errs_less_than_rounding_to_the_nearest():
    model, x = with_outliers(), ids(8, 24)
    plain, scaled, both = (
        error_of(AWQConfig(group_size=32, scale=scale, clip=clip), model, x)
        for scale, clip in ((False, False), (True, False), (True, True))
    )
    assert scaled < 0.7 * plain
    assert both < 0.7 * plain


@pytest.mark.row("QNT-07", reference="the paper's search on the inputs themselves")
def test_the_factors_are_the_best_of_the_grid():
    """Errors by the Gram matrix are those of the outputs on the inputs."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(16, 8, bias=False), torch.randn(100, 16) * (1 + 20 * (torch.rand(16) > 0.8))
    inputs = Inputs.empty(16, x.device)
    inputs.add(x)
    fold = Fold("norm", torch.nn.LayerNorm(16), {"layer": layer}, torch.arange(16))
    factors = best_factors(fold, inputs, AWQConfig(group_size=8), {"layer"})

    def error(s):
        rounded = round_to_nearest(layer.weight.detach() * s, 4, 8).dequantize()
        return ((x / s) @ rounded.T - x @ layer.weight.detach().T).square().sum()

    mean, grid = x.abs().mean(0), []
    for step in range(20):
        s = mean ** (step / 20)
        grid.append(s / (s.max() * s.min()).sqrt())
    best = min(grid, key=error)
    torch.testing.assert_close(factors, best)
    assert error(factors) < 0.8 * error(torch.ones(16))


@pytest.mark.row("QNT-07", reference="errors on the inputs themselves")
def test_a_cut_lessens_each_groups_error():
    torch.manual_seed(1)
    weight, x = torch.randn(8, 32), torch.randn(200, 32)
    weight[:, ::16] *= 4
    x[:, ::16] *= 0.05
    changed = cut(weight, x.T @ x, 4, 16)
    for part in (slice(0, 16), slice(16, 32)):
        errors = [
            ((round_to_nearest(w, 4, 16).dequantize() - weight)[:, part] @ x[:, part].T).square().sum(1)
            for w in (changed, weight)
        ]
        assert (errors[0] <= errors[1] * 1.0001).all()
        assert errors[0].sum() < 0.9 * errors[1].sum()


@pytest.mark.row("QNT-08", reference="int64 products")
@pytest.mark.parametrize("shape", [(1, 8, 16), (3, 17, 9), (40, 64, 33), (2, 4096, 5)])
def test_products_of_integers_are_exact(shape):
    rows, inner, out = shape
    a, b = (torch.randint(-127, 128, (n, inner), dtype=torch.int8) for n in (rows, out))
    a[0], b[0] = 127, 127
    assert torch.equal(integer_product(a, b).long(), a.long() @ b.long().T)


@pytest.mark.row("QNT-08", reference="the paper's equation 2")
@pytest.mark.parametrize("largest", [0.0, 3.0])
def test_a_layer_computes_with_rounded_inputs_and_weights(largest):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 10), torch.randn(2, 5, 24)
    quantized = W8A8Linear.of(layer, largest)
    step = layer.weight.abs().amax(1, keepdim=True).detach() / 127
    weight = (layer.weight.detach() / step).round() * step
    each = x.abs().amax(-1, keepdim=True) / 127 if largest == 0 else torch.tensor(largest / 127)
    rounded = (x / each).round().clamp(-127, 127) * each
    torch.testing.assert_close(quantized(x), rounded @ weight.T + layer.bias.detach())
    x.requires_grad_()
    quantized(x).sum().backward()  # straight through the rounding of the inputs
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))
    assert not quantized(torch.zeros(1, 24)).isnan().any()


@pytest.mark.row("QNT-08", reference="8 bits without smoothing")
def test_smoothing_lessens_the_error_where_inputs_have_outliers():
    model, x = with_outliers(), ids(8, 24)
    for inputs in ("dynamic", "static"):
        smooth, plain = (error_of(SmoothQuantConfig(alpha=alpha, inputs=inputs), model, x) for alpha in (0.5, 0.0))
        without = copy.deepcopy(model)
        for name, layer in list(without.named_modules()):
            if type(layer) is torch.nn.Linear and name.startswith("blocks."):
                parent, _, leaf = name.rpartition(".")
                setattr(without.get_submodule(parent), leaf, W8A8Linear.of(layer))
        with torch.no_grad():
            wanted, given = model(x).log_softmax(-1), without(x).log_softmax(-1)
        unsmoothed = (wanted.exp() * (wanted - given)).sum(-1).mean().item()
        assert smooth < 0.5 * max(plain, unsmoothed), inputs


@pytest.mark.row("QNT-08", reference="the paper's equation 4")
def test_the_factors_share_the_difficulty():
    """s_j = max|x_j|^a / max|w_j|^(1 - a): with a = 1/2 inputs and weights then have the same largest numbers."""
    model, x = with_outliers(), ids(8, 24)
    quantize(model, SmoothQuantConfig(alpha=0.5), x)
    walk = BlockByBlock(model, [x])
    next(iter(walk))
    block = model.blocks["0"]
    inputs = gather({"q": block.attn.q_proj}, walk)["q"].largest
    weights = torch.stack([getattr(block.attn, f"{name}_proj").dequantize().abs().amax(0) for name in "qkv"]).amax(0)
    torch.testing.assert_close(inputs, weights, rtol=0.02, atol=1e-2)  # the weights are rounded by now


@pytest.mark.row("QNT-08", reference="the tokenizer's ids")
def test_calibration_texts_become_rows():
    class Bytes:
        def encode(self, text):
            return list(text.encode())

    rows = token_rows(["abcd", "efgh", "ij"], Bytes(), length=3, count=10)
    assert bytes(rows.flatten().tolist()) == b"abcdefghi"
    assert token_rows((f"{i:04}" for i in range(10**9)), Bytes(), length=4, count=2).shape == (2, 4)
    with pytest.raises(UsageError, match="have 2 tokens"):
        token_rows(["ab"], Bytes(), length=3)


@pytest.mark.row("QNT-07", reference="the layers of the family")
def test_what_keeps_its_precision_is_told(tmp_path):
    model = make_ours("llama", tmp_path)
    report = quantize(model, AWQConfig(group_size=8, targets=["blocks.*", "lm_head"]), ids())
    assert report.left == ("lm_head",)
    assert "left in precision: lm_head" in str(report)
