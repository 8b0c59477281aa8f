"""A process that logs slates and sends events as fast as it can, until it is killed. Says what it was promised.

    python tests/feedback_client.py HOME [SLATES]

Lines: ``e <event_id>`` once an event is accepted, ``s <request_id>`` once a slate was logged. With SLATES it says ``open``,
waits for a line, logs that many slates, says ``logged``, and waits to be killed.
"""

import sys
import threading
import time
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.database import database_url, open_database
from data.feedback.events import Event
from data.feedback.store import Feedback
from data.home import Home
from tests.feedback_world import feedback_config, slate

CONFIG = feedback_config()
MARK = f"{time.time_ns()}"


def main() -> None:
    home = Home(Path(sys.argv[1]))
    home.root.mkdir(parents=True, exist_ok=True)
    engine = open_database(database_url(home, {}))
    feedback = Feedback(engine, lambda: CONFIG, lambda: int(time.time() * 1000), maximum_queue=200)
    if len(sys.argv) > 2:
        say("open")
        sys.stdin.readline()
        for number in range(int(sys.argv[2])):
            feedback.log_served(slate(f"{MARK}.{number}", "u", feedback.now(), ["a", "b", "c"]))
        say("logged")
    else:
        for user in range(3):
            threading.Thread(target=use, args=(feedback, f"u{user}"), daemon=True).start()
    threading.Event().wait()


def use(feedback: Feedback, user: str) -> None:
    for number in count():
        request = f"{MARK}.{user}.{number}"
        feedback.log_served(slate(request, user, feedback.now(), ["a", "b", "c"]))
        say(f"s {request}")
        events = [Event(f"{request}.{video}", request, video, "like", None) for video in "ab"]
        for fate in feedback.accept([*events, events[0]]):
            if fate.status == "accepted":
                say(f"e {fate.event_id}")


_speaking = threading.Lock()


def say(line: str) -> None:
    with _speaking:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
