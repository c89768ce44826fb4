"""Towers of all libraries, opened layer by layer."""
