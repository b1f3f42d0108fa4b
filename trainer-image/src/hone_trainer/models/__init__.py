"""The base model: facts about it, its kinds, heads, merging, and how ranks load it."""
