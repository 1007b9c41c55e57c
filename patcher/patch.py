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
from patcher.versions import covers

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
class Neighbour:
    """Another file of vLLM that a patch counts on and leaves alone.

    ``check`` raises Unrecognized where that file is not what the patch counts on.
    """

    file: str
    check: Callable[[cst.Module], None]


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
    refused: Mapping[str, str] = field(default_factory=dict)
    """Precisions in which no proof is possible, and why."""
    wrong: Mapping[str, float] = field(default_factory=dict)
    """Way and precision -> distance of the nearest wrong file that the limit tells from the right
    one, measured on a CPU when the limit was chosen (natural logarithm)."""


@dataclass(frozen=True)
class Case:
    """One question to vLLM's configuration: which precision for this checkpoint and this wish?"""

    config_class: str
    """Configuration class in Transformers."""
    architecture: str
    module: str
    """vLLM's module that holds the architecture."""
    checkpoint: str
    """Precision that the checkpoint names."""
    dtype: str
    """What the user asks for."""
    answers: tuple[str, ...]
    """Right answers: precisions, or ``refused: `` and a word that the error must have in it."""


@dataclass(frozen=True)
class Behaviour:
    """The proof of a patch that shows in no number: what vLLM's configuration answers."""

    module: str
    """vLLM's module that holds ``ModelConfig``."""
    config_class: str
    transformers: str
    """Oldest release of Transformers that has ``config_class``."""
    cases: tuple[Case, ...]


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
    proof: Proof | Behaviour
    neighbours: tuple[Neighbour, ...] = ()
    """Without these as they must be, the defect may be there, but the repair is none."""
    within: tuple[str, ...] = ()
    """Top-level names that the rewrites look at, of a file too large to be parsed whole."""

    def covers(self, version: str) -> bool:
        """Whether ``versions`` holds for a version; its local and post parts do not matter."""
        return covers(self.versions, version)


def load_patches(warn: Callable[[str, str], None] | None = None) -> tuple[Patch, ...]:
    """All patches, in the order of their names.

    Args:
        warn: called with problem and hint for each module in ``patches`` that is no good, the
            others being loaded all the same. Without it the first such module is a Failure.
    """
    ours = Path(__file__).resolve().parent.parent / "patches" / "__init__.py"
    spec = importlib.util.find_spec("patches")  # imports nothing yet: it may be anybody's code
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != ours:
        found = "no file" if spec is None or spec.origin is None else spec.origin
        raise Failure(
            Exit.INTERNAL,
            f"another package named 'patches' hides glmpatch's own: {found} (expected {ours})",
            "unset PYTHONPATH, or run glmpatch isolated: python -I -m patcher",
        )
    import patches

    names = sorted(info.name for info in pkgutil.iter_modules(patches.__path__))
    loaded: dict[str, Patch] = {}
    for name in names:
        try:
            patch = _load(name, {each.file: each.id for each in loaded.values()})
        except Failure as failure:
            if warn is None:
                raise
            warn(failure.message, failure.hint)
        else:
            loaded[name] = patch
    return tuple(loaded.values())


def _load(name: str, taken: Mapping[str, str]) -> Patch:
    """The patch of one module. ``taken`` maps files to the patches that mend them already."""
    from patcher.sound import fault

    try:
        declared = getattr(importlib.import_module(f"patches.{name}"), "PATCH", None)
        problem = fault(declared, name)
    except (Exception, SystemExit) as error:
        declared, problem = None, f"cannot be imported: {type(error).__name__}: {error}"
    if isinstance(declared, Patch) and not problem:
        if declared.file not in taken:
            return declared
        # Each would undo what the other's receipt says; all defects of a file are one patch.
        problem = f"mends {declared.file}, as {taken[declared.file]} does"
    raise Failure(
        Exit.INTERNAL,
        f"patches/{name}.py {problem}; this patch is left out",
        "CONTRIBUTING.md tells what a patch has to declare",
    )


def select_patches(
    names: Sequence[str], warn: Callable[[str, str], None] | None = None
) -> tuple[Patch, ...]:
    """The patches with these names, or all of them; a wrong name is wrong usage."""
    every = load_patches(warn)
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
