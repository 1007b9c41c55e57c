"""Whether the Transformers beside a vLLM knows the models of the patches."""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch.language import _
from glmpatch.patch import PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.target import Target
from glmpatch.versions import covers
from glmpatch.words import together


def too_old(target: Target, found: Sequence[Examination]) -> tuple[str, str] | None:
    """A warning and its hint, where this vLLM cannot load a model at all, patched or not.

    The oldest Transformers that vLLM 0.8.4 accepts have no GLM-4-0414.
    """
    from glmpatch.site import surroundings

    there = target.transformers
    lacking = [
        each.patch
        for each in found
        if there is not None
        and each.state is not PatchState.NOT_APPLICABLE
        and each.patch.proof.config_class
        and covers(f"<{each.patch.proof.transformers}", there)
    ]
    if not lacking:
        return None
    # Whoever has the one that the newest of the models needs has those of the others.
    oldest = max((patch.proof.transformers for patch in lacking), key=_release)
    return (
        _(
            "transformers {version} has no {classes}: this vLLM cannot load the models of "
            "{patches}, patched or not",
            version=there,
            classes=together(dict.fromkeys(patch.proof.config_class for patch in lacking)),
            patches=together(patch.id for patch in lacking),
        ),
        surroundings.install(target, f"transformers=={oldest}"),
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
