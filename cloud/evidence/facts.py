"""Facts about one verdict as sentences, and the paragraph in plain language made of them by template."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloud.evidence.reading import Evidence
from cloud.evidence.series import NAMED_SHARE, channel_words
from cloud.evidence.standing import Side, figure, standing_words
from cloud.evidence.table import Feature
from cloud.modalities import View, cloud_modality
from cloud.store.labels import Label
from cloud.words import p_value_words
from shared.samples import Decision, Opinion, Route

ODD_P_VALUE = 0.05  # an opinion up to here counts as odd
MAX_NAMED = 3  # channels or features in the paragraph
LABEL_WORDS = {
    Label.REAL: "real",
    Label.FALSE_ALARM: "a false alarm",
    Label.MISSED: "missed by the edge",
    Label.UNSURE: "unsure",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence that is true of a verdict; `name` refers to it."""

    name: str
    text: str


def facts_of(evidence: Evidence) -> tuple[Fact, ...]:
    """Return the facts of a verdict, the most important first."""
    found = [Fact("verdict", _verdict(evidence))]
    found += _where(evidence)
    found += [Fact(f"expected {place}", text) for place, text in enumerate(_expected(evidence), 1)]
    found.append(Fact("edge", _edge(evidence)))
    for name, text in (
        ("analyzers", _analyzers(evidence)),
        ("baselines", _baselines(evidence)),
        ("history", _history(evidence)),
        ("similar", _similar(evidence)),
        ("label", _label(evidence)),
    ):
        if text:
            found.append(Fact(name, text))
    return tuple(found)


def paragraph_of(facts: Sequence[Fact]) -> str:
    """Return the facts as one paragraph."""
    return " ".join(fact.text for fact in facts)


def is_baseline(opinion: Opinion, evidence: Evidence) -> bool:
    """Return whether an opinion is no part of the fused p-value; False where the bundle cannot tell."""
    fused = evidence.bundle.fused if evidence.bundle is not None else frozenset()
    return bool(fused) and opinion.analyzer not in fused


def _verdict(evidence: Evidence) -> str:
    record = evidence.record
    noun = cloud_modality(record.modality).noun
    rarity = "" if record.p_value is None else p_value_words(record.p_value, record.extrapolated)
    bound = "at most " if record.p_value_is_bound else ""
    if record.decision is Decision.ANOMALOUS:
        return f"This {noun} is anomalous: {bound}{rarity} normal ones look at least this odd."
    if record.decision is Decision.NORMAL:
        return f"This {noun} is normal to the cloud: {rarity} normal ones look at least this odd."
    if record.p_value is not None:
        return f"The cloud finds nothing odd in the part of this {noun} that was sent ({rarity}), and cannot decide."
    return f"The cloud could not judge this {noun}: {(record.reason or 'no reason was stored').rstrip('.')}."


def _where(evidence: Evidence) -> Iterator[Fact]:
    view = cloud_modality(evidence.record.modality).view
    if view in (View.PICTURE, View.CLIP):
        yield Fact("region", _region(evidence, "last frame" if view is View.CLIP else "image"))
    frames = [(name, share) for name, share in evidence.record.contributions if view is View.CLIP]
    if frames:
        name, share = max(frames, key=lambda pair: pair[1])
        yield Fact("frame", f"Of its frames, {name} stands out most, with {share:.0%} of the anomaly.")
    if evidence.series is not None:
        named = [each for each in evidence.series.channels if (each.share or 0.0) >= NAMED_SHARE][:MAX_NAMED]
        for place, channel in enumerate(named or evidence.series.channels[:1], 1):
            yield Fact(f"channel {place}", f"{channel_words(channel, evidence.series)}{_share(channel.share)}.")
    for place, feature in enumerate(_named(evidence.features), 1):
        standing = standing_words(feature.name, feature.value, feature.normal)
        yield Fact(f"feature {place}", f"{standing}{_share(feature.share)}.")


def _share(share: float | None) -> str:
    return "" if share is None else f" ({share:.0%} of the deviation)"


