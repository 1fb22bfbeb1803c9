"""How good a bundle is: figures, the router leaderboard, plots, and benchmarks beside published results."""
