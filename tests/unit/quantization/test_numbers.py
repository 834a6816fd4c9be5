"""Number formats against torch, numpy, bitsandbytes and the OCP numbers, bit by bit where they are small."""

import json
import math

import numpy as np
import pytest
import torch

from groundup.cli import main
from groundup.quantization.numbers import FORMATS
from groundup.quantization.numbers_page import page

TORCH = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8 e4m3": torch.float8_e4m3fn,
    "fp8 e5m2": torch.float8_e5m2,
}
PARITY = pytest.mark.row("QNT-01", reference="torch.finfo, torch casts")


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


@PARITY
@pytest.mark.parametrize("name", TORCH)
def test_range_and_spacing(name):
    form, info = FORMATS[name], torch.finfo(TORCH[name])
    assert form.bits == info.bits
    assert form.largest == info.max
    assert form.smallest_normal == info.smallest_normal
    assert form.spacing(1.0) == info.eps
    if name in ("fp32", "fp16"):
        numpy = np.finfo(str(TORCH[name]).removeprefix("torch."))
        assert form.smallest_subnormal == float(numpy.smallest_subnormal)


@PARITY
@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8 e4m3", "fp8 e5m2"])
def test_every_pattern(name):
    """What a pattern stands for, and the pattern of what it stands for."""
    form, dtype = FORMATS[name], TORCH[name]
    patterns = torch.arange(2**form.bits, dtype=torch.int32).to(torch.int16 if form.bits == 16 else torch.uint8)
    theirs = patterns.view(dtype).double().tolist()
    for pattern, value in enumerate(theirs):
        assert same(form.decode(pattern), value), pattern
        if not math.isnan(value):
            assert form.encode(value) == pattern
    if form.bits == 8:
        assert form.values() == sorted({v + 0.0 for v in theirs if math.isfinite(v)})


def awkward_numbers(form):
    """Float32 numbers of all sizes, halves between neighbours, and the ends."""
    g = np.random.default_rng(0)
    some = g.standard_normal(1500) * 2.0 ** g.integers(-150, 128, 1500)
    near = g.standard_normal(1500) * 2.0 ** g.integers(-20, 17, 1500)
    halves = [form.smallest_subnormal * k / 2 for k in range(12)] + [1 + form.spacing(1.0) * k / 2 for k in range(9)]
    step = form.spacing(form.largest)
    ends = [form.largest + step * k / 4 for k in range(-2, 5)] + [math.inf, math.nan, -0.0]
    return np.float32(np.concatenate([some, near, halves, np.negative(halves), ends, np.negative(ends)]))


@PARITY
@pytest.mark.parametrize("name", [name for name in TORCH if name != "fp32"])
def test_rounding_a_number(name):
    form = FORMATS[name]
    with np.errstate(over="ignore"):
        numbers = awkward_numbers(form)
    theirs = torch.from_numpy(numbers).to(TORCH[name]).double().tolist()
    for x, want in zip(numbers.tolist(), theirs, strict=True):
        assert same(form.round(x), want), x


@pytest.mark.row("QNT-01", reference="numpy")
def test_float32_and_tf32():
    """tf32 is fp32 whose last 13 mantissa bits are rounded away."""
    g = np.random.default_rng(1)
    wide = g.standard_normal(2000) * 2.0 ** g.integers(-148, 127, 2000)
    assert [FORMATS["fp32"].round(x) for x in wide] == np.float32(wide).tolist()
    narrow = np.float32(wide)
    bits = narrow.view(np.uint32).astype(np.uint64)
    bits += 0xFFF + (bits >> 13 & 1)
    want = (bits >> 13 << 13).astype(np.uint32).view(np.float32)
    assert [FORMATS["tf32"].round(float(x)) for x in narrow] == want.tolist()
    assert FORMATS["tf32"].bits == 19


