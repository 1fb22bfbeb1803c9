"""An analysis process without PyTorch, for tests of processes that are killed; `python -m` this module.

Arguments: settings, seconds that a batch takes, seconds of a claim.
"""

import sys
import time
from pathlib import Path

import cloud.store.engine

cloud.store.engine.CLAIM_S = float(sys.argv[3])  # read by the modules below

from cloud.service import main  # noqa: E402
from cloud.service.roles import Role  # noqa: E402
from cloud.settings import CloudSettings  # noqa: E402
from shared.samples import Decision, Verdict, new_sample_id  # noqa: E402


class SlowJudge:
    """An analysis that finds everything normal."""

    def judge(self, values, crops=()):
        time.sleep(float(sys.argv[2]))
        return [Verdict(new_sample_id(), Decision.NORMAL, p_value=0.5) for _ in values]


if __name__ == "__main__":
    main.serve(CloudSettings.load(Path(sys.argv[1]), {}), lambda bundle: SlowJudge(), Role.ANALYSIS)
