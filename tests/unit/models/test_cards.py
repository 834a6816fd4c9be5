"""The cards of the families agree with the code, and with each other."""

import re

import pytest

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.models.architecture.difference import in_words, lineage
from groundup.models.cards import card_of, cards
from groundup.models.catalogue import FAMILIES, config_of_size, sizes

UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def test_every_family_and_every_published_size_has_a_card():
    assert set(FAMILIES) <= {card.family for card in cards().values()}
    named = [size.name for card in cards().values() for size in card.sizes]
    assert len(named) == len(set(named))
    assert set(sizes()) <= set(named)


@pytest.mark.parametrize("name", cards())
def test_a_card_agrees_with_the_code(name):
    from groundup.models.architecture.counts import parameters_by_part

    card = cards()[name]
    assert card.family is None or card.family in FAMILIES
    assert card.ancestor is None or card.ancestor in cards(), f"no card of {card.ancestor}"
    built = sizes()
    for size in card.sizes:
        if size.name not in built:
            continue
        config = config_of_size(size.name)
        assert config.model_type == card.family
        counted = sum(parameters_by_part(config).values())
        assert size.parameters is not None
        assert counted == pytest.approx(as_number(size.parameters), rel=0.04, abs=half_a_digit(size)), size.name
    assert {number.size for number in card.numbers} <= {size.name for size in card.sizes}


def as_number(published):
    if isinstance(published, int):
        return published
    digits, unit = re.fullmatch(r"([\d.]+)([KMBT])", published).groups()
    return float(digits) * UNITS[unit]


def half_a_digit(size):
    """What the printed number may have lost by rounding: 0.5e9 of `7B`."""
    if not isinstance(size.parameters, str):
        return 0
    digits, unit = size.parameters[:-1], size.parameters[-1]
    return 0.5 * UNITS[unit] / 10 ** len(digits.partition(".")[2])


def test_ancestors_are_older_and_end_somewhere():
    for name, card in cards().items():
        line = lineage(name)
        assert len(line) == len(set(line))
        for ancestor in line[1:]:
            assert cards()[ancestor].date <= card.date, (name, ancestor)


def test_a_card_is_found_by_family_and_by_size():
    assert card_of("llama-2-70b") is card_of("llama2")
    with pytest.raises(UsageError, match="Did you mean `llama2`"):
        card_of("lama2")


def test_the_difference_in_words_goes_along_the_lineage():
    words = in_words("gpt2", "llama2")
    assert words.index("Llama 1 (from GPT-2):") < words.index("Llama 2 (from Llama 1):")
    assert "  - rotary positions in place of learned ones" in words
    assert not any("OLMo" in line for line in words)
    both = in_words("mistral", "olmo2")  # siblings: what each changed, and nothing of what they share
    assert any("window" in line for line in both)
    assert any("end of each branch" in line for line in both)
    assert "  - RMSNorm in place of LayerNorm" not in both


def test_list_is_narrowed_by_what_cards_say(capsys):
    import json

    def families(*flags):
        assert main(["models", "list", *flags, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["families"]

    everything = families()
    assert list(everything) == list(cards())
    assert everything["llama3"]["sizes"][0]["name"] == "llama-3-8b"
    layer_norms = families("--norm", "layernorm")
    assert "gpt2" in layer_norms
    assert "llama1" not in layer_norms
    recent = families("--since", "2024", "--until", "2024-06")
    assert {"gemma", "llama3", "qwen2"} <= set(recent)
    assert not {"qwen2.5", "llama2"} & set(recent)
    assert set(families("--family", "llama")) >= {"llama1", "llama2", "llama3"}
    assert list(families("--family", "llama3")) == ["llama3"]
    assert main(["models", "list", "--family", "lama3"]) == 2
    assert "llama3" in capsys.readouterr().err
    assert main(["models", "list", "--since", "last year"]) == 2


def test_diff_as_typed(capsys):
    import json

    assert main(["models", "diff", "gpt2", "olmo2-7b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["what"]: (row["a"], row["b"]) for row in found["rows"]}
    assert rows["blocks"] == ("12 × Block", "32 × PostBranchNormBlock")
    assert rows["parameters"] == ("124,439,808", "7,298,617,344")
    assert rows["norm"] == ("LayerNorm", "RMSNorm")
    assert "initializer_range" not in rows  # equal
    assert main(["models", "diff", "llama-2-7b", "llama-2-7b"]) == 0
    assert "they are the same" in capsys.readouterr().out
    assert main(["models", "diff", "llama2", "nothing"]) == 2
    assert main(["models", "diff", "llama-2-7b", "llama-2-7b", "--all"]) == 0
    assert "initializer_range" in capsys.readouterr().out
