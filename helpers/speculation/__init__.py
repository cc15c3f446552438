"""Who guesses: draft model, n-grams, Medusa heads, and several of them in one tree."""
