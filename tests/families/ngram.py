"""N-gram models: numbers against formulas, hand calculation and nltk in tests/parity/test_ngrams.py."""

from families.reference import Reference
from groundup.models.configs.ngram import Katz, NGramConfig, StupidBackoff


def counted(config):
    """The model of a small text."""
    from groundup.models.text.ngram import NGramLM

    text = [(7 * i * i + 3 * i) % 61 + (i % 4 == 0) for i in range(400)]
    return NGramLM.learn(config, [text[:250], text[250:]])


GRAMS = [13_588_391, 314_843_401, 977_069_902, 1_313_818_354, 1_176_470_663]

reference = Reference(
    own={
        "ngram": lambda: NGramConfig(vocab_size=64, order=3),
        "ngram-katz": lambda: NGramConfig(vocab_size=64, order=4, smoothing=Katz()),
        "ngram-stupid": lambda: NGramConfig(vocab_size=64, order=3, smoothing=StupidBackoff()),
        "ngram-unigram": lambda: NGramConfig(vocab_size=64, order=1),
    },
    # the release's own counts: a probability an n-gram, and a back-off weight a context
    parameters={"web-1t-5gram": sum(GRAMS) + 1 + sum(GRAMS[:-1])},
    make=counted,
    theirs_count=False,
    trims=False,
)
