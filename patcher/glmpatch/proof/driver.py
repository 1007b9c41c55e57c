"""Proves files of vLLM: starts the probe in the interpreter that owns it, and has it judged.

It knows neither patches nor installations: it gets bytes, a specification and an interpreter.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, Message, _, joined
from glmpatch.patch import Answers, Numbers
from glmpatch.proof import process, weights
from glmpatch.proof.judge import KINDS, judge, judged
from glmpatch.proof.result import Answer, Result, Statistic, Throughput, Verification

__all__ = ["Answer", "Candidate", "Result", "Statistic", "Throughput", "Verification", "verify"]

MODES = ("eager", "compiled")
"""The modes of the engine; a server runs compiled unless told otherwise."""


@dataclass(frozen=True)
class Candidate:
    """A file to prove: the installed one, or, where ``source`` is given, those bytes.

    ``patch`` labels the results, and the candidates that share checkpoint and reference; ``name``
    says which file it is ("installed", "planned"). ``file`` is its path below the folder that
    holds the package ``vllm``.
    """

    patch: str
    name: str
    specification: Numbers | Answers
    file: str
    source: bytes | None = None

    @property
    def module(self) -> str:
        """The name under which vLLM imports the file."""
        parts = PurePosixPath(self.file).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def verify(
    python: Path,
    root: Path,
    paths: Sequence[str],
    candidates: Sequence[Candidate],
    device: str = "auto",
    precision: str | None = None,
    on_step: Callable[[str], None] | None = None,
    via: str = "auto",
    mode: str = "all",
    against: bool = False,
    model: Path | None = None,
    layers: int | None = None,
    tp: int = 1,
    pp: int = 1,
) -> Verification:
    """Measure files of vLLM, and judge them by what they compute or answer alone.

    Args:
        python: the interpreter that owns vLLM.
        root: the folder that holds the package ``vllm``.
        paths: further folders on that vLLM's import path.
        candidates: what to measure.
        device: auto, cpu or cuda.
        precision: the tested one, the reference being one above; by default every one that the way
            takes.
        on_step: called with each step of the probe, a few words, as it begins, and with the last
            one again ten times a second, so that a clock beside it can go on.
        via: module (vLLM's model file alone), engine (the whole of vLLM) or auto: the engine
            where there is a GPU, else the module. Of numbers alone, as is all that follows.
        mode: eager, compiled or all; of the engine alone.
        against: ask the engine for Transformers' own model too, and time both.
        model: folder of a checkpoint, in place of random weights.
        layers: only so many of its layers, the first ones.
        tp: tensor parallel size; of the engine alone, as is ``pp``, the pipeline parallel size.

    Raises:
        Failure: the measurement could not be made (exit 7). That a file crashes or is wrong is
            no failure but a result.
    """
    given = None
    left_out: tuple[str, ...] = ()
    if model:
        known = [c.specification for c in candidates]
        given = weights.open_weights(
            model, [each.architecture for each in known if isinstance(each, Numbers)]
        )
        candidates, left_out = _of(given.architecture, candidates)
    _check_precision(precision, candidates)
    specifications = {each.patch: each.specification for each in candidates}
    with _folder() as folder:
        if given and layers:
            (folder / "weights").mkdir()
            given = weights.cut(given, layers, folder / "weights")
        request = {
            **_files(folder, root, paths, candidates),
            "device": device,
            "against": against,
            "modes": MODES if mode == "all" else (mode,),
            "model": str(given.folder) if given else None,
            "parallel": {"tensor": tp, "pipeline": pp},
            "parameters": given.parameters if given else 0,
            "precision": precision,
            "via": via,
        }
        report = _run(python, folder, request, on_step)
    if "cannot" in report:
        why = _("the proof could not run: {why}", why=report["cannot"]["message"])
        so_far = _so_far(report, specifications, given is None)
        raise Failure(Exit.PROOF_NOT_RUN, "\n".join((why, *so_far)), _(report["cannot"]["hint"]))
    narrowed = any((precision, mode != "all", model, tp > 1, pp > 1))
    left_out += _other_precisions(precision, candidates)
    return judge(
        report,
        specifications,
        random_weights=given is None,
        full=bool(report["unnarrowed"]) and not narrowed,
        left_out=(*report.get("left_out", ()), *left_out),
        weights=_whose(model, layers),
        processes=tp * pp,
    )


def _run(
    python: Path, folder: Path, request: dict[str, Any], on_step: Callable[[str], None] | None
) -> dict[str, Any]:
    """The probe's report. A file that kills the probe's process has crashed; the others are asked
    again without it."""
    crashed: list[dict[str, Any]] = []
    while True:
        report = process.run(python, folder, request, on_step)
        if "died" not in report:
            results = [*crashed, *report.get("results", ())]
            return {**report, "results": [_without(folder, each) for each in results]}
        death = report["died"]
        crash = {
            "type": N_("the process died"),
            "message": N_(
                "{how} while {step}: {last}",
                how=death["how"],
                step=death["step"],
                last=death["last"],
            ),
            "place": None,
            "traceback": "",
        }
        kind = _leave_out(request, death["proof"], death["file"])
        about = {"proof": death["proof"], "file": death["file"], "kind": kind}
        crashed.append({**about, "crash": crash, "answers": []})
        if not (request["proofs"] or request["answers"]):
            told = [
                _("{file} file: {error}", file=Message(c["file"]), error=c["crash"]["message"])
                for c in crashed
            ]
            raise Failure(
                Exit.PROOF_FAILED,
                _("the proof failed: {why}", why="; ".join(told)),
                _("the file is not to be trusted"),
            )
        for name in ("steps", "asked"):
            Path(request[name]).unlink()


def _so_far(
    report: dict[str, Any],
    specifications: Mapping[str, Numbers | Answers],
    random_weights: bool,
) -> list[str]:
    """What was found of each file before the proof could not go on, a line for each."""
    try:
        results = list(judged(report, specifications, random_weights))
    except Failure:
        return []
    lines = []
    for patch, file in dict.fromkeys((each.patch, each.file) for each in results):
        own = [each for each in results if (each.patch, each.file) == (patch, file)]
        wrong = [each for each in own if not each.passed]
        ways = (" ".join(w for w in (each.precision, each.way) if w) for each in wrong or own)
        lines.append(
            _(
                "before that, {patch} ({file} file): {verdict} ({ways})",
                patch=patch,
                file=Message(file),
                verdict=_("FAILED") if wrong else _("passed"),
                ways="; ".join(filter(None, ways)) or _("its questions"),
            )
        )
    return lines


def _without(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The place of a crash as ``vllm/FILE.py:LINE`` where it lies in ``folder``, soon gone."""
    crash = result.get("crash")
    if not crash or not str(crash["place"]).startswith(f"{folder}{os.sep}"):
        return result
    place = Path(crash["place"]).relative_to(folder)
    return {**result, "crash": {**crash, "place": str(Path(*place.parts[1:]))}}


def _leave_out(request: dict[str, Any], proof: str, file: str) -> str:
    """Take one file out of a request; the kind of its proof."""
    for kind, name in (("numbers", "proofs"), ("answers", "answers")):
        for each in request[name]:
            if each["id"] == proof:
                each["files"] = [other for other in each["files"] if other["id"] != file]
                request[name] = [each for each in request[name] if each["files"]]
                return kind
    raise ValueError(f"no {proof} was asked")


def _of(
    architecture: str, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], tuple[str, ...]]:
    """The candidates that a checkpoint of this architecture can prove, and the other patches."""
    kept, others = [], {}
    for each in candidates:
        specification = each.specification
        if isinstance(specification, Numbers) and specification.architecture == architecture:
            kept.append(each)
        else:
            others[each.patch] = N_(
                "{patch}, which is about another model than --model", patch=each.patch
            )
    return kept, tuple(others.values())


