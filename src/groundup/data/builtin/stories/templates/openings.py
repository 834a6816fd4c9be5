"""How stories begin and end, the weather, and how people come and go."""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "begin": (
        "[Once upon a time|Long ago|Many years ago|Once|In days gone by|One {season}], {world}, there lived {a:full}"
        "[ {a:trait}|, {a:trait}, as everyone knew|].",
        "{world}, {p:at}, lived {a:full}, {a:trait}.",
        "This is the story of {a:full} who lived {world}[| and had seen many {season}s there].",
        "Everybody {world} knew {a:full}[|, {a:trait}|, and everybody was fond of {a:him}].",
        "There was once {a:full}, {a:trait}. {a:He} lived {world}[, {p:at}|].",
        "If you had come to a certain place {world} one {season}, you would have met {a:full}[|, {a:trait}].",
        "~Have you ever heard of {a:full}? {a:He} lived {world}[, {p:at}|], and [this|what follows] is what happened to {a:him}.",
        "~They still talk {world} about {a:full}, {a:trait}.",
    ),
    "friends": (
        "{a:his} [best|oldest|dearest] friend was {b:full}.",
        "[Next door|Not far away|Close by] lived {b:full}, [{b:trait}|who was as {b:adjective} as anyone could be].",
        "{a:He} was [often|nearly always] seen with {b:full}{rest}, for [they were friends|they got on well|there was always something to talk about].",
        "~Of all {a:his} neighbours {a:he} liked {b:full} best, [{b:trait}|perhaps because {b:he} was so {b:adjective}].",
    ),
    "sky": (
        "It was a [clear|mild|bright|grey|windy|still|hazy] {season} [morning|day], and [the air smelled of {smell}|{sky}].",
        "{sky}, and [all was quiet|everyone was already at work|nobody was in a hurry|the day felt full of promise|the air smelled of {smell}|<far> <heard>].",
        "That {season} [had been long|was a good one|had come early], and {sky}.",
        "~Nothing that {season} morning showed that the day would be a special one: {sky}.",
    ),
    "own": (
        "{a} [had|owned|possessed] {o:a}[, and it was {a:his} dearest treasure| that {a:he} took everywhere"
        "| which had belonged to {a:his} grandmother|, a present from [an aunt|a sailor|a godmother|an old teacher]| bought from a pedlar for [two|three|five|seven] coins| found years ago [at low tide|in an attic|under a hedge|in a hollow tree]| of which {a:he} was very proud|].",
        "[Of all {a:his} things, {a:n} liked {a:his} {o:full} best|More than anything else, {a:n} loved {a:his} {o:full}].",
        "Among the things {a} owned was {o:a}[, somewhat scratched but still good| that nobody else could have mended|].",
        "{a} [kept|carried] {o:a} with {a:him}[ wherever {a:he} went|, as always| in all weathers].",
        "~One thing was never far from {a:o}: {a:his} {o:full}[, old as it was|].",
    ),
    "go": (
        "{a} <walked> {way} {p:to}.",
        "{a} left {q} and <walked> {p:to}[|, {way}].",
        "[Off|Away] went {a:n}, {way}, {p:to}.",
        "{way}, {a} came {p:to}. <detail>",
        "It was not far {p:to}, and {a} [was there in no time|soon arrived|reached it before long].",
        "[Without another word|Without delay|Humming a tune|Deep in thought], {a} <walked> {p:to}.",
        "~The way led {way}, and before long {a} stood {p:at}.",
        "~{a} took the path {p:to}[|, {way}], and did not stop until {a:he} was there.",
    ),
    "end": (
        "[That night|When night came|When the stars came out], {a} fell asleep [with a smile|as happy as could be|the moment"
        " {a:he} lay down], and dreamed of {dream}.",
        "[And from that day on|Ever after|From then on], {a} and {b} [were the best of friends|never forgot that {season}"
        "|told this story to anyone who would listen|met {p:at} every week].",
        '"What a [day|time] it has been," <said> {a:n}. {b:n} only nodded[| and yawned]. There was nothing more to say.',
        "{a} looked back at it all and [thought|knew] that {moral}.",
        "When {a} is asked about it today, {a:he} [only smiles|always tells it a little differently|says that {moral}].",
        "They sat together {p:at} until [the fire was low|the moon was up|the last light was gone], and talked of {dream}.",
        "~And if nobody has told them otherwise, {a} and {b} are still sitting {p:at}, talking of {dream}.",
        "~So {a} learned that {moral}, which is worth more than {dream}.",
    ),
    "rain": (
        "{t}, [dark clouds came up|the sky turned black|thunder rolled over the hills|a storm broke loose], and it began to"
        " [pour|rain in sheets|rain as if it would never stop].",
        "{t}, [the wind rose|a wind sprang up]. {sky_bad}, and soon [everyone was wet to the skin|the paths were streams|nobody"
        " could see ten steps ahead].",
        "~{t}, the weather turned without warning: {sky_bad}, and [doors banged|hats flew|the trees bent] everywhere.",
    ),
    "shelter": (
        "{a} [ran for cover|pulled {a:his} collar up and ran], and found shelter {p:at}.",
        "Luckily {a} [was not far from|could see] {p}, and there {a:he} waited, [wet and shivering|listening to the thunder"
        "|counting the flashes].",
        "~The nearest roof was {p:at}, and {a} reached it [just in time|dripping from head to toe].",
    ),
    "meet": (
        "There {a} [met|found|saw|came upon] {b}, who was [busy as usual|looking at the clouds|resting for a while"
        "|mending something|eating a piece of bread|humming to {b:self}].",
        "{b} was [already|still] there[, sitting on an upturned bucket|, and waved].",
        '"[Good day|Hello|There you are|How good to see you|Well met]!" <cried> {b:n}, who [had been waiting|was glad to see a friend'
        "|happened to be there].",
        "~And who should be there but {b:n}[|, busy with some work|, half asleep].",
    ),
    "fetch": (
        "{b} [soon came by|came along just then|turned up a little later], [whistling|out of breath|with a basket on one arm"
        "|as if by chance].",
        "It was not long before {b} [came too|joined {a:o}|appeared].",
        "~After a while, {b} came round the corner[| with a friendly nod].",
    ),
}
GROUPS = {name: tuple(t.replace(":He}", ":he}") for t in group) for name, group in GROUPS.items()}

