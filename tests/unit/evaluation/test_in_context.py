"""A GPT-3 is used by examples in its prompt: it gives answers that its weights do not hold."""

import json
import random

import pytest

from groundup.cli import main

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
    """A GPT-3 of 0.2 million parameters that has read 6,000 such texts."""
    folder = tmp_path_factory.mktemp("in_context")
    lines = (json.dumps({"text": text}) for text in documents(6000, 10))
    (folder / "rules.jsonl").write_text("\n".join(lines))
    recipe = {
        "model": {
            **{"model_type": "gpt3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"head_dim": 16, "max_position_embeddings": 64, "window_size": 32},
        },
        "tokenizer": {"kind": "characters", "special_tokens": ["<|endoftext|>"]},
        # ten questions and the end of a text are 59 characters: each row of a batch is one text
        "data": {"source": [str(folder / "rules.jsonl")], "context_length": 59},
        "training": {
            **{"steps": 500, "batch_size": 16, "optimizer": {"kind": "adamw", "lr": 3e-3, "betas": [0.9, 0.95]}},
            **{"schedule": {"kind": "cosine", "warmup_steps": 50}, "clip": 1.0, "seed": 0},
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["train", str(folder / "recipe.yaml"), "--out-dir", str(folder / "run")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.row("LM-11", reference="the same model without examples")
def test_examples_in_the_prompt_tell_the_answer(model, capsys):
    """Without examples an answer is one of sixteen; examples tell it (Brown et al. 2020, figure 1.2). No weight
    changes.
    """
    files = []
    for answer in LETTERS[::2]:
        files.append(model / f"{answer}.jsonl")
        files[-1].write_text("\n".join(json.dumps(question) for question in questions(answer)))
    accuracy = {}
    for shots in (0, 1, 4):
        capsys.readouterr()
        words = ["evaluate", str(model / "run" / "final"), *map(str, files), "--shots", str(shots), "--json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        scores = [score["value"] for score in report["scores"] if score["metric"] == "accuracy"]
        accuracy[shots] = sum(scores) / len(scores)
    assert accuracy[0] < 0.2
    assert accuracy[1] > 0.5
    assert accuracy[4] > 0.9
