"""Things lost and found, storms, journeys, missing goods, contests."""

# ruff: noqa: E501 (a template is read best on one line)

GROUPS: dict[str, tuple[str, ...]] = {
    "lost": (
        "{t}, {a} [reached for|looked for|wanted to use] {a:his} {o:s}, but it was gone. <fear>.",
        "{t}, {a} noticed that {a:his} {o:s} was missing, and <fear>.",
        "{t}, a [terrible|dreadful|sad] thing happened: {a} lost {a:his} {o:s}[ on the way home| and did not know where|].",
        '"My {o:s}!" <cried> {a:n} {time}. "[It is gone|I have lost it|Where can it be]!"',
        "~{t}, {a} felt in {a:his} bag, and felt again. There was no {o:s} in it any more.",
    ),
    "ask_help": (
        '"Have you seen my {o:full}?" {a:he} <asked> {b:n}. "No," <said> {b:n}, "but [I will help you look|let us look for it'
        " together|four eyes see more than two]."
        '"',
        '"I have lost my {o:full}," <said> {a:n} <sadly>. "Then we must find it," <said> {b:n}. "[Come along|Do not cry|Cheer up]!"',
        '~{b} saw at once that something was wrong. "It is my {o:s}," <said> {a:n}. "Say no more," <said> {b:n}, "we shall find it."',
    ),
    "search": (
        "They searched {p:at}, <look> and <look>, but there was no {o:s}.",
        "First they looked {p:at}. They found [an old shoe|a rusty nail|three spiders|somebody's glove|nothing but dust], but not {o}.",
        "{b} [thought|was sure] that it would be {p:at}, but <atlast_low> they had to give up there.",
        "~Not a corner {p:at} was left unsearched; {o} was not there.",
    ),
    "found": (
        "<atlast>, <look> {p:at}, {finder:n} found {o}[, not even scratched|, dusty but whole|, wet but whole|].",
        '<suddenly>, {finder:n} <cried>: "[Here it is|I have it|Look here]!" And there {o} lay, <look> {p:at}.',
        "And then, {p:at}, something {o:colour} [caught the light|showed] <look>. It was {o}! {finder:n} picked it up.",
        "~It was {finder:n} who found {o} in the end: it had been lying <look> {p:at}[ all the time|].",
    ),
    "why_lost": (
        "{a} had [dropped it|left it] there [when {a:he} stopped to rest|while {a:he} was chasing a butterfly|because {a:his} bag had a"
        " hole in it|as {a:he} was helping a neighbour]{why}.",
        "~Now {a:he} remembered: {a:he} had [put it down|dropped it] there [in a great hurry|to tie a shoe|to scratch {a:his} ear]{why}.",
    ),
    "handed_back": (
        '{b} gave {o} back to {a:o}, and <joy>. "<thanks>!" {a:he} <said>.',
        '"Here is your {o:s}," <said> {b:n} and handed it to {a:n}, who [hugged {b:o}|did not know what to say|laughed with relief].',
        "~{b} put {o} into {a:n}'s hands without a word, and <joy>.",
    ),
    "kept_found": (
        "{a} [held it tight|pressed it to {a:his} chest|put it safely away], and <joy>.",
        '"[Never again|From now on] I shall [lose you|keep an eye on you]," {a:he} <said> to {o}, and everyone laughed.',
        "~<joy>, and {a:he} swore to take better care of {o} from now on.",
    ),
    "blown": (
        "A gust [tore|snatched] {o} out of {a:n}'s hands and carried it away, {p:to}.",
        "{a} held on to {a:his} {o:s} as well as {a:he} could, but the wind [was stronger|won] and blew it away {p:to}.",
        "~The storm took {a:n}'s {o:s} as if it were a feather, and dropped it {p:at}.",
    ),
    "after_rain": (
        "[When the storm was over|After the rain], {a} [went out to look|set out again] and found {o} {p:at}, {damage}.",
        "~Next day the sun shone, and {o} was still there {p:at}, {damage}; {a} took it home.",
    ),
    "wish_see": (
        "{t}, {a} [made up {a:his} mind|decided] to see {sight}. One could see it only {r:at}[, people said|].",
        '{t}, {a} [sat up|stood still] and <said>: "All my life I have wanted to see {sight}. Today I am going {r:to}!"',
        "{t}, {a} heard that one could see {sight} {r:at}, and [nothing could hold {a:o} back|packed some bread at once].",
        "~{t}, there was talk everywhere of {sight}; whoever wanted to see it, had to be {r:at}. {a} did not hesitate.",
    ),
    "obstacle": (
        "[Halfway|On the way], {trouble}. {a} [thought for a while|scratched {a:his} head], and then {a:he} {way_out}.",
        "But {trouble}. Another would have turned back; {a}, who was {a:adjective}, {way_out}.",
        "There was only one difficulty: {trouble}. {a} simply {way_out}[, and that was that|].",
        "~Who would have thought it? {trouble}. {a} [took a deep breath|grumbled a little], and {way_out}.",
    ),
    "arrive": (
        "[From there|After that] it was not far {p:to}, and {a} [soon arrived|was there before long|came there with tired feet].",
        "So {a} came {p:to} after all[, a little late|, out of breath|, {way}|].",
        "Then the way was free, and {a} <walked> {way} {p:to}.",
        "The rest was easy: {way}, and there was {p}. <detail>",
        "~Nothing else stood between {a:n} and {p}, and {a:he} reached it [at last|tired but content].",
    ),
    "saw": (
        "And there it was: {sight}. {a} [stood and stared|forgot to breathe|had never seen anything like it].",
        "{a} waited, [an hour|a long time|until {a:his} feet were cold], and then {a:he} saw {sight}[, and it was worth every step|].",
        "~It was more beautiful than {a} had hoped: {sight}[, for {a:o} alone|].",
    ),
    "brought_back": (
        "As a keepsake {a:he} took home [a smooth stone|a feather|a handful of sand|a yellow leaf|a small shell], and put it next to {a:his} bed.",
        '"Was it worth it?" <asked> {b:n} afterwards. "[Every step|Oh yes|You should have been there]," <said> {a:n}.',
        "~Ever since, when {a} shuts {a:his} eyes, {a:he} can see it again.",
    ),
    "missing": (
        "{t}, {n} {goods} were missing {p:at}, and nobody knew [who had taken them|where they had gone].",
        '{t}, {a} counted the {goods} {p:at}, and counted again. "{n} are gone!" {a:he} <cried>.',
        "~{t}, there was trouble {p:at}: of the {goods}, {n} had vanished overnight.",
    ),
    "tracks": (
        "{a} [looked closely|knelt down]: there were [small tracks in the mud|crumbs on the floor|wet footprints|white flour stains|scratches on the boards], and they led {p:to}.",
        '"A thief leaves traces," <said> {a:n}, and indeed a trail of [crumbs|dust|straw] led {p:to}.',
        "~Where others saw nothing, {a} saw [a thread on a nail|a trail of crumbs|a print in the dust], and it pointed {p:to}.",
    ),
    "culprit": (
        'There sat {b}, [red in the face|looking at the floor]. "Yes, I took them," {b:he} <said>. "{excuse}."',
        'It was {b:n} who had them. "Please do not be angry," <said> {b:n}. "{excuse}."',
        '~"I have been waiting for someone to come," <said> {b:n}, who had the {goods} in {b:his} lap. "{excuse}."',
    ),
    "forgiven": (
        '"You should have asked," <said> {a:n}, "but [I understand|it was for a good reason]." And {a:he} {mercy}.',
        "{a} was silent for a moment. Then {a:he} {mercy}, and [nobody spoke of it again|that was the end of the matter].",
        "~How could {a} be angry at that? {a:he} {mercy}.",
    ),
    "race": (
        '{t}, {a} and {b} had an argument about who was faster. "Let us race {r:to}," <said> {b:n}, "[and the winner shall have|for] {o:a}!"',
        "{t}, a race was held from {q} {p:to}. {a} and {b} [stood side by side|were to run against each other], and the prize was {o:a}.",
        "~{t}, nothing would do but a race {r:to}: {a} against {b:o}, with {o:a} for the winner.",
    ),
    "race_middle": (
        "{b} was [ahead at first|much faster at the start], but {b:he} {slip}. {a} ran on [without looking back|at a steady pace].",
        "At first {b} led by [ten steps|a long way]. Then {b:he} {slip}, and {a} caught up.",
        "~Halfway {b} looked round to laugh at {a:n}, and in that moment {b:he} {slip}.",
    ),
    "race_won": (
        "So it was {a:n} who won, and {o} went home with {a:him}. {b} shook {a:his} hand.",
        "{a} reached {p} first, and was given {o}[, to loud cheers|].",
        '~"The winner is {a:n}!" the crowd <cried>, and {a:he} took {o} home under {a:his} arm.',
    ),
}
GROUPS = {name: tuple(t.replace("<atlast_low>", "[after a while|in the end]") for t in g) for name, g in GROUPS.items()}

