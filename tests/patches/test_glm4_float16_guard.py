"""glm4-float16-guard: the forms that it meets, and the real configuration of 0.9.0.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from patcher.examine import examine
from patcher.patch import PatchState
from patcher.rewriting import make_plan
from patcher.target import find_target
from patcher.verify.driver import Behaved, Candidate, verify
from patches.glm4_float16_guard import CHOOSE, PATCH, REFUSE
from tests.support import cache
from tests.support.cases import Cases, edited
from tests.support.environment import Environment, glmpatch

VERIFY = "    # Verify the dtype.\n"
GUARD = "".join(f"    {line}\n" for line in (REFUSE + CHOOSE).splitlines()) + "\n"
LOWER = "        dtype = dtype.lower()\n"
RETURN = "    return torch_dtype\n"

CASES = Cases(
    PATCH,
    release="0.8.4",
    mended={
        "a log message": (
            ((VERIFY, '    logger.info("%s", torch_dtype)\n' + VERIFY),),
            (
                (
                    GUARD + VERIFY,
                    '    logger.info("%s", torch_dtype)\n\n' + GUARD.rstrip("\n") + "\n" + VERIFY,
                ),
            ),
        ),
        "another function after it": (
            ((RETURN, RETURN + "\n\ndef after_it():\n    pass\n"),),
            ((RETURN, RETURN + "\n\ndef after_it():\n    pass\n"),),
        ),
    },
    fixed={
        "the guard in another layout": (
            (
                "\"The model type 'glm4' does not support float16. \"\n",
                "  # why\n            \"The model type 'glm4' does not support float16. \"\n",
            ),
        ),
    },
    drifted={
        "another guard": (
            (
                (
                    VERIFY,
                    '    if config.model_type == "glm4":\n        torch_dtype = torch.bfloat16\n'
                    + VERIFY,
                ),
            ),
            "glm4 is treated here in an unknown way",
        ),
        "what is returned is changed afterwards": (
            ((RETURN, "    torch_dtype = torch.float16\n" + RETURN),),
            "config or torch_dtype is changed here",
        ),
        "another configuration": (
            ((LOWER, "        config = config.text_config\n" + LOWER),),
            "config or torch_dtype is changed here",
        ),
        "another wish": (((LOWER, LOWER + '        dtype = "auto"\n'),), "dtype is changed here"),
        "two ends": (
            ((LOWER, LOWER + "        if not dtype:\n            return torch.float16\n"),),
            "returns in more than one place",
        ),
        "something else is returned": (
            ((RETURN, "    return config_dtype\n"),),
            "does not return torch_dtype",
        ),
        "no test to stand before": (
            (("    if torch_dtype != config_dtype:\n", "    if config_dtype != torch_dtype:\n"),),
            "does not test torch_dtype != config_dtype once",
        ),
        "two functions of the name": (
            (
                (
                    "def _get_and_verify_dtype(\n",
                    "def _get_and_verify_dtype():\n    pass\n\n\ndef _get_and_verify_dtype(\n",
                ),
            ),
            "2 functions named _get_and_verify_dtype",
        ),
        "another function takes its name": (
            ((RETURN, RETURN + "\n\n_get_and_verify_dtype = print\n"),),
            "_get_and_verify_dtype may be something else from here on",
        ),
        "upstream's check without glm4": (
            (
                (
                    "def _get_and_verify_dtype(\n",
                    '_FLOAT16_NOT_SUPPORTED_MODELS = {"gemma2": "no"}\n\n\n'
                    "def _get_and_verify_dtype(\n",
                ),
                (VERIFY, "    _check_valid_dtype(config.model_type, torch_dtype)\n" + VERIFY),
            ),
            "_FLOAT16_NOT_SUPPORTED_MODELS does not name glm4",
        ),
    },
)


@pytest.fixture(scope="session")
def highest() -> Path:
    """An environment with vLLM 0.9.0.1, the highest release of the range; never to be changed."""
    return cache.environment("vllm-0.9.0.1", ["vllm==0.9.0.1", "transformers==4.51.3"])


def faults(right: bytes) -> dict[str, bytes]:
    """Guards that are wrong in ways that the proof must see."""
    test = 'if config.model_type == "glm4" and torch_dtype == torch.float16:'
    auto = "            torch_dtype = torch.bfloat16\n\n    # Verify"
    return {
        "auto is refused too": edited(right, (('if dtype != "auto":', "if True:"),)),
        "auto stays float16": edited(right, ((auto, "            pass\n\n    # Verify"),)),
        "half is let through": edited(right, ((test, test[:-1] + ' and dtype != "half":'),)),
        "every model is refused": edited(right, ((test, "if torch_dtype == torch.float16:"),)),
        "another message": edited(right, (("does not support float16. ", "is not right. "),)),
        "another name": edited(right, ((test, test.replace("config.", "configuration.")),)),
        "no module": b"raise ImportError('broken')\n",
    }


@pytest.fixture(scope="module")
def behaved(released: Path) -> Mapping[str, Behaved]:
    """What the configuration of 0.8.4 answers: as released, repaired, and wrongly repaired."""
    target = find_target(str(released))
    source = (target.root / PATCH.file).read_bytes()
    right = make_plan(PATCH, source).after
    files = {"released": source, "repaired": right, **faults(right), "right again": right}
    candidates = [Candidate(PATCH, name, content) for name, content in files.items()]
    verification = verify(target, candidates, device="cpu")
    assert [each.file for each in verification.behaviours] == list(files)
    return {each.file: each for each in verification.behaviours}


def require_answers(before: Behaved, after: Behaved) -> None:
    """Float16 is taken before and refused after; nothing else changes but what auto chooses."""
    answers = {
        each.question: (each.answer, now.answer)
        for each, now in zip(before.answers, after.answers, strict=True)
    }
    reason = (
        "refused: The model type 'glm4' does not support float16. Reason: Numerical instability. "
        "Please use bfloat16 or float32 instead."
    )
    glm4, glm = "Glm4ForCausalLM", "GlmForCausalLM"
    assert answers == {
        f"dtype float16 for {glm4} in bfloat16": ("float16", reason),
        f"dtype half for {glm4} in bfloat16": ("float16", reason),
        f"dtype float16 for {glm4} in float16": ("float16", reason),
        f"dtype auto for {glm4} in float16": ("float16", "bfloat16"),
        f"dtype auto for {glm4} in float32": ("float16", "bfloat16"),
        f"dtype auto for {glm4} in bfloat16": ("bfloat16", "bfloat16"),
        f"dtype bfloat16 for {glm4} in bfloat16": ("bfloat16", "bfloat16"),
        f"dtype bfloat16 for {glm4} in float16": ("bfloat16", "bfloat16"),
        f"dtype float32 for {glm4} in bfloat16": ("float32", "float32"),
        f"dtype float16 for {glm} in bfloat16": ("float16", "float16"),
        f"dtype auto for {glm} in float16": ("float16", "float16"),
    }
    assert (before.passed, after.passed) == (False, True)


def test_the_lowest_release_takes_float16_before_and_refuses_it_after(
    behaved: Mapping[str, Behaved],
) -> None:
    require_answers(behaved["released"], behaved["repaired"])
    assert behaved["right again"].passed


def test_the_highest_release_takes_float16_before_and_refuses_it_after(highest: Path) -> None:
    target = find_target(str(highest))
    assert target.version == "0.9.0.1"
    found = examine(target, PATCH)
    assert found.state is PatchState.NEEDED
    assert found.plan is not None
    candidates = [Candidate(PATCH), Candidate(PATCH, "planned", found.plan.after)]
    before, after = verify(target, candidates, device="cpu").behaviours
    require_answers(before, after)


def test_every_wrong_guard_fails_the_proof(behaved: Mapping[str, Behaved]) -> None:
    wrong = set(behaved) - {"released", "repaired", "right again"}
    assert len(wrong) == 7
    assert [name for name in wrong if behaved[name].passed] == []
    crash = behaved["no module"].crash
    assert crash is not None
    assert crash["message"] == "broken"


def test_before_glm4_there_is_nothing_to_guard(env: Environment) -> None:
    """A release without glm4.py is not told that its config.py has the defect."""
    (env.site / "vllm/model_executor/models/glm4.py").unlink()
    metadata = env.dist_info / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 0.8.4", "Version: 0.8.3", 1))
    done = glmpatch("status", "--check", "--python", str(env.root))
    assert "glm4-float16-guard: not-applicable" in done.stdout
    assert "--any-version" not in done.stderr
    anyway = glmpatch("apply", "glm4-float16-guard", "--any-version", "--python", str(env.root))
    assert anyway.returncode == 4
    assert "glm4-float16-guard" in anyway.stderr
