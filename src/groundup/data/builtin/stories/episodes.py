"""Episodes: small plots with a cause, a hindrance and a consequence. A story is a chain of them.

Each episode takes a story, moves its people and things, and tells what happens. They can follow one another in any
order, because they ask the story where everyone is and who has what.
"""

from collections.abc import Callable

from groundup.data.builtin.stories import lexicon
from groundup.data.builtin.stories.story import Story
from groundup.data.builtin.stories.templates import deeds, events, friends, openings
from groundup.data.builtin.stories.world import Character

Episode = Callable[[Story], None]


def _people(story: Story) -> list[Character]:
    """The cast with the hero nearly always first."""
    if story.draw.chance(0.7):
        return [story.cast[0], *story.draw.sample(story.cast[1:], len(story.cast) - 1)]
    return story.draw.sample(story.cast, len(story.cast))


def aside(story: Story, one: Character, other: Character, probability: float = 0.4) -> None:
    """Perhaps some talk, or a moment of quiet."""
    if not story.draw.chance(probability):
        return
    pick = story.draw.pick
    if story.draw.chance(0.5) and story.at[one] == story.at[other]:
        story.tell(
            "chat", a=one, b=other, musing=pick(friends.MUSINGS), news=pick(friends.NEWS), topic=pick(friends.TOPICS)
        )
    else:
        story.tell("plain", a=one, topic=pick(friends.TOPICS), thought=pick(deeds.THOUGHTS))


def together(story: Story, one: Character, other: Character) -> None:
    """Bring `one` to where `other` is."""
    if story.at[one] == story.at[other]:
        if story.draw.chance(0.3):
            story.tell("fetch", a=one, b=other)
        return
    if story.draw.chance(0.6):
        story.go(one, story.at[other])
        if story.draw.chance(0.7):
            story.tell("meet", a=one, b=other)
    else:
        story.go(other, story.at[one])


def lost(story: Story) -> None:
    """Something is lost, looked for in vain, and found elsewhere."""
    a, b, *_ = _people(story)
    thing = story.something_of(a)
    story.tell(
        "lost", a=a, o=thing, t=story.time(), time=story.draw.pick(("all of a sudden", "in alarm", "again and again"))
    )
    together(story, a, b)
    story.tell("ask_help", a=a, b=b, o=thing)
    wrong = story.elsewhere(story.at[a])
    spot = story.elsewhere(story.at[a], wrong)
    story.paragraph()
    story.tell("search", a=a, b=b, o=thing, p=wrong)
    aside(story, a, b, 0.25)
    finder = story.draw.pick((a, b))
    story.tell("found", a=a, o=thing, p=spot, finder=finder)
    story.at[a] = story.at[b] = spot
    story.note("find", finder, thing=thing, place=spot)
    if story.draw.chance(0.6):
        story.tell("why_lost", a=a, why=story.draw.pick(("", "", " the day before", ", of all days on a Monday")))
    story.tell("handed_back" if finder is b else "kept_found", a=a, b=b, o=thing)


def storm(story: Story) -> None:
    """A storm takes something away."""
    a, b, *_ = _people(story)
    thing = story.something_of(a)
    story.tell("rain", t=story.time(), sky_bad=story.draw.pick(openings.STORMS))
    landing = story.elsewhere(story.at[a])
    story.tell("blown", a=a, o=thing, p=landing)
    del story.holder[thing]
    story.lies[thing] = landing
    story.note("put", a, thing=thing, place=landing)
    refuge = story.elsewhere(story.at[a], landing)
    story.tell("shelter", a=a, p=refuge)
    story.at[a] = refuge
    story.note("go", a, place=refuge)
    if story.at[b] == refuge:
        story.tell("meet", a=a, b=b)
    aside(story, a, b, 0.6)
    story.tell("after_rain", a=a, o=thing, p=landing, damage=story.draw.pick(events.DAMAGES))
    story.at[a] = landing
    del story.lies[thing]
    story.holder[thing] = a
    story.note("take", a, thing=thing, place=landing)


def journey(story: Story) -> None:
    """Someone sets out to see something, and an obstacle lies in the way."""
    a, b, *_ = _people(story)
    goal = story.elsewhere(story.at[a])
    sight = story.draw.pick(lexicon.SIGHTS)
    story.tell("wish_see", a=a, t=story.time(), sight=sight, r=goal)
    story.note("see", a, place=goal, detail=sight)
    trouble = story.draw.pick(tuple(events.TROUBLES))
    if story.draw.chance(0.4):
        between = story.elsewhere(story.at[a], goal)
        story.go(a, between)
        if story.at[b] == between:
            story.tell("meet", a=a, b=b)
        aside(story, a, b)
    story.tell("obstacle", a=a, trouble=trouble, way_out=story.draw.pick(events.TROUBLES[trouble]))
    story.go(a, goal, "arrive")
    story.tell("saw", a=a, sight=sight)
    if story.draw.chance(0.6):
        story.tell("brought_back", a=a, b=b)


