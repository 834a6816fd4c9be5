"""The words of the worlds: names, callings, animals, traits, things, places, goods.

Names are divided here into those of training and those held out for testing; everything else is shared, so that the
words of a held-out world are nearly all words that training showed.
"""

TRAIN_WOMEN = tuple(
    ["Ada", "Agnes", "Alma", "Anna", "Bea", "Berta", "Bess", "Carla", "Clara", "Cora", "Dora", "Edda", "Ella", "Elsa", "Emma", "Erna", "Etta", "Eva", "Faye", "Flora", "Freya", "Gerda", "Gina", "Greta", "Hanna", "Hazel", "Hilda", "Ida", "Ina", "Iris", "Jana", "Joan", "June", "Kate", "Lara", "Lena", "Lila", "Lotta", "Lucy", "Maja", "Mara", "Marta", "May", "Meg", "Mina", "Mira", "Molly", "Nell", "Nina", "Nora", "Olga", "Paula", "Pia", "Polly", "Resi", "Rosa", "Ruth", "Sally", "Sara", "Selma", "Tessa", "Tilda", "Una", "Vera", "Wanda"]
)
TRAIN_MEN = tuple(
    ["Abel", "Adam", "Albin", "Alf", "Anton", "Arne", "Axel", "Bert", "Boris", "Bram", "Bruno", "Carl", "Clem", "Dan", "Dirk", "Edgar", "Emil", "Erik", "Felix", "Finn", "Frank", "Fred", "Georg", "Gregor", "Gus", "Hans", "Hugo", "Igor", "Ivo", "Jack", "Jakob", "Jan", "Jens", "Jonas", "Karl", "Kasper", "Klaus", "Lars", "Leo", "Linus", "Lorenz", "Ludo", "Magnus", "Max", "Milo", "Nils", "Noah", "Olaf", "Oscar", "Otto", "Paul", "Peter", "Pim", "Ralf", "Robin", "Rolf", "Rudi", "Samuel", "Simon", "Sven", "Theo", "Tim", "Tom", "Ulrich", "Wim"]
)
HELD_OUT_WOMEN = tuple(
    ["Anselma", "Birgit", "Corinna", "Delia", "Frida", "Gwen", "Henna", "Jutta", "Livia", "Marlene", "Nadia", "Orla", "Petra", "Rika", "Tamsin"]
)
HELD_OUT_MEN = tuple(
    ["Aldo", "Benno", "Caspian", "Dorian", "Edwin", "Falk", "Gideon", "Henrik", "Jarl", "Konrad", "Lukas", "Matteo", "Piet", "Rasmus", "Tobin"]
)

# What people of a world do; each is told as "the baker".
CALLINGS = tuple(
    ["baker", "miller", "fisher", "gardener", "weaver", "potter", "tailor", "cook", "smith", "carpenter", "shepherd", "teacher", "doctor", "painter", "cobbler", "clockmaker", "beekeeper", "farmer", "postmaster", "musician", "librarian", "bookbinder", "glassblower", "ferryman", "cheesemaker"]
)
ANIMALS = tuple(
    ["fox", "hedgehog", "badger", "hare", "otter", "mole", "squirrel", "beaver", "owl", "goose", "frog", "dormouse", "raven", "stork", "deer", "marten", "heron", "toad", "weasel", "wren", "rabbit", "duck", "crow", "lamb", "goat"]
)
# adjective -> how it shows; used as "who ..." and in descriptions.
TRAITS = {
    "brave": "who was afraid of almost nothing",
    "shy": "who blushed whenever anyone looked up",
    "curious": "who asked three questions before breakfast",
    "patient": "who could wait for hours without a sigh",
    "cheerful": "who hummed from morning to night",
    "forgetful": "who lost count of nearly everything",
    "clever": "who liked a riddle better than cake",
    "stubborn": "who never turned back halfway",
    "gentle": "who never raised a voice",
    "proud": "who hated to be laughed at",
    "careful": "who looked twice before each step",
    "impatient": "who could not stand still",
    "honest": "who could not tell a lie",
    "generous": "who gave away half of every cake",
    "dreamy": "who often stared at the clouds",
    "quick": "who was always the first through the door",
    "quiet": "who used few words",
    "thrifty": "who saved every piece of string",
    "merry": "who laughed at the smallest joke",
    "tidy": "who could not bear a crooked shelf",
}
COLOURS = tuple(["red", "blue", "green", "yellow", "white", "black", "brown", "grey", "purple", "orange", "pink", "silver", "golden"])
THINGS = tuple(
    ["kite", "drum", "lantern", "basket", "umbrella", "key", "flute", "bell", "scarf", "kettle", "spoon", "book", "mirror", "ribbon", "hat", "compass", "blanket", "comb", "brush", "cup", "bowl", "bag", "box", "whistle", "bucket", "hammer", "clock", "candle", "jug", "net", "rope", "pillow", "coat", "map", "puppet", "ball", "fiddle", "letter", "plate", "cushion", "saddle", "shovel", "horn", "teapot", "telescope", "tin", "cap", "vase", "trumpet"]
)
# Small goods that can be counted: singular, plural.
GOODS = (
    ("apple", "apples"), ("pear", "pears"), ("plum", "plums"), ("egg", "eggs"), ("bun", "buns"), ("nut", "nuts"),
    ("shell", "shells"), ("button", "buttons"), ("turnip", "turnips"), ("biscuit", "biscuits"), ("pebble", "pebbles"),
    ("candle", "candles"), ("feather", "feathers"), ("carrot", "carrots"), ("cherry", "cherries"), ("onion", "onions"),
    ("marble", "marbles"), ("muffin", "muffins"), ("stamp", "stamps"), ("acorn", "acorns"), ("mushroom", "mushrooms"),
    ("berry", "berries"), ("pancake", "pancakes"), ("peach", "peaches"), ("seed", "seeds"), ("coin", "coins"),
)  # fmt: skip
DISHES = (
    "onion soup", "plum cake", "pear tart", "mushroom stew", "honey bread", "pumpkin soup", "nut bread", "apple pie",
    "barley porridge", "bean stew", "berry jam", "cheese pie", "carrot cake", "potato soup", "cherry pudding",
    "ginger biscuits", "fish soup", "lentil stew", "poppy cake", "rice pudding",
)  # fmt: skip
SKILLS = (
    "whistle", "bow politely", "knit", "walk on stilts", "juggle", "read a map", "tie a sailor's knot", "play the fiddle", "bake bread",
    "row a boat", "light a fire", "climb a rope", "paint a cloud", "mend a net", "spin wool", "dance the old dance",
    "sharpen a knife", "count to a thousand", "plant a hedge", "carve a spoon",
)  # fmt: skip
SIGHTS = (
    "the white stag", "the sun go down", "the new boat", "the great comet", "the singing rocks",
    "the northern lights", "the wild geese", "the old stone face", "the hidden spring", "the waterfall",
    "the full moon", "the deer at dusk", "the painted ceiling", "the biggest oak in the country", "the lights of the ships",
)  # fmt: skip
# A reason for going somewhere; "wanted to ..." and "in order to ..." both take it.
ERRANDS = (
    "borrow a needle", "buy flour", "ask for advice", "hear the news", "look at the clouds", "pick some mint",
    "fetch water", "feed the hens", "return a cup", "count the sheep", "mend the fence", "sweep the steps",
    "listen to the birds", "sell some wool", "gather firewood", "wait for the post", "draw a picture",
    "measure the door", "hang out the washing", "repair a wheel", "say good morning", "cut some reeds",
    "collect the empty jars", "oil the hinges", "taste the new honey", "dig for worms", "look for a lost sheep",
    "paint the gate", "learn a song", "take a nap",
)  # fmt: skip

