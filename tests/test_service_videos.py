"""Videos that come, change and go through the API: on disk, in the next slate, found by generators, gone at once."""

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from data.columns import Batch
from data.config import Config
from data.database import DatabaseError, database_url, open_database
from data.features.layout import Block
from data.feedback.schema import catalogue
from data.home import Home
from models.indexes import Indexes, build_indexes
from service.catalogue import LiveVideos
from service.generators.co_watch import CoWatch
from service.generators.live import interleaved
from service.generators.nearest import Nearest
from service.generators.protocol import Source
from service.generators.topic import Topic
from service.generators.trending import Trending
from service.overlay import VideoRow
from service.serving import Serving
from tests.service_fakes import NOW, FakeScorer, client_of, encoder, metric, serving
from tests.small_log import small_config, small_days

FRESH = {"columns": {"author": "a1", "tags": ["t0", "t1"], "duration": 12.5}}
CONFIG = small_config(ranking={"weights": {"click": 1.0}}, generators={"topic_column": "tags"})


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """With real indexes of the small log."""
    folder, features = tmp_path_factory.mktemp("indexes"), encoder()
    videos, ids = features.state.tables["videos"].batch, features.video_ids
    vectors = np.random.default_rng(1).normal(size=(len(ids), 4)).astype(np.float32)
    build_indexes(folder, CONFIG, small_days().values(), videos, ids, vectors)
    indexes = Indexes.load(folder)
    assert indexes.topic is not None
    found = (Topic(indexes.topic), CoWatch(indexes.co_watch), Nearest(indexes.nearest), Trending(indexes.trending))
    return replace(serving(brought=tuple(Source(generator, 50, 60_000) for generator in found)), config=CONFIG)


@pytest.fixture
def client(home: Path, real: Serving) -> Iterator[TestClient]:
    with client_of(real) as client:
        yield client


def recommend(client: TestClient, **body: Any) -> dict[str, list[str]]:
    """The videos, with who brought them."""
    reply = client.post("/v1/recommend", json={"user_id": "nobody", "limit": 2000, **body})
    assert reply.status_code == 200, reply.text
    return {item["video_id"]: item["generators"] for item in reply.json()["items"]}


def rank(client: TestClient, *videos: str) -> dict[str, Any]:
    reply = client.post("/v1/rank", json={"user_id": "u1", "candidates": list(videos)})
    assert reply.status_code == 200, reply.text
    return {item["video_id"]: item["predictions"] for item in reply.json()["items"]}


