"""The gap of ``config.py`` up to vLLM 0.9.0.1: float16 is accepted for GLM-4-0414."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet

FUNCTION = "_get_and_verify_dtype"
VERIFY = Snippet(
    "torch_dtype != config_dtype",
    "config_dtype != torch_dtype",
    "not torch_dtype == config_dtype",
    "not config_dtype == torch_dtype",
)

REFUSE = """\
if config.model_type == "glm4" and torch_dtype == torch.float16:
    # GLM-4-0414 overflows in float16.
    if dtype != "auto":
        raise ValueError("The model type 'glm4' does not support float16. "
                         "Reason: Numerical instability. "
                         "Please use bfloat16 or float32 instead.")
    from vllm.platforms import current_platform
"""
CHOOSE = """\
    if ((current_platform.is_cuda()
         and not current_platform.has_device_capability(80))
            or sys.platform.startswith("darwin")):
        torch_dtype = torch.float32
    else:
        torch_dtype = torch.bfloat16
"""
"""Up to 0.8.5 a platform does not tell what it supports; this is what 0.9.1's platforms say."""
CHOOSE_SUPPORTED = """\
    torch_dtype = next(each for each in current_platform.supported_dtypes
                       if each != torch.float16)
"""


def refuse_float16(module: cst.Module) -> list[Place]:
    """Where the precision is settled, float16 for ``glm4`` is refused, or ``auto`` chooses anew."""
    function = tree.find_function(module, FUNCTION)
    guards = [each for each in tree.find_all(module, cst.SimpleString) if "glm4" in each.value]
    if guards:
        return [Place(guards[-1])]  # ours, upstream's table of 0.9.1, or somebody's own
    body = list(function.body.body)
    tests = [each for each in body if isinstance(each, cst.If) and VERIFY.match(each.test)]
    if len(tests) != 1:
        raise Unrecognized(
            _("{function} does not test torch_dtype != config_dtype once", function=FUNCTION),
            function,
        )
    supported = "current_platform.supported_dtypes"
    names = {tree.dotted(each) for each in tree.find_all(function, cst.Attribute)}
    guard = cst.parse_statement(REFUSE + (CHOOSE_SUPPORTED if supported in names else CHOOSE))
    where = body.index(tests[0])
    body[where:where] = [guard.with_changes(leading_lines=[cst.EmptyLine(indent=False)])]
    block = function.body.with_changes(body=body)
    return [Place(tests[0].test, broken=True, edits={function.body: block})]
