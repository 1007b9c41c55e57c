"""The commands: read the arguments, call, report, exit. No logic."""

from __future__ import annotations

import functools
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from patcher import __version__, completion
from patcher.errors import Exit, Failure
from patcher.help import Group
from patcher.report import Report, drop

if TYPE_CHECKING:
    from patcher.examine import Examination
    from patcher.patch import Patch
    from patcher.target import Target
    from patcher.verify.driver import Candidate


@click.group(
    "glmpatch",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="glmpatch", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Repair GLM-4-0414 in an installed vLLM 0.8.4, and prove it."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(Exit.USAGE)


def options(*, target: bool = True) -> Callable[[Callable[..., Exit]], Callable[..., None]]:
    """The options that commands share; the command gets a Report and returns an exit code."""

    def decorate(function: Callable[..., Exit]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(as_json: bool, quiet: bool, verbose: bool, debug: bool, **arguments: Any) -> None:
            on = [
                word
                for option in ("python", "path")
                if arguments.get(option) is not None
                for word in (f"--{option}", _quote(arguments[option]))
            ]
            report = Report(function.__name__.rstrip("_"), as_json, quiet, verbose, on)
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
                    "--path",
                    metavar="DIR",
                    shell_complete=completion.folder,
                    help="The folder that holds the package vllm.",
                ),
                click.option(
                    "--python",
                    metavar="PATH",
                    shell_complete=completion.anything,
                    help="The interpreter, or root of the environment, that has vLLM.",
                ),
            ):
                run = option(run)
        return run

    return decorate


def _quote(word: str) -> str:
    import shlex

    return shlex.quote(word)


editable = click.option(
    "--allow-editable", is_flag=True, help="Write to an editable install, a source checkout."
)
via = click.option(
    "--via",
    type=click.Choice(["auto", "module", "engine"]),
    default="auto",
    help="Ask vLLM's model file alone, or the whole engine; auto takes the engine on a GPU.",
)
mode = click.option(
    "--mode",
    type=click.Choice(["eager", "compiled", "all"]),
    default="all",
    help="The engine's modes; a server runs compiled unless told otherwise.",
)
some_patches = click.argument(
    "names", metavar="[PATCH]...", nargs=-1, shell_complete=completion.patches
)


@cli.command()
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 1 if a patch is needed, or its defect is there in a version that it was "
    "not tested on; with 5 on drift.",
)
@options()
def status(report: Report, python: str | None, path: str | None, check: bool) -> Exit:
    """Show what is installed and which patches it needs."""
    target, patches = _open(report, python, path)
    examinations = _examine(report, target, patches)
    for each in examinations:
        report.show(each)
        report.add(each)
    _warn_of_transformers(report, target, examinations)
    needed = [e for e in examinations if e.state.value == "needed" or e.defect]
    drifted = any(e.state.value == "drifted" for e in examinations)
    # Without names, apply does nothing at all where one has drifted.
    what = " ".join(["apply", *(e.patch.id for e in needed if drifted)])
    untested = [e.patch.id for e in needed if e.defect]
    if untested:
        report.hint(
            f"{' and '.join(untested)}: not tested on this version; to go by the structure of the "
            f"file and the proof: {report.next(f'{what} --any-version --verify')}"
        )
    elif needed:
        report.hint(report.next(f"{what} --verify"))
    if drifted and not check:
        report.hint(_how_to_restore(target))
    if check:
        _refuse_drift(target, examinations)
    return Exit.NEEDED if check and needed else Exit.OK


@cli.command(name="list")
@options(target=False)
def list_(report: Report) -> Exit:
    """List the patches."""
    from patcher.patch import load_patches
    from patcher.report import describe

    patches = load_patches(report.leave_out)
    for patch in patches:
        report.patches.append(describe(patch))
        name = patch.id.ljust(max(len(each.id) for each in patches))
        versions = patch.versions.ljust(max(len(each.versions) for each in patches))
        report.data(f"{name}  vLLM {versions}  {patch.title}")
    return Exit.OK


