"""How well maps find what a caption tells of, and what the model makes of what they name."""
