"""What evaluation questions share: heads and what they are taught, scalers, statistics, the split of records."""