def missing(story: Story) -> None:
    """Goods are missing; tracks lead to someone who had a reason."""
    a, b, *_ = _people(story)
    scene, goods = story.at[a], story.draw.pick(lexicon.GOODS)[1]
    number = lexicon.NUMBERS[story.draw.between(2, 12)]
    den = story.elsewhere(scene)
    story.tell("missing", a=a, t=story.time(), p=scene, n=number, goods=goods)
    story.tell("tracks", a=a, p=den)
    story.go(a, den)
    story.at[b] = den
    story.tell("culprit", a=a, b=b, goods=goods, excuse=story.draw.pick(events.EXCUSES))
    story.note("took", b, detail=goods, other=a)
    story.tell("forgiven", a=a, b=b, mercy=story.draw.pick(events.MERCIES))


def race(story: Story) -> None:
    """Two run for a prize."""
    a, b, *_ = _people(story)
    start = len(story.sentences)
    together(story, a, b)
    field = story.at[a]
    goal = story.elsewhere(field)
    prize = story.new_thing()
    story.tell("race", a=a, b=b, t=story.soon(start), q=field, p=goal, r=goal, o=prize)
    story.tell("race_middle", a=a, b=b, slip=story.draw.pick(events.SLIPS))
    story.tell("race_won", a=a, b=b, p=goal, o=prize)
    story.at[a] = story.at[b] = goal
    story.holder[prize] = a
    story.note("win", a, thing=prize, other=b)


def trade(story: Story) -> None:
    """An exchange is offered, and accepted or not."""
    a, b, *_ = _people(story)
    start = len(story.sentences)
    mine, theirs = story.something_of(a), story.something_of(b)
    together(story, a, b)
    story.tell("wants", a=a, b=b, t=story.soon(start), q=theirs)
    story.tell("offer", a=a, b=b, o=mine, q=theirs)
    if story.draw.chance(0.7):
        story.tell("traded", a=a, b=b, o=mine, q=theirs)
        story.holder[mine], story.holder[theirs] = b, a
        story.note("give", a, thing=mine, other=b)
        story.note("give", b, thing=theirs, other=a)
    else:
        story.tell("refused", a=a, b=b, o=mine)


def promise(story: Story) -> None:
    """A promise, a distraction, a word kept."""
    a, b, *_ = _people(story)
    start = len(story.sentences)
    together(story, a, b)
    asked = story.draw.pick(tuple(friends.FAVOURS))
    done = friends.FAVOURS[asked]
    story.tell("promise", a=a, b=b, t=story.soon(start), favour=asked, favour2=done)
    story.note("promise", a, other=b, detail=done)
    story.tell("nearly", a=a, b=b, distraction=story.draw.pick(friends.DISTRACTIONS))
    aside(story, a, b, 0.3)
    story.tell("kept_word", a=a, b=b, favour2=done)


def quarrel(story: Story) -> None:
    """Two fall out over a thing; a third makes peace."""
    a, b, c, *_ = _people(story)
    start = len(story.sentences)
    thing = story.something_of(story.draw.pick((a, b)))
    together(story, a, b)
    story.tell("quarrel", a=a, b=b, o=thing, t=story.soon(start), cause=story.draw.pick(friends.CAUSES))
    story.note("quarrel", a, other=b, thing=thing)
    one, other = story.draw.sample(friends.SULKS, 2)
    story.tell("sulk", a=a, b=b, sulking=one, sulking2=other)
    story.paragraph()
    story.tell(
        "mediate",
        a=a,
        b=b,
        c=c,
        p=story.at[c],
        advice=story.draw.pick(friends.ADVICE),
        fools=story.draw.pick(friends.FOOLS),
    )
    story.at[a] = story.at[b] = story.at[c]
    story.tell("peace", a=a, b=b, pact=story.draw.pick(friends.PACTS))


def secret(story: Story) -> None:
    """A present is hidden, a friend keeps the secret, and it is given."""
    a, b, c, *_ = _people(story)
    start = len(story.sentences)
    thing = story.something_of(a)
    together(story, b, a)
    place = story.at[a]
    story.tell("hide", a=a, b=b, o=thing, p=place, t=story.soon(start))
    del story.holder[thing]
    story.lies[thing] = place
    story.note("put", a, thing=thing, place=place)
    story.tell("pry", a=a, b=b, c=c, o=thing)
    aside(story, b, a, 0.3)
    story.paragraph()
    story.tell("reveal", a=a, b=b, c=c, o=thing, p=place)
    del story.lies[thing]
    story.holder[thing] = c
    story.note("give", a, thing=thing, other=c)


