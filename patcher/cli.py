"""The commands: read the arguments, call, report, exit. No logic."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from patcher import __version__
from patcher.errors import Exit, Failure
from patcher.report import Report

if TYPE_CHECKING:
    from patcher.examine import Examination
    from patcher.patch import Patch
    from patcher.target import Target
    from patcher.verify.driver import Candidate

EPILOG = """\b
Exit codes:
  0    the state that was asked for holds
  1    status --check: a patch is needed
  2    wrong usage
  3    vLLM not found, ambiguous, or not writable
  4    this version of vLLM is not covered
  5    drift: the code has a form that no patch knows; nothing written
  6    verification failed; apply --verify has left the file as it was
  7    verification could not run
  70   a fault of glmpatch itself
  130  interrupted
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="glmpatch")
def cli() -> None:
    """Repair GLM-4-0414 in an installed vLLM 0.8.4, and prove it.

    \b
    Examples:
      glmpatch status                      what is installed, and what it needs
      glmpatch apply --verify              prove the repair, then install it
      glmpatch apply --python /opt/venv    the vLLM of another environment
      glmpatch revert                      the original, byte for byte
    """


def options(*, target: bool = True) -> Callable[[Callable[..., Exit]], Callable[..., None]]:
    """The options that commands share; the command gets a Report and returns an exit code."""

    def decorate(function: Callable[..., Exit]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(as_json: bool, quiet: bool, verbose: bool, debug: bool, **arguments: Any) -> None:
            report = Report(function.__name__.rstrip("_"), as_json, quiet, verbose)
            sys.exit(_run(report, debug, lambda: function(report, **arguments)))

        for option in (
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
            click.option("-v", "--verbose", is_flag=True, help="Add paths and hashes."),
            click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        ):
            run = option(run)
        if target:
            for option in (
                click.option(
                    "--path", metavar="DIR", help="The folder that holds the package vllm."
                ),
                click.option(
                    "--python",
                    metavar="PATH",
                    help="The interpreter, or root of the environment, that has vLLM.",
                ),
            ):
                run = option(run)
        return run

    return decorate


editable = click.option(
    "--allow-editable", is_flag=True, help="Write to an editable install, a source checkout."
)
some_patches = click.argument("names", metavar="[PATCH]...", nargs=-1)


@cli.command()
@options()
@click.option("--check", is_flag=True, help="Exit with 1 if a patch is needed, 5 on drift.")
def status(report: Report, python: str | None, path: str | None, check: bool) -> Exit:
    """Show what is installed and which patches it needs."""
    target, patches = _open(report, python, path)
    examinations = _examine(report, target, patches)
    for each in examinations:
        report.show(each)
        report.add(each)
    _warn_of_transformers(report, target, examinations)
    needed = [e for e in examinations if e.state.value == "needed" or e.defect]
    if any(e.defect for e in needed):
        report.hint(
            "this version is not one that the patch was tested on, but its file has exactly the "
            "known defect: glmpatch apply --any-version --verify"
        )
    elif needed:
        report.hint("glmpatch apply --verify")
    if check:
        _refuse_drift(examinations)
    return Exit.NEEDED if check and needed else Exit.OK


@cli.command(name="list")
@options(target=False)
def list_(report: Report) -> Exit:
    """List the patches."""
    from patcher.patch import load_patches
    from patcher.report import describe

    for patch in load_patches():
        report.patches.append(describe(patch))
        report.data(f"{patch.id:<20} vLLM {patch.versions:<10} {patch.title}")
    return Exit.OK


@cli.command()
@click.argument("name", metavar="PATCH")
@options(target=False)
def explain(report: Report, name: str) -> Exit:
    """Explain a patch: why, how, upstream, removal."""
    from patcher.patch import select_patches

    report.show_patch(select_patches([name])[0])
    return Exit.OK


@cli.command()
@some_patches
@options()
@click.option("--any-version", is_flag=True, help="Go by the structure of the file alone.")
def diff(
    report: Report, names: Sequence[str], python: str | None, path: str | None, any_version: bool
) -> Exit:
    """Show what apply would change, as a unified diff."""
    from patcher.patch import PatchState

    target, patches = _find(python, path, names)
    report.target = target
    examinations = _examine(report, target, patches, any_version)
    for each in examinations:
        needed = each.state is PatchState.NEEDED
        report.add(each, diff=report.show_diff(each) if needed else "")
        if not needed:
            report.message(f"{each.patch.id}: {each.state.value}, nothing to change")
    _refuse_drift(examinations)
    return Exit.OK


@cli.command()
@some_patches
@options()
@editable
@click.option("--dry-run", is_flag=True, help="Stop before anything is written.")
@click.option("--verify", "prove", is_flag=True, help="Prove the planned bytes by numbers first.")
@click.option("--any-version", is_flag=True, help="Go by the structure of the file alone.")
def apply(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    allow_editable: bool,
    dry_run: bool,
    prove: bool,
    any_version: bool,
) -> Exit:
    """Repair the installed vLLM; by default with all patches that it needs."""
    from patcher import install
    from patcher.patch import PatchState

    target, patches = _open(report, python, path, names)
    examinations = _examine(report, target, patches, any_version)
    try:
        _refuse_drift(examinations)
    except Failure:
        for each in examinations:
            report.add(each, changed=False)
        raise
    needed = [e for e in examinations if e.state is PatchState.NEEDED]
    if needed:
        _require_writable(target, allow_editable, needed)
    verification = None
    proven = [e for e in examinations if e.state is not PatchState.NOT_APPLICABLE]
    if prove and proven:
        verification = _prove(report, target, [_planned(e) for e in proven], "auto")
    for each in examinations:
        change = each.state is PatchState.NEEDED
        if change and not dry_run:
            assert each.plan is not None
            install.install(target, each.patch, each.path, each.plan, verification)
        elif not dry_run:
            install.tidy(target, each.patch)
        report.add(each, changed=change and not dry_run)
        report.data(_outcome(each, dry_run))
    if needed and not dry_run:
        report.message("restart every running vLLM server, on every node")
        report.message("and drop --model-impl transformers where it was used as a workaround")
    _warn_of_transformers(report, target, examinations)
    return _uncovered(examinations, names)


@cli.command()
@some_patches
@options()
@editable
@click.option("--force", is_flag=True, help="Restore the original of a file edited since.")
def revert(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    allow_editable: bool,
    force: bool,
) -> Exit:
    """Take the patches back, byte for byte."""
    from patcher import install

    target, patches = _open(report, python, path, names)
    for each in _examine(report, target, patches):
        changed = False
        if each.receipt is None:
            install.tidy(target, each.patch)
            report.data(f"{each.patch.id}: nothing to take back ({each.state.value})")
        else:
            _require_writable(target, allow_editable, [each])
            changed = install.revert(target, each.patch, each.path, force)
            report.data(
                f"{each.patch.id}: reverted, {each.path} is the original again"
                if changed
                else f"{each.patch.id}: nothing to take back"
            )
            if changed:
                report.message("restart every running vLLM server, on every node")
        report.add(each, changed=changed)
    return Exit.OK


@cli.command()
@options()
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to compute; auto takes a GPU where there is one.",
)
def verify(report: Report, python: str | None, path: str | None, device: str) -> Exit:
    """Prove by numbers that the installed vLLM computes GLM-4 right."""
    from patcher.verify.driver import Candidate

    target, patches = _open(report, python, path)
    present = [patch for patch in patches if (target.root / patch.file).exists()]
    if not present:
        raise Failure(
            Exit.VERSION,
            f"vLLM {target.version} has no GLM-4 model file to verify",
            "GLM-4-0414 needs vLLM 0.8.4 or newer",
        )
    _prove(report, target, [Candidate(patch) for patch in present], device)
    return Exit.OK


