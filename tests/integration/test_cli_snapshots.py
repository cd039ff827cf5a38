"""``lake snapshot ...`` as a user types it, all in this process."""

import json
import shutil

import pytest
from test_cli_reading import BTC, printed, run

NOW = "2026-03-02T00:05Z"
BACKFILL = (
    *("backfill", "--symbols", "BTC/USDT", "--timeframes", "1h", "--start", "2026-03-01"),
    *("--replay", "generated", "--replay-now", NOW),
)
LATER = ("update", "--replay", "generated", "--replay-now", "2026-03-02T06:05Z")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("pins") / "lake"
    printed(*BACKFILL, "--root", root)
    return root


@pytest.fixture
def root(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "lake")
    return tmp_path / "lake"


def told(root, *words):
    return json.loads(printed(*words, "--format", "json", "--root", root))


def refused(root, *words):
    code, _, err = run(*words, "--root", root)
    return code, err.splitlines()[-1]


def test_a_snapshot_goes_by_id_label_and_abbreviation_everywhere(root):
    made = told(root, "snapshot", "create", "--label", "paper")
    name = made["snapshot_id"]
    assert made["labels"] == ["paper"]
    read = ("bars", BTC, "--timeframe", "1h", "--format", "csv", "--root", root, "--snapshot")
    expected = printed(*read, name)
    printed(*LATER, "--root", root)
    second = told(root, "snapshot", "create", "--label", "daily")
    assert second["snapshot_id"] != name
    for text in (name, "paper", name[:-1], name.rpartition("-")[2]):
        assert printed(*read, text) == expected
        assert told(root, "snapshot", "show", text)["snapshot_id"] == name
        assert told(root, "snapshot", "verify", text, "--quick")["snapshot_id"] == name
    assert printed(*read, "daily") != expected
    moved = told(root, "snapshot", "label", "daily", "paper")
    assert (moved["snapshot_id"], moved["previous"]) == (name, second["snapshot_id"])
    assert printed(*read, "daily") == expected
    listed = told(root, "snapshot", "list")
    assert [row["labels"] for row in listed] == [["daily", "paper"], []]
    code, line = refused(root, "snapshot", "show", name[:7])
    assert (code, line.endswith("[request.unknown_snapshot]")) == (2, True)
    if name[:10] == second["snapshot_id"][:10]:
        code, line = refused(root, "snapshot", "show", name[:10])
        assert (code, line.endswith("[request.ambiguous_snapshot]")) == (2, True)


def test_tables_may_be_chosen_apart_or_by_commas(root):
    made = told(root, "snapshot", "create", "--tables", "silver.bars,ops.ledger")
    again = told(root, "snapshot", "create", "--tables", "ops.ledger", "silver.bars")
    assert made == again
    assert told(root, "snapshot", "show", made["snapshot_id"])["members"] == [
        "ops.ledger", "silver.bars",
    ]  # fmt: skip
    assert told(root, "snapshot", "create")["snapshot_id"] != made["snapshot_id"]
    code, line = refused(root, "scan", "bronze.responses", "--snapshot", made["snapshot_id"])
    assert (code, line.endswith("[request.table_not_pinned]")) == (2, True)


def test_an_unpin_takes_two_steps_and_is_shown_for_ever(root):
    name = told(root, "snapshot", "create", "--label", "paper")["snapshot_id"]
    printed(*LATER, "--root", root)
    code, out, err = run(
        "snapshot", "unpin", "paper", "--reason", "withdrawn", "--format", "json", "--root", root
    )
    asked = json.loads(out)
    assert code == 0
    assert asked["deletable_files"] > 0
    assert asked["deletable_bytes"] > 0
    assert asked["labels"] == ["paper"]
    assert f"lake snapshot unpin {name} --confirm {asked['token']}" in err
    assert told(root, "snapshot", "list")[0]["pin"] == "unpin_requested"
    code, line = refused(root, "snapshot", "unpin", name, "--confirm", "wrong")
    assert (code, line.endswith("[request]")) == (2, True)
    done = told(root, "snapshot", "unpin", name, "--confirm", asked["token"])
    assert (done["pin"], done["why"]) == ("unpinned", "withdrawn")
    assert told(root, "snapshot", "list")[0]["pin"] == "unpinned"
    assert told(root, "snapshot", "verify")[0]["verdict"] == "unpinned"
    assert told(root, "snapshot", "verify", name)["verdict"] == "holds"
    assert told(root, "snapshot", "pin", name, "--reason", "a referee asks")["before"] == "unpinned"
    shown = told(root, "snapshot", "show", name)
    events = [(each["event"], each["why"]) for each in shown["pin_events"]]
    assert events == [
        ("unpin_requested", "withdrawn"), ("unpinned", "withdrawn"), ("pinned", "a referee asks"),
    ]  # fmt: skip
    assert shown["pin"] == "pinned"


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (("create", "--label", "2026-03-01"), "request", "Add a word"),
        (("create", "--label", "My Paper"), "request", "a-z"),
        (("create", "--tables", "silver.bar"), "request.unknown_table", "silver.bars"),
        (("create", "--tables", "ops.runs"), "request", "Choose among"),
        (("label", "paper", "nothing"), "request.unknown_snapshot", ""),
        (("unpin", "x"), "request", "--reason"),
        (("unpin", "x", "--reason", "y", "--confirm", "z"), "request", "--reason"),
        (("unpin", "x", "--reason", "y"), "request.unknown_snapshot", ""),
        (("pin", "x"), "request.unknown_snapshot", ""),
        (("show", "../../etc/passwd"), "request.unknown_snapshot", ""),
    ],
    ids=lambda value: "-".join(value).replace("/", "_") if isinstance(value, tuple) else None,
)
def test_a_mistake_is_told_with_what_to_do(filled, words, code, remedy):
    exit_code, line = refused(filled, "snapshot", *words)
    assert exit_code == 2
    assert line.endswith(f"[{code}]")
    assert remedy in line


