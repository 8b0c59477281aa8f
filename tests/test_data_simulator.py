"""The simulated world: the same seed the same bytes, and a log that agrees with the truth behind it."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from data.config import load_config
from data.errors import ConfigError, LogError
from data.home import Home
from data.ingest import ingest
from data.log import list_days, read_day, read_table
from data.simulator.entities import DAY_MS
from data.simulator.exploration import fill_slots
from data.simulator.policy import NONE
from data.simulator.settings import DEVICES, WorldConfig, world_config
from data.simulator.sittings import CHUNK, Rows
from data.simulator.world import World
from data.simulator.write import simulate

PRESETS = Path(__file__).parents[1] / "training" / "presets"
SMALL = WorldConfig.of_size(6_000, days=3)


def every_row(world: World) -> Rows:
    return Rows.concatenate([rows for day in range(world.settings.days) for rows in world.day(day)])


@pytest.fixture(scope="module")
def uniform() -> tuple[World, Rows]:
    """A world in which every request explores in every slot."""
    world = World(WorldConfig.of_size(200_000, days=2, uniform_requests=1.0), seed=3)
    return world, every_row(world)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    assert simulate(tmp_path / "a", SMALL, 6_000, seed=5) == 6_000
    simulate(tmp_path / "b", SMALL, 6_000, seed=5)
    simulate(tmp_path / "c", SMALL, 6_000, seed=6)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 3 + 3  # a part a day, two tables and the settings
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_a_day_does_not_need_the_ones_before() -> None:
    in_order, alone = World(SMALL, seed=5), World(SMALL, seed=5)
    days = [Rows.concatenate(list(in_order.day(day))) for day in range(3)]
    for day in (2, 0):
        rows = Rows.concatenate(list(alone.day(day)))
        np.testing.assert_array_equal(rows.video, days[day].video)
        np.testing.assert_array_equal(rows.watch_time, days[day].watch_time)


def test_days_come_in_parts_of_bounded_size() -> None:
    world = World(WorldConfig.of_size(400_000, days=1), seed=1)
    parts = [len(rows) for rows in world.day(0)]
    assert len(parts) >= 3
    assert sum(parts) == 400_000
    assert max(parts) <= CHUNK * world.settings.session * world.settings.slate


def test_rows_are_rounded_up_to_whole_requests(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    written = simulate(tmp_path / "log", SMALL, 1_001, seed=1, progress=lambda done, total: reported.append((done, total)))
    assert written == 1_010
    assert pq.read_table(tmp_path / "log" / "log").num_rows == 1_010
    assert reported[-1] == (1_010, 1_010)


def test_every_row_lies_on_its_day_after_signup_and_upload() -> None:
    world = World(SMALL, seed=2)
    for day in range(3):
        rows = Rows.concatenate(list(world.day(day)))
        assert rows.timestamp.min() >= world.start + day * DAY_MS
        assert rows.timestamp.max() < world.start + (day + 1) * DAY_MS
        assert (rows.timestamp > world.users.signup[rows.user]).all()
        assert (rows.timestamp > world.videos.upload[rows.video]).all()


def test_new_users_and_videos_appear_each_day() -> None:
    world = World(WorldConfig.of_size(20_000, days=4), seed=2)
    bounds = world.start + DAY_MS * np.arange(5)
    assert (np.histogram(world.users.signup, bounds)[0] > 0).all()
    assert (np.histogram(world.videos.upload, bounds)[0] > 0).all()


def test_a_slate_repeats_no_video_and_shows_candidates_only() -> None:
    world = World(SMALL, seed=2)
    for slate in world.slates(1):
        shown = slate.rows.video.reshape(len(slate.number), -1)
        assert all(len(set(row)) == world.settings.slate for row in shown.tolist())
        assert (shown[:, :, None] == slate.candidates[:, None, :]).any(axis=2).all()
        assert NONE not in shown
        assert (slate.candidates >= 0).sum(axis=1).min() >= world.settings.slate


def test_a_query_is_the_video_last_watched() -> None:
    rows = every_row(World(SMALL, seed=2))
    asked = np.flatnonzero((rows.query != NONE) & (rows.position == 0))
    assert 0.2 < len(asked) / (len(rows) / 10) < 0.8
    watched = {(user, video) for user, video, on in zip(rows.user, rows.video, rows.click, strict=True) if on}
    assert all((user, query) in watched for user, query in zip(rows.user[asked], rows.query[asked], strict=True))


def test_propensity_by_hand() -> None:
    """Three candidates (one place left by a duplicate), two slots, exploration 0.3: all six slates, by hand."""
    e, n = 0.3, 60_000
    candidates = np.tile([4, NONE, 7, 9], (n, 1))
    score = np.tile(np.array([0.1, -np.inf, 0.9, 0.5], np.float32), (n, 1))
    slates = fill_slots(candidates, score, np.full(n, e), 2, np.random.default_rng(1))
    first = {4: e / 3, 7: 1 - e + e / 3, 9: e / 3}
    best_left = {4: 7, 7: 9, 9: 7}
    total = 0.0
    for a, b in itertools.permutations((4, 7, 9), 2):
        second = e / 2 + (1 - e) * (b == best_left[a])
        is_it = (slates.video == (a, b)).all(axis=1)
        np.testing.assert_allclose(slates.propensity[is_it], [[first[a], second]] * int(is_it.sum()))
        p = first[a] * second
        assert abs(is_it.mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
        total += p
    assert total == pytest.approx(1.0)
    assert abs(slates.is_exploration.mean() - e) < 0.01


def test_inverse_propensities_recover_the_number_of_candidates() -> None:
    """E[1 / propensity] is the number of videos that could have been in the slot."""
    world = World(WorldConfig.of_size(100_000, days=1, explore=0.5), seed=4)
    slates = list(world.slates(0))
    weight = np.concatenate([1 / slate.rows.propensity for slate in slates])
    left = np.concatenate([(slate.candidates >= 0).sum(axis=1, keepdims=True) - np.arange(10) for slate in slates]).ravel()
    assert weight.mean() == pytest.approx(left.mean(), rel=0.03)


def test_rates_match_the_truth(uniform: tuple[World, Rows]) -> None:
    world, rows = uniform
    truth = world.truth(rows.user, rows.video, rows.timestamp, rows.device, rows.position)
    for outcome in ("click", "like", "follow", "dismiss"):
        actual, p = getattr(rows, outcome), truth[outcome].astype(np.float64)
        for part in [
            *(rows.position == k for k in range(10)),
            *(np.digitize(p, np.quantile(p, [0.2, 0.5, 0.8])) == q for q in range(4)),
        ]:
            error = np.sqrt((p * (1 - p))[part].sum())
            assert abs(actual[part].sum() - p[part].sum()) < 4.5 * error, outcome
    clicked = rows.click > 0
    assert rows.watch_time[clicked].mean() == pytest.approx(truth["watch_time"][clicked].mean(), rel=0.03)
    assert (rows.watch_time[clicked] > 0).all()
    assert not rows.watch_time[~clicked].any()


def test_examination_falls_with_position_and_device(uniform: tuple[World, Rows]) -> None:
    world, rows = uniform
    rate = np.array([rows.click[rows.position == k].mean() for k in range(10)])
    assert (np.diff(rate) < 0.005).all()
    assert rate[9] < 0.5 * rate[0]
    seen = world.preferences.examination(np.array([0, 9, 9]), np.array([3, 3, 2]))
    assert seen[0] == 1
    assert seen[1] < seen[2]


def test_without_position_bias_positions_are_equal() -> None:
    settings = WorldConfig.of_size(100_000, days=1, uniform_requests=1.0, position_bias=0)
    rows = every_row(World(settings, seed=3))
    rate = np.array([rows.click[rows.position == k].mean() for k in range(10)])
    error = (rows.click.mean() * (1 - rows.click.mean()) / (len(rows) / 10)) ** 0.5
    assert np.abs(rate - rows.click.mean()).max() < 4.5 * error


def test_the_policy_puts_better_videos_higher() -> None:
    world = World(WorldConfig.of_size(60_000, days=1), seed=3)
    rows = every_row(world)
    worth = world.truth(rows.user, rows.video, rows.timestamp, rows.device)["preference"]
    ranked = rows.propensity > 0.5
    assert worth[ranked & (rows.position == 0)].mean() > 1.2 * worth[ranked & (rows.position == 9)].mean()
    assert worth[ranked].mean() > 1.2 * worth[rows.is_exploration].mean()


def correlations(uniform: tuple[World, Rows]) -> tuple[float, float]:
    """Of clickbait with the true click, and with a like given a click."""
    world, rows = uniform
    truth = world.truth(rows.user, rows.video, rows.timestamp, rows.device)
    bait = world.videos.clickbait[rows.video]
    given = truth["like"] / truth["click"]
    return float(np.corrcoef(bait, truth["click"])[0, 1]), float(np.corrcoef(bait, given)[0, 1])


def test_clickbait_is_clicked_and_not_liked(uniform: tuple[World, Rows]) -> None:
    click, like = correlations(uniform)
    assert click > 0.1
    assert like < -0.1
    world, rows = uniform
    bait = world.videos.clickbait[rows.video] > 1
    clicked = rows.click > 0
    assert rows.dismiss[bait & clicked].mean() > 2 * rows.dismiss[~bait & clicked].mean()
    assert rows.watch_time[bait & clicked].mean() < 0.7 * rows.watch_time[~bait & clicked].mean()


def test_without_conflict_clickbait_changes_nothing(uniform: tuple[World, Rows]) -> None:
    world, rows = uniform
    asked = rows.user, rows.video, rows.timestamp, rows.device
    with_bait, without = (
        World(world.settings.model_copy(update={"conflict": 0.0, "clickbait_share": share}), world.seed)
        for share in (0.5, 0.0)
    )
    assert with_bait.videos.clickbait.any()
    assert not without.videos.clickbait.any()
    for outcome, values in with_bait.truth(*asked).items():
        np.testing.assert_array_equal(without.truth(*asked)[outcome], values)


def test_agreement_and_no_conflict_make_objectives_agree() -> None:
    """With agreement 1, no conflict and no one's readiness between them, satisfaction is what makes one click."""
    settings = {"agreement": 1.0, "conflict": 0.0, "user_effect": 0.0, "video_effect": 0.0, "freshness": 0.0}
    plain = {"device_effect": 0.0, "hour_effect": 0.0}
    worlds = {rho: World(WorldConfig.of_size(20_000, **{**settings, **plain, "agreement": rho}), 1) for rho in (1.0, 0.0)}
    rng = np.random.default_rng(1)
    users, videos = rng.integers(0, 100, 5_000), rng.integers(0, 120, 5_000)
    # Quality still satisfies: it is left out by looking at two users' difference for one video.
    found = {}
    for rho, world in worlds.items():
        both = [
            world.truth(who, videos, np.full(5_000, world.start), np.zeros(5_000, int)) for who in (users, (users + 7) % 100)
        ]
        logit = [[np.log(p / (1 - p)) for p in (t["click"], t["like"] / t["click"])] for t in both]
        found[rho] = np.corrcoef(logit[0][0] - logit[1][0], logit[0][1] - logit[1][1])[0, 1]
    assert found[1.0] > 0.999
    assert abs(found[0.0]) < 0.35


