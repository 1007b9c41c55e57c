# ruff: noqa: E501, RUF001 - a case is a line of a table
"""glm4-residual on a toy of its file: what is right, what is mended, and how much it recognises.

What the results are worth is the form's to say (tests/real/test_forms.py and test_fuzz.py).
"""

from __future__ import annotations

import ast
import textwrap

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source.plan import make_plan
from tests.support.model import (
    ADD,
    FACTOR,
    FUSED,
    IMPORTS,
    MLP,
    NEOX,
    NORM,
    ONCE,
    PAIR,
    RELEASED,
    RETURN,
    RIGHT,
    ROPE,
    TWICE,
    mended,
    model,
    states,
)
from tests.support.sources import REWRITES

UNPACK, RESIDUAL, ROTARY, STYLE = REWRITES
OLD_LINES = "".join(f"# {line}\n" for line in (ADD + PAIR + MLP + ADD).splitlines())

# -- nothing to do ------------------------------------------------------------------------------

NAMED = "norm = self.post_attention_layernorm\n"
FIXED_LAYERS = {
    "upstream's form": RIGHT,
    "old lines kept as comments": NORM + OLD_LINES + FUSED + OLD_LINES + MLP + RETURN,
    "old lines quoted in a docstring": f'"""Once:\n{ADD}{PAIR}"""\n' + RIGHT,
    "old lines in a string": NORM + f'"{PAIR.strip()}"\n' + FUSED + MLP + RETURN,
    "a wrapped call": NORM
    + "hidden_states, residual = self.post_attention_layernorm(\n    hidden_states, residual)\n"
    + MLP
    + RETURN,
    "parentheses": NORM
    + "(hidden_states, residual) = (self.post_attention_layernorm((hidden_states), residual))\n"
    + MLP
    + "return (hidden_states, residual)\n",
    "a list of names": NORM + FUSED.replace(FUSED[:23], "[hidden_states, residual]") + MLP + RETURN,
    "a pair made of the pair": NORM
    + FUSED.replace("self.", "tuple(self.").replace(")\n", "))\n")
    + MLP
    + RETURN,
    "a norm with a name": NORM + NAMED + FUSED.replace(NAMED[7:-1], "norm") + MLP + RETURN,
    "forward": NORM + FUSED.replace("norm(", "norm.forward(") + MLP + RETURN,
    "keywords": NORM
    + "hidden_states, residual = self.post_attention_layernorm("
    + "residual=residual, x=hidden_states)\n"
    + MLP
    + RETURN,
    "other names": NORM
    + "normed, total = self.post_attention_layernorm(hidden_states, residual)\n"
    + "out = self.post_mlp_layernorm(self.mlp(normed))\n"
    + "return out, total\n",
    "the pair unpacked later": NORM
    + "pair = self.post_attention_layernorm(hidden_states, residual)\n"
    + "hidden_states, residual = pair\n"
    + MLP
    + RETURN,
    "the pair unpacked by index": NORM
    + "pair = self.post_attention_layernorm(hidden_states, residual)\n"
    + "hidden_states = pair[0]\nresidual = pair[1]\n"
    + MLP
    + RETURN,
    "the pair unpacked from its end": NORM
    + "pair = self.post_attention_layernorm(hidden_states, residual)\n"
    + "hidden_states = pair[0]\nresidual = pair[-1]\n"
    + MLP
    + RETURN,
    "the pair unpacked under a test": NORM
    + "hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
    + "if isinstance(hidden_states, tuple):\n    hidden_states, residual = hidden_states\n"
    + MLP
    + RETURN,
    "a test that can no longer be true": NORM
    + FUSED
    + "if isinstance(hidden_states, tuple):\n    hidden_states = hidden_states[0]\n"
    + MLP
    + RETURN,
    "one expression": NORM
    + "normed, residual = self.post_attention_layernorm(hidden_states, residual)\n"
    + "return self.post_mlp_layernorm(self.mlp(normed)), residual\n",
    "an annotated result": NORM
    + FUSED
    + "hidden_states: torch.Tensor = self.mlp(hidden_states)\n"
    + "hidden_states = self.post_mlp_layernorm(hidden_states)\n"
    + RETURN,
    "a result with a name of its own": NORM
    + FUSED
    + MLP
    + "result = (hidden_states, residual)\nreturn result\n",
    "an alias of the residual": NORM
    + "kept = residual\n"
    + "hidden_states, kept = self.post_attention_layernorm(hidden_states, kept)\n"
    + MLP
    + "return hidden_states, kept\n",
    "prints": NORM + "print(hidden_states)\n" + FUSED + "print(residual.shape)\n" + MLP + RETURN,
    "logging": NORM
    + 'logger.debug("layer %s", hidden_states.abs().max())\n'
    + FUSED
    + MLP
    + RETURN,
    "a print under a test": NORM
    + FUSED
    + 'if torch.isnan(hidden_states).any():\n    print("not a number")\n'
    + MLP
    + RETURN,
    "assertions": NORM
    + FUSED
    + "assert hidden_states.shape == residual.shape\n"
    + MLP
    + "assert not isinstance(hidden_states, tuple)\n"
    + RETURN,
    "statements on one line": NORM + FUSED + "; ".join(MLP.splitlines()) + "\n" + RETURN,
    "a name of its own at the first norm": RIGHT.replace("else:\n", "else:\n    later = True\n"),
    "a number of tokens": "tokens = hidden_states.shape[0]\n" + RIGHT,
    "branches the other way round": """\
if residual is not None:
    hidden_states, residual = self.input_layernorm(hidden_states, residual)
else:
    residual = hidden_states
    hidden_states = self.input_layernorm(hidden_states)
"""
    + "".join(NORM.splitlines(keepends=True)[5:])
    + FUSED
    + MLP
    + RETURN,
    "attention by position": NORM.replace(
        "positions=positions, hidden_states=hidden_states", "positions, hidden_states"
    )
    + FUSED
    + MLP
    + RETURN,
}

