"""Cohorts as data: descriptions, their files, tables and values."""
