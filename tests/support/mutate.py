"""Mutations of a Python source: neutral ones that must not matter, and hostile ones."""

from __future__ import annotations

import ast
import io
import itertools
import random
import tokenize
from collections.abc import Callable, Iterable

SKIPPED = (tokenize.ENCODING, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT)
COMMENTS = (
    "# fuzz",
    "#fuzz: hidden_states = residual + hidden_states",
    "# hidden_states = self.post_attention_layernorm(hidden_states, residual)",
    "# is_neox_style=False, é ✓",
    "# fmt: off",
)
UNRELATED = (
    "pass",
    "print('fuzz')",
    "fuzz = 1",
    "fuzz: int = 2",
    "fuzz = [n * 2 for n in range(3)]",
    "assert True, 'fuzz'",
    "'fuzz: hidden_states = residual + hidden_states'",
    "if __debug__: print('fuzz')",
    "fuzz = dict(residual=1, rotary_dim=2)",
)
ELSEWHERE = (
    "def fuzz(self, hidden_states, residual): return residual + hidden_states",
    "class fuzz: rotary_emb = None",
    "import fuzz",
    "for fuzz in (): pass",
    "fuzz = lambda x: x",
)
"""Also for places that are followed by no rewrite."""

Token = tokenize.TokenInfo
Mutation = Callable[[str, random.Random], str]


def tokens(source: str) -> list[Token]:
    return list(tokenize.generate_tokens(io.StringIO(source).readline))


