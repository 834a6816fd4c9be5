"""Decoding with weights in blocks of integers: the compiled products give what the dequantized matrices give."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.generation.few_rows import for_decoding
from groundup.generation.few_rows.block import FewRowsBlock
from groundup.generation.few_rows.blocks import BLOCK, blocks_of, pack
from groundup.generation.few_rows.linear import FewRowsLinear
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import FP4Config, Int4Config, Int8Config, IntegerConfig, NF4Config, quantize
from groundup.quantization.gguf.linear import GGUFLinear
from groundup.quantization.grouped_linear import AWQLinear, GPTQLinear
from groundup.quantization.groups import round_to_nearest
from groundup.quantization.linear import Levels

pytest.importorskip("numba")

FORMS = {
    "int8": Int8Config(),
    "int8 in groups": IntegerConfig(bits=8, group=32),
    "int8 with zeros": IntegerConfig(bits=8, group=64, symmetric=False),
    "int4": Int4Config(),
    "int4 with zeros": IntegerConfig(bits=4, group=64, symmetric=False),
    "int3": IntegerConfig(bits=3, group=32),
    "int4 by row": IntegerConfig(bits=4, group="row"),
    "nf4": NF4Config(),
    "fp4": FP4Config(double=False),
}


SLOW = {"int8 in groups", "int4 with zeros", "int3", "fp4"}  # each is compiled on its own, for seconds
ONCE = [pytest.param(form, marks=pytest.mark.slow) if form in SLOW else form for form in FORMS]


def error(found, want):
    """The distance, as a share of what is wanted. Inputs are rounded to 16 bits, numbers of a table to 15."""
    return (found - want).norm() / want.norm()


@pytest.mark.row("QNT-03", reference="the dequantized matrix, in float64")
@pytest.mark.parametrize("form", ONCE)
def test_a_linear_layer(form):
    for rows in (1, 4, 9):
        a_linear_layer(form, rows)


def a_linear_layer(form, rows):
    torch.manual_seed(rows)
    layer = FORMS[form].make(nn.Linear(128, 13))
    x = torch.randn(rows, 1, 128)
    want = x.double() @ layer.dequantize().double().T + layer.bias.double()
    fast = FewRowsLinear(layer)
    assert blocks_of(layer) is not None
    with torch.inference_mode():
        assert error(fast(x), want) < 5e-5


def test_blocks_are_really_smaller():
    linear = nn.Linear(256, 64, bias=False)
    bits = {form: 8 * blocks_of(FORMS[form].make(linear)).data.numel() / linear.weight.numel() for form in FORMS}
    assert bits == {
        "int8": 8 + 32 / 256, "int8 in groups": 9, "int8 with zeros": 10, "int4": 5, "int4 with zeros": 6, "int3": 5,
        "int4 by row": 4 + 32 / 256, "nf4": 5, "fp4": 5,
    }  # fmt: skip


def test_numbers_of_every_place_are_kept():
    q = torch.arange(-8, 8).repeat(2, 4)  # (2, 64)
    scale = torch.tensor([[0.5, 2.0], [1.0, 3.0]])
    assert pack(Levels(q, scale)).data.shape == (2, 64 // BLOCK * (4 + 16))
    layer = FORMS["int4"].make(nn.Linear(64, 2, bias=False))
    layer.levels = lambda: Levels(q, scale)
    want = q.float() * scale.repeat_interleave(32, 1)
    with torch.inference_mode():
        parts = [FewRowsLinear(layer)(part) for part in torch.eye(64).split(16)]
    torch.testing.assert_close(torch.cat(parts), want.T, rtol=1e-4, atol=0)


def test_blocks_follow_the_stored_numbers():
    layer = FORMS["int8"].make(nn.Linear(64, 8, bias=False))
    x = torch.randn(1, 64)
    with torch.inference_mode():
        before = FewRowsLinear(layer)(x)
    layer.scale.mul_(2)
    with torch.inference_mode():
        torch.testing.assert_close(FewRowsLinear(layer)(x), 2 * before)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_what_is_not_finite_is_seen(number):
    layer = FORMS["int4"].make(nn.Linear(128, 13))
    x = torch.randn(2, 128)
    x[1, 77] = number
    with torch.inference_mode():
        y = FewRowsLinear(layer)(x)
    assert y[0].isfinite().all()
    assert not y[1].isfinite().any()


def test_inputs_of_zeros_and_of_any_size():
    torch.manual_seed(0)
    layer = FORMS["int8"].make(nn.Linear(64, 4, bias=False))
    x = torch.cat([torch.zeros(1, 64), torch.randn(4, 64) * torch.tensor([1e-20, 1e-3, 1e10, 1e30])[:, None]])
    with torch.inference_mode():
        found = FewRowsLinear(layer)(x).double()
    want = x.double() @ layer.dequantize().double().T
    assert found[0].eq(0).all()
    assert all(error(found[i], want[i]) < 1e-4 for i in range(1, 5))


def test_a_large_input_costs_only_its_block_precision():
    linear = nn.Linear(64, 4, bias=False)
    linear.weight.data[:, :32] = 0
    layer = FORMS["int8"].make(linear)
    x = torch.randn(1, 64)
    x[0, 5] = 1e6
    with torch.inference_mode():
        assert error(FewRowsLinear(layer)(x), x @ layer.dequantize().T) < 1e-4


OTHER = """
import sys, tempfile, os
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
import llvmlite.binding
import numba
numba.njit(lambda x: x)(1)  # numba asks for itself
features = llvmlite.binding.get_host_cpu_features()
kept = {name: there for name, there in features.items() if not name.startswith("avx")}
kept["avx512f"] = sys.argv[1] == "wide"
asked, llvmlite.binding.get_host_cpu_features = llvmlite.binding.get_host_cpu_features, lambda: kept
from groundup.generation.few_rows.kernels import vectors
assert (vectors.LANES, vectors.PAIRS, vectors.LOOK_UP) == ((16 if sys.argv[1] == "wide" else 8), "", "")
llvmlite.binding.get_host_cpu_features = asked
import test_few_rows_quantized as tests
for form in ("int8", "int4", "nf4"):
    for rows in (1, 4):
        tests.a_linear_layer(form, rows)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["wide", "another"])
