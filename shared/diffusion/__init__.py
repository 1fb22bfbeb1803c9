"""The diffusion core: schedules, denoisers, samplers, time estimation and their training.

The only part of `shared` with PyTorch. Import from its modules: a process that judges must not load what distils.
"""
