"""The physics, once: scalar functions that every backend inlines. Clauses refer to docs/model.md."""
