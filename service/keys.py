"""API keys: made once, shown once, kept as a hash, asked for at every request without a read of the database."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time

import sqlalchemy as sa
import structlog

from data.database import database_url, metadata, open_database, reading, writing
from data.errors import WatchNextError
from data.home import Home

log = structlog.get_logger()

SCOPES = ("rank", "events", "admin")
PREFIX = "wn"
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([0-9A-Za-z_-]{{43}})")
_NOBODY = hashlib.sha256(b"no such key").hexdigest()

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.String(12), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of the secret, in hexadecimal
    sa.Column("scopes", sa.String(64), nullable=False),  # separated by commas
    sa.Column("note", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # ms since the epoch, UTC
    sa.Column("revoked_at", sa.BigInteger),
)
"""One row a key, kept when it is revoked. A secret has 256 random bits, so its plain hash can't be searched for."""


@dataclass(frozen=True)
class Key:
    key_id: str
    digest: str
    scopes: frozenset[str]
    note: str
    created_at: int
    revoked_at: int | None


class KeyStore:
    """The keys of a home, as the commands write them.

    Raises:
        DatabaseError: the database can't be read or written.
    """

    def __init__(self, home: Home, url: str | None = None) -> None:
        self._home, self._url = home, url or database_url(home)
        self._opened: sa.Engine | None = None

    def create(self, scopes: Iterable[str], note: str = "") -> str:
        """Make a key and return it whole, ``wn_<key id>_<secret>``: it can't be shown again."""
        wanted = dict.fromkeys(scopes)
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            raise WatchNextError(f"a key needs scopes from {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}")
        if len(note) > 200:
            raise WatchNextError(f"a key's note has at most 200 characters, got {len(note)}")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        values = {"key_id": key_id, "digest": digest_of(secret), "scopes": ",".join(wanted), "note": note}
        with writing(self._engine()) as connection:
            connection.execute(sa.insert(api_keys).values(**values, created_at=int(time() * 1000)))
        return f"{PREFIX}_{key_id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """From the services' next look on, the key is refused. Revoking twice changes nothing.

        Raises:
            WatchNextError: there is no such key.
        """
        id_of_token = _TOKEN.fullmatch(key_id)
        wanted = id_of_token[1] if id_of_token else key_id  # who pastes the whole key means that one
        statement = sa.update(api_keys).where(api_keys.c.key_id == wanted)
        revoked_at = sa.func.coalesce(api_keys.c.revoked_at, int(time() * 1000))
        with writing(self._engine()) as connection:
            changed = connection.execute(statement.values(revoked_at=revoked_at)).rowcount
        if not changed:
            raise WatchNextError(f"there is no key {wanted[:12]!r}: `watchnext keys list` shows them")

    def all(self) -> list[Key]:
        """Oldest first. A database that does not exist yet has none, and is not made by asking."""
        if self._opened is None and not self._exists():
            return []
        with reading(self._engine()) as connection:
            rows = connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)).mappings()
            return [_key(row) for row in rows]

    def _exists(self) -> bool:
        url = sa.make_url(self._url)
        return url.get_backend_name() != "sqlite" or url.database is None or Path(url.database).exists()

    def _engine(self) -> sa.Engine:
        if self._opened is None:
            if not self._exists():
                self._home.root.mkdir(parents=True, exist_ok=True)
            self._opened = open_database(self._url)
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.dispose()


class Keyring:
    """The keys as of the last look. Requests only read it; :meth:`refresh` replaces it as a whole, every second or so.

    Once a key has been seen, a key is asked for, were they all revoked or gone. While the keys have never been
    read, nobody knows whether one is needed: ``known`` is false and everything is refused.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._keys: Mapping[str, Key] = {}
        self.required = False
        self.known = False

    def refresh(self) -> None:
        """Look again. Where the database can't be read, the keys stay as they are, and the reason is logged."""
        try:
            keys = self._store.all()
        except WatchNextError as error:
            log.warning("the keys can't be read", reason=str(error))
            return
        self.required = self.required or bool(keys)
        self._keys = {key.key_id: key for key in keys if key.revoked_at is None}
        self.known = True

    def find(self, token: str) -> Key | None:
        """The living key that ``token`` is, or None. The comparison takes as long whether the key exists or not."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        key = self._keys.get(parts[1])
        equal = hmac.compare_digest(digest_of(parts[2]), key.digest if key else _NOBODY)
        return key if equal else None

    def close(self) -> None:
        self._store.close()


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: sa.RowMapping) -> Key:
    scopes = frozenset(row["scopes"].split(","))
    return Key(row["key_id"], row["digest"], scopes, row["note"], row["created_at"], row["revoked_at"])