@pytest.fixture(scope="module")
def revised(filled, tmp_path_factory):
    """A lake with a snapshot before and one after the venue revised a bar."""
    root = tmp_path_factory.mktemp("revised") / "lake"
    shutil.copytree(filled, root)
    told(root, "snapshot", "create", "--label", "before")
    again = ("--recheck", "--replay", "generated", "--replay-now", "2026-03-04T12:30Z")
    printed(*BACKFILL[:-4], *again, "--root", root)
    told(root, "snapshot", "create", "--label", "after")
    return root


def test_a_diff_counts_by_instrument_and_day_and_shows_rows_with_both_values(revised):
    code, out, err = run(
        "snapshot", "diff", "before", "after", "--format", "json", "--root", revised
    )
    counted = json.loads(out)
    assert code == 0
    bars = [row for row in counted if row["table"] == "silver.bars"]
    assert {row["instrument_id"] for row in bars} == {BTC}
    assert [row["day"] for row in bars] == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert sum(row["added"] for row in bars) == lake_rows(revised, "after") - lake_rows(
        revised, "before"
    )
    assert "added" in err
    assert "bytes read" in err
    words = ("snapshot", "diff", "before", "after", "--rows", "--tables", "silver.bars")
    lines = told(revised, *words)
    assert len(lines) == sum(row["added"] + row["revised"] + row["removed"] for row in bars)
    assert {line["table"] for line in lines} == {"silver.bars"}
    added = next(line for line in lines if line["change"] == "added")
    assert added["old"] is None
    assert json.loads(added["new"])["close"] > 0
    assert json.loads(added["key"])["instrument_id"] == BTC
    for form in ("csv", "table"):
        assert BTC in printed(*words, "--format", form, "--root", revised)


def lake_rows(root, name):
    return told(root, "snapshot", "show", name)["silver.bars"]["rows"]


def test_a_diff_of_nothing_and_of_some_tables_says_so(revised):
    code, out, err = run(
        "snapshot", "diff", "after", "after", "--format", "json", "--root", revised
    )
    assert (code, json.loads(out)) == (0, [])
    assert "0 added, 0 revised, 0 removed; 0 files" in err
    told(revised, "snapshot", "create", "--tables", "silver.bars", "--label", "bars")
    code, _, err = run("snapshot", "diff", "before", "bars", "--root", revised)
    assert code == 0
    assert "not compared, for one of the two does not pin it: bronze.responses" in err


def test_a_snapshot_goes_out_and_comes_back_by_command(root, tmp_path):
    name = told(root, "snapshot", "create", "--label", "paper")["snapshot_id"]
    out = tmp_path / "out"
    done = told(root, "snapshot", "export", "paper", out)
    assert (done["snapshot_id"], done["destination"]) == (name, str(out))
    assert done["copied"] == done["files"] > 0
    assert told(root, "snapshot", "export", name, out)["copied"] == 0
    assert told(out, "snapshot", "list")[0]["labels"] == []
    assert told(out, "snapshot", "verify", "--deep")[0]["verdict"] == "holds"
    words = ("bars", BTC, "--timeframe", "1h", "--format", "csv", "--snapshot", name)
    assert printed(*words, "--root", out) == printed(*words, "--root", root)
    code, line = refused(out, "bars", BTC, "--timeframe", "1h")
    assert (code, line.endswith("[request]")) == (2, True)
    code, line = refused(out, "update", *LATER[1:])
    assert code == 2
    (row,) = told(tmp_path / "back", "snapshot", "import", out)
    assert (row["snapshot_id"], row["pin"]) == (name, "pinned")
    assert printed(*words, "--root", tmp_path / "back") == printed(*words, "--root", root)
    code, line = refused(root, "snapshot", "import", tmp_path / "nowhere")
    assert (code, line.endswith("[settings.lake_not_found]")) == (2, True)
    code, line = refused(root, "snapshot", "export", "paper", root)
    assert (code, line.endswith("[request]")) == (2, True)
