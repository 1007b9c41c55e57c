"""Start-up: every command that finishes at once, against what it cannot do without.

Also against what people use in its place: ``patch``, and LibCST's own codemod runner.
"""

from __future__ import annotations

import ast
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from glmpatch.catalogue import load_patches
from tests.bench.data import Group, spread
from tests.bench.importing import imported
from tests.bench.machine import about
from tests.bench.measure import GLMPATCH, Entrant, Event, Runner
from tests.support import cache
from tests.support.environment import MODEL_FILE, Environment, copy
from tests.support.sources import repaired

CLICK = Entrant("import click", (sys.executable, "-c", "import click"))
CODEMOD = "libcst.tool codemod"
COLD = ("--help", "status, pristine", "apply, nothing to do", "apply of one patch")
"""What is measured without bytecode too; it shows in these as in the others."""
OWNERS = {
    "libcst": "importing LibCST",
    "click": "importing Click",
    "patcher": "importing glmpatch itself",
}
OTHERS = "importing modules of Python and others"
REST = "starting Python, reading, parsing, mending and writing"
PARTS = (*OWNERS.values(), OTHERS)


def warm(runner: Runner, runs: int) -> Group:
    """With bytecode, as after any run before this one."""
    with trees() as (env, hand):
        planned = events(env, hand)
        contests = [runner.contest(event, runs) for event in planned]
        (one,) = (event for event in planned if event.name == "apply of one patch")
        shares = profile(runner, one.entrants[0], min(runs, 3))
    return Group(about(runs), contests, figures={"apply": shares})


def cold(runner: Runner, runs: int) -> Group:
    """Without any bytecode, as the first run in a new container."""
    with trees() as (env, hand):
        chosen = [event for event in events(env, hand) if event.name in COLD]
        contests = [runner.contest(event, runs, cold=True) for event in chosen]
    return Group(about(runs), contests)


def profile(runner: Runner, entrant: Entrant, runs: int) -> dict[str, float]:
    """Shares of the wall time of a command: what it imports, and all else."""
    spent: dict[str, list[float]] = {}
    for _ in range(runs):
        entrant.prepare()
        interpreter, *rest = entrant.command
        whole, _peak = runner.run([interpreter, "-X", "importtime", *rest])
        found = dict.fromkeys(PARTS, 0.0)
        for name, seconds in imported(runner.output()).items():
            top = {"patches": "patcher"}.get(name, name)
            found[OWNERS.get(top, OTHERS)] += seconds / whole
        found[REST] = 1 - sum(found.values())
        for part, share in found.items():
            spent.setdefault(part, []).append(share)
    return {part: round(spread(shares).median, 3) for part, shares in spent.items()}