@pytest.mark.row("QNT-01", reference="bitsandbytes")
def test_nf4():
    functional = pytest.importorskip("bitsandbytes.functional")
    form = FORMATS["nf4"]
    theirs = functional.get_4bit_type("nf4", device="cpu", blocksize=64).tolist()
    assert form.values() == theirs
    assert [form.round(v + 1e-3) for v in theirs[:-1]] == form.values()[:-1]
    assert form.round_scaled(-3.0, 4.0) == 4 * form.round(-0.75)


@pytest.mark.row("QNT-01", reference="OCP Microscaling Formats 1.0")
def test_mxfp4():
    """Elements of E2M1, a shared scale of E8M0: floor(log2 largest) less 2, the exponent of 6."""
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    form = FORMATS["mxfp4"]
    assert [form.element.decode(pattern) for pattern in range(16)] == list(mxfp4.FP4_VALUES)
    assert (form.element.largest, form.element.smallest_normal, form.element.smallest_subnormal) == (6, 1, 0.5)
    assert form.element.pattern(1.5) == "0 01 1"
    block = [0.1, -0.3, 7.9, 5.0, 2.5, 0.25, -0.25, 0.75]
    assert form.scale(7.9) == 1.0
    assert form.round_block(block) == [0, -0.5, 6, 4, 2, 0, 0, 1]  # 5 and 2.5 lie in the middle: the even one
    assert form.round_block([x * 2**-30 for x in block]) == [x * 2**-30 for x in form.round_block(block)]
    assert form.scale(0) == form.scale(1e-300) == 2.0**-127
    assert form.scale(1e300) == 2.0**127


@pytest.mark.row("QNT-01", reference="the nearest of all numbers")
@pytest.mark.parametrize("name", ["int8", "int4", "nf4"])
def test_tables(name):
    form = FORMATS[name]
    numbers = np.array(form.values())
    for x in np.random.default_rng(0).uniform(numbers[0] * 1.2, numbers[-1] * 1.2, 300):
        assert form.round(x) == numbers[np.abs(numbers - x).argmin()]
    if name != "nf4":
        assert [form.round(x) for x in (0.5, 1.5, 2.5, -0.5)] == [0, 2, 2, 0]
        assert (numbers[0], numbers[-1]) == (-(2 ** (form.bits - 1)), 2 ** (form.bits - 1) - 1)
        assert form.round_scaled(0.26, 1.0) == pytest.approx(round(0.26 * numbers[-1]) / numbers[-1])


@pytest.mark.row("QNT-01", reference="the command")
def test_the_command(tmp_path, capsys):
    assert main(["numbers", "--value", "0.1", "--out-dir", str(tmp_path / "new"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["format"] for row in result["formats"]] == list(FORMATS)
    bf16 = result["value"][3]
    assert (bf16["becomes"], bf16["pattern"]) == (0.10009765625, "0 01111011 1001101")
    html = (tmp_path / "new/numbers.html").read_text()
    assert "The number line" in html
    assert main(["numbers", "--value", "1e30"]) == 0  # infinity is a word
    assert "inf" in capsys.readouterr().out


@pytest.mark.row("QNT-01", reference="what the page draws")
def test_the_page():
    """The line holds all small numbers, named; spacings are drawn over powers of ten, and double."""
    line, spacing, error = page().charts()
    figure = line.figure()
    assert figure["layout"]["yaxis"]["ticktext"] == ["mxfp4", "nf4", "int4", "fp8 e5m2", "fp8 e4m3"]
    assert {trace["mode"] for trace in figure["data"]} == {"markers"}
    assert [len(trace["x"]) for trace in figure["data"][2:]] == [16, 16, 15]
    assert {trace["y"][0]: trace["name"] for trace in figure["data"]} == dict(
        enumerate(figure["layout"]["yaxis"]["ticktext"], 1)
    )
    for chart in (spacing, error):
        assert chart.figure()["layout"]["xaxis"]["type"] == chart.figure()["layout"]["yaxis"]["type"] == "log"
    fp16 = spacing.lines[2]
    assert fp16.y[list(fp16.x).index(1024.0)] == 1.0
    assert max(error.lines[0].y) == 2.0**-24
