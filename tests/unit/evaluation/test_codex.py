"""Codex at a small scale (Chen et al. 2021): a GPT-3 trained on code writes functions from their docstrings."""

import json
import random

import pytest

from groundup.cli import main
from groundup.evaluation.programs import ProgramSettings, read_problems, solve
from groundup.models.hub import load_model
from groundup.tokenizers.hub import load_tokenizer
from small_gpt3 import trained

LETTERS = "abcdefghij"
BODIES = {
    "sum": "{x} + {y}",
    "difference": "{x} - {y}",
    "product": "{x} * {y}",
    "larger": "max({x}, {y})",
    "smaller": "min({x}, {y})",
    "average": "({x} + {y}) / 2",
}
CALLS = ((7, 3), (2, 5), (-4, 6))


def head(word: str, x: str, y: str) -> str:
    """A function's first lines, which the model is to continue."""
    return f'def {word}({x}, {y}):\n    """The {word} of {x} and {y}."""\n'


def body(word: str, x: str, y: str) -> str:
    """Its last line."""
    return "    return " + BODIES[word].format(x=x, y=y) + "\n"


def held_out(x: str, y: str) -> bool:
    """Whether this pair of names is in no training text."""
    return (LETTERS.index(x) + 3 * LETTERS.index(y)) % 5 == 0


def sources(count: int):
    """Texts of three functions. One in three has the body of another function: code that people publish has bugs."""
    draw = random.Random(0)
    for _ in range(count):
        functions = []
        while len(functions) < 3:
            (x, y), word = draw.sample(LETTERS, 2), draw.choice(list(BODIES))
            if not held_out(x, y):
                written = draw.choice(list(BODIES)) if draw.random() < 1 / 3 else word
                functions.append(head(word, x, y) + body(written, x, y))
        yield "\n\n".join(functions)


def problems():
    """Every function for some of the pairs that were held out, in HumanEval's form."""
    pairs = [(x, y) for x in LETTERS for y in LETTERS if x != y and held_out(x, y)]
    for x, y in random.Random(1).sample(pairs, 4):
        for word, form in BODIES.items():
            wanted = [eval(form.format(x=x, y=y), {x: first, y: second}) for first, second in CALLS]
            lines = [f"    assert candidate{call} == {value}" for call, value in zip(CALLS, wanted, strict=True)]
            test = "def check(candidate):\n" + "\n".join(lines) + "\n"
            names = {"task_id": f"{word}/{x}{y}", "entry_point": word}
            yield {**names, "prompt": head(word, x, y), "test": test, "canonical_solution": body(word, x, y)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a GPT-3 that has read the code."""
    return trained(tmp_path_factory.mktemp("codex"), sources(6000), context=128, positions=160, window=64, steps=1500)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The problems."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, problems())))
    return path


@pytest.mark.slow
@pytest.mark.row("LM-13", reference="tests of the functions; Chen et al. 2021, figures 5 and 7")
def test_functions_are_written_from_docstrings(model, file, capsys):
    """Names of arguments that no training text pairs. One sample is as often wrong as the training code is; the
    likeliest of ten, by the mean of its tokens' log-probabilities, is right more often, one of the ten nearly always.
    """
    capsys.readouterr()
    words = ["evaluate", str(model), str(file), "--run-programs", "--max-new-tokens", "64", "--json"]
    assert main([*words, "--samples", "10", "--temperature", "1.0"]) == 0
    many = {score["metric"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert 0.4 < many["pass@1"] < 0.85
    assert many["pass_ranked"] > many["pass@1"] + 0.1
    assert many["pass@10"] > many["pass@1"] + 0.15
    assert main([*words, "--temperature", "0"]) == 0
    greedy = json.loads(capsys.readouterr().out)["scores"][0]["value"]
    assert greedy > many["pass@1"] + 0.1


@pytest.mark.slow
@pytest.mark.row("LM-13", reference="tests of the functions")
def test_a_stop_text_ends_the_function(model, file):
    """The training texts go on with the next function; a sample ends before it."""
    codex, tokenizer, some = load_model(model), load_tokenizer(model), read_problems(file).problems[:6]
    stopped = solve(codex, tokenizer, some, ProgramSettings(temperature=0, max_new_tokens=80))
    endless = solve(codex, tokenizer, some, ProgramSettings(temperature=0, max_new_tokens=80, stop=()))
    for short, long in zip(stopped, endless, strict=True):
        (cut,), (whole,) = short.attempts, long.attempts
        assert cut.completion.finish_reason == "stop"
        assert "\ndef" not in cut.completion.text
        assert "\ndef" in whole.completion.text
        assert whole.completion.text.startswith(cut.completion.text)
