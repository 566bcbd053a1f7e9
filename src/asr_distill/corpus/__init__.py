"""Corpora: synthesis, adapters to corpora as published, checks of every utterance."""
