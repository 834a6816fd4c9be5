"""Instructions with responses, conversations of several turns, and preference pairs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from groundup.data.builtin.stories import arithmetic, lexicon
from groundup.data.builtin.stories.grammar import a, capitalise, listed
from groundup.data.builtin.stories.items import Split
from groundup.data.builtin.stories.plots import tell_story
from groundup.data.builtin.stories.scenes import Ask, Scene, make_scene
from groundup.data.builtin.stories.story import SETTING_PHRASES, Story
from groundup.data.builtin.stories.world import Random, World, pick_world

Turn = tuple[str, str]


class Pair(NamedTuple):
    """A prompt with a right and a wrong response; `kind` says what the wrong one gets wrong."""

    prompt: str
    chosen: str
    rejected: str
    kind: str
    world: str


def sentence(ask: Ask, answer: str) -> str:
    """An answer to a question about a scene, as a short sentence."""
    return capitalise(f"{answer}.")


def exchange(draw: Random, world: World, testing: bool) -> list[Turn]:
    """One request and its response, or several about the same scene."""
    make = draw.weighted(
        {
            _tell: 0.3,
            _describe: 0.15,
            _way: 0.1,
            _list_things: 0.1,
            _who_is_where: 0.1,
            _turn_round: 0.1,
            _scene_talk: 0.25,
            _solve: 0.15,
        }
    )
    return make(draw, world, testing)


def _tell(draw: Random, world: World, testing: bool) -> list[Turn]:
    story = Story(draw, world, testing)
    tell_story(story, 1)
    hero = story.cast[0]
    things = [fact.thing for fact in story.facts if fact.thing is not None]
    about = f"{hero.name} the {hero.what}" if draw.chance(0.5) else f"{a(hero.what)} named {hero.name}"
    if things:
        about += f" and {a(f'{things[0].colour} {things[0].noun}')}"
    request = draw.pick(
        (
            "Tell me a story about {}.",
            "Write a short story about {}.",
            "I would like to hear a story about {}.",
            "Make up a story. It should be about {}.",
            "Do you know a story about {}?",
        )
    )
    return [(request.format(about), story.text())]


def _describe(draw: Random, world: World, testing: bool) -> list[Turn]:
    who = draw.pick(world.cast)
    where = f"{who.home.where} the {who.home.noun}"
    place = SETTING_PHRASES[world.setting].format(world.name)
    request = draw.pick(
        (
            f"Who is {who.name}?",
            f"Describe {who.name} of {world.name}.",
            f"Tell me something about {who.name} the {who.what}.",
        )
    )
    response = draw.pick(
        (
            f"{who.name} is {a(who.what)} {lexicon.TRAITS[who.trait]}. {who.he} lives {place}, {where}.",
            f"{who.name} lives {where} {place}. {who.he} is {a(f'{who.trait} {who.what}')}.",
            f"that is {a(who.what)} {place}, {lexicon.TRAITS[who.trait]}. You will find {who.him} {where}.",
        )
    )
    return [(request, capitalise(response))]


def _way(draw: Random, world: World, testing: bool) -> list[Turn]:
    p, q, r = draw.sample(world.places, 3)
    turns = [(f"How do I get from the {p.noun} to the {q.noun} in {world.name}?", f"go {world.way(p, q)}.")]
    if draw.chance(0.5):
        turns.append(
            (f"And from there to the {r.noun}?", f"from the {q.noun} to the {r.noun} you go {world.way(q, r)}.")
        )
    return [(request, capitalise(response)) for request, response in turns]


def _list_things(draw: Random, world: World, testing: bool) -> list[Turn]:
    scene = make_scene(draw, world, testing)
    things = draw.sample(scene.things, len(scene.things))
    names = sorted(a(f"{thing.colour} {thing.noun}") for thing in things)
    request = draw.pick(
        (
            "List the things in this text, in alphabetical order.",
            "Which things occur in this text? Sort them by the alphabet.",
        )
    )
    first = sorted(names, key=lambda name: name.split(" ", 1)[1])
    return [(f"{request}\n\n{scene.text()}", "\n".join(f"- {name}" for name in first))]


def _who_is_where(draw: Random, world: World, testing: bool) -> list[Turn]:
    scene = make_scene(draw, world, testing)
    request = draw.pick(
        (
            "Read this and say where everyone is at the end.",
            "Where is each of them when this ends?",
            "Say who is where at the end.",
        )
    )
    return [(f"{request}\n\n{scene.text()}", summary(scene))]


def summary(scene: Scene) -> str:
    """Where everyone is at the end of a scene."""
    return listed([f"{who.name} is {scene.at[who].where} the {scene.at[who].noun}" for who in scene.cast]) + "."


def _turn_round(draw: Random, world: World, testing: bool) -> list[Turn]:
    one, other = draw.sample(world.cast, 2)
    thing = draw.pick(world.things)
    noun = f"the {thing.colour} {thing.noun}"
    given, got = f"{one.name} gave {noun} to {other.name}.", f"{other.name} got {noun} from {one.name}."
    if draw.chance(0.5):
        given, got = got, given
    verb = "got" if got.split()[1] == "got" else "gave"
    request = draw.pick(
        (
            f"Say this with the word `{verb}`: {given}",
            f"Rewrite so that it begins with {got.split()[0]}: {given}",
            f"Turn this sentence round: {given}",
        )
    )
    return [(request, got)]


def _scene_talk(draw: Random, world: World, testing: bool) -> list[Turn]:
    scene = make_scene(draw, world, testing)
    asks = draw.sample(scene.asks(), min(3, len(scene.asks())))
    turns = [(ask.prompt, sentence(ask, ask.answer)) for ask in asks]
    opening = draw.pick(("Read this text and answer my questions.", "Here is a little text.", "Listen."))
    turns[0] = (f"{opening}\n\n{scene.text()}\n\n{turns[0][0]}", turns[0][1])
    return turns


def _solve(draw: Random, world: World, testing: bool) -> list[Turn]:
    task = arithmetic.problem(draw, world)
    return [(task.text, task.solution())]


def pair(draw: Random, world: World, testing: bool) -> Pair:
    """A preference pair about a scene or about a calculation."""
    kind = draw.weighted({"answer": 0.4, "arithmetic": 0.35, "summary": 0.25})
    if kind == "arithmetic":
        task = arithmetic.problem(draw, world)
        return Pair(task.text, task.solution(), arithmetic.wrong(draw, task).solution(), kind, world.name)
    scene = make_scene(draw, world, testing)
    if kind == "summary":
        prompt = f"{scene.text()}\n\nWhere is everyone now?"
        right = summary(scene)
        who = draw.pick(scene.cast)
        scene.at[who] = scene.elsewhere(scene.at[who])
        return Pair(prompt, right, summary(scene), kind, world.name)
    ask = draw.pick([ask for ask in scene.asks() if ask.others])
    prompt = f"{scene.text()}\n\n{ask.prompt}"
    return Pair(prompt, sentence(ask, ask.answer), sentence(ask, draw.pick(ask.others[:3])), kind, world.name)


def conversations(n: int, seed: int = 0, split: Split = "train") -> Iterator[dict[str, Any]]:
    """`n` conversations as {"messages": [{"role", "content"}, ...]}; the last message is the assistant's."""
    for i in range(n):
        draw = Random("conversation", seed, split, i)
        turns = exchange(draw, pick_world(draw, split), split == "test")
        messages = [
            m
            for user, reply in turns
            for m in ({"role": "user", "content": user}, {"role": "assistant", "content": reply})
        ]
        yield {"messages": messages}


def preferences(n: int, seed: int = 0, split: Split = "train") -> Iterator[dict[str, str]]:
    """`n` pairs as {"prompt", "chosen", "rejected"}, of which `chosen` is right and `rejected` is wrong."""
    for i in range(n):
        draw = Random("preference", seed, split, i)
        found = pair(draw, pick_world(draw, split), split == "test")
        yield {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected}
