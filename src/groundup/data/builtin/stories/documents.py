"""Documents of the stories corpus, each made from its number alone."""

from collections.abc import Callable, Iterator

from groundup.data.builtin.stories import arithmetic
from groundup.data.builtin.stories.items import Document, StoriesConfig
from groundup.data.builtin.stories.plots import tell_story
from groundup.data.builtin.stories.requests import exchange, pair
from groundup.data.builtin.stories.scenes import make_scene
from groundup.data.builtin.stories.story import Story
from groundup.data.builtin.stories.world import Random, World, pick_world

LENGTHS = {1: 0.3, 2: 0.4, 3: 0.2, 4: 0.1}
Made = tuple[str, dict]


def documents(config: StoriesConfig) -> Iterator[Document]:
    """The documents that `config` asks for, without end where it names neither a number nor a size."""
    config.check()
    made = size = 0
    while (config.documents is None or made < config.documents) and (config.bytes is None or size < config.bytes):
        found = document(config.start + made * config.step, config)
        yield found
        made += 1
        size += len(found.text.encode())


def document(number: int, config: StoriesConfig) -> Document:
    """Document `number` of the corpus."""
    draw = Random("document", config.seed, config.split, number)
    kind = draw.weighted(config.mix.model_dump())
    world = pick_world(draw, config.split)
    text, meta = MAKERS[kind](draw, world, config.split == "test")
    return Document(f"stories-{config.split}-{config.seed}-{number:07d}", text, meta, world.name, kind)


def _story(draw: Random, world: World, testing: bool) -> Made:
    story = Story(draw, world, testing)
    plot = tell_story(story, draw.weighted(LENGTHS) if not testing else max(2, draw.weighted(LENGTHS)))
    return story.text(), {"plot": plot}


def _qa(draw: Random, world: World, testing: bool) -> Made:
    scene = make_scene(draw, world, testing)
    asks = scene.asks()
    chosen = draw.sample(asks, min(len(asks), draw.between(2, 5)))
    lines = [f"Question: {ask.prompt}\nAnswer: {ask.answer}" for ask in chosen]
    return scene.text() + "\n\n" + "\n\n".join(lines), {"kinds": [ask.kind for ask in chosen]}


def _instruction(draw: Random, world: World, testing: bool) -> Made:
    turns = exchange(draw, world, testing)
    return "\n\n".join(f"User: {request}\n\nAssistant: {response}" for request, response in turns), {
        "turns": len(turns)
    }


def _arithmetic(draw: Random, world: World, testing: bool) -> Made:
    problems = [arithmetic.problem(draw, world) for _ in range(draw.between(1, 3))]
    text = "\n\n".join(f"Question: {task.text}\nAnswer: {task.solution()}" for task in problems)
    return text, {"answers": [task.answer for task in problems]}


def _preference(draw: Random, world: World, testing: bool) -> Made:
    found = pair(draw, world, testing)
    return f"User: {found.prompt}\n\nAssistant: {found.chosen}", {"rejected": found.rejected, "about": found.kind}


MAKERS: dict[str, Callable[[Random, World, bool], Made]] = {
    "story": _story, "qa": _qa, "instruction": _instruction, "arithmetic": _arithmetic, "preference": _preference,
}  # fmt: skip
