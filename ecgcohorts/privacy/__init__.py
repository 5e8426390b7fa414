"""Pseudonyms for ids, and placeholders that are no ids."""
