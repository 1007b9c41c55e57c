"""Errors that say nothing of a model file: what is wrong with the environment, and what mends it.

A wrong file may die of anything, so that only what no file can cause stands here. In doubt the
same engine is asked with Transformers' own model (``engine.py``).
"""

from __future__ import annotations

from typing import Any

from .language import N_

MEMORY = N_("stop what runs there, name another GPU with CUDA_VISIBLE_DEVICES, or use --via module")
COMPILER = N_("install gcc, or name a compiler with CC: apt-get install gcc python3-dev")
BUILD = N_("install torch and vLLM built for this GPU and its driver, or use --via module")
NETWORK = N_("leave out --tp, or see what NCCL says with NCCL_DEBUG=INFO")

FAULTS: tuple[tuple[str, str, str], ...] = (
    ("out of memory", N_("the GPU has too little free memory"), MEMORY),
    ("No available memory for the cache blocks", N_("the GPU has too little free memory"), MEMORY),
    ("larger than the available KV cache memory", N_("the GPU has too little free memory"), MEMORY),
    ("stored in KV cache", N_("the GPU has too little free memory"), MEMORY),
    ("Error in memory profiling", N_("something else took or freed memory of the GPU"), MEMORY),
    ("Failed to find C compiler", N_("Triton finds no C compiler"), COMPILER),
    ("fatal error: Python.h", N_("Triton's C compiler finds no headers of Python"), COMPILER),
    ("No working C++ compiler found", N_("torch.compile finds no C++ compiler"), COMPILER),
    ("InvalidCxxCompiler", N_("torch.compile finds no C++ compiler"), COMPILER),
    (
        "No module named 'setuptools'",
        N_("Triton finds no setuptools"),
        N_("install it in the environment that has vLLM: pip install 'setuptools<80'"),
    ),
    ("libcuda.so cannot found", N_("Triton finds no driver (libcuda.so)"), BUILD),
    ("Cannot find ptxas", N_("Triton finds no assembler for GPUs (ptxas)"), BUILD),
    ("no kernel image is available", N_("torch or vLLM has no kernels for this GPU"), BUILD),
    ("CUDA driver version is insufficient", N_("the driver is older than torch's CUDA"), BUILD),
    ("driver on your system is too old", N_("the driver is older than torch's CUDA"), BUILD),
    ("forward compatibility was attempted", N_("the driver is older than torch's CUDA"), BUILD),
    (
        "No operator found for `memory_efficient_attention",
        N_("xformers, which V0 computes float32 with, has no kernel for this GPU"),
        N_("install the xformers that this vLLM wants, or leave float32 out: --precision bfloat16"),
    ),
    ("only supported on GPUs with compute capability", N_("this GPU has no bfloat16"), BUILD),
    ("No CUDA GPUs are available", N_("no GPU is left to be used"), MEMORY),
    ("devices are busy or unavailable", N_("another process holds the GPU for itself"), MEMORY),
    ("device is busy or unavailable", N_("another process holds the GPU for itself"), MEMORY),
    ("NCCL error", N_("the GPUs cannot talk to each other"), NETWORK),
    ("ncclInternalError", N_("the GPUs cannot talk to each other"), NETWORK),
    ("ncclUnhandledCudaError", N_("the GPUs cannot talk to each other"), NETWORK),
    ("ncclSystemError", N_("the GPUs cannot talk to each other"), NETWORK),
    (
        "cannot open shared object file",
        N_("a library is missing"),
        N_("install it where vLLM runs"),
    ),
    (
        "No space left on device",
        N_("no room in the temporary folder"),
        N_("name another with TMPDIR"),
    ),
    ("Disk quota exceeded", N_("no room in the temporary folder"), N_("name another with TMPDIR")),
    (
        "init_shm_manager",
        N_("this vLLM was built for the CPU without AVX-512, and splits no model without it"),
        N_("leave out --tp and --pp, or build vLLM where the processor has AVX-512"),
    ),
    (
        "VLLM_USE_V1=1 is not supported with",
        N_("V1 refuses what it was asked"),
        N_("use --via module"),
    ),
    (
        "Pipeline parallelism is only supported",
        N_("this engine has no pipeline"),
        N_("leave out --pp"),
    ),
)
"""Words of an error, what it is, and what to do."""

OF_THE_FILE = (
    "AttributeError",
    "ImportError",
    "IndentationError",
    "IndexError",
    "KeyError",
    "NameError",
    "SyntaxError",
    "TypeError",
    "UnboundLocalError",
)
"""Errors of Python itself: they need no second opinion when they passed through the file."""


def fault(crash: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the environment, and what to do; None if the crash does not tell."""
    for text in (f"{crash['type']}: {crash['message']}", crash["traceback"]):
        for words, what, hint in FAULTS:
            if words in text:
                return N_("{fault}: {line}", fault=what, line=_line(text, words)), hint
    return None


def doubtful(crash: dict[str, Any], file: str) -> bool:
    """Whether the environment may be what the engine died of, and not ``file``."""
    return crash["type"] not in OF_THE_FILE or file not in crash["traceback"]


def _line(text: str, words: str) -> str:
    """The line that has the words, shortened."""
    (line,) = [each.strip() for each in text.splitlines() if words in each][:1]
    return line if len(line) <= 300 else line[:300] + "..."
