"""The repair of glm4.py as a codemod for LibCST's own runner: what one would write otherwise.

    python -m libcst.tool codemod --external tests.bench.codemod.RepairGlm4 --no-format glm4.py

It makes the four changes of ``patches/glm4_residual.py`` to the released file and looks at nothing
else: no version, no form of the code but this one.
"""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m
from libcst.codemod import VisitorBasedCodemodCommand

SELF = m.Name("self")
WIDTH = m.Assign(
    targets=[m.AssignTarget(target=m.Attribute(value=SELF, attr=m.Name("rotary_dim")))]
)
NORM = m.Call(func=m.Attribute(value=SELF, attr=m.Name("post_attention_layernorm")))
SUM = m.Assign(
    targets=[m.AssignTarget(target=m.Name("hidden_states"))],
    value=m.BinaryOperation(left=m.Name("residual"), right=m.Name("hidden_states")),
)


class RepairGlm4(VisitorBasedCodemodCommand):
    """Repair GLM-4-0414 in the model file of vLLM 0.8.4."""

    DESCRIPTION = "Repair GLM-4-0414 in the model file of vLLM 0.8.4."

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        if m.matches(original_node, WIDTH):
            return updated_node.with_changes(value=cst.parse_expression("self.head_dim"))
        if m.matches(original_node.value, NORM):
            pair = cst.parse_statement("hidden_states, residual = norm")
            assert isinstance(pair, cst.SimpleStatementLine)
            (assign,) = pair.body
            assert isinstance(assign, cst.Assign)
            return updated_node.with_changes(targets=assign.targets)
        return updated_node

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.RemovalSentinel:
        if m.matches(original_node, m.SimpleStatementLine(body=[SUM])):
            return cst.RemoveFromParent()
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        if not m.matches(original_node, m.Call(func=m.Name("get_rope"))):
            return updated_node
        last = updated_node.args[-1]
        style = last.with_changes(keyword=cst.Name("is_neox_style"), value=cst.Name("False"))
        comma = updated_node.args[0].comma
        args = [*updated_node.args[:-1], last.with_changes(comma=comma), style]
        return updated_node.with_changes(args=args)
