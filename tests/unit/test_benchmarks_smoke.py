"""Each benchmark runs at its tiniest and reports; what it measures is not asserted."""

import json
from importlib import import_module

import pytest

from benchmarks.__main__ import NAMES, main, table
from benchmarks.measure import Options, Target, Took, alternate, cost, rate

LINES = {
    "importing": 2,
    "publish": 2,
    "scan": 15,
    "snapshots": 5,
    "backfill": 1,
    "memory": 1,
    "update": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "importing"])
def test_benchmark_runs_and_reports(name, tmp_path):
    results = import_module(f"benchmarks.{name}").run(Options(tmp_path, "tiny"))
    assert len(results) >= LINES[name]
    for result in results:
        assert result.measured
        assert result.floor
        assert result.ratio > 0
        assert result.raw
    assert len({result.what for result in results}) == len(results)
    assert any(result.target for result in results)


def test_command_prints_a_table_and_writes_figures(tmp_path, capfd):
    file = tmp_path / "figures.json"
    assert main(["importing", "--tiny", "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    [line, heavy] = told["results"]["importing"]
    assert told["crashed"] == []
    assert line["target"] == "<= 1.6x"
    assert len(line["raw"]["measured_wall_seconds"]) == 1
    assert heavy["raw"]["loaded"] == []
    shown = capfd.readouterr().out
    for text in ("benchmark", "import lake / polars, deltalake", line["measured"], "of cpu"):
        assert text in shown


def test_crash_is_the_only_failure(monkeypatch, capfd):
    monkeypatch.setattr("benchmarks.__main__._in_child", lambda *_: None)
    assert main(["publish"]) == 1
    assert "publish crashed" in capfd.readouterr().err


def test_unknown_name_is_refused(capfd):
    with pytest.raises(SystemExit):
        main(["publishing"])
    assert "there is importing, publish" in capfd.readouterr().err


def test_subjects_take_turns_and_warm_up_is_not_counted():
    order = []

    def subject(name):
        order.append(name)
        return Took(float(len(order)), 0.0)

    took = alternate(2, {"a": lambda: subject("a"), "b": lambda: subject("b")})
    assert "".join(order) == "abbaab"
    assert [each.wall for each in took["a"]] == [4.0, 5.0]
    assert [each.wall for each in took["b"]] == [3.0, 6.0]


def test_ratios_are_of_the_best_and_of_the_medians():
    mine = [Took(wall, 2.0) for wall in (2.0, 4.0, 9.0)]
    floor = [Took(wall, 1.0) for wall in (1.0, 1.0, 3.0)]
    line = cost("w", mine, floor, target=2.0)
    assert (line.ratio, line.median_ratio, line.cpu_ratio, line.ok) == (2.0, 4.0, 2.0, True)
    share = rate("w", mine, floor, amount=100, unit="rows", target=0.6)
    assert (share.ratio, share.median_ratio, share.cpu_ratio, share.ok) == (0.5, 0.25, 0.5, False)
    assert share.measured == "50 (25) rows/s"


def test_target_is_a_floor_or_a_ceiling():
    assert Target(0.4, at_least=True).met(0.4)
    assert not Target(0.4, at_least=True).met(0.39)
    assert Target(1.2).met(1.2)
    assert not Target(1.2).met(1.21)


def test_missed_target_stands_in_the_table():
    line = cost("reading", [Took(3.0, 3.0)], [Took(1.0, 1.0)], target=2.0, note="why")
    shown = table({"scan": [line.as_json()]})
    assert "3.00 (3.00)" in shown
    assert "MISSED" in shown
    assert "scan: why" in shown
