"""`groundup bench attention`: every way gives the same attention; one that does not is found before any is timed."""

import json

import pytest
import torch
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.benchmarks import attention as bench
from groundup.benchmarks.attention_cases import IMPLEMENTATIONS, OURS, PEERS
from groundup.commands.bench import BenchAttention

WITHOUT_COMPILER = [name for name in IMPLEMENTATIONS if name != "FlexAttention"]
CPU = torch.device("cpu")


def work(backward=True, dtype=torch.float32, **changes):
    shape = dict(rows=2, tokens=70, width=32, heads=4, repeats=1) | changes
    return bench.Work(**shape, backward=backward, device=CPU, dtype=dtype)


def test_every_way_has_its_place_in_the_result():
    assert sorted(name for members in PEERS.values() for name in members) == sorted(set(IMPLEMENTATIONS) - {OURS})
    assert len(IMPLEMENTATIONS) >= 6


@pytest.mark.row("LAY-35", reference="torch")
@pytest.mark.parametrize("name", WITHOUT_COMPILER)
def test_every_way_equals_torchs_module_in_values_and_gradients(name):
    modules = bench.build(work(), list({"MultiheadAttention", name}))
    x = torch.randn(2, 70, 32, requires_grad=True)
    found, expected = (bench.values(work(), modules[n], x) for n in (name, "MultiheadAttention"))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-4)  # gradients are sums over 70 tokens
    changed = x.detach().clone()
    changed[:, 40:] += 1
    assert_close(modules[name](changed)[:, :40], modules[name](x)[:, :40])  # causal


@pytest.mark.slow
@pytest.mark.row("LAY-35", reference="torch")
def test_flex_attention_equals_too():
    modules = bench.build(work(backward=False), ["FlexAttention"])
    bench.check(work(backward=False), modules, torch.randn(2, 70, 32))


@pytest.mark.row("LAY-35", reference="torch")
@pytest.mark.parametrize("what", ["result", "gradient"])
def test_another_attention_is_refused_before_it_is_timed(monkeypatch, what):
    class Other(bench.nn.Module):
        def __init__(self, attention, heads):
            super().__init__()
            self.inner = IMPLEMENTATIONS["heads split"](attention, heads)

        def forward(self, x):
            y = self.inner(x)
            return y * 1.001 if what == "result" else y + (x - x.detach()) * 0.1

    monkeypatch.setitem(IMPLEMENTATIONS, "einsum", Other)
    monkeypatch.setattr(bench, "in_turn", lambda *_: pytest.fail("timed"))
    with pytest.raises(UsageError, match=f"einsum is not the same attention: its {what} is off"):
        bench.measure(work(), ["heads split", "einsum"], rounds=1)


@pytest.mark.row("LAY-35", reference="property: what the command prints and writes")
@pytest.mark.parametrize("backward", [False, True])
def test_the_command_compares_ours_with_all_others(tmp_path, capsys, backward):
    path = tmp_path / "attention.json"
    settings = dict(rows=1, tokens=[9, 20], width=16, heads=2, rounds=1, repeats=1, backward=backward)
    results = BenchAttention(**settings, device="cpu", out=path).run()
    assert json.loads(path.read_text())["results"] == results["results"]
    kind = "training" if backward else "forward"
    assert [(one["case"], one["peer"]) for one in results["results"]] == [
        (f"{kind}, 1 x {tokens} tokens", peer) for tokens in (9, 20) for peer in PEERS
    ]
    timed = {name for one in results["results"] for name in one["theirs_variants"]}
    assert timed == set(WITHOUT_COMPILER) - {OURS}
    assert all(one["largest_error"][name] < 1e-4 for one in results["results"] for name in one["theirs_variants"])
    assert "heads one by one" in capsys.readouterr().out


def test_the_needed_arithmetic_is_counted(monkeypatch):
    """2 rows of 3 tokens, width 4: four 4 x 4 projections, and 6 pairs of dot product and sum of 4 numbers."""
    small = work(False, rows=2, tokens=3, width=4, heads=2)
    assert small.flops == 2 * (3 * 4 * 2 * 16 + 6 * 2 * 2 * 4)
    assert work(True, rows=2, tokens=3, width=4, heads=2).flops == 3 * small.flops
    monkeypatch.setattr(bench, "peak_flops", lambda device, dtype: {("cpu", "float32"): 1e9}[device, dtype])
    monkeypatch.setattr(bench, "in_turn", lambda cases, rounds: {name: [0.002] for name in cases})  # milliseconds
    (found,) = bench.measure(small, ["einsum"], rounds=1)
    assert found.more["flops_per_second"] == pytest.approx(small.flops / 2e-6)
    assert found.more["fraction_of_peak"] == pytest.approx(small.flops / 2e-6 / 1e9)


@pytest.mark.slow
def test_half_precision_and_a_choice_of_ways():
    found = bench.measure(work(False, torch.bfloat16), ["einsum"], rounds=1)
    assert [one.peer for one in found] == ["by hand"]
    results = BenchAttention(
        rows=1, tokens=[5], width=16, heads=2, rounds=1, implementations=["einsum,math kernel"]
    ).run()
    assert list(results["results"][0]["theirs_variants"]) == ["einsum", "math kernel"]


def test_impossible_work_is_refused():
    with pytest.raises(
        UsageError, match="no implementation of attention is called 'fast'; there are: Attention, heads"
    ):
        bench.build(work(), ["fast"])
    with pytest.raises(UsageError, match="3 heads do not divide a width of 32"):
        bench.build(work(heads=3), [])
    with pytest.raises(UsageError, match="cuda"):
        BenchAttention(device="cuda:9", tokens=[4], rounds=1).run()