FIXED_ROPES = {
    "upstream's form": ONCE + ROPE,
    "no name for the width": FACTOR + ROPE.replace("self.rotary_dim", "self.head_dim"),
    "by position": FACTOR
    + "self.rotary_emb = get_rope(self.head_dim, self.head_dim, max_position, 1e4, False, "
    + "None, None, factor)\n",
    "another order": FACTOR
    + "self.rotary_emb = get_rope(is_neox_style=False, partial_rotary_factor=factor, base=1e4,\n"
    + "    max_position=max_position, rotary_dim=self.head_dim, head_size=self.head_dim)\n",
    "the part computed here, no factor passed": TWICE
    + ROPE.replace("    partial_rotary_factor=factor,\n", ""),
    "the part computed here, a factor of one": TWICE + ROPE.replace("=factor,", "=1.0,"),
    "the factor as an attribute": ONCE.replace(FACTOR, "factor = config.partial_rotary_factor\n")
    + ROPE,
    "the factor in place": "self.rotary_dim = self.head_dim\n"
    + ROPE.replace("=factor,", "=config.partial_rotary_factor,"),
    "another name for the head size": FACTOR
    + "size = self.head_dim\nself.rotary_dim = size\n"
    + ROPE,
    "defaults written out": ONCE
    + ROPE.replace("base=", "rope_scaling=None,\n    dtype=None, base="),
    "parentheses": ONCE + ROPE.replace("=False", "=(False)"),
    "comments between": ONCE
    + ROPE.replace(
        "    base=", "    # partial_rotary_factor=factor,\n    # is_neox_style=True\n    base="
    ),
    "the old line as a comment": FACTOR
    + "# self.rotary_dim = int(factor * self.head_dim)\nself.rotary_dim = self.head_dim\n"
    + ROPE,
    "prints": ONCE + "print(self.rotary_dim)\n" + ROPE + 'print("rope", self.rotary_emb)\n',
    "unrelated numbers": "self.sizes = [num_heads * 2, max(1, num_heads)]\n" + ONCE + ROPE,
}

FIXED_FILES = {
    "another layer with the old lines": model(
        extra="class OtherDecoderLayer(nn.Module):\n    def forward(self, hidden_states, residual):\n"
        + textwrap.indent(RELEASED, " " * 8)
    ),
    "another attention with the old call": model(
        extra="class OtherAttention(nn.Module):\n    def __init__(self, config, max_position):\n"
        + textwrap.indent(TWICE + NEOX, " " * 8)
    ),
    "a function with the old lines": model(
        extra="def forward(self, positions, hidden_states, residual):\n"
        + textwrap.indent(RELEASED, " " * 4)
    ),
    "extra arguments": model()
    .replace("positions, hidden_states, residual)", "positions, hidden_states, kv, meta, residual)")
    .replace("hidden_states=hidden_states)", "hidden_states=hidden_states, kv=kv, meta=meta)", 1)
    .replace(
        "    def forward(self, positions, hidden_states):",
        "    def forward(self, positions, hidden_states, kv=None, meta=None):",
    ),
    "extra arguments by position": model(
        NORM.replace(
            "positions=positions, hidden_states=hidden_states", "positions, hidden_states, 1"
        )
        + FUSED
        + MLP
        + RETURN
    ).replace("(self, positions, hidden_states):", "(self, positions, hidden_states, kv):"),
    "a type annotation each": model().replace(
        "positions, hidden_states, residual)",
        "positions: torch.Tensor, hidden_states: torch.Tensor, "
        "residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]",
    ),
    "the imports in parentheses": model(
        imports=IMPORTS.replace("import RMSNorm", "import (RMSNorm,)").replace(
            "import get_rope", "import (  # rope\n    get_rope,\n)"
        )
    ),
    "torch.nn.Module": model().replace("(nn.Module)", "(torch.nn.Module)"),
}