# -- what the commands share --------------------------------------------------------------------


def _find(
    python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    from patcher.patch import select_patches
    from patcher.target import find_target

    patches = select_patches(names)
    return find_target(python, path), patches


def _open(
    report: Report, python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    target, patches = _find(python, path, names)
    report.show_target(target)
    return target, patches


def _examine(
    report: Report, target: Target, patches: Sequence[Patch], any_version: bool = False
) -> tuple[Examination, ...]:
    from patcher.examine import examine_all

    examinations = examine_all(target, patches, any_version)
    for each in examinations:
        if each.stale_receipt:
            report.warn(
                f"{each.patch.id}: the receipt in {target.records} is of another file and ignored",
                "vLLM was reinstalled or the file edited since; apply writes a new one",
            )
    return examinations


def _refuse_drift(examinations: Sequence[Examination]) -> None:
    lost = [each for each in examinations if each.state.value == "drifted"]
    if lost:
        places = "; ".join(f"{each.patch.id}: {each.place}: {each.problem}" for each in lost)
        raise Failure(
            Exit.DRIFT,
            f"{places}\nThis is no form of the code that glmpatch knows; nothing was written",
            "reinstall the released file (pip install --force-reinstall --no-deps vllm==0.8.4), "
            "or upgrade to vLLM 0.8.5 or newer, where it is fixed",
        )


def _require_writable(
    target: Target, allow_editable: bool, examinations: Sequence[Examination]
) -> None:
    from patcher import install

    if target.install == "editable" and not allow_editable:
        raise Failure(
            Exit.TARGET,
            f"this vLLM is an editable install: its files are the source checkout {target.root}",
            "add --allow-editable to change the files of that checkout",
        )
    for each in examinations:
        install.check_writable(target, each.path)


def _planned(examination: Examination) -> Candidate:
    """What would be there after apply: the planned bytes, or the file that is right already."""
    from patcher.verify.driver import Candidate

    plan = examination.plan
    if plan is None or plan.after == plan.before:
        return Candidate(examination.patch)
    return Candidate(examination.patch, "planned", plan.after)


def _prove(
    report: Report, target: Target, candidates: Sequence[Candidate], device: str
) -> dict[str, Any]:
    """Run the proof and show it; a proof that fails ends the command."""
    from patcher.verify import driver

    on_step = report.step if report.shows_steps else None
    try:
        verification = driver.verify(target, candidates, device, on_step=on_step)
    finally:
        if on_step:
            on_step("")
    report.show_verification(verification)
    if not verification.passed:
        planned = any(each.source is not None for each in candidates)
        raise Failure(
            Exit.PROOF_FAILED,
            "verification failed" + ("; nothing was written" if planned else ""),
            "this vLLM computes something else than the patch mends; compare it with a fresh "
            "install of the same version"
            if planned
            else "glmpatch status tells what is wrong, glmpatch apply --verify mends it",
        )
    return verification.to_dict()


def _outcome(examination: Examination, dry_run: bool) -> str:
    """One line on what apply did about a patch."""
    name, path = examination.patch.id, examination.path
    plan = examination.plan
    if examination.state.value == "needed" and plan is not None:
        verb = "would repair" if dry_run else "repaired"
        return f"{name}: {verb} {path} ({', '.join(plan.broken)})"
    return {
        "applied": f"{name}: nothing to do, applied already",
        "fixed": f"{name}: nothing to do, already right (by upstream or by hand)",
    }.get(examination.state.value, f"{name}: not for this version of vLLM")


def _uncovered(examinations: Sequence[Examination], names: Sequence[str]) -> Exit:
    """Exit 4 where a version is not covered, although its file needs it or the user named it."""
    for each in examinations:
        if each.defect:
            raise Failure(
                Exit.VERSION,
                f"{each.patch.id} was tested on vLLM {each.patch.versions} only, but the file of "
                f"this version has exactly the known defect: {each.path}",
                "glmpatch apply --any-version --verify",
            )
        if names and each.state.value == "not-applicable":
            raise Failure(
                Exit.VERSION,
                f"{each.patch.id} is for vLLM {each.patch.versions}, not for this version",
                f"glmpatch explain {each.patch.id} tells what it is for",
            )
    return Exit.OK


def _warn_of_transformers(
    report: Report, target: Target, examinations: Sequence[Examination]
) -> None:
    """The oldest Transformers that vLLM 0.8.4 accepts have no GLM-4-0414 at all."""
    from packaging.version import InvalidVersion, Version

    for each in examinations:
        oldest = each.patch.proof.transformers
        try:
            old = target.transformers is not None and (
                Version(target.transformers) < Version(oldest)
            )
        except InvalidVersion:
            continue
        if old and each.state.value != "not-applicable":
            report.warn(
                f"transformers {target.transformers} has no {each.patch.proof.config_class}: "
                "this vLLM cannot load GLM-4-0414, patched or not",
                f"pip install transformers=={oldest}",
            )


# -- the frame ----------------------------------------------------------------------------------


def _run(report: Report, debug: bool, command: Callable[[], Exit]) -> int:
    """Run a command; every way in which it can end has its exit code and its message."""
    try:
        return report.finish(command())
    except Failure as failure:
        if debug:
            raise
        return report.fail(failure)
    except (KeyboardInterrupt, click.Abort):
        return report.fail(Failure(Exit.INTERRUPTED, "interrupted", "run the same command again"))
    except Exception as error:
        if debug:
            raise
        return report.fail(
            Failure(
                Exit.INTERNAL,
                f"a fault of glmpatch itself: {type(error).__name__}: {error}",
                "run it again with --debug, and report what it prints",
            )
        )


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(prog_name="glmpatch", standalone_mode=False)
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "glmpatch"
        report = Report(name.partition(" ")[2], as_json="--json" in sys.argv)
        failure = Failure(Exit.USAGE, error.format_message(), f"{name} --help")
        sys.exit(report.fail(failure))
    except (KeyboardInterrupt, click.Abort):
        sys.exit(Report("").fail(Failure(Exit.INTERRUPTED, "interrupted")))
