"""The features of ``features_speed.py`` in plain pandas, run in its own environment: no module of ours is imported.

Every group is cumulated once, in the order in which outcomes become known, and each row finds the last state before its
own time by ``merge_asof``. Ids are integers: already, or (``--log``) from the texts of the stored log, each column by one
``factorize`` over all days.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

DAY, MINUTE = 86_400_000, 60_000
LABELS = ("click", "watch", "like")


def features(df: pd.DataFrame) -> dict[str, np.ndarray]:
    df["known"] = df["visible"] + MINUTE
    df["day"] = df["t"] // DAY
    first = df[(df["day"] == df["day"].iloc[0]) & (df["known"] < (df["day"].iloc[0] + 1) * DAY)]
    priors = {label: first[label].mean() for label in LABELS}
    events = df.sort_values("known", kind="stable").reset_index(drop=True)
    found = {
        "user_now": rate(df, events, ["user"], LABELS, priors, 5.0),
        "user_author": rate(df, events, ["user", "author"], ("click", "like"), priors, 3.0),
        "video_day": daily(df, priors, 20.0),
        "recent": recent(df, events, priors),
        "activity": activity(df),
    }
    return {"floats": np.concatenate([*found.values()], axis=1).astype(np.float32), "history": history(df, events)}


def rate(df, events, keys, labels, priors, strength):
    groups = events.groupby(keys)
    state = events[[*keys, "known"]].copy()
    state["count"] = groups.cumcount() + 1
    for label in labels:
        state[label] = groups[label].cumsum()
    got = pd.merge_asof(df[["t", *keys]], state, left_on="t", right_on="known", by=keys, allow_exact_matches=False)
    return counted(got, labels, priors, strength, 0.0)


def daily(df, priors, strength):
    known = df.assign(known_day=df["known"] // DAY).groupby(["known_day", "video"], as_index=False)
    state = known.agg(count=("t", "size"), **{label: (label, "sum") for label in LABELS}).sort_values("known_day")
    per_day = state.groupby("known_day")["count"].sum().cumsum()
    videos = state.drop_duplicates("video").groupby("known_day").size().cumsum().reindex(per_day.index).ffill()
    usual = (per_day / videos).rename("usual").reset_index()
    state[["count", *LABELS]] = state.groupby("video")[["count", *LABELS]].cumsum()
    keys = df[["day", "video"]]
    got = pd.merge_asof(keys, state, left_on="day", right_on="known_day", by="video", allow_exact_matches=False)
    means = pd.merge_asof(keys[["day"]], usual, left_on="day", right_on="known_day", allow_exact_matches=False)
    return counted(got, LABELS, priors, strength, means["usual"].fillna(0.0).to_numpy())


def counted(got, labels, priors, strength, usual):
    count = got["count"].fillna(0.0).to_numpy()
    columns = []
    for label in labels:
        mean = (got[label].fillna(0.0).to_numpy() + priors[label] * strength) / (count + strength)
        columns += [np.log10((1 + count) / (1 + usual)), scaled(mean, label) - scaled(priors[label], label)]
    return np.stack(columns, axis=1)


def scaled(mean, label):
    if label == "watch":
        return np.log1p(mean)
    mean = np.clip(mean, 1e-5, 1 - 1e-5)
    return np.log(mean / (1 - mean))


def recent(df, events, priors):
    state, groups = events[["user", "known"]].copy(), events.groupby("user")
    for label in ("click", "like"):
        for n in (1, 5, 20):
            state[f"{label}{n}"] = groups[label].rolling(n, min_periods=1).mean().reset_index(level=0, drop=True)
    got = pd.merge_asof(df[["t", "user"]], state, left_on="t", right_on="known", by="user", allow_exact_matches=False)
    columns = []
    for label in ("click", "like"):
        for n in (1, 5, 20):
            mean = got[f"{label}{n}"]
            columns += [(mean - priors[label]).fillna(0.0), mean.isna().astype(float)]
    return np.stack(columns, axis=1)


def activity(df):
    state = df[["user", "t"]].copy()
    state["seen"], state["count"] = state["t"], state.groupby("user").cumcount() + 1
    last = pd.merge_asof(df[["t", "user"]], state, on="t", by="user", allow_exact_matches=False)
    hour = df[["t", "user"]].assign(before=df["t"] - 60 * MINUTE)
    early = pd.merge_asof(hour, state, left_on="before", right_on="t", by="user", allow_exact_matches=False)
    minutes = ((df["t"] - last["seen"]) / MINUTE).fillna(0.0)
    recently = last["count"].fillna(0.0) - early["count"].fillna(0.0)
    return np.stack([np.log10(1 + minutes), last["seen"].isna().astype(float), np.log10(1 + recently)], axis=1)


def history(df, events):
    clicks = events[events["click"] > 0][["user", "known", "video"]]
    videos = clicks.groupby("user")["video"]
    state = clicks[["user", "known"]].assign(**{f"last{i}": videos.shift(i, fill_value=-1) for i in range(20)})
    got = pd.merge_asof(df[["t", "user"]], state, left_on="t", right_on="known", by="user", allow_exact_matches=False)
    return got[[f"last{i}" for i in range(20)]].fillna(-1).to_numpy().astype(np.int32)


def read(log: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The day partitions as one frame with integer ids, and the videos' own ids by these."""
    names = {"user_id": "user", "video_id": "video", "author": "author", "timestamp": "t", "visible_at": "visible"}
    wanted = [*names, *LABELS]
    days = [pd.read_parquet(path, columns=wanted, partitioning=None) for path in sorted(log.glob("day=*/rows.parquet"))]
    df = pd.concat(days, ignore_index=True).rename(columns=names)
    for name in ("user", "video", "author"):
        df[name], texts = pd.factorize(df[name])
        if name == "video":
            videos = texts.to_numpy().astype(np.int32)
    return df, videos


def main(folder: Path, log: Path | None) -> None:
    df = None if log else pd.DataFrame({path.stem: np.load(path) for path in folder.glob("*.npy")})
    begun, used = time.perf_counter(), time.process_time()
    videos = None
    if log:
        df, videos = read(log)
    found = features(df)
    answer = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used}
    answer["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if videos is not None:
        found["history"] = np.append(videos, -1).astype(np.int32)[found["history"]]
    for name, values in found.items():
        np.save(folder / "pandas" / f"{name}.npy", values)
    (folder / "pandas" / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
