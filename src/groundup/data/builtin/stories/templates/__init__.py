"""All sentence templates, compiled. See `grammar` for the language they are written in."""

from groundup.data.builtin.stories.grammar import compile_groups
from groundup.data.builtin.stories.templates import deeds, events, friends, openings, phrases, scenes

SOURCES = {**openings.GROUPS, **events.GROUPS, **friends.GROUPS, **deeds.GROUPS, **scenes.GROUPS}
GROUPS = compile_groups(SOURCES, phrases.PHRASES)
