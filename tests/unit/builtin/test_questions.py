"""Questions: answerable with certainty, and not by a glance at the surface."""

import re
from collections import Counter

import pytest

from groundup.data.builtin import stories
from groundup.data.builtin.stories import lexicon
from groundup.data.builtin.stories.arithmetic import problem, wrong
from groundup.data.builtin.stories.questions import WEIGHTS
from groundup.data.builtin.stories.scenes import make_scene
from groundup.data.builtin.stories.world import Random, pick_world
from groundup.evaluation.baselines import KneserNey, NearestQuestion, NearestSentence, accuracy


@pytest.fixture(scope="module")
def questions():
    return stories.questions(400, seed=0, split="test")


def test_shape(questions):
    for q in questions:
        assert len(set(q.choices)) == len(q.choices) == 4
        assert 0 <= q.answer < 4
        assert q.stem.endswith("Answer:")
        assert q.hops >= 1
    share = Counter(q.answer for q in questions)
    assert all(70 < share[i] < 135 for i in range(4))
    assert {q.kind for q in questions} == set(WEIGHTS)
    assert stories.questions(5, seed=0) == questions[:5]
    assert {q.kind for q in stories.questions(5, kind="who_has")} == {"who_has"}


def replay(scene):
    """Where everything is and who has what, from the noted facts alone: a second opinion on the scene's own state."""
    at, holder, lies, goods = {}, {}, {}, {}
    for fact in scene.facts:
        if fact.what == "go":
            at[fact.who] = fact.place
        elif fact.what in ("own", "take"):
            assert fact.what == "own" or lies.pop(fact.thing) == at[fact.who]
            holder[fact.thing] = fact.who
        elif fact.what == "put":
            assert holder.pop(fact.thing) is fact.who
            lies[fact.thing] = at[fact.who]
        elif fact.what == "give":
            assert holder[fact.thing] is fact.who
            assert at[fact.who] == at[fact.other]
            holder[fact.thing] = fact.other
        elif fact.what == "count":
            goods[fact.who], goods[fact.other] = map(int, fact.detail.split())
        elif fact.what == "give_goods":
            goods[fact.who] -= int(fact.detail)
            goods[fact.other] += int(fact.detail)
    return at, holder, lies, goods


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_the_stated_facts(split):
    kinds = Counter()
    for i in range(250):
        draw = Random("certain", split, i)
        scene = make_scene(draw, pick_world(draw, split), split == "test")
        at, holder, lies, goods = replay(scene)
        for fact in scene.facts:
            sentence = scene.sentences[fact.sentence]
            assert fact.thing is None or fact.thing.noun in sentence
            assert fact.place is None or fact.place.noun in sentence or fact.what in ("put", "take")
            assert fact.what != "give" or fact.other.name in sentence or fact.who.name in sentence
        for ask in scene.asks():
            kinds[ask.kind] += 1
            named = re.search(r"the (\w+) at the end", ask.prompt)
            thing = next((t for t in scene.things if named and t.noun == named[1]), None)
            if ask.kind in ("where_thing", "where_held"):
                place = at[holder[thing]] if thing in holder else lies[thing]
                assert ask.answer == f"{place.where} the {place.noun}"
            elif ask.kind == "who_has":
                assert ask.answer == holder[thing].name
            elif ask.kind == "where_person":
                who = next(w for w in scene.cast if w.name == ask.prompt.split()[2])
                assert ask.answer.endswith(at[who].noun)
            elif ask.kind == "how_many":
                who = next(w for w in scene.cast if f"does {w.name} have" in ask.prompt)
                assert ask.answer == lexicon.NUMBERS[goods[who]]
            assert ask.answer not in ask.others
    assert set(kinds) == set(WEIGHTS)


def test_wrong_beliefs_are_wrong():
    """What somebody believes of a thing's place is never where it is when the sentence is told."""
    checked = 0
    for i in range(200):
        draw = Random("belief", i)
        scene = make_scene(draw, pick_world(draw, "train"), False)
        for number, sentence in enumerate(scene.sentences):
            found = re.search(r"(?:believed|thought) that the (?:\w+ )??(\w+) was \w+ the ([\w ]+)\.", sentence)
            if not found:
                continue
            scene_so_far = [fact for fact in scene.facts if fact.sentence < number]
            at, holder, lies, _ = replay(type("Told", (), {"facts": scene_so_far}))
            thing = next(t for t in scene.things if sentence.split(" was ")[0].endswith(t.noun))
            place = at[holder[thing]] if thing in holder else lies[thing]
            assert place.noun != found[2]
            checked += 1
    assert checked > 20


def test_surface_baselines_stay_under_forty_percent(questions):
    corpus = [d.text.encode() for d in stories.documents(stories.StoriesConfig(bytes=600_000))]
    assert accuracy(KneserNey().fit(corpus), questions) < 0.40
    assert accuracy(NearestSentence(), questions) < 0.40
    assert accuracy(NearestQuestion().fit(stories.questions(600, seed=1, split="train")), questions) < 0.40


@pytest.mark.parametrize("where", ["first", "last", "most"])
def test_position_and_frequency_do_not_give_the_answer_away(questions, where):
    rate = {
        "first": lambda q, c: -(q.context.find(c) % 10**6),
        "last": lambda q, c: q.context.rfind(c),
        "most": lambda q, c: q.context.count(c),
    }
    guesses = [max(range(4), key=lambda i: rate[where](q, q.choices[i])) for q in questions]
    assert sum(g == q.answer for g, q in zip(guesses, questions, strict=True)) / len(questions) < 0.45


def test_arithmetic_is_right_and_its_wrong_twin_is_not():
    for i in range(500):
        draw = Random("sum", i)
        task = problem(draw, pick_world(draw, "train"))
        value = None
        for step in task.steps:
            left, op, right, result = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", step).groups()
            left, right, result = int(left), int(right), int(result)
            assert value in (None, left)
            value = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[op]
            assert value == result
            assert op != "/" or left % right == 0
        assert value == task.answer
        assert wrong(draw, task).answer != task.answer
        assert wrong(draw, task).solution() != task.solution()


def test_conversations_and_preferences():
    for talk in stories.conversations(200, split="test"):
        roles = [m["role"] for m in talk["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() for m in talk["messages"])
    pairs = list(stories.preferences(200))
    assert all(p["chosen"] != p["rejected"] for p in pairs)
    assert len({p["prompt"] for p in pairs}) == len(pairs)
    assert list(stories.preferences(5)) == pairs[:5]
