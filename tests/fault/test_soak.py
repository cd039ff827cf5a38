"""The soak, short: kills of the writer and of the gateway, and the pin stays what it was."""

from __future__ import annotations

import pytest
from soak import Soak


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
    assert soak.counts["writer killed"] + soak.counts["too late"] == 2


def test_a_lake_in_a_folder_holds_its_pin_through_kills(tmp_path):
    soak = Soak(str(tmp_path / "lake"), 12, lambda _: None, generated=True)
    soak.fill()
    soak.run(20, kills=1)
    soak.finish()


def test_a_soak_notices_a_row_that_it_did_not_write(tmp_path):
    soak = Soak(str(tmp_path / "lake"), 13, lambda _: None, generated=True)
    soak.fill()
    stream = min(soak.volumes)
    opened = min(soak.volumes[stream])
    soak.volumes[stream][opened] += 1.0
    with pytest.raises(AssertionError):
        soak.finish()
