"""The command line as torchrun starts it: a rank ends with the code of what it did."""

import json
import os
import subprocess
import sys

import pytest

from groundup.training.run import Run

RECIPE = {
    "model": {"model_type": "gpt2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "tokenizer": {"kind": "characters", "special_tokens": ["<|endoftext|>"]},
    "data": {"context_length": 16, "split": {"method": "tail", "validation": 0.2}},
    "training": {"steps": 3, "batch_size": 4, "evaluate_every": 3, "checkpoint_every": 3, "peak_flops": 1e9},
    "evaluate_batches": 1,
    "sample_tokens": 4,
}
RANK = """
import atexit, os, sys
atexit.register(os._exit, 9)  # the interpreter's own way out, which a rank does not take
from groundup import cli
{before}
sys.exit(cli.main())
"""


def as_rank(*words, before="", size="2"):
    code = RANK.format(before=before)
    environment = os.environ | {"WORLD_SIZE": size}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_rank_leaves_with_its_code_and_all_it_said():
    code, out, _ = as_rank("--version")
    assert code == 0
    assert out.startswith("groundup ")
    code, _, err = as_rank("nothing-like-it")
    assert code == 2
    assert "is not a command" in err
    assert as_rank("--version", size="1")[0] == 9


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [("SystemExit(143)", 143, ""), ("SystemExit('no')", 1, "no"), ("RuntimeError('why')", 1, "RuntimeError: why")],
)
def test_what_a_command_raises_becomes_the_code(raised, code, said):
    before = f"def fail(words): raise {raised}\ncli._run = fail"
    found, _, err = as_rank("train", before=before)
    assert found == code
    assert said in err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_torchrun_calls_a_finished_training_finished(tmp_path):
    """Several times, because the SIGABRT that this guards against came to about one run in five."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran. " * 60)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE | {"data": {**RECIPE["data"], "source": [str(text)]}}))
    for number in range(6):
        out = tmp_path / f"run-{number}"
        words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "groundup", "train"]
        done = subprocess.run(
            [sys.executable, "-m", *words, str(recipe), "--out-dir", str(out), "--device", "cpu", "--threads", "1"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert Run(out).summary()["state"] == "finished"
