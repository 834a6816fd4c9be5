"""From files to batches: sources, splits, token shards, packing, mixtures, the loader."""
