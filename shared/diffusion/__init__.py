"""Diffusion core: schedules, denoisers, samplers, time estimation and their training.

The only part of `shared` that imports PyTorch. Import from its modules: a process that only judges must not load the
training code.
"""
