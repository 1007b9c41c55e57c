"""What a proof is asked to measure; this module loads no proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from glmpatch.language import N_

if TYPE_CHECKING:
    from glmpatch.proof.driver import Candidate, Verification

Prove = Callable[[Sequence["Candidate"]], "Verification"]
AS_IT_STANDS = N_("as it stands")
INSTALLED = N_("installed")
PLANNED = N_("planned")
