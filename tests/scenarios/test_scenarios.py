"""Every scenario comes out as its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.rewrite import scenarios
from tests.scenarios.script import Script, Unexpected


@pytest.mark.parametrize("path", scenarios(), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """If it should come out otherwise now: ``python -m tests.scenarios.rewrite``, and read the difference."""
    text = path.read_text()
    assert Script().run(text) == text


def test_a_scenario_comes_out_the_same_every_time() -> None:
    text = "> start 3\n> elect n2\n> write n1 SET x 1\n> pass 20ms\n"
    assert Script().run(text) == Script().run(text)


@pytest.mark.parametrize(
    "expectation", ["leader n2", "no leader", "n1 SET x 1 -> -CLUSTERDOWN", "no n1 SET x 1", "n2 leads"]
)
def test_an_expectation_that_does_not_hold_is_an_error(expectation: str) -> None:
    script = Script()
    script.run("> start 3\n> elect n1\n> write n1 SET x 1\n> pass 20ms\n")
    with pytest.raises(Unexpected):
        script.run(f"> expect {expectation}\n")


def test_agreement_is_of_keys_and_of_the_log() -> None:
    script = Script()
    script.run("> start 3\n> elect n1\n> cut n3\n> write n1 SET x 1\n> pass 60ms\n")
    with pytest.raises(Unexpected):
        script.run("> expect agreement\n")
