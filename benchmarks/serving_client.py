"""The client of the serving benchmarks: HTTP/1.1 over raw sockets in one thread, so that it takes little of the cores."""

import json
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

TIMEOUT = 60.0
IDLE = 3.0


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """A whole request."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: benchmark\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Connection:
    """One connection that is kept; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port, self._buffer, self.last_size = port, bytearray(), 0
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used = time.perf_counter()

    def refresh(self) -> None:
        """Connect anew where the server may have closed the connection for want of requests (uvicorn: after 5 s)."""
        if time.perf_counter() - self._used > IDLE:
            self.socket.close()
            self._connect()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def take(self) -> tuple[int, bytes] | None:
        """What has arrived: status and body once all of it has, else None."""
        some = self.socket.recv(1 << 20)
        if not some:
            raise ConnectionError("the server closed the connection")
        self._buffer += some
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self._buffer) < end + 4 + length:
            return None
        body = bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        self.last_size, self._used = length, time.perf_counter()
        return int(head[9:12]), body

    def receive(self) -> tuple[int, bytes]:
        while (answer := self.take()) is None:
            pass
        return answer

    def ask(self, request: bytes) -> tuple[int, bytes]:
        self.send(request)
        return self.receive()


@dataclass
class Sample:
    """Latencies in ms, requests that weren't answered 200 or 202, and how long all took."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def add(self, since: float, answer: tuple[int, bytes]) -> None:
        self.latencies.append((time.perf_counter() - since) * 1e3)
        self.failed += answer[0] not in (200, 202)


def closed_loop(
    connections: Sequence[Connection], requests: Sequence[bytes], then: Callable[[bytes], Any] | None = None
) -> Sample:
    """Each connection sends the next request once its last was answered. ``then`` sees each answer, outside the clock."""
    sample, waiting = Sample(), iter(requests)
    for connection in connections:
        connection.refresh()
    began = time.perf_counter()
    if len(connections) == 1:
        for request in waiting:
            since = time.perf_counter()
            answer = connection.ask(request)
            sample.add(since, answer)
            if then is not None:
                then(answer[1])
    else:
        with selectors.DefaultSelector() as selector:
            since: dict[int, float] = {}  # type: ignore[no-redef]
            for connection in connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                _next(connection, waiting, since)
            while since:
                for key, _ in selector.select(TIMEOUT):
                    connection = key.data
                    if (answer := connection.take()) is not None:
                        sample.add(since.pop(id(connection)), answer)
                        _next(connection, waiting, since)
    sample.seconds = time.perf_counter() - began
    assert not sample.failed, f"{sample.failed} of {len(sample.latencies)} requests failed"
    return sample


def _next(connection: Connection, waiting: Any, since: dict[int, float]) -> None:
    request = next(waiting, None)
    if request is not None:
        since[id(connection)] = time.perf_counter()
        connection.send(request)


def open_loop(ports: Sequence[int], requests: Sequence[bytes], rate: float, arrivals: str, seed: int = 1) -> Sample:
    """Requests are sent when they are due, answered or not: every 1 / rate seconds, or with exponential gaps of that mean.
    A latency counts from when its request was due."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(requests))
    due = np.cumsum(gaps if arrivals == "poisson" else np.full(len(requests), 1 / rate)).tolist()
    sample, free, busy = Sample(), [Connection(port) for port in ports for _ in range(4)], {}
    began, number = time.perf_counter(), 0
    with selectors.DefaultSelector() as selector:
        for connection in free:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while number < len(requests) or busy:
            now = time.perf_counter() - began
            while number < len(requests) and due[number] <= now:
                if not free:
                    free.append(Connection(ports[number % len(ports)]))
                    selector.register(free[0].socket, selectors.EVENT_READ, free[0])
                connection = free.pop(0)
                connection.send(requests[number])
                busy[id(connection)] = began + due[number]
                number += 1
            left = due[number] - (time.perf_counter() - began) if number < len(requests) else TIMEOUT
            for key, _ in selector.select(max(0.0, left)):
                connection = key.data
                if (answer := connection.take()) is not None:
                    sample.add(busy.pop(id(connection)), answer)
                    free.append(connection)
    sample.seconds = time.perf_counter() - began
    for connection in free:
        connection.socket.close()
    return sample


def percentiles(samples: Sequence[Sample]) -> dict[str, float]:
    """p50: the median of the samples' medians; p99 of all together; p99_each: the median of the samples' p99 (ms)."""
    together = np.concatenate([sample.latencies for sample in samples])
    return {
        "p50": float(np.median([np.median(sample.latencies) for sample in samples])),
        "p99": float(np.percentile(together, 99)),
        "p99_each": float(np.median([np.percentile(sample.latencies, 99) for sample in samples])),
        "requests": len(together),
        "failed": sum(sample.failed for sample in samples),
    }
