"""glm4-moe-mtp: what its rewrites make of a loader in our own words."""

from __future__ import annotations

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_moe_mtp.patch import PATCH
from glmpatch.source.plan import make_plan

LOADER = """\
class Glm4MoeMTP:
    def load_weights(self, weights):
        for name, tensor in weights:
            number = get_spec_layer_idx_from_weight_name(self.config, name)
            if number is None:
                continue  # of the whole model
            name = self._rewrite_spec_layer_name(number, name)
            for stacked, part in STACKED:
                if part in name:
                    name = name.replace(part, stacked)
                    if name.endswith(".bias") and name not in params:
                        continue
                    break
            else:
                if name.endswith(".bias") and name not in params:
                    continue
                load(params[name], tensor)
"""
MENDED = """\
class Glm4MoeMTP:
    def load_weights(self, weights):
        for name, tensor in weights:
            if name == "lm_head.weight":
                number = self.model.mtp_start_layer_idx
                name = f"model.layers.{number}.shared_head.head.weight"
            elif name == "model.embed_tokens.weight":
                number = self.model.mtp_start_layer_idx
            else:
                number = get_spec_layer_idx_from_weight_name(self.config, name)
                if number is None:
                    continue
                name = self._rewrite_spec_layer_name(number, name)
            for stacked, part in STACKED:
                if part in name:
                    name = name.replace(part, stacked)
                    if name.endswith(".bias") and name not in params:
                        continue
                    break
            else:
                if name.endswith(".bias") and name not in params:
                    continue
                if name.endswith(".weight_scale") and name not in params:
                    continue
                load(params[name], tensor)
"""
STACKED = "            for stacked, part in STACKED:\n"
EARLY = "            if {} and name not in params:\n                continue\n"


def mended(source: str, version: str = "0.10.0") -> str:
    plan = make_plan(PATCH, source.encode(), version)
    assert plan.state is PatchState.NEEDED, plan.findings
    return plan.after.decode()


def test_shared_weights_are_mapped_and_unknown_scales_skipped_in_the_last_branch() -> None:
    assert mended(LOADER) == MENDED
    assert make_plan(PATCH, MENDED.encode(), "0.10.0").state is PatchState.FIXED


def test_scales_that_are_skipped_before_the_renaming_are_skipped_after_it() -> None:
    """Upstream's first try, and other hands' words for it."""
    for test in ('name.endswith(".weight_scale")', '"scale" in name', "'weight_scale' in name"):
        assert mended(LOADER.replace(STACKED, EARLY.format(test) + STACKED)) == MENDED
        late = MENDED.replace(STACKED, EARLY.format(test) + STACKED)
        assert mended(late) == MENDED


def test_from_0_11_1_on_only_the_scales_are_a_defect() -> None:
    skip = '                if name.endswith(".weight_scale") and name not in params:\n'
    source = MENDED.replace(skip + "                    continue\n", "")
    plan = make_plan(PATCH, source.encode(), "0.13.0")
    assert plan.broken == ("skip-unknown-scales",)
    assert plan.after.decode() == MENDED


def test_half_of_the_mapping_is_not_recognised() -> None:
    half = MENDED.replace('name == "model.embed_tokens.weight"', 'name == "embed"')
    plan = make_plan(PATCH, half.encode(), "0.10.0")
    assert (plan.state, plan.after) == (PatchState.DRIFTED, half.encode())
    assert "not both of lm_head and embed_tokens are mapped" in plan.findings[0].reason


def test_a_loader_of_another_kind_is_not_recognised() -> None:
    for old, new in (
        ("Glm4MoeMTP", "Another"),
        ("in weights", "in self.renamed(weights)"),
        ("name = self._rewrite", "other = self._rewrite"),
        (".bias", ".biases"),
    ):
        plan = make_plan(PATCH, LOADER.replace(old, new).encode(), "0.10.0")
        assert plan.state is PatchState.DRIFTED, old
        assert plan.after == plan.before


RENAMED = "            name = self._rewrite_spec_layer_name(number, name)\n"
SEEN = "            seen.add(name)\n"


def test_what_stands_before_the_renaming_stays_before_it() -> None:
    right = MENDED.replace("    " + RENAMED, "    " + SEEN + "    " + RENAMED)
    assert mended(LOADER.replace(RENAMED, SEEN + RENAMED)) == right


def test_other_words_for_the_mapping_are_left_alone() -> None:
    head, embedding = '"lm_head.weight"', '"model.embed_tokens.weight"'
    either = f"            if name in ({head}, {embedding}):\n                name = SHARED[name]\n"
    start, end = MENDED.index(f"            if name == {head}"), MENDED.index("            else:\n")
    source = MENDED[:start] + either + MENDED[end:]
    assert make_plan(PATCH, source.encode(), "0.10.0").state is PatchState.FIXED


def test_a_test_that_never_holds_maps_nothing() -> None:
    for old in ('name == "lm_head.weight"', 'name == "model.embed_tokens.weight"'):
        source = MENDED.replace(old, f"{old} and False")
        plan = make_plan(PATCH, source.encode(), "0.10.0")
        assert plan.state is PatchState.DRIFTED
        assert "not both of lm_head and embed_tokens are mapped" in plan.findings[0].reason
