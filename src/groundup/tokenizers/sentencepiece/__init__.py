"""SentencePiece: whole sentences cut by unigram or BPE, as its library does."""
