"""Which engines are asked about which file: from facts alone, so that it can be tried anywhere.

What vLLM takes and refuses was read in 0.8.4, and is tried against its own configuration on
pretended GPUs (tests/real/proof/test_pretended_gpus.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .language import N_, joined
from .outcome import CannotRun

GIB = 2**30
NEEDED = 3 * GIB
"""Bytes of GPU memory beside the weights: CUDA's own context and workspaces, most of it."""
WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes of one number."""
AMPERE = (8, 0)
"""Compute capability that V1, FlashAttention and bfloat16 ask for."""
MODES = {("cuda", "V0", "compiled"): "graphs"}
"""V0 compiles nothing on a GPU. What it does there is CUDA graphs, and these are run with vLLM's
own operators switched off: plain PyTorch works out of place, as compiled code does."""
FREE_MEMORY = N_("stop what runs there, or name another GPU with CUDA_VISIBLE_DEVICES")
SMALLER = N_("take fewer layers with --layers, or split the model with --tp")


@dataclass(frozen=True)
class Device:
    """What an engine would run on, as vLLM sees it; memory in bytes, of the GPU with least free."""

    kind: str
    """``cpu`` or ``cuda``, as torch names it: an AMD GPU is ``cuda`` too."""
    name: str = "CPU"
    capability: tuple[int, int] = (0, 0)
    amd: bool = False
    count: int = 1
    free: int = 0
    total: int = 0


@dataclass(frozen=True)
class Model:
    """One file of one proof."""

    proof: str
    file: str
    architecture: str
    v0_only: bool = False
    """Whether vLLM serves its class by the V0 engine alone (``SupportsV0Only``)."""


@dataclass(frozen=True)
class Wish:
    """What the user asks for."""

    modes: tuple[str, ...] = ("eager", "compiled")
    precision: str | None = None
    """None is whatever suits the device."""
    tensor: int = 1
    pipeline: int = 1
    parameters: int = 0
    """How many numbers the user's checkpoint holds; 0 is the small one."""


@dataclass(frozen=True)
class Run:
    """One engine, in a process of its own, that is asked about one file."""

    proof: str
    file: str
    engine: str
    precision: str
    mode: str


@dataclass(frozen=True)
class Plan:
    """What is run; and, in words, what a reader might think was run and was not."""

    runs: tuple[Run, ...]
    left_out: tuple[str, ...]


def choose(
    device: Device,
    engines: Sequence[str],
    models: Sequence[Model],
    wish: Wish,
    release: tuple[int, ...] = (),
) -> Plan:
    """The runs, by engine, precision, mode and file, in this order.

    Args:
        device: what there is.
        engines: V1 and V0, as far as this vLLM has them for the device.
        models: the files that are asked about.
        wish: what is asked for.
        release: of vLLM, as numbers; empty where it is not known.

    Raises:
        CannotRun: what is wished for cannot be run here.
    """
    check_split(device, wish, release)
    precisions, small = [], []
    for precision in _precisions(device, wish):
        why = too_large(device, wish, precision)
        if why is None:
            precisions.append(precision)
        elif wish.precision is None and precision == "float32" and precisions:
            small.append(N_("float32: {why}", why=why))
        else:
            raise CannotRun(why, SMALLER if wish.parameters else FREE_MEMORY)
    runs = [
        Run(
            model.proof, model.file, engine, precision, MODES.get((device.kind, engine, mode), mode)
        )
        for engine in ("V1", "V0")
        for precision in precisions
        for mode in wish.modes
        for model in models
        if engine == engine_for(device, engines, model, precision)
    ]
    for model in models:
        if not any((run.proof, run.file) == (model.proof, model.file) for run in runs):
            raise CannotRun(
                N_(
                    "no engine of this vLLM runs {architecture} in {precisions} on {device}",
                    architecture=model.architecture,
                    precisions=joined(precisions, N_("{one} or {other}")),
                    device=described(device),
                ),
                N_("use --via module, which needs no engine"),
            )
    left_out = [*small, *_left_out(device, engines, models, wish, runs)]
    return Plan(tuple(runs), tuple(dict.fromkeys(left_out)))


def run_as(device: Device, engine: str, mode: str) -> str:
    """What a mode is in this engine."""
    return MODES.get((device.kind, engine, mode), mode)


def engine_for(device: Device, engines: Sequence[str], model: Model, precision: str) -> str | None:
    """The newest engine that takes this model in this precision, on this device."""
    for engine in ("V1", "V0"):
        if engine in engines and (engine == "V0" or _v1(device, model, precision)):
            return engine if precision == "float32" or _has_bfloat16(device) else None
    return None


def _v1(device: Device, model: Model, precision: str) -> bool:
    """Whether V1 takes it. On an AMD GPU vLLM itself takes V0 unless it is told to try V1."""
    if device.kind == "cpu":
        return True
    new = device.capability >= AMPERE and not device.amd
    return new and not model.v0_only and precision != "float32"


