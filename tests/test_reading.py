"""Reading by structure: which value a name holds, and when that is no longer known."""

from __future__ import annotations

import libcst as cst
import pytest

from patcher import reading
from patcher.patch import Unrecognized
from patcher.reading import Flow, Value


def run(code: str) -> Flow:
    flow = Flow(pairs=("self.split",), fresh=("self.f", "self.g", "self.split"))
    return flow.run(cst.IndentedBlock(cst.parse_module(code).body))


def value(code: str, name: str = "out") -> Value:
    return run(code).values[name]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("out = x", "x"),
        ("out = (x)", "x"),
        ("y = x\nout = y", "x"),
        ("out = self.f(  x )", "self.f(x)"),
        ("y = self.f(x)\nx = 1\nout = y", "self.f(x)"),
        ("out = b + a", "(a + b)"),
        ("out = a + b", "(a + b)"),
        ("out = a * b", "(a * b)"),
        ("out = a\nout += b", "(a + b)"),
        ("pair = self.split(x)\nout, y = pair", "self.split(x)[0]"),
        ("pair = self.split(x)\nout = pair[0]", "self.split(x)[0]"),
        ("pair = (a, b)\ny, out = pair", "b"),
        ("y = self.split(x)\nif isinstance(y, tuple):\n    out = y[0]\n", "self.split(x)[0]"),
        ("out = self.f(x)\nif isinstance(out, tuple):\n    out = 0\n", "self.f(x)"),
        ("self.a = x\nout = self.a", "x"),
        ("c = config\nout = c.factor", "config.factor"),
        ("out: int = x", "x"),
        ("out = x\nprint(out)\nassert out\nif out: print(1)\n", "x"),
        ("out = x\nif y:\n    z = 1\nelse:\n    z: int = 2\n", "x"),
        ("out = x; out = self.g(out)", "self.g(x)"),
    ],
)
def test_a_name_means_what_was_computed(code: str, meaning: str) -> None:
    assert value(code).text == meaning


@pytest.mark.parametrize(
    "code",
    [
        "out = x\nif y:\n    out = z\n",
        "out = x\nif y:\n    out: int = z\n",
        "out = x\nfor out in y: pass\n",
        "out = x\ntry:\n    out = z\nexcept E: pass\n",
        "out = x\nx.add_(1)",
        "out = x\ny = x.view(-1)\ny.add_(1)",
        "out = x\nif z:\n    y = x\ny.add_(1)",
        "out = x\ny = z or x\ny += 1",
        "out = self.f(x)\nmystery(out)",
        "out = self.f(x)\ny = mystery(out)",
        "out = x\ndel out",
        "self.a = x\nself.method()\nout = self.a",
        "self.a = x\nmystery(self)\nout = self.a",
        "out = c.factor\nc = config\nc.factor = 2\nout = c",
        "out, y, z = self.split(x)",
        "out, *y = x",
    ],
)
def test_a_name_that_may_have_changed_is_unknown(code: str) -> None:
    with pytest.raises(Unrecognized):
        value(code).known()


@pytest.mark.parametrize(
    "code",
    [
        "return x\nx = 1",
        "if x:\n    return x\n",
        "raise E",
        "while x: break\n",
        "out = self.f(x)[0]",
        "x = x + x\n" * 40,
    ],
)
def test_what_cannot_be_followed_is_refused(code: str) -> None:
    with pytest.raises(Unrecognized):
        run(code)


def test_an_expression_means_the_values_of_its_names() -> None:
    """The same words twice are not the same value when a name in them has changed between."""
    flow = run("a = x ** 2\nx = 3\nb = x ** 2\nc = x ** 2")
    assert flow.values["a"].text != flow.values["b"].text
    assert flow.values["b"].text == flow.values["c"].text


def test_arguments_go_by_the_names_of_parameters() -> None:
    call = value("out = self.f(a, q=b)")
    assert {k: v.text for k, v in call.arguments("p", "q").items()} == {"p": "a", "q": "b"}
    for code in ("self.f(*a)", "self.f(**a)", "self.f(a, p=b)", "self.f(a, b, c)"):
        with pytest.raises(Unrecognized, match="cannot be told apart"):
            value(f"out = {code}").arguments("p", "q")


@pytest.mark.parametrize(
    "code",
    [
        "f = 1",
        "def f(): pass",
        "class f: pass",
        "import f",
        "import f.g",
        "import x as f",
        "from x import f",
        "from x import y as f",
        "def g(f): pass",
        "lambda *f: 0",
        "for a, f in x: pass",
        "[0 for f in x]",
        "with x as f: pass",
        "with x as (a, f): pass",
        "try: pass\nexcept E as f: pass",
        "(f := 1)",
        "f += 1",
        "f: int = 1",
        "del f",
        "a, (b, *f) = x",
        "[a, f] = x",
        "def g():\n    global f",
        "match x:\n    case [f]: pass",
        "match x:\n    case [*f]: pass",
        "match x:\n    case {**f}: pass",
        "f.a = 1",
        "f.a.b += 1",
        "setattr(f, 'a', 1)",
        "from x import *",
    ],
)
def test_everything_that_can_give_a_name_another_meaning_is_seen(code: str) -> None:
    with pytest.raises(Unrecognized, match="f may be something else"):
        reading.require_untouched(cst.parse_module(code), "f")


@pytest.mark.parametrize("code", ["g(f)", "g.f = 1", "g = f", "g(f=1)", "'f = 1'  # f = 1"])
def test_a_name_that_is_only_read_keeps_its_meaning(code: str) -> None:
    reading.require_untouched(cst.parse_module(code), "f")
