"""Who is in a store, and splits of it."""