# Settings: preposition and noun of the places that such a world may have.
SETTINGS = {
    "village": "at:mill in:barn at:bakery by:well on:green at:forge at:inn in:orchard at:school on:bridge in:meadow at:market",
    "harbour": "at:lighthouse on:pier at:market in:boathouse on:beach at:inn at:customs house in:net loft at:bakery on:sea wall"
    " in:sail shed by:fountain",
    "forest": "in:clearing by:stream at:hollow oak in:cave on:hill by:pond at:old stump in:bramble thicket on:bridge"
    " at:mill in:fern valley at:crossing",
    "mountain": "in:hut on:ridge by:lake at:chapel in:stable on:pasture in:cave at:inn at:mill on:bridge by:waterfall in:dairy",
    "river": "on:ferry at:lock by:weir at:mill in:boathouse on:island in:reeds at:inn on:bridge at:market in:willow grove at:toll house",
    "castle": "in:kitchen in:tower in:courtyard in:library at:gate in:stable in:rose garden by:well in:cellar in:great hall"
    " on:wall in:armoury",
    "farm": "in:barn in:stable in:orchard by:pond at:gate in:kitchen in:hayloft in:dairy at:mill in:vegetable garden in:henhouse"
    " in:meadow",
    "town": "at:market in:library at:station at:school in:park at:theatre at:bakery on:square at:post office by:fountain"
    " in:museum at:workshop",
    "island": "at:lighthouse on:beach in:cave on:hill at:jetty in:palm grove by:lagoon in:hut at:lookout in:garden at:well on:cliff",
    "garden": "in:greenhouse by:pond in:toolshed on:lawn in:rose garden at:gate in:orchard at:sundial by:hedge in:summer house"
    " at:beehives on:compost heap",
}
# How the land lies between two places.
WAYS = (
    "along the lane", "across the meadow", "over the little bridge", "down the steps", "through the tall grass",
    "past the three birches", "round the pond", "along the stone wall", "through the narrow gate", "up the slope",
    "between the hedges", "along the water", "through the arch", "past the old statue", "over the stile",
    "by the winding path", "under the chestnut trees", "along the muddy track", "past the row of poplars",
)  # fmt: skip
# World names are put together from these, and each pair belongs either to training or to testing.
WORLD_HEADS = tuple(
    ["Am", "Bar", "Birch", "Brom", "Cal", "Cinder", "Dun", "Elder", "Fal", "Fern", "Gar", "Hal", "Hawk", "Ivel", "Kes", "Lark", "Lin", "Mar", "Mill", "Nether", "Oak", "Or", "Pen", "Quill", "Raven", "Ros", "Sel", "Thorn", "Ul", "Wether", "Wil", "Yar"]
)
WORLD_TAILS = (
    ["brook", "bury", "by", "combe", "dale", "field", "ford", "ham", "hollow", "holm", "low", "mere", "moor", "nock", "port", "ridge", "stead", "thwaite", "ton", "wick"]
)
NUMBERS = tuple(
    ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
)
