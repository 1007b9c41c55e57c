"""What the commands print: all of it through the catalogue, and JSON in English."""

from __future__ import annotations

import gettext
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest

from glmpatch import language
from glmpatch.command.cli import cli, main
from glmpatch.command.help import REFUSALS, Formatter
from glmpatch.patch import PatchState, RewriteState
from glmpatch.width import columns
from tests.support import site as sites
from tests.support import toy
from tests.support.site import Site

UNADVISED = replace(
    toy.PATCH,
    advised=False,
    caution="It stops whoever wants a difference.",
    afterwards=("look at your sums",),
)
SITUATIONS: dict[str, Callable[[Site], object]] = {
    "needed": lambda site: None,
    "fixed": lambda site: site.model.write_bytes(toy.REPAIRED + b"# mine\n"),
    "unproven": lambda site: site.model.write_bytes(toy.NEXT + b"OTHER = 1\n"),
    "of another release": lambda site: site.model.write_bytes(toy.NEXT),
    "drifted": lambda site: site.model.write_bytes(b"class Toy:\n    pass\n"),
    "no Python": lambda site: site.model.write_bytes(b"class Toy(:\n"),
    "missing": lambda site: site.model.unlink(),
    "a neighbour changed": lambda site: (site.root / toy.BESIDE).write_bytes(b"x = 1\n"),
    "known defect": lambda site: version(site, "0.8.3"),
    "other release": lambda site: (
        version(site, "0.7.0"),
        site.model.write_bytes(b"class Toy:\n    pass\n"),
    ),
    "applied": lambda site: run("apply", "--path", str(site.root)),
    "edited": lambda site: (
        run("apply", "--path", str(site.root)),
        site.model.write_bytes(site.model.read_bytes() + b"# mine\n"),
    ),
    "old transformers": lambda site: sites.distribution(site.root, "transformers", "3.9.0"),
}
COMMANDS = (
    ("status", "-v"),
    ("status", "--check"),
    ("explain", toy.PATCH.id),
    ("explain", "the", "sum", "difference"),
    ("diff",),
    ("diff", "--any-version"),
    ("apply", "--dry-run"),
    ("apply", toy.PATCH.id),
    ("apply", "--any-version"),
    ("revert", "-v"),
    ("revert", "--force"),
    ("verify",),
)
WRONG = (
    ("frobnicate",),
    ("aply",),
    ("--frobnicate",),
    ("apply", "--dry-rum"),
    ("list", "too", "many"),
    ("list", "much"),
    ("apply", "no-such-patch"),
    ("apply", "toy-sun"),
    ("explain",),
    ("explain", "qwen", "does", "not", "load"),
    ("explain", "toy-sun"),
    ("apply", "--path"),
    ("apply", "--json=yes"),
    ("apply", "--via", "luck"),
    ("verify", "--layers", "0", "--model", "/"),
    ("verify", "--layers", "many"),
    ("verify", "--layers", "1"),
    ("wheel",),
    ("wheel", "/"),
    ("wheel", "x.whl", "-o", "/etc/hostname"),
    ("wheel", "x.whl", "--verify"),
    ("status", "--ray", "--path", "/"),
)


def version(site: Site, name: str) -> int:
    return (site.dist_info / "METADATA").write_text(f"Name: vllm\nVersion: {name}\n")


