"""Trades, promises, quarrels, secrets, loans: what goes on between two or three."""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "wants": (
        "{t}, {a} [could think of nothing but|set {a:his} heart on|fell in love with] {b:n}'s {q:full}.",
        "{t}, {a} saw how useful {b:n}'s {q:full} was, and [wished for it|wanted it badly].",
        "~{t}, {a} looked again and again at the {q:full} that {b:n} had.",
    ),
    "offer": (
        '"Will you [trade|swap]?" {a:he} <asked>. "My {o:s} for your {q:s}?"',
        '"I would give you my {o:full} for it," <said> {a:n}.',
        '~"What would you say to a bargain?" <asked> {a:n}. "You get my {o:s}, I get your {q:s}."',
    ),
    "traded": (
        '{b} [thought it over|looked at it from all sides|hesitated]. "[Agreed|Very well|Done]," {b:he} <said>, and so {o} went to {b:n} and {q} to {a:n}.',
        "{b} [liked the idea|had always wanted such a thing]. They shook hands on it: now {a:n} had {q}, and {b:n} had {o}.",
        "~It was a fair bargain. {b} went home with {o}, {a:n} with {q}.",
    ),
    "refused": (
        '"No," <said> {b:n}, "[it was my mother\'s|I need it every day|I could never part with it]." {a} nodded <sadly> and kept {o}.',
        "~But {b} shook {b:his} head, and no words would move {b:o}; so each kept what each had.",
    ),
    "promise": (
        '{t}, {b} [came with a request|asked {a:n} for a favour]. "Would you {favour}?" "I promise," <said> {a:n}, "[by tomorrow|before the week is out'
        '|on my honour]."',
        "{t}, {a} promised {b:n} to {favour2}. [A promise is easily given|They even shook hands on it].",
        "~{t}, it came about that {a} gave {b:n} {a:his} word: {a:he} would {favour2}.",
    ),
    "nearly": (
        "But then {distraction}, and {a} almost forgot about it.",
        "It was not easy, for {distraction}. More than once {a} wanted to [give up|put it off].",
        "~Days went by; {distraction}, and the promise [slipped {a:his} mind|began to weigh on {a:o}].",
    ),
    "kept_word": (
        'Yet {a:he} kept {a:his} word. "So you did {favour2}," <said> {b:n} <happily>. "[I knew it|I never doubted you|You are as good as your word]."',
        "A promise is a promise, {a} told {a:self}, and went and did it[, the very same evening|]. {b} was [touched|delighted|full of thanks].",
        "~{a} remembered in the middle of the night, got up, and had it done by sunrise. {b} could not believe it.",
    ),
    "quarrel": (
        "{t}, {a} and {b} quarrelled about {o}: {cause}.",
        '{t}, angry voices could be heard. "It is mine!" <cried> {a:n}. "It is not!" <cried> {b:n}. It was all about {o}, for {cause}.',
        "~{t}, the two friends fell out. The trouble was {o}: {cause}.",
    ),
    "sulk": (
        "[For two days|The whole day|For a week], they did not speak. {a} {sulking}, and {b} {sulking2}.",
        "Neither would say the first word. {b} {sulking}; {a} {sulking2}.",
        "~It was a sad time, for {a} {sulking} while {b} {sulking2}.",
    ),
    "mediate": (
        '{c} [shook {c:his} head|could not bear it any longer]. "You {fools}," {c:he} <said>, "{advice}."',
        '<atlast>, {c} sat the two down {p:at}. "{advice}," {c:he} <said>.',
        '~It took {c:o} to mend it. "Listen, you two," {c:he} <said>. "{advice}."',
    ),
    "peace": (
        '"I am sorry," <said> {a:n}. "[So am I|I am sorry too|It was my fault]," <said> {b:n}, and they {pact}.',
        "{a} held out {a:his} hand, {b} took it, and they {pact}.",
        "~Both began to laugh at the same moment, and then they {pact}.",
    ),
    "hide": (
        "{t}, {a} hid {o} <look> {p:at}. Only {b} was allowed to know.",
        '{t}, {a} took {b:n} aside. "Can you keep a secret? I am going to hide {o} {p:at}," {a:he} whispered, and so {a:he} did.',
        "~{t}, when nobody but {b:o} was looking, {a} hid {o} {p:at}, <look>.",
    ),
    "pry": (
        '{c} [smelled a secret|was curious]. "Where is {o}?" {c:he} <asked>. {b} [looked at the sky|bit {b:his} lip|said something about the weather] and did not tell.',
        '"You know something," <said> {c:n} to {b:n}. "[Me? Nothing at all|I know many things]," <said> {b:n}, and kept {b:his} mouth shut.',
        "~Three times {c} asked {b:n} about {o}, and three times {b:he} [changed the subject|began to cough].",
    ),
    "reveal": (
        "The reason came out [on {c:n}'s birthday|the next day|on Sunday]: {o} was a present. {a} brought it from {p} and gave it to {c:n}, who [was speechless|laughed and cried at once].",
        '"Close your eyes," <said> {a:n} to {c:n} [two days later|the next day]. {a:he} had fetched {o} from {p}, and now it was {c:n}\'s own.',
        "~All this had been for {c:n}: {a} brought {o} out of its hiding place {p:at} and put it, tied with a bow, into {c:n}'s arms.",
    ),
    "borrow": (
        '{t}, {a} needed {o:s2} and asked {b:n}, who had one. "[Take it|Of course], but bring it back," <said> {b:n} and handed it over.',
        "{t}, {a} borrowed {o} from {b:n}[, because {errand_why}|].",
        "~{t}, {b} lent {a:n} {o}, and asked only to have it back in one piece.",
    ),
    "used": (
        "It [served {a:o} well|did its work], but {a} [left it lying|forgot it] {p:at}.",
        "{a} took it {p:to} and used it there until {a:his} arms ached. Then {a:he} went home without it, so it stayed {p:at}.",
        "~All went well {p:at}; only, when {a} went home, {o} stayed behind.",
    ),
    "returned": (
        '"Where is my {o:s}?" <asked> {b:n}. {a} [turned red|struck {a:his} brow], ran {p:to}, and brought it back [polished|with a jar of honey|with a thousand excuses].',
        "[Late that night|The same evening], {a} remembered, fetched it {p:from} and returned it to {b:n}, who [had not even missed it|said nothing, but smiled].",
        "~It was {b:n} who went {p:to} in the end and fetched {o} home. {a} [apologised|was ashamed], and baked a cake for {b:o}.",
    ),
    "chat": (
        '"[Do you think|Tell me, do you believe] that {musing}?" <asked> {a:n}. "[Who knows|Perhaps|Only on Sundays|I have often wondered]," <said> {b:n}.',
        '{b} told {a:o} {news}. "[Really|You are joking|Well, well]!" <said> {a:n}.',
        "They [sat for a while|shared a piece of bread] and talked about {topic}[, as friends do|].",
        '~"[Have you heard|Did you know]?" <said> {b:n}, and told {a:o} {news}.',
    ),
}

