"""What evaluation questions share: heads, scalers, statistics."""
