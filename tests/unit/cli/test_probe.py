"""`groundup probe`: labels of texts, from the command line."""

import csv
import json
import random

import pytest

from groundup.cli import main
from groundup.data.builtin.stories import StoriesConfig, documents
from groundup.data.builtin.stories.items import Mix


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """150 texts of the built-in corpus, stories and sums, labelled as such."""
    mixes = {"story": Mix(story=1, qa=0, instruction=0, arithmetic=0, preference=0)}
    mixes["sum"] = Mix(story=0, qa=0, instruction=0, arithmetic=1, preference=0)
    rows = [
        {"words": document.text, "kind": kind}
        for kind, mix in mixes.items()
        for document in documents(StoriesConfig(split="train", seed=1, documents=75, mix=mix))
    ]
    file = tmp_path_factory.mktemp("texts") / "kinds.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def probe(file, *more):
    return main(["probe", "tiny", str(file), "--text", "words", "--label", "kind", "--longest", "32", *more])


@pytest.mark.row("PEFT-02", reference="the share of the most frequent label")
@pytest.mark.parametrize("more", [[], ["--hidden", "16", "--pooling", "last"]])
def test_layers_tell_stories_from_sums(kinds, more, capsys):
    assert probe(kinds, "--json", "--steps", "60", *more) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == ["story", "sum"]
    assert (told["texts"], told["judged"]) == (120, 30)
    assert told["most_frequent"] < 0.7
    assert next(iter(told["layers"])) == "embed"
    assert max(told["layers"].values()) > 0.9


def test_labels_that_are_chance_are_not_learnt(kinds, tmp_path, capsys):
    rows = [json.loads(line) for line in kinds.read_text().splitlines()]
    file = tmp_path / "chance.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["words", "kind"])
        writer.writeheader()
        chance = random.Random(0)
        writer.writerows({**row, "kind": chance.randint(0, 1)} for row in rows)
    assert probe(file, "--json", "--layers", "blocks.1", "--steps", "20") == 0
    assert json.loads(capsys.readouterr().out)["layers"]["blocks.1"] < 0.85


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        ('{"word": "a", "kind": 1}\n', [], ["no `words`", "Did you mean `word`", "--text"]),
        ('{"words": "a", "kind": 1}\n{"words": "b"}\n', [], [":2 has no `kind`"]),
        ('{"words": "a", "kind": 1}\n{"words": "b", "kind": 1}\n', [], ["all 2 texts have the label '1'"]),
        ('{"words": "a", "kind": 1}\n', [], ["holds 1 texts"]),
        ('{"words": "a", "kind": 1}\n{"words": "b", "kind": 2}\n', ["--layers", "block.1"], ["no module block.1"]),
    ],
)
def test_what_does_not_fit_is_told(content, more, words, tmp_path, capsys):
    file = tmp_path / "texts.jsonl"
    file.write_text(content)
    assert probe(file, *more) == (2 if more else 3)
    told = capsys.readouterr().err
    assert all(word in told for word in words)


def test_a_file_that_is_none_of_records(tmp_path, capsys):
    assert probe(tmp_path / "absent.jsonl") == 3
    assert "no file at" in capsys.readouterr().err
    (tmp_path / "plain.txt").write_text("a text")
    assert probe(tmp_path / "plain.txt") == 3
    assert ".jsonl" in capsys.readouterr().err
