"""Whether a change could be written, asked before anything long is begun."""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch.site.examination import Examination
from glmpatch.site.target import Kind, Target
from glmpatch.words import Words


def require_writable(
    target: Target, found: Sequence[Examination], words: Words, allow_editable: bool
) -> None:
    """Fail now, and not after a proof of half a minute, where nothing can be written."""
    from glmpatch.site import install

    if target.kind is Kind.EDITABLE and not allow_editable:
        raise words.editable()
    for each in found:
        install.check_writable(target, each.path)