def test_interests_drift_and_freshness_fades() -> None:
    world = World(WorldConfig.of_size(20_000, days=10, drift=0.3), seed=1)
    first, later = world.preferences.day(0), world.preferences.day(9)
    alike = np.corrcoef(first.user_taste.ravel(), later.user_taste.ravel())[0, 1]
    assert 0.5 < alike < 0.9  # 0.25 lasts, 0.75 decays to 0.91 ** 4.5 = 0.65: about 0.74 in all
    assert later.user_taste.std() == pytest.approx(first.user_taste.std(), rel=0.1)
    old = world.videos.upload < world.start
    assert (later.video_click[old] < first.video_click[old]).all()


def test_saved_settings_restore_the_truth(tmp_path: Path) -> None:
    simulate(tmp_path / "log", SMALL, 2_000, seed=5)
    world, again = World(WorldConfig.model_validate({**SMALL.model_dump(), "rows": 2_000}), 5), World.open(tmp_path / "log")
    ids = ["u0", "u3"], ["v1", "v2"], [world.start, world.start + DAY_MS], ["phone", "tv"]
    rows = np.array([0, 3]), np.array([1, 2]), np.array(ids[2]), np.array([DEVICES.index("phone"), DEVICES.index("tv")])
    for outcome, values in world.truth(*rows).items():
        np.testing.assert_array_equal(again.truth(*ids)[outcome], values)


