"""Comparison of two bundles on stored samples: choice, judging, figures."""
