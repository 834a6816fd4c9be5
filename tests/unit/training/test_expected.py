"""A recipe that names the loss it ends at: `groundup train` says whether it did."""

import json

import pytest

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.training.expected import Expected
from groundup.training.run import Run

RECIPE = """
model: {model_type: gpt2, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2}
tokenizer: {kind: characters, special_tokens: ["<|endoftext|>"]}
data: {source: ["TEXT"], context_length: 8, split: {method: tail, validation: 0.2}}
training: {steps: 2, batch_size: 2}
expected: {steps: 2, validation_loss: [LOW, HIGH]}
evaluate_batches: 1
prompts: []
"""


@pytest.fixture
def train(tmp_path, capsys):
    """Run the recipe with a band; what it said, and its summary."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 20)

    def run(low, high, *flags):
        recipe = RECIPE.replace("TEXT", str(tmp_path / "text.txt")).replace("LOW", str(low)).replace("HIGH", str(high))
        (tmp_path / "recipe.yaml").write_text(recipe)
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        words = ["train", str(tmp_path / "recipe.yaml"), "--out-dir", str(out), "--threads", "1", "--json", *flags]
        assert main(words) == 0
        captured = capsys.readouterr()
        return captured.err, json.loads(captured.out)

    return run


@pytest.mark.parametrize(
    ("low", "high", "verdict", "said"),
    [
        (0, 100, "within", "within the expected 0 to 100"),
        (50, 100, "below", "NOT as expected, below 50 to 100"),
        (0, 0.001, "above", "NOT as expected, above 0 to 0.001"),
    ],
)
def test_the_command_says_where_the_loss_lies(train, low, high, verdict, said):
    told, summary = train(low, high)
    assert summary["verdict"] == verdict
    assert summary["expected"] == [low, high]
    assert f"validation loss {summary['validation_loss']:.3f}: {said}\n" in told
    assert Run(summary["path"]).config["expected"] == {"steps": 2, "validation_loss": [low, high]}


def test_another_length_is_not_judged(train):
    told, summary = train(0, 100, "--training.steps", "3")
    assert summary["verdict"] is None
    assert "after 3 steps: the expected 0 to 100 is for 2 steps" in told


def test_a_flag_lays_another_band_over_the_recipe(train):
    _, summary = train(0, 100, "--expected.validation-loss", "60,70")
    assert (summary["expected"], summary["verdict"]) == ([60, 70], "below")


def test_the_ends_of_the_band_belong_to_it():
    band = Expected(steps=5, validation_loss=(1.5, 1.6))
    losses = [1.499, 1.5, 1.55, 1.6, 1.601, float("nan"), "nan", None]
    verdicts = ["below", "within", "within", "within", "above", "above", "above", None]
    assert [band.verdict(5, loss) for loss in losses] == verdicts
    assert band.verdict(4, 1.55) is None


@pytest.mark.parametrize("band", [[1.6, 1.5], [1.5], [float("nan"), 2.0]])
def test_a_band_that_is_none_is_refused(band):
    with pytest.raises(UsageError, match="validation_loss"):
        Expected.parse({"steps": 1, "validation_loss": band})


def test_a_run_without_a_band_or_end_has_no_verdict(tmp_path):
    run = Run(tmp_path)
    assert (run.summary()["expected"], run.summary()["verdict"]) == (None, None)
    run.config_path.write_text("expected: {steps: 1, validation_loss: [1, 2]}")
    for event in ("train", "evaluate"):
        run.append({"step": 1, "event": event, "time": 1.0, "loss": 1.5})
    assert run.summary()["verdict"] is None  # it may go on
    run.append({"step": 1, "event": "stop", "time": 2.0, "reason": "finished"})
    assert run.summary()["verdict"] == "within"
