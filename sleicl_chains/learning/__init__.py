"""Which prompt and which reading suit a weak model, and whether a grimoire helps it."""
