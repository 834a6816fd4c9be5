"""Every recipe in recipes/ is valid, and its model can be built."""

from pathlib import Path

import pytest
import torch
import yaml

from groundup.commands.parse import parse
from groundup.commands.train import Train
from groundup.models.catalogue import model_class

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes").rglob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_there_are_recipes():
    assert {"shakespeare_char_cpu", "tiny"} <= {path.stem for path in RECIPES}


@every_recipe
def test_a_recipe_parses_and_says_what_the_command_then_does(path):
    """Through the command line's own parser: every key of the file arrives, as it is, in the settings."""
    command = parse(Train, "train", [str(path)])
    settings = command.resolved().model_dump(mode="json")

    def check(given, found, where):
        for key, value in given.items():
            assert key in found, f"{where}.{key}"
            if isinstance(value, dict):
                check(value, found[key], f"{where}.{key}")
            else:
                assert found[key] == value, f"{where}.{key}"

    check(yaml.safe_load(path.read_text(encoding="utf-8")), settings, path.stem)


@every_recipe
def test_the_model_of_a_recipe_can_be_built(path):
    config = parse(Train, "train", [str(path)]).model
    with torch.device("meta"):
        assert model_class(config)(config).num_parameters() > 100_000 or config.counted  # counts come with the text


@every_recipe
def test_a_recipe_that_is_misspelt_is_refused(path, tmp_path):
    from groundup.base.errors import UsageError

    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(path.read_text(encoding="utf-8").replace("  steps:", "  stepz:"), encoding="utf-8")
    with pytest.raises(UsageError, match="stepz"):
        parse(Train, "train", [str(wrong)])
