"""Evidence behind one verdict: seen, expected and normal values, history and like verdicts.

Pages, exports and the HTTP API show the same `Evidence`, which `cloud.evidence.reading` makes. Nothing here imports
PyTorch: expectations come from the preprocessing in the bundle, which is NumPy.
"""
