"""Pseudonyms, and ids that are placeholders."""
