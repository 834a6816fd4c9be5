"""Scenes: four people, four things, a handful of moves, and questions whose answers the moves decide.

After each move the state is known exactly; what somebody wrongly believes, or only thinks of doing, is told as such.
"""

from typing import NamedTuple

from groundup.data.builtin.stories import lexicon
from groundup.data.builtin.stories.story import Fact, Story
from groundup.data.builtin.stories.world import Character, Place, Random, Thing, World


class Ask(NamedTuple):
    """A question about a scene: what is asked, the right answer, and what else might be answered."""

    kind: str
    hops: int
    prompt: str
    answer: str
    others: tuple[str, ...]
    evidence: tuple[int, ...]


class Scene(Story):
    """A story of plain moves. `goods` counts how many of the goods each of two people has."""

    def __init__(self, draw: Random, world: World, testing: bool):
        super().__init__(draw, world, testing, cast_size=4)
        self.mentioned: list[Place] = []
        self.goods: dict[Character, int] = {}
        self.goods_name = ""
        self.errands = draw.sample(lexicon.ERRANDS, 8)
        self.reasons: dict[tuple[Character, Place], tuple[str, int]] = {}
        self.known.update(self.cast)

    def play(self, moves: int) -> None:
        """Set the scene and make this many moves."""
        self._begin()
        self.paragraph()
        for _ in range(moves):
            self._move()

    def _begin(self) -> None:
        homes = self.draw.sample(self.world.places, 4)
        for who, place in zip(self.cast, homes, strict=True):
            self.at[who] = place
            self.mentioned.append(place)
        things: list[Thing] = []
        for thing in self.things:
            if len(things) < 4 and all(thing.colour != other.colour for other in things):
                things.append(thing)
        self.things = things
        a, b, c, d = self.cast
        for one, other, group in ((a, b, "scene_at"), (c, d, "scene_at_too")):
            self.tell(group, a=one, b=other, p=self.at[one], q=self.at[other])
            self.note("go", one, place=self.at[one])
            self.note("go", other, place=self.at[other])
        pairs = self.draw.sample(self.cast, len(self.things))
        for i in range(0, len(pairs) - 1, 2):
            self.tell("scene_own", a=pairs[i], b=pairs[i + 1], o=things[i], x=things[i + 1])
            for j in (i, i + 1):
                self.holder[things[j]] = pairs[j]
                self.note("own", pairs[j], thing=things[j])
        if self.draw.chance(0.35):
            self._count_goods(a, b)

    def _count_goods(self, a: Character, b: Character) -> None:
        self.goods_name = self.draw.pick(lexicon.GOODS)[1]
        self.goods = {a: self.draw.between(6, 12), b: self.draw.between(6, 12)}
        words = lexicon.NUMBERS
        self.tell("scene_count", a=a, b=b, n=words[self.goods[a]], m=words[self.goods[b]], goods=self.goods_name)
        self.note("count", a, other=b, detail=f"{self.goods[a]} {self.goods[b]}")

    def _move(self) -> None:
        draw, who = self.draw, self.draw.pick(self.cast)
        held = [thing for thing in self.things if self.holder.get(thing) is who]
        lying = [thing for thing, place in self.lies.items() if place == self.at[who]]
        company = [other for other in self.cast if other is not who and self.at[other] == self.at[who]]
        if company and held and draw.chance(0.7):
            self.give(who, draw.pick(company), draw.pick(held), "scene_give")
        elif lying and draw.chance(0.6):
            self.take(who, draw.pick(lying), "scene_take")
        elif held and draw.chance(0.35):
            self.put(who, draw.pick(held), "scene_put")
        elif who in self.goods and draw.chance(0.5):
            self._give_goods(who)
        else:
            self._walk(who)
        if draw.chance(0.45):
            self._mislead()

    def _give_goods(self, giver: Character) -> None:
        other = next(who for who in self.goods if who is not giver)
        if self.goods[giver] < 4 or self.goods[other] > 18:
            return self._walk(giver)
        k = self.draw.between(2, min(5, self.goods[giver] - 2, 20 - self.goods[other]))
        self.tell("scene_count_give", a=giver, b=other, k=lexicon.NUMBERS[k], goods=self.goods_name)
        self.goods[giver] -= k
        self.goods[other] += k
        self.note("give_goods", giver, other=other, detail=str(k))

    def _walk(self, who: Character) -> None:
        # People go where others are more often than not, so that things change hands.
        if self.draw.chance(0.6):
            place = self.draw.pick([self.at[other] for other in self.cast if other is not who])
        else:
            place = self.elsewhere(self.at[who])
        if place == self.at[who]:
            return
        start = self.at[who]
        errand = self.errands.pop() if self.errands and self.draw.chance(0.4) else ""
        self.tell(
            "scene_go_why" if errand else "scene_go",
            a=who,
            p=place,
            q=start,
            way=self.world.way(start, place),
            errand=errand,
        )
        self.at[who] = place
        self.mentioned.append(place)
        self.note("go", who, place=place, detail=errand)
        if errand:
            self.reasons[who, place] = errand, len(self.sentences) - 1

    def _mislead(self) -> None:
        """Tell a wrong belief, a wish or a mere thought; the state stays as it is."""
        draw, who = self.draw, self.draw.pick(self.cast)
        thing = draw.pick(self.things)
        if draw.chance(0.55):
            wrong = draw.pick([p for p in self.mentioned if p != self.where(thing)])
            if self.holder.get(thing) is who or self.at[who] == self.where(thing):
                return
            self.tell("scene_belief", a=who, o=thing, p=wrong)
        elif draw.chance(0.5) and self.holder.get(thing) is not who:
            self.tell("scene_wish", a=who, o=thing)
        else:
            place = self.elsewhere(self.at[who])
            self.mentioned.append(place)
            self.tell("scene_plan", a=who, p=place, errand=draw.pick(lexicon.ERRANDS))

    # Questions

    def asks(self) -> list[Ask]:
        """Every question that the scene can answer with certainty."""
        found = [ask for thing in self.things for ask in self._about(thing)]
        for who in self.cast:
            moves = [fact for fact in self.facts if fact.what == "go" and fact.who is who]
            if len(moves) > 1:
                found.append(self._place_ask("where_person", 1, f"Where is {who.name} at the end?", moves[-1]))
                prompt = f"Where was {who.name} just before going to the {moves[-1].place.noun}?"  # type: ignore[union-attr]
                if moves[-2].place != moves[-1].place and sum(m.place == moves[-1].place for m in moves) == 1:
                    found.append(self._place_ask("where_before", 2, prompt, moves[-2]))
        return found + self._whys() + self._counts()

    def _about(self, thing: Thing) -> list[Ask]:
        chain = [f for f in self.facts if f.thing is thing and f.what in ("own", "put", "take", "give")]
        evidence = tuple(f.sentence for f in chain)
        found = []
        owner = next(f for f in chain if f.what == "own").who
        colours = tuple(other.colour for other in self.things if other is not thing)
        found.append(Ask("colour", 1, f"What colour is the {thing.noun}?", thing.colour, colours, evidence[:1]))
        if len(chain) < 2:
            return found
        last = chain[-1]
        if thing in self.lies:
            found.append(self._place_ask("where_thing", len(chain) - 1, f"Where is the {thing.noun} at the end?", last))
        else:
            holder = self.holder[thing]
            moves = [f for f in self.facts if f.what == "go" and f.who is holder]
            ask = self._place_ask("where_held", len(chain) + 1, f"Where is the {thing.noun} at the end?", moves[-1])
            found.append(ask._replace(evidence=(*evidence, *ask.evidence)))
            if len(chain) > 1:
                prompt = f"Who has the {thing.noun} at the end?"
                found.append(self._who("who_has", len(chain) - 1, prompt, holder, evidence))
        found.append(self._who("who_first", 1, f"Who had the {thing.noun} at the beginning?", owner, evidence[:1]))
        gifts = [f for f in chain if f.what == "give"]
        if len(gifts) >= 1 and gifts[-1].other is not None:
            colour = f"What colour is the thing that {gifts[-1].who.name} gave to {gifts[-1].other.name}?"
            twin = [f for f in self.facts if f.what == "give" and f.who is gifts[-1].who and f.other is gifts[-1].other]
            if len(twin) == 1:
                found.append(Ask("colour_given", 2, colour, thing.colour, colours, (evidence[0], gifts[-1].sentence)))
        if len(gifts) == 1 and len(chain) > 2:
            prompt = f"Who got the {thing.noun} from {gifts[0].who.name}?"
            found.append(self._who("who_got", 1, prompt, gifts[0].other, (gifts[0].sentence,), gifts[0].who))
        return found

    def _who(
        self, kind: str, hops: int, prompt: str, who: Character | None, evidence: tuple, _not: Character | None = None
    ) -> Ask:
        assert who is not None
        others = tuple(other.name for other in self.cast if other is not who)
        return Ask(kind, hops, prompt, who.name, others, evidence)

    def _place_ask(self, kind: str, hops: int, prompt: str, fact: Fact) -> Ask:
        place = fact.place
        assert place is not None
        said = [p for p in dict.fromkeys(reversed(self.mentioned)) if p != place]
        return Ask(
            kind,
            hops,
            prompt,
            f"{place.where} the {place.noun}",
            tuple(f"{p.where} the {p.noun}" for p in said),
            (fact.sentence,),
        )

    def _whys(self) -> list[Ask]:
        reasons = [errand for errand, _ in self.reasons.values()]
        unsaid = [errand for errand in lexicon.ERRANDS if errand not in reasons]
        found = []
        for (who, place), (errand, sentence) in self.reasons.items():
            visits = [f for f in self.facts if f.what == "go" and f.who is who and f.place == place]
            if len(visits) == 1 and len(reasons) > 1:
                others = tuple(f"to {r}" for r in [*(r for r in reasons if r != errand), *self.draw.sample(unsaid, 3)])
                prompt = f"Why did {who.name} go to the {place.noun}?"
                found.append(Ask("why", 1, prompt, f"to {errand}", others, (sentence,)))
        return found

    def _counts(self) -> list[Ask]:
        gifts = [f for f in self.facts if f.what == "give_goods"]
        if not gifts:
            return []
        evidence = tuple(f.sentence for f in self.facts if f.what in ("count", "give_goods"))
        found = []
        for who, number in self.goods.items():
            near = [n for n in (number - 2, number - 1, number + 1, number + 2, number + 3, number - 3) if 0 < n <= 20]
            others = tuple(lexicon.NUMBERS[n] for n in self.draw.sample(near, 3))
            prompt = f"How many {self.goods_name} does {who.name} have at the end?"
            found.append(Ask("how_many", 1 + len(gifts), prompt, lexicon.NUMBERS[number], others, evidence))
        return found


def make_scene(draw: Random, world: World, testing: bool) -> Scene:
    """A scene of four to eight moves."""
    scene = Scene(draw, world, testing)
    scene.play(draw.between(4, 8))
    return scene
