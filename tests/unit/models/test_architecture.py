"""The outline of a model is what the model does, and its drawings show it."""

import xml.etree.ElementTree as ET

import pytest
import torch

from families import REFERENCES
from families.tiny import make_ours
from groundup.cli import main
from groundup.estimates.flops import flops
from groundup.models.architecture.drawing import as_count, as_svg, as_text, steps
from groundup.models.architecture.outline import PROBE
from groundup.models.architecture.trace import outline
from groundup.models.catalogue import FAMILIES, config_of_size

FIRST = [next(iter((*reference.cases, *reference.own))) for reference in REFERENCES.values()]


@pytest.mark.parametrize("name", FIRST)
def test_every_family_has_an_outline_that_names_all_its_parameters(name, tmp_path):
    model = make_ours(name, tmp_path)
    drawn = outline(model.config)
    assert drawn.parameters == model.num_parameters()
    assert sum(len(group.layers) for group in drawn.groups) == len(model.blocks)
    inside = sum(len(group.layers) * group.parameters for group in drawn.groups)
    blocks = sum(p.numel() for p in model.blocks.parameters())
    assert inside == blocks
    for group in drawn.groups:
        assert group.layout, f"{group.kind} has no `layout`: drawings do not know how its parts are joined"
        names = [name for token in steps(group) for name in token.split("|") if token not in "(+"]
        assert sorted(names) == sorted(part.name for part in group.parts)
    ET.fromstring(as_svg(drawn))


@pytest.mark.row("LM-50", reference="closed formulas, and the sizes of real tensors")
@pytest.mark.parametrize("size", ["gpt2", "llama-2-70b", "qwen3-8b"])
def test_operations_and_state_equal_the_formulas(size):
    config, drawn = config_of_size(size), outline(config_of_size(size))
    assert drawn.flops == flops(config, PROBE).forward // PROBE
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert drawn.state_bytes == 2 * 2 * config.num_hidden_layers * kv_heads * head
    assert drawn.constant_state_bytes == 0


@pytest.mark.parametrize("context", [PROBE, 2 * PROBE, 512])
def test_a_context_that_is_hardly_longer_than_the_probe(context):
    """Learned positions end with the context; nothing may be asked beyond."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": context}
    config = FAMILIES["gpt2"].config.parse(shape)
    assert outline(config).state_bytes == 2 * 2 * config.num_hidden_layers * config.hidden_size


def test_parts_stand_in_the_order_in_which_they_run():
    (group,) = outline(config_of_size("olmo2-7b")).groups
    assert [part.name for part in group.parts] == ["attn", "norm1", "mlp", "norm2"]
    assert steps(group) == ["(", "attn", "norm1", "+", "(", "mlp", "norm2", "+"]
    (group,) = outline(config_of_size("gpt2")).groups
    assert steps(group) == ["(", "norm1", "attn", "+", "(", "norm2", "mlp", "+"]


def test_unlike_layers_are_groups_of_their_own():
    config = config_of_size("qwen2-0.5b").model_copy(
        update={"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 20}
    )
    drawn = outline(config)
    assert [len(group.layers) for group in drawn.groups] == [20, 4]
    assert "window of 8" in drawn.groups[1].parts[1].detail


def test_the_drawings_hold_every_part_and_its_shape():
    drawn = outline(config_of_size("llama-3-8b"), "llama-3-8b")
    text, picture = as_text(drawn), as_svg(drawn)
    words = " ".join(ET.fromstring(picture).itertext())
    for expected in ("llama-3-8b", "8,030,261,248 parameters", "Block × 32", "(B, T, 4096)", "32 heads of 128"):
        assert expected in text
        assert expected in words
    assert text.count("+─╯") == 2
    assert picture.count('class="plus"') == 2


def test_counts_are_rounded_for_people():
    assert [as_count(n) for n in (12, 1500, 6_738_415_616, 10**13)] == ["12", "1.5k", "6.74B", "10T"]


def test_show_draws_families_sizes_and_folders(tmp_path, capsys):
    file = tmp_path / "picture.svg"
    assert main(["models", "show", "llama2", "--svg", str(file)]) == 0
    out = capsys.readouterr().out
    assert "Touvron et al. 2023" in out
    assert "Block × 32" in out
    ET.parse(file)
    assert main(["models", "show", "tiny"]) == 0
    assert "Block × " in capsys.readouterr().out
    assert torch.get_default_device().type == "cpu"
