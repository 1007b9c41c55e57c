"""Forms of ``glm4.py`` that glm4-residual meets."""

from __future__ import annotations

from patches.glm4_residual import PATCH
from tests.support.cases import Cases

UNPACKED = "hidden_states = self.post_attention_layernorm(hidden_states, residual)"

CASES = Cases(
    PATCH,
    release="0.8.4",
    mended={
        "a print": (
            (
                (
                    "        # Fully Connected\n",
                    "        print(residual)\n        # Fully Connected\n",
                ),
            ),
            (
                (
                    "        # Fully Connected\n",
                    "        print(residual)\n        # Fully Connected\n",
                ),
            ),
        ),
    },
    fixed={
        "old line kept as a comment": (
            ("        # Fully Connected\n", f"        # {UNPACKED}\n        # Fully Connected\n"),
        ),
    },
    drifted={
        "residual scaled": (
            ((UNPACKED, f"residual = residual * 2\n        {UNPACKED}"),),
            "is not given the residual as it came",
        ),
    },
)
