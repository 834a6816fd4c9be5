"""`groundup evaluate`: measure a model on tasks and texts."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say
from groundup.commands.command import Command
from groundup.commands.probe import tokenizer_of


class Evaluate(Command):
    """Perplexity, bits per byte, cloze and multiple-choice accuracy, each with standard error and fingerprint."""

    model: CliPositionalArg[str]
    """Model folder, or a name (`tiny`)."""
    tasks: CliPositionalArg[list[str]] = Field(default_factory=lambda: ["stories"])
    """`stories`, a .jsonl file of questions, a text file, or a folder of .txt files."""
    shots: int = Field(default=0, ge=0)
    """Answered examples before each question."""
    limit: int | None = Field(default=None, ge=1)
    """Most items a task, drawn by seed."""
    truncate: bool = False
    """Leave out the begin of questions that do not fit the context, and count them; otherwise that is an error."""
    batch_size: int = Field(default=16, ge=1)
    """Rows at once; the scores do not depend on it."""
    seed: int = 0
    """Of the generated questions, the choice of items and the examples."""
    out: Path | None = None
    """Write the report to this JSON file."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str | None = None
    """float32, bfloat16 or float16; as stored when not given."""

    def run(self) -> dict[str, Any]:
        """Print the table of scores; `--json` and `--out` hold the report."""
        from groundup.evaluation.harness import evaluate
        from groundup.evaluation.tasks import load_task
        from groundup.models.hub import load_model

        tasks = [load_task(name, self.seed) for name in self.tasks]  # first: a wrong name should not wait for the model
        model = load_model(self.model, dtype=self.dtype, device=self.device)
        tokenizer = tokenizer_of(self.model, model.config.vocab_size)
        report = evaluate(
            model,
            tokenizer,
            tasks,
            name=self.model,
            shots=self.shots,
            limit=self.limit,
            seed=self.seed,
            truncate=self.truncate,
            batch_size=self.batch_size,
        )
        say(report.table())
        if self.out is not None:
            report.save(self.out)
            say(f"report written to {self.out}")
        return report.as_dict()
