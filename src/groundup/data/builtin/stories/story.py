"""A story being told: the state of its world, the facts that were stated, and the text so far.

Whatever changes the state also writes the sentence that says so, and notes the fact with the number of that sentence:
what the text states is true, and what is true was stated. Pronouns are used only where one person can be meant.
"""

import functools
from typing import Any, NamedTuple

from groundup.data.builtin.stories import lexicon
from groundup.data.builtin.stories.grammar import Choice, Slot, a, capitalise, compile_template
from groundup.data.builtin.stories.templates import GROUPS
from groundup.data.builtin.stories.templates.phrases import PHRASES
from groundup.data.builtin.stories.world import Character, Place, Random, Thing, World

SETTING_PHRASES = {
    "village": "in the village of {}",
    "harbour": "in the harbour town of {}",
    "forest": "in the forest of {}",
    "mountain": "in the mountains of {}",
    "river": "on the river at {}",
    "castle": "in the castle of {}",
    "farm": "on the big farm of {}",
    "town": "in the town of {}",
    "island": "on the island of {}",
    "garden": "in the great garden of {}",
}
SEASONS = ("spring", "summer", "autumn", "winter")
# What opens an episode at an hour of the day: 0 morning, 1 noon, 2 afternoon, 3 evening.
SAME_DAY = (
    (),
    ("Towards noon", "At midday", "Around noon", "When the sun stood high", "Before lunch"),
    ("In the afternoon", "Later that afternoon", "After lunch", "Some hours later", "That afternoon"),
    ("That evening", "Towards evening", "As the light grew dim", "In the evening", "Before supper"),
)
NEXT_DAY = (
    "The next morning",
    "Early the next day",
    "The following morning",
    "Two days later",
    "On the third day",
    "The day after",
    "A few days later",
    "At dawn the next day",
    "Not long after",
    "One week later",
)

SOON = ("Before long", "By and by", "A little later", "Presently", "Soon", "Then", "As it happened")


class Fact(NamedTuple):
    """Something the text states: what happened, to whom, and in which sentence."""

    what: str
    who: Character
    thing: Thing | None = None
    place: Place | None = None
    other: Character | None = None
    detail: str = ""
    sentence: int = 0


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple:
    return compile_template(text, PHRASES)