def put(client: TestClient, video: str, **body: Any) -> str:
    reply = client.put(f"/v1/videos/{video}", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["video_id"] == video
    return str(reply.json()["status"])


def test_a_new_video_is_found_by_topic_and_among_the_fresh(client: TestClient) -> None:
    like = next(video for video in encoder().video_ids if video in recommend(client, query_video_id="v2"))
    assert "new" not in recommend(client, query_video_id=like)
    assert put(client, "new", **FRESH) == "stored"
    query = next(v for v in encoder().video_ids if "t0" in (client.get(f"/v1/videos/{v}").json()["columns"]["tags"]))
    assert recommend(client, query_video_id=query)["new"] == ["topic", "trending"]
    assert recommend(client)["new"] == ["trending"]
    # Itself as the query: its topics are known too, and it isn't recommended
    found = recommend(client, query_video_id="new")
    assert "new" not in found
    assert put(client, "newer", columns={"tags": ["t1"]}) == "stored"
    assert recommend(client, query_video_id="new")["newer"] == ["topic", "trending"]


def test_its_row_is_made_of_its_content(home: Path) -> None:
    class Showing(FakeScorer):
        blocks: Any = None

        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            Showing.blocks = video, cross
            return super().score(user, context, video, cross)

    times = iter(range(NOW, NOW + 100))
    with client_of(serving(Showing()), clock=lambda: next(times)) as client:
        known = next(v for v in encoder().video_ids if client.get(f"/v1/videos/{v}").json()["columns"]["author"])
        columns = client.get(f"/v1/videos/{known}").json()["columns"]
        rank(client, "twin")
        unknown = Showing.blocks[0]
        put(client, "twin", columns=columns)
        rank(client, "twin", known)
        (video, cross), layout = Showing.blocks, encoder().state.layout
        side = {field.feature: slice(field.offset, field.offset + field.width) for field in layout.sides["video"].ints}
        for feature in ("author", "tags"):
            assert video.ints[0][side[feature]].tolist() == video.ints[1][side[feature]].tolist()
        assert video.ints[0][side["video"]] == 0 != video.ints[1][side["video"]]  # the learnt default of an unseen one
        floats = {field.feature: slice(field.offset, field.offset + field.width) for field in layout.sides["video"].floats}
        for feature in ("duration", "author_rate", "tag_rate"):
            assert video.floats[0][floats[feature]].tolist() == video.floats[1][floats[feature]].tolist()
        assert video.floats[0][floats["video_rate"]].tolist() != video.floats[1][floats["video_rate"]].tolist()
        assert cross.floats[0].tolist() == cross.floats[1].tolist()  # the user's own rates of its tags
        assert video.floats[0].tolist() != unknown.floats[0].tolist()


def test_its_row_is_encoded_as_the_catalogue_is(home: Path) -> None:
    class Showing(FakeScorer):
        def score(self, user: Any, context: Any, video: Any, cross: Any) -> Any:
            shown.append(video)
            return super().score(user, context, video, cross)

    def doubled(block: Block) -> Block:
        return Block(block.ints, np.hstack([block.floats, block.floats]))

    shown: list[Block] = []
    plain, asked = serving(Showing()), []
    for bundle in (plain, replace(plain, encode=doubled, catalogue=doubled(encoder().catalogue()))):
        with client_of(bundle, clock=lambda: NOW) as client:
            put(client, "twin", columns={"tags": ["t1"]})
            rank(client, "twin", encoder().video_ids[0])
        asked.append(shown[-1])
    np.testing.assert_array_equal(asked[1].floats, doubled(asked[0]).floats)


def test_a_change_of_a_known_video_holds_from_the_next_request_on(client: TestClient) -> None:
    before = client.get("/v1/videos/v2").json()
    assert before["taken_down_at"] is None
    assert put(client, "v2", columns=before["columns"]) == "unchanged"
    changed = {**before["columns"], "duration": 99.0}
    assert put(client, "v2", columns=changed) == "stored"
    after = client.get("/v1/videos/v2").json()
    assert (after["columns"], after["valid_from"]) == (changed, NOW)
    assert list(recommend(client)).count("v2") == 1  # by its one id, however many rows it has


def test_what_is_left_out_is_null_and_integers_are_texts(client: TestClient) -> None:
    put(client, "new", columns={"author": 7, "tags": [1, "b"]}, valid_from=NOW - 10**9)
    row = client.get("/v1/videos/new").json()
    assert row == {
        "video_id": "new",
        "columns": {"author": "7", "tags": ["1", "b"], "duration": None},
        "valid_from": NOW - 10**9,
        "taken_down_at": None,
    }


def test_a_batch_is_stored_whole_or_not_at_all(client: TestClient) -> None:
    good, bad = {"video_id": "one", **FRESH}, {"video_id": 2, "columns": {"duration": "long", "colour": "red"}}
    reply = client.post("/v1/videos", json={"videos": [good, bad]})
    assert reply.status_code == 422
    assert {error["field"] for error in reply.json()["errors"]} == {"videos[1].columns.duration", "videos[1].columns.colour"}
    assert client.get("/v1/videos/one").status_code == 404
    reply = client.post("/v1/videos", json={"videos": [good, {"video_id": 2}]})
    assert reply.json() == {"videos": [{"video_id": "one", "status": "stored"}, {"video_id": "2", "status": "stored"}]}
    assert {"one", "2"} <= set(recommend(client))


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/v1/videos/x", {"columns": {"tags": "t0"}}, "columns.tags"),
        ("PUT", "/v1/videos/x", {"columns": {"duration": 1e300}}, "columns.duration"),
        ("PUT", "/v1/videos/x", {"columns": []}, "columns"),
        ("PUT", "/v1/videos/x", {"colums": {}}, "colums"),
        ("PUT", "/v1/videos/x", {"valid_from": 5}, "valid_from"),
        ("PUT", f"/v1/videos/{'x' * 257}", {}, "video_id"),
        ("POST", "/v1/videos", {"videos": []}, "videos"),
        ("POST", "/v1/videos", {"videos": [{"video_id": "a"}, {"video_id": "a"}]}, "videos"),
        ("POST", "/v1/videos", {"videos": [{"columns": {}}]}, "videos[0].video_id"),
    ],
)
def test_a_bad_video_names_the_field(client: TestClient, method: str, path: str, body: Any, field: str) -> None:
    reply = client.request(method, path, json=body)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert [error["field"].removeprefix("path.") for error in reply.json()["errors"]] == [field]


