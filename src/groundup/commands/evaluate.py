"""`groundup evaluate`: measure a model on tasks and texts."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say
from groundup.commands.command import Command
from groundup.commands.named_model import model_and_tokenizer


class Evaluate(Command):
    """Perplexity, bits per byte, cloze and multiple-choice accuracy, pass@k; with standard error and fingerprint."""

    model: CliPositionalArg[str]
    """A model folder, that of a run or of an adapter, a .gguf file, or a name (`tiny`)."""
    tasks: CliPositionalArg[list[str]] = Field(default_factory=lambda: ["stories"])
    """`stories`, a .jsonl of questions or of problems in HumanEval's form, a text file, or a folder of .txt files."""
    shots: int = Field(default=0, ge=0)
    """Answered examples before each question."""
    limit: int | None = Field(default=None, ge=1)
    """Most items a task, drawn by seed."""
    truncate: bool = False
    """Leave out the begin of questions that do not fit the context, and count them; otherwise that is an error."""
    batch_size: int = Field(default=16, ge=1)
    """Rows at once; the scores do not depend on it."""
    run_programs: bool = False
    """Run the programs that the model writes for problems, in the sandbox."""
    samples: int = Field(default=1, ge=1)
    """Programs a problem: pass@1, pass@10 and pass@100 are estimated as far as they reach."""
    temperature: float = Field(default=0.2, ge=0)
    """Of programs; 0.8 suits many samples."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus of programs."""
    max_new_tokens: int = Field(default=300, ge=1)
    """Most tokens of a program."""
    seed: int = 0
    """Of the generated questions, the choice of items, the examples, and programs."""
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

        tasks = [load_task(name, self.seed) for name in self.tasks]  # first: a wrong name should not wait for the model
        model, tokenizer = model_and_tokenizer(self.model, self.dtype, self.device)
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
            programs=self.programs() if self.run_programs else None,
        )
        say(report.table())
        if self.out is not None:
            report.save(self.out)
            say(f"report written to {self.out}")
        return report.as_dict()

    def programs(self) -> Any:
        """How programs are sampled and run."""
        from groundup.evaluation.programs import ProgramSettings

        names = ("samples", "temperature", "top_p", "max_new_tokens", "seed")
        return ProgramSettings(**{name: getattr(self, name) for name in names})
