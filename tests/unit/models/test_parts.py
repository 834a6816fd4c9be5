"""The family of named parts: every name builds, is counted, trains from the recipe; wrong names say what there is."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from families.parts import CHOICES, make
from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.estimates.params import count_parameters
from groundup.layers.attention import Attention
from groundup.layers.position_bias import PositionBias
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.parts import PartsConfig
from groundup.models.hub import load_model
from groundup.models.text import parts
from groundup.models.text.llama import Llama
from groundup.models.text.parts import POSITIONS, Parts, Positions
from groundup.state import SegmentMemory

ALL = [(name, value) for name, values in CHOICES.items() for value in values]
TABLES = {
    "positions": "POSITIONS", "norm": "NORMS", "residual": "RESIDUALS", "attention": "ATTENTIONS", "mlp": "MLPS",
    "mask": "MASKS", "gate": "GATES", "initializer": "INITIALIZERS",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*ALL, ("bias", True), ("tie_word_embeddings", True), ("dropout", 0.1)])
def test_estimates_count_every_choice(name, value):
    config = make(**{name: value})()
    assert count_parameters(config) == count_parameters(config.to_hf()) == Parts(config).num_parameters()


@pytest.mark.parametrize("table", TABLES)
def test_every_entry_of_the_tables_is_in_the_help_and_tested(table):
    help_text = PartsConfig.model_fields[table].description
    names = set(getattr(parts, TABLES[table]))
    assert all(name in help_text for name in names)
    defaults = {PartsConfig.model_fields[table].default, "normal", "deepnorm", "unilm", "blank_infilling"}
    assert names - {value for name, value in ALL if name == table} <= defaults


@pytest.mark.parametrize("table", TABLES)
def test_unknown_names_say_what_there_is(table):
    known = list(getattr(parts, TABLES[table]))
    with pytest.raises(UsageError, match=f"no {table} `{known[0]}s`. Did you mean `{known[0]}`"):
        Parts.build(PartsConfig(**{table: known[0] + "s"}, hidden_size=16, num_hidden_layers=1))


def test_settings_that_do_not_go_together_are_refused():
    for values, message in (
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size .10. must be a multiple"),
        (
            {"attention": "gqa", "num_attention_heads": 4, "num_key_value_heads": 3},
            "multiple of num_key_value_heads .3.",
        ),
        ({"hidden_size": 12, "num_attention_heads": 4}, "heads are 3 wide"),
        ({"memory_length": 8}, "goes with positions transformer_xl"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ):
        with pytest.raises(UsageError, match=message):
            PartsConfig.parse(values)


@pytest.mark.parametrize("attention", ["gated", "gated_delta"])
def test_estimates_count_these_with_biases_and_shared_keys_too(attention):
    config = make(attention=attention, bias=True, num_attention_heads=8, num_key_value_heads=2)()
    assert count_parameters(config) == Parts(config).num_parameters()


def test_kinds_of_attention_that_take_no_relative_positions_say_so():
    for attention, positions in (("performer", "alibi"), ("gated", "shaw")):
        with pytest.raises(UsageError, match=f"attention {attention} does not go with positions {positions}"):
            Parts.build(make(attention=attention, positions=positions)())


def test_sizes_follow_from_the_choices():
    c = PartsConfig(hidden_size=128, num_attention_heads=8)
    assert (c.num_key_value_heads, c.intermediate_size) == (8, 344)
    c = PartsConfig(hidden_size=128, num_attention_heads=8, attention="gqa", mlp="dense")
    assert (c.num_key_value_heads, c.intermediate_size) == (4, 512)
    assert PartsConfig(attention="mqa").num_key_value_heads == 1
    assert PartsConfig.from_hf(c.to_hf()) == c.model_copy(update={"kept": PartsConfig.from_hf(c.to_hf()).kept})


def test_the_default_is_llama():
    shape = dict(vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40)
    ours, llama = Parts.build(PartsConfig(**shape)), Llama.build(LlamaConfig(**shape))
    llama.load_state_dict(ours.state_dict())
    ids = torch.randint(0, 48, (2, 9))
    assert torch.equal(ours(ids), llama(ids))


def test_both_layouts_of_rope_are_equal_under_the_permutation():
    from groundup.layers.rope import interleaved_to_half_split

    shape = dict(vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    half, inter = (Parts.build(PartsConfig(**shape, positions=p)) for p in ("rope", "rope_interleaved"))
    weights = dict(inter.state_dict())
    for name in weights:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] = interleaved_to_half_split(weights[name], 4)
    half.load_state_dict(weights)
    ids = torch.randint(0, 48, (2, 9))
    assert_close(half(ids), inter(ids))


def test_deep_norm_begins_as_it_should():
    torch.manual_seed(0)
    model = Parts.build(make(residual="deepnorm", hidden_size=128)())
    constants = parts.deepnorm_constants("decoder", decoder_layers=2)
    assert model.blocks["0"].alpha == constants.alpha
    gain = model.blocks["0"].attn.v_proj.weight.std().item() / model.blocks["0"].attn.q_proj.weight.std().item()
    assert gain == pytest.approx(constants.beta, rel=0.05)
    assert model.norm is None


def test_a_memory_of_segments_can_be_asked_for():
    model = Parts.build(make(positions="transformer_xl", memory_length=20)()).eval()
    ids, state = torch.randint(0, 64, (2, 12)), model.make_state(2, 10**6)
    assert isinstance(state.layers["blocks.0.attn"], SegmentMemory)
    with torch.no_grad():
        found = torch.cat([model(part, state=state) for part in ids.split(4, 1)], 1)
        assert_close(found, model(ids))


def test_a_part_of_ones_own_is_added_under_a_name(monkeypatch):
    class Nearest(PositionBias):
        def by_distance(self, distance):
            return -(distance.abs() > 1).float()[None].repeat(len(self.heads), 1) * 100

    mine = Positions(settings=lambda config, i: {"position_bias": Nearest(config.num_attention_heads)})
    monkeypatch.setitem(POSITIONS, "nearest", mine)
    monkeypatch.setitem(parts.NORMS, "nothing", lambda dim, eps: nn.Identity())
    model = Parts.build(make(positions="nearest", norm="nothing", num_hidden_layers=1)())
    ids = torch.randint(0, 64, (1, 9))
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 64
    assert_close(model(changed)[:, -1], model(ids)[:, -1])
    assert isinstance(model.blocks["0"].attn, Attention)


def test_the_recipe_trains_with_any_part_exchanged(tmp_path, capsys):
    recipe = Path(__file__).parents[3] / "recipes/parts.yaml"
    text = tmp_path / "text.txt"
    text.write_text("ROMEO: to be or not to be, that is the question. " * 60)
    small = ["--data.source", str(text), "--training.steps", "3", "--threads", "1", "--evaluate_batches", "2"]
    change = ["--model.positions", "alibi", "--model.residual", "sandwich", "--model.attention", "mqa"]
    out = tmp_path / "run"
    assert main(["train", str(recipe), "--out-dir", str(out), "--json", *small, *change]) == 0
    capsys.readouterr()
    config = json.loads((out / "final/config.json").read_text())
    assert (config["positions"], config["residual"], config["num_key_value_heads"]) == ("alibi", "sandwich", 1)
    assert load_model(out / "final").config.positions == "alibi"
    assert main(["train", str(recipe), "--out-dir", str(tmp_path / "no"), *small, "--model.positions", "alibbi"]) == 2
    assert "Did you mean `alibi`" in capsys.readouterr().err


def test_which_choices_decode_with_compiled_steps():
    """Blocks in one call where they are pre-norm, part by part elsewhere; attention only where every earlier token is
    seen.
    """
    pytest.importorskip("numba")
    from groundup.generation.few_rows import for_decoding

    shape = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1, "vocab_size": 2048}
    for change, whole, attention in (
        ({}, True, True),
        ({"norm": "layernorm"}, True, True),
        ({"positions": "alibi"}, True, True),
        ({"residual": "post"}, False, True),
        ({"positions": "t5"}, False, False),
        ({"mask": "prefix"}, False, False),
    ):
        block = for_decoding(Parts(PartsConfig(**{**shape, **change})), fewest_parameters=0).blocks["0"]
        assert (type(block).__name__ == "FewRowsBlock") == whole, change
        assert (type(block.attn).__name__ == "FewRowsAttention") == attention, change
