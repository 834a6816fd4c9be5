"""evaluate: tasks in, a Report out, where every score carries what it depends on."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.console import table
from groundup.base.errors import DataError, UsageError
from groundup.base.files import write_atomic
from groundup.evaluation.likelihood import loglikelihood
from groundup.evaluation.metrics.statistics import mean
from groundup.evaluation.perplexity import measure
from groundup.evaluation.programs import ProgramSettings, ProgramTask, solve
from groundup.evaluation.task import Task, TextTask, fingerprint, with_shots

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """One number and all that must agree before it is compared with another.

    Attributes:
        task: name, and `version`.
        metric: what was measured; for multiple choice it ends in the scoring rule.
        value: the mean over items, or the measurement.
        stderr: its standard error; nan where there is none.
        items: how many questions or documents.
        shots: examples before each question.
        seed: of the choice of items and examples.
        prompts: hash of every text that was scored, in order.
        tokenizer: the tokenizer's fingerprint.
        truncated: items whose context lost its begin.
    """

    task: str
    version: int
    metric: str
    value: float
    stderr: float
    items: int
    shots: int
    seed: int
    prompts: str
    tokenizer: str
    truncated: int = 0

    @property
    def fingerprint(self) -> str:
        """Equal for two scores that may be compared: the same task, texts, rule, examples. The tokenizer may differ."""
        task = [self.task, self.version, self.metric, self.items, self.shots, self.seed, self.prompts]
        return fingerprint([*task, self.truncated])


@dataclass(frozen=True)
class Report:
    """The scores of a model."""

    model: str
    scores: tuple[Score, ...]

    def __getitem__(self, key: tuple[str, str]) -> Score:
        """The score of (task, metric)."""
        return next(score for score in self.scores if (score.task, score.metric) == key)

    def table(self) -> str:
        """The scores as aligned text."""
        rows = [
            (s.task, s.metric, f"{s.value:.4f}", _shown(s.stderr), s.items, s.truncated, s.shots, s.fingerprint)
            for s in self.scores
        ]
        return table(rows, ("task", "metric", "value", "stderr", "items", "truncated", "shots", "fingerprint"))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: a number that is not finite is its name, as text."""
        scores = [{**asdict(score), "fingerprint": score.fingerprint} for score in self.scores]
        return {"model": self.model, "scores": [{k: _jsonable(v) for k, v in score.items()} for score in scores]}

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        write_atomic(path, json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")


def evaluate(
    model: Any,
    tokenizer: "Tokenizer",
    tasks: Sequence[Task | TextTask | ProgramTask],
    *,
    name: str = "model",
    shots: int = 0,
    limit: int | None = None,
    seed: int = 0,
    truncate: bool = False,
    batch_size: int = 16,
    programs: ProgramSettings | None = None,
) -> Report:
    """Measure a model on tasks.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        tasks: questions (Task), documents (TextTask), or programming problems (ProgramTask).
        name: of the model, for the report.
        shots: answered examples before each question, drawn from the other questions.
        limit: most items a task; a random choice by `seed`.
        seed: of that choice and of the examples.
        truncate: leave out the begin of questions that do not fit the context, and count them, where otherwise that
            is an error.
        batch_size: rows at once; it does not change the scores (up to rounding).
        programs: how programs are sampled and run. They are run only where this is given: a model wrote them.
    """
    scores: list[Score] = []
    for task in tasks:
        if len(task) == 0:
            raise DataError(f"task {task.name} has no items")
        if isinstance(task, TextTask):
            scores += _measure_texts(model, tokenizer, task, limit, seed, batch_size)
        elif isinstance(task, ProgramTask):
            scores += _run_programs(model, tokenizer, task, programs, shots, limit, seed, batch_size)
        else:
            scores += _ask(model, tokenizer, task, shots, limit, seed, truncate, batch_size)
    return Report(name, tuple(scores))


def _ask(
    model: Any,
    tokenizer: "Tokenizer",
    task: Task,
    shots: int,
    limit: int | None,
    seed: int,
    truncate: bool,
    batch_size: int,
) -> list[Score]:
    asked = with_shots(task, shots, seed)
    picks = chosen(len(asked), limit, seed)
    requests = [asked.item(i).requests() for i in picks]
    unique = list(dict.fromkeys(pair for group in requests for pair in group))  # the neutral contexts repeat
    found = loglikelihood(model, tokenizer, unique, truncate=truncate, batch_size=batch_size)
    known = dict(zip(unique, found, strict=True))
    truncated = sum(any(known[pair].truncated for pair in group) for group in requests)
    results = [asked.score(i, [known[pair] for pair in group]) for i, group in zip(picks, requests, strict=True)]
    common = (shots, seed, fingerprint(requests), tokenizer.fingerprint(), truncated)
    scores = []
    for metric in results[0]:
        estimate = mean([result[metric] for result in results])
        scores.append(Score(task.name, task.version, metric, estimate.value, estimate.stderr, estimate.items, *common))
    return scores


def _measure_texts(
    model: Any, tokenizer: "Tokenizer", task: TextTask, limit: int | None, seed: int, batch_size: int
) -> list[Score]:
    texts = [task.texts[i] for i in chosen(len(task), limit, seed)]
    found = measure(model, tokenizer, texts, batch_size=batch_size)
    common = (found.documents, 0, seed, fingerprint(texts), tokenizer.fingerprint())
    return [
        Score(task.name, task.version, "bits_per_byte", found.bits_per_byte, found.bits_per_byte_stderr, *common),
        Score(task.name, task.version, "perplexity", found.perplexity, math.nan, *common),
    ]


def _run_programs(
    model: Any,
    tokenizer: "Tokenizer",
    task: ProgramTask,
    settings: ProgramSettings | None,
    shots: int,
    limit: int | None,
    seed: int,
    batch_size: int,
) -> list[Score]:
    if settings is None:
        raise UsageError(
            f"task {task.name} runs programs that the model writes, in a sandbox that stops accidents but no attacker: "
            "allow it with --run-programs (in Python: programs=ProgramSettings())"
        )
    if shots:
        raise UsageError(f"task {task.name} has no examples to show: leave shots at 0")
    problems = [task.problems[i] for i in chosen(len(task), limit, seed)]
    solved = solve(model, tokenizer, problems, settings, batch_size=batch_size)
    asked = [[p.prompt, p.test] for p in problems]
    common = (0, seed, fingerprint([asked, asdict(settings)]), tokenizer.fingerprint())
    results, scores = [one.scores(settings.ks()) for one in solved], []
    for metric in results[0]:
        estimate = mean([result[metric] for result in results])
        scores.append(Score(task.name, task.version, metric, estimate.value, estimate.stderr, estimate.items, *common))
    return scores


def chosen(length: int, limit: int | None, seed: int) -> list[int]:
    """Which items: all, or `limit` of them drawn by seed, in order."""
    if limit is None or limit >= length:
        return list(range(length))
    return sorted(random.Random(seed).sample(range(length), limit))


def _shown(stderr: float) -> str:
    return "-" if math.isnan(stderr) else f"{stderr:.4f}"


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
