"""One vLLM on disk: version, package folder, dist-info, interpreter. Found without importing it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _
from glmpatch.site import interpreter
from glmpatch.site.scan import (
    Found,
    Kind,
    describe,
    distribution_version,
    path_files,
    scan,
    version,
)

__all__ = ["FOLDER", "Kind", "Target", "find_target"]

FOLDER = ".glmpatch"
"""Holds receipts and originals where there is no metadata folder to hold them."""
PATH_TAKES = N_("--path takes the folder that holds the package vllm, such as a site-packages")
NOT_IN_ISOLATION = N_(
    "name the environment that has vLLM; if it comes from a user's own site-packages, name that "
    "folder with --path"
)


@dataclass(frozen=True)
class Target:
    """An installed vLLM.

    ``root`` holds the package ``vllm`` and all files of a patch are named from there. ``python``
    is None where no interpreter is known.
    """

    root: Path
    version: str | None
    kind: Kind
    dist_info: Path | None
    python: Path | None
    paths: tuple[str, ...]
    transformers: str | None
    torch: str | None
    chosen_by: str = ""
    """The variable of the environment that decided, where no option did: VIRTUAL_ENV."""

    @property
    def package(self) -> Path:
        return self.root / "vllm"

    @property
    def records(self) -> Path:
        """The folder that keeps receipts and originals.

        Only a wheel's dist-info lives and dies with the package's files; an editable install's is
        made anew while the checkout stays patched.
        """
        if self.dist_info is not None and self.kind is Kind.WHEEL:
            return self.dist_info
        return self.root / FOLDER

    def to_dict(self) -> dict[str, str | None]:
        """What the command prints with ``--json``."""
        return {
            "version": self.version,
            "path": str(self.package),
            "python": str(self.python) if self.python else None,
            "kind": self.kind.value,
            "torch": self.torch,
            "transformers": self.transformers,
        }


def find_target(python: str | None = None, path: str | None = None) -> Target:
    """The vLLM that the options name; without options that of the running interpreter.

    Args:
        python: an interpreter, the root of an environment, or a script such as bin/vllm.
        path: a folder that holds the package ``vllm``.

    Raises:
        Failure: not found, more than one, or in folders that this user may not read.
    """
    try:
        return _find(python, path)
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            _(
                "cannot look for vLLM in {path}: {error}",
                path=error.filename,
                error=error.strerror,
            ),
            _("run as a user who may read the environment of vLLM"),
        ) from error


def _find(python: str | None, path: str | None) -> Target:
    by = ""
    if path is not None:
        executable, paths, found = _in_folder(interpreter.absolute(Path(path)), python)
    elif python is not None:
        executable, paths, found = _in_environment(
            *interpreter.ask(interpreter.named(Path(python)))
        )
    else:
        executable, paths, found, by = _of_ourselves()
    if not found:
        hint = _how_to_name_one() if python is None else _(NOT_IN_ISOLATION)
        message = _("no vLLM in the environment of {python}", python=executable)
        raise Failure(Exit.TARGET, message, hint)
    if path is None and str(found[0].root) in interpreter.overlays() and len(found) > 1:
        by, found = "PYTHONPATH", found[:1]
    if len(found) > 1:
        listed = "".join(f"\n  {each.root / 'vllm'} ({describe(each)})" for each in found)
        raise Failure(
            Exit.TARGET,
            _("more than one vLLM, of which a server imports the first:{listed}", listed=listed),
            _(
                "name the folder that holds the one that you mean: {option}",
                option="--path " + shlex.quote(str(found[0].root)),
            ),
        )
    (one,) = found
    return Target(
        root=one.root,
        version=version(one),
        kind=one.kind,
        dist_info=one.dist_info,
        python=executable,
        paths=tuple(paths),
        transformers=distribution_version([str(one.root), *paths], "transformers"),
        torch=distribution_version([str(one.root), *paths], "torch"),
        chosen_by=by,
    )


def _in_folder(root: Path, python: str | None) -> tuple[Path | None, list[str], list[Found]]:
    """The vLLM of --path; --python names the interpreter that starts it."""
    found = scan([str(root)]) or scan(path_files(root) if root.is_dir() else ())
    if not found:
        raise _none_in(root)
    if python is None:
        return interpreter.beside(root), [str(root)], found
    executable, paths = interpreter.ask(interpreter.named(Path(python)))
    return executable, [str(root), *paths], found


def _in_environment(executable: Path, paths: list[str]) -> tuple[Path, list[str], list[Found]]:
    """What that interpreter would import here; PYTHONPATH counts for it as for a server."""
    paths = [*interpreter.overlays(), *paths]
    return executable, paths, scan(paths)


def _of_ourselves() -> tuple[Path, list[str], list[Found], str]:
    """The vLLM of the running interpreter; or, where it is ours alone, of what is activated."""
    paths = interpreter.own_paths()
    if interpreter.is_isolated() and not scan(
        each for each in paths if each not in interpreter.overlays()
    ):
        for variable, python in interpreter.activated():
            try:
                asked = interpreter.ask(python)
            except Failure:
                continue  # nobody named it
            executable, others, found = _in_environment(*asked)
            if found:
                return executable, others, found, variable
    return Path(sys.executable), paths, scan(paths), ""


def _none_in(root: Path) -> Failure:
    if not root.is_dir():
        if root.exists():
            message = _("--path {folder}: is not a folder", folder=root)
        else:
            message = _("--path {folder}: there is no such folder", folder=root)
        return Failure(Exit.TARGET, message, _(PATH_TAKES))
    if root.name == "vllm" and (root / "__init__.py").is_file():
        message = _(
            "--path {folder}: this is the package vllm itself, not the folder that holds it",
            folder=root,
        )
        return Failure(Exit.TARGET, message, f"--path {shlex.quote(str(root.parent))}")
    if (root / "vllm" / "__init__.py").is_file():
        message = _(
            "--path {folder}: the package vllm in it is empty, but for its __init__.py",
            folder=root,
        )
    elif (root / "vllm").is_dir():
        message = _(
            "--path {folder}: no vllm/__init__.py in it, only what an uninstall left of it",
            folder=root,
        )
    else:
        message = _("--path {folder}: no vllm/__init__.py in it", folder=root)
    return Failure(Exit.TARGET, message, _(PATH_TAKES))


def _how_to_name_one() -> str:
    if interpreter.is_isolated():
        return _(
            "glmpatch runs in an environment of its own; name the interpreter or environment that "
            'has vLLM, such as --python /opt/venv or --python "$(command -v python3)"'
        )
    return _(
        "name the interpreter or environment that has vLLM, such as --python /opt/venv or "
        '--python "$(command -v python3)"'
    )
