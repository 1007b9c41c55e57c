"""The command as a user meets it: exit codes, texts, JSON, and what it leaves on the disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from glmpatch import __version__
from glmpatch.catalogue import load_patches
from glmpatch.command.cli import main
from glmpatch.patch import Patch
from glmpatch.site import install, lock
from glmpatch.site.target import find_target
from tests.support import cache, fake
from tests.support.environment import MODEL_FILE, Environment, describe, glmpatch
from tests.support.sources import REWRITES, proper_subsets, repaired
from tests.support.terminal import terminal

SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text())
COMMANDS = ("status", "list", "explain", "diff", "apply", "revert", "verify")
DEV = "0.8.5.dev7+gdb95cbc1e"
"""A build from source that carries 0.8.4's file, and that no patch but the guard is for."""
OLDER = "0.8.3rc2.dev107+gdb95cbc1e"
"""Another, which glm-rope is for; no table knows it."""
ID = "glm4-residual"
GUARD = "glm4-float16-guard"
EVERY = load_patches()
PATCHES = [patch for patch in EVERY if patch.covers("0.8.4")]
OTHERS = [patch for patch in PATCHES if patch.id != ID]
FILES = {patch.id: patch.path("0.8.4") for patch in PATCHES}
NAMES = ", ".join(patch.id for patch in EVERY)
ADVISED = {patch.id: FILES[patch.id] for patch in PATCHES if patch.advised}
pytestmark = pytest.mark.real  # the files are vLLM's own


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, many times as fast as in one of its own."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", ["glmpatch", *arguments])
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    else:
        code = 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def ask(
    *arguments: str, code: int, run: Callable[..., subprocess.CompletedProcess[str]] = here
) -> dict[str, Any]:
    """The JSON object of a command, held against the schema and the exit code expected."""
    done = run(*arguments, "--json")
    answer = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    assert (done.returncode, answer["exit_code"]) == (code, code), answer
    assert done.stderr == ""
    assert isinstance(answer, dict)
    return answer


def of(answer: Mapping[str, Any], name: str = ID) -> dict[str, Any]:
    """What a command says of one patch."""
    (found,) = (each for each in answer["patches"] if each["id"] == name)
    assert isinstance(found, dict)
    return found


def states(answer: Mapping[str, Any]) -> dict[str, str]:
    """Of the patches that are for vLLM 0.8.4."""
    return {each["id"]: each["state"] for each in answer["patches"] if each["id"] in FILES}


def changed(answer: Mapping[str, Any]) -> set[str]:
    return {each["id"] for each in answer["patches"] if each["changed"]}


def contents(env: Environment) -> dict[str, bytes]:
    """The files that the patches mend, by the id of the patch."""
    return {name: (env.site / file).read_bytes() for name, file in FILES.items()}


def drifted(released: bytes) -> bytes:
    return released.replace(b"= get_rope(", b"= make_rope(")


def unproven(released: bytes) -> bytes:
    return released.replace(b"= residual + hidden", b"= 2 * residual + hidden")


@pytest.fixture
def fresh(tmp_path: Path, released_file: bytes) -> Environment:
    """A vLLM 0.8.4 as released: it needs every patch."""
    return fake.environment(tmp_path / "env", released_file, others=fake.released())


def put(env: Environment, released: bytes) -> None:
    """Apply the patch by the one step that changes a tree, whatever the release says."""
    change = install.Change(ID, MODEL_FILE, released, repaired(released), REWRITES)
    install.install(find_target(path=str(env.site)), change)


def alone(root: Path, model: bytes | None, version: str = "0.8.4") -> Environment:
    """A vLLM in which all files but glm4.py are right, so that one patch alone decides."""
    return fake.environment(root, model, version, fake.repaired())


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


# -- every state and every command --------------------------------------------------------------

STATES: Mapping[str, tuple[str, str, str]] = {
    # the file of that state: (version, the file, state that status tells)
    "needed": ("0.8.4", "released", "needed"),
    "needed, local version": ("0.8.4+cpu", "released", "needed"),
    "newer than the table": ("0.8.4.post1", "released", "unproven"),
    "half fixed": ("0.8.4", "half", "needed"),
    "applied": ("0.8.4", "applied", "applied"),
    "fixed by upstream": ("0.8.4", "repaired", "fixed"),
    "fixed by hand": ("0.8.4", "repaired and edited", "fixed"),
    "drifted": ("0.8.4", "drifted", "drifted"),
    "another program": ("0.8.4", "unproven", "unproven"),
    "empty": ("0.8.4", "empty", "drifted"),
    "missing": ("0.8.4", "missing", "drifted"),
    "other release, right": ("0.8.5", "repaired", "not-applicable"),
    "other release, drifted": ("0.9.0", "drifted", "not-applicable"),
    "other release, without the file": ("0.7.0", "missing", "not-applicable"),
    "other release, defect": (DEV, "released", "not-applicable"),
    "unknown release, defect": ("no version", "released", "not-applicable"),
    "other release, applied": (DEV, "applied", "applied"),
}
EXITS: Mapping[str, Sequence[int]] = {
    # state: status, status --check, diff, apply, apply PATCH, revert
    "needed": (0, 1, 0, 0, 0, 0),
    "applied": (0, 0, 0, 0, 0, 0),
    "fixed": (0, 0, 0, 0, 0, 0),
    "drifted": (0, 5, 5, 5, 5, 0),
    "unproven": (0, 5, 5, 5, 5, 0),
    "not-applicable": (0, 0, 0, 0, 0, 0),
    # A version that is not covered and a file that has the known defect: not a false success.
    "defect": (0, 1, 0, 4, 4, 0),
}
ASKED = (
    ("status",),
    ("status", "--check"),
    ("diff",),
    ("apply",),
    ("apply", ID),
    ("revert",),
)


