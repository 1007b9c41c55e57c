"""Messages, as glmpatch has them: its own ``language.py``, found by its path.

The interpreter that owns vLLM knows nothing of glmpatch, or has another release of it. The probe
says everything in English, and hands on what ``driver.py`` needs to say it otherwise.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or __name__.startswith("glmpatch."):
    from glmpatch.language import N_, Message, joined, packed, unpacked
else:
    _place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "language.py")
    _spec = importlib.util.spec_from_file_location("glmpatch_language", os.path.normpath(_place))
    _own = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_own)
    N_, Message, joined = _own.N_, _own.Message, _own.joined
    packed, unpacked = _own.packed, _own.unpacked

__all__ = ["N_", "Message", "joined", "packed", "unpacked"]
