"""Multiple-choice questions about scenes, and questions with answers for documents."""

from collections.abc import Iterator, Sequence

from groundup.data.builtin.stories.items import Question, Split
from groundup.data.builtin.stories.scenes import Ask, Scene, make_scene
from groundup.data.builtin.stories.world import Random, pick_world

# How often each kind is asked. Those that a glance at one sentence answers are rare.
WEIGHTS = {
    "colour": 0.06, "who_first": 0.06, "why": 0.05, "who_got": 0.08, "where_person": 0.15, "where_before": 0.1,
    "where_thing": 0.12, "where_held": 0.14, "who_has": 0.14, "colour_given": 0.06, "how_many": 0.04,
}  # fmt: skip
CHOICES = 4


def question(number: int, seed: int = 0, split: Split = "test", kinds: Sequence[str] = ()) -> Question:
    """Question `number`; it depends on its arguments alone."""
    draw = Random("question", seed, split, number)
    wanted = draw.weighted({kind: weight for kind, weight in WEIGHTS.items() if not kinds or kind in kinds})
    while True:
        world = pick_world(draw, split)
        scene = make_scene(draw, world, split == "test")
        asks = [ask for ask in scene.asks() if ask.kind == wanted and len(ask.others) >= CHOICES - 1]
        if asks:
            return _choices(draw, scene, draw.pick(asks), f"stories-question-{split}-{seed}-{number}")


def _choices(draw: Random, scene: Scene, ask: Ask, name: str) -> Question:
    others = draw.sample(list(dict.fromkeys(ask.others))[:5], CHOICES - 1)
    choices = draw.sample([ask.answer, *others], CHOICES)
    evidence = tuple(scene.sentences[i] for i in ask.evidence)
    return Question(
        name,
        scene.text(),
        ask.prompt,
        tuple(choices),
        choices.index(ask.answer),
        ask.kind,
        ask.hops,
        scene.world.name,
        evidence,
    )


def questions(n: int, seed: int = 0, split: Split = "test", kind: str | Sequence[str] | None = None) -> list[Question]:
    """`n` questions with four choices each, of all kinds or of the given ones (the keys of `WEIGHTS`)."""
    return list(iterate(n, seed, split, kind))


def iterate(
    n: int, seed: int = 0, split: Split = "test", kind: str | Sequence[str] | None = None
) -> Iterator[Question]:
    """The same, one at a time."""
    kinds = () if kind is None else (kind,) if isinstance(kind, str) else tuple(kind)
    return (question(i, seed, split, kinds) for i in range(n))
