"""The defect of the reasoning parser up to vLLM 0.11.0: any ``</think>`` ends the thinking."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet

PARSER = "Glm4MoeModelReasoningParser"
ANYWHERE = Snippet("self.think_end_token_id in IDS", "IDS.count(self.think_end_token_id) > 0")

LAST = """\
assistant_token_id = self.vocab.get("<|assistant|>")
for token_id in IDS[::-1]:
    if token_id == self.think_end_token_id:
        return True
    if token_id == assistant_token_id:
        return False
return False
"""


def last_answer_only(module: cst.Module) -> list[Place]:
    """``return </think> in ids`` → whether it stands after the last ``<|assistant|>``."""
    method = tree.find_method(module, PARSER, "is_reasoning_end")
    returned = [each for each in tree.find_all(method, cst.Return) if each.value is not None]
    if not returned:
        raise Unrecognized(_("is_reasoning_end returns nothing"), method)
    for line in method.body.body:
        if not isinstance(line, cst.SimpleStatementLine) or line.body[-1] is not returned[-1]:
            continue
        found = next(ANYWHERE.find(returned[-1]), None)
        if found is None or found.node is not returned[-1].value or len(returned) > 1:
            break
        first, *others = cst.parse_module(LAST.replace("IDS", found.name("IDS"))).body
        *between, last = others
        first = first.with_changes(leading_lines=line.leading_lines)
        last = last.with_changes(trailing_whitespace=line.trailing_whitespace)
        body = [each for each in method.body.body if each is not line]
        block = method.body.with_changes(body=[*body, first, *between, last])
        return [Place(returned[-1], broken=True, edits={method.body: block})]
    return [Place(returned[-1])]
