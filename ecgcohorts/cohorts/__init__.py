"""Cohorts as data: their description, files, tables and values, and public cohorts as presets."""
