"""Building blocks. Letters used in shapes: B batch, T query tokens, S key tokens, D model width, H query heads,
K key-value heads, d head width, F feed-forward width, V vocabulary.
"""
