"""Evaluation questions, one a file."""
