"""Who may do what, and how often: decided before a byte of the body is read."""

import math
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.group import Group
from service.keys import Key
from service.problems import Problem, documented
from service.rate_limit import Buckets, caller_of
from service.runtime import Runtime
from service.settings import Settings
from service.shared_limit import SharedBuckets

OPEN = ("/healthz", "/readyz", "/openapi.json")
"""Asked for without a key: they say nothing of users, videos or traffic."""
UNLIMITED = ("/healthz", "/readyz")
"""Not counted against anybody: what decides whether the process lives must not be told to come back later."""
RANKING = ("/v1/rank", "/v1/recommend")
READS = ("GET", "HEAD")


def scope_of(method: str, path: str) -> str | None:
    """The scope that a request needs; None: any key will do. What is not known here needs a key too."""
    if path in RANKING:
        return "rank"
    if path == "/v1/events":
        return "events"
    if path.startswith(("/v1/models", "/v1/videos")) and method not in READS:
        return "admin"
    return None


class Guard:
    """401, 403, 429, and 503 while ranking is full, in this order, as problem details."""

    def __init__(self, app: ASGIApp, settings: Settings, group: Group | None = None) -> None:
        self.app, self._settings, self._group = app, settings, group
        self._of_keys, self._of_addresses = (self._buckets(of) for of in ("keys", "addresses"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        runtime: Runtime = scope["state"]["runtime"]
        try:
            self._check(scope, runtime)
        except Problem as problem:
            runtime.metrics.refused.labels(str(problem.status)).inc()
            return await problem.response()(scope, receive, send)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, runtime: Runtime) -> None:
        path = scope["path"]
        if path in UNLIMITED:
            return
        key = runtime.keyring.find(_token(scope)) if self._needs_key(path, runtime) else None
        if key is not None:
            scope["state"]["key_id"] = key.key_id  # for the log line
            self._limit(self._of_keys, key.key_id)
            _allow(key, scope_of(scope["method"], path))
        else:
            self._limit(self._of_addresses, caller_of(scope["client"][0] if scope.get("client") else ""))
            if self._needs_key(path, runtime):
                raise _unauthenticated(scope, runtime)
        if path in RANKING and self._group is None:  # of several workers, the one that has the user looks
            runtime.lane.check()

    def _needs_key(self, path: str, runtime: Runtime) -> bool:
        if path in OPEN or (path == "/metrics" and self._settings.open_metrics):
            return False
        return runtime.keyring.required or not runtime.keyring.known

    def _buckets(self, of: str) -> Buckets | SharedBuckets:
        rate, burst = self._settings.rate_limit, self._settings.rate_burst
        return Buckets(rate, burst) if self._group is None else SharedBuckets(self._group.folder / of, rate, burst)

    def _limit(self, buckets: Buckets | SharedBuckets, caller: str) -> None:
        if self._settings.rate_limit and (wait := buckets.take(caller)):
            detail = f"more than {self._settings.rate_limit:g} requests a second"
            raise Problem(429, detail, headers={"retry-after": str(math.ceil(wait))})


def declare(schema: dict[str, Any]) -> None:
    """Write keys and limits into the OpenAPI document: the scheme, each operation's scope, and what refusals look like."""
    described = "`watchnext keys create` makes keys. Where none has been made, none is asked for."
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "wn_<key id>_<secret>", "description": described}
    schema["components"].setdefault("securitySchemes", {})["key"] = scheme
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if path in UNLIMITED:
                continue
            operation["responses"] |= {str(status): _refusal(status) for status in (401, 403, 429)}
            scope = scope_of(method.upper(), path)
            operation["security"] = [{"key": [scope] if scope else []}]


def _refusal(status: int) -> Mapping[str, Any]:
    header = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 429: "Retry-After"}[status]
    return documented(status)[status] | {"headers": {header: {"schema": {"type": "string"}}}}


def _token(scope: Scope) -> str:
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _unauthenticated(scope: Scope, runtime: Runtime) -> Problem:
    if not runtime.keyring.known:
        return Problem(503, "the keys can't be read; the log says why", headers={"retry-after": "5"})
    challenge = 'Bearer realm="watchnext"'
    if not _token(scope):
        detail = "expected the header `authorization: Bearer <key>`"
        return Problem(401, detail, headers={"www-authenticate": challenge})
    return Problem(401, "the key is unknown or revoked", headers={"www-authenticate": f'{challenge}, error="invalid_token"'})


def _allow(key: Key, needed: str | None) -> None:
    if needed is None or needed in key.scopes:
        return
    challenge = f'Bearer realm="watchnext", error="insufficient_scope", scope="{needed}"'
    detail = f"the key {key.key_id} has the scopes {', '.join(sorted(key.scopes))}; this needs {needed}"
    raise Problem(403, detail, headers={"www-authenticate": challenge})
