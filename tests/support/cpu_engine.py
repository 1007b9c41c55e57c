"""vLLM 0.8.4 built for the CPU: the whole engine, on a machine without a GPU."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support import cache

VERSION = "0.8.4"
# Debian's CMake is too old for vLLM and CMake 4 too new for it.
TOOLS = (
    "cmake>=3.26,<4",
    "ninja",
    "packaging",
    "setuptools>=74.1.1,<80",
    "setuptools-scm>=8",
    "wheel",
    "jinja2",
)
# torch as the registry has it is a CUDA build, whose own CMake files stop without a CUDA toolkit;
# for the CPU part of vLLM its headers and three libraries are enough.
TORCH_CONFIG = """\
set(_torch "{torch}")
if(NOT TARGET torch)
  add_library(torch INTERFACE IMPORTED)
  set_target_properties(torch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${{_torch}}/include;${{_torch}}/include/torch/csrc/api/include"
    INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=0"
    INTERFACE_LINK_LIBRARIES
      "${{_torch}}/lib/libtorch.so;${{_torch}}/lib/libtorch_cpu.so;${{_torch}}/lib/libc10.so")
endif()
set(TORCH_LIBRARIES torch)
set(TORCH_INCLUDE_DIRS "${{_torch}}/include" "${{_torch}}/include/torch/csrc/api/include")
set(Torch_FOUND TRUE)
set(TORCH_FOUND TRUE)
"""


def cpu_engine() -> Path:
    """The root of an environment with vLLM 0.8.4 for the CPU; some minutes when first made."""
    folder = cache.cache() / f"vllm-{VERSION}-cpu"
    with cache.once(folder) as missing:
        if missing:
            _system_packages()
            # The ordinary wheel brings all that it depends on, at the versions of the other tests.
            cache.uv("venv", "--clear", "--python", cache.PYTHONS, str(folder))
            install = ("pip", "install", "--python", str(folder))
            cache.uv(*install, f"vllm=={VERSION}", "transformers==4.51.3", *TOOLS)
            cache.uv("pip", "uninstall", "--python", str(folder), "vllm")
            cache.uv(
                *(*install, "--no-deps", "--no-build-isolation", "--no-binary", "vllm"),
                f"vllm=={VERSION}",
                env=_build_environment(folder),
            )
    return folder


def _system_packages() -> None:
    """vLLM's CPU part needs a C++ compiler and the header of libnuma."""
    if not (shutil.which("g++") and Path("/usr/include/numa.h").exists()):
        assert os.geteuid() == 0, "install g++ and libnuma-dev: they build vLLM for the CPU"
        cache.apt("g++", "libnuma-dev")


def _build_environment(folder: Path) -> dict[str, str]:
    (torch,) = folder.glob("lib/python3*/site-packages/torch")
    config = folder / "share" / "cmake" / "torch"
    config.mkdir(parents=True, exist_ok=True)
    (config / "TorchConfig.cmake").write_text(TORCH_CONFIG.format(torch=torch))
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SETUPTOOLS_SCM_PRETEND_VERSION": VERSION,
        "Torch_ROOT": str(config),
        # With AVX-512 the build fetches oneDNN from outside the registry.
        "VLLM_CPU_DISABLE_AVX512": "true",
        "VLLM_TARGET_DEVICE": "cpu",
    }
