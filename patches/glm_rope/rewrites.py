"""The defect of ``glm.py`` up to vLLM 0.8.4: each layer halves the rope that all of them share."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet, fill

HALVING = Snippet("ROPE.rotary_dim = WIDTH", "setattr(ROPE, 'rotary_dim', WIDTH)")
BOTH = Snippet("ROPE.rotary_dim, KEPT = WIDTH, VALUE", "KEPT, ROPE.rotary_dim = VALUE, WIDTH")
STYLE = Snippet("ROPE.is_neox_style", "'is_neox_style'")


def keep_rope_width(module: cst.Module) -> list[Place]:
    """``rope.rotary_dim //= 2`` → nothing: llama, which it is built on, has set the right width."""
    model = tree.find_class(module, "GlmForCausalLM")
    halvings = [node for node in tree.walk(model) if is_halving(node)]
    wanted: dict[cst.CSTNode, cst.CSTNode | None] = dict.fromkeys(halvings)
    for both in BOTH.find(model):
        if any(map(is_width, tree.walk(both["WIDTH"]))):
            wanted[both.node] = fill("KEPT = VALUE", both)
    if wanted:
        return [Place(next(iter(wanted)), broken=True, edits=wanted)]
    styles = [found.node for found in STYLE.find(model)]
    if not styles:
        raise Unrecognized(_("the style of the rope is not set"), model)
    return [Place(styles[-1])]


def is_halving(node: cst.CSTNode) -> bool:
    """Whether a statement makes the width of a rope from the width that it has."""
    if isinstance(node, cst.AugAssign):
        return isinstance(node.target, cst.Attribute) and is_width(node.target)
    made = HALVING.match(node.value if isinstance(node, cst.Expr) else node)
    if isinstance(node, cst.Call):
        return False  # the statement that it makes is what goes
    return made is not None and any(map(is_width, tree.walk(made["WIDTH"])))


def is_width(node: cst.CSTNode) -> bool:
    return (tree.dotted(node) or "").rpartition(".")[2] == "rotary_dim"
