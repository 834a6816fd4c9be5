"""The family of parts with a memory that corrects itself: no trimming, but documents are kept apart."""

from families.parts import DELTAS, make
from families.reference import Reference

reference = Reference(
    own={f"parts-{value}": make(attention=value) for value in DELTAS},
    trims=False,
)
