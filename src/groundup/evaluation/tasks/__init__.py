"""Tasks by name or path: `load_task("stories")`, `load_task("questions.jsonl")`, `load_task("HumanEval.jsonl.gz")`,
`load_task("book.txt")`.
"""

from groundup.base.errors import UsageError
from groundup.evaluation.programs import ProgramTask, holds_problems, read_problems
from groundup.evaluation.task import Task, TextTask


def load_task(name: str, seed: int = 0) -> Task | TextTask | ProgramTask:
    """The built-in task `stories`, or a file: .jsonl holds questions or programming problems, anything else text.

    Args:
        name: task name or path.
        seed: of generated questions.

    Raises:
        UsageError: neither a task nor a file.
        DataError: a file that cannot be used, with the line.
    """
    from pathlib import Path

    from groundup.evaluation.tasks import files, stories

    if name == "stories":
        return stories.story_questions(seed)
    path = Path(name)
    if path.name.endswith((".jsonl", ".jsonl.gz")) and path.is_file() and holds_problems(path):
        return read_problems(path)
    if path.suffix == ".jsonl" and path.is_file():
        return files.question_file(path)
    if path.exists():
        return files.text_file(path)
    raise UsageError(
        f"`{name}` is neither a task nor a file. Tasks: stories; or give a .jsonl of questions or a text file"
    )
