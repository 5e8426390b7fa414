"""Stores in object stores."""
