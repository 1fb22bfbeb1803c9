"""Judging in replicas of the analysis on a Ray cluster, behind the port `Judge`."""
