"""Text: normalisation, the grammar of the embedded corpus, tokens, n-grams and soft labels."""
