"""GLM-4-0414 in vLLM 0.8.4 to 0.9.0.1: float16 is accepted, overflows, and answers ``!!!!``.

https://github.com/vllm-project/vllm/issues/17154
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from patcher.patch import (
    Behaviour,
    Case,
    Neighbour,
    Patch,
    PatchState,
    Place,
    Rewrite,
    Unrecognized,
    lazy,
)

if TYPE_CHECKING:
    import libcst as cst

    from patcher import reading
else:
    cst = lazy("libcst")
    reading = lazy("patcher.reading")

MODELS = "vllm.model_executor.models"
FUNCTION = "_get_and_verify_dtype"
VERIFY = "torch_dtype != config_dtype"
UPSTREAM = "_FLOAT16_NOT_SUPPORTED_MODELS"
"""vLLM 0.9.1's table of models and reasons, which ``_check_valid_dtype`` looks up."""

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
    """``auto`` must choose another precision, and float16 be refused where a user asks for it."""
    function = find_function(module)
    body = list(function.body.body)
    verify = [n for n in body if isinstance(n, cst.If) and reading.text(n.test) == VERIFY]
    if len(verify) != 1:
        raise Unrecognized(f"{FUNCTION} does not test {VERIFY} once", function)
    guards = [n for n in body if isinstance(n, cst.If) and is_guard(n)]
    known = {node for guard in guards for node in reading.walk(guard)}
    for node in reading.walk(function):
        if isinstance(node, cst.SimpleString) and "glm4" in node.value and node not in known:
            raise Unrecognized("glm4 is treated here in an unknown way", node)
    if len(guards) == 1:
        return [Place(guards[0].test)]
    if checks_as_upstream(module, function):
        return [Place(function)]
    require_plain_names(function)
    where = body.index(verify[0])
    guard = cst.parse_statement(guard_source(module, function), config=module.config_for_parsing)
    body[where:where] = [guard.with_changes(leading_lines=[cst.EmptyLine(indent=False)])]
    block = function.body.with_changes(body=body)
    return [Place(verify[0].test, broken=True, edits={function.body: block})]


def find_function(module: cst.Module) -> cst.FunctionDef:
    found = [n for n in module.body if isinstance(n, cst.FunctionDef) and n.name.value == FUNCTION]
    if len(found) != 1 or not isinstance(found[0].body, cst.IndentedBlock):
        where = found[-1] if found else None
        raise Unrecognized(f"{len(found)} functions named {FUNCTION}", where)
    return found[0]


def guard_source(module: cst.Module, function: cst.FunctionDef) -> str:
    """The guard in the idiom of the release: from 0.9.0 on a platform tells what it supports."""
    if any(
        reading.dotted(n) == "current_platform.supported_dtypes" for n in reading.walk(function)
    ):
        return REFUSE + CHOOSE_SUPPORTED
    if not any(reading.dotted(node) == "sys.platform" for node in reading.walk(function)):
        raise Unrecognized(f"{FUNCTION} does not look at the platform", function)
    return REFUSE + CHOOSE


def is_guard(node: cst.If) -> bool:
    """Whether a statement is the guard that this patch inserts, in one of its idioms."""
    written = normal(cst.Module([node.with_changes(leading_lines=())]).code)
    return written in (normal(REFUSE + CHOOSE), normal(REFUSE + CHOOSE_SUPPORTED))


def normal(source: str) -> str:
    return ast.unparse(ast.parse(source))


def checks_as_upstream(module: cst.Module, function: cst.FunctionDef) -> bool:
    """Whether the function asks vLLM 0.9.1's table, and the table names glm4."""
    calls = [n for n in reading.walk(function) if isinstance(n, cst.Call)]
    if not any(reading.dotted(call.func) == "_check_valid_dtype" for call in calls):
        return False
    for line in module.body:
        for node in line.body if isinstance(line, cst.SimpleStatementLine) else ():
            if isinstance(node, cst.Assign) and reading.dotted(node.targets[0].target) == UPSTREAM:
                table = ast.literal_eval(reading.text(node.value))
                if isinstance(table, dict) and "glm4" in table:
                    return True
    raise Unrecognized(f"{UPSTREAM} does not name glm4", function)


