"""The plugins that a vLLM would load, read from the metadata beside it and never imported.

A plugin may register a model class of its own, or a platform, in the place of vLLM's: a repaired
file is then not the one that is served.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glmpatch.language import N_, _
from glmpatch.site.folder import read_file
from glmpatch.site.target import Target

GROUPS = ("vllm.general_plugins", "vllm.platform_plugins")
MAY = {
    "vllm.general_plugins": N_("may register model classes in the place of vLLM's"),
    "vllm.platform_plugins": N_("may bring a platform with operators and model files of its own"),
}
KNOWN = {
    "vllm-ascend": N_(
        "its own partial rope is wrong for GLM-4 (vllm-ascend 686, mended by its 2847)"
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Plugin:
    """One entry point of a distribution."""

    distribution: str
    version: str
    group: str
    name: str

    @property
    def told(self) -> str:
        """What it may do to a repair."""
        may, known = MAY[self.group], KNOWN.get(self.distribution.replace("_", "-").lower())
        return _("; ").join(_(text) for text in (may, known) if text)

    def to_dict(self) -> dict[str, str]:
        """What the command prints with ``--json``."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "group": self.group,
            "name": self.name,
        }


def find(target: Target) -> tuple[Plugin, ...]:
    """The plugins of the environment, in the order of their names."""
    chosen = os.environ.get("VLLM_PLUGINS")
    wanted = None if chosen is None else {name.strip() for name in chosen.split(",")}
    found = {
        (plugin.distribution, plugin.group, plugin.name): plugin
        for folder in dict.fromkeys((str(target.root), *target.paths))
        for plugin in _in(Path(folder), target.dist_info)
        if wanted is None or plugin.name in wanted
    }
    return tuple(found[key] for key in sorted(found))


def _in(folder: Path, own: Path | None) -> Iterator[Plugin]:
    """The plugins in one folder, but for vLLM's own."""
    for entry in folder.glob("*.dist-info/entry_points.txt"):
        if entry.parent == own:
            continue
        try:
            text = read_file(entry).decode(errors="replace")
        except OSError:
            continue
        if not any(group in text for group in GROUPS):
            continue
        name, _dash, version = entry.parent.name.removesuffix(".dist-info").partition("-")
        group = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                group = line.strip("[]")
            elif group in GROUPS and "=" in line and not line.startswith(("#", ";")):
                yield Plugin(name, version, group, line.partition("=")[0].strip())
