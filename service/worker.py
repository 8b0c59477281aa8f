"""One of several workers: ``python -m service.worker INDEX COUNT FOLDER LIFE LISTEN...``, as the supervisor starts it.

LISTEN are the sockets that all accept from. LIFE is an end of a pipe that closes when the supervisor is no more: then this
ends too. Settings come from the environment.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import uvicorn

from data.errors import WatchNextError
from service.app import create_app
from service.group import LEFT, Group
from service.place import Place
from service.settings import Settings


def main() -> None:
    index, count, folder, life, *listening = sys.argv[1:]
    Thread(target=_end_with, args=(int(life),), name="life", daemon=True).start()
    place = Place.open(Group(int(index), int(count), Path(folder)))
    try:
        app = create_app(Settings(), place=place)
    except WatchNextError as error:
        print(f"watchnext: {error}", file=sys.stderr)
        sys.exit(LEFT)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[socket.socket(fileno=int(number)) for number in listening])


def _end_with(life: int) -> None:
    os.read(life, 1)  # nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