@cli.command()
@click.argument("name", metavar="PATCH", shell_complete=completion.patches)
@options(target=False)
def explain(report: Report, name: str) -> Exit:
    """Explain a patch: why, how, upstream, removal."""
    from patcher.patch import select_patches

    report.show_patch(select_patches([name], report.warn)[0])
    return Exit.OK


@cli.command()
@some_patches
@click.option("--any-version", is_flag=True, help="Go by the structure of the file alone.")
@options()
def diff(
    report: Report, names: Sequence[str], python: str | None, path: str | None, any_version: bool
) -> Exit:
    """Show what apply would change, as a unified diff."""
    from patcher.patch import PatchState

    target, patches = _find(report, python, path, names)
    report.target = target
    examinations = _examine(report, target, patches, any_version)
    for each in examinations:
        needed = each.state is PatchState.NEEDED
        report.add(each, diff=report.show_diff(each) if needed else "")
        if not needed and each.state is not PatchState.DRIFTED:
            report.message(f"{each.patch.id}: {each.state.value}, nothing to change")
        if each.defect:
            names_ = " ".join(["diff", *names])
            report.hint(
                f"vLLM {target.version} is not a release that the patch was tested on, but its "
                f"file has exactly the known defect: {report.next(f'{names_} --any-version')}"
            )
    _refuse_drift(target, examinations)
    return Exit.OK


@cli.command()
@some_patches
@click.option("--verify", "prove", is_flag=True, help="Prove the planned bytes by numbers first.")
@via
@click.option("--dry-run", is_flag=True, help="Stop before anything is written.")
@click.option("--any-version", is_flag=True, help="Go by the structure of the file alone.")
@editable
@options()
def apply(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    allow_editable: bool,
    dry_run: bool,
    prove: bool,
    via: str,
    any_version: bool,
) -> Exit:
    """Repair the installed vLLM.

    Without PATCH: with all patches that it needs.
    """
    from patcher import install
    from patcher.patch import PatchState

    target, patches = _open(report, python, path, names)
    examinations = _examine(report, target, patches, any_version)
    needed = [e for e in examinations if e.state is PatchState.NEEDED]
    verification = None
    try:
        _refuse_drift(target, examinations)
        if needed:
            _require_writable(target, allow_editable, needed)
        proven = [e for e in examinations if e.can_be_proven]
        if prove and proven:
            verification = _prove(report, target, [_planned(e) for e in proven], via=via)
        elif prove:
            report.message("nothing was proven: no patch is for this version of vLLM")
    except (Failure, KeyboardInterrupt):
        for each in examinations:
            report.add(each, changed=False)
        raise
    for each in examinations:
        change = each.state is PatchState.NEEDED
        if change and not dry_run:
            assert each.plan is not None
            try:
                install.install(target, each.patch, each.path, each.plan, verification)
            except Failure as failure:
                raise _after(failure, report) from failure
            except KeyboardInterrupt as interrupt:
                hint = f"{report.next('status')} tells what was done"
                stopped = Failure(Exit.INTERRUPTED, "interrupted", hint)
                raise _after(stopped, report) from interrupt
        elif not dry_run:
            install.tidy(target, each.patch)
        report.add(each, changed=change and not dry_run)
        report.data(_outcome(target, each, dry_run))
    if needed and not dry_run:
        report.message("restart every running vLLM server, on every node")
        report.message("and drop --model-impl transformers where it was used as a workaround")
    _warn_of_transformers(report, target, examinations)
    return _uncovered(report, target, examinations, names)


@cli.command()
@some_patches
@click.option("--force", is_flag=True, help="Restore the original of a file edited since.")
@editable
@options()
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
    failures: list[Failure] = []
    reverted = False
    # The last one first: each finds what it wrote into RECORD as it left it.
    for each in reversed(_examine(report, target, patches, warn=False)):
        changed = False
        try:
            if each.receipt is None:
                install.tidy(target, each.patch)
            else:
                if each.plan is None:
                    raise Failure(
                        Exit.DRIFT,
                        f"{each.path}: {each.problem}; glmpatch patched another file there",
                        _how_to_restore(target),
                    )
                _require_writable(target, allow_editable, [each])
                changed = install.revert(target, each.patch, each.path, force)
        except Failure as failure:
            failures.append(failure)  # the other files can be taken back all the same
        else:
            report.data(_taken_back(each, changed))
        reverted = reverted or changed
        report.add(each, changed=changed)
    if reverted:
        report.message("restart every running vLLM server, on every node")
    _raise_all(failures)
    return Exit.OK


