"""A GPT-3 is used by examples in its prompt: it meets a rule that its weights do not hold, and follows it."""

import json
import random

import pytest

from groundup.cli import main

LETTERS = "abcdefghijklmnop"
Rule = tuple[str, str]


def pair(letter: str, rule: Rule) -> str:
    """A letter, and the answer for its half of the alphabet."""
    return f"{letter}> {rule[LETTERS.index(letter) // 8]}"


def rules(count: int, seed: int) -> list[Rule]:
    """Two letters each, any of them."""
    draw = random.Random(seed)
    return [(draw.choice(LETTERS), draw.choice(LETTERS)) for _ in range(count)]


def documents(count: int, pairs: int):
    """Texts that follow one rule each: which one, only their pairs tell."""
    draw = random.Random(0)
    for rule in rules(count, seed=1):
        yield "\n\n".join(pair(draw.choice(LETTERS), rule) for _ in range(pairs))


def questions(rule: Rule):
    """Every letter under one rule, to be answered with one of all letters; as text, as it was read."""
    for letter in LETTERS:
        yield {"context": f"{letter}>", "answer": pair(letter, rule)[-1]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GPT-3 of 0.2 million parameters that has read 6,000 such texts."""
    folder = tmp_path_factory.mktemp("in_context")
    lines = (json.dumps({"text": text}) for text in documents(6000, 10))
    (folder / "rules.jsonl").write_text("\n".join(lines))
    recipe = {
        "model": {
            **{"model_type": "gpt3", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4},
            **{"head_dim": 16, "max_position_embeddings": 64, "window_size": 32},
        },
        "tokenizer": {"kind": "characters", "special_tokens": ["<|endoftext|>"]},
        "data": {"source": [str(folder / "rules.jsonl")], "context_length": 64},
        "training": {
            **{"steps": 700, "batch_size": 24, "optimizer": {"kind": "adamw", "lr": 3e-3, "betas": [0.9, 0.95]}},
            **{"schedule": {"kind": "cosine", "warmup_steps": 50}, "clip": 1.0, "seed": 0},
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["train", str(folder / "recipe.yaml"), "--out-dir", str(folder / "run")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.row("LM-11", reference="the same model without examples")
def test_examples_in_the_prompt_tell_the_rule(model, capsys):
    """Without examples an answer is one of sixteen; one example tells it for half of the letters, four nearly always
    for all (Brown et al. 2020, figure 1.2). No weight changes.
    """
    files = []
    for i, rule in enumerate(rules(8, seed=2)):
        files.append(model / f"rule{i}.jsonl")
        files[-1].write_text("\n".join(json.dumps(question) for question in questions(rule)))
    accuracy = {}
    for shots in (0, 1, 4):
        capsys.readouterr()
        words = ["evaluate", str(model / "run" / "final"), *map(str, files), "--shots", str(shots), "--json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        scores = [score["value"] for score in report["scores"] if score["metric"] == "accuracy"]
        accuracy[shots] = sum(scores) / len(scores)
    assert accuracy[0] < 0.2
    assert accuracy[0] + 0.25 < accuracy[1] < 0.75
    assert accuracy[4] > 0.8
