"""docs/api.md says what is so."""

import json
import re
from pathlib import Path

from service.events_api import ClientEvent
from service.problems import ProblemDetails
from service.schemas import Answer, RankRequest, RecommendRequest
from service.videos_api import VideoFields
from tests.service_fakes import client_of

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "api.md").read_text()
REQUEST, ANSWER, PROBLEM = (
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
)


def test_the_examples_fit_the_schemas() -> None:
    RankRequest.model_validate(REQUEST)
    RecommendRequest.model_validate({key: value for key, value in REQUEST.items() if key != "candidates"})
    Answer.model_validate(ANSWER)
    ProblemDetails.model_validate(PROBLEM)


def test_the_example_is_answered() -> None:
    with client_of() as client:
        assert [item["video_id"] for item in client.post("/v1/rank", json=REQUEST).json()["items"]] == ["17", "v1"]


def test_every_field_is_explained() -> None:
    fields = [*RankRequest.model_fields, *ClientEvent.model_fields, *VideoFields.model_fields]
    assert [name for name in fields if f"`{name}`" not in PAGE and f'"{name}"' not in PAGE] == []


def test_every_path_and_every_metric_is_listed_and_no_other() -> None:
    with client_of() as client:
        openapi, metrics = client.get("/openapi.json").json(), client.get("/metrics").text
    served = {f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods}
    assert set(re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`]+)`", PAGE, re.MULTILINE)) == served
    assert set(re.findall(r"^\| `(watchnext_\w+)`", PAGE, re.MULTILINE)) == set(re.findall(r"^# TYPE (\w+)", metrics, re.M))
