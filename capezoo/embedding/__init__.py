"""Weights and signals in, embeddings out."""
