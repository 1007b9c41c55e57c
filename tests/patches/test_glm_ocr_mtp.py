"""glm-ocr-mtp: what its rewrite makes of a loader in our own words."""

from __future__ import annotations

from glmpatch.patch import PatchState
from glmpatch.patches.glm_ocr_mtp.patch import PATCH
from glmpatch.source.plan import make_plan

LOADER = """\
class GlmOcrMTP:
    def load_weights(self, weights):
        for name, tensor in weights:
            if name != "lm_head.weight":
                number = get_spec_layer_idx_from_weight_name(self.config, name)
                if number is None:
                    continue
            load(params[self._rewrite_spec_layer_name(number, name)], tensor)
"""
STRIPPED = '            name = name.replace("model.language_model.", "model.", 1)\n'
TEST = '            if name != "lm_head.weight":\n'
ASKED = "                number = get_spec"


def test_the_wrapper_is_taken_away_first() -> None:
    plan = make_plan(PATCH, LOADER.encode())
    assert plan.state is PatchState.NEEDED
    assert plan.after.decode() == LOADER.replace(TEST, STRIPPED + TEST)
    assert make_plan(PATCH, plan.after).state is PatchState.FIXED


def test_other_words_for_it_are_left_alone() -> None:
    for words in (
        'name = name.replace("model.language_model.layers", "model.layers")',
        'name = name.replace("language_model.", "")',
    ):
        source = LOADER.replace(ASKED, f"                {words}\n{ASKED}")
        assert make_plan(PATCH, source.encode()).state is PatchState.FIXED


def test_too_late_is_as_good_as_never() -> None:
    late = LOADER.replace("            load(", STRIPPED + "            load(")
    plan = make_plan(PATCH, late.encode())
    assert plan.after.decode() == late.replace(TEST, STRIPPED + TEST)


def test_a_loader_of_another_kind_is_not_recognised() -> None:
    for old, new in (
        ("GlmOcrMTP", "Another"),
        ("get_spec_layer_idx_from", "layer_of"),
        (
            "for name, tensor in weights:",
            "while name:",
        ),
    ):
        plan = make_plan(PATCH, LOADER.replace(old, new).encode())
        assert plan.state is PatchState.DRIFTED, old


def test_a_layer_that_is_asked_of_another_name_is_not_recognised() -> None:
    """That may be right as it is."""
    source = LOADER.replace("config, name)", 'config, name.replace("language_model.", ""))')
    plan = make_plan(PATCH, source.encode())
    assert (plan.state, plan.after) == (PatchState.DRIFTED, source.encode())
    assert "not asked of the weight's own name" in plan.findings[0].reason


def test_a_wrapper_that_is_taken_away_now_and_then_is_not_taken_away() -> None:
    strip = '                name = name.replace("language_model.", "")\n'
    other = f'            if name.endswith(".bias"):\n{strip}'
    plan = make_plan(PATCH, LOADER.replace(TEST, other + TEST).encode())
    assert plan.after.decode() == LOADER.replace(TEST, STRIPPED + other + TEST)
    for test in ('name.startswith("model.language_model.")', '"language_model." in name'):
        source = LOADER.replace(TEST, f"            if {test}:\n{strip}{TEST}")
        assert make_plan(PATCH, source.encode()).state is PatchState.FIXED