REAL = ("needed", "applied", "fixed by upstream", "drifted", "other release, defect")
"""One state of each row of the table is asked in processes of its own."""


@pytest.mark.parametrize("name", STATES)
def test_each_state_has_its_answer_to_each_command(
    name: str, tmp_path: Path, released_file: bytes
) -> None:
    version, file, state = STATES[name]
    model = {
        "released": released_file,
        "applied": released_file,
        "half": repaired(released_file, ("unpack-fused-norm", "interleaved-rope")),
        "repaired": repaired(released_file),
        "repaired and edited": repaired(released_file) + b"# mine\n",
        "drifted": drifted(released_file),
        "unproven": unproven(released_file),
        "empty": b"",
        "missing": None,
    }[file]
    run = glmpatch if name in REAL else here
    row = "defect" if name.endswith("defect") else state
    for command, code in zip(ASKED, EXITS[row], strict=True):
        env = alone(tmp_path / "-".join(command), model, version)
        on = ("--path", str(env.site))
        if file == "applied":
            put(env, released_file)
        before = env.tree()
        answer = ask(*command, *on, code=code, run=run)
        patch = of(answer)
        others = {each["state"] for each in answer["patches"] if each is not patch}
        assert others <= {"fixed", "not-applicable", "unproven"}
        assert name == "newer than the table" or "unproven" not in {
            each["state"] for each in answer["patches"] if each["id"] not in (ID, GUARD)
        }
        assert bool(others) == (ID not in command)
        assert patch["state"] == state
        assert patch["known_defect"] == (row == "defect")
        changes = command[0] == "apply" and row == "needed"
        changes = changes or (command[0] == "revert" and row == "applied")
        assert patch.get("changed", False) == changes
        assert (env.tree() != before) == changes
        assert bool(patch.get("diff")) == (command[0] == "diff" and row in ("needed", "unproven"))
        if changes:
            right = repaired(released_file) if command[0] == "apply" else released_file
            assert env.model.read_bytes() == right
            assert changed(answer) == {ID}
        if code >= 2:
            assert str(env.model) in answer["error"]["message"]
            assert answer["error"]["hint"]


@pytest.mark.parametrize("subset", list(proper_subsets()), ids=lambda s: "+".join(s) or "none")
def test_a_half_fixed_file_gets_just_what_it_lacks(
    subset: tuple[str, ...], tmp_path: Path, released_file: bytes
) -> None:
    env = alone(tmp_path, repaired(released_file, subset))
    done = here("apply", "--path", str(env.site))
    assert env.model.read_bytes() == repaired(released_file)
    (line,) = (each for each in done.stdout.splitlines() if each.startswith(f"{ID}: repaired"))
    named = line.rpartition("(")[2].strip(")").split(", ")
    assert sorted([*named, *subset]) == sorted(REWRITES)


def test_apply_status_revert_by_the_interpreter_leave_no_trace(fresh: Environment) -> None:
    before = fresh.tree()
    on = ("--python", str(fresh.root))
    assert glmpatch("apply", *on).returncode == 0
    assert "applied" in glmpatch("status", "-v", *on).stdout
    assert glmpatch("apply", *on).returncode == 0
    assert glmpatch("revert", *on).returncode == 0
    assert fresh.tree() == before
    assert "nothing to take back" in glmpatch("revert", *on).stdout


def test_a_dry_run_writes_nothing(fresh: Environment) -> None:
    before = fresh.tree()
    on = ("--path", str(fresh.site))
    done = here("apply", "--dry-run", *on)
    assert done.returncode == 0
    assert f"{ID}: would repair {fresh.model}" in done.stdout
    assert "restart" not in done.stderr
    assert of(ask("apply", "--dry-run", *on, code=0))["changed"] is False
    assert fresh.tree() == before


def test_any_version_examines_and_never_vouches(tmp_path: Path, released_file: bytes) -> None:
    env = alone(tmp_path, released_file, DEV)
    before = env.tree()
    on = ("--path", str(env.site))
    told = here("status", *on)
    assert "exactly the known defect" in told.stdout
    assert f"glmpatch apply {ID} --any-version --verify --path {env.site}" in told.stderr
    told = here("diff", *on)
    assert told.stdout == ""
    assert f"glmpatch diff {ID} --any-version --path {env.site}" in told.stderr
    assert of(ask("diff", "--any-version", *on, code=5))["diff"]
    assert of(ask("apply", ID, "--any-version", *on, code=5))["changed"] is False
    assert env.tree() == before
    put(env, released_file)
    assert of(ask("status", "--check", *on, code=0))["state"] == "applied"
    assert "applied already" in here("apply", ID, *on).stdout
    assert of(ask("revert", *on, code=0))["changed"] is True
    assert env.tree() == before


