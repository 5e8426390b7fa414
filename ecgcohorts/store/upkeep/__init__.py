"""Look after a store that is there: describe, look up, verify, compact, label, remove, collect garbage."""