def run(*arguments: str) -> int:
    """The command in this process; its exit code."""
    handler = signal.getsignal(signal.SIGTERM)
    argv, sys.argv = sys.argv, ["glmpatch", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return 0


class Bracketed(gettext.NullTranslations):
    """A language in which what comes out of a message stands in brackets, but for its fields."""

    def gettext(self, message: str) -> str:
        parts = re.split(r"(\{\w+\})", message)
        return "".join(
            part if number % 2 or not part else f"⟦{part}⟧" for number, part in enumerate(parts)
        )


DATA = re.compile(
    r"(\S+ -m )?\bglmpatch (status|list|explain|diff|apply|revert|verify|wheel|-)[^⟦⟧\n]*"
    r"|pip install [^⟦⟧\n]*|git -C [^⟦⟧\n]*"  # commands, to the end of the line
    r"|'[^'\n]*'|https?://\S+|\S*/\S*"  # what somebody typed, addresses, paths
    r"|(?<!\w)--?[a-z][a-z-]*|\b[0-9a-f]{12,64}\b|\b[0-9.]+\w*\b|\[[\w|-]+\]"
    r"|invalid syntax|it is not there|\b(LAYERS|OTHER)\b"  # Python's words, and the toy's
    r"|^  (apply|diff|explain|list|revert|status|verify|wheel)\b",
    re.MULTILINE,
)
NAMES = {
    *("vLLM", "vllm", "sha256", "torch", "transformers", "glmpatch", "Toy", "imports"),
    *("ToyConfig", "add-up", "keep-sign", "toy-sum", "DIR", "PATH", "PATCH", "TEXT", "FILE"),
    *("OPTIONS", "ARGS", "COMMAND", "ADDRESS", "html", "whl", "UTC"),
}
"""Names that are the same in every language."""


def bare(text: str) -> list[str]:
    """The words of an output that no message brought there."""
    text = re.sub(r"⟦[^⟧]*⟧", "⟦⟧", text)
    words = re.findall(r"[A-Za-z][\w-]*[A-Za-z0-9]", DATA.sub("⟦⟧", text))
    return [word for word in words if word not in NAMES]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Site]:
    """Makes a vLLM in one of the situations, always in the same place."""
    toy.use(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")

    def made(situation: str) -> Site:
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        site = sites.make(
            *(tmp_path / "site", toy.RELEASED, "0.8.4", {toy.BESIDE: toy.NEIGHBOUR}),
            *(toy.FILE, toy.PATCH.id),
        )
        monkeypatch.setattr(language, "_catalogue", None)
        SITUATIONS[situation](site)
        return site

    return made


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_word_that_is_printed_comes_out_of_the_catalogue(
    situation: str,
    arguments: tuple[str, ...],
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = make(situation)
    capsys.readouterr()
    monkeypatch.setattr(language, "_catalogue", Bracketed())
    run(*arguments, "--path", str(site.root))
    out, err = capsys.readouterr()
    if arguments[0] == "diff":
        out = "\n".join(line for line in out.split("\n") if line[:1] not in (*"+-@ ",))
    assert bare(out) + bare(err) == [], out + err


@pytest.mark.parametrize("command", ["status", "apply", "diff", "verify"])
def test_a_patch_that_is_not_advised_is_told_in_the_same_language(
    command: str,
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = make("needed")
    toy.use(monkeypatch, UNADVISED)
    monkeypatch.setattr(language, "_catalogue", Bracketed())
    run(command, "--path", str(site.root))
    run("apply", UNADVISED.id, "--path", str(site.root))
    out, err = capsys.readouterr()
    assert "⟦look at your sums⟧" in err
    out = "\n".join(line for line in out.split("\n") if line[:1] not in (*"+-@",))
    assert bare(out) + bare(err) == [], out + err


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("command", ["", *cli.commands])
def test_the_help_comes_out_of_the_catalogue(
    command: str,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(language, "_catalogue", Bracketed())
    assert run(*([command] if command else []), "--help") == 0
    out = capsys.readouterr().out
    assert bare(out.replace("x>=1", "")) == [], out


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_is_told_in_the_same_language(
    arguments: tuple[str, ...],
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make("needed")
    monkeypatch.setattr(language, "_catalogue", Bracketed())
    assert run(*arguments) in (2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    typed = {word for each in arguments for word in re.findall(r"\w+", each)}
    assert [word for word in bare(err.replace("x>=1", "")) if word not in typed] == [], err


def test_what_click_says_is_known() -> None:
    """A release of Click that words a refusal otherwise would leave it in English."""
    for arguments in WRONG:
        try:
            cli.main([*arguments], prog_name="glmpatch", standalone_mode=False)
        except click.UsageError as error:
            said = error.format_message()
            assert language.retold(said, REFUSALS) == said
            shapes = [re.sub(r"\\\{\w+\\\}", ".+", re.escape(each)) for each in REFUSALS]
            assert any(re.fullmatch(shape, said) for shape in shapes), said
        except SystemExit:
            pass


@pytest.mark.parametrize("arguments", [("list",), *COMMANDS], ids=" ".join)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_json_is_english_in_every_language(
    situation: str,
    arguments: tuple[str, ...],
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {}
    for name in ("en", "zh_CN"):
        monkeypatch.setenv("GLMPATCH_LANG", name)
        site = make(situation)
        on = () if arguments == ("list",) else ("--path", str(site.root))
        monkeypatch.setattr(language, "_catalogue", None)
        capsys.readouterr()
        code = run(*arguments, "--json", *on)
        said[name] = (code, *capsys.readouterr())
    assert said["en"] == said["zh_CN"]
    json.loads(said["en"][1])
    assert said["en"][2] == ""


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_json_of_wrong_usage_is_english_too(
    arguments: tuple[str, ...],
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make("needed")
    said = []
    for name in ("en", "zh_CN"):
        monkeypatch.setenv("GLMPATCH_LANG", name)
        monkeypatch.setattr(language, "_catalogue", None)
        run(*arguments[:1], "--json", *arguments[1:])
        said.append(capsys.readouterr())
    assert said[0] == said[1]


def test_what_is_written_is_the_same_in_every_language(
    make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for name in ("en", "zh_CN"):
        monkeypatch.setenv("GLMPATCH_LANG", name)
        site = make("applied")
        receipt = json.loads(site.receipt.read_text())
        kept.append({key: value for key, value in receipt.items() if key != "time"})
    assert kept[0] == kept[1]


def test_a_state_is_its_name_and_in_chinese_what_it_means(
    make: Callable[[str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chinese = language.of(["zh_CN"])
    for state in (*PatchState, *RewriteState):
        assert chinese.gettext(state.value).startswith(f"{state.value}（")
    site = make("needed")
    site.model.write_bytes(toy.RELEASED.replace(b"hidden - residual", b"hidden + residual"))
    monkeypatch.setattr(language, "_catalogue", chinese)
    run("status", "--path", str(site.root))
    lines = capsys.readouterr().out.split("\n")
    assert lines[1] == "toy-sum: unproven（未经证明）"
    first, second = (line for line in lines if line.startswith("    "))
    assert first.startswith("    add-up     fixed（正确）")
    assert second.startswith("    keep-sign  broken（有缺陷）")
    places = [columns(line.partition("第")[0]) for line in (first, second)]
    assert places[0] == places[1]


@pytest.mark.parametrize("width", [50, 60, 80])
@pytest.mark.parametrize("command", [cli, *cli.commands.values()], ids=lambda c: c.name)
def test_the_help_fits_where_it_is_chinese(
    command: click.Command, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(language, "_catalogue", language.of(["zh_CN"]))
    context = command.make_context(f"glmpatch {command.name}", [], resilient_parsing=True)
    lines = command.get_help(context).split("\n")
    assert [line for line in lines if columns(line) > max(width, 52)] == []
    told = [line for line in lines if re.match(r"  -\S", line) and re.search(r"\S  +\S", line)]
    begin = {columns(re.sub(r"(  +)(?=[^- ]).*", r"\1", line[2:])) for line in told}
    assert len(begin) == 1, told
    assert lines[0].startswith("用法：glmpatch")


def test_a_long_usage_hangs_below_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_catalogue", language.of(["zh_CN"]))
    formatter = Formatter(width=40)
    formatter.write_usage("glmpatch", "[OPTIONS] [PATCH]... [PATCH]...")
    assert formatter.getvalue() == (
        "用法：glmpatch [OPTIONS] [PATCH]...\n               [PATCH]...\n"
    )


@pytest.mark.parametrize("width", [50, 80])
@pytest.mark.parametrize("command", [cli, *cli.commands.values()], ids=lambda c: c.name)
def test_the_help_in_english_is_laid_out_by_click(
    command: click.Command, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    context = command.make_context(f"glmpatch {command.name}", [], resilient_parsing=True)
    plain = click.HelpFormatter(width=width - 2)
    ours = Formatter(width=width - 2)
    command.format_help(context, plain)
    command.format_help(context, ours)
    assert ours.getvalue() == plain.getvalue()


# -- in processes of their own ------------------------------------------------------------------


def asked(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command under these variables and no other locale."""
    none = ("LC_ALL", "LC_MESSAGES", "LC_CTYPE", "LANG", "LANGUAGE", "GLMPATCH_LANG")
    kept = {key: value for key, value in os.environ.items() if key not in none}
    return subprocess.run(
        [sys.executable, "-m", "glmpatch", *arguments],
        capture_output=True,
        env={**kept, **environment},
    )


ENGLISH, CHINESE = "error: there is no patch named 'x'", "错误：没有名为 'x' 的补丁"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8"}, CHINESE),
        ({"LANG": "en_US.UTF-8"}, ENGLISH),
        ({"LANG": "C.UTF-8", "GLMPATCH_LANG": "zh_CN"}, CHINESE),
        ({"LANG": "zh_CN.UTF-8", "GLMPATCH_LANG": "en"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, ENGLISH),
        ({"LANG": "zh_CN.UTF-8", "PYTHONIOENCODING": "ascii"}, ENGLISH),
        ({"GLMPATCH_LANG": "zh_CN", "PYTHONIOENCODING": "latin-1"}, ENGLISH),
        ({"GLMPATCH_LANG": "xx", "LANG": "zh_CN.UTF-8"}, ENGLISH),
    ],
    ids=str,
)
def test_the_language_is_that_of_the_locale(environment: dict[str, str], expected: str) -> None:
    done = asked("apply", "x", **environment)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"{expected}\n")
    assert done.stdout == b""
    helped = asked("--help", **environment)
    assert helped.returncode == 0
    assert helped.stdout.decode().startswith("Usage: " if expected == ENGLISH else "用法：")


def test_other_encodings_of_chinese_are_written_in() -> None:
    for encoding in ("gbk", "gb18030"):
        done = asked("apply", "x", LANG=f"zh_CN.{encoding}", PYTHONIOENCODING=encoding)
        assert done.stderr.decode(encoding).startswith(CHINESE)


def test_closed_outputs_are_no_matter() -> None:
    script = f"{sys.executable} -m glmpatch apply x >&- 2>&-"
    done = subprocess.run(["sh", "-c", script], env={**os.environ, "GLMPATCH_LANG": "zh_CN"})
    assert done.returncode == 2


def test_the_manual_page_is_english_in_every_locale() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from docs import generate, manual; print(generate.page())\n"
            "print(manual.page(), end='')",
        ],
        capture_output=True,
        cwd=root,
        env={
            **os.environ,
            "GLMPATCH_LANG": "zh_CN",
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'patcher'}",
        },
    )
    pages = ("patches.md", "glmpatch.1")
    texts = [(root / "docs" / name).read_text("utf-8") for name in pages]
    assert done.stdout.decode() == "\n".join(texts), done.stderr


def test_a_shell_is_told_in_the_same_language() -> None:
    words = {"_GLMPATCH_COMPLETE": "zsh_complete", "COMP_WORDS": "glmpatch ap", "COMP_CWORD": "1"}
    done = asked(GLMPATCH_LANG="zh_CN", **words)
    assert "修复已安装的 vLLM" in done.stdout.decode()
    words["COMP_WORDS"], words["COMP_CWORD"] = "glmpatch apply --dry", "2"
    assert "在写入之前停止" in asked(GLMPATCH_LANG="zh_CN", **words).stdout.decode()