class Story:
    """Tells a story in a world. `draw` decides everything that is left open."""

    def __init__(self, draw: Random, world: World, testing: bool, cast_size: int = 3):
        self.draw, self.world, self.testing = draw, world, testing
        self.cast = draw.sample(world.cast, cast_size)
        self.season = draw.pick(SEASONS)
        self.things = draw.sample(world.things, len(world.things))
        self.unused = list(self.things)
        self.at: dict[Character, Place] = {who: who.home for who in self.cast}
        self.holder: dict[Thing, Character] = {}
        self.lies: dict[Thing, Place] = {}
        self.facts: list[Fact] = []
        self.sentences: list[str] = []
        self.breaks: set[int] = set()
        self.used: list[tuple[str, bool, int]] = []
        self.hour = 0
        self.known: set[Character] = set()
        self._before: list[Character] = []
        self._now: list[Character] = []
        self._last: dict[str, tuple[bool, int]] = {}

    # Telling

    def tell(self, group: str, **slots: Any) -> str:
        """Say what the group says, with these slots; the sentence is added to the text."""
        found = GROUPS[group]
        held_out = self.testing and bool(found.held_out) and self.draw.chance(0.5)
        templates = found.held_out if held_out else found.train
        choice = self.draw.below(len(templates))
        if self._last.get(group) == (held_out, choice):  # not the same words twice running
            held_out, templates = False, found.train
            choice = (choice + 1) % len(templates)
        self._last[group] = held_out, choice
        self.used.append((group, held_out, choice))
        parts: list[str] = []
        self._now = []
        self._render(templates[choice], slots, parts)
        text = capitalise("".join(parts))
        self._before = self._now
        self.sentences.append(text)
        return text

    def say(self, text: str) -> None:
        """Add a sentence that is ready."""
        self.sentences.append(text)
        self._before = []

    def paragraph(self) -> None:
        """Begin a new paragraph; names are spelled out again."""
        self.breaks.add(len(self.sentences))
        self._before = []

    def note(self, what: str, who: Character, **rest: Any) -> None:
        """Note the fact that the latest sentence states."""
        self.facts.append(Fact(what, who, sentence=len(self.sentences) - 1, **rest))

    def text(self) -> str:
        """The story so far."""
        parts: list[str] = []
        for i, sentence in enumerate(self.sentences):
            parts.append("" if not i else "\n\n" if i in self.breaks else " ")
            parts.append(sentence)
        return "".join(parts)

    def _render(self, nodes: tuple, slots: dict[str, Any], parts: list[str]) -> None:
        for node in nodes:
            if isinstance(node, str):
                parts.append(node)
            elif isinstance(node, Choice):
                self._render(self.draw.pick(node.options), slots, parts)
            else:
                parts.append(self._fill(node, slots))

    def _fill(self, slot: Slot, slots: dict[str, Any]) -> str:
        value = slots.get(slot.name)
        if isinstance(value, Character):
            return self._person(value, slot.form)
        if isinstance(value, Thing):
            return self._thing(value, slot.form)
        if isinstance(value, Place):
            return self._place(value, slot.form)
        if isinstance(value, str):
            return self._inner(value, slots) if "{" in value or "[" in value else value
        return self._setting(slot.name)

    def _inner(self, text: str, slots: dict[str, Any]) -> str:
        """A slot's text that has slots of its own."""
        parts: list[str] = []
        self._render(_compiled(text), slots, parts)
        return "".join(parts)

    def _setting(self, name: str) -> str:
        if name == "world":
            return SETTING_PHRASES[self.world.setting].format(self.world.name)
        assert name == "season", f"the slot {name} is empty"
        return self.season

    def _person(self, who: Character, form: str) -> str:
        if form in ("he", "him", "his"):
            return getattr(who, form)
        if form == "self":
            return who.him + "self"
        if form == "trait":
            return lexicon.TRAITS[who.trait]
        if form == "adjective":
            return who.trait
        if form == "what":
            return who.what
        clear = form != "n" and self._clear(who)
        self._now.append(who)
        if form == "full":
            self.known.add(who)
            return f"{a(who.what)} {self.draw.pick(('called', 'named', 'by the name of'))} {who.name}"
        if form == "s":
            return who.his if clear else who.name + "'s"
        if clear:
            return who.him if form == "o" else who.he
        if who not in self.known:
            self.known.add(who)
            return f"{who.name} the {who.what}"
        return who.name

    def _clear(self, who: Character) -> bool:
        """Whether a pronoun can only mean `who`: named lately, and nobody else of the same gender was."""
        if who in self._now:
            return all(other is who or other.female != who.female for other in self._now)
        if who not in self._before or self.draw.chance(0.25):
            return False
        return all(other is who or other.female != who.female for other in (*self._before, *self._now))

    def _thing(self, thing: Thing, form: str) -> str:
        if form == "a":
            return a(f"{thing.colour} {thing.noun}")
        if form == "full":
            return f"{thing.colour} {thing.noun}"
        if form == "s":
            return thing.noun
        if form == "s2":
            return a(thing.noun)
        if form == "colour":
            return thing.colour
        return f"the {thing.colour} {thing.noun}" if self.draw.chance(0.15) else f"the {thing.noun}"

    def _place(self, place: Place, form: str) -> str:
        if form == "at":
            return f"{place.where} the {place.noun}"
        return f"{form} the {place.noun}" if form else f"the {place.noun}"

    # What happens

    def time(self) -> str:
        """Let time pass; the words that open what happens next."""
        if self.hour < 3 and self.draw.chance(0.6):
            self.hour = self.draw.between(self.hour + 1, 3)
            return self.draw.pick(SAME_DAY[self.hour])
        self.hour = 0
        return self.draw.pick(NEXT_DAY)

    def soon(self, since: int) -> str:
        """Opening words that let no time pass if the story has moved since that sentence, else `time`."""
        return self.draw.pick(SOON) if len(self.sentences) > since else self.time()

    def new_thing(self) -> Thing:
        """A thing that the story has not used."""
        return self.unused.pop()

    def own(self, who: Character, thing: Thing, group: str = "own") -> None:
        """`who` has had `thing` from the beginning."""
        self.tell(group, a=who, o=thing)
        self.holder[thing] = who
        self.note("own", who, thing=thing)

    def something_of(self, who: Character) -> Thing:
        """A thing that `who` has; it is introduced when there is none."""
        held = [thing for thing, holder in self.holder.items() if holder is who]
        if held:
            return self.draw.pick(held)
        thing = self.new_thing()
        self.own(who, thing)
        return thing

    def go(self, who: Character, place: Place, group: str = "go") -> None:
        """`who` goes to `place`, unless already there."""
        start = self.at[who]
        if start == place:
            return
        self.tell(group, a=who, p=place, q=start, way=self.world.way(start, place))
        self.at[who] = place
        self.note("go", who, place=place)

    def put(self, who: Character, thing: Thing, group: str = "put") -> None:
        """`who` leaves `thing` where they are."""
        place = self.at[who]
        self.tell(group, a=who, o=thing, p=place)
        del self.holder[thing]
        self.lies[thing] = place
        self.note("put", who, thing=thing, place=place)

    def take(self, who: Character, thing: Thing, group: str = "take") -> None:
        """`who` picks up `thing` where it lies."""
        self.tell(group, a=who, o=thing, p=self.lies[thing])
        place = self.lies.pop(thing)
        self.holder[thing] = who
        self.note("take", who, thing=thing, place=place)

    def give(self, giver: Character, other: Character, thing: Thing, group: str = "give") -> None:
        """`giver` hands `thing` to `other`."""
        self.tell(group, a=giver, b=other, o=thing, p=self.at[giver])
        self.holder[thing] = other
        self.note("give", giver, thing=thing, other=other)

    def elsewhere(self, *places: Place) -> Place:
        """A place that is none of these."""
        return self.draw.pick([place for place in self.world.places if place not in places])

    def where(self, thing: Thing) -> Place:
        """Where a thing is now."""
        return self.at[self.holder[thing]] if thing in self.holder else self.lies[thing]