def test_any_version_on_a_file_that_is_not_there_is_no_drift(tmp_path: Path) -> None:
    env = fake.environment(tmp_path, None, "0.6.0")
    ask("apply", "--any-version", "--path", str(env.site), code=0)


# -- several patches ----------------------------------------------------------------------------


def test_all_that_are_advised_are_applied_and_taken_back(fresh: Environment) -> None:
    before = fresh.tree()
    on = ("--path", str(fresh.site))
    assert states(ask("status", "--check", *on, code=1)) == dict.fromkeys(FILES, "needed")
    shown = {each["id"] for each in ask("diff", *on, code=0)["patches"] if each["diff"]}
    assert shown == set(ADVISED)
    assert of(ask("diff", GUARD, *on, code=0), GUARD)["diff"]
    assert changed(ask("apply", *on, code=0)) == set(ADVISED)
    right = {name: fake.repaired()[file] for name, file in ADVISED.items()}
    assert contents(fresh) == {**{n: fake.source(f) for n, f in FILES.items()}, **right}
    after = fresh.tree()
    written = {path for path in after if after[path] != before.get(path)}
    assert {path for path in written if path.startswith("vllm/")} == set(ADVISED.values())
    told = {**dict.fromkeys(ADVISED, "applied"), GUARD: "needed"}
    assert states(ask("status", "--check", *on, code=0)) == told
    assert changed(ask("apply", *on, code=0)) == set()
    assert fresh.tree() == after
    done = here("revert", *on)
    assert done.stderr.count("restart every running vLLM server") == 1
    assert fresh.tree() == before


def test_one_that_is_not_advised_is_shown_with_its_reason_and_applied_by_name(
    fresh: Environment,
) -> None:
    on = ("--path", str(fresh.site))
    done = here("status", *on)
    assert f"{GUARD}: needed (not advised, applied by name only)" in done.stdout
    assert "AWQ and GPTQ" in done.stderr
    assert f"glmpatch apply {GUARD} --verify --path {fresh.site}" in done.stderr
    assert f"{GUARD}: left alone, since it is not advised" in here("apply", *on).stdout
    assert ask("status", "--check", *on, code=0)
    assert changed(ask("apply", GUARD, *on, code=0)) == {GUARD}
    assert states(ask("status", *on, code=0)) == dict.fromkeys(FILES, "applied")
    assert here("apply", *on).stdout.count("applied already") == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_named_patch_is_applied_and_taken_back_alone(name: str, fresh: Environment) -> None:
    pristine = fresh.tree()
    on = ("--path", str(fresh.site))
    assert changed(ask("apply", name, *on, code=0)) == {name}
    told = states(ask("status", "--check", *on, code=1))
    assert told == {**dict.fromkeys(FILES, "needed"), name: "applied"}
    here("apply", *FILES, *on)
    assert changed(ask("revert", name, *on, code=0)) == {name}
    told = states(ask("status", *on, code=0))
    assert told == {**dict.fromkeys(FILES, "applied"), name: "needed"}
    here("revert", *on)
    assert fresh.tree() == pristine


def test_a_record_without_a_last_line_end_gets_its_bytes_back(fresh: Environment) -> None:
    fresh.record.write_bytes(fresh.record.read_bytes().rstrip())
    before = fresh.tree()
    on = ("--path", str(fresh.site))
    assert changed(ask("apply", *FILES, *on, code=0)) == set(FILES)
    assert changed(ask("revert", *on, code=0)) == set(FILES)
    assert fresh.tree() == before


@pytest.mark.parametrize("kind", ["drifted", "unproven"])
@pytest.mark.parametrize("name", ADVISED)
def test_where_one_is_unsure_none_is_applied_but_by_name(
    name: str, kind: str, fresh: Environment
) -> None:
    source = fake.source(FILES[name])
    broken = {
        ("drifted", ID): drifted(source),
        ("unproven", ID): unproven(source),
        ("drifted", "glm-rope"): source.replace(b"rotary_emb", b"rope"),
        ("unproven", "glm-rope"): source.replace(b"o_proj.bias = None", b"o_proj.bias = 0"),
    }[kind, name]
    if (kind, name) == ("drifted", "glm-rope"):
        broken = broken.replace(b"is_neox_style", b"style").replace(b"rotary_dim", b"width")
    assert broken != source
    (fresh.site / FILES[name]).write_bytes(broken)
    before = fresh.tree()
    on = ("--path", str(fresh.site))
    (other,) = (each for each in ADVISED if each != name)
    for command in (["status", "--check"], ["diff"], ["apply"]):
        answer = ask(*command, *on, code=5)
        assert states(answer) == {**dict.fromkeys(FILES, "needed"), name: kind}
        assert str(fresh.site / FILES[name]) in answer["error"]["message"]
        assert FILES[other] not in answer["error"]["message"]
        hint = answer["error"]["hint"]
        assert f"{other} can be applied by name: glmpatch apply {other}" in hint
        proof = "apply" if kind == "unproven" else "verify"
        assert f"glmpatch {proof} {name}" in hint
        assert fresh.tree() == before
    assert f"glmpatch apply {other} --verify --path" in here("status", *on).stderr
    assert changed(ask("apply", other, *on, code=0)) == {other}
    assert changed(ask("revert", *on, code=0)) == {other}
    assert fresh.tree() == before


