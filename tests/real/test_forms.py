# ruff: noqa: E501, RUF001 - a case is a line of a table
"""Forms of the released files that were met: known where they are the known program, else mended
under proof, and never refused for the way in which they are written."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.patch import Patch, PatchState
from glmpatch.patches.glm4_float16_guard.patch import PATCH as GUARD
from glmpatch.patches.glm4_residual.patch import PATCH as GLM4
from glmpatch.patches.glm_rope.patch import PATCH as GLM
from tests.support.cases import RELEASE, bases
from tests.support.judge import judge
from tests.support.program import program
from tests.support.sources import FUSED, REWRITES, expected, hand_patches, proper_subsets, replace

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """The GLM-4 file of 0.8.4, and the same repaired by plain text."""
    released = bases(GLM4.id)[0]
    return released, expected(released)


def test_the_repaired_file_is_the_one_made_by_plain_text(pair: tuple[bytes, bytes]) -> None:
    assert bases(GLM4.id)[1] == pair[1]


@pytest.mark.parametrize("subset", list(proper_subsets()), ids=lambda s: "+".join(s) or "none")
def test_every_half_repaired_file_is_known(
    pair: tuple[bytes, bytes], subset: tuple[str, ...]
) -> None:
    found = judge(GLM4, expected(pair[0], subset), RELEASE)
    assert found.state is PatchState.NEEDED
    assert found.plan is not None
    assert found.plan.broken == tuple(rewrite for rewrite in REWRITES if rewrite not in subset)
    assert found.known == pair[1]


def test_the_usual_hand_patches_are_known(pair: tuple[bytes, bytes]) -> None:
    for name, source in hand_patches(pair[1]).items():
        found = judge(GLM4, source, RELEASE)
        assert found.state is PatchState.NEEDED, name
        assert found.known is not None
        assert program(found.known) == program(pair[1])


FORMATTERS = {
    "black": ["black", "-q"],
    "black, one element a line": ["black", "-q", "-l", "40"],
    "ruff, 200 columns": ["ruff", "format", "-q", "--isolated", "--line-length", "200"],
    "yapf, pep8": ["yapf", "-i", "--style", "pep8"],
    "yapf, google": ["yapf", "-i", "--style", "google"],
    "yapf, facebook": ["yapf", "-i", "--style", "facebook"],
    "yapf, tabs": ["yapf", "-i", "--style", "{based_on_style: pep8, use_tabs: true}"],
    "autopep8, aggressive": ["autopep8", "-i", "-a", "-a", "--max-line-length", "60"],
}


@pytest.mark.parametrize("formatter", FORMATTERS.values(), ids=FORMATTERS)
def test_every_formatting_is_known(
    pair: tuple[bytes, bytes], formatter: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "glm4.py"
    path.write_bytes(pair[0])
    subprocess.run([sys.executable, "-m", *formatter, str(path)], check=True, cwd=tmp_path)
    source = path.read_bytes()
    found = judge(GLM4, source, RELEASE)
    assert found.state is PatchState.NEEDED
    assert found.known is not None
    assert program(found.known) == program(pair[1])
    # Nothing but the five places changes, whatever lines they take.
    kept = difflib.SequenceMatcher(None, source.splitlines(), found.known.splitlines(), False)
    assert len([code for code in kept.get_opcodes() if code[0] != "equal"]) <= 5


CLAMP = "        hidden_states = torch.clamp(hidden_states, -65504, 65504)\n"
MLP = "        hidden_states = self.post_mlp_layernorm(hidden_states)\n"
PAIR = "hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
FORKS = {
    "clamped": (MLP, MLP + CLAMP),
    "the residual cast back": (FUSED, FUSED + "        residual = residual.to(torch.bfloat16)\n"),
    "the norm in float32": (
        FUSED,
        FUSED.replace("hidden_states, residual)", "hidden_states.float(), residual.float())"),
    ),
    "a print": (MLP, MLP + "        print(hidden_states)\n"),
}


@pytest.mark.parametrize(("old", "new"), FORKS.values(), ids=FORKS)
def test_right_forks_are_left_to_the_proof(pair: tuple[bytes, bytes], old: str, new: str) -> None:
    found = judge(GLM4, replace(pair[1], old, new), RELEASE)
    assert found.state is PatchState.UNPROVEN


GENEROUS = {
    "in a context": (PAIR, "with record_function('norm'):\n            " + PAIR),
    "in a try": (PAIR, f"try:\n            {PAIR}        finally:\n            pass\n"),
    "without gradients": (PAIR, "with torch.no_grad():\n            " + PAIR),
    "the first value under a condition": (
        PAIR,
        PAIR + "        hidden_states = hidden_states[0] if isinstance(\n"
        "            hidden_states, tuple) else hidden_states\n",
    ),
    "the first value unless a tensor": (
        PAIR,
        PAIR + "        if not isinstance(hidden_states, torch.Tensor):\n"
        "            hidden_states = hidden_states[0]\n",
    ),
    "a slip of the pen": (PAIR, "hidden_state, residual" + PAIR[len("hidden_states") :]),
    "a residual by keyword": (PAIR, PAIR.replace(", residual)", ", residual=residual)")),
}


@pytest.mark.parametrize(("old", "new"), GENEROUS.values(), ids=GENEROUS)
def test_other_forms_of_the_defect_are_mended(
    pair: tuple[bytes, bytes], old: str, new: str
) -> None:
    found = judge(GLM4, replace(pair[0], old, new), RELEASE)
    assert found.state in (PatchState.NEEDED, PatchState.UNPROVEN)
    assert found.plan is not None
    assert found.plan.broken == REWRITES
    assert judge(GLM4, found.plan.after, RELEASE).state in (PatchState.FIXED, PatchState.UNPROVEN)


SUM = "hidden_states = residual + hidden_states\n"
CALL = PAIR.partition(" = ")[2].strip()
ZERO = "        hidden_states = hidden_states[0]\n"
ROTARY = "int(partial_rotary_factor * self.head_dim)"
SAME = {
    "in the call of the MLP": (f"{PAIR}        hidden_states = self.mlp(hidden_states)\n", f"hidden_states = self.mlp({CALL})\n"),
    "[0] in the call of the MLP": (f"{PAIR}        hidden_states = self.mlp(hidden_states)\n", f"hidden_states = self.mlp({CALL}[0])\n"),
    "an annotation": (PAIR, f"hidden_states: torch.Tensor = {CALL}\n"),
    "[0] of a tuple": (PAIR, f"hidden_states = tuple({CALL})[0]\n"),
    "the other way round": (PAIR, f"residual, {PAIR}"),
    "an assertion": (PAIR, f"{PAIR}        assert isinstance(hidden_states, tuple)\n{ZERO}"),
    "into the residual": (f"{SUM}\n        # Fully", "residual = residual + hidden_states\n        hidden_states = residual\n        # Fully"),
    "into the residual, in place": (f"{SUM}\n        # Fully", "residual += hidden_states\n        # Fully"),
    "a comment in the sum": (f"{SUM}\n        # Fully", "hidden_states = (residual  # twice\n            + hidden_states)\n        # Fully"),
    "a comment in the width": (ROTARY, ROTARY.replace("(", "(  # half\n            ")),
    "full-width letters": (PAIR, PAIR.replace("norm", "ｎｏｒｍ").replace(", r", ", ｒ")),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_forms_that_mended_are_the_repaired_program_are_known(
    pair: tuple[bytes, bytes], old: str, new: str
) -> None:
    found = judge(GLM4, replace(pair[0], old, new), RELEASE)
    assert found.state is PatchState.NEEDED
    assert found.known is not None
    assert program(found.known) == program(pair[1])
    assert found.known.count(b"#") == replace(pair[0], old, new).count(b"#")


HALVING = "                layer.self_attn.rotary_emb.rotary_dim //= 2\n"
SUPER = "        super().__init__(vllm_config=vllm_config, prefix=prefix)\n"
FACTOR = "        vllm_config.model_config.hf_config.partial_rotary_factor = 0.5\n"
GUARDED = "    # Verify the dtype.\n"
OTHERS: dict[str, tuple[Patch, tuple[str, str], PatchState]] = {
    "the long form": (
        GLM,
        (HALVING, HALVING.replace("//= 2", "= layer.self_attn.rotary_emb.rotary_dim // 2")),
        PatchState.NEEDED,
    ),
    "a print": (GLM, (HALVING, f"                print(layer)\n{HALVING}"), PatchState.UNPROVEN),
    "upstream's factor, still halved": (GLM, (SUPER, FACTOR + SUPER), PatchState.UNPROVEN),
    "halved no more": (GLM, (HALVING, ""), PatchState.FIXED),
    "a message": (GUARD, (GUARDED, "    print(dtype)\n" + GUARDED), PatchState.UNPROVEN),
    "a comment": (GUARD, (GUARDED, "    # mine\n" + GUARDED), PatchState.NEEDED),
}


@pytest.mark.parametrize(("patch", "edit", "state"), OTHERS.values(), ids=OTHERS)
def test_forms_of_the_other_files(patch: Patch, edit: tuple[str, str], state: PatchState) -> None:
    released = bases(patch.id)[0]
    assert judge(patch, replace(released, *edit), RELEASE).state is state
