"""What is done to a store once it is there: verify, compact, remove, label."""
