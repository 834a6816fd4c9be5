"""Programs written by a model, judged by their unit tests: HumanEval and files of its form (Chen et al. 2021, Codex).

A problem is a prompt (imports, a function's head and docstring), a test that defines `check(candidate)`, and the name
of the function. The model continues the prompt until a stop text; prompt, continuation and test are run together in the
sandbox. Of several samples pass@k is estimated without bias, and the sample whose tokens have the highest mean
log-probability is judged on its own: what a user who cannot run tests would be shown (section 3.3).
"""

import gzip
import json
import math
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import DataError, UsageError
from groundup.base.sandbox import Limits, Outcome, run_program
from groundup.evaluation.metrics.pass_at_k import pass_at_k
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import Completion, generate

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Texts that show that the function has ended (Chen et al. 2021, section 2.2)."""
KEYS = ("task_id", "prompt", "entry_point", "test")


@dataclass(frozen=True)
class Problem:
    """A function to write.

    Attributes:
        task_id: its name.
        prompt: text that the model continues.
        entry_point: the function's name.
        test: code that defines `check(candidate)`.
        canonical_solution: a continuation that passes; "" where the file has none.
    """

    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""

    def program(self, completion: str) -> str:
        """What is run: it ends without an error exactly where the completion passes."""
        return f"{self.prompt}{completion}\n{self.test}\ncheck({self.entry_point})\n"


@dataclass(frozen=True)
class ProgramTask:
    """Problems under a name."""

    name: str
    problems: Sequence[Problem]
    version: int = 1

    def __len__(self) -> int:
        return len(self.problems)


@dataclass(frozen=True)
class Attempt:
    """One sample for a problem.

    Attributes:
        completion: the model's text and log-probabilities.
        outcome: how its program ended.
    """

    completion: Completion
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether the test found nothing wrong."""
        return self.outcome.ok

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of the sample's tokens under the model."""
        values = self.completion.logprobs or [-math.inf]
        return math.fsum(values) / len(values)


@dataclass(frozen=True)
class Solved:
    """All samples for one problem."""

    problem: Problem
    attempts: tuple[Attempt, ...]

    @property
    def correct(self) -> int:
        """How many samples passed."""
        return sum(attempt.passed for attempt in self.attempts)

    def ranked(self) -> list[Attempt]:
        """The samples, the likeliest by mean log-probability first."""
        return sorted(self.attempts, key=lambda attempt: -attempt.mean_logprob)

    def scores(self, ks: Sequence[int]) -> dict[str, float]:
        """pass@k for each k, and with several samples whether the likeliest one passed."""
        found = {f"pass@{k}": pass_at_k(len(self.attempts), self.correct, k) for k in ks}
        if len(self.attempts) > 1:
            found["pass_ranked"] = float(self.ranked()[0].passed)
        return found


@dataclass(frozen=True)
class ProgramSettings:
    """How programs are sampled and run.

    Attributes:
        samples: for each problem.
        temperature: 0.2 is best for pass@1 and 0.8 for pass@100 in Chen et al. 2021, figure 5.
        top_p: nucleus; 0.95 there.
        max_new_tokens: most tokens of a function.
        stop: texts that end it.
        seed: of the sampling.
        limits: of each program.
    """

    samples: int = 1
    temperature: float = 0.2
    top_p: float = 0.95
    max_new_tokens: int = 300
    stop: tuple[str, ...] = STOPS
    seed: int = 0
    limits: Limits = field(default_factory=lambda: Limits(seconds=3))

    def sampling(self) -> SamplingConfig:
        """As settings of `generate`."""
        return SamplingConfig(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            stop=list(self.stop),
            seed=self.seed,
        )

    def ks(self) -> list[int]:
        """The k that are reported: 1, 10 and 100, as far as there are samples."""
        return [k for k in (1, 10, 100) if k <= self.samples]


def solve(
    model: Any,
    tokenizer: "Tokenizer",
    problems: Sequence[Problem],
    settings: ProgramSettings | None = None,
    *,
    batch_size: int = 16,
) -> list[Solved]:
    """Let a model write every problem's function, and run what it wrote.

    Programs run in the sandbox, two for each processor core at a time; equal ones run once.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        problems: what to write.
        settings: how it is sampled and run.
        batch_size: most rows at once.
    """
    settings = settings or ProgramSettings()
    if settings.samples < 1:
        raise UsageError(f"samples must be 1 or more, not {settings.samples}")
    options = {"samples": settings.samples, "batch_size": batch_size, "logprobs": True}
    prompts = [problem.prompt for problem in problems]
    written = generate(model, tokenizer, prompts, settings.sampling(), **options)
    groups = [written[i * settings.samples :][: settings.samples] for i in range(len(problems))]
    pairs = list(zip(problems, groups, strict=True))
    outcomes = run_all([p.program(done.text) for p, group in pairs for done in group], settings.limits)
    return [
        Solved(problem, tuple(Attempt(done, outcomes[problem.program(done.text)]) for done in group))
        for problem, group in pairs
    ]


def run_all(programs: Sequence[str], limits: Limits) -> dict[str, Outcome]:
    """Every program -> how it ended; one that leaves before its last line is an error, whatever it says."""
    unique = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool:
        return dict(zip(unique, pool.map(lambda program: _run(program, limits), unique), strict=True))


def _run(program: str, limits: Limits) -> Outcome:
    end = f"the end of {secrets.token_hex(16)}"
    outcome = run_program(f"{program}\nprint({end!r})\n", limits)
    if outcome.ok and not outcome.stdout.rstrip("\n").endswith(end):
        return replace(outcome, kind="error", message="it ended before its test did")
    return replace(outcome, stdout=outcome.stdout.replace(end, ""))


def read_problems(path: str | Path) -> ProgramTask:
    """A .jsonl or .jsonl.gz in HumanEval's form: task_id, prompt, entry_point, test, canonical_solution.

    Raises:
        DataError: a line that is not of the form, with its number, or a file without problems.
    """
    path = Path(path)
    problems = [_problem(line, f"{path}:{number}") for number, line in enumerate(_lines(path), 1) if line.strip()]
    if not problems:
        raise DataError(f"{path} holds no problems")
    return ProgramTask(path.name.removesuffix(".gz").removesuffix(".jsonl"), problems)


def holds_problems(path: str | Path) -> bool:
    """Whether the first line of a file has the keys of a problem."""
    try:
        first = json.loads(next((line for line in _lines(Path(path)) if line.strip()), ""))
    except (ValueError, RecursionError, DataError):
        return False
    return isinstance(first, dict) and {"prompt", "entry_point", "test"} <= first.keys()


def _lines(path: Path) -> list[str]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return raw.decode("utf-8-sig").split("\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is not UTF-8 text, or a gzip file that is damaged: {error}") from None


def _problem(line: str, where: str) -> Problem:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is wanted, found {type(record).__name__}")
    missing = [key for key in KEYS if not isinstance(record.get(key), str)]
    if missing:
        raise DataError(f"{where}: text is missing under {', '.join(missing)}")
    if not record["entry_point"].isidentifier():
        raise DataError(f"{where}: entry_point {record['entry_point']!r:.80} is not the name of a function")
    return Problem(canonical_solution=str(record.get("canonical_solution", "")), **{key: record[key] for key in KEYS})
