"""The parts of RWKV (Peng et al. 2023, 2024, 2025): what stands before each token (`stream`), the recurrences in
parallel form (`scan`, `wkv`, `decayed_attention`, `delta_rule`), and the modules made of them (`time_mix`, `heads`,
`channel_mix`). Letters besides those of `layers`: N width of a key head, M width of a value head, C tokens of a chunk.
"""
