"""The parts of any tokenizer.json: normalizers, pre-tokenizers, decoders, post-processors, and what joins them."""
