"""Histograms of the p-values of the last weeks: a replay of other settings reads a bounded number of rows."""
