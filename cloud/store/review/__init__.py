"""Review items: verdicts that ask for a person, grouped, and decisions on them."""
