"""Problems of an agent as short texts for an operator, in its status and its heartbeats."""

from collections.abc import Mapping

from edge.pipeline import Pipeline
from shared.status import BUNDLE_WARNING, WAITING

COUNTED = {
    "samples_dropped": "spool: {} samples were dropped undelivered",
    "samples_unscored": "screener: {} samples got no score and were forwarded as most suspicious",
    "samples_refused": "uplink: {} samples were refused by the service and set aside",
    "alarms_dropped": "alarms: {} messages were dropped undelivered",
    "bundle_rollbacks": f"{BUNDLE_WARNING}{{}} were rolled back",
    "bundles_refused": f"{BUNDLE_WARNING}{{}} could not be used",
    "spools_set_aside": "spool: {} damaged files were set aside",
}


def counted_problems(counts: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Return a text for each counter of problems that has risen since the start of the agent."""
    new = {name: counts[name] - before[name] for name in COUNTED}
    return [text.format(new[name]) for name, text in COUNTED.items() if new[name]]


def source_problems(pipeline: Pipeline, published: frozenset[str] | None, *, may_end: bool) -> list[str]:
    """Return a text for each problem of a source.

    `published`: names of the service's bundles, None before its first answer. `may_end`: the end of a source is no
    problem.
    """
    health, found = pipeline.health, []
    if pipeline.error is not None:
        found.append(str(pipeline.error))
    elif pipeline.state == WAITING:
        found.append(_waiting_text(pipeline.settings.bundle_name or "", published))
    elif pipeline.ended and not may_end:
        found.append("ended, no more samples come: restart the agent to read it again")
    if not health.is_well:
        found.append(f"{health.state}, {health.detail}")
    found += [text for text in (health.clock, pipeline.warning, pipeline.alarm_warning, pipeline.miss_warning) if text]
    return [f"source {pipeline.settings.id}: {text}" for text in found]


def _waiting_text(name: str, published: frozenset[str] | None) -> str:
    if published is None:
        return f"waiting for bundle {name!r}; the service has not answered yet"
    if name in published:
        return f"waiting for bundle {name!r}, which is being fetched"
    return f"waiting for bundle {name!r}, which is not published: vedette cloud publish BUNDLE on the service"
