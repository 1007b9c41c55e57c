"""Which interpreter is meant, and where it imports from."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _
from glmpatch.site.folder import read_file
from glmpatch.site.path import must_be_readable

ASK = "import json, sys; print(json.dumps([sys.executable, sys.path]))"
ASK_SECONDS = 60.0
"""After this long an interpreter that was asked where it imports from hangs."""
NAME_ONE = N_(
    "name the python that starts vLLM, such as /opt/venv/bin/python, or the root of its "
    "environment, such as /opt/venv"
)
SCRIPT_LIMIT = 4096
"""Bytes of a script that are read; its interpreter stands in the first or second line."""
ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables that name the environment which a user has activated, the innermost first."""
OWN_FOLDERS = {"uv", "pipx", "archive-v0", "environments-v2"}
OWN_FILES = ("uv-receipt.toml", "pipx_metadata.json")


def absolute(path: Path) -> Path:
    """Absolute and free of .., but with links kept: site-packages may well be one."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # which leaves an unknown ~user as it is


def named(path: Path) -> Path:
    """The interpreter at ``path``, on PATH, of the environment whose root that is, or of a script.

    Raises:
        Failure: a folder that is no environment, or a script of something else than Python.
    """
    if path.parent == Path() and not path.exists():
        import shutil  # four modules for compression come with it

        path = Path(shutil.which(path) or path)
    path = absolute(path)
    if not path.is_dir():
        return _of_script(path) or path
    found = in_environment(path)
    if found is None:
        if os.path.isdir(path / "bin"):
            must_be_readable(os.listdir, path / "bin")
        raise Failure(
            Exit.TARGET,
            _(
                "--python {path}: a folder, but not the root of an environment (no bin/python in "
                "it)",
                path=path,
            ),
            _(
                "name an interpreter, such as /opt/venv/bin/python, or the root of an environment, "
                "such as /opt/venv"
            ),
        )
    return found


def in_environment(root: Path) -> Path | None:
    """The interpreter of an environment."""
    for name in ("bin/python", "bin/python3"):
        if _is_file(root / name):
            return root / name
    return None


def beside(site: Path) -> Path | None:
    """The interpreter of the environment whose site-packages this is; None where it is unknown."""
    match = re.fullmatch(r"(.+)/lib(?:64)?/(python3(?:\.\d+)?)/(?:site|dist)-packages", str(site))
    if match is None:
        return None
    prefix, name = match.groups()
    candidates = [f"{prefix}/bin/{name}", f"{prefix}/bin/python"]
    if prefix == "/usr/local":  # where Debian's own pip installs
        candidates.append(f"/usr/bin/{name}")
    for candidate in candidates:
        if _is_file(Path(candidate)):
            return Path(candidate)
    return None


def ask(interpreter: Path) -> tuple[Path, list[str]]:
    """What an interpreter says of itself, in isolated mode: its path, and where it imports from.

    Raises:
        Failure: it is none, or does not run here.
    """
    import subprocess  # most commands ask nobody

    command = [str(interpreter), "-I", "-B", "-c", ASK]
    said = b""
    try:
        answer = subprocess.run(
            command, capture_output=True, timeout=ASK_SECONDS, stdin=subprocess.DEVNULL
        )
        said = answer.stderr
        executable, paths = json.loads(answer.stdout.splitlines()[-1])
        return Path(executable or interpreter), [str(each) for each in paths]
    except OSError as error:
        what = error.strerror
    except subprocess.TimeoutExpired:
        what = _("no answer within {seconds:.0f} s", seconds=ASK_SECONDS)
    except (ValueError, IndexError, TypeError):
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        what = last[0] if last else _("what it prints is no answer of a Python")
    raise Failure(
        Exit.TARGET,
        _(
            "--python {path}: not a Python interpreter that runs here: {error}",
            path=interpreter,
            error=what,
        ),
        _(NAME_ONE),
    )


def own_paths() -> list[str]:
    """Where the running interpreter imports from, but for the folder that it was started in.

    ``python -m`` puts that in front, and the installed script does not.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        here = ""
    paths = list(sys.path)
    if paths and paths[0] in ("", here) and here not in overlays():
        del paths[0]
    return [path for path in (path or here for path in paths) if path]


def overlays() -> list[str]:
    """The folders of PYTHONPATH, which an interpreter looks at before its own."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(folder) for folder in folders if folder]


def activated() -> list[tuple[str, Path]]:
    """Variable and interpreter of each environment that is activated and not our own."""
    found = []
    for variable in ENVIRONMENTS:
        root = os.environ.get(variable)
        if root and os.path.realpath(root) != os.path.realpath(sys.prefix):
            python = in_environment(absolute(Path(root)))
            if python is not None:
                found.append((variable, python))
    return found


def is_isolated() -> bool:
    """Whether glmpatch runs in an environment of its own, as uvx, uv tool and pipx make one."""
    prefix = Path(sys.prefix)
    return bool(OWN_FOLDERS & set(prefix.parts)) or any(
        (prefix / name).exists() for name in OWN_FILES
    )


def _of_script(path: Path) -> Path | None:
    """The interpreter that a script names; it is read and never run. None if it is no script.

    A file with python in its name is taken for an interpreter: pyenv's are shell scripts.

    Raises:
        Failure: a script of something else than Python.
    """
    try:
        lines = read_file(path, SCRIPT_LIMIT).decode(errors="replace").splitlines()
    except OSError:
        return None  # asked as an interpreter, it says what is wrong with it
    if not lines or not lines[0].startswith("#!") or "python" in path.name or "pypy" in path.name:
        return None
    words = lines[0][2:].split()
    name = Path(words[0]).name if words else ""
    if name == "env":
        import shutil

        name = next((word for word in words[1:] if not word.startswith("-")), "")
        found = shutil.which(name) if _is_python(name) else None
        if found:
            return Path(found)
    elif _is_python(name):
        return Path(words[0])
    # Where the path is too long for a first line, or is made up when the script runs.
    match = re.match(r"'''exec' (.+) \"\$0\" \"\$@\"", lines[1]) if len(lines) > 1 else None
    if match is not None and "$(" not in match[1]:
        try:
            return Path(shlex.split(match[1])[0])
        except ValueError:  # no shell would take it either
            match = None
    if match is not None:
        return Path(os.path.realpath(path)).parent / "python"
    raise Failure(
        Exit.TARGET,
        _(
            "--python {path}: a script, and no Python stands in its first line: {line!r}",
            path=path,
            line=lines[0][:80],
        ),
        _(NAME_ONE),
    )


def _is_python(name: str) -> bool:
    return name.startswith(("python", "pypy"))


def _is_file(path: Path) -> bool:
    """Whether it is a file, as far as this user may see."""
    try:
        return path.is_file()
    except OSError:
        return False