TROUBLES = {
    "the bridge had been washed away": (
        "waded through the cold water",
        "built a raft of two planks",
        "looked for a ford",
    ),
    "a big dog lay across the path": (
        "gave it {a:his} bread",
        "sang to it until it wagged its tail",
        "tiptoed around it",
    ),
    "a tree had fallen across the path": (
        "climbed over it",
        "crept under it on hands and knees",
        "went round through the nettles",
    ),
    "thick fog came down": ("followed the sound of a bell", "counted {a:his} steps", "kept one hand on the wall"),
    "the gate was locked": ("squeezed through a gap", "climbed over", "called until someone came with a key"),
    "a flock of geese blocked the way": (
        "shooed them off with {a:his} hat",
        "waited politely",
        "hissed right back at them",
    ),
    "the path split in three": (
        "took the one in the middle",
        "asked an old man on a bench",
        "followed the cart tracks",
    ),
    "{a:his} shoe came apart": ("tied it with string", "went on barefoot", "stuffed it with grass and limped on"),
}
EXCUSES = ("My little sister is ill and had nothing to eat", "There were hungry children at the door",
           "I wanted to make a surprise for your birthday", "The mice would have got them otherwise",
           "I was so hungry that I could not think", "I meant to pay for them tomorrow",
           "Somebody told me that they were free for all", "I was only keeping them dry")  # fmt: skip
MERCIES = ("gave {b:n} two more", "shook {b:s} hand", "took one and broke it in two, half for each", "helped to carry the rest home",
           "forgave {b:o} on the spot", "asked only that {b:he} help with the sweeping")  # fmt: skip
SLIPS = ("stumbled over a root", "stopped to drink", "turned to wave at a friend", "took the wrong turning", "lost a shoe",
         "ran into a cart of hay", "got a stitch", "lay down for a short rest and fell asleep")  # fmt: skip
DAMAGES = (
    "muddy but whole",
    "caught on a nail",
    "soaked through",
    "a little bent",
    "as good as new",
    "covered with leaves",
)