@contextlib.contextmanager
def trees() -> Iterator[tuple[Environment, Path]]:
    """A copy of vLLM 0.8.4, and a folder with the files of its patches for the other tools."""
    with tempfile.TemporaryDirectory() as folder:
        env = copy(cache.released(), Path(folder) / "env")
        hand = Path(folder) / "hand"
        for file in files():
            (hand / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(env.site / file, hand / f"{file}.released")
        yield env, hand


def files() -> list[str]:
    """The files that the patches mend, relative to site-packages."""
    return [p.path("0.8.4") for p in load_patches() if p.covers("0.8.4") and p.advised]


def parse(paths: Sequence[Path]) -> Entrant:
    """What no repair can do without: to import Click and LibCST and parse the files."""
    names = [str(path) for path in paths]
    code = f"import click, libcst\nfor f in {names!r}: libcst.parse_module(open(f, 'rb').read())"
    what = "file" if len(paths) == 1 else f"{len(paths)} files"
    return Entrant(f"import click, libcst; parse the {what}", (sys.executable, "-c", code))


def events(env: Environment, hand: Path) -> list[Event]:
    by_path = ("--path", str(env.site))
    pristine = env.model.read_bytes()
    fixed = cache.distribution("vllm", "0.8.5")

    def glmpatch(*arguments: str) -> None:
        subprocess.run([*GLMPATCH, *arguments, *by_path], check=True, capture_output=True)

    def unpatched() -> None:
        glmpatch("revert", "--force")
        env.model.write_bytes(pristine)
        assert env.model.read_bytes() == pristine

    def patched() -> None:
        unpatched()
        glmpatch("apply")
        assert env.model.read_bytes() == repaired(pristine)

    def commented() -> None:
        env.model.write_bytes(pristine + b"# mine\n")

    def unknown() -> None:
        env.model.write_bytes(pristine.replace(b"compute_logits(", b"compute("))

    def mended() -> None:
        assert env.model.read_bytes() == repaired(pristine)

    def reverted() -> None:
        assert env.model.read_bytes() == pristine

    def entrant(name: str, *arguments: str) -> Entrant:
        return Entrant(name, (*GLMPATCH, *arguments))

    one, every = env.site / MODEL_FILE, [env.site / file for file in files()]
    patch = {
        name: diff(hand, name, subprocess.check_output([*GLMPATCH, "diff", *names, *by_path]))
        for name, names in (("one", ["glm4-residual"]), ("all", []))
    }
    status = [*GLMPATCH, "status", *by_path]
    parse_one, parse_all = parse([one]), parse(every)
    return [
        Event("--help", [entrant("glmpatch", "--help"), CLICK], {CLICK.name: 1.3}),
        Event("list", [entrant("glmpatch", "list"), CLICK]),
        Event(
            "status, pristine",
            [Entrant("glmpatch", status, unpatched), CLICK, parse_all],
            {CLICK.name: 2.5},
        ),
        Event(
            "status, patched",
            [Entrant("glmpatch", status, patched), CLICK],
            {CLICK.name: 2.5},
        ),
        Event(
            "status, a file with a comment more",
            [Entrant("glmpatch", status, commented), CLICK, parse_one],
            {parse_one.name: 1.3},
        ),
        Event(
            "status, an unknown file",
            [Entrant("glmpatch", status, unknown), CLICK, parse_one],
            {parse_one.name: 1.3},
        ),
        Event(
            "status, patched, --python",
            [
                Entrant("glmpatch", [*GLMPATCH, "status", "--python", str(env.root)], patched),
                CLICK,
            ],
        ),
        Event(
            "status, fixed upstream",
            [
                entrant("glmpatch", "status", "--path", str(fixed)),
                CLICK,
                parse([fixed / file for file in files()]),
            ],
        ),
        Event(
            "apply, nothing to do",
            [Entrant("glmpatch", [*GLMPATCH, "apply", *by_path], patched, mended), CLICK],
            {CLICK.name: 2.5},
        ),
        Event(
            "apply of one patch",
            [
                Entrant(
                    "glmpatch",
                    [*GLMPATCH, "apply", "glm4-residual", *by_path],
                    unpatched,
                    mended,
                ),
                parse_one,
                CLICK,
                patch_of(hand, "one", patch["one"]),
                codemod(hand),
            ],
            {parse_one.name: 1.3},
        ),
        Event(
            "apply of all patches",
            [
                Entrant("glmpatch", [*GLMPATCH, "apply", *by_path], unpatched, mended),
                parse_all,
                patch_of(hand, "all", patch["all"]),
            ],
            {parse_all.name: 1.3},
        ),
        Event(
            "revert of all patches",
            [
                Entrant("glmpatch", [*GLMPATCH, "revert", *by_path], patched, reverted),
                CLICK,
                patch_of(hand, "all", patch["all"], back=True),
            ],
        ),
    ]


def diff(hand: Path, name: str, text: bytes) -> Path:
    path = hand / f"{name}.diff"
    path.write_bytes(text)
    return path


def restore(hand: Path) -> None:
    for file in files():
        shutil.copy(hand / f"{file}.released", hand / file)


def patch_of(hand: Path, name: str, path: Path, back: bool = False) -> Entrant:
    """``patch`` with what ``glmpatch diff`` prints, on files of its own."""
    tool = shutil.which("patch")
    assert tool, "install patch: it is what glmpatch is compared with"
    command = [tool, "-p1", "-s", "-d", str(hand), "-i", str(path)]

    def prepare() -> None:
        restore(hand)
        if back:
            subprocess.run(command, check=True)

    def check() -> None:
        released = (hand / f"{MODEL_FILE}.released").read_bytes()
        wanted = released if back else repaired(released)
        assert (hand / MODEL_FILE).read_bytes() == wanted

    shown = f"patch {'-R ' if back else ''}-p1"
    return Entrant(shown, [*command, "-R"] if back else command, prepare, check)


def codemod(hand: Path) -> Entrant:
    """The same change by the runner that LibCST brings along."""
    target = hand / MODEL_FILE
    command = "tests.bench.codemod.RepairGlm4"
    runner = (sys.executable, "-m", *CODEMOD.split(), "--external", "--no-format", "-j1")

    def check() -> None:
        """The same program; the layout differs in one line."""
        wanted = repaired((hand / f"{MODEL_FILE}.released").read_bytes())
        assert ast.dump(ast.parse(target.read_bytes())) == ast.dump(ast.parse(wanted))

    return Entrant(CODEMOD, (*runner, command, str(target)), lambda: restore(hand), check)
