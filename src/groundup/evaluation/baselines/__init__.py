"""Models that need no gradient: what a trained model has to beat, in bits per byte and in answers.

Each is fitted on documents (bytes, or lists of token ids) and says how many bits a new document costs; those that can
weigh a text also answer multiple-choice questions.
"""

from groundup.evaluation.baselines.baseline import Baseline, Choices, NotFitted, accuracy, bits_per_byte
from groundup.evaluation.baselines.compressors import Gzip, Xz
from groundup.evaluation.baselines.counts import Uniform, Unigram
from groundup.evaluation.baselines.kneser_ney import KneserNey
from groundup.evaluation.baselines.overlap import NearestQuestion, NearestSentence

__all__ = [
    "Baseline", "Choices", "Gzip", "KneserNey", "NearestQuestion", "NearestSentence", "NotFitted", "Uniform",
    "Unigram", "Xz", "accuracy", "bits_per_byte",
]  # fmt: skip