def test_what_is_taken_down_is_never_returned(client: TestClient, home: Path, real: Serving) -> None:
    put(client, "new", **FRESH)
    gone = ("v2", "new", "not yet there")
    assert set(gone[:2]) <= set(recommend(client))
    for video in gone:
        assert client.delete(f"/v1/videos/{video}").status_code == 204
    assert client.get("/v1/videos/v2").json()["taken_down_at"] == NOW

    def check(client: TestClient) -> None:
        assert not set(gone) & set(recommend(client))
        assert set(rank(client, "v1", *gone)) == {"v1"}

    check(client)
    client.app_state["runtime"].slot.swap(replace(real, version=real.version + 1))  # another bundle
    check(client)
    assert put(client, "new", columns={"duration": 1.0}) == "taken_down"  # the nightly upload of everything
    assert put(client, "not yet there", **FRESH) == "taken_down"
    check(client)
    with client_of(real) as restarted:
        check(restarted)
        assert put(restarted, "new", **FRESH, restore=True) == "stored"
        assert "new" in recommend(restarted)
        assert "v2" not in recommend(restarted)


def test_an_id_is_taken_from_the_path_whole(client: TestClient) -> None:
    for video_id, path in (("v1\n", "v1%0A"), ("a\nb", "a%0Ab"), ("a/b", "a%2Fb"), ("\n", "%0A")):
        assert client.put(f"/v1/videos/{path}", json={"columns": {}}).json()["video_id"] == video_id
        assert client.get(f"/v1/videos/{path}").json()["video_id"] == video_id
        assert client.delete(f"/v1/videos/{path}").status_code == 204
    assert client.get("/v1/videos/v1").json()["taken_down_at"] is None


def test_a_takedown_holds_while_others_ask(client: TestClient) -> None:
    down, stop = Event(), Event()

    def ask(path: str) -> tuple[int, int]:
        """How many requests that began after the takedown were answered, and how many of them with the video."""
        after = wrong = 0
        while not stop.is_set() or after < 5:
            began = down.is_set()
            body = {"user_id": "nobody", "limit": 2000} | ({"candidates": ["v1", "v2"]} if path == "/v1/rank" else {})
            items = client.post(path, json=body).json()["items"]
            after += began
            wrong += began and "v2" in [item["video_id"] for item in items]
        return after, wrong

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, path) for path in ("/v1/rank", "/v1/recommend") * 2]
        try:
            for number in range(5):
                put(client, f"other{number}", **FRESH)
            assert client.delete("/v1/videos/v2").status_code == 204
            down.set()
            for number in range(5):
                put(client, f"another{number}", **FRESH)
        finally:
            down.set()
            stop.set()
        results = [future.result() for future in asking]
    assert all(after >= 5 for after, _ in results)
    assert [wrong for _, wrong in results] == [0] * 4


def test_a_disk_that_fails_changes_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def fail(_: Any) -> Iterator[None]:
        raise DatabaseError("disk I/O error")
        yield

    before = recommend(client)
    monkeypatch.setattr("service.catalogue.writing", fail)
    replies = [
        client.put("/v1/videos/new", json=FRESH),
        client.post("/v1/videos", json={"videos": [{"video_id": "new"}]}),
        client.delete("/v1/videos/v2"),
    ]
    assert [reply.status_code for reply in replies] == [503] * 3
    assert all("retry-after" in reply.headers and "I/O" not in reply.text for reply in replies)
    assert recommend(client) == before