@cli.command()
@options()
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to compute; auto takes a GPU where there is one.",
)
@via
@mode
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="What to compute in; bfloat16 for the engine on a GPU, else float32.",
)
@click.option(
    "--against",
    type=click.Choice(["transformers-backend"]),
    help="Ask the engine for Transformers' own model too, and time both.",
)
@click.option(
    "--model",
    metavar="DIR",
    shell_complete=completion.folder,
    help="The folder of a checkpoint, in place of random weights.",
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    metavar="N",
    help="Load only so many of its first layers.",
)
@click.option("--tp", type=click.IntRange(1), metavar="N", default=1, help="Tensor parallel size.")
@click.option(
    "--pp", type=click.IntRange(1), metavar="N", default=1, help="Pipeline parallel size."
)
@click.option(
    "--report",
    "page",
    type=click.File("w", encoding="utf-8", lazy=False),
    metavar="FILE.html",
    help="Write a web page with all figures and a plot of each mode.",
)
def verify(
    report: Report,
    python: str | None,
    path: str | None,
    device: str,
    via: str,
    mode: str,
    precision: str | None,
    against: str | None,
    model: str | None,
    layers: int | None,
    tp: int,
    pp: int,
    page: TextIO | None,
) -> Exit:
    """Prove by numbers that the installed vLLM computes GLM-4 right."""
    from pathlib import Path

    from patcher.examine import is_present
    from patcher.verify.driver import Candidate

    if layers and not model:
        raise Failure(Exit.USAGE, "--layers says how much of --model is loaded", "add --model DIR")
    target, patches = _open(report, python, path)
    present = [patch for patch in patches if is_present(target, patch)]
    for patch in patches:
        if patch not in present and target.version and patch.covers(target.version):
            raise Failure(
                Exit.DRIFT,
                f"{patch.id}: {target.root / patch.file} or a file that it counts on is missing",
                _how_to_restore(target),
            )
    if not present:
        raise Failure(
            Exit.VERSION,
            f"{_version(target)} has none of the files that a patch is for; nothing to verify",
            "glmpatch list tells the releases that have them",
        )
    for patch in patches:
        if patch not in present:
            report.message(f"not proven: {patch.id}, whose file this vLLM does not have")
    candidates = [Candidate(patch) for patch in present]
    _prove(
        report,
        target,
        candidates,
        device=device,
        precision=precision,
        via=via,
        mode=mode,
        against=against is not None,
        model=Path(model) if model else None,
        layers=layers,
        tp=tp,
        pp=pp,
        page=page,
    )
    return Exit.OK


# -- what the commands share --------------------------------------------------------------------


