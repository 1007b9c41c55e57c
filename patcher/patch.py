"""The vocabulary: Patch, Rewrite, Place and their states; and how the patches are found."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patcher.errors import Exit, Failure

if TYPE_CHECKING:
    import libcst as cst


class RewriteState(str, enum.Enum):
    """What the code is, as far as one rewrite is concerned."""

    BROKEN = "broken"
    FIXED = "fixed"
    UNRECOGNIZED = "unrecognized"


class PatchState(str, enum.Enum):
    """What a patch means for one installed vLLM."""

    NEEDED = "needed"
    APPLIED = "applied"
    FIXED = "fixed"
    DRIFTED = "drifted"
    NOT_APPLICABLE = "not-applicable"


class Unrecognized(Exception):
    """Raised by a rewrite where the code has a form that it does not know."""

    def __init__(self, reason: str, node: cst.CSTNode | None = None) -> None:
        super().__init__(reason)
        self.reason, self.node = reason, node


@dataclass(frozen=True)
class Place:
    """One place in the source that a rewrite accounts for.

    ``node`` is an expression or statement that marks the place. ``edits`` maps nodes of the module
    to what stands there afterwards; None removes a statement's line and no other.
    """

    node: cst.CSTNode
    broken: bool = False
    edits: Mapping[cst.CSTNode, cst.CSTNode | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Rewrite:
    """One defect of a patch: recognises it by structure and mends it.

    ``find`` returns the places in a module, exactly ``places`` of them, or raises Unrecognized.
    """

    id: str
    title: str
    places: int
    find: Callable[[cst.Module], Sequence[Place]]


@dataclass(frozen=True)
class Proof:
    """What the probe needs to know to prove a patch by numbers; it travels as JSON."""

    architecture: str
    """Name of the model class, in Transformers and in vLLM."""
    module: str
    """vLLM's module that holds it."""
    config_class: str
    """Configuration class in Transformers."""
    transformers: str
    """Oldest release of Transformers that has it."""
    precisions: tuple[str, ...]
    """Precisions in which the model's numbers mean something."""
    config: Mapping[str, Any]
    """Arguments of the configuration class for the small checkpoint."""
    prompts: tuple[int, ...] = (1, 5, 17, 64)
    """Lengths of the prompts, in tokens."""
    seed: int = 0


@dataclass(frozen=True)
class Patch:
    """One repair of one file of vLLM, with its reasons."""

    id: str
    title: str
    why: str
    how: str
    upstream: str
    removal: str
    versions: str
    """PEP 440 specifier of the vLLM releases that the patch was tested on."""
    file: str
    """The file, relative to the folder that holds the package ``vllm``."""
    rewrites: tuple[Rewrite, ...]
    known: Mapping[str, PatchState]
    """sha256 of whole files whose state is known (needed or fixed)."""
    proof: Proof

    def covers(self, version: str) -> bool:
        """Whether ``versions`` holds for a version; its local and post parts do not matter."""
        if self.versions == f"=={version}":
            return True  # the usual case, without what it costs to import packaging
        from packaging.specifiers import SpecifierSet
        from packaging.version import InvalidVersion, Version

        try:
            release = Version(Version(version).public.split(".post")[0])
        except InvalidVersion:
            return False
        return SpecifierSet(self.versions).contains(release, prereleases=True)


def load_patches() -> tuple[Patch, ...]:
    """All patches, in the order of their names."""
    ours = Path(__file__).resolve().parent.parent / "patches" / "__init__.py"
    spec = importlib.util.find_spec("patches")  # imports nothing yet: it may be anybody's code
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != ours:
        found = "no file" if spec is None or spec.origin is None else spec.origin
        raise Failure(
            Exit.INTERNAL,
            f"another package named 'patches' hides glmpatch's own: {found} (expected {ours})",
            "unset PYTHONPATH, or run glmpatch isolated: "
            "uvx glmpatch --help, or pipx run glmpatch --help",
        )
    import patches

    names = sorted(info.name for info in pkgutil.iter_modules(patches.__path__))
    return tuple(_load(name) for name in names)


def _load(name: str) -> Patch:
    patch = importlib.import_module(f"patches.{name}").PATCH
    if not isinstance(patch, Patch) or patch.id != name.replace("_", "-"):
        raise Failure(
            Exit.INTERNAL,
            f"patches/{name}.py must define PATCH, a Patch with the id {name.replace('_', '-')!r}",
        )
    return patch


def select_patches(names: Sequence[str]) -> tuple[Patch, ...]:
    """The patches with these names, or all of them; a wrong name is wrong usage."""
    every = load_patches()
    by_id = {patch.id: patch for patch in every}
    for name in names:
        if name not in by_id:
            import difflib

            near = difflib.get_close_matches(name, by_id, n=1)
            hint = f"did you mean {near[0]}?" if near else "the patches are: " + ", ".join(by_id)
            raise Failure(Exit.USAGE, f"there is no patch named {name!r}", hint)
    return tuple(by_id[name] for name in dict.fromkeys(names)) or every


def lazy(name: str) -> Any:
    """The module ``name``, imported at the first use of an attribute.

    LibCST takes three times as long to import as all the rest, and most commands parse nothing.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
