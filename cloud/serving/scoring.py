"""Scores of analyzers, computed in blocks of bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import AnalyzerOutput, AnyAnalyzer
from cloud.methods.encoders import Encoder
from cloud.serving.encoding import Samples
from cloud.serving.explanations import as_array
from shared.diffusion.precision import networks_in_bfloat16
from shared.diffusion.training import one_thread

ScoredBlock: TypeAlias = tuple[Samples, dict[str, AnalyzerOutput]]
"""A block of samples, and the output of each analyzer for it."""


@contextmanager
def scoring(encoder: Encoder | None, in_bfloat16: bool = False) -> Iterator[None]:
    """Run the block without gradients; without an encoder on one thread, which is faster for small networks.

    `in_bfloat16`: whether the networks of the analyzers compute in bfloat16.
    """
    one = one_thread() if encoder is None else nullcontext()
    with torch.inference_mode(), networks_in_bfloat16(in_bfloat16), one:
        yield


def score_blocks(
    encoder: Encoder | None,
    analyzers: Mapping[str, AnyAnalyzer],
    samples: Samples,
    device: torch.device,
    in_bfloat16: bool = False,
) -> Iterator[ScoredBlock]:
    """Yield blocks of the samples with the output of every analyzer."""
    for block in samples.blocks(encoder):
        with scoring(encoder, in_bfloat16):
            features = block.features(encoder, device)
            outputs = {name: analyzer.score(features) for name, analyzer in analyzers.items()}
        yield block, outputs


def joined_scores(
    names: Iterable[str], outputs: Sequence[Mapping[str, AnalyzerOutput]]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores (n,) of all blocks together, by analyzer."""
    empty = np.zeros(0)
    return {name: np.concatenate([empty, *(as_array(block[name].scores) for block in outputs)]) for name in names}
