"""/v1/videos: bring a video, change it, look at it, take it down."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, Field
from starlette.convertors import PathConvertor, register_url_convertor

from data.errors import WatchNextError
from service.catalogue import LiveVideos
from service.inputs import as_texts, check_columns
from service.overlay import VideoRow, completed
from service.problems import Problem, documented
from service.runtime import Runtime
from service.schemas import MAX_ID, MAX_KEYS, Id, Key, Strict, Timestamp, Value
from service.serving import Serving
from service.strict_json import JsonRoute
from service.together import tell

log = structlog.get_logger()

MAX_VIDEOS = 1_000


class Rest(PathConvertor):
    """The rest of the path as it is, slashes and line breaks too: ``path`` stops before a break, so that taking down
    ``"v1\\n"`` took down ``"v1"``."""

    regex = "(?s:.*)"


register_url_convertor("rest", Rest())

router = APIRouter(prefix="/v1", tags=["videos"], route_class=JsonRoute)

VideoId = Annotated[str, Path(min_length=1, max_length=MAX_ID, pattern=r"^[^\x00]*$")]


class VideoFields(Strict):
    """What is known of a video."""

    columns: dict[Key, Value] = Field(
        {}, max_length=MAX_KEYS, description="of the configuration's videos' table; those left out are null"
    )
    valid_from: Timestamp | None = Field(None, description="ms from which this holds; default: now")
    restore: bool = Field(False, strict=True, description="also where the video was taken down")


class NamedVideo(VideoFields):
    video_id: Id


def _distinct(videos: list[NamedVideo]) -> list[NamedVideo]:
    if len({video.video_id for video in videos}) < len(videos):
        raise ValueError("a video comes twice")
    return videos


class Videos(Strict):
    """A batch, stored as a whole or not at all."""

    videos: Annotated[list[NamedVideo], AfterValidator(_distinct)] = Field(min_length=1, max_length=MAX_VIDEOS)


class VideoStatus(Strict):
    video_id: str
    status: Literal["stored", "unchanged", "taken_down"] = Field(
        description="`taken_down`: it stays so until it comes with `restore`"
    )


class VideoStatuses(Strict):
    videos: list[VideoStatus]


class Video(Strict):
    video_id: str
    columns: dict[str, Any]
    valid_from: int = Field(description="ms from which these hold; 0 where the table has no times")
    taken_down_at: int | None


@router.post("/videos", responses=documented(400, 413, 415, 422, 500, 503), summary="Bring or change videos")
def bring(body: Videos, request: Request) -> VideoStatuses:
    # These are plain functions: they wait for the disk, so the framework runs them in threads.
    videos, serving, runtime = _open(request)
    return _store(body.videos, [f"videos[{place}]." for place in range(len(body.videos))], videos, serving, runtime)


@router.put("/videos/{video_id:rest}", responses=documented(400, 413, 415, 422, 500, 503), summary="Bring or change a video")
def put(video_id: VideoId, body: VideoFields, request: Request) -> VideoStatus:
    videos, serving, runtime = _open(request)
    named = NamedVideo.model_construct(video_id=video_id, **dict(body))
    return _store([named], [""], videos, serving, runtime).videos[0]


@router.get("/videos/{video_id:rest}", responses=documented(404, 422, 500, 503), summary="What is known of a video")
def look_up(video_id: VideoId, request: Request) -> Video:
    videos, serving, _ = _open(request)
    row, taken_down_at = videos.get(video_id, serving)
    if row is None and taken_down_at is None:
        raise Problem(404, "there is no such video")
    columns, valid_from = ({}, 0) if row is None else (dict(row.columns), row.valid_from)
    return Video(video_id=video_id, columns=columns, valid_from=valid_from, taken_down_at=taken_down_at)


@router.delete(
    "/videos/{video_id:rest}", status_code=204, responses=documented(422, 500, 503), summary="Never return a video again"
)
def take_down(video_id: VideoId, request: Request) -> Response:
    videos, _, runtime = _open(request)
    try:
        videos.take_down(video_id)
    except WatchNextError as error:
        raise _not_stored(error, "the video was not taken down: send it again") from None
    tell(runtime, [video_id])
    return Response(status_code=204)


def _open(request: Request) -> tuple[LiveVideos, Serving, Runtime]:
    runtime: Runtime = request.state.runtime
    if runtime.videos is None or runtime.slot.current is None:
        raise Problem(503, "no bundle is loaded; /readyz says why", headers={"retry-after": "5"})
    return runtime.videos, runtime.slot.current, runtime


def _store(
    wanted: Sequence[NamedVideo], places: Sequence[str], videos: LiveVideos, serving: Serving, runtime: Runtime
) -> VideoStatuses:
    errors: dict[str, str] = {}
    for video, place in zip(wanted, places, strict=True):
        check_columns(f"{place}columns", video.columns, serving.config.video_columns, "column of the videos", errors)
    if errors:
        raise Problem.of_fields(errors)
    now = runtime.time()
    rows = [
        VideoRow(
            video_id=video.video_id,
            valid_from=now if video.valid_from is None else video.valid_from,
            columns=completed(_typed(as_texts(video.columns), serving), serving.config),
        )
        for video in wanted
    ]
    try:
        fates = videos.store(rows, frozenset(video.video_id for video in wanted if video.restore), serving)
    except WatchNextError as error:
        raise _not_stored(error, "nothing was stored: send it again") from None
    tell(runtime, [row.video_id for row in rows])
    return VideoStatuses(
        videos=[VideoStatus(video_id=row.video_id, status=fate) for row, fate in zip(rows, fates, strict=True)]
    )


def _typed(columns: dict[str, Any], serving: Serving) -> dict[str, Any]:
    """A category that came as an integer is its decimal text."""
    kinds = serving.config.video_columns
    return {
        name: str(value) if kinds[name].type == "category" and value is not None else value
        for name, value in columns.items()
    }


def _not_stored(error: WatchNextError, detail: str) -> Problem:
    log.error("the catalogue was not changed", reason=str(error))
    return Problem(503, detail, headers={"retry-after": "1"})
