"""Folders and buckets as places; durable writes, regular files, globs, texts by the million."""
