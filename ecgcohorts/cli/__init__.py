"""The `ecgcohorts` command."""
