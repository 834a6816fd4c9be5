"""Word problems with their solutions, step by step.

A problem begins with a number of goods and changes it two to four times; the numbers stay between 1 and 200, and every
division comes out even, so the right answer is known and short.
"""

from collections.abc import Callable
from typing import NamedTuple

from groundup.data.builtin.stories import lexicon
from groundup.data.builtin.stories.grammar import capitalise
from groundup.data.builtin.stories.world import Character, Random, World


class Problem(NamedTuple):
    """A word problem: the text, the steps (one calculation each) and the answer."""

    text: str
    steps: tuple[str, ...]
    answer: int
    unit: str

    def solution(self) -> str:
        """The steps, then the answer."""
        return " ".join(self.steps) + f" The answer is {self.answer} {self.unit}."


class _Telling(NamedTuple):
    draw: Random
    hero: Character
    other: Character
    goods: str


# An operation takes the number so far and returns the sentence, the step and the new number; None where it is unfit.
Operation = Callable[[_Telling, int], "tuple[str, str, int] | None"]


def _gain(t: _Telling, n: int) -> tuple[str, str, int] | None:
    k = t.draw.between(2, 20)
    he, goods = t.hero.he, t.goods
    text = t.draw.pick(
        (
            f"{he} finds {k} more.",
            f"then {t.other.name} gives {t.hero.him} {k} more.",
            f"{he} buys another {k} at the market.",
            f"on the way home {he} gets {k} {goods} as a present.",
            f"{he} picks up {k} more {goods} by the road.",
        )
    )
    return text, f"{n} + {k} = {n + k}.", n + k


def _lose(t: _Telling, n: int) -> tuple[str, str, int] | None:
    if n < 4:
        return None
    k = t.draw.between(1, n - 2)
    he = t.hero.he
    text = t.draw.pick(
        (
            f"{he} gives {k} of them to {t.other.name}.",
            f"{k} of them are stolen by a crow.",
            f"{he} sells {k}.",
            f"on the bridge {k} fall into the water.",
            f"{he} leaves {k} at the door of {t.other.name}.",
            f"{t.other.name} asks for {k}, and gets them.",
        )
    )
    return text, f"{n} - {k} = {n - k}.", n - k


def _multiply(t: _Telling, n: int) -> tuple[str, str, int] | None:
    k = t.draw.between(2, 4)
    if n > 40:
        return None
    word = {2: "twice", 3: "three times", 4: "four times"}[k]
    text = t.draw.pick(
        (
            f"a week later {t.hero.he} has {word} as many.",
            f"by magic, each of them turns into {lexicon.NUMBERS[k]}.",
            f"{t.hero.he} trades them all: for each one {t.hero.he} gets {lexicon.NUMBERS[k]}.",
        )
    )
    return text, f"{n} * {k} = {n * k}.", n * k


def _divide(t: _Telling, n: int) -> tuple[str, str, int] | None:
    fitting = [k for k in (2, 3, 4, 5) if n % k == 0 and n // k > 1]
    if not fitting:
        return None
    k = t.draw.pick(fitting)
    word = lexicon.NUMBERS[k]
    text = t.draw.pick(
        (
            f"{t.hero.he} puts them into {word} equal heaps and keeps one heap.",
            f"{t.hero.he} shares them out evenly among {word} friends, {t.hero.him}self included, and keeps one share.",
        )
    )
    return text, f"{n} / {k} = {n // k}.", n // k


def _baskets(t: _Telling, _: int) -> tuple[str, str, int]:
    box, each = t.draw.between(2, 9), t.draw.between(2, 9)
    name, goods = t.hero.name, t.goods
    holder = t.draw.pick(("baskets", "bags", "boxes", "jars", "bowls"))
    text = t.draw.pick(
        (
            f"{name} has {box} {holder} with {each} {goods} in each.",
            f"there are {each} {goods} in every one of {name}'s {box} {holder}.",
            f"{name} fills {box} {holder}, and {each} {goods} go into each of them.",
        )
    )
    return text, f"{box} * {each} = {box * each}.", box * each


def _start(t: _Telling) -> tuple[str, tuple[str, ...], int]:
    if t.draw.chance(0.35):
        text, step, number = _baskets(t, 0)
        return text, (step,), number
    n = t.draw.between(3, 40)
    name, what, goods = t.hero.name, t.hero.what, t.goods
    text = t.draw.pick(
        (
            f"{name} the {what} has {n} {goods}.",
            f"in the morning {name} counts {n} {goods}.",
            f"{name}, {lexicon.TRAITS[t.hero.trait]}, owns {n} {goods}.",
            f"{n} {goods} belong to {name} the {what}.",
        )
    )
    return text, (), n


OPERATIONS: tuple[Operation, ...] = (_gain, _lose, _multiply, _divide)


def problem(draw: Random, world: World) -> Problem:
    """A problem about two who live in this world."""
    hero, other = draw.sample(world.cast, 2)
    telling = _Telling(draw, hero, other, draw.pick(lexicon.GOODS)[1])
    text, steps, number = _start(telling)
    sentences = [text]
    for operation in draw.sample(OPERATIONS, draw.between(1, 4)):
        change = operation(telling, number)
        if change is not None and change[2] <= 200:
            sentences.append(change[0])
            steps = (*steps, change[1])
            number = change[2]
    if not steps:
        return problem(draw, world)
    goods = telling.goods
    asked = draw.pick(
        (
            f"how many {goods} does {hero.name} have now?",
            f"how many {goods} has {hero.name} in the end?",
            f"with how many {goods} does {hero.name} end up?",
        )
    )
    return Problem(" ".join(capitalise(s) for s in [*sentences, asked]), steps, number, goods)


def wrong(draw: Random, right: Problem) -> Problem:
    """The same problem with a slip in its last step."""
    slip = draw.pick([d for d in (-10, -2, -1, 1, 2, 10) if right.answer + d > 0])
    before, _, _ = right.steps[-1].partition(" = ")
    answer = right.answer + slip
    return right._replace(steps=(*right.steps[:-1], f"{before} = {answer}."), answer=answer)
