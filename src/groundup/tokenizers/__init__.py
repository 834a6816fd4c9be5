"""From text to token ids and back: the kinds of tokenizer (the ladder), their training, files and chat templates."""
