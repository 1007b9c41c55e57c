# ruff: noqa: E501 - a case is a line of a table
"""The four rewrites of glm4-residual: what is right, what is broken and mended, what is refused."""

from __future__ import annotations

import ast
import textwrap

import pytest

from patcher.patch import PatchState
from patcher.rewriting import make_plan
from patches.glm4_residual import PATCH
from tests.support.cases import Cases
from tests.support.model import (
    ADD,
    ATTENTION,
    FACTOR,
    FUSED,
    IMPORTS,
    LAYER,
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
LAYERNORM = "vllm.model_executor.layers.layernorm"
OLD_LINES = "".join(f"# {line}\n" for line in (ADD + PAIR + MLP + ADD).splitlines())

# -- cases on the released file, for tests/test_every_patch.py ----------------------------------

UNPACKED = "hidden_states = self.post_attention_layernorm(hidden_states, residual)"

CASES = Cases(
    PATCH,
    release="0.8.4",
    mended={
        "a print": (
            (
                (
                    "        # Fully Connected\n",
                    "        print(residual)\n        # Fully Connected\n",
                ),
            ),
            (
                (
                    "        # Fully Connected\n",
                    "        print(residual)\n        # Fully Connected\n",
                ),
            ),
        ),
    },
    fixed={
        "old line kept as a comment": (
            ("        # Fully Connected\n", f"        # {UNPACKED}\n        # Fully Connected\n"),
        ),
    },
    drifted={
        "residual scaled": (
            ((UNPACKED, f"residual = residual * 2\n        {UNPACKED}"),),
            "is not given the residual as it came",
        ),
    },
)

# -- nothing to do ------------------------------------------------------------------------------

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
UNPACKED = NORM + FUSED + MLP + RETURN
BROKEN_PAIRS = {
    "as released": (NORM + PAIR + MLP + RETURN, UNPACKED),
    "[0] on the call": (NORM + INDEXED + MLP + RETURN, UNPACKED),
    "[0] in a statement of its own": (NORM + PAIR + ZERO + MLP + RETURN, UNPACKED),
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
    "a comment behind": (
        NORM + PAIR.strip() + "  # fused\n" + MLP + RETURN,
        NORM + FUSED.strip() + "  # fused\n" + MLP + RETURN,
    ),
}

BROKEN_SUMS = {
    "as released": (NORM + ADD + FUSED + MLP + ADD + RETURN, RIGHT),
    "the first only": (NORM + ADD + FUSED + MLP + RETURN, RIGHT),
    "the second only": (NORM + FUSED + MLP + ADD + RETURN, RIGHT),
    "operands the other way round": (
        (NORM + ADD + FUSED + MLP + ADD + RETURN).replace(
            "residual + hidden_states", "hidden_states + residual"
        ),
        RIGHT,
    ),
    "in place": (
        (NORM + ADD + FUSED + MLP + ADD + RETURN).replace(
            "hidden_states = residual + hidden_states", "hidden_states += residual"
        ),
        RIGHT,
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
    "in the call": (
        FACTOR + ROPE.replace("=self.rotary_dim", "=int(factor * self.head_dim)"),
        FACTOR + ROPE.replace("=self.rotary_dim", "=self.head_dim"),
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


# -- not recognised -----------------------------------------------------------------------------

AROUND = NORM + "{}" + FUSED + MLP + RETURN
BEHIND = NORM + FUSED + MLP + "{}" + RETURN

UNKNOWN_LAYERS = {
    "a residual that is scaled": NORM + "hidden_states = 0.5 * residual + hidden_states  # here\n"
    + FUSED + MLP + RETURN,
    "a residual that is cast": NORM + "hidden_states = residual.float() + hidden_states  # here\n"
    + FUSED + MLP + RETURN,
    "a sum that is clamped": NORM + FUSED + MLP
    + "hidden_states = torch.clamp(residual + hidden_states, -1e4, 1e4)  # here\n" + RETURN,
    "a residual given scaled": NORM + FUSED.replace("residual)", "2 * residual)") + MLP + RETURN,
    "a norm in float32": NORM
    + "hidden_states, residual = self.post_attention_layernorm(hidden_states.float(), residual)\n"
    + MLP + RETURN,
    "the norm's result swapped": NORM
    + "residual, hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
    + MLP + RETURN,
    "three values": NORM + FUSED.replace(", residual =", ", residual, _ =") + MLP + RETURN,
    "one value": NORM + FUSED.replace(", residual =", ", =") + MLP + RETURN,
    "the fused norm called twice": NORM
    + "h = self.post_attention_layernorm(hidden_states, residual)[0]\n"
    + "residual = self.post_attention_layernorm(hidden_states, residual)[1]\n"
    + MLP.replace("mlp(hidden_states)", "mlp(h)") + RETURN,
    "an old name of the residual returned": NORM + "old = residual\n" + FUSED + MLP
    + "return hidden_states, old\n",
    "an old name that a mend would lose": NORM + "old = residual\n" + PAIR + MLP
    + "return hidden_states, old\n",
    "a second value that is used": NORM + FUSED.replace(", residual =", ", total =") + MLP
    + "print(total)\n" + RETURN,
    "the pair asserted": NORM + PAIR + "assert len(hidden_states) == 2\n" + ZERO + MLP + RETURN,
    "the pair read elsewhere": NORM + PAIR + "print(hidden_states[1].shape)\n" + ZERO + MLP + RETURN,
    "the pair read elsewhere, kept": NORM + PAIR + "other = hidden_states[1]\n" + ZERO + MLP + RETURN,
    "the work under a test": NORM + PAIR + "if isinstance(hidden_states, tuple):\n"
    + textwrap.indent(MLP.replace("mlp(hidden_states)", "mlp(hidden_states[0])"), "    ") + RETURN,
    "an early return": AROUND.format("if positions is None:\n    return hidden_states, residual\n"),
    "code behind the return": RIGHT + "hidden_states = None\n",
    "an exception": AROUND.format("raise NotImplementedError\n"),
    "a loop": AROUND.format("for _ in range(2):\n    hidden_states = self.norm(hidden_states)\n"),
    "a loop that writes in place": AROUND.format("while residual.any():\n    residual.zero_()\n"),
    "a with block": NORM + FUSED + "with torch.no_grad():\n" + textwrap.indent(MLP, "    ") + RETURN,
    "a try": NORM + "try:\n    " + FUSED + "except ValueError:\n    pass\n" + MLP + RETURN,
    "a condition": NORM + FUSED + MLP + "if self.training:\n    " + ADD + RETURN,
    "a condition with an annotation": BEHIND.format(
        "if self.training:\n    hidden_states: torch.Tensor = hidden_states * 2\n"
    ),
    "a conditional expression": BEHIND.format(
        "hidden_states = hidden_states if self.training else residual\n"
    ),
    "a rewritten forward": "return self.compute(positions, hidden_states, residual)\n",
    "no body": "pass\n",
    "nothing returned": NORM + FUSED + MLP + "return\n",
    "one thing returned": NORM + FUSED + MLP + "return hidden_states\n",
    "three things returned": NORM + FUSED + MLP + "return hidden_states, residual, None\n",
    "the residual as argument of the MLP": NORM + FUSED
    + MLP.replace("mlp(hidden_states)", "mlp(residual)") + RETURN,
    "no norm behind the attention": "".join(NORM.splitlines(keepends=True)[:6]) + FUSED + MLP + RETURN,
    "the norms swapped": RIGHT.replace("post_self_attn_", "SWAP_")
    .replace("post_mlp_", "post_self_attn_").replace("SWAP_", "post_mlp_"),
    "no first norm": "".join(NORM.splitlines(keepends=True)[5:]) + FUSED + MLP + RETURN,
    "the first norm's branches swapped": RIGHT.replace("is None", "is not None"),
    "a first norm in place": RIGHT.replace("residual = hidden_states\n    h", "residual = hidden_states\n    hidden_states.mul_(2)\n    h"),
    "the attention given something else": RIGHT.replace("=hidden_states)", "=residual)", 1),
    "arguments of the attention swapped": RIGHT.replace(
        "positions=positions, hidden_states=hidden_states", "hidden_states, positions"
    ),
    "star arguments for the norm": NORM + FUSED.replace("hidden_states, residual)", "*pair)") + MLP
    + RETURN,
    "star arguments for the MLP": NORM + FUSED + MLP.replace("mlp(hidden", "mlp(*hidden") + RETURN,
    "star arguments for the first norm": RIGHT.replace("norm(hidden_states)\ne", "norm(*hidden_states)\ne"),
    "written in place": BEHIND.format("hidden_states.mul_(2)\n"),
    "written by index": BEHIND.format("hidden_states[0] = 0\n"),
    "written by slice and operator": BEHIND.format("hidden_states[:, 0] *= 2\n"),
    "written by a method that is called so": BEHIND.format("hidden_states.__imul__(2)\n"),
    "written by an argument": BEHIND.format("torch.mul(hidden_states, 2, out=hidden_states)\n"),
    "written by an argument, bound": BEHIND.format("_ = torch.mul(residual, 2, out=residual)\n"),
    "written by a flag": BEHIND.format("_ = nn.functional.relu(hidden_states, inplace=True)\n"),
    "written by a positional flag": BEHIND.format("_ = nn.functional.relu(hidden_states, True)\n"),
    "written by an unknown function": BEHIND.format("_ = scale(hidden_states)\n"),
    "written by an operator": BEHIND.format("_ = torch.ops._C.scale(hidden_states, 2)\n"),
    "written through another name": BEHIND.format("other = hidden_states\nother.mul_(2)\n"),
    "written through a view": BEHIND.format("flat = hidden_states.view(-1)\nflat.mul_(2)\n"),
    "written through a slice": BEHIND.format("part = residual[1:]\npart += 1\n"),
    "written through an attribute": BEHIND.format("raw = hidden_states.data\nraw.zero_()\n"),
    "written through a list": BEHIND.format("both = [hidden_states]\nboth[0].zero_()\n"),
    "written through self": BEHIND.format("self.last = hidden_states\nself.last.zero_()\n"),
    "written through a choice": BEHIND.format("x = residual if 1 else None\nx.zero_()\n"),
    "written in an expression": BEHIND.format("_ = -hidden_states.mul_(2)\n"),
    "written in a comprehension": BEHIND.format("_ = [x.mul_(2) for x in (residual,)]\n"),
    "written in an f-string": BEHIND.format("_ = f'{hidden_states.mul_(2)}'\n"),
    "written in a string statement": BEHIND.format("'a' f'{hidden_states.mul_(2)}'\n"),
    "written in a print": BEHIND.format("print(hidden_states.mul_(2))\n"),
    "written in an assertion": BEHIND.format("assert hidden_states.mul_(2) is not None\n"),
    "written in a test": BEHIND.format("if hidden_states.mul_(2).any():\n    pass\n"),
    "written by what is called log": BEHIND.format("log = hidden_states\nlog.mul_(2)\n"),
    "written by what is called logger": BEHIND.format("logger = hidden_states\nlogger.log(2)\n"),
    "written by a method of the layer": BEHIND.format("self.scale(hidden_states)\n"),
    "written before the first norm": "kept = residual\n" + NORM + "kept.zero_()\n" + FUSED + MLP + RETURN,
    "written with a name from the first norm": NORM.replace(
        "    residual = hidden_states\n", "    residual = hidden_states\n    kept = residual\n"
    ) + "kept.zero_()\n" + FUSED + MLP + RETURN,
    "positions bound before the first norm": "positions = positions * 2\n" + RIGHT,
    "positions bound at the first norm": RIGHT.replace("else:\n", "else:\n    positions = residual\n"),
    "positions written in place": BEHIND.format("positions += 1\n").replace(RETURN, "positions[0] = 0\n" + RETURN),
    "positions written through another name": BEHIND.format("p = positions[1:]\np.zero_()\n"),
    "a return before the first norm": "return positions, positions\n" + RIGHT,
    "a return at the first norm": RIGHT.replace("else:\n", "    return hidden_states, residual\nelse:\n"),
    "bound by a walrus": BEHIND.format("print(hidden_states := residual)\n"),
    "bound by a walrus in a call": NORM + FUSED
    + "out = self.mlp(hidden_states)\n_ = max(1, (out := residual))\n"
    + "return self.post_mlp_layernorm(out), residual\n",
    "bound by a for": BEHIND.format("for hidden_states in (residual,):\n    pass\n"),
    "bound by a with": BEHIND.format("with torch.no_grad() as hidden_states:\n    pass\n"),
    "bound by an import": BEHIND.format("from torch import ones as hidden_states\n"),
    "bound by a match": BEHIND.format("match residual:\n    case hidden_states:\n        pass\n"),
    "bound by star unpacking": BEHIND.format("hidden_states, *_ = residual\n"),
    "bound by a nested function": "def f():\n    nonlocal out\n    out = 2 * out\n" + NORM + FUSED
    + MLP.replace("hidden_states = self.post", "out = self.post") + "f()\nreturn out, residual\n",
    "bound by a class": BEHIND.format("class hidden_states:\n    pass\n"),
    "deleted": BEHIND.format("del hidden_states\n"),
    "a lambda": "f = lambda: out.mul_(2)\n" + NORM + FUSED
    + MLP.replace("hidden_states = self.post", "out = self.post") + "f()\nreturn out, residual\n",
    "a lazy comprehension": "f = (out.mul_(2) for _ in (1,))\n" + NORM + FUSED
    + MLP.replace("hidden_states = self.post", "out = self.post") + "list(f)\nreturn out, residual\n",
    "a global": "global out\n" + NORM + FUSED
    + MLP.replace("hidden_states = self.post", "out = self.post") + "f()\nreturn out, residual\n",
    "a generator": BEHIND.format("yield\n"),
    "another self": AROUND.format("self = positions\n"),
    "a module replaced": AROUND.format("self.mlp = self.post_mlp_layernorm\n"),
    "a module replaced by setattr": AROUND.format("setattr(self, 'mlp', positions)\n"),
    "a module changed": AROUND.format("self.mlp.forward = positions\n"),
    "a split, not a tuple": NORM + FUSED
    + "hidden_states = hidden_states.split(1)\n"
    + "if isinstance(hidden_states, tuple):\n    hidden_states = residual\n" + MLP + RETURN,
    "the same added to itself": BEHIND.format("hidden_states = hidden_states + hidden_states\n"),
    "something else added": BEHIND.format("hidden_states = hidden_states + positions\n"),
    "the residual added twice": BEHIND.format(ADD + ADD),
    "a sum too long to follow": BEHIND.format("hidden_states = hidden_states + hidden_states\n" * 60),
    "a star": "hidden_states = self.norm(*hidden_states)\n" + RIGHT,
}  # fmt: skip

UNKNOWN_ROPES = {
    "get_rope twice": ONCE + ROPE + ROPE,
    "get_rope in two branches": ONCE + "if max_position:\n" + textwrap.indent(ROPE, "    "),
    "get_rope under a condition": ONCE + ROPE.replace(")\n", ") if max_position else None\n"),
    "no get_rope": ONCE + "self.rotary_emb = None\n",
    "get_rope under another name": ONCE + "rope = get_rope\n" + ROPE.replace("get_rope(", "rope("),
    "another attribute": ONCE + ROPE.replace("rotary_emb", "rope"),
    "star arguments": ONCE + "self.rotary_emb = get_rope(*positions, is_neox_style=False)\n",
    "star keywords": ONCE + ROPE.replace("base=10000", "**config.rope"),
    "a style that is computed": ONCE + ROPE.replace("=False", "=not config.interleaved"),
    "a style from the configuration": ONCE + ROPE.replace("=False", "=config.is_neox_style"),
    "another factor": ONCE.replace("partial_rotary_factor", "factor") + ROPE,
    "a factor that is fixed": ONCE + ROPE.replace("=factor", "=0.5"),
    "a factor that is halved": ONCE + ROPE.replace("=factor", "=factor / 2"),
    "a factor that is changed": ONCE + "factor = factor / 2\n" + ROPE,
    "a factor that is changed in place": ONCE + "factor /= 2\n" + ROPE,
    "a configuration that is changed": "config.partial_rotary_factor = 0.25\n" + ONCE + ROPE,
    "a configuration changed elsewhere": "change(config)\n" + ONCE + ROPE,
    "another configuration": "config = max_position\n" + ONCE + ROPE,
    "an alias of the configuration changed": "c = config\nc.x = 2\n" + ONCE + ROPE,
    "no factor and the whole width": ONCE + ROPE.replace("    partial_rotary_factor=factor,\n", ""),
    "the width halved": ONCE.replace("= self.head_dim", "= self.head_dim // 2") + ROPE,
    "the width halved in place": ONCE + "self.rotary_dim //= 2\n" + ROPE,
    "a width that is no integer": TWICE.replace("int(factor * self.head_dim)", "factor * self.head_dim")
    + ROPE.replace("    partial_rotary_factor=factor,\n", ""),
    "a width that is used elsewhere": TWICE + "self.rest = self.head_dim - self.rotary_dim\n" + ROPE,
    "a head of another size": TWICE + ROPE.replace("self.head_dim,", "self.rotary_dim,"),
    "a head that changed since": ONCE + ROPE + "self.head_dim = 2 * self.head_dim\n",
    "a rope that is changed": ONCE + ROPE + "self.rotary_emb.is_neox_style = True\n",
    "a rope that is narrowed": ONCE + ROPE + "self.rotary_emb.rotary_dim //= 2\n",
    "a rope that is replaced": ONCE + ROPE + "self.rotary_emb = positions\n",
    "a rope changed by setattr": ONCE + ROPE + "setattr(self.rotary_emb, 'is_neox_style', True)\n",
    "a rope given away": ONCE + ROPE + "change(self)\n",
    "a nested function": ONCE + "def get():\n" + textwrap.indent(ROPE, "    "),
}  # fmt: skip

CHANGED_LATER = "class Other:\n    def change(self, layer):\n        {}\n"
LAYER_CLASS = "class Glm4DecoderLayer(nn.Module)"
ATTENTION_CLASS = "class Glm4Attention(nn.Module)"
UNKNOWN_FILES = {
    "two layers of the same name": (model(extra=LAYER_CLASS + ":\n    pass\n"), True, False),
    "two attentions of the same name": (model(extra=ATTENTION_CLASS + ":\n    pass\n"), True, True),
    "a layer under another name": (model().replace(LAYER_CLASS, "class L(nn.Module)"), True, False),
    "a layer in a function": (
        model(extra="def f():\n    " + LAYER_CLASS + ": pass\n").replace(
            LAYER_CLASS, "class L(nn.Module)", 1
        ),
        True,
        False,
    ),
    "a layer replaced": (model(extra="Glm4DecoderLayer = Other\n"), True, False),
    "a layer imported": (model(extra="from x import Glm4DecoderLayer\n"), True, False),
    "a layer decorated": (model().replace(LAYER_CLASS, f"@wrap\n{LAYER_CLASS}"), True, False),
    "a layer with another base": (
        model().replace(LAYER_CLASS, "class Glm4DecoderLayer(Base)"),
        True,
        False,
    ),
    "a layer with a metaclass": (
        model().replace(LAYER_CLASS, "class Glm4DecoderLayer(nn.Module, metaclass=M)"),
        True,
        False,
    ),
    "a layer that is derived from": (model(extra="class L(Glm4DecoderLayer): pass\n"), True, False),
    "a forward replaced": (model(extra="Glm4DecoderLayer.forward = other\n"), True, True),
    "a forward replaced by setattr": (
        model(extra="setattr(Glm4DecoderLayer, 'forward', other)\n"),
        True,
        False,
    ),
    "a forward replaced on the object": (
        model(extra=CHANGED_LATER.format("layer.forward = self.fast")),
        True,
        True,
    ),
    "a second forward": (
        model().replace(
            "\nclass Glm4Model", "    def forward(self, *a):\n        pass\n\nclass Glm4Model"
        ),
        True,
        False,
    ),
    "a decorated forward": (
        model().replace(
            "    def forward(self, positions, h", "    @fast\n    def forward(self, positions, h"
        ),
        True,
        True,
    ),
    "a conditional forward": (
        model().replace(
            "\nclass Glm4Model",
            "    if X:\n        def forward(self, *a):\n            pass\n\nclass Glm4Model",
        ),
        True,
        False,
    ),
    "a forward bound in the class": (
        model().replace("\nclass Glm4Model", "    forward = fast\n\nclass Glm4Model"),
        True,
        False,
    ),
    "a call of its own": (
        model().replace(
            "\nclass Glm4Model", "    def __call__(self, *a):\n        pass\n\nclass Glm4Model"
        ),
        True,
        False,
    ),
    "a property for a module": (
        model().replace(
            "\nclass Glm4Model",
            "    @property\n    def mlp(self):\n        return 2\n\nclass Glm4Model",
        ),
        True,
        False,
    ),
    "a norm changed later": (
        model(extra=CHANGED_LATER.format("layer.post_attention_layernorm = None")),
        True,
        False,
    ),
    "a rope narrowed later": (
        model(extra=CHANGED_LATER.format("layer.self_attn.rotary_emb.rotary_dim //= 2")),
        True,
        True,
    ),
    "a rope's style changed later": (
        model(extra=CHANGED_LATER.format("self.layers[0].rotary_emb.is_neox_style = False")),
        False,
        True,
    ),
    "a norm of another kind": (
        model(imports=IMPORTS.replace("import RMSNorm", "import GemmaRMSNorm as RMSNorm")),
        True,
        False,
    ),
    "a norm from elsewhere": (
        model(imports=IMPORTS.replace(LAYERNORM, "other.layernorm")),
        True,
        False,
    ),
    "a norm from a relative module": (
        model(imports=IMPORTS.replace(LAYERNORM, f".{LAYERNORM}")),
        True,
        False,
    ),
    "a norm defined here": (model(extra="class RMSNorm(nn.Module): pass\n"), True, False),
    "a norm assigned here": (model(imports=IMPORTS + "RMSNorm = Other\n"), True, False),
    "a norm bound by a walrus": (model(imports=IMPORTS + "print(RMSNorm := Other)\n"), True, False),
    "a norm as a parameter": (
        model().replace(
            "    def __init__(self, config):", "    def __init__(self, config, RMSNorm):"
        ),
        True,
        False,
    ),
    "a norm in two ways": (
        model(
            imports=IMPORTS.replace(
                "from " + LAYERNORM + " import RMSNorm",
                f"try:\n    from {LAYERNORM} import RMSNorm\nexcept ImportError:\n"
                "    from other import RMSNorm\n",
            )
        ),
        True,
        False,
    ),
    "a norm that is changed": (model(extra="RMSNorm.forward = other\n"), True, True),
    "a star import": (model(imports=IMPORTS + "from other import *\n"), True, True),
    "a rope function of another kind": (
        model(imports=IMPORTS.replace("import get_rope", "import get_rope_fast as get_rope")),
        False,
        True,
    ),
    "a rope function wrapped": (
        model(imports=IMPORTS + "get_rope = partial(get_rope, is_neox_style=True)\n"),
        False,
        True,
    ),
    "a rope function as a parameter": (
        model().replace("max_position=64", "max_position=64, get_rope=None"),
        False,
        True,
    ),
    "int is something else": (model(extra="int = float\n"), False, True),
    "the rope not used": (model(attention="return self.attn(positions)\n"), False, True),
    "the rope used twice": (
        model(attention="q, k = self.rotary_emb(positions, 1, 2)\n" + ATTENTION),
        False,
        True,
    ),
    "an attention of another head size": (
        model().replace("Attention(num_heads, self.head_dim,", "Attention(num_heads, 64,"),
        False,
        True,
    ),
    "no norm in the layer": (
        model(layer=LAYER.replace("post_mlp_layernorm = RMSNorm", "post_mlp_layernorm = Other")),
        True,
        False,
    ),
    "a norm under a condition": (
        model(layer=LAYER + "if config.x:\n    self.post_mlp_layernorm = None\n"),
        True,
        False,
    ),
    "another attention in the layer": (
        model(layer=LAYER.replace("Glm4Attention", "FastAttention")),
        True,
        False,
    ),
    "an empty class": (
        model().split("class Glm4Attention")[0] + "class Glm4Attention: pass\n",
        True,
        True,
    ),
    "no class": ("x = 1\n", True, True),
}


def refused(source: str) -> dict[str, int | None]:
    """The rewrites that do not know the code, and the line that they name; nothing is changed."""
    ast.parse(source)
    plan = make_plan(PATCH, source.encode())
    assert plan.state is PatchState.DRIFTED
    assert plan.after == plan.before
    assert {finding.rewrite for finding in plan.findings} == set(REWRITES)
    unknown = [finding for finding in plan.findings if finding.state.value == "unrecognized"]
    for finding in unknown:
        assert finding.reason
        assert finding.line is None or 1 <= finding.line <= source.count("\n")
    return {finding.rewrite: finding.line for finding in unknown}


@pytest.mark.parametrize("body", UNKNOWN_LAYERS.values(), ids=UNKNOWN_LAYERS)
def test_an_unknown_layer_is_refused(body: str) -> None:
    source = model(body)
    lost = refused(source)
    assert lost.keys() <= {UNPACK, RESIDUAL}
    for line, written in enumerate(source.splitlines(), 1):
        if "# here" in written:
            assert set(lost.values()) == {line}


@pytest.mark.parametrize("rope", UNKNOWN_ROPES.values(), ids=UNKNOWN_ROPES)
def test_an_unknown_rope_is_refused(rope: str) -> None:
    assert refused(model(rope=rope)).keys() <= {ROTARY, STYLE}


@pytest.mark.parametrize(("source", "layer", "rope"), UNKNOWN_FILES.values(), ids=UNKNOWN_FILES)
def test_an_unknown_file_is_refused(source: str, layer: bool, rope: bool) -> None:
    expected = {UNPACK: layer, RESIDUAL: layer, ROTARY: rope, STYLE: rope}
    lost = refused(source)
    assert {rewrite: rewrite in lost for rewrite in REWRITES} == expected