def require_plain_names(function: cst.FunctionDef) -> None:
    """``config``, ``dtype`` and ``torch_dtype`` must be at the test what the guard takes them for:
    the model's configuration, what the user asked for, and what is returned."""
    parameters = {p.name.value for p in function.params.params}
    if not {"config", "dtype"} <= parameters:
        raise Unrecognized(f"{FUNCTION} does not take config and dtype", function)
    last = function.body.body[-1]
    returns = [n for n in reading.walk(function) if isinstance(n, cst.Return)]
    if len(returns) != 1 or returns[0] not in getattr(last, "body", ()):
        raise Unrecognized(f"{FUNCTION} returns in more than one place", function)
    if returns[0].value is None or reading.dotted(returns[0].value) != "torch_dtype":
        raise Unrecognized(f"{FUNCTION} does not return torch_dtype", returns[0])
    checked = False
    for statement in function.body.body:
        checked = checked or (
            isinstance(statement, cst.If) and reading.text(statement.test) == VERIFY
        )
        for node in reading.walk(statement):
            targets = [reading.dotted(t.target) for t in getattr(node, "targets", ())]
            if "config" in targets or (checked and "torch_dtype" in targets):
                raise Unrecognized("config or torch_dtype is changed here", node)
            if "dtype" in targets and not is_lowered(node):
                raise Unrecognized("dtype is changed here", node)


def is_lowered(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Assign) and reading.text(node.value) == "dtype.lower()"


def has_glm4(module: cst.Module) -> None:
    """Before GLM-4-0414 was supported there was nothing to guard."""
    reading.find_class(module, "Glm4ForCausalLM", base="nn.Module")


def case(checkpoint: str, dtype: str, *answers: str) -> Case:
    return Case("Glm4Config", "Glm4ForCausalLM", f"{MODELS}.glm4", checkpoint, dtype, answers)


def other(checkpoint: str, dtype: str, *answers: str) -> Case:
    return Case("GlmConfig", "GlmForCausalLM", f"{MODELS}.glm", checkpoint, dtype, answers)


REFUSED = "refused: does not support float16"
RIGHT = ("bfloat16", "float32")
"""Which of them, is the device's: float32 where it has no bfloat16."""

PATCH = Patch(
    id="glm4-float16-guard",
    title="GLM-4-0414 in float16 answers !!!! and nothing says why",
    why="""\
GLM-4-0414 overflows in float16: every answer is "!!!!". vLLM refuses float16 for it from 0.9.1 on.
Before, it takes --dtype float16 without a word, and dtype auto, the default, makes float16 of a
checkpoint in float16 and of one in float32.""",
    how="""\
Where the precision is settled, float16 for the model type glm4 is refused with upstream's message
if it was asked for; if auto chose it, the first precision that the device has takes its place,
bfloat16 as a rule, as in 0.9.1. Other precisions and other models are untouched.""",
    upstream="https://github.com/vllm-project/vllm/issues/17154",
    removal="Not needed from vLLM 0.9.1 on. Upgrading vLLM replaces the file and its receipt.",
    versions=">=0.8.4,<0.9.1",
    file="vllm/config.py",
    neighbours=(Neighbour("vllm/model_executor/models/glm4.py", has_glm4),),
    within=(UPSTREAM, FUNCTION),
    rewrites=(
        Rewrite(
            "refuse-float16",
            "refuse float16 for glm4; let auto choose bfloat16, or float32 where there is none",
            1,
            refuse_float16,
        ),
    ),
    known={
        # as released in 0.8.4, and repaired by this patch
        "090c8b33fc7be01339e1d9930d2044b42cab2ea305f5ba96c039b1a78a0fc4e6": PatchState.NEEDED,
        "4919f77592a238e3f2a1ba01136e17a2f567873d460218385efd8948b05b9abe": PatchState.FIXED,
        # in 0.8.5 and 0.8.5.post1
        "016f1281a0519c636bace104012ff8d1c199db89aba190d6d9cd810d67c91a48": PatchState.NEEDED,
        "31b08c57976f22fe0a5ba32c251e8c788a52d415ca7aa4f414801308358bbc33": PatchState.FIXED,
        # in 0.9.0 and 0.9.0.1
        "ff67ffc157242fe021d03ac0f513415e20f09abdcfb2c7088491f4c7a6802ea5": PatchState.NEEDED,
        "941684b5c244422e8f8efe4a8784bad4db6359fb92203f9c30135e3230a30945": PatchState.FIXED,
    },
    proof=Behaviour(
        module="vllm.config",
        config_class="Glm4Config",
        transformers="4.51.3",
        cases=(
            case("bfloat16", "float16", REFUSED),
            case("bfloat16", "half", REFUSED),
            case("float16", "float16", REFUSED),
            case("float16", "auto", *RIGHT),
            case("float32", "auto", *RIGHT),
            case("bfloat16", "auto", *RIGHT),
            case("bfloat16", "bfloat16", "bfloat16"),
            case("float16", "bfloat16", "bfloat16"),
            case("bfloat16", "float32", "float32"),
            other("bfloat16", "float16", "float16"),
            other("float16", "auto", "float16"),
        ),
    ),
)
