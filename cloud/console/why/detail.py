"""One verdict in full as JSON values, for the page, its parts and `/api/verdicts/{sample_id}`."""

from dataclasses import replace
from typing import Any

from cloud.console.views import headline, p_value_view, row_view
from cloud.console.why.drawings import drawing, media_path, thumbnail
from cloud.console.why.gauges import strip_view
from cloud.evidence.bundle_facts import without_pictures
from cloud.evidence.facts import LABEL_WORDS, facts_of, is_baseline, paragraph_of
from cloud.evidence.history import SimilarVerdict
from cloud.evidence.latency import stages_of
from cloud.evidence.reading import Evidence
from cloud.store.verdict_columns import finite_or_none, published
from cloud.words import bytes_words, number_words
from shared.samples import Opinion

PRIVATE_FACTS = ("label", "similar")
SHOWN_EXAMPLES = 3


def detail_view(evidence: Evidence, media: str = "", *, is_shared: bool = False) -> dict[str, Any]:
    """Return one verdict with its evidence and its drawings.

    `media`: beginning of the addresses of its pictures, by default those of signed-in people. With `is_shared` labels
    and other samples are left out, except their rarity in the history.
    """
    record, facts = evidence.record, facts_of(evidence)
    if is_shared:
        facts = tuple(fact for fact in facts if fact.name not in PRIVATE_FACTS)
        evidence = replace(evidence, similar=(), labels=(), examples=(), bundle=without_pictures(evidence.bundle))
    times = record.captured_at_s, record.sample_id, record.received_at_s, record.judged_at_s
    return {
        **row_view(record),
        **published(record, "detail"),
        "headline": headline(record),
        "paragraph": paragraph_of(facts),
        "facts": [{"name": fact.name, "text": fact.text} for fact in facts],
        "gaps": list(evidence.gaps),
        "near_copies": evidence.near_copies.copies,
        "near_copies_last_at_s": evidence.near_copies.last_at_s,
        "edge_score": finite_or_none(record.edge_score),
        "edge_score_words": number_words(record.edge_score),
        "payload_bytes": record.payload_bytes,
        "payload_words": bytes_words(record.payload_bytes),
        "opinions": [_opinion(opinion, evidence) for opinion in record.opinions],
        "contributions": [{"name": name, "share": finite_or_none(share)} for name, share in record.contributions],
        "problem": evidence.contents.problem,
        "stages": [{"name": stage.name, "seconds": stage.seconds, "words": stage.words} for stage in stages_of(*times)],
        "history": strip_view(evidence.history),
        "similar": [_similar(item) for item in evidence.similar],
        "labels": [
            {
                "label": each.label.value,
                "words": LABEL_WORDS.get(each.label, "withdrawn"),
                "defect_class": each.defect_class,
                "author": each.author,
                "note": each.note,
                "at_s": each.at_s,
            }
            for each in evidence.labels
        ],
        "examples": [
            {"sample_id": str(each.sample_id), "distance": each.distance, "media": f"/media/{each.sample_id}"}
            for each in evidence.examples[:SHOWN_EXAMPLES]
        ],
        "bundle_pictures": _bundle_pictures(evidence),
        "expected_picture": f"/media/{record.sample_id}/expected.png" if evidence.has_expected_picture else "",
        **drawing(evidence, media or media_path(record)),
    }


def _bundle_pictures(evidence: Evidence) -> list[dict[str, str]]:
    """Return the golden picture of the bundle, and others of it while few of the source are stored."""
    count = len(evidence.bundle.pictures) if evidence.bundle is not None else 0
    few = max(0, SHOWN_EXAMPLES - len(evidence.examples))
    media = media_path(evidence.record)
    return [
        {"url": f"{media}/normal/{number}.png", "words": "Golden" if number == 0 else f"Held out {number}"}
        for number in range(min(count, 1 + few))
    ]


def _opinion(opinion: Opinion, evidence: Evidence) -> dict[str, Any]:
    return p_value_view(opinion.p_value, opinion.extrapolated) | {
        "analyzer": opinion.analyzer,
        "score": finite_or_none(opinion.score),
        "score_words": number_words(opinion.score),
        "is_baseline": is_baseline(opinion, evidence),
    }


def _similar(item: SimilarVerdict) -> dict[str, Any]:
    row = item.row
    return {
        "sample_id": str(row.sample_id),
        "judged_at_s": row.judged_at_s,
        "source_id": row.source_id,
        "decision": row.decision.value,
        "label": item.label.value if item.label is not None else None,
        "label_words": LABEL_WORDS[item.label] if item.label is not None else "",
        "likeness": item.likeness,
        "fused": p_value_view(row.p_value, row.extrapolated) if row.p_value is not None else None,
        "thumbnail": thumbnail(row),
    }
