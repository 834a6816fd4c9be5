"""A GPT-3 is used by examples in its prompt: it gives answers that its weights do not hold."""

import json
import random

import pytest

from groundup.cli import main
from small_gpt3 import trained

LETTERS = "abcdefghijklmnop"


def documents(count: int, pairs: int):
    """Texts of questions that all have one answer: which one, only the text tells."""
    draw = random.Random(0)
    for _ in range(count):
        answer = draw.choice(LETTERS)
        yield "\n\n".join(f"{draw.choice(LETTERS)}> {answer}" for _ in range(pairs))


def questions(answer: str):
    """Every letter, with that answer."""
    return [{"context": f"{letter}>", "answer": answer} for letter in LETTERS]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a GPT-3 that has read 6,000 such texts."""
    folder = tmp_path_factory.mktemp("in_context")
    # ten questions and the end of a text are 59 characters: each row of a batch is one text
    return trained(folder, documents(6000, 10), context=59, positions=64, window=32, steps=500)


@pytest.mark.slow
@pytest.mark.row("LM-11", reference="the same model without examples")
def test_examples_in_the_prompt_tell_the_answer(model, tmp_path, capsys):
    """Without examples an answer is one of sixteen; examples tell it (Brown et al. 2020, figure 1.2). No weight
    changes.
    """
    files = []
    for answer in LETTERS[::2]:
        files.append(tmp_path / f"{answer}.jsonl")
        files[-1].write_text("\n".join(json.dumps(question) for question in questions(answer)))
    accuracy = {}
    for shots in (0, 1, 4):
        capsys.readouterr()
        words = ["evaluate", str(model), *map(str, files), "--shots", str(shots), "--json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        scores = [score["value"] for score in report["scores"] if score["metric"] == "accuracy"]
        accuracy[shots] = sum(scores) / len(scores)
    assert accuracy[0] < 0.2
    assert accuracy[1] > 0.5
    assert accuracy[4] > 0.9