def _has_bfloat16(device: Device) -> bool:
    return device.kind == "cpu" or device.capability >= AMPERE


def _precisions(device: Device, wish: Wish) -> tuple[str, ...]:
    """bfloat16 is what a GPU serves, float32 sees more; AMD's attention in float32 is untried."""
    if wish.precision == "bfloat16" and not _has_bfloat16(device):
        raise CannotRun(
            N_(
                "--precision bfloat16: {device} has no bfloat16, which takes 8.0",
                device=described(device),
            ),
            N_("leave out --precision: float32 runs there"),
        )
    if wish.precision:
        return (wish.precision,)
    if device.kind == "cpu" or not _has_bfloat16(device):
        return ("float32",)
    return ("bfloat16",) if device.amd else ("bfloat16", "float32")


def too_large(device: Device, wish: Wish, precision: str) -> str | None:
    """Why a GPU cannot hold the weights and what an engine needs beside them; None if it can."""
    if device.kind == "cpu":
        return None
    needed = needed_bytes(wish.parameters, precision, wish.tensor * wish.pipeline)
    if device.free >= needed:
        return None
    return N_(
        "{device} has {free:.1f} of {total:.1f} GiB free, and the engine needs {needed:.1f} in "
        "{precision}",
        device=device.name,
        free=device.free / GIB,
        total=device.total / GIB,
        needed=needed / GIB,
        precision=precision,
    )


def needed_bytes(parameters: int, precision: str, shares: int) -> float:
    """GPU memory that an engine needs on each of its GPUs."""
    return NEEDED + parameters * WIDTH[precision] / shares


def check_split(device: Device, wish: Wish, release: tuple[int, ...]) -> None:
    """Whether there are so many devices, and an engine that is asked so can have stages."""
    if wish.pipeline > 1 and release < (0, 9):
        raise CannotRun(
            N_(
                "--pp {stages}: vLLM of this release runs a pipeline in its server alone; "
                "asked for a batch, V0 has none, and V1 wants Ray for it",
                stages=wish.pipeline,
            ),
            N_("leave out --pp; --tp splits the model too"),
        )
    ranks = wish.tensor * wish.pipeline
    if ranks > device.count:
        raise CannotRun(
            N_(
                "--tp {tensor} --pp {pipeline} takes {ranks} {devices}, and there are {count}",
                tensor=wish.tensor,
                pipeline=wish.pipeline,
                ranks=ranks,
                devices=N_("GPUs") if device.kind == "cuda" else N_("processors"),
                count=device.count,
            ),
            N_("ask for fewer"),
        )


def described(device: Device) -> str:
    """Name and capability, as far as a GPU has one."""
    if device.kind == "cpu":
        return N_("the CPU")
    major, minor = device.capability
    capability = f"{major}.{minor}"
    return N_(
        "{device} (compute capability {capability})", device=device.name, capability=capability
    )


def _left_out(
    device: Device, engines: Sequence[str], models: Sequence[Model], wish: Wish, runs: Sequence[Run]
) -> Iterator[str]:
    """What was not run, most important first."""
    if "compiled" not in wish.modes:
        yield N_("the compiled mode, in which a residual that is thrown away shows")
    if "eager" not in wish.modes:
        yield N_("the eager mode")
    if device.kind == "cpu":
        yield from ("bfloat16",) if wish.precision is None else ()
        yield N_("a GPU's kernels and graphs")
    elif not _has_bfloat16(device):
        yield N_("bfloat16 and V1, since {device} is older than 8.0", device=described(device))
    else:
        yield from _engines_left_out(device, engines, models, runs)
        if wish.precision is None and device.amd:
            yield N_("float32, untried on an AMD GPU")
        elif wish.precision is None and "V0" not in engines:
            yield N_("float32, which this vLLM's engine does not take")
    if wish.precision == "bfloat16":
        yield N_("float32, which sees more")
    if wish.precision == "float32" and device.kind == "cuda" and _has_bfloat16(device):
        yield N_("bfloat16, in which a server runs")
    if wish.tensor * wish.pipeline == 1:
        yield N_("more than one device")


def _engines_left_out(
    device: Device, engines: Sequence[str], models: Sequence[Model], runs: Sequence[Run]
) -> Iterator[str]:
    """The engines of a GPU that has bfloat16, as far as they are not asked in bfloat16."""
    ran = {(run.engine, run.proof, run.file) for run in runs if run.precision == "bfloat16"}
    if not ran:
        return
    if "V1" in engines and device.amd:
        yield N_("V1, which vLLM calls experimental on an AMD GPU")
    for model in models:
        if model.v0_only and "V1" in engines and not device.amd:
            yield N_(
                "V1 with {architecture}, which vLLM serves by V0 alone",
                architecture=model.architecture,
            )
        elif ("V1", model.proof, model.file) in ran and "V0" in engines:
            yield N_("V0 in bfloat16 with {architecture}", architecture=model.architecture)