FAVOURS = {
    "water my flowers": "water the flowers", "mend my roof": "mend the roof", "look after my hens": "look after the hens",
    "carry my letter to the post": "carry the letter to the post", "sew on my buttons": "sew on the buttons",
    "wake me before sunrise": "wake me in time", "teach me a song": "teach me the song", "sharpen my scissors": "sharpen the scissors",
    "paint my door": "paint the door", "fix my chair": "fix the chair", "pick my pears": "pick the pears",
}  # fmt: skip
DISTRACTIONS = ("a fair came to the place", "there was so much work to do", "it rained for three days", "a cold kept everyone in bed",
                "an aunt came to visit", "the sun was so warm and the grass so soft", "there was a wedding to dance at",
                "the bread had to be baked first")  # fmt: skip
CAUSES = ("each believed that the other had scratched it", "both wanted it on the same day", "one had lent it away without asking",
          "each said that it was the other's turn to clean it", "somebody had left it out in the rain",
          "neither would say sorry for a silly joke about it", "both had seen it first")  # fmt: skip
SULKS = ("stayed at home with the curtains drawn", "kicked stones down the road", "took the long way round", "talked only to the cat",
         "baked nothing and ate nothing", "slammed every door twice", "wrote letters and tore them up", "pretended to be busy")  # fmt: skip
ADVICE = ("Take turns, and there will be an end of it", "Which is worth more, this thing or your friend",
          "Whoever says sorry first has won", "Let one divide and the other choose", "You will laugh about this in a year, so laugh now",
          "Nobody owns the sunshine, and you two have wasted three days of it")  # fmt: skip
FOOLS = ("donkeys", "blockheads", "silly geese", "two")
PACTS = ("agreed to use it by turns", "went off arm in arm", "shared a bowl of soup", "promised never to quarrel again about such a thing",
         "sat together until dark", "decided that it should belong to both")  # fmt: skip
MUSINGS = ("fish sleep", "the moon is cold", "it will snow early this year", "snails dream", "trees talk at night",
           "the world is round everywhere", "one can get used to onions", "bread tastes better outdoors", "the rain has a name")  # fmt: skip
NEWS = ("that the ferryman had fallen in love", "that there would be a market on Sunday", "about a calf with two tails",
        "that someone had painted the church door blue", "a riddle that nobody could solve", "about a cousin who sailed the sea",
        "that the bells would ring at noon", "that the old well had water again", "about a cat that could open doors",
        "that the school would get a new roof")  # fmt: skip
TOPICS = ("the price of butter", "the best way to boil an egg", "last year's flood", "ghosts and how to greet them", "cousins",
          "the colour of the sea", "what they would do with a hundred coins", "the weather", "dreams", "shoes and ships")  # fmt: skip
