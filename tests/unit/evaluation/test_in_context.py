"""A GPT-3 is used by examples in its prompt: it meets a rule that its weights do not hold, and follows it."""

import json
import random

import pytest

from groundup.cli import main

LETTERS = "abcdefghijklmnop"
RULES = range(1, 9)


def pair(letter: str, rule: int) -> str:
    """A letter, and the one that stands `rule` places behind it."""
    return f"{letter}>{LETTERS[(LETTERS.index(letter) + rule) % len(LETTERS)]}"


def documents(count: int, pairs: int):
    """Texts that follow one rule each: which one, only their pairs tell."""
    draw = random.Random(0)
    for _ in range(count):
        rule = draw.choice(RULES)
        yield "\n\n".join(pair(draw.choice(LETTERS), rule) for _ in range(pairs))


def questions(rule: int):
    """Every letter under one rule, to be answered with one of all letters."""
    for letter in LETTERS:
        context, answer = pair(letter, rule).split(">")
        yield {"context": context + ">\n"[:1], "choices": list(LETTERS), "answer": answer}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GPT-3 of 0.2 million parameters that has read 6,000 such texts."""
    folder = tmp_path_factory.mktemp("in_context")
    lines = (json.dumps({"text": text}) for text in documents(6000, 12))
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
    """Without examples the rule can only be guessed, one in eight; each example must help, as in figure 1.2 of Brown
    et al. (2020), and no weight changes.
    """
    files = []
    for rule in RULES:
        files.append(model / f"rule{rule}.jsonl")
        files[-1].write_text("\n".join(json.dumps(question) for question in questions(rule)))
    accuracy = {}
    for shots in (0, 1, 4):
        capsys.readouterr()
        words = ["evaluate", str(model / "run" / "final"), *map(str, files), "--shots", str(shots), "--json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        scores = [one["scores"]["accuracy_unnormalized"]["mean"] for one in report["results"]]
        accuracy[shots] = sum(scores) / len(scores)
    assert accuracy[0] < 0.3
    assert accuracy[1] > accuracy[0] + 0.4
    assert accuracy[4] > 0.9
