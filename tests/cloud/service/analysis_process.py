"""An analysis process without PyTorch, for tests of processes that are killed; `python -m` this module.

Arguments: settings, seconds that a batch takes, seconds of a claim.
"""

import sys
import time
from pathlib import Path

import cloud.store.engine
from shared.samples import Decision, Verdict, new_sample_id


class SlowJudge:
    """An analysis that finds everything normal."""

    def judge(self, values, crops=()):
        time.sleep(float(sys.argv[2]))
        return [Verdict(new_sample_id(), Decision.NORMAL, p_value=0.5) for _ in values]


def run() -> None:
    """Serve with a shorter claim, which the modules of the service read when they are imported."""
    cloud.store.engine.CLAIM_S = float(sys.argv[3])
    from cloud.service import main
    from cloud.service.roles import Role
    from cloud.settings import CloudSettings

    main.serve(CloudSettings.load(Path(sys.argv[1]), {}), lambda bundle: SlowJudge(), Role.ANALYSIS)


if __name__ == "__main__":
    run()
