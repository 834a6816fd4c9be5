"""Short plain sentences of who goes where with what: several people and things that are easily confused.

The sentences of one group are alike in their words, and some tell what did not happen: a reader has to keep track.
"""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "scene_at": (
        "[One {season} morning|That morning|At the beginning|To begin with], {a} was {p:at} and {b} [was|stood|sat] {q:at}.",
        "{a} had spent the night {p:at}, {b} {q:at}.",
        "{a} was [busy|half asleep|all alone|whistling] {p:at}, while {b} was [working|resting|having breakfast] {q:at}.",
        "~When the day began, one could find {a} {p:at} and {b} {q:at}.",
    ),
    "scene_at_too": (
        "{a} was [busy|half asleep|alone|bored|at work] {p:at}, [and|while] {b} was {q:at}.",
        "{a} had slept {p:at}, {b} {q:at}.",
        "[Meanwhile|At the same time|As for the others], {a} [stood|sat|was] {p:at} and {b} [was|waited] {q:at}.",
        "~As for {a:n} and {b:n}, the one was {p:at} and the other {q:at}.",
    ),
    "scene_own": (
        "{a} [had|carried|had brought along] {o:a}, and {b} had {x:a}.",
        "With {a:n} was {o:a}; {b} had {x:a}.",
        "[{o:a} belonged to {a:o}|{a} was carrying {o:a} about], and {b} never went out without {x:a}.",
        "~{a} was not to be seen without {o:a}, nor {b} without {x:a}.",
    ),
    "scene_go": (
        "[Then |After that, |Soon |A little later, |Next, |]{a} <walked> {p:to}[|, {way}| and looked around].",
        "{a} [had enough of {q} and|left {q} and] <walked> {p:to}.",
        "{way}, {a} came {p:to}.",
        "~[It was {a:n} who|And {a}] now set out {p:to}, {way}.",
    ),
    "scene_go_why": (
        "{a} <walked> {p:to} [because {a:he} wanted to {errand}|in order to {errand}|to {errand}].",
        "Wanting to {errand}, {a} <walked> {p:to}.",
        "~{a} had to {errand}, and so {a:he} <walked> {p:to}.",
    ),
    "scene_put": (
        "{a} [put {o} down|left {o}|set {o} down] {p:at}[|, <look>|, for it was heavy].",
        "There {a} [put down|left|laid down] {o}[|, <look>].",
        "~{o}, which had grown heavy, was left {p:at} by {a:n}.",
    ),
    "scene_take": (
        "{a} saw {o} lying {p:at} and [took it along|picked it up].",
        "{a} [found {o} there and kept it|picked up {o}|took {o}, since nobody else seemed to want it].",
        "~Seeing {o} {p:at}, {a} took it.",
    ),
    "scene_give": (
        "{a} [gave|handed|passed] {o} to {b:n}[| with a nod| without a word].",
        '"[Here, take|You may have] {o}," <said> {a:n}, and gave it to {b:n}.',
        "{b} asked {a:n} for {o}, and got it[| at once| gladly].",
        "~{b} received {o} from {a:n}[, and was pleased with it|].",
    ),
    "scene_belief": (
        "{a}, who [knew nothing of this|had not been told], [still thought|believed] that {o} was {p:at}.",
        '"{o} must be {p:at}," <said> {a:n}, who [had not been told|did not know better]; but {a:he} was wrong.',
        "~In {a:n}'s mind, {o} was still {p:at}; but {a:he} was mistaken.",
    ),
    "scene_wish": (
        "{a} [would have liked|was longing] to have {o}, but nobody offered it to {a:o}.",
        "{a} asked for {o}, but was told to wait, and got nothing.",
        "~For a long time {a} talked of nothing but {o}, though without getting it.",
    ),
    "scene_plan": (
        "{a} [thought of going|had half a mind to go] {p:to}[ to {errand}|], but [did not|stayed where {a:he} was|{a:his} feet hurt too much].",
        "~A walk {p:to} [would have pleased|was tempting for] {a:n}, but nothing came of it.",
    ),
    "scene_count": (
        "{a} had {n} {goods}, and {b} had {m}.",
        "There were {n} {goods} in {a:n}'s basket and {m} in {b:n}'s.",
        "~{a:n}'s share was {n} {goods}, {b:n}'s was {m}.",
    ),
    "scene_count_give": (
        "{a} gave {k} {goods} to {b:n}.",
        "Of {a:n}'s {goods}, {k} went to {b:n}.",
        "{b} got {k} {goods} from {a:n}.",
        "~{b} took {k} {goods} which {a:n} could spare.",
    ),
}
