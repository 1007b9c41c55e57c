"""Mutations of any Python source.

Neutral ones leave the program alone, unrelated ones add what no rewrite looks at, hostile ones
change anything anywhere.
"""

from __future__ import annotations

import ast
import io
import itertools
import keyword
import random
import tokenize
from collections.abc import Callable, Iterable

COMMENTS = (
    "# fuzz",
    "#fuzz: hidden_states = residual + hidden_states",
    "# hidden_states = self.post_attention_layernorm(hidden_states, residual)",
    "# is_neox_style=False, é ✓",
    "# fmt: off",
)
UNRELATED = (
    "print('fuzz')",
    "fuzz = 1",
    "fuzz: int = 2",
    "fuzz = [n * 2 for n in range(3)]",
    "assert True, 'fuzz'",
    "if __debug__: print('fuzz')",
    "fuzz = dict(residual=1, rotary_dim=2)",
    "def fuzz(self, hidden_states, residual): return residual + hidden_states",
    "class fuzz: rotary_emb = None",
    "import fuzz",
    "for fuzz in (): pass",
    "fuzz = lambda x: x",
)

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


NEUTRAL: tuple[Mutation, ...] = (comment_line, comment_behind, space, space, parenthesis)
WHOLE: tuple[Mutation, ...] = (line_ends, indentation)


# -- statements anywhere ------------------------------------------------------------------------


def statements(source: str) -> list[ast.stmt]:
    """Statements with a line of their own, before which another one may stand."""
    lines = source.split("\n")
    found: list[ast.stmt] = []
    for node in ast.walk(ast.parse(source)):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            found += block if isinstance(block, list) else []
    return [
        each
        for each in found
        if not getattr(each, "decorator_list", None)
        and not lines[each.lineno - 1][: each.col_offset].strip()
        and not (each.lineno > 1 and lines[each.lineno - 2].rstrip("\r").endswith("\\"))
        and not lines[each.lineno - 1].lstrip().startswith("elif")
        and getattr(each, "module", None) != "__future__"
    ]


def before(source: str, statement: ast.stmt, new: str) -> str:
    """The source with a statement more, in front of another one."""
    lines = source.split("\n")
    at = statement.lineno - 1
    indent = lines[at][: statement.col_offset]
    end = "\r" if lines[at].endswith("\r") else ""
    added = [indent + line + end for line in new.split("\n")]
    return "\n".join([*lines[:at], *added, *lines[at:]])


def unrelated(source: str, dice: random.Random) -> str:
    """A statement more that has nothing to do with any defect."""
    return before(source, dice.choice(statements(source)), dice.choice(UNRELATED))


# -- hostile ------------------------------------------------------------------------------------

HOSTILE = (
    "{a} = {b}",
    "{a} = {b} + {c}",
    "{a} += {b}",
    "{a} = {b}[0]",
    "{a}, {c} = {b}",
    "{a} = {m}({b}, {c})",
    "{a}, {b} = {m}({a}, {c})",
    "{a}.mul_(2)",
    "{a}[0] = 0",
    "{a} = {b} if {c} is None else {a}",
    "{a} = lambda: {b}",
    "del {a}",
    "print({a})",
    "print({a} := {b})",
    "assert {a} is not None",
    "if isinstance({a}, tuple): {a} = {a}[0]",
    "for {a} in ({b},): pass",
    "with {a}: {a} = {b}",
    "try: {a} = {b}\nfinally: {c} = {a}",
    "{m} = {a}",
    "{m}.forward = {a}",
    "return {a}, {b}",
    "{a}: {b}",
    "global {a}",
    "yield {a}",
    "setattr({a}, {b!r}, {c})",
    "from {a} import *",
    "@{a}\ndef {b}(*{c}): pass",
    "class {a}: pass",
    "'''{a}'''",
    "pass",
)


def hostile_statement(source: str, dice: random.Random) -> str:
    """A statement more, about names of the file, anywhere."""
    found = [t.string for t in tokens(source) if t.type == tokenize.NAME]
    names = [name for name in found if not keyword.iskeyword(name)]
    some = {name: dice.choice(names) for name in "abcm"}
    where = dice.choice(statements(source))
    return before(source, where, dice.choice(HOSTILE).format(**some))


def hostile_token(source: str, dice: random.Random) -> str:
    """A token replaced by another one of the file, removed or doubled."""
    place = offsets(source)
    kinds = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
    found = [t for t in tokens(source) if t.type in kinds]
    token = dice.choice(found)
    alike = [t.string for t in found if t.type == token.type]
    more = {
        tokenize.NAME: ["True", "False", "None", "self", "not"],
        tokenize.OP: ["+", "-", "*", "=", "+=", ",", ".", "**", ":=", "//", "<", "=="],
        tokenize.NUMBER: ["0", "1", "2", "0.5", "1.0", "-1"],
        tokenize.STRING: ["'partial_rotary_factor'", "''", "b''", "f'{x}'"],
    }[token.type]
    new = dice.choice(("", f"{token.string} {token.string}", *(3 * [dice.choice(alike + more)])))
    return splice(source, place(token.start), new, place(token.end))


def hostile_swap(source: str, dice: random.Random) -> str:
    """Two tokens of a kind in each other's place: arguments, operands, names."""
    place = offsets(source)
    kind = dice.choice((tokenize.NAME, tokenize.NAME, tokenize.OP, tokenize.STRING))
    found = [t for t in tokens(source) if t.type == kind]
    if len(found) < 2:
        return source
    at = dice.randrange(len(found) - 1)
    one, two = found[at], found[min(len(found) - 1, at + dice.randrange(1, 4))]
    between = source[place(one.end) : place(two.start)]
    return splice(source, place(one.start), two.string + between + one.string, place(two.end))


def hostile_lines(source: str, dice: random.Random) -> str:
    """A statement removed, doubled, or put in another place."""
    lines = source.split("\n")
    every = statements(source)
    one, other = dice.choice(every), dice.choice(every)
    end = one.end_lineno or one.lineno
    text = lines[one.lineno - 1 : end]
    rest = [*lines[: one.lineno - 1], *lines[end:]]
    kind = dice.randrange(4)
    if kind == 0:
        return "\n".join(rest)
    if kind == 1:
        return "\n".join([*lines[:end], *text, *lines[end:]])
    by = other.col_offset - one.col_offset
    moved = [" " * by + line if by > 0 else line[-by:] for line in text]
    if kind == 2:
        return "\n".join([*lines[: other.lineno - 1], *moved, *lines[other.lineno - 1 :]])
    at = other.lineno - 1 - (len(text) if other.lineno > end else 0)
    return "\n".join([*rest[:at], *moved, *rest[at:]])


HOSTILITIES: tuple[Mutation, ...] = (
    hostile_statement,
    hostile_statement,
    hostile_token,
    hostile_token,
    hostile_swap,
    hostile_lines,
)


def hostile(source: str, dice: random.Random) -> str:
    """One or two hostile edits; what comes out may be no program any more."""
    for _ in range(dice.choice((1, 1, 2))):
        try:
            source = dice.choice(HOSTILITIES)(source, dice)
        except (SyntaxError, tokenize.TokenError):
            break  # after the first of two
    return source


def neutral(source: str, dice: random.Random) -> str:
    """The same program in another layout, with other comments."""
    for mutation in dice.choices(NEUTRAL, k=dice.randrange(1, 5)):
        source = mutation(source, dice)
    return dice.choice(WHOLE)(source, dice) if dice.random() < 0.6 else source
