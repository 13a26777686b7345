"""Finished sections on disk."""
