"""One environment that imports parsers, processors and model files of every release since 0.9.2.

It holds torch and plain packages, and no vLLM: that comes from the release's own Python files
(``tests.support.releases``). Where releases need another Transformers, an overlay folder stands
before the packages that all share. No code of vLLM is compiled: only plain PyTorch runs.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from packaging.specifiers import SpecifierSet

from tests.support import releases
from tests.support.cache import cache, once, uv
from tests.support.environment import Environment

PYTHON = "3.11"
TORCH = "torch==2.13.0"
"""New enough for all releases. By pip, which may be told of a CPU build; the registry's needs
CUDA's libraries, some GB."""
TORCHVISION = "torchvision==0.28.0"
REQUIREMENTS = Path(__file__).with_name("light_requirements.txt")
OVERLAYS = {
    # 0.9.2 registers a configuration under a name that Transformers took in 4.54.
    "==0.9.*": ("transformers==4.53.3", "tokenizers==0.21.4"),
    # From 0.23.0 on compressed_tensors and mistral_common must be new, from 0.24.0 on
    # Transformers.
    ">=0.23": (
        "transformers==5.19.0",
        "huggingface_hub==2.4.0",
        "tokenizers==0.23.3",
        "compressed_tensors==0.17.0",
        "mistral_common==1.11.5",
        "orjson==3.13.0",
    ),
    # The serving class imports it for whole answers from 0.16.0 on, the model files from 0.21.0.
    ">=0.16,<0.23": ("mistral_common==1.11.5",),
}
"""Releases of vLLM, and what they need in place of the common packages."""

NO_OPERATORS = """

if not _has_ops():
    # The compiled operators are for another build of torch. Whoever imports torchvision needs these
    # two to exist, and no image processor calls them.
    _ops = torch.library.Library("torchvision", "DEF")
    _ops.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _ops.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
}


@functools.cache
def root() -> Path:
    """The root of the environment; made once, some 1.6 GB where a CPU build of torch is found."""
    folder = cache() / "light"
    with once(folder) as missing:
        if missing:
            uv("venv", "--clear", "--seed", "--python", PYTHON, str(folder))
            _pip(folder, TORCH)
            _pip(folder, "--no-deps", TORCHVISION)
            uv("pip", "install", "--python", str(folder), "--no-deps", "-r", str(REQUIREMENTS))
            extension = _site(folder) / "torchvision" / "extension.py"
            text = extension.read_text("utf-8")
            extension.unlink()  # it may be a hard link to a file that others share
            extension.write_text(text + NO_OPERATORS, "utf-8")
    return folder


def python() -> Path:
    """Its interpreter."""
    return root() / "bin" / "python"


def overlay(release: str) -> Path | None:
    """The folder of packages that stands before the common ones for a release, if it needs any."""
    for number, (specifier, packages) in enumerate(OVERLAYS.items()):
        if SpecifierSet(specifier).contains(release, prereleases=True):
            folder = cache() / f"light-overlay-{number}"
            with once(folder) as missing:
                if missing:
                    shutil.rmtree(folder, ignore_errors=True)
                    options = ("--no-deps", "--target", str(folder))
                    uv("pip", "install", "--python", str(root()), *options, *packages)
            return folder
    return None


def environment(release: str) -> dict[str, str]:
    """Variables under which ``python()`` imports that release's vLLM, unchanged."""
    paths = [releases.tree(release), overlay(release)]
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        **QUIET,
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
    }


def run(release: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code beside that release's vLLM."""
    command = [str(python()), "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(release))


def install(release: str, folder: Path) -> Environment:
    """An environment at ``folder`` whose vLLM is a copy of that release's Python files.

    Its packages are links to the common ones and the overlay's. For glmpatch it is like any other:
    it finds it by ``--python``, patches the copy, and proves with its interpreter.
    """
    shared = _site(root())
    site = folder / "lib" / shared.parent.name / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(os.path.realpath(python()))
    shutil.copy(root() / "pyvenv.cfg", folder)
    above = overlay(release)
    entries = [*(above.iterdir() if above else ()), *shared.iterdir()]
    replaced = {_package(entry) for entry in above.iterdir()} if above else set()
    for entry in entries:
        ours = above is not None and entry.parent == above
        if entry.name != "__pycache__" and (ours or _package(entry) not in replaced):
            (site / entry.name).symlink_to(entry)
    for entry in releases.tree(release).iterdir():
        shutil.copytree(entry, site / entry.name)
    return Environment(folder)


def _package(entry: Path) -> str:
    """What an entry of site-packages belongs to: its name without version and ending."""
    return entry.name.split("-")[0].lower()


def _site(folder: Path) -> Path:
    (site,) = (folder / "lib").glob("python3*/site-packages")
    return site


def _pip(folder: Path, *arguments: str) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
