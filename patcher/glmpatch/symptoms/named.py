"""Which models a text names, and where: by their files in a traceback, or by their own names."""

from __future__ import annotations

import re
from bisect import bisect_left
from enum import Enum, auto
from functools import cached_property

NEAR = 3000
"""Characters before and after an error in which its traceback names the model's file."""
FAMILIES = "(?:deepseek|qwen|mistral|mixtral|gemma|kimi|ernie|minimax|internvl|hunyuan)"
"""Models whose files are known by their names, where a text leaves out the folder."""
OTHERS = re.compile(rf"{FAMILIES}|llama(?!\.py)|gpt-oss|granite|phi-")
"""Models that are known by the name that a server was given."""
NAMED = re.compile(
    r"\bmodel_executor[/\\.]models[/\\.](?P<path>\w+)"
    rf"|\b(?P<file>(?:{FAMILIES}|chatglm|glm)\w*)\.py"
    rf"|\b(?P<module>{FAMILIES}\w*_(?:mtp|moe|vl|v\d)\w*)"
    r"|\b(?P<rope>rotary_embedding)\b"
    r"|\b(?P<glm>glm-?\d)"
    r"|\b(?:serve |model(?:_tag)?[ =:]+)(?P<model>[\w./-]+)"
)
BORROWED = re.compile(r"(llama|utils|interfaces\w*|registry|adapters|vision|transformers\w*)$")
"""Files of that folder that a GLM's own traceback goes through as well."""


class Kind(Enum):
    """What is named: a GLM or another model, by its file or by its name, or the rope's file."""

    GLM_FILE = auto()
    OTHER_FILE = auto()
    GLM = auto()
    OTHER = auto()
    ROPE = auto()
    NEITHER = auto()


class Named:
    """The models that a text names; it is read once, however many errors stand in it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def is_near(self, kind: Kind, place: re.Match[str]) -> bool:
        """Whether something of a kind is named around a place."""
        starts = self._starts.get(kind, [])
        first = bisect_left(starts, place.start() - NEAR)
        return first < len(starts) and starts[first] < place.end() + NEAR

    @cached_property
    def _starts(self) -> dict[Kind, list[int]]:
        """Where each kind is named, in order."""
        starts: dict[Kind, list[int]] = {}
        for found in NAMED.finditer(self.text):
            starts.setdefault(_kind(found), []).append(found.start())
        return starts


def _kind(found: re.Match[str]) -> Kind:
    group = str(found.lastgroup)
    name = found[group]
    if group == "rope":
        return Kind.ROPE
    is_glm = "glm" in name
    if group in ("glm", "model"):
        return Kind.GLM if is_glm else Kind.OTHER if OTHERS.search(name) else Kind.NEITHER
    return Kind.GLM_FILE if is_glm else Kind.NEITHER if BORROWED.match(name) else Kind.OTHER_FILE
