import mmap
from pathlib import Path

import numpy as np
import pytest

from data.features.layout import SIDES, Block
from data.features.storage import load_array, load_blocks, save_blocks
from data.memory import stretch, will_read
from models import shuffle
from models.shuffle import announce, gather, shuffled


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day is large from 11 rows on; blocks of 4, of which 2 are shuffled together."""
    for name, value in (("LARGE_ROWS", 10), ("BLOCK_ROWS", 4), ("TOGETHER", 2)):
        monkeypatch.setattr(shuffle, name, value)


def test_a_day_of_usual_size_is_shuffled_row_by_row_as_ever() -> None:
    expected = np.random.default_rng(3).permutation(np.arange(1000))
    np.testing.assert_array_equal(shuffled(1000, np.random.default_rng(3)), expected)


@pytest.mark.parametrize("n", [11, 16, 37])
def test_a_large_day_s_rows_come_once_each_in_groups_of_whole_blocks(small: None, n: int) -> None:
    order = shuffled(n, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    seen: set[int] = set()
    for start in range(0, n, 8):
        blocks = set((order[start : start + 8] // 4).tolist())
        assert len(blocks) <= 3  # two; three where the short last block came before
        seen |= blocks
    assert seen == set(range(-(-n // 4)))


def test_a_large_day_s_order_is_the_seed_s_and_mixes_blocks_and_rows(small: None) -> None:
    order = shuffled(64, np.random.default_rng(1))
    np.testing.assert_array_equal(order, shuffled(64, np.random.default_rng(1)))
    assert not np.array_equal(order, shuffled(64, np.random.default_rng(2)))
    groups = order.reshape(8, 8)
    assert any(len(set((group[:4] // 4).tolist())) == 2 for group in groups)  # rows of two blocks among each other
    assert sum(abs(int(blocks[0]) - int(blocks[-1])) > 1 for blocks in np.sort(groups // 4, 1)) > 2  # from far apart


def blocks_of(n: int) -> dict:
    return {side: Block(np.zeros((n, 2), np.int32), np.ones((n, 3), np.float32)) for side in SIDES}


def test_blocks_of_a_large_mapped_day_are_asked_for_and_nothing_else(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, list[int], int]] = []
    monkeypatch.setattr(
        shuffle, "will_read", lambda array, starts, rows: asked.append((array.shape[1], starts.tolist(), rows))
    )
    save_blocks(blocks_of(64), tmp_path)
    announce(load_blocks(tmp_path), np.repeat([13, 2, 14, 1], 10))
    assert asked == [(2, [0, 12], 4), (3, [0, 12], 4)] * len(SIDES)
    asked.clear()
    announce(load_blocks(tmp_path), np.arange(0, 64, 4))  # scattered
    announce(blocks_of(10), np.zeros(100, np.int64))  # a small day
    assert not asked


def resident(folder: Path) -> int:
    """Of the files in it that are mapped, the KB that count as this process's memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system doesn't say")
def test_a_large_mapped_day_is_let_go_of_as_it_is_gathered(small: None, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    written = {s: Block(random.integers(0, 9, (5000, 3), np.int32), np.ones((5000, 0), np.float32)) for s in SIDES}
    save_blocks(written, tmp_path)
    mapped, rows = load_blocks(tmp_path), np.repeat(shuffled(5000, random)[:400], 3)
    for blocks in (mapped, written):  # of what is in memory the same rows
        for side, (ints, floats) in gather(blocks, rows).items():
            np.testing.assert_array_equal(ints, written[side].ints[rows])
            assert floats.shape == (1200, 0)
    assert resident(tmp_path) == 0
    gather(mapped, np.arange(0, 5000, 4))  # scattered: all of it is read again and again
    assert resident(tmp_path) > 0


def test_a_stretch_begins_at_a_page_and_ends_with_the_file() -> None:
    page = mmap.PAGESIZE
    assert stretch(128 + 2 * page, page, 100 * page) == (2 * page, 128 + page)
    assert stretch(128, 3 * page, 100 * page) == (0, 128 + 3 * page)
    assert stretch(128 + 7 * page, 2 * page, 8 * page) == (7 * page, page)


def test_asking_for_rows_changes_none(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(5000 * 3, dtype=np.float32).reshape(5000, 3))
    mapped = load_array(tmp_path / "rows.npy")
    assert isinstance(mapped.base.base, mmap.mmap)  # else nothing is asked for
    will_read(mapped, np.array([0, 4990]), 64)
    np.testing.assert_array_equal(mapped.sum(0), np.load(tmp_path / "rows.npy").sum(0))
    will_read(np.zeros((8, 4)), np.array([0]), 2)


def test_rows_without_columns_are_not_asked_for(tmp_path: Path) -> None:
    """Such as those of a side without features."""
    np.save(tmp_path / "rows.npy", np.zeros((5000, 0), np.float32))
    mapped = load_array(tmp_path / "rows.npy")
    assert mapped.strides[0] > 0
    will_read(mapped, np.array([0, 4990]), 64)
