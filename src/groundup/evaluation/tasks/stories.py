"""Questions about the built-in stories, whose right answers are known."""

from groundup.evaluation.task import ItemTask, MultipleChoice
from groundup.evaluation.tasks.files import spaced


def story_questions(seed: int = 0, count: int = 200) -> ItemTask:
    """`count` multiple-choice questions about stories from held-out worlds."""
    from groundup.data.builtin import stories

    items = []
    for question in stories.questions(count, seed=seed):
        context = question.context + question.prompt
        choices = tuple(spaced(context, choice) for choice in question.choices)
        items.append(MultipleChoice(context, choices, _index(question)))
    return ItemTask("stories", items)


def _index(question) -> int:
    return question.answer if isinstance(question.answer, int) else list(question.choices).index(question.answer)
