"""The defects of GLM-4.5's tool parser, each with its wrong forms and what is right."""

from __future__ import annotations

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.patches.glm4_moe_tool_parser.stream import (
    WHOLE_CALLS,
    WHOLE_DELTAS,
    WHOLE_ENTRIES,
)
from glmpatch.source import tree
from glmpatch.source.snippets import Found, Snippet, fill, replace

PARSER = "Glm4MoeModelToolParser"
STREAM, EVENT = "extract_tool_calls_streaming", "_one_event"
SPACED = {",": ", ", ':"': ': "', ":": ": "}

STRIPPED = Snippet("VALUE = RAW.strip()")
READ = {
    Snippet(f"VALUE = {read}(RAW)"): f"VALUE = {read}(RAW.strip())"
    for read in ("self._deserialize", "_deserialize")
}
KIND = Snippet(
    'KIND = PARAMETERS.get("properties", {}).get(NAME, {}).get("type", None)',
    'KIND = PARAMETERS.get("properties", {}).get(NAME, {}).get("type")',
)
KINDS = Snippet('return kinds - {"null"} == {"string"}')
FROM_SCHEMA = (
    'properties = PARAMETERS.get("properties")',
    "schemas = [properties.get(NAME)] if isinstance(properties, dict) else []",
    "kinds = set()",
    """\
while schemas:
    schema = schemas.pop()
    if isinstance(schema, dict):
        said = {
            key: schema[key] if isinstance(schema.get(key), list) else []
            for key in ("type", "enum", "anyOf", "oneOf")
        }
        kinds.update(map(str, said["type"] or [schema.get("type", "null")]))
        for value in said["enum"]:
            named = {str: "string", type(None): "null"}
            kinds.add(named.get(type(value), "other"))
        schemas += said["anyOf"] + said["oneOf"]
""",
    'return kinds - {"null"} == {"string"}',
)
PROPERTY = Snippet("PROPERTIES.get(arg_name)")
ANY_SHAPE = "PROPERTIES.get(arg_name) if isinstance(PROPERTIES, dict) else None"
NAME = Snippet("TOOL.function.name")
PARAMETERS = Snippet("TOOL.function.parameters")
FUNCTION = Snippet('getattr(TOOL, "function", TOOL)')
PAIRS = Snippet("self.func_arg_regex.findall(TEXT)")
PAIRS_OR_NONE = Snippet(
    "self.func_arg_regex.findall(TEXT) if TEXT else []",
    'self.func_arg_regex.findall(TEXT or "")',
)
NAME_OF = Snippet("self._extract_tool_name_from_region(TEXT)")
WHOLE = Snippet('TEXT + "\\n" if is_complete else TEXT')
ESCAPED = Snippet("ESCAPED = self._json_escape_string_content(TEXT)")


def whole_deltas(module: cst.Module) -> list[Place]:
    """The released method gives one event a delta: another one asks it until there is none left."""
    return in_front(module, WHOLE_DELTAS)


def whole_entries(module: cst.Module) -> list[Place]:
    """The same where the Responses API takes a name with its arguments."""
    return in_front(module, WHOLE_ENTRIES)


def whole_calls(module: cst.Module) -> list[Place]:
    """The same up to 0.13, where the last message of a stream loses the name as well."""
    return in_front(module, WHOLE_CALLS)


def in_front(module: cst.Module, source: str) -> list[Place]:
    """The streaming method renamed, and another one of its name in front of it."""
    parser = tree.find_class(module, PARSER)
    stream = tree.find_function(parser, STREAM)
    if stream not in parser.body.body:
        raise Unrecognized(_("the streaming method is not the class's own"), stream)
    if any(isinstance(e, cst.FunctionDef) and e.name.value == EVENT for e in parser.body.body):
        return [Place(stream.name)]
    method = cst.parse_statement(source)
    assert isinstance(method, cst.FunctionDef)
    method = method.with_changes(leading_lines=stream.leading_lines)
    at = list(parser.body.body).index(stream)
    statements = [*parser.body.body[:at], method, *parser.body.body[at:]]
    edits = {
        parser.body: parser.body.with_changes(body=statements),
        stream.name: cst.Name(EVENT),
    }
    return [Place(stream.name, broken=True, edits=edits)]


def separators(module: cst.Module) -> list[Place]:
    """``"," + key + ":" + value`` → ``", "`` and ``": "``, as ``json.dumps`` has them.

    The serving layer compares what was sent with what ``json.dumps`` makes of the arguments, and
    sends these once more where the two differ.
    """
    parser = tree.find_class(module, PARSER)
    sums = tree.find_all(parser, cst.BinaryOperation)
    strings = [
        each
        for each in dict.fromkeys(part for sum_ in sums for part in (sum_.left, sum_.right))
        if isinstance(each, cst.SimpleString)
        and each.evaluated_value in (*SPACED, *SPACED.values())
    ]
    if not strings:
        raise Unrecognized(_("no arguments are put together"), parser)
    tight = [each for each in strings if each.evaluated_value in SPACED]
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {
        each: each.with_changes(value=each.value.replace(",", ", ").replace(":", ": "))
        for each in tight
    }
    return [Place((tight or strings)[0], broken=bool(tight), edits=edits)]