@pytest.mark.parametrize("body", FIXED_LAYERS.values(), ids=FIXED_LAYERS)
def test_a_right_layer_is_left_alone(body: str) -> None:
    source = model(body)
    assert set(states(source).values()) == {"fixed"}
    assert mended(source) == source


@pytest.mark.parametrize("rope", FIXED_ROPES.values(), ids=FIXED_ROPES)
def test_a_right_rope_is_left_alone(rope: str) -> None:
    source = model(rope=rope)
    assert set(states(source).values()) == {"fixed"}
    assert mended(source) == source


@pytest.mark.parametrize("source", FIXED_FILES.values(), ids=FIXED_FILES)
def test_a_right_file_is_left_alone(source: str) -> None:
    assert set(states(source).values()) == {"fixed"}
    assert mended(source) == source


# -- broken, and mended -------------------------------------------------------------------------

ZERO = "hidden_states = hidden_states[0]\n"
INDEXED = PAIR.replace(")\n", ")[0]\n")
IN_MLP = MLP.replace("mlp(hidden_states)", "mlp({})")
UNPACKED = NORM + FUSED + MLP + RETURN
BROKEN_PAIRS = {
    "as released": (NORM + PAIR + MLP + RETURN, UNPACKED),
    "[0] on the call": (NORM + INDEXED + MLP + RETURN, UNPACKED),
    "[0] in a statement of its own": (NORM + PAIR + ZERO + MLP + RETURN, UNPACKED),
    "the first of an iterator": (
        NORM
        + "hidden_states = next(iter(self.post_attention_layernorm(hidden_states, residual)))\n"
        + MLP
        + RETURN,
        UNPACKED,
    ),
    "[0] where it is used": (
        NORM + PAIR + MLP.replace("mlp(hidden_states)", "mlp(hidden_states[0])") + RETURN,
        UNPACKED,
    ),
    "[0] under another name": (
        NORM
        + PAIR
        + "normed = hidden_states[0]\n"
        + MLP.replace("mlp(hidden_states)", "mlp(normed)")
        + RETURN,
        NORM
        + FUSED
        + "normed = hidden_states\n"
        + MLP.replace("mlp(hidden_states)", "mlp(normed)")
        + RETURN,
    ),
    "a name that nobody takes": (
        NORM + PAIR.replace("hidden_states =", "normed =", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "two names": (
        NORM + PAIR.replace("hidden_states =", "normed = hidden_states =", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "second value thrown away": (
        NORM + FUSED.replace(", residual =", ", _ =") + MLP + RETURN,
        UNPACKED,
    ),
    "second value bound and not used": (
        NORM + FUSED.replace(", residual =", ", unused =") + MLP + RETURN,
        UNPACKED,
    ),
    "[0] under a test": (
        NORM + PAIR + "if isinstance(hidden_states, tuple):\n    " + ZERO + MLP + RETURN,
        UNPACKED,
    ),
    "[0] under a test, on one line": (
        NORM + PAIR + "if isinstance(hidden_states, (tuple, list)): " + ZERO + MLP + RETURN,
        UNPACKED,
    ),
    "first of two under a test": (
        NORM
        + PAIR
        + "if isinstance(hidden_states, tuple):\n    hidden_states, _ = hidden_states\n"
        + MLP
        + RETURN,
        UNPACKED,
    ),
    "a print beside the pair": (
        NORM + PAIR + "print(type(hidden_states))\n" + MLP + RETURN,
        NORM + FUSED + "print(type(hidden_states))\n" + MLP + RETURN,
    ),
    "keywords": (
        NORM
        + "hidden_states = self.post_attention_layernorm(residual=residual, x=hidden_states)\n"
        + MLP
        + RETURN,
        NORM
        + "hidden_states, residual = self.post_attention_layernorm(\n"
        + "    residual=residual, x=hidden_states)\n"
        + MLP
        + RETURN,
    ),
    "another name": (
        NORM
        + "h = self.post_attention_layernorm(hidden_states, residual)\n"
        + MLP.replace("mlp(hidden_states)", "mlp(h)")
        + RETURN,
        NORM
        + "h, residual = self.post_attention_layernorm(hidden_states, residual)\n"
        + MLP.replace("mlp(hidden_states)", "mlp(h)")
        + RETURN,
    ),
    "in the call of the MLP": (
        NORM + IN_MLP.format("self.post_attention_layernorm(hidden_states, residual)") + RETURN,
        UNPACKED,
    ),
    "[0] in the call of the MLP": (
        NORM + IN_MLP.format("self.post_attention_layernorm(hidden_states, residual)[0]") + RETURN,
        UNPACKED,
    ),
    "in one expression": (
        NORM
        + "# normed\nreturn self.post_mlp_layernorm(self.mlp(\n"
        + "    self.post_attention_layernorm(hidden_states, residual)[0])), residual  # and both\n",
        NORM
        + "# normed\n"
        + FUSED
        + "return self.post_mlp_layernorm(self.mlp(\n    hidden_states)), residual  # and both\n",
    ),
    "[0] and a cast": (
        NORM + INDEXED.replace("[0]", "[0].to(torch.float32)") + MLP + RETURN,
        NORM + FUSED + "hidden_states = hidden_states.to(torch.float32)\n" + MLP + RETURN,
    ),
    "[0] of a tuple": (
        NORM + INDEXED.replace("self.", "tuple(self.").replace(")[0]", "))[0]") + MLP + RETURN,
        UNPACKED,
    ),
    "a tuple of the pair": (
        NORM + PAIR.replace("self.", "tuple(self.").replace(")\n", "))\n") + ZERO + MLP + RETURN,
        UNPACKED,
    ),
    "an annotation": (
        NORM + PAIR.replace(" =", ": torch.Tensor =", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "an annotation and [0]": (
        NORM + INDEXED.replace(" =", ": torch.Tensor =", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "not bound at all": (
        NORM + PAIR.replace("hidden_states = ", "", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "the other way round": (
        NORM + PAIR.replace("hidden_states =", "residual, hidden_states =", 1) + MLP + RETURN,
        UNPACKED,
    ),
    "an assertion that it is a pair": (
        NORM + PAIR + "assert isinstance(hidden_states, tuple)\n" + ZERO + MLP + RETURN,
        UNPACKED,
    ),
    "an assertion that it is a pair, with a message": (
        NORM
        + PAIR
        + "assert isinstance(hidden_states, tuple) and len(hidden_states) == 2, hidden_states[0]\n"
        + ZERO
        + MLP
        + RETURN,
        UNPACKED,
    ),
    "an assertion of something else": (
        NORM + PAIR + ZERO + "assert len(hidden_states) == 3\n" + MLP + RETURN,
        NORM + FUSED + "assert len(hidden_states) == 3\n" + MLP + RETURN,
    ),
    "an assertion of two, with its step": (
        NORM
        + PAIR
        + "if isinstance(hidden_states, tuple):\n    assert len(hidden_states) == 2\n    "
        + ZERO
        + MLP
        + RETURN,
        UNPACKED,
    ),
    "a norm with a name": (
        NORM + NAMED + PAIR.replace(NAMED[7:-1], "norm") + MLP + RETURN,
        NORM + NAMED + FUSED.replace(NAMED[7:-1], "norm") + MLP + RETURN,
    ),
    "forward": (
        NORM + PAIR.replace("norm(", "norm.forward(") + MLP + RETURN,
        NORM
        + "hidden_states, residual = self.post_attention_layernorm.forward(\n"
        + "    hidden_states, residual)\n"
        + MLP
        + RETURN,
    ),
    "full-width letters": (
        NORM + PAIR.replace("norm", "ｎｏｒｍ").replace(", r", ", ｒ") + MLP + RETURN,
        NORM
        + FUSED.replace("norm", "ｎｏｒｍ").replace(", residual)", ", ｒesidual)")
        + MLP
        + RETURN,
    ),
    "a comment behind": (
        NORM + PAIR.strip() + "  # fused\n" + MLP + RETURN,
        NORM + FUSED.strip() + "  # fused\n" + MLP + RETURN,
    ),
}

TAKEN = "residual {}\nhidden_states = residual\n"
AS_RELEASED = NORM + ADD + FUSED + MLP + ADD + RETURN
BROKEN_SUMS = {
    "as released": (AS_RELEASED, RIGHT),
    "the first only": (NORM + ADD + FUSED + MLP + RETURN, RIGHT),
    "the second only": (NORM + FUSED + MLP + ADD + RETURN, RIGHT),
    "by torch.add": (
        AS_RELEASED.replace("residual + hidden_states", "torch.add(residual, hidden_states)"),
        RIGHT,
    ),
    "by a method": (
        AS_RELEASED.replace("residual + hidden_states", "residual.add(hidden_states)"),
        RIGHT,
    ),
    "by a method, in place": (
        AS_RELEASED.replace(
            "hidden_states = residual + hidden_states", "hidden_states.add_(residual)"
        ),
        RIGHT,
    ),
    "cast": (
        AS_RELEASED.replace(
            "residual + hidden_states", "residual.to(hidden_states.dtype) + hidden_states"
        ),
        RIGHT,
    ),
    "operands the other way round": (
        AS_RELEASED.replace("residual + hidden_states", "hidden_states + residual"),
        RIGHT,
    ),
    "in place": (
        AS_RELEASED.replace(
            "hidden_states = residual + hidden_states", "hidden_states += residual"
        ),
        RIGHT,
    ),
    "into the residual": (
        NORM + "residual = residual + hidden_states\n" + FUSED + MLP + RETURN,
        RIGHT,
    ),
    "into the residual, and taken from there": (
        NORM + TAKEN.format("= residual + hidden_states") + FUSED + MLP + ADD + RETURN,
        RIGHT,
    ),
    "into the residual, in place": (
        NORM + "residual += hidden_states\n" + FUSED + MLP + RETURN,
        RIGHT,
    ),
    "into the residual, in place, and taken from there": (
        NORM
        + TAKEN.format("+= hidden_states")
        + FUSED
        + MLP
        + TAKEN.format("+= hidden_states")
        + RETURN,
        RIGHT,
    ),
    "into the residual by a method, in place": (
        NORM + "residual.add_(hidden_states)\n" + FUSED + MLP + RETURN,
        RIGHT,
    ),
    "an annotation": (
        NORM + ADD.replace(" =", ": torch.Tensor =") + FUSED + MLP + RETURN,
        RIGHT,
    ),
    "another name for the residual": (
        AS_RELEASED.replace("residual", "kept"),
        RIGHT.replace("residual", "kept"),
    ),
    "a cast residual": (
        NORM + ADD + FUSED.replace("residual)", "residual.float())") + MLP + ADD + RETURN,
        NORM + FUSED.replace("residual)", "residual.float())") + MLP + RETURN,
    ),
    "parentheses": (
        NORM + "hidden_states = (residual) + (hidden_states)\n" + FUSED + MLP + RETURN,
        RIGHT,
    ),
    "in the argument": (
        NORM
        + FUSED.replace("norm(hidden_states,", "norm(residual + hidden_states,")
        + MLP
        + RETURN,
        RIGHT,
    ),
    "in the return": (NORM + FUSED + MLP + "return residual + hidden_states, residual\n", RIGHT),
    "in the statement of the norm": (
        NORM
        + FUSED
        + "hidden_states = self.mlp(hidden_states)\n"
        + "hidden_states = residual + self.post_mlp_layernorm(hidden_states)\n"
        + RETURN,
        RIGHT,
    ),
    "another name": (
        NORM + FUSED + MLP + "out = residual + hidden_states\nreturn out, residual\n",
        NORM + FUSED + MLP + "out = hidden_states\nreturn out, residual\n",
    ),
    "comments above and below stay": (
        NORM + FUSED + MLP + "# add it\n" + ADD + "# and return\n" + RETURN,
        NORM + FUSED + MLP + "# add it\n# and return\n" + RETURN,
    ),
    "on a line with another": (
        NORM + FUSED + MLP.rstrip("\n") + "; " + ADD + RETURN,
        RIGHT,
    ),
}

BROKEN_WIDTHS = {
    "as released": (TWICE + ROPE, ONCE + ROPE),
    "operands the other way round": (
        TWICE.replace("factor * self.head_dim", "self.head_dim * factor") + ROPE,
        ONCE + ROPE,
    ),
    "even": (
        TWICE.replace("self.head_dim)", "self.head_dim) // 2 * 2") + ROPE,
        ONCE.replace(" = self.head_dim\n", " = self.head_dim // 2 * 2\n") + ROPE,
    ),
    "half of the head": (
        TWICE.replace("int(factor * self.head_dim)", "self.head_dim // 2") + ROPE,
        ONCE + ROPE,
    ),
    "half of the head, as a float": (
        TWICE.replace("int(factor * self.head_dim)", "int(self.head_dim / 2)") + ROPE,
        ONCE + ROPE,
    ),
    "in the call": (
        FACTOR + ROPE.replace("=self.rotary_dim", "=int(factor * self.head_dim)"),
        FACTOR + ROPE.replace("=self.rotary_dim", "=self.head_dim"),
    ),
    "another name for the factor": (
        FACTOR + "p = factor\n" + TWICE[len(FACTOR) :].replace("factor *", "p *") + ROPE,
        FACTOR + "p = factor\n" + ONCE[len(FACTOR) :] + ROPE,
    ),
    "a factor called otherwise": (
        TWICE.replace("factor =", "p =").replace("factor *", "p *") + ROPE.replace("=factor", "=p"),
        ONCE.replace("factor =", "p =") + ROPE.replace("=factor", "=p"),
    ),
    "a local name": (
        FACTOR
        + "width = int(self.head_dim * factor)\n"
        + ROPE.replace("=self.rotary_dim", "=width"),
        FACTOR + "width = self.head_dim\n" + ROPE.replace("=self.rotary_dim", "=width"),
    ),
    "two names": (
        FACTOR + "width = int(self.head_dim * factor)\nself.rotary_dim = width\n" + ROPE,
        FACTOR + "width = self.head_dim\nself.rotary_dim = width\n" + ROPE,
    ),
    "the factor in two forms": (
        TWICE + ROPE.replace("=factor", "=config.partial_rotary_factor"),
        ONCE + ROPE.replace("=factor", "=config.partial_rotary_factor"),
    ),
    "printed": (
        TWICE + "print(self.rotary_dim)\n" + ROPE,
        ONCE + "print(self.rotary_dim)\n" + ROPE,
    ),
}

BROKEN_STYLES = {
    "as released": (ONCE + NEOX, ONCE + ROPE),
    "the default written out": (ONCE + ROPE.replace("=False", "=True"), ONCE + ROPE),
    "by position": (
        ONCE + "self.rotary_emb = get_rope(self.head_dim, self.head_dim, max_position, 1e4, True, "
        "partial_rotary_factor=factor)\n",
        ONCE + "self.rotary_emb = get_rope(self.head_dim, self.head_dim, max_position, 1e4, False, "
        "partial_rotary_factor=factor)\n",
    ),
    "by a name": (
        ONCE + "style = True\n" + ROPE.replace("=False", "=style"),
        ONCE + "style = True\n" + ROPE,
    ),
    "on one line": (
        ONCE + "self.rotary_emb = get_rope(self.head_dim, self.head_dim, 8, 1e4, "
        "partial_rotary_factor=factor)\n",
        ONCE + "self.rotary_emb = get_rope(self.head_dim, self.head_dim, 8, 1e4, "
        "partial_rotary_factor=factor, is_neox_style=False)\n",
    ),
    "a comment behind the last argument": (
        ONCE + NEOX.replace("=factor,\n", "=factor,  # half\n"),
        ONCE + ROPE.replace("=factor,\n", "=factor,  # half\n"),
    ),
    "no comma behind the last argument": (
        ONCE + NEOX.replace("=factor,\n", "=factor\n"),
        ONCE + ROPE.replace("=False,\n", "=False\n"),
    ),
}

BROKEN = {
    f"{rewrite}: {name}": (rewrite, before, after)
    for rewrite, table in (
        (UNPACK, {k: (model(b), model(a)) for k, (b, a) in BROKEN_PAIRS.items()}),
        (RESIDUAL, {k: (model(b), model(a)) for k, (b, a) in BROKEN_SUMS.items()}),
        (ROTARY, {k: (model(rope=b), model(rope=a)) for k, (b, a) in BROKEN_WIDTHS.items()}),
        (STYLE, {k: (model(rope=b), model(rope=a)) for k, (b, a) in BROKEN_STYLES.items()}),
    )
    for name, (before, after) in table.items()
}


@pytest.mark.parametrize(("rewrite", "before", "after"), BROKEN.values(), ids=BROKEN)
def test_one_defect_is_found_and_mended(rewrite: str, before: str, after: str) -> None:
    expected = dict.fromkeys(REWRITES, "fixed") | {rewrite: "broken"}
    assert states(before) == expected
    assert mended(before) == after
    assert mended(after) == after


@pytest.mark.parametrize("pair", BROKEN_PAIRS)
@pytest.mark.parametrize("addition", ["as released", "in place"])
def test_hand_patches_that_still_add_the_residual_are_mended(pair: str, addition: str) -> None:
    added = ADD if addition == "as released" else "hidden_states += residual\n"
    before, after = BROKEN_PAIRS[pair]
    source = before.replace(NORM, NORM + added).replace(RETURN, added + RETURN)
    if pair == "a comment behind":
        assert mended(model(source, TWICE + NEOX)).count("# fused") == 1
    assert mended(model(source, TWICE + NEOX)) == model(after, ONCE + ROPE)


# -- recognised though it is written otherwise; a proof has to judge what comes of it ------------

TO_FIRST = (
    "hidden_states = hidden_states[0] if isinstance(hidden_states, tuple) else hidden_states\n"
)
NO_TENSOR = (
    "if not isinstance(hidden_states, torch.Tensor):\n    hidden_states = hidden_states[0]\n"
)
EACH_ADD = "with record_function('add'):\n    " + ADD
NO_ADD = "with record_function('add'):\n    pass\n"
GENEROUS = {
    "each addition in a context": (
        NORM + EACH_ADD + PAIR + MLP + EACH_ADD + RETURN, NORM + NO_ADD + FUSED + MLP + NO_ADD + RETURN,
    ),
    "an addition under a test, on one line": (
        NORM + "if residual is not None: " + ADD + PAIR + MLP + ADD + RETURN,
        NORM + "if residual is not None: pass\n" + FUSED + MLP + RETURN,
    ),
    "the first of two, under another name": (
        NORM + PAIR.replace("hidden_states =", "out =", 1) + "hidden_states, _ = out\n" + MLP + RETURN,
        NORM + "out, residual = self.post_attention_layernorm(hidden_states, residual)\n"
        + "hidden_states = out\n" + MLP + RETURN,
    ),
    "the first and the rest": (
        NORM + PAIR.replace("hidden_states =", "out =", 1) + "hidden_states, *_ = out\n" + MLP + RETURN,
        NORM + "out, residual = self.post_attention_layernorm(hidden_states, residual)\n"
        + "hidden_states = out\n" + MLP + RETURN,
    ),
    "in a context": (
        NORM + "with record_function('mlp'):\n" + textwrap.indent(ADD + PAIR + MLP, "    ") + ADD + RETURN,
        NORM + "with record_function('mlp'):\n" + textwrap.indent(FUSED + MLP, "    ") + RETURN,
    ),
    "without gradients": (
        "with torch.no_grad():\n" + textwrap.indent(NORM + ADD + PAIR + MLP + ADD, "    ") + RETURN,
        "with torch.no_grad():\n" + textwrap.indent(NORM + FUSED + MLP, "    ") + RETURN,
    ),
    "in a try": (
        NORM + ADD + "try:\n" + textwrap.indent(PAIR + MLP, "    ")
        + "except RuntimeError:\n    raise\n" + ADD + RETURN,
        NORM + "try:\n" + textwrap.indent(FUSED + MLP, "    ")
        + "except RuntimeError:\n    raise\n" + RETURN,
    ),
    "the first value under a condition": (NORM + ADD + PAIR + TO_FIRST + MLP + ADD + RETURN, RIGHT),
    "the first value unless a tensor": (NORM + PAIR + NO_TENSOR + MLP + RETURN, RIGHT),
    "a slip of the pen": (
        NORM + FUSED.replace("hidden_states, residual =", "hidden_state, residual =") + MLP + RETURN,
        RIGHT,
    ),
    "a residual by keyword": (
        NORM + ADD + PAIR.replace(", residual)", ", residual=residual)") + MLP + ADD + RETURN,
        RIGHT.replace(FUSED, FUSED.replace("norm(hidden_states, residual)", "norm(\n    hidden_states, residual=residual)")),
    ),
    "clamped": (
        NORM + ADD + PAIR + MLP + "hidden_states = torch.clamp(hidden_states, -65504, 65504)\n" + ADD + RETURN,
        NORM + FUSED + MLP + "hidden_states = torch.clamp(hidden_states, -65504, 65504)\n" + RETURN,
    ),
    "in float32": (
        NORM + ADD + "hidden_states = hidden_states.float()\n" + PAIR + MLP + ADD + RETURN,
        NORM + "hidden_states = hidden_states.float()\n" + FUSED + MLP + RETURN,
    ),
    "the residual scaled": (
        NORM + "residual = residual * 2\n" + ADD + PAIR + MLP + ADD + RETURN,
        NORM + "residual = residual * 2\n" + FUSED + MLP + RETURN,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), GENEROUS.values(), ids=GENEROUS)
def test_the_defect_is_found_in_other_forms(before: str, after: str) -> None:
    assert mended(model(before, TWICE + NEOX)) == model(after, ONCE + ROPE)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("import get_rope as make_rope", "make_rope("),
        ("import get_rope, get_rope as rope", "rope("),
    ],
)
def test_get_rope_is_found_by_another_name(line: str, call: str) -> None:
    imports = IMPORTS.replace("import get_rope", line)
    right = model(rope=ONCE + ROPE.replace("get_rope(", call), imports=imports)
    assert (
        mended(model(RELEASED, TWICE + NEOX.replace("get_rope(", call), imports=imports)) == right
    )


def test_get_rope_is_found_in_its_module() -> None:
    imports = IMPORTS.replace(".rotary_embedding import get_rope", " import rotary_embedding")
    call = "rotary_embedding.get_rope("
    right = model(rope=ONCE + ROPE.replace("get_rope(", call), imports=imports)
    assert (
        mended(model(RELEASED, TWICE + NEOX.replace("get_rope(", call), imports=imports)) == right
    )


def test_a_local_width_relative_imports_and_a_new_base_are_no_hindrance() -> None:
    local = FACTOR + "rotary_dim = int(factor * self.head_dim)\n"
    rope = NEOX.replace("=self.rotary_dim", "=rotary_dim")
    relative = IMPORTS.replace("vllm.model_executor.layers", "..layers")
    source = model(RELEASED, local + rope, imports=relative).replace("(nn.Module)", "(Base)")
    right = model(
        rope=FACTOR
        + "rotary_dim = self.head_dim\n"
        + ROPE.replace("=self.rotary_dim", "=rotary_dim"),
        imports=relative,
    ).replace("(nn.Module)", "(Base)")
    assert mended(source) == right


LAYER_COMMENTS = {
    "sum": (ADD, "hidden_states = (residual  # sum\n    + hidden_states)\n"),
    "in place": (ADD, "hidden_states.add_(residual,  # in place\n)\n"),
    "arguments": (
        PAIR,
        PAIR.replace("(h", "(\n    h").replace(
            "residual)", "  # arguments\n    residual,  # two\n)"
        ),
    ),
    "behind": (PAIR, PAIR.replace("\n", "  # behind\n")),
    "first": (PAIR, PAIR.replace(")\n", ")[  # first\n    0]\n")),
    "passed": (MLP, MLP.replace("mlp(hidden_states)", "mlp(hidden_states[  # passed\n    0])")),
    "step": (PAIR, PAIR + "hidden_states = hidden_states[  # step\n    0]\n"),
    "test": (
        PAIR,
        PAIR + "if isinstance(hidden_states, tuple):  # test\n    # two\n    " + ZERO,
    ),
    "under a test": (
        PAIR,
        PAIR + "if isinstance(hidden_states, tuple):\n    # under a test\n    " + ZERO,
    ),
    "given": (
        PAIR + MLP,
        "hidden_states = self.mlp(  # given\n    self.post_attention_layernorm(hidden_states,  # x\n"
        "    residual)[0])\n" + MLP.splitlines(keepends=True)[1],
    ),
}
ROPE_COMMENTS = {
    "half": (TWICE, TWICE.replace("int(", "int(  # half\n    ")),
    "of the head": (TWICE, TWICE.replace("factor * ", "factor *  # of the head\n    ")),
    "rotated": (TWICE, TWICE.replace("dim)\n", "dim)  # rotated\n")),
    "theta": (NEOX, NEOX.replace("base=10000,", "base=10000,  # theta")),
    "pairs": (NEOX, ROPE.replace("=False", "=(True  # pairs\n    )")),
}


@pytest.mark.parametrize("comment", [*LAYER_COMMENTS, *ROPE_COMMENTS])
def test_comments_in_what_is_replaced_survive(comment: str) -> None:
    layer, rope = RELEASED, TWICE + NEOX
    if comment in LAYER_COMMENTS:
        layer = layer.replace(*LAYER_COMMENTS[comment])
    else:
        rope = rope.replace(*ROPE_COMMENTS[comment])
    source = model(layer, rope)
    result = mended(source)
    assert source.count(f"# {comment}\n") == result.count(f"# {comment}\n") > 0
    assert source.count("# two") == result.count("# two")
    assert set(states(source).values()) == {"broken"}
    assert set(states(result).values()) == {"fixed"}
    assert ast.dump(ast.parse(result)) == ast.dump(ast.parse(model()))


DRIFTED = {
    "no layer": model().replace("class Glm4DecoderLayer", "class Layer"),
    "no norm between": model(NORM + MLP + RETURN),
    "no rope": model(rope="self.rotary_emb = None\n"),
    "two ropes": model(rope=ONCE + ROPE + ROPE),
    "the second value alone": model(NORM + INDEXED.replace("[0]", "[1] + 1") + MLP + RETURN),
    "the pair returned": model(NORM + "return " + PAIR.partition(" = ")[2]),
    "the pair's values passed on": model(
        NORM + IN_MLP.format("*self.post_attention_layernorm(hidden_states, residual)") + RETURN
    ),
    "the pair named on the way": model(
        NORM
        + IN_MLP.format("(h := self.post_attention_layernorm(hidden_states, residual))[0]")
        + RETURN
    ),
    "a pair that is made later": model(
        NORM
        + "later = lambda: self.post_attention_layernorm(hidden_states, residual)[0]\n"
        + RETURN
    ),
    "no class": "x = 1\n",
    "nothing": "",
}


@pytest.mark.parametrize("source", DRIFTED.values(), ids=DRIFTED)
def test_what_is_not_there_is_said(source: str) -> None:
    plan = make_plan(PATCH, source.encode())
    assert plan.state is PatchState.DRIFTED
    assert plan.after == plan.before
    assert plan.problem or all(f.reason for f in plan.findings if f.state.value == "unrecognized")


ODD = {
    "one name in a tuple": "hidden_states, = self.post_attention_layernorm(hidden_states, residual)\n",
    "a star": "*hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)\n",
    "star arguments": "hidden_states = self.post_attention_layernorm(*pair)\n",
    "no argument": "hidden_states = self.post_attention_layernorm()\n",
    "an attribute": "self.h = self.post_attention_layernorm(hidden_states, residual)\n",
    "an item": "h[0] = self.post_attention_layernorm(hidden_states, residual)\n",
    "two targets": "a = b = self.post_attention_layernorm(hidden_states, residual)\n",
    "an annotation": "h: Any = self.post_attention_layernorm(hidden_states, residual)\n",
    "a return": "return self.post_attention_layernorm(hidden_states, residual)\n",
    "a lambda": "f = lambda: self.post_attention_layernorm(hidden_states, residual)\n",
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_odd_forms_end_in_no_crash(line: str) -> None:
    plan = make_plan(PATCH, model(NORM + line + "self.mlp()\n" + RETURN).encode())
    assert not any("stumbled" in finding.reason for finding in plan.findings)
