"""Rollouts of bundles in stages: phases, stages, gates and their statistics. Nothing here reads a store or a clock."""
