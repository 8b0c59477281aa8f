"""What the service is compared with over HTTP, each a uvicorn process with the service's own settings.

    python benchmarks/serving_peers.py empty
    python benchmarks/serving_peers.py handler BUNDLE

Prints its port once it listens. The handler is what a team would write first: FastAPI with pydantic models, the videos'
features in a dict, TensorFlow's SavedModel called by its signature, a list of dicts as the answer. It is spared the
looking up of users, whose row is the same for all, and the log of what was served.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

EMPTY, RIVAL = "empty", "handler"


class RankBody(BaseModel):
    user_id: str
    candidates: list[str]
    context: dict[str, Any] = {}


def empty() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def nothing() -> dict[str, Any]:
        return {}

    return app


def handler(bundle: Path) -> FastAPI:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(bundle))
    signature = loaded.signatures["serving_default"]
    names = {spec.name: spec for spec in signature.structured_input_signature[1].values()}
    catalogue = bundle / "assets.extra" / "catalogue"
    parts = {f"video_{part}": np.load(catalogue / f"{part}.npy") for part in ("ints", "floats")}
    rows = {video: n for n, video in enumerate(json.loads((catalogue / "ids.json").read_text()))}
    config = json.loads((bundle / "assets.extra" / "config.json").read_text())
    objectives = [objective["name"] for objective in config["objectives"]]
    app = FastAPI()

    @app.post("/")
    async def nothing() -> dict[str, Any]:
        return {}

    @app.post("/v1/rank")
    def rank(body: RankBody) -> dict[str, Any]:
        places = [rows[video] for video in body.candidates]
        feed = {}
        for name, spec in names.items():
            if name in parts:
                values = parts[name][places]
            else:
                values = np.zeros((len(places), spec.shape[1]), spec.dtype.as_numpy_dtype)
            feed[name] = tf.constant(values)
        predictions = signature(**feed)["predictions"].numpy()
        scores = predictions.sum(axis=1)
        best = np.argsort(-scores)
        items = [
            {
                "video_id": body.candidates[place],
                "score": float(scores[place]),
                "position": position,
                "predictions": {name: float(value) for name, value in zip(objectives, predictions[place], strict=True)},
            }
            for position, place in enumerate(best)
        ]
        return {"items": items}

    return app


def main() -> None:
    app = empty() if sys.argv[1] == EMPTY else handler(Path(sys.argv[2]))
    # With the protocol named asyncio turns Nagle's algorithm off, as it does for the service: 40 ms of an empty request.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        print(listening.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        server.run(sockets=[listening])


if __name__ == "__main__":
    main()
