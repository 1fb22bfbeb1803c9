"""Page "Review": items that ask for a person, and the decisions on them."""