def test_what_is_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    simulate(folder, SMALL, 1_000, seed=5)
    before = digests(folder)
    assert simulate(folder, SMALL, 1_000, seed=5) == 1_000
    with pytest.raises(LogError, match="another world"):
        simulate(folder, SMALL, 1_000, seed=6)
    assert digests(folder) == before
    (folder / "world.json").rename(folder / "world.unfinished.json")  # as a killed run leaves it
    simulate(folder, SMALL, 1_000, seed=5)
    assert digests(folder) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(LogError, match="empty folder"):
        simulate(tmp_path / "other", SMALL, 1_000, seed=5)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"agreement": 2}, "agreement"),
        ({"position_bias": -1}, "position_bias"),
        ({"colour": 1}, "colour"),
        ({"videos": 5, "authors": 1}, "a slate"),
        ({"first_day": "soon"}, "YYYY-MM-DD"),
        ({"topic_share": 0.8, "author_share": 0.5}, "over 1"),
        ({"quotas": {"topic": -1}}, "quotas.topic"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        world_config(values)


def test_wrong_questions_are_named() -> None:
    world = World(SMALL, seed=1)
    ask = {"user_ids": ["u0"], "video_ids": ["v0"], "timestamps": [world.start], "devices": ["phone"]}
    for change, named in (
        ({"user_ids": ["x0"]}, "x0"),
        ({"video_ids": ["v99999"]}, "99999"),
        ({"devices": ["watch"]}, "watch"),
        ({"timestamps": [world.start - 1]}, "day -1"),
    ):
        with pytest.raises(LogError, match=named):
            world.truth(**{**ask, **change})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got 3"):
        list(world.day(3))
    with pytest.raises(ConfigError, match="seed"):
        World(SMALL, seed=-1)


@pytest.mark.parametrize("preset", ["simulator", "tiny"])
def test_the_presets_take_in_what_is_written(tmp_path: Path, preset: str) -> None:
    simulate(tmp_path / "log", SMALL, 6_000, seed=5)
    config, home = load_config(PRESETS / f"{preset}.toml"), Home(tmp_path / "home")
    ingest(config, [tmp_path / "log"], home, Console(quiet=True))
    world = World.open(tmp_path / "log")
    days = list_days(home, config.dataset)
    assert [day.isoformat() for day in days] == [world.day_name(day) for day in range(3)]
    rows, batch = Rows.concatenate(list(world.day(1))), read_day(home, config, days[1])
    order = np.lexsort((rows.position, rows.request))
    columns = {name: batch.strings(name).tolist() for name in ("request_id", "user_id", "video_id", "device")}
    back = np.lexsort((batch.numbers("position"), [int(text.split("-")[1]) for text in columns["request_id"]]))
    assert [columns["user_id"][i] for i in back] == [f"u{user}" for user in rows.user[order]]
    assert [columns["video_id"][i] for i in back] == [f"v{video}" for video in rows.video[order]]
    assert [columns["device"][i] for i in back] == [DEVICES[device] for device in rows.device[order]]
    for name in ("timestamp", "propensity", "is_exploration", "click", "like", "follow", "dismiss"):
        np.testing.assert_array_equal(batch.numbers(name)[back], getattr(rows, name)[order])
    np.testing.assert_allclose(batch.numbers("watch_time")[back], rows.watch_time[order], rtol=1e-6)
    visible = batch.numbers("visible_at") - batch.numbers("timestamp")
    np.testing.assert_allclose(visible, 1000 * batch.numbers("watch_time"), atol=1)
    videos = read_table(home, config, "videos")
    assert videos is not None
    place = videos.strings("video_id").tolist().index("v3")
    second = world.videos.second_topic[3]
    expected = [f"topic{world.videos.topic[3]}", *([f"topic{second}"] if second != NONE else [])]
    assert videos.lists("topics").tolist()[place] == expected
