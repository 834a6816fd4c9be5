"""recipes/shakespeare: architectures of equal size on one text, and what the pages docs/recipes.md and rwkv.md say."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from groundup.cli import main
from groundup.commands.parse import parse
from groundup.commands.train import PlannedTokenizer, Train
from groundup.estimates.params import active_parameters, count_parameters
from groundup.models.catalogue import model_class
from groundup.training.run import Run

ROOT = Path(__file__).parents[3]
FILES = {path.stem: path for path in sorted((ROOT / "recipes/shakespeare").glob("*.yaml"))}
every_recipe = pytest.mark.parametrize("name", FILES)
EQUAL = [name for name in FILES if name != "mixtral_active"]
BUDGET = 809_984
"""Parameters of GPT-2 at 4 layers of 128, which all are held to."""
VOCABULARY = 66
"""65 characters, and the end of a text."""

# The three guides: their headings in docs/recipes.md, and their recipes.
GUIDES = {"Llama": "llama", "ChatGLM": "glm", "RWKV": "rwkv7"}
every_guide = pytest.mark.parametrize(
    ("title", "name"),
    [pytest.param(*guide, marks=pytest.mark.row("LM-54", reference="the command line")) for guide in GUIDES.items()],
)
RECIPES_PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
RWKV_PAGE = (ROOT / "docs/rwkv.md").read_text(encoding="utf-8")


def settings_of(name):
    return parse(Train, "train", [str(FILES[name])])


def config_of(name):
    """The shape that the command builds for this text."""
    return settings_of(name).model_config_for(PlannedTokenizer(VOCABULARY))


def rows_of(page, columns):
    """The lines of a page's tables that have so many cells and begin with the name of a recipe."""
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in page.splitlines()]
    return {row[0]: row for row in cells if len(row) == columns and row[0] in FILES}


def train(name, out, shared, *flags):
    """`groundup train` as typed, on the real text; the run."""
    words = ["train", str(FILES[name]), "--data.source", str(shared / "data/tinyshakespeare.txt"), "--threads", "1"]
    assert main([*words, "--out-dir", str(out), *flags]) == 0
    return Run(out)


# -- equal work for all ------------------------------------------------------------------------------------------------


@every_recipe
def test_only_the_model_differs(name):
    def rest(path):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: value for key, value in values.items() if key not in ("model", "expected")}

    assert rest(FILES[name]) == rest(FILES["llama"])


@pytest.mark.parametrize("name", EQUAL)
def test_equal_parameters(name):
    config = config_of(name)
    with torch.device("meta"):
        built = model_class(config)(config).num_parameters()
    assert abs(built / BUDGET - 1) < 0.02
    assert count_parameters(config) == built


def test_the_other_mixtral_has_equal_active_parameters():
    config = config_of("mixtral_active")
    assert abs(active_parameters(config) / BUDGET - 1) < 0.02
    assert count_parameters(config) > 2.5 * BUDGET


@every_recipe
def test_shapes_differ_only_where_they_must(name):
    config = config_of(name)
    assert (config.hidden_size, config.num_hidden_layers) == (128, 4)
    assert config.num_attention_heads == 4 or name == "rwkv4"  # which has no heads


@pytest.mark.parametrize("name", ["llama", "mixtral", "glm", "rwkv7"])
def test_the_band_is_for_the_length_of_the_recipe(name):
    settings = settings_of(name)
    assert settings.expected is not None
    assert settings.expected.steps == settings.training.steps
    low, high = settings.expected.validation_loss
    assert 0 < high - low < 0.25  # wider than that would tell nothing


# -- what the pages tell -----------------------------------------------------------------------------------------------


def test_the_page_has_every_recipe():
    assert set(rows_of(RECIPES_PAGE, 9)) == set(FILES)


@every_recipe
def test_the_table_holds_the_sizes_and_bands_of_the_recipes(name):
    _, _, total, active, _, _, _, loss, band = rows_of(RECIPES_PAGE, 9)[name]
    config, expected = config_of(name), settings_of(name).expected
    assert (total, active) == (f"{count_parameters(config):,}", f"{active_parameters(config):,}")
    assert band == (expected.told() if expected else "-")
    if expected:
        low, high = expected.validation_loss
        assert low <= float(loss.split()[0]) <= high


@pytest.mark.row("LM-42", reference="the models themselves")
@pytest.mark.parametrize("name", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
def test_the_report_of_versions_holds_their_sizes_and_states(name):
    _, _, total, state, _, loss, _ = rows_of(RWKV_PAGE, 7)[name]
    config = config_of(name)
    model = model_class(config).build(config)
    memory = model.make_state(1, 64)
    with torch.no_grad():
        model(torch.zeros(1, 64, dtype=torch.long), state=memory)
    assert total == f"{model.num_parameters():,}"
    assert state == f"{memory.nbytes:,}"
    assert loss == rows_of(RECIPES_PAGE, 9)[name][7]


@every_guide
def test_a_guide_names_configuration_recipe_and_core_code(title, name):
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", RECIPES_PAGE, re.M | re.S)
    assert section is not None
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", section[1])}
    config = config_of(name)
    for thing in (type(config), model_class(config)):
        assert Path(inspect.getfile(thing)).relative_to(ROOT / "src") in {
            path.relative_to(ROOT / "src") for path in linked if path.is_relative_to(ROOT / "src")
        }
    assert FILES[name] in linked


# -- trained -----------------------------------------------------------------------------------------------------------


@every_guide
def test_a_guides_recipe_trains_by_the_command_line(title, name, shared, tmp_path, capsys):
    flags = ["--training.steps", "12", "--training.schedule.warmup-steps", "4", "--evaluate-batches", "1"]
    run = train(name, tmp_path / "run", shared, *flags, "--json")
    losses = [event["loss"] for event in run.metrics("train")]
    assert len(losses) == 12
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.5
    assert run.metrics("evaluate")[-1]["loss"] < run.metrics("evaluate")[0]["loss"] - 0.5
    assert json.loads(capsys.readouterr().out)["verdict"] is None  # the band is for the whole length

    assert main(["runs", "compare", str(run.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["runs"][0]
    assert abs(facts["parameters"] / BUDGET - 1) < 0.02
    assert facts["tokens"] == 12 * 12 * 64
    assert facts["memory"] > 4 * facts["parameters"]


@pytest.mark.slow
@every_guide
def test_a_guides_recipe_ends_in_its_band(title, name, shared, tmp_path, capsys):
    """At full length and with another seed than those that the band was measured with."""
    run = train(name, tmp_path / "run", shared, "--seed", "7", "--data.seed", "7")
    assert run.summary()["verdict"] == "within"
    assert "within the expected" in capsys.readouterr().out
