import json
import math

import pytest

from groundup.base.errors import DataError, UsageError
from groundup.evaluation.harness import evaluate
from groundup.evaluation.likelihood import Likelihood, loglikelihood
from groundup.evaluation.metrics.answers import accuracy, exact_match, f1
from groundup.evaluation.multiple_choice import choice_scores, predictions
from groundup.evaluation.task import Cloze, ItemTask, MultipleChoice, TextTask, with_shots
from groundup.evaluation.tasks import load_task
from groundup.evaluation.tasks.files import question_file, text_file
from standin import Bytes, Decay

ITEMS = [MultipleChoice(f"Question {i}:", (" yes", " no", " perhaps not"), i % 3) for i in range(12)]


def likely(logprob, tokens):
    return Likelihood(logprob, False, tokens, 1)


@pytest.mark.row("EVAL-02", reference="hand calculation")
def test_three_rules_by_hand():
    given = [likely(-4.0, 1), likely(-6.0, 3), likely(-5.0, 2)]
    neutral = [likely(-3.0, 1), likely(-9.0, 3), likely(-9.5, 2)]
    assert choice_scores("unnormalized", given, neutral) == [-4.0, -6.0, -5.0]
    assert choice_scores("per_token", given, neutral) == [-4.0, -2.0, -2.5]
    assert choice_scores("frequency", given, neutral) == [-1.0, 3.0, 4.5]
    assert predictions(given, neutral) == {"unnormalized": 0, "per_token": 1, "frequency": 2}
    scores = MultipleChoice("", ("a", "b", "c"), 1).score([*given, *neutral])
    assert scores == {"accuracy_unnormalized": 0, "accuracy_per_token": 1, "accuracy_frequency": 0}


def test_scores_and_fingerprints():
    model, tokenizer = Decay(), Bytes()
    report = evaluate(model, tokenizer, [ItemTask("quiz", ITEMS)], seed=3)
    score = report["quiz", "accuracy_frequency"]
    right = []
    for item in ITEMS:
        given = [loglikelihood(model, tokenizer, [(item.context, c)])[0].logprob for c in item.choices]
        neutral = [loglikelihood(model, tokenizer, [("Answer:", c)])[0].logprob for c in item.choices]
        gain = [a - b for a, b in zip(given, neutral, strict=True)]
        right.append(float(gain.index(max(gain)) == item.answer))
    assert score.value == pytest.approx(sum(right) / 12)
    assert score.stderr == pytest.approx(math.sqrt(score.value * (1 - score.value) / 11))
    assert (score.items, score.shots, score.seed, score.version, score.tokenizer) == (12, 0, 3, 1, "bytes")

    again = evaluate(model, tokenizer, [ItemTask("quiz", ITEMS)], seed=3, batch_size=5)
    assert [s.fingerprint for s in again.scores] == [s.fingerprint for s in report.scores]
    assert [s.value for s in again.scores] == [s.value for s in report.scores]
    assert len({s.fingerprint for s in report.scores}) == 3  # the scoring rule counts
    changes = [
        evaluate(model, tokenizer, [ItemTask("quiz", ITEMS)], seed=3, shots=2),
        evaluate(model, tokenizer, [ItemTask("quiz", ITEMS)], seed=3, limit=5),
        evaluate(model, tokenizer, [ItemTask("quiz", ITEMS)], seed=4),
        evaluate(model, tokenizer, [ItemTask("quiz", ITEMS, version=2)], seed=3),
        evaluate(model, tokenizer, [ItemTask("other", ITEMS)], seed=3),
        evaluate(model, tokenizer, [ItemTask("quiz", [ITEMS[0].after("!"), *ITEMS[1:]])], seed=3),
    ]
    assert len({r.scores[0].fingerprint for r in [report, *changes]}) == 7


def test_cloze_and_texts(tmp_path):
    report = evaluate(
        Decay(), Bytes(), [ItemTask("cloze", [Cloze("a", "b"), Cloze("c", "d")]), TextTask("text", ["one", "two"])]
    )
    assert {(s.task, s.metric) for s in report.scores} == {
        ("cloze", "accuracy"), ("cloze", "loss"), ("text", "bits_per_byte"), ("text", "perplexity"),
    }  # fmt: skip
    report.save(tmp_path / "deep" / "report.json")
    saved = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert saved == report.as_dict()
    assert saved["scores"][-1]["stderr"] == "nan"  # JSON has no NaN
    assert all(score["fingerprint"] for score in saved["scores"])
    assert "bits_per_byte" in report.table()


def test_shots_come_from_other_items():
    task = with_shots(ItemTask("quiz", ITEMS), 3, seed=0)
    for i in range(len(task)):
        context = task.item(i).context
        assert context.count("Question") == 4
        assert context.count(f"Question {i}:") == 1
        assert context.endswith(ITEMS[i].context)
        for block in context.split("\n\n")[:-1]:
            assert block in {item.example() for item in ITEMS}
    assert with_shots(ItemTask("quiz", ITEMS), 3, seed=1).item(0) != task.item(0)
    with pytest.raises(UsageError):
        with_shots(ItemTask("quiz", ITEMS), 12, seed=0)


@pytest.mark.parametrize(("prediction", "answers", "em", "score"), [
    ("The Paris!", "paris", 1, 1), ("a b c d", "b d e", 0, 4 / 6), ("", "", 1, 1), ("", "x", 0, 0),
    ("new york city", ["boston", "New York"], 0, 0.8),
])  # fmt: skip
def test_answers(prediction, answers, em, score):
    assert exact_match(prediction, answers) == em
    assert f1(prediction, answers) == pytest.approx(score)


def test_accuracy():
    found = accuracy([1, 2, 3, 4], [1, 2, 3, 5])
    assert found.value == 0.75
    assert found.stderr == pytest.approx(0.25)


def test_question_files(tmp_path):
    path = tmp_path / "quiz.jsonl"
    lines = [
        {"context": "The sky is", "choices": ["blue", "square"], "answer": "blue"},
        {"question": "Capital of France?", "choices": ["Rome", "Paris"], "answer": 1},
        {"context": "Roses are", "answer": "red"},
    ]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert load_task(str(path)).items == [
        MultipleChoice("The sky is", (" blue", " square"), 0),
        MultipleChoice("Question: Capital of France?\nAnswer:", (" Rome", " Paris"), 1),
        Cloze("Roses are", " red"),
    ]


@pytest.mark.parametrize("line", [
    "{", "[1]", "{}", '{"context": "a"}', '{"context": "a", "choices": ["b"], "answer": 0}',
    '{"context": "a", "choices": ["b", "c"], "answer": 2}', '{"context": "a", "choices": ["b", "c"], "answer": true}',
    '{"context": "a", "choices": ["b", ""], "answer": 0}', "[" * 100_000,
])  # fmt: skip
def test_wrong_questions_are_named_by_line(tmp_path, line):
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"context": "a", "answer": "b"}\n' + line)
    with pytest.raises(DataError, match=r"quiz\.jsonl:2"):
        question_file(path)


def test_text_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    assert text_file(tmp_path).texts == ["one", "two"]
    assert load_task(str(tmp_path / "a.txt")).texts == ["one"]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8"):
        text_file(tmp_path)
    with pytest.raises(UsageError, match="neither"):
        load_task("nothing")
