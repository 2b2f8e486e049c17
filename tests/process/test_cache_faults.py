"""What clients read through the caches of real nodes while everything happens to these is never stale.

A short run of what `python -m tests.soak_caches` does for as long as wanted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak_caches import CacheSoak
from tests.soaks import soaked
from tests.troubles import Trouble, deafen, hand_over, isolate, kill, mute, slow_links, stop, stop_briefly

TROUBLES: dict[int, tuple[Trouble, ...]] = {
    3: (kill, stop, isolate, stop_briefly, mute, hand_over),
    5: (stop_briefly, isolate, kill, deafen, slow_links, stop),
}


@pytest.mark.parametrize("size", TROUBLES)
def test_nothing_is_stale_and_nothing_is_lost_but_with_its_owner(tmp_path: Path, size: int) -> None:
    with soaked(CacheSoak, tmp_path, size, seed=size) as soak:
        soak.round(1, TROUBLES[size], moves=size == 5)
    assert soak.findings == []
    assert soak.done["operations judged"]
