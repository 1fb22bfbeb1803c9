"""Payload forms: the ways in which samples of a modality can be sent, from the most faithful to the smallest.

Rows and windows are small and always sent without loss. A modality with smaller forms implements `PayloadForms` in a
module of its own and has a line in `forms_for`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.samples import ImageCrop, Values

LOSSLESS = "lossless"


@dataclass(frozen=True, slots=True)
class SentContent:
    """Content of one sample in the form in which it is sent.

    `values` are the pixels or readings, `encoded` their file bytes (None: the wire encodes them without loss), `crop`
    the part of the image that they show (None: all of it).
    """

    values: Values
    encoded: bytes | None = None
    crop: ImageCrop | None = None


class PayloadForms(Protocol):
    """The payload forms of one modality that the settings allow."""

    @property
    def names(self) -> Sequence[str]:
        """Allowed forms, the most faithful first. MUST NOT be empty."""
        ...

    @property
    def expected_shares(self) -> Mapping[str, float]:
        """First guess of the bytes sent for one byte of the source, for each form."""
        ...

    def complete(self, form: str) -> str:
        """Return `form` if it shows the whole sample, else the smallest allowed form that does, else LOSSLESS."""
        ...

    def encode(
        self,
        form: str,
        values: Values,
        encoded: bytes | None,
        anomaly_map: NDArray[np.uint8] | None,
        graph_size: tuple[int, int],
    ) -> SentContent:
        """Return the content of a sample in a form, or in a more faithful one where `form` would save nothing.

        `values` and `encoded` are those of the source. `anomaly_map` is the screener's, (h, w) uint8. `graph_size` is
        the height and width of the graph's input in pixels.
        """
        ...


class LosslessOnly:
    """The forms of rows and windows."""

    names = (LOSSLESS,)
    expected_shares: Mapping[str, float] = {LOSSLESS: 1.0}

    def complete(self, form: str) -> str:
        """Return LOSSLESS."""
        return LOSSLESS

    def encode(
        self,
        form: str,
        values: Values,
        encoded: bytes | None,
        anomaly_map: NDArray[np.uint8] | None,
        graph_size: tuple[int, int],
    ) -> SentContent:
        """Return the content unchanged."""
        return SentContent(values, encoded)