def offsets(source: str) -> Callable[[tuple[int, int]], int]:
    """From (line, column) as tokenize counts them to the index in the text."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return lambda place: starts[place[0] - 1] + place[1]


def depths(found: Iterable[Token]) -> list[tuple[Token, int]]:
    """Each token with the number of brackets that are open behind it."""
    depth, pairs = 0, []
    for token in found:
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        pairs.append((token, depth))
    return pairs


def splice(source: str, at: int, new: str, until: int | None = None) -> str:
    return source[:at] + new + source[at if until is None else until :]


# -- neutral: formatting and comments -----------------------------------------------------------


def comment_line(source: str, dice: random.Random) -> str:
    """A comment or blank line of its own, between statements or inside brackets."""
    place = offsets(source)
    ends = [t for t in tokens(source) if t.type in (tokenize.NEWLINE, tokenize.NL) and t.string]
    end = place(dice.choice(ends).end)
    line = " " * dice.choice((0, 0, 4, 7)) + dice.choice((*COMMENTS, ""))
    return splice(source, end, line.rstrip() + "\n")


def comment_behind(source: str, dice: random.Random) -> str:
    place = offsets(source)
    found = tokens(source)
    ends = [
        end
        for before, end in itertools.pairwise(found)
        if end.type in (tokenize.NEWLINE, tokenize.NL)
        and end.string
        and before.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    ]
    return splice(source, place(dice.choice(ends).start), "  " + dice.choice(COMMENTS))


def space(source: str, dice: random.Random) -> str:
    """More white space between two tokens: spaces, a new line in brackets, a backslash outside."""
    place = offsets(source)
    pairs = depths(tokens(source))
    inside = [
        (a, b, depth)
        for (a, depth), (b, _) in itertools.pairwise(pairs)
        if a.end[0] == b.start[0]
        and a.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
        and b.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
    ]
    a, b, depth = dice.choice(inside)
    kinds = ["  ", "   "]
    kinds += ["\n" + " " * dice.randrange(20), "  # fuzz\n    "] if depth else [" \\\n  "]
    return splice(source, place(a.end), dice.choice(kinds), place(b.start))


def parenthesis(source: str, dice: random.Random) -> str:
    """Parentheses around an expression."""
    lines = source.splitlines(keepends=True)
    place = offsets(source)
    kinds = (ast.Call, ast.BinOp, ast.Attribute, ast.Constant, ast.Name, ast.BoolOp, ast.Compare)
    parsed = ast.parse(source)
    strings = {
        id(inner)
        for node in ast.walk(parsed)
        if isinstance(node, ast.JoinedStr)
        for inner in ast.walk(node)
    }
    found = [
        node
        for node in ast.walk(parsed)
        if isinstance(node, kinds)
        and id(node) not in strings
        and not isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del))
        and not (isinstance(node, ast.Constant) and isinstance(node.value, str))
        and "".join(lines[node.lineno - 1 : node.end_lineno]).isascii()
    ]
    node = dice.choice(found)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    end = place((node.end_lineno, node.end_col_offset))
    return splice(splice(source, end, ")"), place((node.lineno, node.col_offset)), "(")


def line_ends(source: str, dice: random.Random) -> str:
    every = dice.random() < 0.5
    lines = source.replace("\r\n", "\n").split("\n")
    ends = ["\r\n" if every or dice.random() < 0.5 else "\n" for _ in lines[1:]]
    return "".join(line + end for line, end in zip(lines, [*ends, ""], strict=True))


def indentation(source: str, dice: random.Random) -> str:
    """Another indentation, in the first level or everywhere."""
    by = dice.choice(("\t", "  ", "        "))
    inside = {t.start[0] for t in tokens(source) if t.type == tokenize.STRING and "\n" in t.string}
    lines = source.split("\n")
    if inside:
        return source
    return "\n".join(
        by * ((len(line) - len(line.lstrip(" "))) // 4)
        + " " * ((len(line) - len(line.lstrip(" "))) % 4)
        + line.lstrip(" ")
        for line in lines
    )


# -- neutral: statements that have nothing to do with it ----------------------------------------


def _positions(source: str) -> list[tuple[ast.stmt, bool]]:
    """Statements before which another one may stand, and whether a rewrite reads that block."""
    places: list[tuple[ast.stmt, bool]] = []

    def visit(node: ast.AST, path: tuple[str, ...]) -> None:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            path = (*path, node.name)
        followed = path in (("Glm4DecoderLayer", "forward"),) or (
            path[:1] in (("Glm4Attention",), ("Glm4DecoderLayer",)) and path[1:] == ("__init__",)
        )
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if not isinstance(block, list):
                continue
            for statement in block:
                visit(statement, path)
                first = statement is block[0] and isinstance(statement, ast.Expr)
                if not first and not isinstance(statement, ast.ClassDef):
                    places.append((statement, followed))

    visit(ast.parse(source), ())
    return places


def unrelated(source: str, dice: random.Random) -> str:
    lines = source.split("\n")
    alone = [
        (statement, followed)
        for statement, followed in _positions(source)
        if not getattr(statement, "decorator_list", None)
        and not lines[statement.lineno - 1][: statement.col_offset].strip()
        and not (statement.lineno > 1 and lines[statement.lineno - 2].rstrip("\r").endswith("\\"))
        and not (isinstance(statement, ast.If) and lines[statement.lineno - 1].lstrip()[:2] != "if")
    ]
    statement, followed = dice.choice(alone)
    new = dice.choice(UNRELATED if followed else UNRELATED + ELSEWHERE)
    at = statement.lineno - 1
    before = lines[at][: statement.col_offset]
    end = "\r" if lines[at].endswith("\r") else ""
    return "\n".join([*lines[:at], before + new + end, *lines[at:]])


def without_unrelated(source: bytes) -> str:
    """The syntax tree, without the statements that ``unrelated`` puts in."""
    ours = {ast.dump(ast.parse(each).body[0]) for each in UNRELATED + ELSEWHERE}
    parsed = ast.parse(source)
    for node in ast.walk(parsed):
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [s for s in block if ast.dump(s) not in ours])
    return ast.dump(parsed)


NEUTRAL = (comment_line, comment_behind, space, space, parenthesis, unrelated, unrelated)
WHOLE = (line_ends, indentation)


# -- hostile: in the places that the rewrites read ----------------------------------------------

NAMES = ("hidden_states", "residual", "positions", "x", "pair", "_")
CALLS = (
    "self.mlp",
    "self.self_attn",
    "self.input_layernorm",
    "self.post_attention_layernorm",
    "self.post_self_attn_layernorm",
    "self.post_mlp_layernorm",
)
HOSTILE = (
    "{a} = {b}",
    "{a} = {b} + {c}",
    "{a} += {b}",
    "{a} = {b}[0]",
    "{a}, {c} = {b}",
    "{a} = ({b}, {c})",
    "{a} = {m}({b})",
    "{a} = {m}({b}, {c})",
    "{a}, {b} = {m}({a}, {c})",
    "{a} = {m}({b}, {c})[0]",
    "{a} = {b}.clone()",
    "{a} = {b}.view(-1)",
    "{a}.mul_(2)",
    "{a}[0] = 0",
    "{a} = {b} * 2",
    "{a} = -{b}",
    "{a} = {b} if {c} is None else {a}",
    "{a} = [{b}, {c}]",
    "{a}[0].mul_(2)",
    "{a} = {b}.data",
    "{a} = {b}[:]",
    "{a} = torch.add({b}, {c}, out={a})",
    "{a} = lambda: {b}.zero_()",
    "{a}()",
    "del {a}",
    "print({a})",
    "print({a} := {b})",
    "assert {a} is not None",
    "if isinstance({a}, tuple): {a} = {a}[0]",
    "if isinstance({a}, tuple): {a}, {b} = {a}",
    "if {a} is None: {a} = {b}",
    "for {a} in ({b},): pass",
    "with torch.no_grad(): {a} = {b}",
    "try: {a} = {b}\n{i}finally: {c} = {a}",
    "{m} = {n}",
    "{m}.forward = {n}",
    "return {a}, {b}",
    "{a} = {b}; {b} = {c}",
)
ROPE_HOSTILE = (
    "partial_rotary_factor = {f}",
    "partial_rotary_factor *= 2",
    "self.rotary_dim = {f}",
    "self.rotary_dim //= 2",
    "self.rotary_dim = int({f} * self.head_dim)",
    "width = self.rotary_dim",
    "config.partial_rotary_factor = {f}",
    "config = self",
    "print(self.rotary_dim)",
    "self.rotary_emb.rotary_dim = 2",
    "setattr(self, 'rotary_dim', 4)",
)
FACTORS = (
    "0.5",
    "1.0",
    "config.partial_rotary_factor",
    "getattr(config, 'partial_rotary_factor', 1.0)",
    "partial_rotary_factor",
    "self.head_dim",
    "partial_rotary_factor / 2",
    "self.rotary_dim",
)


def _lines_of(source: str, owner: str, method: str) -> tuple[int, int]:
    """First and last line of the body of a method, from 1."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == method:
                    assert inner.end_lineno is not None
                    return inner.body[0].lineno, inner.end_lineno
    raise AssertionError(f"no {owner}.{method}")


