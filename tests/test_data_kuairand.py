"""The official file format of KuaiRand, in small files made up here."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data.config import Config, load_config
from data.days import day_start
from data.errors import ConfigError, LogError
from data.home import Home
from data.ingest import ingest
from data.log import list_days, read_day, read_table
from data.summary import Summary

PRESET = Path(__file__).parent.parent / "training" / "presets" / "kuairand.toml"
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,"
    "register_days_range," + ",".join(f"onehot_feat{i}" for i in range(18))
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag"
)
MIDNIGHT = day_start(date(2022, 4, 26), "Asia/Shanghai")


def impression(user: int, video: int, time: int, hour: int = 0, random: int = 0, play: int = 1500, tab: int = 1) -> str:
    """``time`` in milliseconds from midnight of 26 April in Shanghai."""
    return f"{user},{video},20220425,{hour},{MIDNIGHT + time},1,0,0,0,0,0,0,{play},9000,0,0,0,{random},{tab}"


def release(folder: Path, *rows: str, name: str = "log_standard_4_22_to_5_08_pure.csv") -> Path:
    """A release's files with these impressions."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([LOG, *rows, ""]))
    user = 'full_active,0,{},1,514,500+,150,"[100,1k)",34,"[30,60)",799,730+,' + ",".join("0" * 12) + ",,,,,,"
    (folder / "user_features_pure.csv").write_text("\n".join([USERS, "0," + user.format(1), "1," + user.format(-124), ""]))
    video = "7349781,NORMAL,2022-04-10,LongImport,0.0,{},720.0,1280.0,9155697141,9.0,{}"
    rows = ("5," + video.format(87433.0, '"67,11"'), "6," + video.format("", ""))
    (folder / "video_features_basic_pure.csv").write_text("\n".join([VIDEOS, *rows, ""]))
    return folder


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PRESET)


def take_in(config: Config, home: Path, *folders: Path) -> Summary:
    return ingest(config, list(folders), Home(home), Console(quiet=True))


def test_the_preset_has_the_objectives_scripts_rely_on(config: Config) -> None:
    assert config.objective_names == ("click", "long_view", "watch_time", "like", "follow", "hate")
    assert config.timezone == "Asia/Shanghai"
    assert config.slate == ("user_id", "day", "tab")


def test_a_release_becomes_days_of_shanghai(tmp_path: Path, home: Path, config: Config) -> None:
    rows = [impression(0, 5, 0), impression(1, 6, -1, play=0), impression(0, 6, 1000, random=1, tab=0)]
    summary = take_in(config, home, release(tmp_path / "in", *rows))
    assert (summary.kept, summary.set_aside, summary.unknown) == (3, {}, {})
    assert list_days(Home(home), "kuairand") == [date(2022, 4, 25), date(2022, 4, 26)]
    day = read_day(Home(home), config, date(2022, 4, 26))
    assert day.strings("user_id").tolist() == ["0", "0"]
    assert day.strings("tab").tolist() == ["1", "0"]
    assert day.numbers("is_exploration").tolist() == [0, 1]
    assert day.numbers("watch_time").tolist() == [1.5, 1.5]
    assert day.numbers("visible_at").tolist() == [MIDNIGHT + 1500, MIDNIGHT + 2500]
    assert day.numbers("position").tolist() == [0, 1]
    assert any("proxy" in note for note in summary.manifest.notes)


def test_the_tables_have_lists_of_tags_and_nulls(tmp_path: Path, home: Path, config: Config) -> None:
    take_in(config, home, release(tmp_path / "in", impression(0, 5, 0)))
    users, videos = read_table(Home(home), config, "users"), read_table(Home(home), config, "videos")
    assert users is not None
    assert videos is not None
    assert users.strings("is_live_streamer").tolist() == ["1", None]
    assert users.strings("onehot_feat12").tolist() == [None, None]
    assert users.strings("fans_user_num_range").tolist() == ["[100,1k)"] * 2
    assert videos.lists("tags").tolist() == [["67", "11"], []]
    np.testing.assert_array_equal(videos.numbers("video_duration"), [87433.0, np.nan])


def test_rows_that_repeat_are_dropped_and_those_of_another_hour_kept(tmp_path: Path, home: Path, config: Config) -> None:
    rows = [impression(0, 5, 0), impression(0, 5, 0), impression(0, 5, 0, hour=100)]
    summary = take_in(config, home, release(tmp_path / "in", *rows))
    assert (summary.duplicates, summary.kept) == (1, 2)


def test_standard_and_random_logs_are_read_together(tmp_path: Path, home: Path, config: Config) -> None:
    release(tmp_path / "in", impression(0, 5, 0))
    release(tmp_path / "in", impression(1, 5, 0, random=1), name="log_random_4_22_to_5_08_pure.csv")
    assert take_in(config, home, tmp_path / "in").kept == 2


def test_the_statistics_of_the_whole_month_are_left_alone(tmp_path: Path, home: Path, config: Config) -> None:
    folder = release(tmp_path / "in", impression(0, 5, 0))
    leak = folder / "video_features_statistic_pure.csv"
    leak.write_text("video_id,show_cnt\n5,10\n")
    for pattern in (config.videos.files if config.videos else (), ("video_features_*",)):
        assert config.videos is not None
        wide = config.model_copy(update={"videos": config.videos.model_copy(update={"files": pattern})})
        summary = take_in(wide, home, folder)
        assert any("video_features_statistic_pure.csv is left alone" in note and "leak" in note for note in summary.notes)
        assert summary.manifest.tables["videos"]["rows"] == 2
    with pytest.raises(LogError, match=r"no log files: video_features_statistic_pure.csv averages over the whole month"):
        take_in(config, home, leak)


def test_the_statistics_are_refused_as_a_source_of_features(tmp_path: Path, home: Path, config: Config) -> None:
    assert config.videos is not None
    videos = config.videos.model_copy(update={"files": ("video_features_statistic_pure.csv",)})
    with pytest.raises(ConfigError, match=r"refused as a source of features.*test days included"):
        take_in(config.model_copy(update={"videos": videos}), home, release(tmp_path / "in", impression(0, 5, 0)))


def test_two_variants_are_not_mixed(tmp_path: Path, home: Path, config: Config) -> None:
    release(tmp_path / "in", impression(0, 5, 0))
    release(tmp_path / "in", impression(0, 5, 0), name="log_standard_4_22_to_5_08_1k.csv")
    with pytest.raises(LogError, match="KuaiRand 1k and pure together"):
        take_in(config, home, tmp_path / "in")
