"""Whole stories: a beginning, a chain of episodes, an end."""

from groundup.data.builtin.stories.episodes import EPISODES, aside
from groundup.data.builtin.stories.story import Story
from groundup.data.builtin.stories.templates import openings


def held_out_pair(first: int, second: int) -> bool:
    """Whether two episodes follow each other in this order in testing only: one pair in five."""
    return (first * 7 + second * 3) % 5 == 0


def plot(story: Story, length: int) -> list[int]:
    """A chain of different episodes; training has no held-out pair, testing begins with one where it has two."""
    draw = story.draw
    chain = [draw.below(len(EPISODES))]
    while len(chain) < length:
        wanted = story.testing and len(chain) == 1
        fitting = [
            i
            for i in range(len(EPISODES))
            if i not in chain
            and (story.testing or not held_out_pair(chain[-1], i))
            and held_out_pair(chain[-1], i) >= wanted
        ]
        chain.append(draw.pick(fitting))
    return chain


def begin(story: Story) -> None:
    """The first paragraph: who, where, when."""
    a, b, c = story.cast[:3]
    draw = story.draw
    story.tell("begin", a=a, p=a.home)
    if draw.chance(0.6):
        sky = draw.pick(openings.SKIES[story.season])
        story.tell("sky", smell=draw.pick(openings.SMELLS), sky=sky)
    if draw.chance(0.6):
        story.tell("friends", a=a, b=b, c=c, rest=draw.pick(("", "", " and {c:full}")))
    if draw.chance(0.6):
        story.own(a, story.new_thing())
    aside(story, a, b, 0.3)


def end(story: Story) -> None:
    """The last words."""
    a = story.cast[0]
    b = next((who for who in story.cast[1:] if who in story.known), story.cast[1])
    pick = story.draw.pick
    place = story.at[a]
    story.tell("end", a=a, b=b, p=place, dream=pick(openings.DREAMS), moral=pick(openings.MORALS))


def tell_story(story: Story, length: int) -> list[int]:
    """A whole story of `length` episodes; returns their numbers."""
    chain = plot(story, length)
    begin(story)
    for number in chain:
        story.paragraph()
        EPISODES[number](story)
    story.paragraph()
    end(story)
    return chain