def test_processors_without_these_instructions(processor):
    """What is written for other processors, vectors of 16 numbers among it, computed by this one."""
    here = Path(__file__).parent
    told = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    done = subprocess.run([sys.executable, "-c", OTHER, processor], env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.row("QNT-12", reference="the same model, layer by layer")
@pytest.mark.parametrize("form", ["int8", pytest.param("int4 with zeros", marks=pytest.mark.slow)])
def test_a_quantized_model_decodes_in_compiled_blocks(form):
    torch.manual_seed(0)
    shape = {"vocab_size": 258, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = build_model(LlamaConfig(**shape, num_attention_heads=4, max_position_embeddings=64)).eval()
    quantize(model, FORMS[form])
    fast = for_decoding(model, 0)
    assert isinstance(fast.blocks["0"], FewRowsBlock)
    ids, state, fast_state = torch.arange(12)[None], model.make_state(1, 32), fast.make_state(1, 32)
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids, state=fast_state), model(ids, state=state), rtol=1e-4, atol=1e-4)
        for token in (3, 5, 7):
            step = torch.tensor([[token]])
            torch.testing.assert_close(fast(step, state=fast_state), model(step, state=state), rtol=1e-4, atol=1e-4)


@pytest.mark.row("QNT-12", reference="the matrices multiplied out")
@pytest.mark.parametrize("kind", [GPTQLinear, AWQLinear])
def test_layers_of_gptq_and_awq(kind):
    torch.manual_seed(0)
    layer = kind.from_grouped(round_to_nearest(torch.randn(16, 128), 4, 32), 4, 32)
    x = torch.randn(3, 128)
    with torch.inference_mode():
        assert error(FewRowsLinear(layer)(x), x @ layer.dequantize().T) < 3e-5


@pytest.mark.row("QNT-12", reference="the matrices multiplied out")
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_k"])
def test_layers_of_gguf(kind):
    torch.manual_seed(0)
    layer = GGUFLinear.of(nn.Linear(256, 16), kind)
    x = torch.randn(3, 256)
    assert blocks_of(layer) is not None
    with torch.inference_mode():
        assert error(FewRowsLinear(layer)(x), layer(x)) < 5e-5


def test_runs_of_sixteen_have_no_blocks():
    assert blocks_of(GGUFLinear.of(nn.Linear(256, 16), "q6_k")) is None


def test_columns_in_another_order_have_no_blocks():
    numbers = round_to_nearest(torch.randn(16, 128), 4, 32)
    turned = numbers._replace(groups=numbers.groups.flip(0))
    assert blocks_of(GPTQLinear.from_grouped(turned, 4, 32)) is None
    uneven = numbers._replace(groups=torch.tensor([0] * 8 + [1] * 40 + [2] * 40 + [3] * 40).int())
    assert blocks_of(GPTQLinear.from_grouped(uneven, 4, 32)) is None


def test_what_fits_no_blocks_stays_as_it_is():
    """Blocks of 64 numbers run on over the ends of rows of 96."""
    model = build_model(LlamaConfig(vocab_size=64, hidden_size=192, intermediate_size=96, num_hidden_layers=1)).eval()
    quantize(model, NF4Config())
    fast, ids = for_decoding(model, 0), torch.arange(9)[None]
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids), model(ids))
