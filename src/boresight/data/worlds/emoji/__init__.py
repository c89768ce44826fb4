"""Emoji by three artists, with captions and splits."""
