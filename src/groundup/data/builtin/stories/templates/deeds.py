"""Cooking, lessons, helping, errands, feasts."""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "cook": (
        "{t}, {a} [wanted to make|decided to cook] {dish}. Everything was there except {lack}.",
        '{t}, {a} [tied on an apron|lit the stove]. "Today there will be {dish}," {a:he} <said>. But there was no {lack} in the house.',
        "~{t}, it was to be {dish}. The pot was ready; what {a} had forgotten was {lack}.",
    ),
    "ingredient": (
        '"[Take some of mine|I have plenty]," <said> {b:n}, and [filled a jar|brought a big bag of it].',
        "{b} had [enough for two|some to spare] and gave {a:o} half[, for a share of the meal|].",
        "~It turned out that {b} had more {lack} than {b:he} could ever use.",
    ),
    "eaten": (
        "Soon it [smelled so good that|was done, and] all the neighbours came. There was {dish} for everyone, and {taste}.",
        "{a} stirred and tasted, tasted and stirred. The {dish} was [a great success|a little burnt at the edges, but nobody minded], and {taste}.",
        "~When the lid came off, nobody spoke for a while, and {taste}.",
    ),
    "lesson": (
        '{t}, {b} <asked>: "Can you teach me to {skill}?" "[Nothing easier|If you are patient|With pleasure]," <said> {a:n}.',
        "{t}, {a} began to teach {b:n} to {skill}. {b} had wanted to learn it for years.",
        "~{t}, {b} confessed that {b:he} had never learned to {skill}. {a} offered to show {b:o}.",
    ),
    "try": (
        "The first time, {b} {failure}. The second time, {b:he} {failure2}. [It was hopeless|{a} did not laugh, which was kind|Even so, {b:he} went on].",
        '{b} {failure}, and {failure2}. "[Once more|Again|Slowly]!" <said> {a:n}.',
        "~It began badly: {b} {failure}. It went on badly too, for {b:he} {failure2}.",
    ),
    "learned": (
        "But on the third try {b:he} [could do it|did it], [as if {b:he} had done it all {b:his} life|and nobody was more surprised than {b:he} was].",
        "<atlast>, it worked. {b} [beamed|did it again, and again, until it was dark], and now {b:he} knew how to {skill}.",
        "~And then, when nobody expected it any more, {b} could {skill} [better than the teacher|as well as anyone].",
    ),
    "stuck": (
        "{t}, {b} was in trouble {p:at}: {trouble}.",
        '{t}, a cry came from {p}. "Help!" It was {b:n}. {trouble_cap}.',
        "~{t}, whoever passed {p} could see {b} there, close to tears: {trouble}.",
    ),
    "helped": (
        "{a} [did not wait to be asked|rolled up {a:his} sleeves]. {a:he} {remedy}, and [in an hour|before long] all was well.",
        '"[Do not worry|Leave it to me|We shall see about that]," <said> {a:n}, who {remedy}.',
        "~What {b} could not do alone, was easy for two: {a} {remedy}.",
    ),
    "reward": (
        'To thank {a:o}, {b} gave {a:n} {o}. "[It is yours now|Keep it]," {b:he} <said>.',
        '"You shall have my {o:full} for that," <said> {b:n}, and {a} [could not refuse|took it with both hands].',
        "~{b} would not let {a:n} leave without a present: it was {o}, and {a} has it to this day.",
    ),
    "errand": (
        '{t}, {b} <asked> {a:n}: "Could you carry {o:a} to {c:n} {p:at}? I [have a bad foot|cannot leave the oven|must stay with the children]." And {b:he} gave it to {a:n}.',
        "{t}, {b} gave {a:n} {o:a}, which was to go to {c:n} {p:at}.",
        "~{t}, there was an errand to run: {b} had {o:a} for {c:n}, who was {p:at}, and gave it to {a:n} to deliver.",
    ),
    "deliver": (
        '"This is for you, from {b:n}," <said> {a:n}, and gave {o} to {c:o}. "[I have been waiting for it|What a surprise|At last]!" <said> {c:n}.',
        "{c} was already standing {p:at} when {a:n} came, and took {o} from {a:o} [with both hands|with a bow].",
        "~So {o} came safely to {c:n}, who paid {a:n} with [a song|a kiss on the cheek|a warm bun].",
    ),
    "feast": (
        "{t}, there was a [feast|party|dance] {p:at}. {a} brought {g1}, {b} brought {g2}, and {c} {act}.",
        "{t}, everyone gathered {p:at}: {a} with {g1}, {b} with {g2}. {c} {act}.",
        "~{t}, lamps were hung {p:at}. There were {g1} from {a:n} and {g2} from {b:n}, and {c} {act}.",
    ),
    "feast_end": (
        "[They danced until|Nobody went home before] [the moon was down|the cock crowed|the last candle went out].",
        "[The oldest of all|A stranger passing through] said that there had never been such a [night|feast] {world}.",
        "~Some say that one can still find crumbs of that feast {p:at}.",
    ),
    "count": (
        "{a} had {n} {goods}. {a:he} gave {m} of them to {b:n}, and so {left} were left.",
        "Of {a:his} {n} {goods}, {a} gave {m} to {b:n} and kept {left} for {a:self}.",
        "~{n} {goods} lay in {a:n}'s basket; {m} of them went to {b:n}, which left {left}.",
    ),
    "plain": (
        "{a} [swept the floor|sorted some beans|wound the clock|watched the ants|brushed {a:his} coat|sang an old song|counted the clouds|drew a ship in the dust|polished a spoon|read the same page three times|built a small tower of stones|made a list of things to do|threw crumbs to the birds|mended a sock|shook out a blanket|tried to remember an old rhyme|whittled a stick]"
        ", and [the time went by|thought about {topic}|felt [content|restless|a little lonely|ready for anything]].",
        "<detail> {a} [did not notice|smiled|looked up|stretched {a:his} legs], and {thought}.",
        "~Meanwhile {a} [peeled potatoes|patched an old sack|fed the sparrows|whistled to {a:self}], and {thought}.",
    ),
}

