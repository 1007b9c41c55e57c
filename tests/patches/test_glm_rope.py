"""glm-rope: the forms that it meets, and its proof on both ends of its range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patcher.examine import examine
from patcher.patch import PatchState, Proof
from patcher.rewriting import make_plan
from patcher.target import find_target
from patcher.verify.driver import Candidate, verify
from patches.glm_rope import PATCH
from tests.support import cache
from tests.support.cases import Cases, edited
from tests.support.environment import Environment, glmpatch

HALVING = "                layer.self_attn.rotary_emb.rotary_dim //= 2\n"
STYLE = "                layer.self_attn.rotary_emb.is_neox_style = False\n"
BIAS = "                layer.self_attn.o_proj.bias = None\n"
SKIP = "                layer.self_attn.o_proj.skip_bias_add = True\n"
LOOP = "        for layer in self.model.layers:\n"
GUARD = "            if not isinstance(layer, PPMissingLayer):\n"
SUPER = "        super().__init__(vllm_config=vllm_config, prefix=prefix)\n"
FACTOR = "        vllm_config.model_config.hf_config.partial_rotary_factor = 0.5\n"
"""Upstream's line, in 0.8.5."""

CASES = Cases(
    PATCH,
    release="0.8.4",
    mended={
        "the long form": (
            (
                (
                    HALVING,
                    HALVING.replace("//= 2", "= X // 2").replace(
                        "X", "layer.self_attn.rotary_emb.rotary_dim"
                    ),
                ),
            ),
            (),
        ),
        "a rope with a name": (
            (
                (
                    HALVING,
                    "                rope = layer.self_attn.rotary_emb\n"
                    "                rope.rotary_dim //= 2\n",
                ),
                (STYLE, "                rope.is_neox_style = False\n"),
            ),
            (
                (
                    STYLE,
                    "                rope = layer.self_attn.rotary_emb\n"
                    "                rope.is_neox_style = False\n",
                ),
            ),
        ),
        "after the style": (
            ((HALVING + STYLE, STYLE + HALVING),),
            (),
        ),
        "counted layers": (
            ((LOOP, "        for i, layer in enumerate(self.model.layers):\n"),),
            ((LOOP, "        for i, layer in enumerate(self.model.layers):\n"),),
        ),
        "no guard": (
            (
                (GUARD, "            if layer is None:\n                continue\n"),
                (
                    HALVING + STYLE + BIAS + SKIP,
                    (HALVING + STYLE + BIAS + SKIP).replace(" " * 16, " " * 12),
                ),
            ),
            (
                (GUARD, "            if layer is None:\n                continue\n"),
                (STYLE + BIAS + SKIP, (STYLE + BIAS + SKIP).replace(" " * 16, " " * 12)),
            ),
        ),
        "the halving alone in its block": (
            ((HALVING, ""), (LOOP, LOOP + GUARD + HALVING)),
            ((LOOP, LOOP + GUARD + "                pass\n"),),
        ),
        "two statements on one line": (
            ((HALVING + STYLE, HALVING.rstrip("\n") + "; " + STYLE.lstrip()),),
            (),
        ),
        "upstream's factor, and still halved": (
            ((SUPER, FACTOR + SUPER),),
            ((SUPER, FACTOR + SUPER),),
        ),
        "a log message": (
            ((SUPER, SUPER + "        print('GLM')\n"),),
            ((SUPER, SUPER + "        print('GLM')\n"),),
        ),
    },
    fixed={
        "upstream's form of 0.8.5": ((SUPER, FACTOR + SUPER),),
        "upstream's form of 0.13": (
            (
                SUPER,
                "        hf_config = vllm_config.model_config.hf_config\n"
                '        hf_config.rope_parameters["partial_rotary_factor"] = 0.5\n' + SUPER,
            ),
        ),
        "old line kept as a comment": ((STYLE, HALVING.replace("layer", "# layer", 1) + STYLE),),
    },
    drifted={
        "halved outside of the loop": (
            (
                (HALVING, ""),
                (
                    SKIP,
                    SKIP + "        self.model.layers[0].self_attn.rotary_emb.rotary_dim //= 2\n",
                ),
            ),
            "outside of a loop over all layers",
        ),
        "halved once": (
            ((HALVING, "                if layer is self.model.layers[0]:\n    " + HALVING),),
            "outside of a loop over all layers",
        ),
        "the loop is over some layers": (
            ((LOOP, "        for layer in self.model.layers[:1]:\n"),),
            "outside of a loop over all layers",
        ),
        "another divisor": (((HALVING, HALVING.replace("2", "4")),), "in an unknown way"),
        "a rope for each layer": (
            (
                (
                    HALVING,
                    "                layer.self_attn.rotary_emb = copy(layer.self_attn)\n"
                    + HALVING,
                ),
            ),
            "in an unknown way",
        ),
        "another factor": (
            ((SUPER, FACTOR.replace("0.5", "0.25") + SUPER),),
            "outside of a loop over all layers",
        ),
        "the style is not set": (((STYLE, ""),), "is_neox_style is not set to False once"),
        "the other style": (((STYLE, STYLE.replace("False", "True")),), "in an unknown way"),
        "halved twice": (((HALVING, HALVING * 2),), "once for each layer"),
        "a rope in forward": (
            ((SKIP, SKIP + "\n    def forward(self, *args):\n        self.rotary_emb(*args)\n"),),
            "rotary_emb is used here in an unknown way",
        ),
        "another base": (
            (("class GlmForCausalLM(LlamaForCausalLM,", "class GlmForCausalLM(Other,"),),
            "not built on LlamaForCausalLM",
        ),
        "another llama": (
            (
                (
                    "from vllm.model_executor.models.llama import LlamaForCausalLM",
                    "from my.llama import LlamaForCausalLM",
                ),
            ),
            "LlamaForCausalLM is not imported from vllm.model_executor.models.llama",
        ),
        "two classes": (
            (
                (
                    "class GlmForCausalLM(",
                    "class GlmForCausalLM:\n    pass\n\n\nclass GlmForCausalLM(",
                ),
            ),
            "2 classes named GlmForCausalLM",
        ),
    },
)


