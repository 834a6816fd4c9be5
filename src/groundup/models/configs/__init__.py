"""What describes a model: the fields of its config.json. No torch here, so that commands start fast."""
