"""Sources of text and what is made of them: corpora, cleaning, packing, loaders."""
