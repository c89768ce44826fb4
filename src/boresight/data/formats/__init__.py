"""Readers, one file a family of formats: from files to the rows of a collection."""
