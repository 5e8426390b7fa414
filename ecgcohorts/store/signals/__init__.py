"""Signals as bytes: chunks, shards, and where shards are."""