def keep_indentation(module: cst.Module) -> list[Place]:
    """``v = raw.strip()`` and ``v = read(v)`` → ``v = raw`` and ``v = read(v.strip())``."""
    extract = tree.find_method(module, PARSER, "extract_tool_calls")
    for form, right in READ.items():
        for found in Snippet(right).find(extract):
            return [Place(found.node)]
        for read in form.find(extract):
            for stripped in STRIPPED.find(extract):
                if stripped.name("VALUE") == read.name("RAW"):
                    edits = {**replace(stripped, "VALUE = RAW"), **replace(read, right)}
                    return [Place(stripped.node, broken=True, edits=edits)]
    raise Unrecognized(_("a value is neither kept nor read"), extract)


def optional_strings(module: cst.Module) -> list[Place]:
    """``type == "string"`` alone → also with null, in ``anyOf``, ``oneOf`` and ``enum``."""
    test = is_string_type(module)
    for found in KINDS.find(test):
        return [Place(found.node)]
    for found in KIND.find(test):
        block, at = block_of(test, found.node)
        new = [statement(source, found) for source in FROM_SCHEMA]
        changed = block.with_changes(body=[*block.body[:at], *new])
        return [Place(found.node, broken=True, edits={block: changed})]
    raise Unrecognized(_("the type of a parameter is not asked for"), test)


def is_string_type(module: cst.Module) -> cst.FunctionDef:
    return tree.find_method(module, PARSER, "_is_string_type")


def block_of(function: cst.FunctionDef, node: cst.CSTNode) -> tuple[cst.IndentedBlock, int]:
    """The block in which a statement stands, and its place there."""
    for block in tree.find_all(function, cst.IndentedBlock):
        for at, each in enumerate(block.body):
            if isinstance(each, cst.SimpleStatementLine) and node in each.body:
                return block, at
    raise Unrecognized(_("not a statement of its own"), node)


def statement(source: str, found: Found) -> cst.BaseStatement:
    node = fill(source, found)
    if isinstance(node, cst.BaseSmallStatement):
        return cst.SimpleStatementLine([node])
    assert isinstance(node, cst.BaseStatement)
    return node


def schemas_of_any_shape(module: cst.Module) -> list[Place]:
    """``properties.get(name)`` where properties may be null → None, and no AttributeError."""
    test = is_string_type(module)
    for found in PROPERTY.find(test):
        for _found in Snippet(ANY_SHAPE).find(test):
            return [Place(found.node)]
        return [Place(found.node, broken=True, edits=replace(found, ANY_SHAPE))]
    raise Unrecognized(_("the schema of a parameter is not asked for"), test)


def tools_of_any_api(module: cst.Module) -> list[Place]:
    """``tool.function.name`` → the tool's own name, where it has no function (Responses API)."""
    test = is_string_type(module)
    names, parameters = list(NAME.find(test)), list(PARAMETERS.find(test))
    if not names or not parameters:
        for found in FUNCTION.find(test):
            return [Place(found.node)]
        raise Unrecognized(_("the name of a tool is not asked for"), test)
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {}
    for each in names:
        edits.update(replace(each, 'getattr(getattr(TOOL, "function", TOOL), "name", None)'))
    for each in parameters:
        edits.update(replace(each, 'getattr(TOOL, "function", TOOL).parameters'))
    return [Place(names[0].node, broken=True, edits=edits)]


def no_arguments(module: cst.Module) -> list[Place]:
    """``findall(None)`` for a call without arguments: TypeError → no pairs."""
    extract = tree.find_method(module, PARSER, "extract_tool_calls")
    for found in PAIRS_OR_NONE.find(extract):
        return [Place(found.node)]
    for found in PAIRS.find(extract):
        right = "self.func_arg_regex.findall(TEXT) if TEXT else []"
        return [Place(found.node, broken=True, edits=replace(found, right))]
    raise Unrecognized(_("the arguments are not looked for"), extract)


def names_alone(module: cst.Module) -> list[Place]:
    """A name ends with the call, too, where neither a line nor an argument follows it."""
    stream = tree.find_class(module, PARSER)
    for found in NAME_OF.find(stream):
        if WHOLE.match(found["TEXT"]):
            return [Place(found.node)]
        right = 'self._extract_tool_name_from_region(TEXT + "\\n" if is_complete else TEXT)'
        return [Place(found.node, broken=True, edits=replace(found, right))]
    raise Unrecognized(_("the name of a call is not looked for"), stream)


def values_whole(module: cst.Module) -> list[Place]:
    """No part of a value that is no string: as JSON it may be written otherwise than it came."""
    build = tree.find_method(module, PARSER, "_build_args_json_so_far")
    for test in reversed(tree.find_all(build, cst.If)):
        if next(ESCAPED.find(test.body), None):
            return [
                Place(
                    test.test,
                    broken=test.orelse is not None,
                    edits={test: test.with_changes(orelse=None)} if test.orelse else {},
                )
            ]
    raise Unrecognized(_("a part of a string is not sent"), build)
