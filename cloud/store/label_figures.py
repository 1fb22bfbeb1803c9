"""Counts of the labels that count, by bundle name, label and defect class."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.defect_classes import with_class_name
from cloud.store.labels import IS_CURRENT, Label
from cloud.store.schema import labels, verdicts
from cloud.store.sites import by_sites

MAX_COUNTED = 10_000  # newest labels


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Labelled samples of a bundle name: by label, and by defect class of the real and missed ones.

    `is_cut`: there are more labels than MAX_COUNTED; older ones are not counted.
    """

    by_label: dict[Label, int]
    by_class: dict[str, int]
    is_cut: bool

    @property
    def samples(self) -> int:
        """Return the number of labelled samples."""
        return sum(self.by_label.values())


async def label_figures(connection: AsyncConnection, bundle_name: str, sites: Sequence[str] = ()) -> LabelFigures:
    """Return the figures of one bundle name, of any version, of these sites."""
    every = select(labels.c.number).order_by(labels.c.number.desc())
    newest = every.limit(MAX_COUNTED).subquery()
    joined = newest.join(labels, labels.c.number == newest.c.number).join(
        verdicts, verdicts.c.number == labels.c.sample_number
    )
    # An id is NAME-VERSION-HASH, and a name may hold dashes: those of cam-left do not count for cam.
    rest = func.substr(verdicts.c.bundle_id, len(bundle_name) + 2)
    of_bundle = verdicts.c.bundle_id.startswith(f"{bundle_name}-", autoescape=True) & rest.not_like("%-%-%")
    listed = select(labels.c.label, labels.c.defect_class).select_from(joined)
    listed = listed.where(of_bundle, IS_CURRENT, labels.c.label != Label.WITHDRAWN.value)
    found = with_class_name(listed.where(*by_sites(verdicts.c.device_id, sites)), labels.c.defect_class).subquery()
    query = select(found.c.label, found.c.class_name, func.count()).group_by(found.c.label, found.c.class_name)
    by_label, by_class = dict[Label, int](), dict[str, int]()
    for label, name, count in await connection.execute(query):
        by_label[Label(label)] = by_label.get(Label(label), 0) + count
        if name:
            by_class[name] = by_class.get(name, 0) + count
    further = await connection.execute(every.offset(MAX_COUNTED).limit(1))
    return LabelFigures(by_label, by_class, is_cut=further.first() is not None)
