"""Work of people in the store of `scripts/demo_store.py`: decisions, a mute, a share, comparisons, training, rounds."""

import json
import time
from functools import partial
from pathlib import Path

from cloud.comparison.run import run_comparison
from cloud.serving.analysis import Analysis
from cloud.store import Store, comparisons
from cloud.store.comparisons import AskedSamples, SampleChoice
from cloud.store.defect_classes import add_class
from cloud.store.labels import Label
from cloud.store.registry import Registry
from cloud.store.review.decisions import Decider, NewDecision, decide
from cloud.store.review.item_filter import ItemFilter
from cloud.store.review.items import ItemOrder, StoredItem, item_page
from cloud.store.review.mutes import NewMute, make_mute
from cloud.store.review.muting import MuteScope
from cloud.store.share_links import add_share
from cloud.store.training_jobs import JobState, NewJob, add_job, claim_next, end_job
from cloud.system.rounds import OUTCOME_FILE, PLAN_FILE, RESULT_FILE, RUNS_FOLDER, RunPlanFacts

DAY_S = 86_400.0
CLASSES = ("scratch", "dirt", "wrong part")
GRACE = Decider("grace", "user:grace")
COMPARED = 40  # samples


async def work(store: Store, actor: str) -> str:
    """Decide half of the items, mute a pattern and share a verdict; return the secret of its link."""
    for name in CLASSES:
        await add_class(store, name, actor)
    async with store.reading() as connection:
        items = (await item_page(connection, ItemFilter(), ItemOrder.OLDEST, size=200)).items
    half = items[: len(items) // 2]
    for place, item in enumerate(half):
        decision = (Label.REAL, Label.REAL, Label.FALSE_ALARM, Label.UNSURE)[place % 4]
        note = "valve swapped at the change of shift" if place == 1 else ""
        of_class = CLASSES[place % 3] if decision is Label.REAL else ""
        await decide(store, NewDecision(decision, {item.number: 0}, note, of_class), GRACE)
    false_alarm: StoredItem = half[2]
    note = "lamp flickers until it is changed on Friday"
    await make_mute(store, NewMute(false_alarm.number, MuteScope.SOURCE, note=note, accepts_real=True), GRACE)
    assert half[0].cover is not None
    added = await add_share(store, half[0].cover.sample_id, 7 * DAY_S, actor)
    assert added is not None
    return added[1]


async def compare(store: Store, registry: Registry, pair: tuple[str, str], rate: float) -> None:
    """Compare two bundles on the newest samples, as the service does."""
    asked = AskedSamples(SampleChoice.NEWEST, COMPARED)
    await comparisons.start(store, *pair, asked, actor="account:ada", now_s=time.time())
    claimed = await comparisons.claim(store, "pictures", time.time())
    assert claimed is not None
    await run_comparison(store, registry, claimed, partial(Analysis.load, device="cpu"), rate)


async def train(store: Store) -> None:
    """Add a training job that failed."""
    await add_job(store, NewJob({"upload": "none"}, {"name": "press", "modality": "tabular"}), "user:ada")
    job = await claim_next(store, "pictures", 3)
    assert job is not None
    reason = "The upload has 12 rows; at least 100 are needed. Upload a longer export."
    log = [(time.time() - 40 + 8 * step, text) for step, text in enumerate(("reading press.csv", "checking 4 columns"))]
    await end_job(store, job.job_id, "pictures", JobState.FAILED, reason=reason, log=log)


def run_rounds(data_dir: Path, name: str, before: str, after: str) -> None:
    """Write the files of federated rounds, as `vedette federated run` leaves them."""
    folder = data_dir / RUNS_FOLDER / "20261129-061500"
    folder.mkdir(parents=True)
    started_s = time.time() - 5 * 3600
    plan = RunPlanFacts(
        bundle_name=name,
        bundle_before=before,
        rounds=3,
        min_clients=2,
        started_at_s=started_s,
        deadline_s=started_s + 3600,
        head_bytes=148_000,
    )
    rounds = [
        {
            "number": number,
            "seconds": 41.0 + number,
            "clients": {
                device: {"num-examples": samples, "loss": loss / number}
                for device, samples, loss in (("shuttle-a", 5_200, 0.31), ("shuttle-b", 4_100, 0.36))
            },
            "failures": {},
        }
        for number in (1, 2, 3)
    ]
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    (folder / OUTCOME_FILE).write_text(json.dumps({"rounds": rounds, "error": ""}))
    (folder / RESULT_FILE).write_text(json.dumps({"bundle_after": after}))
