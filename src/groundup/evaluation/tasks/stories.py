"""Questions about the built-in stories, whose right answers are known."""

from groundup.evaluation.task import ItemTask, MultipleChoice

COUNT = 200


def story_questions(seed: int = 0, count: int = COUNT) -> ItemTask:
    """`count` multiple-choice questions about stories from worlds that no training story uses."""
    from groundup.data.builtin.stories import questions

    items = [
        MultipleChoice(question.stem, tuple(" " + choice for choice in question.choices), question.answer)
        for question in questions(count, seed=seed, split="test")
    ]
    return ItemTask("stories", items)
