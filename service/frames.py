"""What workers say to each other over their Unix-domain sockets: a frame is two lengths, a head in JSON, and a body."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any

import orjson

_LENGTHS = Struct(">II")


@dataclass(frozen=True)
class Frame:
    """``head`` says what is asked, or how it was answered."""

    head: dict[str, Any]
    body: bytes = b""


def write_frame(writer: asyncio.StreamWriter, frame: Frame) -> None:
    head = orjson.dumps(frame.head)
    writer.write(b"".join((_LENGTHS.pack(len(head), len(frame.body)), head, frame.body)))


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Raises asyncio.IncompleteReadError where the other side has gone."""
    head, body = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    data = await reader.readexactly(head + body)
    return Frame(orjson.loads(data[:head]), data[head:])


def as_text(headers: Iterable[tuple[bytes, bytes]]) -> list[list[str]]:
    """Headers as JSON holds them."""
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def as_bytes(headers: Iterable[Iterable[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
