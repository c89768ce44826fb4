"""Built-in collections: scenes that are generated, emoji that are installed."""
