"""What readers of different formats share: opening files, limits, units, people."""
