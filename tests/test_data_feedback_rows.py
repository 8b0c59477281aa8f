"""A slate as rows of the tables."""

import json

import numpy as np

from data.feedback.rows import ITEM, item_rows
from data.feedback.served import Served, ServedColumns, ServedItem


def columns(n: int) -> ServedColumns:
    predictions = np.array([[0.1, 20.0], [np.nan, 0.5], [np.inf, 1e-7]], np.float32)[:n]
    score, certain = np.array([1.5, np.nan, -np.inf])[:n], np.array([1.0, 0.5, 0.25])[:n]
    return ServedColumns(
        ["v}, {1", "v2", "ü"][:n],
        score,
        ("click", "watch"),
        predictions,
        [("topic", "recent"), (), ("topic",)][:n],
        certain,
        certain < 1,
    )


def slate(items: "ServedColumns | list[ServedItem]") -> Served:
    return Served("r", "small", "u", 0, "rank", items)


def test_rows_by_hand() -> None:
    assert ITEM[:3] == ("request_id", "position", "video_id")
    rows = item_rows(slate(columns(3)))
    assert [dict(zip(ITEM, row, strict=True)) | {"predictions": json.loads(row[4])} for row in rows] == [
        {
            "request_id": "r",
            "position": place,
            "video_id": video,
            "score": score,
            "predictions": predictions,
            "generators": brought,
            "propensity": chance,
            "is_exploration": chance < 1,
        }
        for place, (video, score, predictions, brought, chance) in enumerate(
            [
                ("v}, {1", 1.5, {"click": float(np.float32(0.1)), "watch": 20.0}, "topic,recent", 1.0),
                ("v2", None, {"click": None, "watch": 0.5}, "", 0.5),
                ("ü", None, {"click": None, "watch": float(np.float32(1e-7))}, "topic", 0.25),
            ]
        )
    ]


def test_columns_and_items_make_the_same_rows() -> None:
    for n in range(4):
        both = [item_rows(slate(items)) for items in (columns(n), list(columns(n)))]
        assert both[0] == both[1]
        assert len(both[0]) == n
