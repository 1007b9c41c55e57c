"""The form tells programs apart, and nothing else: held against code objects, on every Python."""

from __future__ import annotations

import functools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch.source import form
from glmpatch.source.form import Unreadable, read
from tests.support import mutate
from tests.support.model import model
from tests.support.program import program

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
SOURCE = model()


def digest(source: str | bytes) -> str:
    return read(source.encode() if isinstance(source, str) else source).digest


def why(source: str | bytes) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        digest(source)
    return caught.value


# -- against the second judge -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_layout_and_comments_make_no_difference(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(15):
        source = mutate.neutral(SOURCE, dice)
        assert digest(source) == digest(SOURCE), source
        assert program(source.encode()) == program(SOURCE.encode())


@pytest.mark.parametrize("seed", range(4))
def test_no_other_program_has_the_form(seed: int) -> None:
    dice = random.Random(seed)
    others = 0
    for _ in range(100):
        source = mutate.hostile(SOURCE, dice)
        compiled = program(source.encode())
        try:
            same = digest(source) == digest(SOURCE)
        except Unreadable:
            assert compiled is None, source
            continue
        assert compiled is not None, source
        if compiled != program(SOURCE.encode()):
            others += 1
            assert not same, source
    assert others > 20, "the edits were not hostile"


SAME = {
    "a docstring": ("def f():\n    'a'\n    return 1\n", "def f():\n    return 1\n"),
    "another one": ("def f():\n    'a'\n", "def f():\n    pass\n"),
    "of a module": ("'a'\nx = 1\n", "x = 1\n"),
    "of a method": (
        "class A:\n    def f(self):\n        'a'\n",
        "class A:\n    def f(self): ...\n",
    ),
    "constants": ("def f(x):\n    1\n    ...\n    x()\n    None\n", "def f(x):\n    x()\n"),
    "an empty branch": ("if x: pass\nelse: y()\n", "if x: 'a'\nelse:\n    y()\n    ...\n"),
    "a loop": ("while x: pass\n", "while x: ...\n"),
    "a handler": ("try: x()\nexcept E: pass\n", "try: x()\nexcept E: 'e'\n"),
    "a context": ("with x: pass\n", "with x: 1\n"),
    "quotes": ("x = 'a' \"b\"\n", 'x = """ab"""\n'),
    "numbers": ("x = 255, 1000.0, 1_0, 1j\n", "x = 0xFF, 1e3, 10, 1.0j\n"),
    "escapes": ("x = '\\xe9\\ud800\\U0001f600'\n", "x = 'é\\ud800\U0001f600'\n"),
    "NFKC": ("ﬁeld = x.ﬂ(ﬁ=1)\n", "field = x.fl(fi=1)\n"),
    "a backslash": ("x = 1 + \\\n  2\n", "x = 1 + 2\n"),
    "semicolons": ("x = 1; y = 2\n", "x = 1\ny = 2"),
    "a BOM": ("\ufeffx = 'é'\n", "x = 'é'\n"),
    "CRLF": ("x = '''a\r\nb'''\r\n", "x = '''a\nb'''\n"),
    "lone CR": ("x = 1\ry = 2\r", "x = 1\ny = 2\n"),
    "a form feed": ("x = 1\n\x0cy = 2\n", "x = 1\ny = 2\n"),
    "parts of an f-string": ("x = f'a' 'b' f'{y}c' 'd' f''\n", "x = f'ab{y}cd'\n"),
    "an empty f-string": ("x = f'' f''\n", "x = f''\n"),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_one_program(pair: tuple[str, str]) -> None:
    one, other = pair
    assert program(one.encode()) == program(other.encode()) is not None
    assert digest(one) == digest(other)


DIFFERENT = {
    "a print": ("def f(x):\n    return x\n", "def f(x):\n    print(x)\n    return x\n"),
    "a logger call": ("x = 1\n", "logger.info(1)\nx = 1\n"),
    "an assertion": ("x = 1\n", "assert x\nx = 1\n"),
    "a name alone": ("def f(): pass\n", "def f(): x\n"),
    "an f-string alone": ("def f(): pass\n", "def f(): f'{x}'\n"),
    "an empty finally": ("try: x()\nexcept E: y()\n", "try: x()\nexcept E: y()\nfinally: pass\n"),
    "a __future__": ("x: y\n", "from __future__ import annotations\nx: y\n"),
    "the order of imports": ("import a\nimport b\n", "import b\nimport a\n"),
    "an import's own name": ("import a\n", "import a as a_\n"),
    "a relative import": ("from a import b\n", "from .a import b\n"),
    "one or true": ("x = 1\n", "x = True\n"),
    "one or 1.0": ("x = 1\n", "x = 1.0\n"),
    "zeros": ("x = 0.0\n", "x = -0.0\n"),
    "text or bytes": ("x = 'a'\n", "x = b'a'\n"),
    "a name or a text": ("x = a\n", "x = 'a'\n"),
    "None or its name": ("x = None\n", "x = 'None'\n"),
    "None or nothing": ("x = {None: a}\n", "x = {**a}\n"),
    "a surrogate pair or a character": ("x = '\\ud83d\\ude00'\n", "x = '\\U0001f600'\n"),
    "keyword or stars": ("f(a=a)\n", "f(**a)\n"),
    "position only": ("def f(a, /, b): pass\n", "def f(a, b): pass\n"),
    "keyword only": ("def f(a, *, b): pass\n", "def f(a, b): pass\n"),
    "a default": ("def f(a=1, b=2): pass\n", "def f(a, b=2): pass\n"),
    "a decorator": ("def f(): pass\n", "@g\ndef f(): pass\n"),
    "async": ("def f(): pass\n", "async def f(): pass\n"),
    "a generator": ("def f(): pass\n", "def f():\n    return\n    yield\n"),
    "a class's docstring": ("class A: pass\n", "class A: 'a'\n"),
    "a global": ("def f():\n    x = 1\n", "def f():\n    global x\n    x = 1\n"),
    "else of a loop": ("for x in y: break\nelse: w()\n", "for x in y: break\nw()\n"),
    "a conversion": ("x = f'{y!r}'\n", "x = f'{y!s}'\n"),
    "what stands behind an f-string's name": ("x = f'{y}'\n", "x = f'{y:}' 'a'\n"),
    "a walrus": ("f(x := 1)\n", "f(x=1)\n"),
    "a chain": ("x = a < b < c\n", "x = (a < b) < c\n"),
    "a tuple in a subscript": ("x = a[b, c]\n", "x = a[b][c]\n"),
    "an annotation with parentheses": ("def f():\n    x: int\n", "def f():\n    (x): int\n    x\n"),
    "mangled names": ("class A:\n    x = __y\n", "class B:\n    x = __y\n"),
    "comments that are no comments": ("x = '# a'\n", "x = '#a'\n"),
    "ends of a slice": ("x = a[1:]\n", "x = a[:1]\n"),
    "else or finally": (
        "try: a()\nexcept E: b()\nelse: c()\n",
        "try: a()\nexcept E: b()\nfinally: c()\n",
    ),
    "raise or raise from": ("raise a from b\n", "raise (a, b)\n"),
    "a bare star": ("def f(*a): pass\n", "def f(**a): pass\n"),
    "letters beyond ASCII": ("x = 'é'\n", "x = 'ü'\n"),
    "names beyond ASCII": ("x.é = 1\n", "x.ü = 1\n"),
    "tabs in a text": ("x = '\t'\n", "x = ' '\n"),
    "a lone CR in a text": ("x = 'a\\rb'\n", "x = '''a\rb'''\n"),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_two_programs(pair: tuple[str, str]) -> None:
    one, other = pair
    assert None is not program(one.encode()) != program(other.encode()) is not None
    assert digest(one) != digest(other)


KEPT_IN_A_CLASS = {
    "a field's docstring": "class A:\n    x: int = 1\n    '''How many.'''\n",
    "another one": "class A:\n    x: int = 1\n    '''How few.'''\n",
    "none": "class A:\n    x: int = 1\n",
    "pass": "class A:\n    x: int = 1\n    pass\n",
    "under a test": "class A:\n    if y:\n        x: int = 1\n        'a'\n",
    "under a test, another one": "class A:\n    if y:\n        x: int = 1\n        'b'\n",
    "in a function": "def f():\n    class A:\n        x: int = 1\n        'a'\n",
    "in a function, another one": "def f():\n    class A:\n        x: int = 1\n        'b'\n",
}


def test_class_bodies_are_kept_whole() -> None:
    """vLLM's configuration reads the docstrings of fields from its own source."""
    assert len({digest(source) for source in KEPT_IN_A_CLASS.values()}) == len(KEPT_IN_A_CLASS)


def test_encodings() -> None:
    text = "x = 'Ä ä'  # é\n"
    assert digest(f"# coding: latin-1\n{text}".encode("latin-1")) == digest(text)
    assert digest(f"# vim: set fileencoding=cp1252 :\n{text}".encode("cp1252")) == digest(text)
    utf7 = b"# coding: utf-7\nx = 1\n" + "# a\ny = 2\n".encode("utf-7").replace(
        b"# a\n", b"# a+AAo-y = 3\n"
    )
    assert digest(utf7) == digest("x = 1\ny = 3\ny = 2\n"), "a comment that ends where none sees it"


# -- what is no program -------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str, int | None]] = {
    "empty": (b"", "the file is empty", 1),
    "white space": (b" \n\t\n", "the file is empty", 1),
    "syntax error": (b"x = 1\ny = = 2\n", "syntax error", 2),
    "NUL": (b"x = 1\ny = 2\0\n", "a NUL byte", 2),
    "UTF-16": ("x = 1\n".encode("utf-16"), "a NUL byte", 1),
    "not UTF-8": (b"x = 1\n# \xff\n", "not utf-8", 2),
    "an unknown cookie": (b"# coding: klingon\nx = 1\n", "klingon", 1),
    "a cookie for bytes": (b"# coding: hex\nx = 1\n", "", 1),
    "a cookie against the BOM": (b"\xef\xbb\xbf# coding: latin-1\n", "", 1),
    "a cookie that is wrong": ("# coding: ascii\n# ä\n".encode(), "not ascii", 2),
    "a return outside": (b"x = 1\nreturn x\n", "'return' outside function", 2),
    "a late __future__": (b"x = 1\nfrom __future__ import annotations\n", "__future__", 2),
    "a __future__ behind two texts": (b"'a'\n'b'\nfrom __future__ import division\n", "", 3),
    "a parameter twice": (b"def f(a, a): pass\n", "duplicate argument", 1),
    "a keyword twice": (b"f(a=1, a=2)\n", "keyword argument repeated", 1),
    "await outside": (b"await x\n", "", 1),
    "a nonlocal of nothing": (b"def f():\n    nonlocal x\n", "no binding", 2),
    "star of another module": (b"def f():\n    from a import *\n", "import * only", 2),
    "1,500 additions": (b"x = 1" + b" + 1" * 1_500, "nested too deeply", None),
    "too many bytes": (b"x = 1\n" * 400_000, "too large: 2400000 bytes", None),
    "400 elifs": (b"if a: b\n" + b"elif a: b\n" * 400, "nested too deeply", None),
    "90,000 brackets": (b"x = " + b"(" * 90_000 + b")" * 90_000, "", None),
    "90,000 signs": (b"x = " + b"-" * 90_000 + b"1", "nested too deeply", None),
    "90,000 additions": (b"x = 1" + b" + 1" * 90_000, "nested too deeply", None),
    "90,000 attributes": (b"x" + b".a" * 90_000, "nested too deeply", None),
    "20,000 lambdas": (b"lambda: " * 20_000 + b"1", "", None),
    "a huge integer": (b"x = " + b"9" * 4_250, "", None),
    "a huger one": (b"x = " + b"9" * 5_000, "", None),
    "a huge hexadecimal": (b"x = 0x" + b"f" * 3_600, "an integer of more than", None),
}


@pytest.mark.parametrize(("source", "problem", "line"), BAD.values(), ids=BAD)
def test_what_is_no_program_is_said_with_its_line(
    source: bytes, problem: str, line: int | None
) -> None:
    error = why(source)
    assert problem in error.reason
    assert line is None or error.line == line


def test_integers_up_to_four_thousand_digits_are_read() -> None:
    assert digest("x = " + "9" * 4_200) == digest(f"x = {hex(int('9' * 4_200))}")
    assert digest("x = 0x" + "f" * 3_000) != digest("x = 0x" + "f" * 2_999 + "e")


# -- parts, for messages ------------------------------------------------------------------------


def test_parts_name_what_differs_with_its_first_line() -> None:
    source = (
        "'''Doc.'''\nimport a\nfrom b import c\n\nX = 1\ny: int = 2\nprint(X)\n\n@d\ndef f():\n"
        "    pass\n\nclass A(B):\n    z = 1\n    @property\n    def g(self):\n        return 1\n"
    )
    found = read(source.encode())
    assert {part.name: part.line for part in found.parts} == {
        "imports": 2, "X": 5, "y": 6, "statements": 7, "f": 9, "A": 13, "A.z": 14, "A.g": 15,
    }  # fmt: skip
    edited = read(source.replace("return 1", "return 2").encode())
    assert [part.name for part in set(edited.parts) - set(found.parts)] == ["A.g"]


def test_another_base_or_decorator_shows_at_the_class_itself() -> None:
    one, other = (read(f"class A({base}):\n    x = 1\n".encode()) for base in "BC")
    assert [part.name for part in set(one.parts) - set(other.parts)] == ["A"]


# -- on every Python ----------------------------------------------------------------------------


@functools.cache
def pythons() -> dict[str, Path]:
    """The interpreters of this machine, by their version; each really starts."""
    found: dict[str, Path] = {}
    for version in PYTHONS:
        named = [shutil.which(f"python{version}")]
        named += [str(p) for p in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
        if uv := shutil.which("uv"):
            asked = [uv, "python", "find", "--no-python-downloads", version]
            named.append(subprocess.run(asked, capture_output=True, text=True).stdout.strip())
        for path in filter(None, named):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True)
            if done.stdout.strip() == version:
                found[version] = Path(path)
    return found


def asked(python: Path, sources: list[bytes]) -> list[dict[str, object]]:
    """What ``form.py`` answers there, in one process for all."""
    code = (
        "import sys, json, runpy; names = runpy.run_path(sys.argv[1])\n"
        "for source in json.load(sys.stdin):\n"
        "    try: print(json.dumps({'form': names['read'](bytes.fromhex(source)).digest}))\n"
        "    except names['Unreadable'] as error: print(json.dumps({'unreadable': error.reason}))"
    )
    done = subprocess.run(
        [str(python), "-I", "-B", "-c", code, form.__file__],
        input=json.dumps([source.hex() for source in sources]).encode(),
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def others() -> list[str]:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [version for version in PYTHONS if version != here]


@pytest.mark.parametrize("version", others())
def test_the_digest_is_the_same_there(version: str) -> None:
    if version not in pythons():
        pytest.skip(f"no Python {version} on this machine")
    pairs = [source for pair in (*SAME.values(), *DIFFERENT.values()) for source in pair]
    sources = [source.encode() for source in (SOURCE, *pairs, *KEPT_IN_A_CLASS.values())]
    sources += [
        "x = '\u061d \u0c3c \U0001e030 \u2ffc \u1c89'\n".encode(),  # printable in newer Pythons
        b"with (a as b, c as d): pass\n",
        b"x = a[b:c, ::2], {**a, 'b': 1}, [*a], lambda *a, b=1, **c: 0\n",
        b"x = f'{a!r:{b}.{c}} {{}} {d = } {e:%H:%M}'\n",
        b"try: x = 1e400, 1e-400, 0xFFFFFFFFFFFFFFFFFFFF\nexcept (A, B) as e: raise C from e\n",
        b"async def f():\n    async with a as b, c: return [x async for x in y if await z]\n",
    ]
    assert asked(pythons()[version], sources) == [{"form": digest(source)} for source in sources]


@pytest.mark.parametrize("version", others())
def test_what_is_no_program_here_is_none_there(version: str) -> None:
    if version not in pythons():
        pytest.skip(f"no Python {version} on this machine")
    sources = [source for source, _, _ in BAD.values()]
    assert [list(each) for each in asked(pythons()[version], sources)] == [["unreadable"]] * len(
        BAD
    )


def test_type_parameters_count() -> None:
    """They shadow a name of the module; older Pythons do not read them."""
    sources = [
        b"T = int\ndef f(x: T) -> T: return x\n",
        b"T = int\ndef f[T](x: T) -> T: return x\n",
        b"T = int\ndef f[S](x: T) -> T: return x\n",
        b"T = int\nclass f[T]: x: T\n",
        b"T = int\nclass f: x: T\n",
        b"type T = int\n",
    ]
    for version, python in pythons().items():
        answers = [answer.get("form") for answer in asked(python, sources)]
        new = version not in ("3.9", "3.10", "3.11")
        assert len(set(answers)) == (len(sources) if new else 3), version
        assert [answer is None for answer in answers] == [
            (not new and b"[T]" in s) or (not new and b"[S]" in s) or (not new and s[:4] == b"type")
            for s in sources
        ], version


def test_an_f_string_that_only_newer_pythons_read() -> None:
    """``f"{a["b"]}"`` is a program on 3.12 and a syntax error on the 3.11 that may own vLLM."""
    newer, older = b'x = f"{a["b"]}"\n', b"x = f\"{a['b']}\"\n"
    for version, python in pythons().items():
        one, other = asked(python, [newer, older])
        assert other == {"form": digest(older)}
        assert one == other if version in ("3.12", "3.13", "3.14") else "unreadable" in one


def test_it_answers_a_program_that_runs_it() -> None:
    def answer(source: bytes) -> object:
        command = [sys.executable, "-I", form.__file__]
        done = subprocess.run(command, input=source, capture_output=True, check=True)
        return json.loads(done.stdout)

    assert answer(b"x = 1\n") == {"form": digest("x = 1\n")}
    assert answer(b"x = = 1\n") == {"unreadable": why(b"x = = 1\n").reason, "line": 1}
