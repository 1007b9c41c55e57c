"""Which models a text names, and where: by their files in a traceback, or by their own names."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cached_property

NEAR = 3000
"""Characters before and after an error in which its traceback names the model's file."""
FAMILIES = "(?:deepseek|qwen|mistral|mixtral|gemma|kimi|ernie|minimax|internvl|hunyuan)"
"""Models whose files are known by their names, where a text leaves out the folder."""
OTHERS = re.compile(f"{FAMILIES}|llama|gpt-oss|granite|phi-")
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


class Named:
    """The models that a text names; it is read once, however many errors stand in it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def is_near(self, kind: str, place: re.Match[str]) -> bool:
        """Whether something of a kind is named around a place."""
        starts = self._starts.get(kind, [])
        first = bisect_left(starts, place.start() - NEAR)
        return first < len(starts) and starts[first] < place.end() + NEAR

    @cached_property
    def _starts(self) -> dict[str, list[int]]:
        """Where each kind is named, in order."""
        starts: dict[str, list[int]] = {}
        for found in NAMED.finditer(self.text):
            starts.setdefault(_kind(found), []).append(found.start())
        return starts


def _kind(found: re.Match[str]) -> str:
    """Whether it is a GLM or another model, and whether its file or its name is there."""
    group = str(found.lastgroup)
    name = found[group]
    if group == "rope":
        return "rope"
    if group in ("glm", "model"):
        return "glm name" if "glm" in name else "other name" if OTHERS.search(name) else ""
    if "glm" in name:
        return "glm file"
    return "" if BORROWED.match(name) else "other file"
