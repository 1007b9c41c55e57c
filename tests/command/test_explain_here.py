"""What ``explain`` says of the vLLM that is here: what comes first, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from glmpatch.unpatched import Unpatched, unpatched
from tests.command.test_cli import SCHEMA, here
from tests.command.test_language import make
from tests.support import fake, toy
from tests.support.site import Site

__all__ = ["make"]

ERROR = "ToyError: the sum of 3 toys is a difference"
SURE = replace(toy.PATCH, symptoms=(ERROR,))
OTHER = replace(toy.PATCH, id="a-toy-of-another-release", versions=">=0.7,<0.8")
MENDED = replace(toy.PATCH, id="a-toy-mended")
OLD = "Model architectures ['Glm4ForCausalLM'] are not supported for now"


def put(situation: str, make: Callable[[str], Site]) -> Site:
    site = make(situation)
    if situation == "fixed":
        site.model.write_bytes(toy.REPAIRED)
    return site


def explain(site: Site, *text: str) -> tuple[str, str]:
    done = here("explain", *text, "--path", str(site.root))
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("situation", "hint"),
    [
        ("needed", "apply toy-sum --verify --path"),
        ("known defect", "apply toy-sum --verify --any-version --path"),
        ("unproven", "prove it, and mend it if the proof says so"),
        ("drifted", "prove it as it stands"),
        ("applied", "restart every running vLLM server"),
        ("fixed", "this vLLM does not have this defect"),
        ("other release", "this vLLM does not have this defect"),
    ],
)
def test_an_error_leads_on_whatever_the_state(
    situation: str, hint: str, make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = put(situation, make)
    toy.use(monkeypatch, SURE)
    _out, err = explain(site, ERROR)
    assert hint in err
    if "does not have" in hint:
        assert "glmpatch status" in err
        assert "apply" not in err
    if situation in ("unproven", "drifted"):
        status = here("status", toy.PATCH.id, "--path", str(site.root))
        assert err == status.stderr


@pytest.mark.parametrize("situation", ["applied", "fixed", "other release"])
def test_nobody_who_names_a_patch_saw_an_error(situation: str, make: Callable[[str], Site]) -> None:
    _out, err = explain(put(situation, make), toy.PATCH.id)
    assert err == ""


def test_what_this_vllm_needs_comes_first_and_what_it_cannot_have_is_a_line(
    make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make("needed")
    toy.use(monkeypatch, OTHER, toy.PATCH)
    text = "every sum is a difference"
    out, err = explain(site, text)
    *_, last = out.splitlines()
    assert out.startswith("perhaps, by the words that it shares: ")
    assert out.splitlines()[1].startswith("toy-sum: ")
    assert last == f"{OTHER.id}: perhaps; vLLM 0.8.4: not-applicable (the patch is for vLLM " + (
        f"{OTHER.versions})"
    )
    assert OTHER.id not in err
    answer = json.loads(here("explain", text, "--json", "--path", str(site.root)).stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    assert [each["id"] for each in answer["patches"]] == ["toy-sum", OTHER.id]


def test_where_all_are_for_others_status_leads_on(
    make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make("needed")
    toy.use(monkeypatch, OTHER)
    out, err = explain(site, "every sum is a difference")
    assert len(out.splitlines()) == 1
    assert "shows the defects that this vLLM has" in err


def test_what_is_sure_is_told_whole_for_another_release_too(
    make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make("needed")
    toy.use(monkeypatch, replace(OTHER, symptoms=(ERROR,)), SURE)
    out, _err = explain(site, ERROR)
    first, second = (out.index(f"{name}: ") for name in ("toy-sum", OTHER.id))
    assert first < second
    assert out.count("symptoms") == 2


def test_several_names_are_each_explained(
    make: Callable[[str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make("needed")
    toy.use(monkeypatch, MENDED, toy.PATCH)
    out, _err = explain(site, "toy-sum", MENDED.id, "toy-sum")
    assert "perhaps" not in out
    assert 0 == out.index("toy-sum: ") < out.index(f"\n{MENDED.id}: ")
    assert out.count("symptoms") == 2
    assert here("explain", "toy-sum", "toy-summ").returncode == 2


def test_what_is_not_mended_says_where_it_is_about_other_releases(
    make: Callable[[str], Site],
) -> None:
    site = make("needed")
    out, _err = explain(site, "No module named 'transformers.models.glm4'")
    assert "this is about" not in out
    out, _err = explain(site, OLD)
    assert "here      vLLM 0.8.4: this is about vLLM <0.8.4" in out
    answer = json.loads(here("explain", OLD, "--json", "--path", str(site.root)).stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    assert answer["patches"][0]["releases"] == "<0.8.4"
    out, _err = explain(site, "streams no tool calls")
    assert "tool-parser-0.10.0: perhaps; vLLM 0.8.4: this is about vLLM ==0.10.0\n" in out


def test_releases_of_what_is_not_mended_are_optional() -> None:
    of_any = Unpatched("x", ("y",), "z", "u")
    assert of_any.covers("0.1")
    assert of_any.covers(None)
    of_some = replace(of_any, releases=">=0.8.4,<0.10")
    assert [of_some.covers(each) for each in ("0.8.3", "0.8.4", "0.9.2", "0.10.0", None)] == [
        *(False, True, True, False, True),
    ]
    assert any(each.releases for each in unpatched())


def test_status_says_what_is_silent_and_mended_by_the_next_release(tmp_path: Path) -> None:
    for version, said in (("0.10.0", True), ("0.10.1", False), ("0.8.4", False)):
        site = fake.environment(tmp_path / version, b"", version)
        done = here("status", "--path", str(site.site))
        assert ("upgrade to vLLM 0.10.1" in done.stderr) is said, done.stderr
        assert done.returncode == 0


def test_a_file_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("server.log", "garbage !!!!.log"):
        Path(name).write_text("x\n")
        done = here("explain", name)
        assert done.returncode == 2
        assert f"error: {name} is a file" in done.stderr
    assert "glmpatch explain - < 'garbage !!!!.log'" in done.stderr
    assert here("explain", "garbage").returncode == 0
