"""Training with synthetic captions (CLIPS)."""