def test_an_unproven_file_is_said_to_differ_where_it_does(fresh: Environment) -> None:
    source = fresh.model.read_bytes()
    line = source[: source.index(b"    def compute_logits")].count(b"\n") + 1
    fresh.model.write_bytes(source.replace(b"self.logits_processor(", b"2 * self.processor("))
    message = ask("apply", "--path", str(fresh.site), code=5)["error"]["message"]
    assert f"Glm4ForCausalLM.compute_logits line {line}" in message
    assert "nothing was written" in message


def test_a_version_that_only_some_are_meant_for_gets_those_and_names_the_others(
    tmp_path: Path, released_file: bytes
) -> None:
    env = fake.environment(tmp_path, released_file, OLDER, fake.released())
    on = ("--path", str(env.site))
    told = here("status", *on).stderr
    assert f"glmpatch apply {ID} --any-version --verify" in told
    answer = ask("apply", *on, code=5)  # no table knows this build
    assert states(answer)["glm-rope"] == "unproven"
    answer = ask("apply", ID, *on, code=4)
    assert of(answer)["known_defect"]
    assert str(env.model) in answer["error"]["message"]


# -- revert after something else happened -------------------------------------------------------


def test_revert_keeps_an_edit_unless_forced(fresh: Environment, released_file: bytes) -> None:
    pristine = fresh.tree()
    on = ("--path", str(fresh.site))
    here("apply", *on)
    fresh.model.write_bytes(fresh.model.read_bytes() + b"# mine\n")
    status = here("status", *on)
    assert "edited or reinstalled since" in status.stderr
    assert f"{ID}: fixed" in status.stdout
    done = here("revert", *on)
    assert done.returncode == 5
    assert str(fresh.model) in done.stderr
    assert "--force" in done.stderr
    assert fresh.model.read_bytes() == repaired(released_file) + b"# mine\n"
    others = {name: data for name, data in contents(fresh).items() if name != ID}
    assert others == {patch.id: fake.source(FILES[patch.id]) for patch in OTHERS}
    assert fresh.receipt.exists()
    assert of(ask("revert", "--force", *on, code=0))["changed"] is True
    assert fresh.model.read_bytes() == released_file
    assert fresh.tree() == pristine


@pytest.mark.parametrize("how", ["released", "drifted"])
def test_revert_of_an_unreadable_edit_needs_force_too(
    how: str, fresh: Environment, released_file: bytes
) -> None:
    on = ("--path", str(fresh.site))
    here("apply", *on)
    fresh.model.write_bytes(b"def f(:\n" if how == "released" else drifted(released_file))
    ask("revert", *on, code=5)
    ask("revert", "--force", *on, code=0)
    assert fresh.model.read_bytes() == released_file


def test_revert_cleans_up_after_a_reinstall(fresh: Environment, released_file: bytes) -> None:
    pristine = fresh.tree()
    on = ("--path", str(fresh.site))
    here("apply", *on)
    fresh.model.write_bytes(released_file)
    assert of(ask("status", "--check", *on, code=1))["state"] == "needed"
    assert of(ask("revert", *on, code=0))["changed"] is False
    assert fresh.tree() == pristine


def test_revert_without_the_file_says_how_to_get_it(fresh: Environment) -> None:
    on = ("--path", str(fresh.site))
    here("apply", *on)
    fresh.model.unlink()
    pip = fresh.site / "pip" / "__init__.py"
    pip.parent.mkdir()
    pip.touch()
    answer = ask("revert", *on, code=5)
    assert str(fresh.model) in answer["error"]["message"]
    assert "mv -f" in answer["error"]["hint"]
    assert fresh.receipt.exists()
    kept = fresh.receipt.with_suffix(".original")
    moved = kept.rename(kept.with_name("elsewhere"))
    assert "--force-reinstall" in ask("revert", ID, *on, code=5)["error"]["hint"]
    moved.rename(kept)
    # The guard counts on glm4.py, but it can be taken back without it.
    assert changed(answer) == set(ADVISED) - {ID}


# -- bad input ----------------------------------------------------------------------------------

