"""Samples of a training run: files on disk, windows and clips cut from them, and the parts they are split into."""

from cloud.training.samples.split import MIN_TRAIN, SampleRate, Split, modes_in, random_shares, with_anomalies

__all__ = ["MIN_TRAIN", "SampleRate", "Split", "modes_in", "random_shares", "with_anomalies"]
