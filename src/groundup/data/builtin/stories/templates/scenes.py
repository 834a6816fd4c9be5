"""Short plain sentences of who goes where with what; several people and things, easily confused."""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "scene_at": (
        "[That morning|At the beginning|To begin with|One day|One {season} day], {a} was {p:at}[, {b} was {q:at}, and {c} was {r:at}| while {b} was {q:at} and {c} {r:at}].",
        "{a} had spent the night {p:at}, {b} {q:at}, and {c} {r:at}.",
        "[It was early|The day began quietly]: {a} sat {p:at}, {b} stood {q:at}, and {c} was [busy|half asleep] {r:at}.",
        "~When the day began, one could find {a} {p:at}, {b} {q:at} and {c} {r:at}.",
    ),
    "scene_own": (
        "{a} [had|carried|had with {a:him}] {o:a}, {b} {x:a}, and {c} {y:a}.",
        "With {a} was {o:a}; {b} had {x:a}, and {c} had {y:a}.",
        "{o:a} belonged to {a}, {x:a} to {b}, and {y:a} to {c}.",
        "~In {a:n}'s bag there was {o:a}, in {b:n}'s {x:a}, and in {c:n}'s {y:a}.",
    ),
    "scene_go": (
        "[Then|After that|Soon|A little later|Next|], {a} <walked> {p:to}[|, {way}| and looked around].",
        "{a} [had enough of {q} and|left {q} and] <walked> {p:to}.",
        "{a} <walked> {p:to}, because {a:he} wanted to {errand}.",
        "~[It was {a} who|And {a}] now set out {p:to}, {way}.",
    ),
    "scene_go_why": (
        "{a} <walked> {p:to}[|, {way},] [because {a:he} wanted to {errand}|in order to {errand}|to {errand}].",
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
        "{a} [found {o} there and kept it|picked up {o}|took {o}, since nobody seemed to want it].",
        "~Seeing {o} {p:at}, {a} took it.",
    ),
    "scene_give": (
        "{a} [gave|handed|lent|passed] {o} to {b}[| with a nod| without a word].",
        '"[Here, take|You may have] {o}," <said> {a:n}, and gave it to {b}.',
        "{b} asked for {o}, and {a:n} gave it to {b:o}.",
        "~{b} received {o} from {a:n}[, and was pleased with it|].",
    ),
    "scene_belief": (
        "{a}, who [knew nothing of this|had seen nothing], [still thought|believed] that {o} was {p:at}.",
        '"{o} must be {p:at}," <said> {a:n}, who [had not been told|did not know better]; but {a:he} was wrong.',
        "~In {a:n}'s mind, {o} was {p:at}; but {a:he} was mistaken.",
    ),
    "scene_wish": (
        "{a} [would have liked|was longing] to have {o}, but nobody offered it to {a:o}.",
        "{a} [spoke of|dreamed of] {o} again and again[, but did not get it|, in vain].",
        "~For a long time {a} talked of nothing but {o}, though without getting it.",
    ),
    "scene_plan": (
        "{a} [thought of going|had half a mind to go] {p:to}, but [stayed where {a:he} was|it looked like rain|{a:his} feet hurt].",
        "~A walk {p:to} would have pleased {a:n}, but nothing came of it.",
    ),
}
