"""The registry's wheel of vLLM 0.8.4, fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.support import releases
from tests.support.cache import cache, once


@pytest.fixture(scope="session")
def released_wheel() -> Path:
    """The wheel as released, 294 MB; never to be changed."""
    package = releases.index()["0.8.4"]
    path = cache() / "wheels" / package.filename
    path.parent.mkdir(exist_ok=True)
    with once(path) as missing:
        if missing:
            with (
                requests.get(package.url, stream=True, timeout=120) as answer,
                path.open("wb") as f,
            ):
                answer.raise_for_status()
                for block in answer.iter_content(1 << 20):
                    f.write(block)
    return path
