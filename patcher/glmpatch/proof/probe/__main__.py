"""Entry of the probe: ``python __main__.py REQUEST.json`` (written by ``driver.py``).

Run as a file, since vLLM's interpreter knows nothing of glmpatch: the folder becomes the package
``glmpatch_probe`` without anything being added to the import path.
"""

import importlib
import importlib.util
import os
import sys
from typing import Any


def load(part: str) -> Any:
    """One part of the probe, as a module of that package."""
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "glmpatch_probe", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["glmpatch_probe"] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"glmpatch_probe.{part}")


def main(part: str, argument: str) -> None:
    """Run one part of the probe: ``run`` measures, ``engine`` is one engine in its process."""
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == folder:
        del sys.path[0]
    load(part).main(argument)


if __name__ == "__main__":
    main(*sys.argv[1:3])
