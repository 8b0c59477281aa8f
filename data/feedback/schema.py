"""The tables of what was served and of the events that came back. Every time is in ms since the epoch, UTC."""

import sqlalchemy as sa

from data.database import metadata

ID = sa.String(256)

served = sa.Table(
    "served",
    metadata,
    sa.Column("request_id", ID, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),  # of the bundle
    sa.Column("user_id", ID, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),  # the feature time
    sa.Column("answered_at", sa.BigInteger, nullable=False),  # stamped when the slate was taken in
    sa.Column("route", sa.String(16), nullable=False),
    sa.Column("query_video_id", ID),
    sa.Column("context", sa.Text, nullable=False),  # JSON
    sa.Column("weights", sa.Text, nullable=False),  # JSON
    sa.Column("model_version", sa.BigInteger),
    sa.Column("experiment", sa.Text),  # several are separated by commas, and their arms likewise
    sa.Column("arm", sa.Text),
    sa.Column("rebuildable", sa.Boolean, nullable=False),  # whether offline features can be what was served
    sa.Column("candidates", sa.LargeBinary),  # sampled requests: the whole list, JSON
    sa.Index("served_by_user", "name", "user_id", "timestamp"),
    sa.Index("served_by_time", "name", "timestamp"),
)
"""A request that was answered: one row."""

served_items = sa.Table(
    "served_items",
    metadata,
    sa.Column("request_id", ID, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),  # from 0
    sa.Column("video_id", ID, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("predictions", sa.Text, nullable=False),  # JSON
    sa.Column("generators", sa.Text, nullable=False),  # names, separated by commas
    sa.Column("propensity", sa.Double),
    sa.Column("is_exploration", sa.Boolean),
)
"""The slate of a request: a row a place."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", ID, primary_key=True),
    sa.Column("request_id", ID, nullable=False),
    sa.Column("video_id", ID, nullable=False),
    sa.Column("user_id", ID),  # of the request; of an orphan as the client said
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("timestamp", sa.BigInteger),  # the client's; decides nothing
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("fate", sa.String(16), nullable=False),  # accepted, late or orphan
    sa.Index("events_by_item", "request_id", "video_id"),
    sa.Index("events_by_time", "received_at"),
)

catalogue = sa.Table(
    "catalogue",
    metadata,
    sa.Column("video_id", ID, primary_key=True),
    sa.Column("valid_from", sa.BigInteger, primary_key=True),
    sa.Column("columns", sa.Text, nullable=False),  # JSON: every column of the videos' table
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)
"""Videos that came through the API: a row holds from its ``valid_from`` until the video's next one."""

takedowns = sa.Table(
    "takedowns",
    metadata,
    sa.Column("video_id", ID, primary_key=True),
    sa.Column("taken_down_at", sa.BigInteger, nullable=False),
)
"""Videos that are never to be returned, whatever the bundle knows of them."""

exports = sa.Table(
    "exports",
    metadata,
    sa.Column("dataset", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),  # from 1
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("path", sa.Text, nullable=False),  # within the home
    sa.Column("closed", sa.Text, nullable=False),  # JSON: the labels whose windows had closed
    sa.Column("sha256", sa.String(64)),  # of the partition's file; null where no row was left to export
    sa.Column("exported_at", sa.BigInteger, nullable=False),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""Counts that survive a restart: the fates of events, served rows that were dropped or lost."""

writers = sa.Table(
    "writers",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("closed_at", sa.BigInteger),  # null: at work, or killed
    sa.Column("settled", sa.BigInteger, nullable=False),  # served requests known to be on disk, or counted as dropped
    sa.Column("lost", sa.BigInteger, nullable=False),
)
"""The processes that logged served requests. How many each took in stands in its ledger (data/feedback/ledger.py)."""
