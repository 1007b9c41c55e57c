# ruff: noqa: E501 - a case is a line of a table
"""glm-rope on a toy of its file: what it mends, what it leaves alone, and what it does not know."""

from __future__ import annotations

import textwrap

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm_rope.patch import PATCH
from glmpatch.source.plan import make_plan

HEAD = """\
from vllm.model_executor.models.llama import LlamaForCausalLM

from .utils import PPMissingLayer


class GlmForCausalLM(LlamaForCausalLM):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
"""
HALVING = "layer.self_attn.rotary_emb.rotary_dim //= 2\n"
STYLE = "layer.self_attn.rotary_emb.is_neox_style = False\n"
LOOP = "for layer in self.model.layers:\n    if not isinstance(layer, PPMissingLayer):\n"


def model(inside: str, loop: str = LOOP, by: int = 8) -> str:
    return HEAD + textwrap.indent(loop + textwrap.indent(inside, " " * by), " " * 8)


ALIAS = "attn = layer.self_attn\n"
SKIPPING = (
    "for layer in self.model.layers:\n    if isinstance(layer, PPMissingLayer):\n        continue\n"
)
COUNTED = LOOP.replace(
    "for layer in self.model.layers", "for i, layer in enumerate(self.model.layers)"
)
MENDED = {
    "as released": (model(HALVING + STYLE), model(STYLE)),
    "after the style": (model(STYLE + HALVING), model(STYLE)),
    "halved and again": (model(HALVING + STYLE + HALVING), model(STYLE)),
    "the long form": (
        model("layer.self_attn.rotary_emb.rotary_dim = layer.self_attn.rotary_emb.rotary_dim // 2\n" + STYLE),
        model(STYLE),
    ),
    "by bits": (model(HALVING.replace("//=", ">>=") + STYLE), model(STYLE)),
    "times a half": (
        model("rope = layer.self_attn.rotary_emb\nrope.rotary_dim = int(rope.rotary_dim * 0.5)\n" + STYLE),
        model("rope = layer.self_attn.rotary_emb\n" + STYLE),
    ),
    "by setattr": (
        model("rope = layer.self_attn.rotary_emb\nsetattr(rope, 'rotary_dim', rope.rotary_dim // 2)\nsetattr(rope, 'is_neox_style', False)\n"),
        model("rope = layer.self_attn.rotary_emb\nsetattr(rope, 'is_neox_style', False)\n"),
    ),
    "in one statement with the style": (
        model("rope = layer.self_attn.rotary_emb\nrope.rotary_dim, rope.is_neox_style = rope.rotary_dim // 2, False\n"),
        model("rope = layer.self_attn.rotary_emb\nrope.is_neox_style = False\n"),
    ),
    "in one statement, after the style": (
        model("rope = layer.self_attn.rotary_emb\n(rope.is_neox_style, rope.rotary_dim) = (False, rope.rotary_dim // 2)\n"),
        model("rope = layer.self_attn.rotary_emb\nrope.is_neox_style = False\n"),
    ),
    "on the line of a test": (
        model("if layer: " + HALVING.rstrip() + "; " + STYLE),
        model("if layer: " + STYLE),
    ),
    "twice, and nothing else": (
        model(STYLE + "if layer:\n    " + HALVING + "    " + HALVING),
        model(STYLE + "if layer:\n    pass\n"),
    ),
    "by a float": (model(HALVING.replace("//", "/") + STYLE), model(STYLE)),
    "on one line": (model(HALVING.rstrip() + "; " + STYLE), model(STYLE)),
    "alone in its block": (
        model(STYLE + "if layer:\n    " + HALVING),
        model(STYLE + "if layer:\n    pass\n"),
    ),
    "alone on the line of its test": (
        model(STYLE + "if layer: " + HALVING),
        model(STYLE + "if layer: pass\n"),
    ),
    "an attention with a name": (
        model((ALIAS + HALVING + STYLE).replace("layer.self_attn.r", "attn.r")),
        model((ALIAS + STYLE).replace("layer.self_attn.r", "attn.r")),
    ),
    "a rope with a name": (
        model("rope = layer.self_attn.rotary_emb\nrope.rotary_dim //= 2\nrope.is_neox_style = False\n"),
        model("rope = layer.self_attn.rotary_emb\nrope.is_neox_style = False\n"),
    ),
    "prints and assertions": (
        model("print(layer.self_attn.rotary_emb)\n" + HALVING + STYLE + "assert layer.self_attn.rotary_emb.rotary_dim\n"),
        model("print(layer.self_attn.rotary_emb)\n" + STYLE + "assert layer.self_attn.rotary_emb.rotary_dim\n"),
    ),
    "continue for placeholders": (model(HALVING + STYLE, SKIPPING, 4), model(STYLE, SKIPPING, 4)),
    "counted layers": (model(HALVING + STYLE, COUNTED), model(STYLE, COUNTED)),
    "another base": (
        model(HALVING + STYLE).replace("(LlamaForCausalLM):", "(Base):"),
        model(STYLE).replace("(LlamaForCausalLM):", "(Base):"),
    ),
    "comments stay": (
        model("# half\n" + HALVING + "# pairs\n" + STYLE),
        model("# half\n# pairs\n" + STYLE),
    ),
}  # fmt: skip
FIXED = {
    "mended": model(STYLE),
    "the old line as a comment": model("# " + HALVING + STYLE),
    "another class halves": model(STYLE)
    + "class Other:\n    def f(self, layer):\n        "
    + HALVING,
}
DRIFTED = {
    "no style": model("pass\n"),
    "another class": model(HALVING + STYLE).replace("class Glm", "class My"),
    "no Python": "def f(:\n",
}


@pytest.mark.parametrize(("before", "after"), MENDED.values(), ids=MENDED)
def test_the_halving_goes_and_nothing_else(before: str, after: str) -> None:
    plan = make_plan(PATCH, before.encode())
    assert plan.state is PatchState.NEEDED
    assert plan.after.decode() == after
    assert make_plan(PATCH, plan.after).state is PatchState.FIXED


@pytest.mark.parametrize("source", FIXED.values(), ids=FIXED)
def test_what_has_no_halving_is_left_alone(source: str) -> None:
    plan = make_plan(PATCH, source.encode())
    assert (plan.state, plan.after) == (PatchState.FIXED, source.encode())


@pytest.mark.parametrize("source", DRIFTED.values(), ids=DRIFTED)
def test_what_it_does_not_know_is_drifted(source: str) -> None:
    plan = make_plan(PATCH, source.encode())
    assert (plan.state, plan.after) == (PatchState.DRIFTED, source.encode())
