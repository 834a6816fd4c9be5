"""Programs of a model: pass@k by hand, HumanEval's form, stop texts, ranking, and the sandbox."""

import gzip
import itertools
import json
from types import SimpleNamespace

import pytest

from groundup.base.errors import DataError, UsageError
from groundup.base.sandbox import Limits
from groundup.cli import main
from groundup.evaluation import programs
from groundup.evaluation.harness import evaluate
from groundup.evaluation.metrics.pass_at_k import pass_at_k
from groundup.evaluation.programs import STOPS, Problem, ProgramSettings, ProgramTask, read_problems, run_all, solve
from groundup.evaluation.tasks import load_task
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import Completion
from standin import Bytes, Decay

ADD = Problem(
    "own/0",
    'def add(a, b):\n    """The sum of a and b."""\n',
    "add",
    "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == 0\n",
    "    return a + b\n",
)
LAST = Problem(
    "own/1",
    'def last(items):\n    """The last of a list."""\n',
    "last",
    "def check(candidate):\n    assert candidate([1, 2]) == 2\n",
    "    return items[-1]\n",
)
QUICK = Limits(seconds=2)


@pytest.mark.row("EVAL-06", reference="hand calculation, enumeration")
@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(5, 2, 1, 0.4), (5, 2, 2, 0.7), (5, 2, 4, 1.0), (10, 0, 5, 0.0), (4, 4, 1, 1.0), (200, 1, 100, 0.5)],
)
def test_pass_at_k_by_hand(n, c, k, value):
    """(5, 2, 2): of 10 pairs 3 hold no correct sample, 1 - 3/10."""
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-12)


@pytest.mark.row("EVAL-06", reference="hand calculation, enumeration")
@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (6, 1), (6, 3), (7, 5)])
def test_pass_at_k_is_the_share_of_all_choices(n, c):
    for k in range(1, n + 1):
        choices = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_impossible_numbers_are_refused(n, c, k):
    with pytest.raises(UsageError, match="pass@"):
        pass_at_k(n, c, k)


@pytest.mark.row("EVAL-06", reference="hand calculation, enumeration")
def test_programs_pass_and_fail_for_what_they_are():
    """The right one, a wrong one, one that never ends, one that does not parse, one that leaves before its test."""
    bodies = ["    return a + b\n", "    return a - b\n", "    while True:\n        pass\n", "    return (\n"]
    leaving = ["raise SystemExit(1)", "raise SystemExit(0)", "import os; os._exit(0)"]
    texts = [ADD.program(body) for body in [*bodies, *(f"    return 0\n{line}\n" for line in leaving)]]
    found = run_all(texts, QUICK)
    kinds = [found[text].kind for text in texts]
    assert kinds[:4] == ["ok", "error", "timeout", "error"]
    assert "ok" not in kinds[4:]
    assert not found[texts[0]].stdout.strip()


def written(texts, logprobs):
    """What `generate` gives in place of a model, and a record of how it was asked."""
    asked = {}

    def generate(model, tokenizer, prompts, sampling, **options):
        asked.update(prompts=prompts, sampling=sampling, **options)
        return [
            Completion(text, [1] * len(scores), "stop", 1, list(scores))
            for text, scores in zip(texts, logprobs, strict=True)
        ]

    return generate, asked


@pytest.mark.row("EVAL-15", reference="Chen et al. 2021, hand calculation")
def test_sampling_ranking_and_scores(monkeypatch):
    """Two problems, three samples each: the likeliest by the mean, not by the sum, and the likeliest may be wrong."""
    good, bad = ADD.canonical_solution, "    return 0\n"
    texts = [bad, good, bad, LAST.canonical_solution, "    return items[0]\n", LAST.canonical_solution]
    logprobs = [[-0.5], [-0.3] * 4, [-0.4], [-2.0], [-0.1, -0.1], [-1.0]]
    generate, asked = written(texts, logprobs)
    monkeypatch.setattr(programs, "generate", generate)
    solved = solve(None, Bytes(), [ADD, LAST], ProgramSettings(samples=3, temperature=0.8, limits=QUICK))
    sampling: SamplingConfig = asked["sampling"]
    assert (sampling.temperature, sampling.top_p, tuple(sampling.stop)) == (0.8, 0.95, STOPS)
    assert STOPS == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (asked["samples"], asked["logprobs"], asked["prompts"]) == (3, True, [ADD.prompt, LAST.prompt])
    assert [one.correct for one in solved] == [1, 2]
    assert solved[0].ranked()[0].completion.text == good
    assert [one.scores([1, 2]) for one in solved] == [
        {"pass@1": pytest.approx(1 / 3), "pass@2": pytest.approx(2 / 3), "pass_ranked": 1.0},
        {"pass@1": pytest.approx(2 / 3), "pass@2": pytest.approx(1.0), "pass_ranked": 0.0},
    ]