def _named(features: Sequence[Feature]) -> Sequence[Feature]:
    named = [each for each in features if (each.share or 0.0) >= NAMED_SHARE][:MAX_NAMED]
    return named or [each for each in features if each.side in (Side.BELOW, Side.ABOVE)][:1]


def _region(evidence: Evidence, what: str) -> str:
    region = evidence.region
    if evidence.contents.cloud_map is None and evidence.contents.edge_map is None:
        return "There is no anomaly map that would show where."
    if region is None:
        return f"No region of the {what} stands out in the anomaly map."
    size = "under 1 %" if region.share < 0.01 else f"{region.share:.0%}"
    others = region.regions - 1
    more = f"; {others} smaller {'region is' if others == 1 else 'regions are'} marked, too" if others else ""
    return f"The anomaly lies in the {region.words} of the {what}, on {size} of its area{more}."


def _expected(evidence: Evidence) -> Iterator[str]:
    for feature in _named(evidence.features):
        if feature.typical is None or feature.normal is None or feature.side is Side.MISSING:
            continue
        low, middle, high = (figure(value, feature.normal.width) for value in feature.typical)
        spread = "" if low == high else f" ({low} to {high})"
        yield f"Normal rows that are otherwise like this one have {feature.name} {middle}{spread}."


def _edge(evidence: Evidence) -> str:
    record = evidence.record
    rarity = p_value_words(record.edge_p_value, record.edge_extrapolated)
    return {
        Route.FORWARD: f"The edge found it suspicious ({rarity}) and forwarded it.",
        Route.ALARM: f"The edge raised an alarm ({rarity}).",
        Route.AUDIT: f"The edge accepted it ({rarity}) and sent it as an audit.",
        Route.ACCEPT: f"The edge accepted it ({rarity}).",
    }[record.route]


def _analyzers(evidence: Evidence) -> str:
    fused = [each for each in evidence.record.opinions if not is_baseline(each, evidence)]
    if len(fused) < 2:
        return ""
    odd = [each for each in fused if each.p_value <= ODD_P_VALUE]
    if len(odd) == len(fused):
        return f"All {len(fused)} analyzers find it odd."
    if not odd:
        return f"None of the {len(fused)} analyzers alone finds it odd."
    return f"{len(odd)} of {len(fused)} analyzers {'find' if len(odd) > 1 else 'finds'} it odd."


def _baselines(evidence: Evidence) -> str:
    simple = [each for each in evidence.record.opinions if is_baseline(each, evidence)]
    if not simple:
        return ""
    texts = ", ".join(f"{each.analyzer} {p_value_words(each.p_value, each.extrapolated)}" for each in simple)
    odd = sum(each.p_value <= ODD_P_VALUE for each in simple)
    if odd == len(simple):
        return f"Simple baselines find it odd as well: {texts}."
    return f"Simple baselines {'find nothing odd' if not odd else 'are of two minds'}: {texts}."


def _history(evidence: Evidence) -> str:
    others = [each for each in evidence.history if not each.is_this]
    if not others:
        return "It is the only verdict of its source in the store."
    odd = sum(each.decision is Decision.ANOMALOUS for each in others)
    if not odd:
        return f"None of the {len(others)} verdicts of its source around it is anomalous."
    return f"Of the {len(others)} verdicts of its source around it, {odd} {'is' if odd == 1 else 'are'} anomalous."


def _similar(evidence: Evidence) -> str:
    labels = Counter(each.label for each in evidence.similar if each.label is not None)
    if not labels:
        return ""
    label, count = labels.most_common(1)[0]
    begin = "One earlier one like it was" if count == 1 else f"{count} earlier ones like it were"
    return f"{begin} labelled {LABEL_WORDS[label]}."


def _label(evidence: Evidence) -> str:
    if not evidence.labels or evidence.labels[0].label not in LABEL_WORDS:
        return ""
    newest = evidence.labels[0]
    of_class = f", of the class {newest.defect_class}" if newest.defect_class else ""
    return f"{newest.author} labelled it {LABEL_WORDS[newest.label]}{of_class}."
