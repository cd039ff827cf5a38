"""The soak, short: kills of the writer and of the gateway, and the pin stays what it was."""

from __future__ import annotations

import re

import pytest
from soak import KILL_TRIES, Soak


@pytest.mark.timeout(900)
def test_a_lake_on_s3_holds_its_pin_through_kills_of_writer_and_gateway(own_ceph, monkeypatch):
    for name, value in own_ceph.environment().items():
        monkeypatch.setenv(name, value)
    said = []
    soak = Soak(f"s3://{own_ceph.make_bucket()}/lake", 11, said.append, own_ceph)
    soak.fill()
    soak.run(60, kills=2, gateway_kills=2)
    soak.finish()
    assert soak.counts["gateway killed"] == 2
    assert soak.counts["writer killed"] == 2
    assert re.search(r"; took \d+ s$", said[-1])


def test_a_lake_in_a_folder_holds_its_pin_through_kills(tmp_path):
    soak = Soak(str(tmp_path / "lake"), 12, lambda _: None, generated=True)
    soak.fill()
    soak.run(20, kills=1)
    soak.finish()
    assert soak.counts["writer killed"] == 1


def test_a_kill_that_comes_too_late_is_made_up_for_at_the_next_operation(tmp_path, monkeypatch):
    came = []

    def died(_soak, number, _what, after_seconds):
        came.append((number, after_seconds))
        return number > came[0][0]

    monkeypatch.setattr(Soak, "_died", died)
    soak = Soak(str(tmp_path / "lake"), 12, lambda _: None, generated=True)
    soak.fill()
    soak.run(6, kills=1)
    first = came[0][0]
    assert [number for number, _ in came] == [first] * KILL_TRIES + [first + 1]
    assert [soak.counts["too late"], soak.counts["writer killed"]] == [KILL_TRIES, 1]


def test_a_soak_notices_a_row_that_it_did_not_write(tmp_path):
    soak = Soak(str(tmp_path / "lake"), 13, lambda _: None, generated=True)
    soak.fill()
    stream = min(soak.volumes)
    opened = min(soak.volumes[stream])
    soak.volumes[stream][opened] += 1.0
    with pytest.raises(AssertionError):
        soak.finish()