def hostile_statement(source: str, dice: random.Random) -> str:
    """A statement that reads or writes what a rewrite follows, at some place of the method."""
    layer = dice.random() < 0.75
    where = ("Glm4DecoderLayer", "forward") if layer else ("Glm4Attention", "__init__")
    first, last = _lines_of(source, *where)
    body = [
        (s.lineno, s.col_offset)
        for s, _ in _positions(source)
        if first <= s.lineno <= last and isinstance(s, (ast.Assign, ast.Return, ast.Expr))
    ]
    line, column = dice.choice(body)
    form = dice.choice(HOSTILE if layer else ROPE_HOSTILE)
    names = {name: dice.choice(NAMES[:3]) for name in "abc"}
    if form.startswith("{a} = ") and dice.random() < 0.4:
        names["a"] = dice.choice(NAMES)
    new = form.format(
        **names,
        m=dice.choice(CALLS),
        n=dice.choice(CALLS),
        f=dice.choice(FACTORS),
        i=" " * column,
    )
    lines = source.split("\n")
    return "\n".join([*lines[: line - 1], " " * column + new, *lines[line - 1 :]])


def _read_lines(source: str) -> list[int]:
    """Lines that the rewrites answer for: the layer's ``forward``, the factor and the width, and
    those arguments of ``get_rope`` that the rewrites know."""
    first, last = _lines_of(source, "Glm4DecoderLayer", "forward")
    lines = list(range(first, last + 1))
    marks = ("rotary_dim", "partial_rotary_factor", "is_neox_style")
    first, last = _lines_of(source, "Glm4Attention", "__init__")
    text = source.split("\n")
    return lines + [n for n in range(first, last + 1) if any(m in text[n - 1] for m in marks)]


def hostile_token(source: str, dice: random.Random) -> str:
    """One token of those lines replaced, removed, doubled, or changed for its neighbour."""
    lines = set(_read_lines(source))
    place = offsets(source)
    found = [
        t
        for t in tokens(source)
        if t.start[0] in lines
        and t.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
    ]
    token = dice.choice(found)
    pool = {
        tokenize.NAME: [t.string for t in found if t.type == tokenize.NAME] + ["True", "False"],
        tokenize.OP: ["+", "-", "*", "=", "+=", ",", ".", "(", ")", "*", "**", ":="],
        tokenize.NUMBER: ["0", "1", "2", "0.5", "1.0"],
        tokenize.STRING: ["'partial_rotary_factor'", "'x'", "''"],
    }
    new = dice.choice(
        ("", f"{token.string} {token.string}", *(3 * [dice.choice(pool[token.type])]))
    )
    return splice(source, place(token.start), new, place(token.end))


def hostile_lines(source: str, dice: random.Random) -> str:
    """A statement removed, doubled, or changed for the next one."""
    numbers = set(_read_lines(source))
    body = [
        statement
        for statement, _ in _positions(source)
        if statement.lineno in numbers and isinstance(statement, (ast.Assign, ast.Return))
    ]
    body.sort(key=lambda statement: statement.lineno)
    at = dice.randrange(len(body) - 1)
    lines = source.split("\n")

    def text(statement: ast.stmt) -> list[str]:
        return lines[statement.lineno - 1 : statement.end_lineno]

    one, two = body[at], body[at + 1]
    if one.col_offset != two.col_offset:
        return source
    kind = dice.randrange(3)
    new = {0: [], 1: text(one) * 2, 2: text(two)}[kind]
    end = one.end_lineno or one.lineno
    between = lines[end : two.lineno - 1]
    after = text(one) if kind == 2 else text(two)
    tail = lines[two.end_lineno :]
    return "\n".join([*lines[: one.lineno - 1], *new, *between, *after, *tail])


HOSTILITIES = (hostile_statement, hostile_statement, hostile_token, hostile_token, hostile_lines)
