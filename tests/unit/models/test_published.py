"""The cards and the built models, held against facts looked up in papers, model cards and released files.

`tests/data/published_*.csv` were written from those sources, line by line with the place where each fact stands; a bar
parts several values that the sources give. What they leave blank, no source was found for, and the cards must say so.
"""

import csv
import functools
import re
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.commands.models_list import as_parameters, contexts
from groundup.commands.models_show import card_text
from groundup.models.cards import cards
from groundup.models.catalogue import FAMILIES, config_of_size, sizes

DATA = Path(__file__).parents[2] / "data"

# Fields of a size that are its shape: on a card only where no code here builds it.
SHAPE = ("layers", "width", "heads", "kv_heads", "vocabulary")
OF_A_SIZE = ("parameters", "active", "tokens", "context", "date", *SHAPE)
ARCHITECTURE = ("norm", "residual", "activation", "positions", "attention")

# What a config calls these, the likeliest first.
NAMES = {
    "layers": ("num_hidden_layers",),
    "width": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "context": ("max_position_embeddings",),
    "vocabulary": ("vocab_size",),
}

# Where what is built differs from what is printed, and why.
DIFFERS = {
    ("gpt3-1.3b", "heads"): "Table 2.1 prints 24 heads of 128 at a width of 2048; 16 fill it",
    ("qwen-1.8b", "context"): "its file has 8192; dynamic NTK and log-n reach the 32K that are announced",
    ("qwen-7b", "context"): "its file has 8192; dynamic NTK and log-n reach the 32K that are announced",
    **{
        (f"switch-{size}", "layers"): "of encoder and of decoder each; built as one stack of both"
        for size in ("base", "large", "xxl", "c")
    },
    ("switch-c", "heads"): "table 9 prints 32 heads; the released checkpoint has 30",
    ("opt-350m", "parameters"): "its token vectors have half the width: 331M are counted",
}