BAD: Mapping[str, tuple[bytes, int | None, str]] = {
    "syntax error": (b"class A:\n    def f(:\n", 2, "syntax error"),
    "not UTF-8": (b"# one\n\n# \xff\n", 3, "utf-8"),
    "form feed": (b"import os\n\x0cimport sys\n", 2, "form feed"),
    "NUL": (b"import os\x00\n", 1, "NUL byte"),
    "only blanks": (b"\n \n", None, "empty"),
}


def bad_inputs(released: bytes) -> dict[str, tuple[bytes, int | None, str]]:
    """By name: a file, the line that the message must name, and what it must say."""
    start = released.index(b"        if residual is None:\n", released.index(b"class Glm4Decoder"))
    end = released.index(b"        return hidden_states, residual", start)
    files = dict(BAD)
    for name, source, line, reason in (
        ("lone carriage returns", released.replace(b"\n", b"\r"), 1, "carriage return"),
        ("two classes", released + b"\n\nclass Glm4DecoderLayer:\n    pass\n", None, ""),
        ("rewritten forward", released[:start] + b"        go()\n" + released[end:], None, ""),
        ("scaled residual", released.replace(b"= residual +", b"= 2 * residual +", 1), None, ""),
    ):
        assert source != released
        files[name] = (source, line, reason)
    return files


@pytest.mark.parametrize(
    "name",
    [
        *BAD,
        "lone carriage returns",
        "two classes",
        "rewritten forward",
        "scaled residual",
    ],
)
def test_a_file_of_no_known_form_is_named_and_left_alone(
    name: str, tmp_path: Path, released_file: bytes
) -> None:
    source, line, reason = bad_inputs(released_file)[name]
    env = alone(tmp_path, source)
    before = env.tree()
    on = ("--path", str(env.site))
    for command in (["status", "--check"], ["diff"], ["apply"], ["apply", "--any-version", ID]):
        error = ask(*command, *on, code=5)["error"]
        place = rf"{re.escape(str(env.model))}:{line or '[0-9]+'}: " if line else ""
        assert re.search(place, error["message"]), error
        assert str(env.model) in error["message"]
        assert reason in error["message"]
        assert "vllm==0.8.4" in error["hint"]
    done = here("apply", *on)
    assert done.returncode == 5
    assert "nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert here("revert", *on).returncode == 0
    assert env.tree() == before


@pytest.mark.parametrize("what", ["folder", "FIFO", "link to nowhere", "linked folder"])
def test_what_is_no_regular_file_is_refused(
    what: str, tmp_path: Path, released_file: bytes
) -> None:
    env = alone(tmp_path / "env", released_file)
    if what == "linked folder":
        env.model.parent.rename(tmp_path / "models")
        env.model.parent.symlink_to(tmp_path / "models")
    else:
        env.model.unlink()
        if what == "folder":
            env.model.mkdir()
        elif what == "FIFO":
            os.mkfifo(env.model)
        else:
            env.model.symlink_to("nowhere")
    error = ask("apply", "--path", str(env.site), code=5)["error"]
    assert str(env.model) in error["message"]


