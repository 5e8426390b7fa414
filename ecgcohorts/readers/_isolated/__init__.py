"""Readers that call C libraries, run in a process that may die."""