@pytest.fixture(scope="session")
def lowest() -> Path:
    """An environment with vLLM 0.7.3, the lowest release of the range; never to be changed."""
    return cache.environment("vllm-0.7.3", ["vllm==0.7.3", "transformers==4.48.3"])


def test_the_lowest_release_is_wrong_as_released_and_right_when_repaired(lowest: Path) -> None:
    target = find_target(str(lowest))
    assert target.version == "0.7.3"
    found = examine(target, PATCH)
    assert found.state is PatchState.NEEDED
    assert found.plan is not None
    candidates = [Candidate(PATCH), Candidate(PATCH, "planned", found.plan.after)]
    before, after = verify(target, candidates, device="cpu").results
    assert before.crash is not None
    assert "invalid for input of size" in before.crash["message"]
    assert after.passed
    assert after.equal == after.tokens == 87


def test_upstreams_factor_overrides_the_configurations_and_ours_does_not(released: Path) -> None:
    """Why the patch does not set the factor: a checkpoint with another one would go wrong."""
    target = find_target(str(released))
    released_file = (target.root / PATCH.file).read_bytes()
    ours = make_plan(PATCH, released_file).after
    upstreams = edited(ours, ((SUPER, FACTOR + SUPER),))
    assert isinstance(PATCH.proof, Proof)
    config = {**PATCH.proof.config, "partial_rotary_factor": 0.25}
    quarter = replace(PATCH, id="quarter", proof=replace(PATCH.proof, config=config))
    candidates = [
        Candidate(patch, name, source)
        for patch in (PATCH, quarter)
        for name, source in (("ours", ours), ("upstream's", upstreams))
    ]
    results = verify(target, candidates, device="cpu").results
    assert {(each.patch, each.file): each.passed for each in results} == {
        ("glm-rope", "ours"): True,
        ("glm-rope", "upstream's"): True,
        ("quarter", "ours"): True,
        ("quarter", "upstream's"): False,
    }


def test_a_llama_that_ignores_the_factor_is_refused(env: Environment) -> None:
    """As up to 0.7.2: there the same edit would rotate the whole head."""
    llama = env.site / "vllm/model_executor/models/llama.py"
    factor = b'partial_rotary_factor = getattr(config, "partial_rotary_factor", 1)\n'
    source = llama.read_bytes()
    assert source.count(factor) == 1
    llama.write_bytes(
        source.replace(factor, b"").replace(b"int(partial_rotary_factor * self.head_dim)", b"1")
    )
    before = env.tree()
    done = glmpatch("apply", "glm-rope", "--python", str(env.root))
    assert done.returncode == 5
    assert "cannot be mended beside vllm/model_executor/models/llama.py" in done.stderr
    assert "LlamaAttention ignores the configuration's partial_rotary_factor" in done.stderr
    assert env.tree() == before


def test_without_a_llama_at_all_it_is_refused(env: Environment) -> None:
    (env.site / "vllm/model_executor/models/llama.py").unlink()
    before = env.tree()
    done = glmpatch("apply", "glm-rope", "--python", str(env.root))
    assert done.returncode == 5
    assert "it counts on vllm/model_executor/models/llama.py, which is missing" in done.stderr
    assert env.tree() == before