def test_ids_may_hold_anything(client: TestClient) -> None:
    for video, path in (("a/b c", "a%2Fb%20c"), ("%", "%25"), ("ä?#", "%C3%A4%3F%23")):
        assert client.put(f"/v1/videos/{path}", json=FRESH).json() == {"video_id": video, "status": "stored"}
        assert client.get(f"/v1/videos/{path}").json()["video_id"] == video
        assert video in recommend(client)


def test_videos_to_come_are_not_recommended_yet(client: TestClient) -> None:
    put(client, "soon", **FRESH, valid_from=NOW + 60_000)
    assert "soon" not in recommend(client)
    assert recommend(client, timestamp=NOW + 60_001)["soon"] == ["trending"]


def live(home: Path, config: Config = CONFIG) -> LiveVideos:
    home.mkdir(parents=True, exist_ok=True)
    return LiveVideos(open_database(database_url(Home(home))), lambda: NOW)


def test_what_a_bundle_knows_is_not_laid_over_it(home: Path, real: Serving) -> None:
    table = real.features.state.tables["videos"]
    videos = live(home)
    own = Batch(dict(table.batch.columns))
    rows = [
        VideoRow(str(video), int(time), {"author": author, "tags": tags, "duration": None if d != d else d})
        for video, time, author, tags, d in zip(
            own.strings("video_id").tolist(),
            table.valid_from.tolist(),
            own.strings("author").tolist(),
            own.lists("tags").tolist(),
            own.numbers("duration").tolist(),
            strict=True,
        )
    ]
    engine = videos._engine
    with engine.begin() as connection:
        for row in rows:
            content = {"columns": '{"author": null}', "updated_at": 0} | {
                "video_id": row.video_id,
                "valid_from": row.valid_from,
            }
            connection.execute(sa.insert(catalogue).values(content))
    videos.load()
    assert videos.over(real) is not real  # all differ in their columns
    videos.store(rows, frozenset(), real)
    assert videos.over(real) is real
    videos.store([replace(rows[0], valid_from=NOW, columns={**rows[0].columns, "duration": 1e6})], frozenset(), real)
    over = videos.over(real)
    assert over.features.video_row(rows[0].video_id) == len(real.features.video_ids) + 1
    assert videos.over(real) is over


def test_old_bundles_are_let_go(home: Path, real: Serving) -> None:
    videos = live(home)
    other, plain = replace(real), replace(real)
    dead = weakref.ref(other), weakref.ref(plain)
    assert videos.over(plain) is plain
    videos.store([VideoRow("x", 5, {})], frozenset(), real)
    laid = weakref.ref(videos.over(other))
    assert laid() is not None
    del other, plain
    gc.collect()
    assert (dead[0](), dead[1](), laid(), videos._laid) == (None, None, None, {})


def test_other_processes_changes_come_with_load(home: Path, real: Serving) -> None:
    one, other = live(home), live(home)
    one.store([VideoRow("x", 5, {}), VideoRow("y", 5, {})], frozenset(), real)
    one.take_down("y")
    assert other.over(real).features.video_row("x") == -1
    other.load()
    assert other.over(real).features.video_row("x") == one.over(real).features.video_row("x") > 0
    assert other.over(real).taken_down == {"y"}


def test_new_ones_have_their_share_of_every_beginning() -> None:
    assert interleaved([1, 2, 3], [10, 20, 30, 40, 50]) == [10, 20, 1, 30, 40, 2, 50, 3]
    assert interleaved([1, 2], []) == [1, 2]
    assert interleaved([], [10, 20, 30]) == [10, 20, 30]


def test_filtered_ones_are_counted(client: TestClient) -> None:
    client.delete("/v1/videos/v2")
    rank(client, "v1", "v2")
    assert metric(client, "watchnext_filtered_total", route="rank") == 1
