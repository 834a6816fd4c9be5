"""The family of parts with attention that remembers sums: no trimming, and one document a row."""

from families.parts import SUMS, make
from families.reference import Reference

reference = Reference(
    own={f"parts-{value}": make(attention=value) for value in SUMS},
    trims=False,
    packs=False,
)
