"""Learning vocabularies: counting pieces, and a trainer for each kind."""
