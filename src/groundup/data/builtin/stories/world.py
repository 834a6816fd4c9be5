"""Worlds: a map of places, and the people or animals who live there. A world is the same in every document.

A world is known by its number. Numbers below `TRAIN_WORLDS` belong to training, the next `TEST_WORLDS` to testing;
names of worlds differ between all of them, and half of the inhabitants of a testing world bear names that training
does not have.
"""

import functools
import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from groundup.data.builtin.stories import lexicon

TRAIN_WORLDS, TEST_WORLDS = 480, 120
Item = TypeVar("Item")


class Random:
    """Choices that are the same on every machine and Python: they rest on `random.Random.random` alone."""

    def __init__(self, *key: object):
        digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
        self.random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        """One item."""
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def sample(self, items: Sequence[Item], n: int) -> list[Item]:
        """`n` different items, in random order."""
        pool = list(items)
        for i in range(n):
            j = i + int(self.random() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:n]

    def weighted(self, weights: dict[Item, float]) -> Item:
        """A key, in proportion to its weight."""
        left = self.random() * sum(weights.values())
        for item, weight in weights.items():
            left -= weight
            if left < 0:
                return item
        return next(item for item, weight in reversed(weights.items()) if weight > 0)


class Place(NamedTuple):
    """A place; `where` is the preposition that goes with it."""

    noun: str
    where: str


class Character(NamedTuple):
    """Someone who lives in a world."""

    name: str
    female: bool
    what: str
    trait: str
    home: Place

    @property
    def he(self) -> str:
        """The pronoun as a subject."""
        return "she" if self.female else "he"

    @property
    def him(self) -> str:
        """The pronoun as an object."""
        return "her" if self.female else "him"

    @property
    def his(self) -> str:
        """The possessive pronoun."""
        return "her" if self.female else "his"


class Thing(NamedTuple):
    """Something that can be carried, of which a document has only one of its noun."""

    noun: str
    colour: str


class World(NamedTuple):
    """A consistent world."""

    name: str
    setting: str
    animals: bool
    places: tuple[Place, ...]
    cast: tuple[Character, ...]
    things: tuple[Thing, ...]
    ways: dict[frozenset[str], str]

    def way(self, start: Place, end: Place) -> str:
        """How one gets from one place to another, e.g. "along the lane"."""
        return self.ways[frozenset((start.noun, end.noun))]

    def beside(self, place: Place) -> tuple[Place, Place]:
        """The two places next to this one; the places of a world lie in a ring."""
        i = self.places.index(place)
        return self.places[i - 1], self.places[(i + 1) % len(self.places)]


@functools.lru_cache(maxsize=1024)
def world(number: int) -> World:
    """The world with this number."""
    assert 0 <= number < TRAIN_WORLDS + TEST_WORLDS
    draw = Random("world", number)
    setting = draw.pick(tuple(lexicon.SETTINGS))
    places = tuple(draw.sample(_places(setting), draw.between(7, 9)))
    ways = {frozenset((p.noun, q.noun)): draw.pick(lexicon.WAYS) for i, p in enumerate(places) for q in places[i + 1 :]}
    things = tuple(Thing(noun, draw.pick(lexicon.COLOURS)) for noun in draw.sample(lexicon.THINGS, 12))
    animals = draw.chance(0.45)
    return World(world_name(number), setting, animals, places, _cast(draw, number, animals, places), things, ways)


def world_name(number: int) -> str:
    """Names for all worlds, none twice."""
    heads, tails = lexicon.WORLD_HEADS, lexicon.WORLD_TAILS
    # 389 shares no factor with 32 * 20, so that the numbers run through all pairs.
    pair = number * 389 % (len(heads) * len(tails))
    return heads[pair // len(tails)] + tails[pair % len(tails)]


def _places(setting: str) -> list[Place]:
    # "at:mill in:net loft": a preposition, a colon, the noun (of one word or two).
    words = lexicon.SETTINGS[setting].split()
    places: list[Place] = []
    for word in words:
        if ":" in word:
            where, noun = word.split(":")
            places.append(Place(noun, where))
        else:
            places[-1] = Place(f"{places[-1].noun} {word}", places[-1].where)
    return places


def _cast(draw: Random, number: int, animals: bool, places: tuple[Place, ...]) -> tuple[Character, ...]:
    testing = number >= TRAIN_WORLDS
    women = draw.sample(lexicon.TRAIN_WOMEN, 4)
    men = draw.sample(lexicon.TRAIN_MEN, 4)
    if testing:
        women[:2] = draw.sample(lexicon.HELD_OUT_WOMEN, 2)
        men[:2] = draw.sample(lexicon.HELD_OUT_MEN, 2)
    people = [(name, True) for name in women[:3]] + [(name, False) for name in men[:3]]
    what = draw.sample(lexicon.ANIMALS if animals else lexicon.CALLINGS, len(people))
    traits = draw.sample(tuple(lexicon.TRAITS), len(people))
    homes = draw.sample(places, len(people))
    cast = [Character(*who, what[i], traits[i], homes[i]) for i, who in enumerate(people)]
    return tuple(draw.sample(cast, len(cast)))


def pick_world(draw: Random, split: str) -> World:
    """A world of the split."""
    if split == "test":
        return world(TRAIN_WORLDS + draw.below(TEST_WORLDS))
    return world(draw.below(TRAIN_WORLDS))
