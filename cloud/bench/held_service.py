"""`vedette cloud serve` whose analysis holds its first batch until the end: ingest alone uses the processor.

Started as `python -m cloud.bench.held_service CLOUD.toml`. All other parts run as in every service.
"""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from cloud.service.main import serve
from cloud.serving.ports import EarlyDecision
from cloud.settings import CloudSettings
from shared.bundle import Bundle
from shared.errors import SampleRejected
from shared.samples import ImageCrop, Values, Verdict


class HeldJudge:
    """Analysis that never answers."""

    def judge(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None], early: EarlyDecision | None = None
    ) -> list[Verdict | SampleRejected]:
        """Wait until the process ends."""
        threading.Event().wait()
        return []


def _load(_: Bundle) -> HeldJudge:
    return HeldJudge()


if __name__ == "__main__":
    serve(CloudSettings.load(Path(sys.argv[1]), {}), _load)