def unprivileged(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user whom permissions bind, which root is only without capabilities."""
    command = [sys.executable, "-m", "glmpatch", *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("where", ["models", "dist-info"])
def test_an_unwritable_folder_is_said_before_anything_is_done(
    where: str, fresh: Environment
) -> None:
    folder = fresh.model.parent if where == "models" else fresh.dist_info
    before = fresh.tree()
    folder.chmod(0o555)
    try:
        assert unprivileged("status", "--path", str(fresh.site)).returncode == 0
        done = unprivileged("apply", "--verify", "--path", str(fresh.site))
    finally:
        folder.chmod(0o755)
    assert done.returncode == 3
    assert f"cannot write to {folder}" in done.stderr
    # Root owns it here; of anybody else's, the owner is named.
    assert f"hint: you own it, and may not write: chmod u+w {folder}" in done.stderr
    assert "proof" not in done.stdout
    assert fresh.tree() == before


@pytest.mark.parametrize("where", ["models", "site-packages", "file"])
def test_what_may_not_be_read_is_no_drift(where: str, fresh: Environment) -> None:
    path = {"models": fresh.model.parent, "site-packages": fresh.site, "file": fresh.model}[where]
    path.chmod(0)
    try:
        done = unprivileged("status", "--path", str(fresh.site))
    finally:
        path.chmod(0o755)
    assert done.returncode == 3, done
    assert "Permission denied" in done.stderr
    assert str(path) in done.stderr
    assert "hint: run as a user who may read" in done.stderr


def test_a_file_changed_between_plan_and_write_is_left_alone(
    fresh: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = lock.locked

    def somebody_was_faster(target: Any) -> Any:
        fresh.model.write_bytes(fresh.model.read_bytes() + b"# theirs\n")
        return locked(target)

    monkeypatch.setattr("glmpatch.site.opened.locked", somebody_was_faster)
    before = fresh.tree()
    on = ("--path", str(fresh.site))
    done = here("apply", *FILES, *on)
    assert done.returncode == 3
    assert f"{fresh.model} was changed by somebody else" in done.stderr
    assert "hint: run glmpatch again" in done.stderr
    first, last = OTHERS
    assert f"{first.id}: applied before that, and stays so" in done.stderr
    monkeypatch.undo()
    told = {first.id: "applied", ID: "needed", last.id: "needed"}
    assert states(ask("status", *on, code=0)) == told
    assert changed(ask("revert", *on, code=0)) == {first.id}
    after = fresh.tree()
    assert after.pop(MODEL_FILE) != before.pop(MODEL_FILE)
    assert after == before


# -- no target, wrong usage ---------------------------------------------------------------------


def test_without_vllm_every_command_names_the_option(tmp_path: Path) -> None:
    for command in (["status"], ["diff"], ["apply"], ["revert"], ["verify"]):
        error = ask(*command, code=3)["error"]
        assert "--python" in error["hint"]


def test_of_several_on_pythonpath_the_first_is_taken_as_a_server_would(
    fresh: Environment, tmp_path: Path
) -> None:
    fake.vllm(tmp_path / "other", b"", "0.8.5")
    paths = os.pathsep.join([str(fresh.site), str(tmp_path / "other")])
    here = os.environ.get("PYTHONPATH")
    done = glmpatch("status", env={"PYTHONPATH": f"{here}{os.pathsep}{paths}" if here else paths})
    assert done.returncode == 0
    assert f"vLLM 0.8.4 (wheel) in {fresh.site / 'vllm'}" in done.stdout
    assert "PYTHONPATH" in done.stdout + done.stderr


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    done = glmpatch()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: glmpatch ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["frobnicate"], "No such command 'frobnicate'", "glmpatch --help"),
        (["--frobnicate"], "No such option", "glmpatch --help"),
        (["apply", "--verfy"], "--verify", "glmpatch apply --help"),
        (["list", "too", "many"], "unexpected extra arguments", "glmpatch list --help"),
        (["verify", "--device", "tpu"], "'tpu'", "glmpatch verify --help"),
        (["explain"], "PATCH", "glmpatch explain --help"),
        (["explain", "glm4-residua"], "glm4-residua", "did you mean glm4-residual?"),
        (["apply", "qwen"], "no patch named 'qwen'", f"the patches are: {NAMES}"),
        (["status", "--python"], "--python", "glmpatch status --help"),
    ],
)
def test_wrong_usage_says_what_and_where_to_look(
    arguments: list[str], message: str, hint: str
) -> None:
    done = here(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert f"hint: {hint}" in done.stderr
    if arguments[-1] == "--python":
        return  # it would take --json for its argument
    answer = ask(*arguments, code=2)
    assert answer["error"]["hint"] == hint
    assert answer["command"] == (arguments[0] if arguments[0] in COMMANDS else None)


# -- what it prints -----------------------------------------------------------------------------


def test_list_names_every_patch_in_even_columns() -> None:
    listed = ask("list", code=0)["patches"]
    lines = here("list").stdout.splitlines()
    names = [patch.id for patch in EVERY]
    assert [line.split()[0] for line in lines] == [each["id"] for each in listed] == names
    assert {line.index("vLLM ") for line in lines} == {max(map(len, names)) + 2}


@pytest.mark.parametrize("patch", EVERY, ids=NAMES.split(", "))
def test_explain_tells_all_that_a_patch_says_of_itself(patch: Patch) -> None:
    (explained,) = ask("explain", patch.id, code=0)["patches"]
    assert explained == {**of(ask("list", code=0), patch.id), "sure": True}
    text = " ".join(here("explain", patch.id).stdout.split())
    texts = (patch.why, patch.how, patch.upstream, patch.removal, patch.versions, patch.caution)
    for body in (*texts, *patch.symptoms, patch.path()):
        assert " ".join(body.split()) in text
    for rewrite in patch.rewrites:
        assert f"{rewrite.id}: {rewrite.title}" in text
    longest = max(map(len, here("explain", patch.id).stdout.splitlines()[1:]))
    assert longest <= 80


@pytest.mark.skipif(shutil.which("git") is None, reason="no git to apply a diff with")
def test_the_diff_is_one_that_patch_takes(fresh: Environment, released_file: bytes) -> None:
    done = glmpatch("diff", "--path", str(fresh.site))
    assert done.returncode == 0
    assert done.stderr.startswith(f"{GUARD}: left alone, since it is not advised")
    subprocess.run(
        ["git", "apply", "-p1", "-"], input=done.stdout, text=True, cwd=fresh.site, check=True
    )
    assert fresh.model.read_bytes() == repaired(released_file)
    assert of(ask("status", "--path", str(fresh.site), code=0))["state"] == "fixed"


def test_help_names_every_command_in_one_uncut_line() -> None:
    done = glmpatch("--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert "..." not in done.stdout.replace("[ARGS]...", "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z][^.]*\.$", done.stdout, re.MULTILINE), command
        own = glmpatch(command, "--help")
        assert (own.returncode, own.stderr) == (0, "")
        assert f"Usage: glmpatch {command}" in own.stdout


def test_version() -> None:
    assert glmpatch("--version").stdout == f"glmpatch {__version__}\n"


def test_data_goes_to_stdout_and_messages_to_stderr(fresh: Environment) -> None:
    on = ("--path", str(fresh.site))
    done = glmpatch("status", *on)
    assert done.stdout.startswith(f"vLLM 0.8.4 (wheel) in {fresh.site / 'vllm'}\n")
    assert "rotary-dim-once       broken       line 85" in done.stdout
    assert done.stderr.endswith(f"glmpatch apply --verify --path {fresh.site}\n")
    done = glmpatch("apply", *on)
    assert f"{ID}: repaired {fresh.model}" in done.stdout
    assert "restart every running vLLM server, on every node" in done.stderr
    assert "--model-impl transformers" in done.stderr


def test_verbose_adds_paths_and_hashes(fresh: Environment) -> None:
    on = ("--path", str(fresh.site))
    here("apply", *FILES, *on)
    plain, verbose = here("status", *on).stdout, here("status", "-v", *on).stdout
    files = [str(fresh.site / file) for file in FILES.values()]
    hashes = [describe(fresh.site / file).split()[-1] for file in FILES.values()]
    for word in (*files, str(fresh.python), *hashes):
        assert word in verbose
        assert word not in plain


def test_quiet_prints_errors_only(fresh: Environment, released_file: bytes) -> None:
    on = ("-q", "--path", str(fresh.site))
    for command in (["status"], ["diff"], ["apply"], ["apply"], ["revert"], ["revert"]):
        done = here(*command, *on)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), command
    assert glmpatch("status", "--check", *on).returncode == 1
    fresh.model.write_bytes(drifted(released_file))
    done = glmpatch("apply", *on)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: ")


def test_a_traceback_is_shown_with_debug_only_and_the_exit_code_stays(
    fresh: Environment,
) -> None:
    on = ("apply", "qwen", "--path", str(fresh.site))
    done = glmpatch(*on)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    done = glmpatch(*on, "--debug")
    assert (done.returncode, "Traceback" in done.stderr) == (2, True)
    assert "error: there is no patch named 'qwen'" in done.stderr


def test_a_fault_of_its_own_is_no_traceback(
    fresh: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise LookupError("boom")

    monkeypatch.setattr("glmpatch.actions.outcome.examine_all", fault)
    on = ("--path", str(fresh.site))
    assert ask("status", *on, code=70)["error"]["hint"]
    done = here("status", *on)
    assert done.returncode == 70
    assert "a fault of glmpatch itself: LookupError: boom" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in here("status", "--debug", *on).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_has_its_own_exit_code(
    number: signal.Signals, fresh: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "glmpatch.actions.prepare.examine_all", lambda *_: os.kill(os.getpid(), number)
    )
    done = here("apply", "--path", str(fresh.site))
    assert done.returncode == 130
    assert "error: interrupted" in done.stderr
    assert ask("apply", "--path", str(fresh.site), code=130)["error"]["hint"]


def test_colour_is_for_terminals_that_have_it_and_never_with_no_color(fresh: Environment) -> None:
    for command in (["status"], ["diff"], ["apply", "qwen"]):
        arguments = [*command, "--path", str(fresh.site)]
        done = glmpatch(*arguments, env={"CLICOLOR_FORCE": "1"})
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x1b[" in terminal(*arguments)
        for without in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            plain = terminal(*arguments, env=without)
            assert "\x1b" not in plain
            assert sorted(plain.split()) == sorted((done.stdout + done.stderr).split())


def test_nothing_prompts_on_a_terminal(fresh: Environment) -> None:
    """The terminal stays silent: a question would never be answered."""
    for command in ("status", "diff", "apply", "apply", "revert", "revert"):
        assert terminal(command, "--path", str(fresh.site))
    assert not fresh.receipt.exists()


@pytest.mark.parametrize("command", ["diff", "status", "apply", "explain", "--help", "--version"])
def test_a_reader_that_went_away_changes_nothing(command: str, fresh: Environment) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [ID] if command == "explain" else ["--path", str(fresh.site)]
    if command.startswith("--"):
        arguments = []
    done = subprocess.run(
        [sys.executable, "-m", "glmpatch", command, *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 0
    assert "rror" not in done.stderr
    assert fresh.receipt.exists() == (command == "apply")


def test_a_page_that_is_there_stays_until_there_is_another(
    fresh: Environment, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("precious")
    for more in (["--python", "/nowhere"], ["--python", str(fresh.root)]):
        done = glmpatch("verify", ID, "--report", str(page), *more)
        assert done.returncode in (3, 7), done.stderr
        assert page.read_text() == "precious"
    done = glmpatch("verify", ID, "--report", "/nowhere/page.html", "--python", str(fresh.root))
    assert done.returncode == 2
    assert "/nowhere is no folder to write to" in done.stderr


def test_verify_of_a_patch_for_other_releases_says_so(fresh: Environment) -> None:
    done = glmpatch("verify", "glm4-moe", "--path", str(fresh.site))
    assert done.returncode == 4
    assert "none of the patches named is for vLLM 0.8.4" in done.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_cannot_be_written_is_no_success(more: list[str], fresh: Environment) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "glmpatch", "diff", "--path", str(fresh.site), *more],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 70
    assert "error: cannot write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_are_no_error(fresh: Environment) -> None:
    for arguments in (f'status --path "{fresh.site}"', f"explain {ID}"):
        for redirect in (">&-", "2>&-", ">&- 2>&-", "<&-"):
            command = f'"{sys.executable}" -m glmpatch {arguments} {redirect}'
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
            assert done.returncode == 0, (redirect, done)
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [("status", "--path"), ("apply", "--python"), ("status", "--ray"), ("verify", "--model")],
)
def test_an_option_that_is_empty_is_no_option(command: str, option: str) -> None:
    """``--model "$MODEL"`` where the variable is not set: no random weights, no working folder."""
    said = ask(command, option, "", code=2)["error"]
    assert said["message"] == f"{option} is empty"
    assert said["hint"]


def test_names_that_the_output_cannot_encode_are_shown_escaped(
    tmp_path: Path, released_file: bytes
) -> None:
    name = os.fsdecode(b"gr\xc3\xb6\xc3\x9fe-\xff")
    env = alone(tmp_path / name, released_file)
    on = ("--path", str(env.site))
    for encoding in ("ascii", "utf-8"):
        done = glmpatch("status", *on, env={"PYTHONIOENCODING": f"{encoding}:strict"})
        assert done.returncode == 0, done.stderr
        assert "\\udcff" in done.stdout
    assert of(ask("apply", *on, code=0))["file"] == str(env.model)
    assert env.model.read_bytes() == repaired(released_file)


# -- surroundings -------------------------------------------------------------------------------


def test_the_script_and_the_module_are_one_command() -> None:
    script = Path(sys.executable).with_name("glmpatch")
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True)
    assert done.stdout == glmpatch("--help").stdout


def test_other_packages_named_patcher_and_patches_make_no_difference(tmp_path: Path) -> None:
    for name in ("patcher", "patches"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('somebody else was run')\n")
    plain = glmpatch("list")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = glmpatch("list", cwd=tmp_path, env={"PYTHONPATH": paths})
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)


def test_status_tells_what_to_install_where_transformers_is_too_old(
    fresh: Environment,
) -> None:
    old = cache.distribution("transformers", "4.51.1")
    for entry in old.glob("transformers*"):
        (fresh.site / entry.name).symlink_to(entry)
    done = glmpatch("status", "--python", str(fresh.root))
    assert done.returncode == 0
    assert "warning: transformers 4.51.1 has no Glm4Config: " in done.stderr
    assert done.stderr.count("warning: ") == 1
    assert f"cannot load the models of {ID}, patched or not" in done.stderr
    assert glmpatch("status", "--check", "--python", str(fresh.root)).returncode == 1
    assert f"hint: {fresh.python} -m pip install transformers==4.51.3" in done.stderr
    (warning,) = ask("status", "--python", str(fresh.root), code=0)["warnings"]
    assert "4.51.1" in warning
    assert "transformers==4.51.3" in warning
    assert "4.51.1" in glmpatch("apply", "--path", str(fresh.site)).stderr
    glmpatch("revert", "--path", str(fresh.site))
    fresh.model.unlink()
    (fresh.dist_info / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 0.7.0\n")
    assert ask("status", "--path", str(fresh.site), code=0)["warnings"] == []


def test_verify_without_torch_could_not_run(fresh: Environment) -> None:
    before = fresh.tree()
    for command in (["verify"], ["apply", "--verify"]):
        error = ask(*command, "--python", str(fresh.root), code=7)["error"]
        assert "torch" in error["message"]
        assert error["hint"]
    assert fresh.tree() == before


def test_verify_of_a_vllm_without_the_model_is_not_covered(tmp_path: Path) -> None:
    env = fake.environment(tmp_path, None, "0.7.0")
    assert "0.7.0" in ask("verify", "--path", str(env.site), code=4)["error"]["message"]


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_nothing_is_imported_that_is_not_needed(fresh: Environment) -> None:
    on = ("--path", str(fresh.site))
    heavy = {"json", "subprocess", "libcst", "packaging.version", "dataclasses", "difflib"}
    heavy |= {"hashlib", "urllib.parse", "tempfile", "patches", "importlib.metadata"}
    heavy |= {"click.shell_completion"}
    heavy -= imported("-c", "import click")
    names = imported("-m", "glmpatch", "--help")
    assert "click" in names
    assert not heavy & names, heavy & names
    glmpatch("apply", *on)
    for command in ("apply", "status"):
        names = imported("-m", "glmpatch", command, *on)
        assert not {"glmpatch.source.plan", "glmpatch.source.form"} & names
        assert not {name for name in names if name.startswith("libcst")}
        unneeded = {"difflib", "tempfile", "importlib.metadata", "packaging", "torch"}
        assert not unneeded & names
    glmpatch("revert", *on)
    names = imported("-m", "glmpatch", "diff", *on)
    assert {name for name in names if name.startswith("libcst")}  # the test can fail
