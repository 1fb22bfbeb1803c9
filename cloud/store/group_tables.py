"""Tables of groups, of changes of their settings, and of moves of devices; part of cloud.store.schema."""

from sqlalchemy import JSON, Column, Double, Index, String, Table

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

device_groups = Table(  # groups that somebody made; devices and settings name others
    "device_groups",
    metadata,
    Column("group_name", String(64), primary_key=True),
    Column("made_at_s", Double, nullable=False),
)

group_changes = Table(  # history of the settings of groups; the newest number of a group is its version
    "group_changes",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("group_name", String(64), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("before", JSON, nullable=False),  # the given values of a shared.group_settings.GroupSettings
    Column("after", JSON, nullable=False),
    Column("forecast", JSON(none_as_null=True)),  # a cloud.thresholds.figures.Expected; NULL: there was none
    Column("outcome", JSON(none_as_null=True)),  # a cloud.thresholds.figures.Came, a day later; NULL: not known yet
    Column("undoes", Number),
    Index("ix_group_changes_group_name_number", "group_name", "number"),
    sqlite_autoincrement=True,  # a version is never used twice
)

device_moves = Table(  # moves of many devices at once, so that they can be undone
    "device_moves",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at_s", Double, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("site", String(64)),  # NULL: unchanged
    Column("group_name", String(64)),
    Column("devices", JSON, nullable=False),  # a list of [device id, site before, group before]
    Column("undone_at_s", Double),
    sqlite_autoincrement=True,
)