def borrow(story: Story) -> None:
    """A thing is borrowed, left behind, and brought back."""
    a, b, *_ = _people(story)
    start = len(story.sentences)
    thing = story.something_of(b)
    together(story, a, b)
    story.tell(
        "borrow",
        a=a,
        b=b,
        o=thing,
        t=story.soon(start),
        errand_why=story.draw.pick(
            (
                "nothing else would do",
                "there was work to do",
                "it was just what {a:he} needed",
                "{a:his} own was broken",
            )
        ),
    )
    place = story.elsewhere(story.at[a])
    story.tell("used", a=a, b=b, o=thing, p=place)
    aside(story, a, b, 0.3)
    story.tell("returned", a=a, b=b, o=thing, p=place)
    story.note("lend", b, thing=thing, other=a, place=place)


def cooking(story: Story) -> None:
    """A dish lacks something, and a friend has it."""
    a, b, *_ = _people(story)
    dish, lack = story.draw.pick(lexicon.DISHES), story.draw.pick(deeds.LACKS)
    story.tell("cook", a=a, t=story.time(), dish=dish, lack=lack)
    together(story, a, b)
    story.tell("ingredient", a=a, b=b, lack=lack)
    story.note("cook", a, detail=dish, other=b)
    story.tell("eaten", a=a, b=b, dish=dish, taste=story.draw.pick(deeds.TASTES))


def lesson(story: Story) -> None:
    """One teaches another a skill."""
    a, b, *_ = _people(story)
    start = len(story.sentences)
    together(story, b, a)
    skill = story.draw.pick(lexicon.SKILLS)
    one, other = story.draw.sample(deeds.FAILURES, 2)
    story.tell("lesson", a=a, b=b, t=story.soon(start), skill=skill)
    story.note("teach", a, other=b, detail=skill)
    story.tell("try", a=a, b=b, failure=one, failure2=other)
    aside(story, a, b, 0.3)
    story.tell("learned", a=a, b=b, skill=skill)


def helping(story: Story) -> None:
    """Somebody is in trouble; help comes, and thanks."""
    a, b, *_ = _people(story)
    trouble = story.draw.pick(tuple(deeds.TROUBLES))
    place = story.at[b]
    story.tell(
        "stuck", a=a, b=b, t=story.time(), p=place, trouble=trouble, trouble_cap=trouble[0].upper() + trouble[1:]
    )
    story.note("trouble", b, place=place, detail=trouble, other=a)
    story.go(a, place)
    story.tell("helped", a=a, b=b, remedy=story.draw.pick(deeds.TROUBLES[trouble]))
    present = story.something_of(b)
    story.give(b, a, present, "reward")


def errand(story: Story) -> None:
    """Something is to be brought from one to another."""
    a, b, c, *_ = _people(story)
    start = len(story.sentences)
    together(story, a, b)
    if story.at[c] == story.at[a]:
        story.go(c, story.elsewhere(story.at[c]))
    thing = story.new_thing()
    place = story.at[c]
    story.tell("errand", a=a, b=b, c=c, o=thing, p=place, t=story.soon(start))
    story.holder[thing] = a
    hindered = story.draw.chance(0.5)
    if hindered:
        trouble = story.draw.pick(tuple(events.TROUBLES))
        story.tell("obstacle", a=a, trouble=trouble, way_out=story.draw.pick(events.TROUBLES[trouble]))
    story.go(a, place, "arrive" if hindered else "go")
    story.tell("deliver", a=a, b=b, c=c, o=thing, p=place)
    story.holder[thing] = c
    story.note("give", a, thing=thing, other=c)


def feast(story: Story) -> None:
    """All come together."""
    a, b, c, *_ = _people(story)
    place = story.elsewhere(story.at[a])
    dishes = story.draw.sample(lexicon.DISHES, 2)
    story.tell(
        "feast",
        a=a,
        b=b,
        c=c,
        t=story.time(),
        p=place,
        g1=dishes[0],
        g2=dishes[1],
        act=story.draw.pick(deeds.FEAST_ACTS),
    )
    for who in story.cast:
        story.at[who] = place
    story.note("bring", a, detail=dishes[0], place=place)
    story.note("bring", b, detail=dishes[1], place=place)
    aside(story, a, b, 0.5)
    story.tell("feast_end", p=place)


def sharing(story: Story) -> None:
    """Goods are counted and given away."""
    a, b, *_ = _people(story)
    together(story, a, b)
    have = story.draw.between(5, 14)
    given = story.draw.between(2, have - 2)
    words = lexicon.NUMBERS
    goods = story.draw.pick(lexicon.GOODS)[1]
    story.tell("count", a=a, b=b, n=words[have], m=words[given], left=words[have - given], goods=goods)
    story.note("count", a, other=b, detail=f"{have} {given} {goods}")
    aside(story, a, b)


EPISODES: tuple[Episode, ...] = (
    lost,
    storm,
    journey,
    missing,
    race,
    trade,
    promise,
    quarrel,
    secret,
    borrow,
    cooking,
    lesson,
    helping,
    errand,
    feast,
    sharing,
)
