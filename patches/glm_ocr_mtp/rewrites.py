"""The defect of ``glm_ocr_mtp.py`` in vLLM 0.26.0 to 0.29.0: the draft layer is not recognised."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet, fill

LAYER = Snippet("SPEC = get_spec_layer_idx_from_weight_name(CONFIG, NAME)")
STRIPPED = Snippet(
    "NAME = NAME.replace('model.language_model.', 'model.')",
    "NAME = NAME.replace('model.language_model.', 'model.', 1)",
    "NAME = NAME.replace('language_model.', '')",
    "NAME = NAME.replace('model.language_model.layers', 'model.layers')",
)
STRIP = 'NAME = NAME.replace("model.language_model.", "model.", 1)'


def strip_wrapper(module: cst.Module) -> list[Place]:
    """``model.language_model.layers.16`` → ``model.layers.16`` before the layer is asked for."""
    load = tree.find_method(module, "GlmOcrMTP", "load_weights")
    asked = next(LAYER.find(load), None)
    if asked is None:
        raise Unrecognized(_("the number of the draft layer is not asked"), load)
    for loop in tree.find_all(load, cst.For):
        if asked.node not in set(tree.walk(loop.body)):
            continue
        before = [n for n in tree.walk(loop.body) if STRIPPED.match(n)]
        order = {node: number for number, node in enumerate(tree.walk(loop.body))}
        if before and order[before[0]] < order[asked.node]:
            return [Place(before[0])]
        line = cst.SimpleStatementLine([fill(STRIP, asked)])  # type: ignore[list-item]
        body = [line, *loop.body.body]
        return [Place(asked.node, True, {loop.body: loop.body.with_changes(body=body)})]
    raise Unrecognized(_("no loop over the weights"), load)
