"""Distribution of test files over the workers of pytest-xdist: files that wait run beside files that compute.

Each file runs on one worker. As many workers as there are cores prefer files that compute; the others prefer files that
wait for processes, sockets and clocks. A worker without files of its kind takes one of the other kind. The longest
files come first, so that no worker has a long one left when the others end.
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
# Files that take ten seconds and more, the longest first.
LONGEST = (
    "tests/system/test_demo.py",
    "tests/cloud/console/test_every_page.py",
    "tests/cloud/service/test_analysis_process.py",
    "tests/cloud/console/test_days.py",
    "tests/test_docs_run.py",
    "tests/cloud/evaluation/test_video.py",
    "tests/cloud/console/training/test_training_page.py",
    "tests/cloud/console/test_usability.py",
    "tests/cloud/console/test_in_browser.py",
    "tests/edge/test_agent.py",
    "tests/cloud/service/test_serve.py",
    "tests/cloud/evaluation/test_bench.py",
    "tests/cloud/console/fleet/test_administrator.py",
    "tests/cloud/jobs/test_runner.py",
    "tests/cloud/rest/test_schema_fuzz.py",
    "tests/cloud/methods/test_analyzers.py",
    "tests/benchmarks/test_benchmarks.py",
    "tests/cloud/training/encoders/test_corrupted_patches.py",
    "tests/cloud/service/test_access.py",
    "tests/system/test_quick_start.py",
    "tests/edge/test_mqtt.py",
    "tests/cloud/training/judgement/test_judge.py",
    "tests/cloud/evaluation/test_evaluate.py",
    "tests/cloud/service/test_detection.py",
    "tests/cloud/serving/test_analysis.py",
    "tests/cloud/service/test_rollouts.py",
    "tests/edge/test_camera.py",
    "tests/edge/test_transport.py",
    "tests/cloud/console/test_routes.py",
    "tests/edge/test_alarms.py",
    "tests/cloud/training/test_bad_input.py",
    "tests/cloud/methods/test_denoising_likelihood.py",
    "tests/cloud/training/test_worth.py",
    "tests/cloud/console/test_empty.py",
    "tests/cloud/service/test_removal.py",
    "tests/edge/test_pipeline.py",
    "tests/shared/tables/test_contract.py",
    "tests/shared/diffusion/test_training.py",
    "tests/edge/test_bundle_survival.py",
    "tests/edge/test_kills.py",
    "tests/cloud/service/test_hostile_devices.py",
    "tests/cloud/methods/test_reference.py",
    "tests/cloud/store/test_queries.py",
    "tests/test_architecture.py",
)


class WaitBesideCompute(LoadFileScheduling):
    """Gives each worker files of the kind it prefers: the longest, then in the order of collection."""

    def __init__(self, config: object, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._computing = min(os.cpu_count() or 1, max(1, self.numnodes - 1))

    def _assign_work_unit(self, node: WorkerController) -> None:
        prefers_waiting = int(node.gateway.id.removeprefix("gw")) >= self._computing

        def rank(scope: str) -> tuple[bool, int]:
            place = LONGEST.index(scope) if scope in LONGEST else len(LONGEST)
            return scope.startswith(WAITING) is not prefers_waiting, place

        self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)
