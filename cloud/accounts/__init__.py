"""Accounts of people: sign-in, sessions and the right of each role on each route of the console's port."""