@pytest.mark.row("EVAL-15", reference="Chen et al. 2021, hand calculation")
def test_the_harness_reports_means_over_problems(monkeypatch):
    texts = [ADD.canonical_solution] * 9 + ["    return 0\n"] + ["    return 1\n"] * 10
    generate, _ = written(texts, [[-0.1 * (i % 10 + 1)] for i in range(20)])
    monkeypatch.setattr(programs, "generate", generate)
    task, settings = ProgramTask("own", [ADD, LAST]), ProgramSettings(samples=10, limits=QUICK)
    report = evaluate(None, Bytes(), [task], programs=settings)
    assert report["own", "pass@1"].value == pytest.approx(0.45)
    assert report["own", "pass@10"].value == pytest.approx(0.5)
    assert report["own", "pass_ranked"].value == pytest.approx(0.5)
    assert report["own", "pass@1"].items == 2
    other = ProgramSettings(samples=10, temperature=0.9, limits=QUICK)
    assert evaluate(None, Bytes(), [task], programs=other)["own", "pass@1"].fingerprint != (
        report["own", "pass@1"].fingerprint
    )


def test_nothing_is_run_unasked():
    task = ProgramTask("own", [ADD])
    with pytest.raises(UsageError, match="--run-programs"):
        evaluate(Decay(), Bytes(), [task])
    with pytest.raises(UsageError, match="shots"):
        evaluate(Decay(), Bytes(), [task], programs=ProgramSettings(), shots=1)
    with pytest.raises(UsageError, match="samples"):
        solve(None, Bytes(), [ADD], ProgramSettings(samples=0))


def write(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_files_of_problems(tmp_path):
    for name in ("own.jsonl", "own.jsonl.gz"):
        task = load_task(str(write(tmp_path / name, [vars(ADD), vars(LAST)])))
        assert task == ProgramTask("own", [ADD, LAST])
    questions = write(tmp_path / "quiz.jsonl", [{"context": "a", "choices": ["b", "c"], "answer": 0}])
    assert not isinstance(load_task(str(questions)), ProgramTask)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "broken.jsonl:2: not valid JSON"),
        ("[]", "a JSON object is wanted, found list"),
        ('{"task_id": "x", "prompt": "p", "test": 3}', "text is missing under entry_point, test"),
        ('{"task_id": "x", "prompt": "p", "test": "", "entry_point": "f()"}', "not the name of a function"),
    ],
)
def test_broken_files_name_the_line(tmp_path, line, said):
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(vars(ADD)) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"broken\.jsonl:2"):
        read_problems(path)
    with pytest.raises(DataError, match=said.replace("(", r"\(")):
        read_problems(path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no problems"):
        read_problems(tmp_path / "empty.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="damaged"):
        read_problems(tmp_path / "cut.jsonl.gz")


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "own.jsonl", [vars(ADD)])
    command = ["evaluate", "tiny", str(path), "--max-new-tokens", "8", "--json"]
    assert main(command) != 0
    assert "--run-programs" in capsys.readouterr().err
    assert main([*command, "--run-programs", "--samples", "2"]) == 0
    scores = {score["metric"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert scores == {"pass@1": 0.0, "pass_ranked": 0.0}


@pytest.mark.row("EVAL-15", reference="HumanEval's own solutions")
def test_humaneval_is_read_and_its_solutions_pass(shared):
    task = read_problems(shared / "data/humaneval/HumanEval.jsonl.gz")
    assert len(task) == 164
    some = task.problems[::41]
    right = [p.program(p.canonical_solution) for p in some]
    wrong = [p.program("    return None\n") for p in some]
    found = run_all(right + wrong, Limits(seconds=10))
    assert [found[text].ok for text in right] == [True] * len(some)
    assert not any(found[text].ok for text in wrong)


@pytest.mark.slow
def test_all_solutions_of_humaneval_pass(shared):
    task = read_problems(shared / "data/humaneval/HumanEval.jsonl.gz")
    found = run_all([p.program(p.canonical_solution) for p in task.problems], Limits(seconds=20))
    assert [p.task_id for p in task.problems if not found[p.program(p.canonical_solution)].ok] == []


def test_the_mean_of_no_tokens_ranks_last():
    attempt = programs.Attempt(Completion("", [], "length", 1, []), SimpleNamespace(ok=True))
    assert attempt.mean_logprob == float("-inf")