def _check_precision(precision: str | None, candidates: Sequence[Candidate]) -> None:
    for each in candidates:
        specification = each.specification
        if not (precision and isinstance(specification, Numbers)):
            continue
        if precision not in specification.precisions:
            other = N_("{patch} has no proof in {precision}", patch=each.patch, precision=precision)
            why = specification.refused.get(precision, other)
            raise Failure(
                Exit.PROOF_NOT_RUN,
                _("the proof could not run: {why}", why=_(why)),
                "--precision " + _(joined(specification.precisions, N_("{one} or {other}"))),
            )


def _other_precisions(precision: str | None, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """What a named precision keeps from being proven."""
    others = dict.fromkeys(
        other
        for each in candidates
        if precision and isinstance(each.specification, Numbers)
        for other in each.specification.precisions
        if other != precision
    )
    if not others:
        return ()
    named = joined(others, N_("{one} and {other}"))
    return (N_("{others}, for --precision {precision}", others=named, precision=precision),)


def _whose(model: Path | None, layers: int | None) -> str:
    if model is None:
        return N_("the same random weights")
    if not layers:
        return N_("the weights of {model}", model=str(model))
    return N_("the weights of {model}, the first {layers} layers", model=str(model), layers=layers)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for all that the proof writes; gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="glmpatch-"))
    except OSError as error:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            _(
                "the proof could not run: no temporary folder can be written to: {error}",
                error=error.strerror,
            ),
            _("name one with TMPDIR, such as TMPDIR=/dev/shm"),
        ) from error
    try:
        yield folder
    except OSError as error:
        if str(folder) not in str(error.filename):
            raise
        raise Failure(
            Exit.PROOF_NOT_RUN,
            _("the proof could not run: {why}", why=f"{error.filename}: {error.strerror}"),
            _("name a folder with room with TMPDIR, such as TMPDIR=/dev/shm"),
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(
    folder: Path, root: Path, paths: Sequence[str], candidates: Sequence[Candidate]
) -> dict[str, Any]:
    """What the probe is told of the files; planned bytes are written into ``folder``."""
    orders: dict[str, dict[str, dict[str, Any]]] = {"numbers": {}, "answers": {}}
    for number, candidate in enumerate(candidates):
        path = None
        if candidate.source is not None:
            path = folder / str(number) / candidate.file
            path.parent.mkdir(parents=True)
            path.write_bytes(candidate.source)
        kind = candidate.specification.kind
        order = orders[kind].get(candidate.patch) or orders[kind].setdefault(
            candidate.patch,
            {
                **KINDS[kind].order(candidate.specification),
                "id": candidate.patch,
                "module": candidate.module,
                "file": candidate.file,
                "files": [],
            },
        )
        order["files"].append({"id": candidate.name, "path": path and str(path)})
    return {
        "root": str(root),
        "paths": list(paths),
        "proofs": list(orders["numbers"].values()),
        "answers": list(orders["answers"].values()),
        "report": str(folder / "report.json"),
        "steps": str(folder / "steps"),
        "asked": str(folder / "asked"),
    }