def _find(
    report: Report, python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    from patcher.patch import select_patches
    from patcher.target import find_target

    patches = select_patches(names, report.warn if names else report.leave_out)
    return find_target(python, path), patches


def _open(
    report: Report, python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    target, patches = _find(report, python, path, names)
    report.show_target(target)
    return target, patches


def _examine(
    report: Report,
    target: Target,
    patches: Sequence[Patch],
    any_version: bool = False,
    warn: bool = True,
) -> tuple[Examination, ...]:
    from patcher.examine import examine_all

    examinations = examine_all(target, patches, any_version)
    for each in examinations:
        if warn and each.stale_receipt:
            report.warn(
                f"{each.path} is not the file that glmpatch left there: it was edited or "
                "reinstalled since",
                f"{report.next(f'revert {each.patch.id}')} removes the old receipt of a "
                "reinstalled file; --force puts the original in the place of an edited one",
            )
    return examinations


def _how_to_restore(target: Target) -> str:
    """What to do about a file that no patch knows."""
    if target.install != "wheel":
        return f"restore the file from version control, such as git -C {target.root} checkout FILE"
    python = _quote(str(target.python)) if target.python else "python"
    released = target.version is not None and "+" not in target.version
    name = f"vllm=={target.version}" if released else "VLLM"
    return (
        f"reinstall the released file ({python} -m pip install --force-reinstall --no-deps {name}),"
        " or upgrade vLLM: glmpatch explain PATCH tells from which release on a patch is not needed"
    )


def _refuse_drift(target: Target, examinations: Sequence[Examination]) -> None:
    lost = [each for each in examinations if each.state.value == "drifted"]
    if lost:
        places = "\n".join(f"{each.patch.id}: {each.place}: {each.problem}" for each in lost)
        others = [each.patch.id for each in examinations if each.state.value == "needed"]
        apart = f"; {' and '.join(others)} can be applied by name" if others else ""
        raise Failure(
            Exit.DRIFT,
            f"{places}\nThis is no form of the code that glmpatch knows; nothing was written",
            _how_to_restore(target) + apart,
        )


def _raise_all(failures: Sequence[Failure]) -> None:
    """One Failure with the highest exit code of all of them, and everything that they say."""
    if failures:
        raise Failure(
            max(failure.code for failure in failures),
            "\n".join(dict.fromkeys(failure.message for failure in failures)),
            "\n".join(dict.fromkeys(failure.hint for failure in failures if failure.hint)),
        )


def _after(failure: Failure, report: Report) -> Failure:
    """A failure of one file says which others have been changed before it."""
    done = [each["id"] for each in report.patches if each["changed"]]
    if not done:
        return failure
    message = f"{failure.message}\n{' and '.join(done)}: applied before that, and stays so"
    return Failure(failure.code, message, failure.hint)


def _taken_back(examination: Examination, changed: bool) -> str:
    """One line on what revert did about a patch."""
    name = examination.patch.id
    if changed:
        return f"{name}: reverted, {examination.path} is the original again"
    if examination.receipt is None:
        return f"{name}: nothing to take back ({examination.state.value})"
    return f"{name}: nothing to take back, but for a receipt of another file, which is gone now"


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
    report: Report,
    target: Target,
    candidates: Sequence[Candidate],
    page: TextIO | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Run the proof and show it; a proof that fails ends the command."""
    from patcher.verify import driver

    on_step = report.step if report.shows_steps else None
    try:
        verification = driver.verify(target, candidates, on_step=on_step, **how)
    finally:
        if on_step:
            on_step("")
    report.show_verification(verification)
    if page is not None:
        from patcher.verify.page import page as web_page

        page.write(web_page(verification, f"vLLM {target.version} in {target.package}"))
        report.message(f"report: {page.name}")
    if not verification.passed:
        planned = any(each.source is not None for each in candidates)
        raise Failure(
            Exit.PROOF_FAILED,
            f"verification failed: {', '.join(verification.failed)}"
            + ("; nothing was written" if planned else ""),
            "this vLLM computes something else than the patch mends; compare it with a fresh "
            "install of the same version"
            if planned
            else f"{report.next('status')} tells whether a patch is needed, and "
            f"{report.next('apply --verify')} mends it; else another file of this vLLM is wrong: "
            "reinstall it",
        )
    return verification.to_dict()


def _outcome(target: Target, examination: Examination, dry_run: bool) -> str:
    """One line on what apply did about a patch."""
    name, path = examination.patch.id, examination.path
    plan = examination.plan
    if examination.state.value == "needed" and plan is not None:
        verb = "would repair" if dry_run else "repaired"
        return f"{name}: {verb} {path} ({', '.join(plan.broken)})"
    unknown = plan is not None and plan.state.value == "drifted"
    return {
        "applied": f"{name}: nothing to do, applied already",
        "fixed": f"{name}: nothing to do, already right (by upstream or by hand)",
    }.get(
        examination.state.value,
        f"{name}: nothing done, {_version(target)} is not a release that it is for "
        f"({examination.patch.versions})"
        + ("; the file has a form that glmpatch does not know" if unknown else ""),
    )


def _version(target: Target) -> str:
    return f"vLLM {target.version}" if target.version else "a vLLM of unknown version"


def _uncovered(
    report: Report, target: Target, examinations: Sequence[Examination], names: Sequence[str]
) -> Exit:
    """Exit 4 where a version is not covered, although its file needs it or the user named it."""
    failures = []
    for each in examinations:
        if each.defect:
            failures.append(
                Failure(
                    Exit.VERSION,
                    f"{each.patch.id} was tested on vLLM {each.patch.versions} only, and this is "
                    f"{_version(target)}; but {each.path} has exactly the known defect",
                    "to go by its structure and the proof: "
                    + report.next(" ".join(["apply", *names, "--any-version --verify"])),
                )
            )
        elif names and each.state.value == "not-applicable":
            failures.append(
                Failure(
                    Exit.VERSION,
                    f"{each.patch.id} is for vLLM {each.patch.versions}, and this is "
                    f"{_version(target)}: {each.path}",
                    f"glmpatch explain {each.patch.id} tells what it is for",
                )
            )
    _raise_all(failures)
    return Exit.OK


def _warn_of_transformers(
    report: Report, target: Target, examinations: Sequence[Examination]
) -> None:
    """The oldest Transformers that vLLM 0.8.4 accepts have no GLM-4-0414 at all."""
    from patcher.versions import covers

    found = target.transformers
    lacking = [
        each.patch
        for each in examinations
        if found is not None
        and each.state.value != "not-applicable"
        and covers(f"<{each.patch.proof.transformers}", found)
    ]
    if not lacking:
        return
    classes = " and ".join(dict.fromkeys(patch.proof.config_class for patch in lacking))
    names = " and ".join(patch.id for patch in lacking)
    # Whoever has the one that the newest of the models needs has those of the others.
    oldest = max((patch.proof.transformers for patch in lacking), key=_release)
    report.warn(
        f"transformers {found} has no {classes}: this vLLM cannot load the models of {names}, "
        "patched or not",
        f"{_quote(str(target.python))} -m pip install transformers=={oldest}"
        if target.python
        else f"install transformers=={oldest} in the environment of this vLLM",
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


# -- the frame ----------------------------------------------------------------------------------


def _run(report: Report, debug: bool, command: Callable[[], Exit]) -> int:
    """Run a command; every way in which it can end has its exit code and its message."""
    try:
        code = command()
        if report.left_out:
            raise Failure(
                Exit.INTERNAL,
                "\n".join(report.left_out),
                "reinstall glmpatch; the other patches were dealt with all the same",
            )
        return report.finish(code)
    except Failure as failure:
        _trace(debug)
        return report.fail(failure)
    except (KeyboardInterrupt, click.Abort):
        _trace(debug)
        return report.fail(Failure(Exit.INTERRUPTED, "interrupted", "run the same command again"))
    except Exception as error:
        _trace(debug)
        return report.fail(
            Failure(
                Exit.INTERNAL,
                f"a fault of glmpatch itself: {type(error).__name__}: {error}",
                "run it again with --debug, and report what it prints",
            )
        )


def _trace(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def main() -> None:
    """Entry point of the command."""
    # Looking for garbage takes a tenth of the time, and there is none: a tree holds no cycles.
    gc.disable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if completion.is_asked():
        completion.answer(cli)
    try:
        cli.main(prog_name="glmpatch", standalone_mode=False)
    except click.UsageError as error:
        # Click's parser knows no context where an option lacks its argument.
        command = error.ctx.info_name if error.ctx else sys.argv[1]
        command = command if command in cli.commands else None
        report = Report(command, as_json="--json" in sys.argv)
        hint = f"glmpatch {command} --help" if command else "glmpatch --help"
        failure = Failure(Exit.USAGE, error.format_message(), hint)
        sys.exit(report.fail(failure))
    except (KeyboardInterrupt, click.Abort):
        sys.exit(Report(None).fail(Failure(Exit.INTERRUPTED, "interrupted")))
    except OSError as error:
        # Only help and version are printed by Click itself.
        drop(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            message = f"cannot write the output: {error.strerror}"
            sys.exit(Report(None).fail(Failure(Exit.INTERNAL, message)))
