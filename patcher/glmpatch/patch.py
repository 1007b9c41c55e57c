"""The vocabulary: what a patch says of itself, its rewrites, and the states of both.

Nothing here reads a source or a disk. A patch is data; the functions that look for its defects are
in ``rewrites.py`` beside it and are imported only where a source has to be read.

Most classes have no ``__eq__`` and ``__repr__`` of their own: making those at every start took a
third of the time of a command that has nothing to do.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glmpatch.language import N_
from glmpatch.versions import covers

if TYPE_CHECKING:
    import libcst as cst

Files = str | Mapping[str, str]
"""A path below the folder that holds the package ``vllm``; where a file has moved, a PEP 440
specifier for each path."""


class RewriteState(str, enum.Enum):
    """What the code is, as far as one rewrite is concerned; ``_(value)`` adds what it means."""

    BROKEN = N_("broken")
    FIXED = N_("fixed")
    UNRECOGNIZED = N_("unrecognized")


class PatchState(str, enum.Enum):
    """What a patch means for one installed vLLM; ``_(value)`` adds what it means."""

    NEEDED = N_("needed")
    """Known: mended, the whole file is the right one of this release."""
    APPLIED = N_("applied")
    """Ours, by its receipt."""
    FIXED = N_("fixed")
    """Known to be right, or proven here."""
    UNPROVEN = N_("unproven")
    """Recognised, but the file differs from every known one elsewhere: numbers must judge."""
    DRIFTED = N_("drifted")
    """A place is not recognised, or the file is no Python."""
    NOT_APPLICABLE = N_("not-applicable")


class Unrecognized(Exception):
    """Raised by a rewrite where it does not find its place."""

    def __init__(self, reason: str, node: cst.CSTNode | None = None) -> None:
        super().__init__(reason)
        self.reason, self.node = reason, node


@dataclass(frozen=True)
class Finding:
    """What one rewrite says of a source. ``line`` counts from 1; None where there is no place."""

    rewrite: str
    state: RewriteState
    line: int | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Place:
    """One place in the source that a rewrite accounts for.

    ``node`` is an expression or statement that marks the place. ``edits`` maps nodes of the module
    to what stands there afterwards; None removes a statement's line and no other.
    """

    node: cst.CSTNode
    broken: bool = False
    edits: Mapping[cst.CSTNode, cst.CSTNode | None] = field(default_factory=dict)


Find = Callable[["cst.Module"], Sequence[Place]]
"""Finds the places of one defect in a module, or raises Unrecognized. It may be generous: what its
result is worth is judged afterwards, on the whole file."""


@dataclass(frozen=True, eq=False, repr=False)
class Rewrite:
    """One defect of a patch.

    The function that finds it is named as its id, with underscores, in the ``rewrites.py`` of the
    patch. ``places`` is how many it accounts for, 0 where that differs from release to release.
    ``versions`` narrows the releases that have the defect, where they are not all of the patch's.
    """

    id: str
    title: str
    places: int = 1
    versions: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Numbers:
    """The proof of a model file: its numbers against Transformers' own. It travels as JSON."""

    architecture: str
    """Name of the model class, in Transformers and in vLLM."""
    config_class: str
    """Configuration class in Transformers."""
    transformers: str
    """Oldest release of Transformers that has it."""
    precisions: tuple[str, ...]
    """Precisions in which the model's numbers mean something."""
    config: Mapping[str, Any]
    """Arguments of the configuration class for the small checkpoint."""
    prompts: tuple[int, ...] = (1, 5, 17, 41, 64, 158)
    """Lengths of the prompts, in tokens; together they hold the small checkpoint's vocabulary."""
    seed: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    """Precisions in which no proof is possible, and why."""
    wrong: Mapping[str, float] = field(default_factory=dict)
    """Way and precision -> how many times its limit the nearest wrong file of the tests is away,
    as docs/proof.md has it."""

    kind = "numbers"


@dataclass(frozen=True, eq=False, repr=False)
class Answers:
    """The proof of what shows in no number: questions to vLLM's code, with their right answers."""

    asker: str
    """Module of ``proof/probe/askers`` that puts a question to the file and gives the answer."""
    about: str
    """Who answers, in words: ``vLLM's configuration``."""
    questions: str
    """Module below ``glmpatch.patches`` whose ``QUESTIONS`` are asked: ``name.questions``."""
    asks: tuple[str, ...]
    """Definitions that the questions judge: names as ``Class.method``, with ``*`` for any part of
    one. Right answers say nothing of the others, which must be those of a known file; nor of what
    runs where a definition stands, such as ``imports`` and what calls something, which must be that
    of a file of some release."""
    config_class: str = ""
    """Configuration class in Transformers that the questions need; none, if empty."""
    transformers: str = "0"
    """Oldest release of Transformers that the questions need."""

    kind = "answers"


Proof = Numbers | Answers


@dataclass(frozen=True, eq=False, repr=False)
class Neighbour:
    """Another file of vLLM that a patch counts on and leaves alone: it must be as released."""

    file: Files


@dataclass(frozen=True, eq=False, repr=False)
class Patch:
    """One repair of one file of vLLM, with its reasons."""

    id: str
    title: str
    symptoms: tuple[str, ...]
    """The words of the error, or what one sees where there is none."""
    why: str
    how: str
    upstream: str
    removal: str
    versions: str
    """PEP 440 specifier of the vLLM releases that the patch is for."""
    file: Files
    """The file, relative to the folder that holds the package ``vllm``."""
    rewrites: tuple[Rewrite, ...]
    proof: Proof
    neighbours: tuple[Neighbour, ...] = ()
    within: tuple[str, ...] = ()
    """Top-level names that the rewrites look at, of a file too large to be parsed whole."""
    advised: bool = True
    """False for one that refuses what worked for somebody: shown, and applied only by name."""
    caution: str = ""
    """Whom the patch would stop, where it is not advised."""
    afterwards: tuple[str, ...] = ()
    """What a user is told once it has been applied."""

    @property
    def name(self) -> str:
        """Of its folder below ``patches/``."""
        return self.id.replace("-", "_")

    def covers(self, version: str) -> bool:
        """Whether ``versions`` holds for a version; its local and post parts do not matter."""
        return covers(self.versions, version)

    def path(self, version: str | None = None) -> str:
        """The file in that release; in the newest of the patch's, where the release is unknown."""
        return path_in(self.file, version)

    def beside(self, version: str | None = None) -> tuple[str, ...]:
        """The neighbours' files in that release."""
        return tuple(path_in(each.file, version) for each in self.neighbours)

    def rewrites_in(self, version: str | None = None) -> tuple[Rewrite, ...]:
        """The rewrites for that release; all, where the release is unknown or not covered."""
        if version is None or not self.covers(version):
            return self.rewrites
        return tuple(r for r in self.rewrites if not r.versions or covers(r.versions, version))

    def find(self, rewrite: Rewrite) -> Find:
        """The function that finds a rewrite's places; imports LibCST."""
        module = importlib.import_module(f"glmpatch.patches.{self.name}.rewrites")
        found: Find = getattr(module, rewrite.id.replace("-", "_"))
        return found


def path_in(files: Files, version: str | None) -> str:
    """The path that a file has in a release; the last one where none is named for it."""
    if isinstance(files, str):
        return files
    if version is not None:
        for specifier, path in files.items():
            if covers(specifier, version):
                return path
    return list(files.values())[-1]


def paths_of(files: Files) -> tuple[str, ...]:
    """All paths that a file has had."""
    return (files,) if isinstance(files, str) else tuple(files.values())