LACKS = ("salt", "butter", "flour", "sugar", "pepper", "milk", "honey", "cream", "vinegar", "cinnamon")
TASTES = ("the pot was empty in no time", "{b} ate three helpings", "even the cat got some", "they sang until late",
          "not a crumb was left", "{b} asked for the recipe", "everybody wanted more", "there was a long and happy silence")  # fmt: skip
FAILURES = ("fell on {b:his} nose", "got everything wrong", "lost {b:his} nerve", "made a noise like a sick goose", "tied {b:self} in knots",
            "broke a plate", "ended up in the mud", "forgot how it began", "held everything upside down", "laughed so hard that {b:he} had to stop")  # fmt: skip
TROUBLES = {
    "a wheel had come off the cart": ("lifted the cart with a beam", "carved a new pin for the wheel"),
    "the door had fallen shut with the key inside": ("climbed in by the window", "lifted the door off its hinges"),
    "the goat had climbed onto the roof": ("lured it down with a cabbage", "fetched the longest ladder"),
    "the boat had sprung a leak": (
        "plugged the hole with wax",
        "bailed with a bucket while the boat was pulled ashore",
    ),
    "the hay had to be in before the rain": ("took the second fork", "called all the neighbours together"),
    "the chimney was blocked with an old nest": ("swept it from above", "drew the nest out with a hook"),
    "the bees had swarmed": ("caught the swarm in a straw basket", "calmed the bees with smoke"),
    "the well rope had snapped": ("spliced the rope", "lowered a hook on a chain"),
}
FEAST_ACTS = ("played the fiddle", "told the story of the flying pig", "hung paper lamps in the trees", "danced on a table",
              "burned the soup but was forgiven", "made a short speech, which was rather long", "lit the fire", "sang all nine verses")  # fmt: skip
THOUGHTS = ("{a:he} had the feeling that something was about to happen", "it was a good day to be alive", "the world seemed to hold its breath",
            "nothing seemed to be in a hurry", "{a:he} thought of {topic}", "{a:he} wondered what the others were doing")  # fmt: skip
