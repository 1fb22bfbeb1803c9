"""Page "Review": what asks for a person, and the decisions on it."""
