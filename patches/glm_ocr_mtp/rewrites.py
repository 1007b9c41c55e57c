"""The defect of ``glm_ocr_mtp.py`` in vLLM 0.26.0 to 0.29.0: the draft layer is not recognised."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Found, Snippet, fill

LAYER = Snippet("SPEC = get_spec_layer_idx_from_weight_name(CONFIG, NAME)")
STRIPPED = Snippet(
    "NAME = NAME.replace('model.language_model.', 'model.')",
    "NAME = NAME.replace('model.language_model.', 'model.', 1)",
    "NAME = NAME.replace('language_model.', '')",
    "NAME = NAME.replace('model.language_model.layers', 'model.layers')",
)
WRAPPED = Snippet(
    "NAME.startswith('model.language_model.')",
    "NAME.startswith('model.language_model')",
    "'model.language_model.' in NAME",
    "'language_model.' in NAME",
    "'language_model' in NAME",
)
STRIP = 'NAME = NAME.replace("model.language_model.", "model.", 1)'


def strip_wrapper(module: cst.Module) -> list[Place]:
    """``model.language_model.layers.16`` → ``model.layers.16`` before the layer is asked for."""
    load = tree.find_method(module, "GlmOcrMTP", "load_weights")
    asked = next(LAYER.find(load), None)
    if asked is None:
        raise Unrecognized(_("the number of the draft layer is not asked"), load)
    if not isinstance(asked["NAME"], cst.Name):
        raise Unrecognized(
            _("the number of the draft layer is not asked of the weight's own name"), asked.node
        )
    for loop in tree.find_all(load, cst.For):
        if asked.node not in set(tree.walk(loop.body)):
            continue
        before = [
            found.node
            for found in STRIPPED.find(loop.body)
            if found.name("NAME") == asked.name("NAME") and always(loop.body, found, asked)
        ]
        order = {node: number for number, node in enumerate(tree.walk(loop.body))}
        if before and order[before[0]] < order[asked.node]:
            return [Place(before[0])]
        line = cst.SimpleStatementLine([fill(STRIP, asked)])  # type: ignore[list-item]
        body = [line, *loop.body.body]
        return [Place(asked.node, True, {loop.body: loop.body.with_changes(body=body)})]
    raise Unrecognized(_("no loop over the weights"), load)


def always(body: cst.CSTNode, found: Found, asked: Found) -> bool:
    """Whether the wrapper is taken from each name that has one and is asked for."""
    wrapped = {each.body for each in tree.find_all(body, cst.If) if WRAPPED.match(each.test)}
    for suite in tree.find_all(body, cst.BaseSuite):  # type: ignore[type-abstract]
        inside = set(tree.walk(suite))
        if found.node in inside and asked.node not in inside and suite not in wrapped:
            return False
    return True
