"""Distribution of test files over the workers of pytest-xdist: files that wait run beside files that compute.

Each file runs on one worker. As many workers as there are cores prefer files that compute; the others prefer files that
wait for processes, sockets and clocks. A worker without files of its kind takes one of the other kind.
"""

import os

from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

WAITING = (
    "tests/edge/",
    "tests/system/",
    "tests/cloud/service/",
    "tests/cloud/console/",
    "tests/shared/test_supervision",
)


class WaitBesideCompute(LoadFileScheduling):
    """Gives each worker files of the kind it prefers, in the order of collection."""

    def __init__(self, config: object, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._computing = min(os.cpu_count() or 1, max(1, self.numnodes - 1))

    def _assign_work_unit(self, node: WorkerController) -> None:
        prefers_waiting = int(node.gateway.id.removeprefix("gw")) >= self._computing
        for scope in self.workqueue:
            if scope.startswith(WAITING) is prefers_waiting:
                self.workqueue.move_to_end(scope, last=False)
                break
        super()._assign_work_unit(node)
