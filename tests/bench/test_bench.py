"""The benchmark itself: it runs, its page is what the data say, and its verdicts can fail."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import libcst as cst
import pytest
from libcst.codemod import CodemodContext

from tests.bench import data, growth, importing, page
from tests.bench.codemod import RepairGlm4
from tests.bench.data import Contest
from tests.bench.measure import Entrant, Event, runner
from tests.support import fake
from tests.support.environment import MODEL_FILE
from tests.support.sources import repaired

PICTURES = ("start-up", "time", "memory")
BUSY = "sum(range(3_000_000))"


def test_page_and_plots_are_what_the_data_say() -> None:
    drawn = page.drawn(data.load())
    assert set(drawn) == {"benchmarks.md", *(f"benchmarks-{each}.svg" for each in PICTURES)}
    stale = [n for n, text in drawn.items() if (data.DOCS / n).read_text("utf-8") != text]
    assert stale == [], "run python -m tests.bench --redraw"


def test_the_plots_are_small_pictures_of_their_own() -> None:
    for name in PICTURES:
        path = data.DOCS / f"benchmarks-{name}.svg"
        assert path.stat().st_size < 20_000
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "http" not in path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")


def test_a_budget_that_is_not_met_stands_on_the_page_with_its_reason() -> None:
    groups = data.load()
    contests = groups["start-up"].contests
    over = {c.name for c in contests for other in c.budgets if not c.met(other)}
    text = page.drawn(groups)["benchmarks.md"]
    assert ("Over budget" in text) == bool(over)
    # Twice as slow, every budget of this group is exceeded, and the page has to say so.
    slow = [
        replace(
            c,
            seconds={
                n: [t * (2 if n == "glmpatch" else 1) for t in s] for n, s in c.seconds.items()
            },
        )
        for c in contests
    ]
    worse = page.drawn({**groups, "start-up": replace(groups["start-up"], contests=slow)})
    budgets = sum(len(c.budgets) for c in contests)
    section = worse["benchmarks.md"].partition("## The proof")[0].partition("### Without")[0]
    assert section.count("**over**") == budgets == 8
    assert worse["benchmarks-start-up.svg"] != page.drawn(groups)["benchmarks-start-up.svg"]


def test_data_survive_being_kept(tmp_path: Path) -> None:
    groups = data.load()
    data.save(groups, tmp_path)
    kept = data.DOCS / "benchmarks.json"
    assert (tmp_path / "benchmarks.json").read_bytes() == kept.read_bytes()
    assert kept.stat().st_size < 100_000
    assert data.load(tmp_path) == groups


def test_redraw_needs_the_data_alone_and_a_run_of_one_group_keeps_the_others(
    tmp_path: Path,
) -> None:
    shutil.copy(data.DOCS / "benchmarks.json", tmp_path)
    command = [sys.executable, "-m", "tests.bench", "--docs", str(tmp_path)]
    subprocess.run([*command, "--redraw"], check=True, cwd=data.DOCS.parent)
    for name in page.drawn(data.load()):
        assert (tmp_path / name).read_text("utf-8") == (data.DOCS / name).read_text("utf-8")
    done = subprocess.run(
        [*command, "footprint", "--runs", "1"],
        check=True,
        cwd=data.DOCS.parent,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^wheel: \d+$", done.stdout, re.MULTILINE)
    before, after = data.load(), data.load(tmp_path)
    assert list(after) == list(before)
    assert {n: g for n, g in after.items() if n != "footprint"} == {
        n: g for n, g in before.items() if n != "footprint"
    }


def test_a_group_of_another_name_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "speed"],
        cwd=data.DOCS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such group: speed" in done.stderr


def test_entrants_run_in_turn_and_are_measured_in_processes_of_their_own() -> None:
    order: list[str] = []
    held = "x = b'x' * (64 << 20)"

    def entrant(name: str, code: str) -> Entrant:
        return Entrant(name, (sys.executable, "-c", code), lambda: order.append(name))

    event = Event(
        "busy", [entrant("glmpatch", f"{BUSY}; {held}"), entrant("idle", "")], {"idle": 0}
    )
    with runner() as commands:
        contest = commands.contest(event, 2)
    assert order == ["glmpatch", "idle"] * 3
    assert contest.times("idle").median > 1
    # More than this process holds: what it holds must not count.
    assert min(contest.peaks["glmpatch"]) - max(contest.peaks["idle"]) > 50 << 10
    assert max(contest.peaks["idle"]) < 30 << 10
    assert not contest.met("idle")


def test_a_command_that_fails_is_no_measurement() -> None:
    with runner() as commands, pytest.raises(AssertionError, match=r"ended with 3:\nwhy"):
        commands.run((sys.executable, "-c", "print('why'); raise SystemExit(3)"))


def test_without_bytecode_none_is_found() -> None:
    code = (sys.executable, "-c", "import click; print(click.__cached__)")
    with runner() as commands:
        commands.run(code)
        usual = commands.output()
        commands.run(code, cold=True)
        assert commands.output() != usual
        assert not Path(commands.output().strip()).exists()


def test_ratios_are_taken_run_by_run() -> None:
    seconds = {"glmpatch": [1.0, 20.0, 3.0], "other": [1.0, 10.0, 1.0]}
    contest = Contest("", seconds, {}, {"other": 2.0})
    assert contest.times("other") == (2.0, 1.5, 2.5)
    assert contest.met("other")
    assert not replace(contest, budgets={"other": 1.9}).met("other")


def test_growth_measures_each_count() -> None:
    with runner() as commands:
        found = growth.environments(commands, 1, Path(commands.folder), (1, 3))
    assert [list(each.contests) for each in found] == [[1, 3], [1, 3]]
    assert all(c.seconds["glmpatch"][0] > 0 for each in found for c in each.contests.values())


def test_a_grown_file_is_still_the_one_to_be_mended() -> None:
    source = fake.source(MODEL_FILE)
    assert growth.grown(source, 300) == source
    long = growth.grown(source, 3_000)
    assert 3_000 <= long.count(b"\n") < 3_030
    assert repaired(long) == repaired(source) + long[len(source) :]


def test_the_codemod_makes_the_same_program() -> None:
    source = fake.source(MODEL_FILE)
    mended = RepairGlm4(CodemodContext()).transform_module(cst.parse_module(source))
    assert ast.dump(ast.parse(mended.bytes)) == ast.dump(ast.parse(repaired(source)))


def test_import_times_count_once_and_by_package() -> None:
    output = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |     re\n"
        "import time:       200 |        300 |   a.b\n"
        "import time:        50 |        350 | a\n"
    )
    assert importing.imported(output) == pytest.approx({"a": 250e-6, importing.PYTHON: 100e-6})


def test_a_page_without_some_groups_is_drawn_too() -> None:
    groups = data.load()
    for name, group in groups.items():
        text = page.drawn({name: group})["benchmarks.md"]
        assert f"| {name} | {group.about['date']} |" in text
        assert not any(f"| {other} | 20" in text for other in set(groups) - {name})
