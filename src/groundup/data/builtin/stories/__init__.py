"""stories: a seeded generator of varied, coherent English stories over consistent worlds.

A simulation moves people and things through the places of a world, and a grammar tells what happens, so that what a
text states stays true in it and the right answers to questions about it are known. Worlds, some names, sentence
patterns and pairs of episodes are held out for `split="test"`.

    for document in documents(StoriesConfig(seed=0, bytes=4_000_000)):
        document.id, document.text, document.world, document.kind
    questions(300, seed=0, split="test")
"""

from groundup.data.builtin.stories.documents import document, documents
from groundup.data.builtin.stories.items import Document, Mix, Question, StoriesConfig
from groundup.data.builtin.stories.questions import questions
from groundup.data.builtin.stories.requests import conversations, preferences

__all__ = [
    "Document",
    "Mix",
    "Question",
    "StoriesConfig",
    "conversations",
    "document",
    "documents",
    "preferences",
    "questions",
]
