"""glm4-moe: what its rewrites make of a model in our own words."""

from __future__ import annotations

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_moe.patch import PATCH
from glmpatch.source.plan import make_plan

MODEL = """\
class Glm4MoE:
    def __init__(self, size, experts, prefix):
        self.gate = ReplicatedLinear(
            size, experts, bias=False, quant_config=None, prefix=f"{prefix}.gate"
        )
        self.gate.e_score_correction_bias = nn.Parameter(torch.empty(experts))

    def forward(self, x):
        logits, _ = self.gate(x)
        return self.experts(x, logits)


class Glm4MoeModel:
    def load_weights(self, weights):
        for name, tensor in weights:
            if of_draft_layer(name):
                continue
            for stacked, part in STACKED:
                if part in name:
                    break
            else:
                name = maybe_remap_kv_scale_name(name, params_dict)
                load(params_dict[name], tensor)
"""
EXACT = """\
        self.gate = nn.Linear(
            size,
            experts,
            bias=False,
            dtype=torch.float32,
        )
        self.gate.e_score_correction_bias = nn.Parameter(torch.empty(experts, dtype=torch.float32))

    def forward(self, x):
        logits = self.gate(x.to(dtype=torch.float32))
"""
ROUTER = MODEL[MODEL.index("        self.gate = ") : MODEL.index("        return")]
SCALES = """\
            if name.endswith((".k_scale", ".v_scale")):
                name = maybe_remap_kv_scale_name(name, params_dict)
                if name is None or is_pp_missing_parameter(name, self):
                    continue
                param = params_dict[name]
                weight_loader = getattr(param, "weight_loader", default_weight_loader)
                weight_loader(param, tensor)
                loaded_params.add(name)
                continue
"""
STACKED = "            for stacked, part in STACKED:\n"
SCALES_MENDED = MODEL.replace(STACKED, SCALES + STACKED)
MENDED = SCALES_MENDED.replace(ROUTER, EXACT)
FALLS_THROUGH = """\
            if "scale" in name or "zero_point" in name:
                name = maybe_remap_kv_scale_name(name, params_dict)
                if name is None:
                    continue
"""


def mended(source: str, version: str) -> str:
    plan = make_plan(PATCH, source.encode(), version)
    assert plan.state is PatchState.NEEDED, plan.findings
    return plan.after.decode()


def test_scales_are_loaded_first_and_0_10_0s_router_is_exact() -> None:
    assert mended(MODEL, "0.10.0") == MENDED
    assert mended(MODEL, "0.12.0") == SCALES_MENDED
    assert make_plan(PATCH, MENDED.encode(), "0.10.0").state is PatchState.FIXED


def test_a_scale_that_is_remapped_and_falls_through_is_loaded() -> None:
    assert mended(MODEL.replace(STACKED, FALLS_THROUGH + STACKED), "0.20.2") == SCALES_MENDED


def test_halves_of_the_router_become_whole() -> None:
    bias = MENDED.replace("torch.empty(experts, dtype=torch.float32)", "torch.empty(experts)")
    assert mended(bias, "0.10.0") == MENDED
    given = MENDED.replace("self.gate(x.to(dtype=torch.float32))", "self.gate(x)")
    assert mended(given, "0.10.0") == MENDED
    gate = MENDED.replace(EXACT[: EXACT.index(")") + 2], ROUTER[: ROUTER.index("\n        )") + 11])
    assert gate != MENDED
    assert mended(gate, "0.10.0") == MENDED


def test_other_words_for_float32_are_left_alone() -> None:
    for words in ("x.float()", "x.to(torch.float32)"):
        source = MENDED.replace("x.to(dtype=torch.float32)", words)
        assert make_plan(PATCH, source.encode(), "0.10.0").state is PatchState.FIXED


def test_a_model_of_another_kind_is_not_recognised() -> None:
    for old, new in (
        ("class Glm4MoeModel", "class Another"),
        ("in weights", "in self.renamed(weights)"),
        ("class Glm4MoE:", "class AnotherMoE:"),
        ("self.gate(x)", "route(x)"),
        ("self.gate.e_score", "self.e_score"),
        ("for stacked, part in STACKED:", "if name in STACKED:"),
    ):
        plan = make_plan(PATCH, MODEL.replace(old, new).encode(), "0.10.0")
        assert plan.state is PatchState.DRIFTED, old
        assert plan.after == plan.before


REMAPPED = """\
name = maybe_remap_kv_scale_name(name, params_dict)
                if name is None:
                    continue
"""
DRAFT = """\
            if of_draft_layer(name):
                continue
"""
ROTARY = """\
            if "rotary_emb.inv_freq" in name:
                continue
"""


def test_what_stands_beside_a_remapping_is_kept() -> None:
    branch = f'            elif name.endswith("scale"):\n                {REMAPPED}'
    for kept in (DRAFT, DRAFT + ROTARY):
        source = MODEL.replace(DRAFT, kept + branch)
        assert mended(source, "0.20.2") == SCALES_MENDED.replace(
            DRAFT + SCALES, DRAFT + SCALES + kept[len(DRAFT) :]
        )


def test_a_remapping_of_every_name_goes_with_its_skip() -> None:
    every = REMAPPED.replace("\n    ", "\n")
    source = MODEL.replace(STACKED, "            " + every + STACKED)
    assert mended(source, "0.20.2") == SCALES_MENDED


def test_a_remapping_among_other_statements_is_not_taken() -> None:
    scale = f"if 'scale' in name:\n                {REMAPPED}"
    counted = "            else:\n                count(name)\n"
    for statement in (
        f"            {scale}                seen = True\n",
        f"            {scale}{counted}",
        f"            if of(name):\n                continue\n            el{scale}{counted}",
        "            name = maybe_remap_kv_scale_name(name, params_dict)\n",
        f"            with timed():\n                {REMAPPED}",
    ):
        source = MODEL.replace(STACKED, statement + STACKED)
        plan = make_plan(PATCH, source.encode(), "0.20.2")
        assert plan.state is PatchState.DRIFTED, statement
        assert plan.after == plan.before
        assert "remapped among other statements" in plan.findings[0].reason


def test_other_words_for_the_gate_and_its_call_are_mended() -> None:
    for old, new in (
        ("logits, _ = self.gate(x)", "logits = self.gate(x)[0]"),
        ("logits, _ = self.gate(x)", "logits, bias = self.gate(x)"),
        ("logits, _ = self.gate(x)", "logits = F.linear(x, self.gate.weight)"),
    ):
        assert mended(MODEL.replace(old, new), "0.10.0") == MENDED, new
    annotated = MODEL.replace("self.gate = R", "self.gate: nn.Module = R")
    assert mended(annotated, "0.10.0") == MENDED.replace(
        "self.gate = nn", "self.gate: nn.Module = nn"
    )


def test_a_second_value_of_the_gate_that_is_used_is_not_recognised() -> None:
    source = MODEL.replace("logits, _ = self", "logits, bias = self").replace(
        "self.experts(x, logits)", "self.experts(x, logits + bias)"
    )
    assert make_plan(PATCH, source.encode(), "0.10.0").state is PatchState.DRIFTED


def test_torch_float_is_float32() -> None:
    for old, new in (
        ("torch.empty(experts, dtype=torch.float32)", "torch.empty(experts, dtype=torch.float)"),
        ("x.to(dtype=torch.float32)", "x.to(torch.float)"),
    ):
        source = MENDED.replace(old, new)
        assert make_plan(PATCH, source.encode(), "0.10.0").state is PatchState.FIXED
