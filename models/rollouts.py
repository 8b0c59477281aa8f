"""Pinned versions, and the versions on trial: a shadow scores without being served, a canary serves a share of the users."""

import secrets
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa

from data.database import metadata, reading, upsert, writing
from data.errors import BundleError
from models.leases import Lease
from models.registry import Registry

Kind = Literal["shadow", "canary"]
KINDS: tuple[Kind, ...] = get_args(Kind)

pins = sa.Table(
    "pins",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("pinned_at", sa.BigInteger, nullable=False),
)
"""Versions that are never collected."""

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("share", sa.Float, nullable=False),  # of the requests (shadow) or users (canary), above 0, at most 1
    sa.Column("salt", sa.String(32), nullable=False),  # with the user's id it decides who is in the share
    sa.Column("state", sa.String(16), nullable=False),  # running, stopped, withdrawn
    sa.Column("reason", sa.Text, nullable=False),  # why it was withdrawn
    sa.Column("started_at", sa.BigInteger, nullable=False),  # ms since the epoch, UTC
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)
"""The last shadow and the last canary of each bundle name."""


@dataclass(frozen=True)
class Rollout:
    """A version on trial, or the last one that was."""

    name: str
    kind: Kind
    version: int
    share: float
    salt: str
    state: str
    reason: str
    started_at: int
    changed_at: int

    @property
    def running(self) -> bool:
        return self.state == "running"


class Rollouts:
    """Reads and writes both tables of a registry's database."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def pin(self, name: str, version: int) -> None:
        """Never collect this version. Raises BundleError where there is none."""
        with Lease(self._registry.folder_of(name, version)):
            insert = upsert(self._registry.engine, pins).values(name=name, version=version, pinned_at=self._registry.now())
            with writing(self._registry.engine) as connection:
                connection.execute(insert.on_conflict_do_nothing())

    def unpin(self, name: str, version: int) -> None:
        """Raises BundleError where it isn't pinned."""
        statement = sa.delete(pins).where(pins.c.name == name, pins.c.version == version)
        with writing(self._registry.engine) as connection:
            if not connection.execute(statement).rowcount:
                raise BundleError(f"{name!r} {version} is not pinned")

    def pinned(self, name: str) -> set[int]:
        with reading(self._registry.engine) as connection:
            return set(connection.scalars(sa.select(pins.c.version).where(pins.c.name == name)))

    def start(self, name: str, kind: Kind, version: int, share: float) -> None:
        """Put a version on trial, in place of the one that was. The same canary with a larger share keeps its users.

        Raises:
            BundleError: the version is missing, damaged or the champion, or the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise BundleError(f"expected a share above 0 and at most 1, got {share:g}")
        with Lease(self._registry.folder_of(name, version)):
            self._registry.open(name, version)
            if version == self._registry.champion(name):
                raise BundleError(f"{name!r} {version} is the champion: it serves everybody already")
            before, now = self.find(name).get(kind), self._registry.now()
            salt = before.salt if before and before.version == version else secrets.token_hex(8)
            values = {"version": version, "share": share, "salt": salt, "state": "running", "reason": ""}
            values |= {"started_at": now, "changed_at": now}
            insert = upsert(self._registry.engine, rollouts).values(name=name, kind=kind, **values)
            with writing(self._registry.engine) as connection:
                connection.execute(insert.on_conflict_do_update(index_elements=["name", "kind"], set_=values))

    def end(self, name: str, kind: Kind, state: Literal["stopped", "withdrawn"], reason: str = "", only: int = 0) -> bool:
        """End the running trial (with ``only``: if it is of that version). Returns whether one was running."""
        statement = sa.update(rollouts).where(
            rollouts.c.name == name, rollouts.c.kind == kind, rollouts.c.state == "running"
        )
        if only:
            statement = statement.where(rollouts.c.version == only)
        with writing(self._registry.engine) as connection:
            ended = connection.execute(statement.values(state=state, reason=reason, changed_at=self._registry.now()))
            return bool(ended.rowcount)

    def find(self, name: str) -> dict[str, Rollout]:
        """By kind, ended ones too."""
        with reading(self._registry.engine) as connection:
            rows = connection.execute(sa.select(rollouts).where(rollouts.c.name == name)).mappings()
            return {row["kind"]: Rollout(**row) for row in rows}
