"""Conversations to token ids: templates, where they lie, how they are rendered safely, and which tokens count."""
