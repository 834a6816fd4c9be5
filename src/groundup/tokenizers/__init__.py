"""From text to token ids and back: characters and byte-level BPE, their files, and chat templates."""