def rows(kind):
    with (DATA / f"published_{kind}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@functools.cache
def published():
    return {row["name"]: row for row in rows("models")}


@functools.cache
def sizes_of_cards():
    return {size.name: (card, size) for card in cards().values() for size in card.sizes}


def number(text):
    """`15T+` is 15e12."""
    return as_parameters(str(text).rstrip("+"))


def step(text):
    """One unit in the last digit that is printed: of `6.7B` 1e8. `7B` may stand for all from 6.x to 7.x."""
    digits = re.match(r"\d+\.?(\d*)", text)[1]
    return number("1" + re.sub(r"[\d.+]", "", text)) / 10 ** len(digits)


def close(told, printed):
    """Whether two counts are one: within 4 %, or cut or rounded to the digits that are printed."""
    a, b = number(told), number(printed)
    return a is not None and (abs(a - b) <= 0.04 * b or abs(a - b) < step(printed))


@pytest.mark.parametrize("kind", ["models", "results", "families"])
def test_every_fact_says_where_it_stands(kind):
    for row in rows(kind):
        assert row["source"], row
        assert row["where"], row
        assert not re.search(r"https?:|www\.", row["source"] + row["where"]), row
    names = [row["name"] for row in rows("models")]
    assert len(names) == len(set(names))


@pytest.mark.row("LM-49", reference="published: tests/data/published_models.csv")
@pytest.mark.parametrize("name", published())
def test_a_card_tells_what_is_published(name):
    fact = published()[name]
    card, size = sizes_of_cards()[name]
    if fact["date"]:
        assert (size.date or card.date) in fact["date"].split("|")
    for field in ("parameters", "active", "tokens"):
        if fact[field] and (name, field) not in DIFFERS:
            assert close(getattr(size, field), fact[field]), (field, getattr(size, field), fact[field])
    if fact["context"]:
        assert (size.context or card.context) == int(fact["context"])
    if fact["license"]:
        assert any(words.lower() in card.license.lower() for words in fact["license"].split("|")), card.license
    if name in sizes():
        assert not any(getattr(size, field) for field in SHAPE), "the shape of what is built stands in its config"
    else:
        for field in SHAPE:
            if fact[field] and not (field == "kv_heads" and fact[field] == fact["heads"]):
                assert getattr(size, field) == int(fact[field]), field


@pytest.mark.row("LM-49", reference="published: tests/data/published_models.csv")
@pytest.mark.parametrize("name", sorted(published().keys() & sizes().keys()))
def test_a_built_model_has_the_published_shape(name):
    fact, config = published()[name], config_of_size(name)
    compared = 0
    for field, names in NAMES.items():
        values = [getattr(config, n) for n in names if getattr(config, n, None) is not None]
        if fact[field] and values and (name, field) not in DIFFERS:
            assert str(values[0]) in fact[field].split("|"), (field, values[0], fact[field])
            compared += 1
    if fact["kv_heads"]:
        assert kv_heads(config) == int(fact["kv_heads"])
    assert compared or not any(fact[field] for field in NAMES), "nothing of it was found in the config"


def kv_heads(config):
    if config.model_type == "falcon":
        shared = None if config.new_decoder_architecture or not config.multi_query else 1
        return shared or config.num_kv_heads or config.num_attention_heads
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


@pytest.mark.parametrize("name", sorted(published().keys() & sizes().keys()))
def test_a_difference_is_one(name):
    """An entry of DIFFERS that has become needless is an error."""
    fact, config = published()[name], config_of_size(name)
    for field in [field for size, field in DIFFERS if size == name]:
        if field == "parameters":
            assert not close(sizes_of_cards()[name][1].parameters, fact[field])
        else:
            assert str(getattr(config, NAMES[field][0])) != fact[field]


@pytest.mark.row("LM-49", reference="published: tests/data/published_families.csv")
@pytest.mark.parametrize("row", rows("families"), ids=lambda row: "-".join((row["card"], row["field"], row["words"])))
def test_a_family_is_described_as_published(row):
    told = getattr(cards()[row["card"]], row["field"])
    assert row["words"].lower() in (" ".join(told) if isinstance(told, list) else str(told)).lower()


@pytest.mark.parametrize("row", rows("results"), ids=lambda row: "-".join((row["name"], row["benchmark"])))
def test_results_are_those_published(row):
    card, _ = sizes_of_cards()[row["name"]]
    found = [n for n in card.numbers if (n.size, n.benchmark) == (row["name"], row["benchmark"])]
    assert len(found) == 1
    told = found[0].value
    assert told == row["value"] if isinstance(told, str) else told == float(row["value"])


@pytest.mark.parametrize("name", cards())
def test_a_card_says_what_no_source_confirms(name):
    """`unconfirmed` names exactly those facts that tests/data/published_*.csv are silent about."""
    card = cards()[name]
    for size in card.sizes:
        silent = [field for field in OF_A_SIZE if getattr(size, field) is not None and not confirmed(size, field)]
        assert size.unconfirmed == silent, f"{size.name}: write `unconfirmed: [{', '.join(silent)}]`, or look it up"
    looked_up = {(row["name"], row["benchmark"]) for row in rows("results")}
    for result in card.numbers:
        assert result.unconfirmed == ((result.size, result.benchmark) not in looked_up), result.benchmark
    facts = ("data", "license", "context") if card.family in FAMILIES else (*ARCHITECTURE, "data", "license", "context")
    silent = [field for field in facts if getattr(card, field) is not None and not confirmed_of_card(name, field)]
    assert sorted(card.unconfirmed) == sorted(silent), f"write `unconfirmed: [{', '.join(silent)}]`, or look it up"


def confirmed(size, field):
    """Whether a fact of a size is looked up; the parameters of what is built are counted, given its shape."""
    fact = published().get(size.name, {})
    if field == "parameters" and number(size.parameters) is None:
        return True  # words that say that there is no number
    counted = field == "parameters" and size.name in sizes() and fact.get("layers") and fact.get("width")
    return bool(fact.get(field) or counted)


def confirmed_of_card(name, field):
    """Whether a fact of a family is looked up, for itself or with one of its sizes.

    How a family with code here is made is proven by its parity with the reference, and not asked of this.
    """
    if any((row["card"], row["field"]) == (name, field) for row in rows("families")):
        return True
    facts = [published()[size.name] for size in cards()[name].sizes if size.name in published()]
    return field in ("license", "context") and any(fact[field] for fact in facts)


def shown(name, capsys):
    assert main(["models", "show", name]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.row("LM-12", reference="published: GPT-4 Technical Report (OpenAI 2023), sections 1 and 2, table 2")
def test_gpt4_tells_what_is_public_and_what_is_not(capsys):
    card = cards()["gpt4"]
    assert card.withheld == [
        *("architecture", "model size", "hardware", "training compute", "dataset construction", "training method")
    ]
    for silent in ("norm", "residual", "activation", "positions", "attention"):
        assert getattr(card, silent) is None
    assert [number(size.parameters) for size in card.sizes] == [None]
    table_2 = {row["benchmark"] for row in rows("results") if row["name"] == "gpt-4"}
    assert {result.benchmark for result in card.numbers} == table_2
    text = shown("gpt4", capsys)
    for words in (", ".join(card.withheld), "not published", "MMLU, 5-shot gpt-4 86.4", "next token", "images"):
        assert words in text
    assert "withheld" in text


@pytest.mark.row("LM-14", reference="published: Ouyang et al. 2022, sections 1, 3 and 4.1, table 6; the model card")
def test_instructgpt_is_a_pipeline(capsys):
    card = cards()["instructgpt"]
    assert [stage.prompts for stage in card.stages] == [12_725, 33_207, 31_144]
    assert 11_295 + 1_430 == 12_725
    assert 6_623 + 26_584 == 33_207
    assert [size.parameters for size in card.sizes] == ["1.3B", "6B", "175B"]
    assert card.ancestor == "gpt3"
    text = shown("instructgpt", capsys)
    in_order = [
        *("1. supervised fine-tuning (SFT): 12,725 prompts, 11,295 written by labelers and 1,430 by customers",),
        *("16 epochs", "2. reward model (RM): 33,207 prompts, 6,623 written by labelers and 26,584 by customers"),
        *("rank 4 to 9 answers", "The SFT model of 6B", "3. reinforcement learning (PPO): 31,144 prompts"),
        *("less a penalty for each token", "instructgpt-1.3b 1.3B", "instructgpt-6b 6B", "instructgpt-175b 175B"),
        *("instructgpt-175b 85 +- 3", "instructgpt-175b 71 +- 4", "instructgpt-175b 21.0", "72.6 +- 1.5"),
    ]
    places = [text.index(words) for words in in_order]
    assert places == sorted(places)
    assert "About 40 labelers" in text


@pytest.mark.row("LM-30", reference="published: Malartic et al. 2024; the model cards and the file of falcon-11B")
def test_falcon2_and_its_vlm():
    from groundup.models.architecture.counts import parameters_by_part

    card = cards()["falcon2"]
    assert [size.name for size in card.sizes] == ["falcon-2-11b", "falcon-2-11b-vlm"]
    config = config_of_size("falcon-2-11b")
    # every field of the released config.json that shapes the model
    seen = {"hidden_size": 4096, "num_hidden_layers": 60, "num_attention_heads": 32, "num_kv_heads": 8}
    seen |= {"intermediate_size": 16_384, "vocab_size": 65_024, "max_position_embeddings": 8192, "hidden_act": "gelu"}
    seen |= {"new_decoder_architecture": True, "parallel_attn": True, "multi_query": True, "alibi": False}
    seen |= {"bias": False, "num_ln_in_parallel_attn": 1, "tie_word_embeddings": False, "layer_norm_epsilon": 1e-5}
    told = {name: getattr(config, name) for name in seen}
    if told["intermediate_size"] is None:
        told["intermediate_size"] = 4 * config.hidden_size  # its `ff_factor` is 4
    assert told == seen
    assert config.rope_parameters.rope_theta == 500_042.0
    assert sum(parameters_by_part(config).values()) == pytest.approx(11.1e9, rel=0.005)
    vision = next(size for size in card.sizes if size.name == "falcon-2-11b-vlm")
    assert (vision.layers, vision.width, vision.heads, vision.kv_heads) == (60, 4096, 32, 8)
    text = " ".join(card_text(card).split())
    for words in ("CLIP ViT-L/14", "chat-tuned", "dynamic encoding", "TII Falcon License 2.0", "falcon-2-11b-vlm 11B"):
        assert words in text


CATALOGUE_ROWS = {
    "opt": [f"opt-{n}" for n in ("125m", "350m", "1.3b", "2.7b", "6.7b", "13b", "30b", "66b", "175b")],
    "bloom": ["bloom-560m", "bloom-1b1", "bloom-1b7", "bloom-3b", "bloom-7b1", "bloom"],
    "gopher": [f"gopher-{n}" for n in ("44m", "117m", "417m", "1.4b", "7.1b", "280b")],
    "jurassic1": ["j1-large", "j1-jumbo"],
    "palm": ["palm-8b", "palm-62b", "palm-540b"],
    "mt-nlg": ["mt-nlg-530b"],
}


@pytest.mark.row("LM-48", reference="published: tests/data/published_models.csv and published_families.csv")
@pytest.mark.parametrize("name", CATALOGUE_ROWS)
def test_families_of_deepspeed_chat_and_the_closed_ones(name, capsys):
    card = cards()[name]
    assert [size.name for size in card.sizes] == CATALOGUE_ROWS[name]
    built = {size.name for size in card.sizes} & sizes().keys()
    assert bool(built) == (name in ("opt", "bloom"))
    text = card_text(card)
    for size in card.sizes:
        assert size.name in text
        if size.layers is not None:
            assert str(size.layers) in text
    looked_up = {row["field"] for row in rows("families") if row["card"] == name}
    assert "license" in looked_up
    if not built:
        assert card.license in shown(name, capsys)


@pytest.mark.row("LM-49", reference="published: tests/data/published_models.csv and published_families.csv")
def test_list_is_narrowed_by_contexts_sizes_data_and_license(capsys):
    import json

    def families(*flags):
        assert main(["models", "list", *flags, "--json"]) == 0
        return set(json.loads(capsys.readouterr().out)["families"])

    everything = set(cards())
    assert families("--min-context", "1") == {name for name in everything if contexts(cards()[name])}
    long = families("--min-context", "32768")
    assert {"mistral", "mixtral", "qwen"} <= long  # Qwen by its sizes alone
    assert not {"llama2", "palm", "gopher"} & long
    huge = families("--min-parameters", "500B")
    assert {"palm", "mt-nlg", "switch", "deepseek_v3"} <= huge
    assert not {"gopher", "gpt3", "gpt4"} & huge
    between = families("--min-parameters", "60B", "--max-parameters", "66B")
    assert {"llama1", "palm", "opt"} <= between
    assert not {"llama2", "bloom"} & between  # both have smaller and larger ones, and none between
    assert {"falcon", "falcon2"} <= families("--data", "RefinedWeb")
    assert "llama1" not in families("--data", "RefinedWeb")
    assert {"gptj", "mistral", "gpt_oss"} <= families("--license", "apache")
    assert not {"llama2", "palm"} & families("--license", "apache")
    assert main(["models", "list", "--min-parameters", "many"]) == 2
    assert main(["models", "list", "--min-context", "0"]) == 2


@pytest.mark.row("LM-49", reference="published: Table 2 of LLaMA, table of Llama 2's model card")
def test_diff_tells_what_is_published(capsys):
    import json

    assert main(["models", "diff", "llama-7b", "llama-2-7b", "--all", "--json"]) == 0
    told = {row["what"]: (row["a"], row["b"]) for row in json.loads(capsys.readouterr().out)["rows"]}
    a, b = published()["llama-7b"], published()["llama-2-7b"]
    assert told["date"] == (a["date"], b["date"])
    assert told["num_hidden_layers"] == (a["layers"], b["layers"])
    assert told["num_attention_heads"] == (a["heads"], b["heads"])
    assert tuple(value.replace(",", "") for value in told["context"]) == (a["context"], b["context"])
    for fact in ("norm", "activation", "positions", "attention", "data", "context"):
        assert all(value not in ("-", "") for value in told[fact]), fact


def test_what_no_source_confirms_is_marked():
    text = " ".join(card_text(cards()["gemma2"]).split())
    assert "9.2B 8T" in text
    assert "71.3 (?)" in text
    assert "(?) no source confirms it so far" in text
    assert "(?)" not in card_text(cards()["llama2"])
