"""Scores, tables, figures, claims, provenance and the report of a study."""