SMELLS = ("warm bread", "wet earth", "smoke", "hay", "apples", "pine needles", "salt", "roses", "fresh paint", "soap")
SKIES = {
    "spring": ("the first flowers were out", "the birds were building nests", "the streams ran high", "lambs cried in the fields",
               "the buds had opened overnight", "a warm wind came from the south"),
    "summer": ("the sun was already hot", "the swallows flew high", "the corn stood tall", "bees hummed in the clover",
               "the roads were white with dust", "there was not a cloud to be seen"),
    "autumn": ("the leaves had turned to gold", "mist lay over the ground", "the nuts were falling", "the geese were flying south",
               "smoke hung in the air", "the mornings had grown cold"),
    "winter": ("snow lay on every roof", "the ponds were frozen", "frost glittered on the windows", "icicles hung from the eaves",
               "every step creaked in the snow", "the stoves were lit early"),
}  # fmt: skip
STORMS = ("branches broke", "shutters rattled", "the rain came sideways", "lightning lit the sky", "hail drummed on the roofs",
          "the gutters ran over")  # fmt: skip
DREAMS = ("a [castle|house|boat|mountain] made of [gingerbread|glass|snow|cheese|feathers]", "a [talking|dancing|flying] [fish|teapot|horse|pumpkin]",
          "the [deep|quiet|dark|green] [forest|sea|lake]", "[{season}s|summers|winters] [long past|still to come]", "far countries", "warm soup", "a ship with blue sails", "the sea", "the coming {season}", "what tomorrow would bring",
          "old times", "flying over the roofs", "a giant cake", "all the good things to come", "silver and gold",
          "a road without end", "the stars")  # fmt: skip
MORALS = ("a friend is worth more than gold", "it is never too late to say sorry", "even a small help is a help",
          "patience wins in the end", "things are best when they are shared", "a promise is a promise",
          "the truth comes out sooner or later", "two heads are better than one", "one should look before one speaks",
          "nobody is good at everything", "even a bad day has an evening", "it pays to be kind")  # fmt: skip
