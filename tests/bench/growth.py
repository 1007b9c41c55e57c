"""What more of everything costs: environments, lines of the model file, releases."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import glmpatch
from glmpatch.catalogue import load_patches
from tests.bench.data import Contest, Group, Growth
from tests.bench.machine import about
from tests.bench.measure import GLMPATCH, Entrant, Event, Runner
from tests.bench.start_up import CLICK, parse
from tests.support import fake
from tests.support.environment import MODEL_FILE, Environment
from tests.support.releases import trees
from tests.support.sources import repaired

ENVIRONMENTS = (1, 10, 100)
LINES = (300, 3_000, 30_000)
"""Rounded; the first is the released file, which has some more."""
PATCHES = (3, 30)
RELEASES = (1, 10, 0)
"""0 stands for all there are."""
LONG = 3
"""Runs of the largest of each, which take seconds; those before have filled the caches."""
MANY = (sys.executable, "-m", "tests.bench.many")
PART = '''

class Generated{number}(nn.Module):
    """Stands for one more model of the family."""

    def __init__(self, hidden_size: int, scale: float = {number}.5) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.scale = scale

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.scale > 1.0:
            hidden_states = hidden_states * self.scale
        return torch.matmul(hidden_states, self.weight) + hidden_states


def generated_{number}(values: list[int], *, limit: int = {number}) -> dict[str, int]:
    """Stands for one more helper."""
    kept = [value for value in values if 0 <= value < limit]
    return {{str(value): value % (limit or 1) for value in kept}}
'''
"""What the model file is grown by."""


def measure(runner: Runner, runs: int) -> Group:
    with tempfile.TemporaryDirectory() as folder:
        growths = [
            *environments(runner, runs, Path(folder), ENVIRONMENTS),
            *lines(runner, runs, Path(folder), LINES),
            patches(runner, runs, Path(folder), PATCHES),
            releases(runner, runs, RELEASES),
        ]
    return Group(about(runs), growths=growths)


def environments(
    runner: Runner, runs: int, folder: Path, counts: Sequence[int]
) -> tuple[Growth, Growth]:
    """``status`` and ``apply`` over so many environments in one process."""
    model = fake.source(MODEL_FILE)
    envs = [fake.environment(folder / str(n), model, others=right()) for n in range(max(counts))]
    roots = [str(env.site) for env in envs]
    again = restoring(envs)

    def mended() -> None:
        assert envs[0].model.read_bytes() == repaired(model)

    found: dict[str, dict[int, Contest]] = {"status": {}, "apply": {}}
    for count in counts:
        for command, check in (("status", lambda: None), ("apply", mended)):
            many = [*MANY, command, "--", *roots[:count]]
            event = Event(command, [Entrant("glmpatch", many, again, check)])
            found[command][count] = contest(runner, event, runs, count == max(counts))
    return (
        Growth("status, several environments", "environments", found["status"]),
        Growth("apply, several environments", "environments", found["apply"]),
    )


def lines(runner: Runner, runs: int, folder: Path, counts: Sequence[int]) -> tuple[Growth]:
    """``status`` on an unknown model file of so many lines, against LibCST's parser alone."""
    found: dict[str, dict[int, Contest]] = {"status": {}}
    for count in counts:
        model = grown(fake.source(MODEL_FILE), count)
        env = fake.environment(folder / f"lines-{count}", model, others=right())
        by_path = ("--path", str(env.site))
        parser, again = parse([env.model]), restoring([env])
        for command in found:
            event = Event(
                command,
                [Entrant("glmpatch", [*GLMPATCH, command, *by_path], again), parser],
            )
            found[command][count] = contest(runner, event, runs, count == max(counts))
    return (Growth("status, one long file", "lines", found["status"]),)


def patches(runner: Runner, runs: int, folder: Path, counts: Sequence[int]) -> Growth:
    """``status`` on released files with so many patches, against importing Click."""
    env = fake.environment(folder / "patches", fake.source(MODEL_FILE), others=fake.released())
    found = {}
    for count in counts:
        home = with_patches(folder / f"with-{count}", count)
        code = f"import sys; sys.path.insert(0, {str(home)!r}); {GLMPATCH[2]}"
        command = [sys.executable, "-c", code, "status", "--path", str(env.site)]
        event = Event("status", [Entrant("glmpatch", command), CLICK], {CLICK.name: 2.5})
        found[count] = runner.contest(event, runs)
    return Growth("status, several patches", "patches", found)


def with_patches(home: Path, count: int) -> Path:
    """A copy of the package with so many patches: those for vLLM 0.8.4, the others, and made ones
    that are for releases of their own."""
    package = Path(glmpatch.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, home / "glmpatch", ignore=ignored)  # the link becomes a folder
    folder = home / "glmpatch" / "patches"
    ours = [patch.name for patch in fake.patches()]
    names = ours + [p.name for p in load_patches() if p.name not in ours]
    for name in names[count:]:
        shutil.rmtree(folder / name)
    for number in range(count - len(names)):
        made = folder / f"made_{number}"
        shutil.copytree(folder / "glm_rope", made)
        text = (made / "patch.py").read_text("utf-8").replace('"glm-rope"', f'"made-{number}"')
        text = text.replace(">=0.7.3,<0.8.5", f"==0.1.{number}")
        (made / "patch.py").write_text(text, "utf-8")
    return home


def restoring(envs: Sequence[Environment]) -> Callable[[], None]:
    """Makes these environments what they are now; by copies, which is quicker than ``revert``."""
    kept = [env.root.with_name(f"{env.root.name}.kept") for env in envs]
    for env, copy in zip(envs, kept, strict=True):
        shutil.copytree(env.root, copy, symlinks=True)

    def restore() -> None:
        for env, copy in zip(envs, kept, strict=True):
            shutil.rmtree(env.root)
            shutil.copytree(copy, env.root, symlinks=True)

    return restore


def right() -> fake.Files:
    """The other patches' files, repaired already: a hash tells, and this is about one file."""
    return {file: data for file, data in fake.repaired().items() if file != MODEL_FILE}


def contest(runner: Runner, event: Event, runs: int, largest: bool) -> Contest:
    if not largest:
        return runner.contest(event, runs)
    return runner.contest(event, min(runs, LONG), warm_up=False)


def grown(source: bytes, count: int) -> bytes:
    """The file with functions and classes added until it has ``count`` lines."""
    number = 0
    parts = [source]
    missing = count - source.count(b"\n")
    while missing > 0:
        part = PART.format(number=number).encode()
        parts.append(part)
        missing -= part.count(b"\n")
        number += 1
    return b"".join(parts)


def releases(runner: Runner, runs: int, counts: Sequence[int]) -> Growth:
    """``status`` over the releases on the registry, from the newest on, in one process."""
    roots = [str(root) for root in reversed(trees().values())]
    return Growth(
        "status, releases of vLLM",
        "releases",
        {
            count: contest(
                runner,
                Event("status", [Entrant("glmpatch", [*MANY, "status", "--", *roots[:count]])]),
                runs,
                count == len(roots),
            )
            for count in (count or len(roots) for count in counts)
        },
    )
