"""Replay of scored streams through the calibration of devices: realised false alarms, recall, and creeping faults."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.adaptive_calibration import AdaptationLimits, AdaptiveCalibration

PROMISE = 0.01
BLOCKS = 2000  # parts of a stream at most, each of which gets the p-values of the curve before it
CREEP_SURPRISE = 15.0  # nats by which a creeping fault raises the scores at the end of its stream
CREEP_SAMPLES = 20_000

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers on withheld samples: the `share` that gets one, drawn at random, `delay` samples later.

    An answer stands for 1 / share samples.
    """

    share: float
    delay: int


LABELS = Answers(share=0.1, delay=20)
VERDICTS = Answers(share=1.0, delay=1)
NOBODY = Answers(share=0.0, delay=0)


def adapted_p_values(
    surprise: Floats,
    is_normal: Flags,
    held_out: int,
    answers: Answers,
    limits: AdaptationLimits,
    seed: int = 0,
) -> Floats:
    """Return the p-values (n,) of a stream whose calibration follows it.

    `surprise`: (n,) under the calibration of training, of `held_out` samples. `is_normal`: (n,) what an answer says.
    """
    calibration, step = AdaptiveCalibration(held_out, limits), max(1, len(surprise) // BLOCKS)
    is_answered = np.random.default_rng(seed).random(len(surprise)) < answers.share
    p_values, waiting = np.ones(len(surprise)), np.zeros(0, np.intp)
    for start in range(0, len(surprise), step):
        block = slice(start, start + step)
        due = waiting[waiting <= start - answers.delay]
        waiting = waiting[len(due) :]
        if len(due):
            calibration.answer(surprise[due], is_normal[due], 1.0 / answers.share)
        p_values[block] = calibration.p_values(surprise[block])
        withheld = start + np.flatnonzero(calibration.observe(surprise[block]))
        waiting = np.append(waiting, withheld[is_answered[withheld]])
        calibration.move()
    return p_values


def detection(p_values: Floats, surprise: Floats, labels: Flags) -> dict[str, float]:
    """Return `false_alarms`, the realised rate over the promise, `recall`, and `recall_lost` against the oracle.

    The oracle is the one threshold on the scores of training under which PROMISE of the stream's normals are alarms.
    """
    alarms = p_values <= PROMISE
    normals = np.sort(surprise[~labels])
    threshold = normals[len(normals) - 1 - int(PROMISE * len(normals))]
    figures = {"false_alarms": float(alarms[~labels].mean()) / PROMISE}
    if labels.any():
        recall = float(alarms[labels].mean())
        oracle = float((surprise[labels] > threshold).mean())
        figures |= {"recall": recall, "oracle_recall": oracle, "recall_lost": oracle - recall}
    return figures


def creeping_fault(surprise: Floats, held_out: int, answers: Answers, limits: AdaptationLimits) -> float:
    """Return the share of alarms in the last tenth of a stream of normals whose scores creep up.

    `surprise`: (n,) of the stream's normals, drawn again to CREEP_SAMPLES. Every answer says that it is an anomaly.
    """
    drawn = np.random.default_rng(0).choice(surprise, CREEP_SAMPLES)
    crept = drawn + np.linspace(0.0, CREEP_SURPRISE, CREEP_SAMPLES)
    p_values = adapted_p_values(crept, np.zeros(CREEP_SAMPLES, bool), held_out, answers, limits)
    return float((p_values[-CREEP_SAMPLES // 10 :] <= PROMISE).mean())
