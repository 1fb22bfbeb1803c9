"""Python API: detectors that are fitted, scored and saved as signed bundles; `vedette` exports them.

This module loads nothing: the command tree imports `cloud.api.commands`, and must not wait for PyTorch.
"""
