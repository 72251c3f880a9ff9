"""Options: the typed vocabulary and how files become it."""
