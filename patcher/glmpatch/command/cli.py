"""The commands: read the arguments, call one action, print what came of it. No logic."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from glmpatch import __version__
from glmpatch.command import completion
from glmpatch.command.console import drop
from glmpatch.command.help import Group, refusal
from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _, speak_english

if TYPE_CHECKING:
    from glmpatch.command.report import Report
    from glmpatch.patch import Patch
    from glmpatch.proof.driver import Candidate, Verification
    from glmpatch.site.target import Target


@click.group(
    "glmpatch",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="glmpatch", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Repair GLM models in an installed vLLM, and prove it."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(Exit.USAGE)


def options(*, target: bool = True) -> Callable[[Callable[..., Exit]], Callable[..., None]]:
    """The options that commands share; the command gets a Report and returns an exit code."""

    def decorate(function: Callable[..., Exit]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(as_json: bool, quiet: bool, verbose: bool, debug: bool, **arguments: Any) -> None:
            from glmpatch.command.report import Report
            from glmpatch.site.surroundings import started
            from glmpatch.words import Words

            if as_json:
                speak_english()
            on = [
                word
                for option in ("python", "path", "ray")
                if arguments.get(option) is not None
                for word in (f"--{option}", _quote(arguments[option]))
                if word != "auto"  # what --ray means without an address
            ]
            words = Words(started(), on)
            report = Report(function.__name__.rstrip("_"), as_json, quiet, verbose, words)

            def action() -> Exit:
                _no_empty_options()
                return function(report, **arguments)

            sys.exit(_run(report, debug, action))

        for option in (
            click.option("--debug", is_flag=True, help=N_("Show the traceback of an error.")),
            click.option("-v", "--verbose", is_flag=True, help=N_("Add paths and hashes.")),
            click.option("-q", "--quiet", is_flag=True, help=N_("Print errors only.")),
            click.option("--json", "as_json", is_flag=True, help=N_("Print one JSON object.")),
        ):
            run = option(run)
        if target:
            for option in (
                click.option(
                    "--path",
                    metavar="DIR",
                    shell_complete=completion.folder,
                    help=N_("The folder that holds the package vllm."),
                ),
                click.option(
                    "--python",
                    metavar="PATH",
                    shell_complete=completion.anything,
                    help=N_("The interpreter, or root of the environment, that has vLLM."),
                ),
            ):
                run = option(run)
        return run

    return decorate


def _no_empty_options() -> None:
    """An option that is there and empty comes from a variable that is not set.

    Raises:
        Failure: there is one; the working folder, or random weights, would be taken for it.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        if context.params.get(parameter.name or "") == "":
            option = parameter.opts[-1]
            raise Failure(
                Exit.USAGE,
                _("{option} is empty", option=option),
                _("leave {option} out, or see whether the variable is set", option=option),
            )


def _quote(word: str) -> str:
    import shlex

    return shlex.quote(word)


editable = click.option(
    "--allow-editable", is_flag=True, help=N_("Write to an editable install, a source checkout.")
)
any_version = click.option(
    "--any-version",
    is_flag=True,
    help=N_("Examine the files of a release that a patch is not for."),
)
via = click.option(
    "--via",
    type=click.Choice(["auto", "module", "engine"]),
    default="auto",
    help=N_("Ask vLLM's model file alone, or the whole engine; auto takes the engine on a GPU."),
)
mode = click.option(
    "--mode",
    type=click.Choice(["eager", "compiled", "all"]),
    default="all",
    help=N_("The engine's modes; a server runs compiled unless told otherwise."),
)
on_ray = click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="auto",
    help=N_("On every node of a Ray cluster: the one that runs here, or the one at HOST:PORT."),
)
some_patches = click.argument(
    "names", metavar="[PATCH]...", nargs=-1, shell_complete=completion.patches
)


@cli.command()
@some_patches
@click.option(
    "--check",
    is_flag=True,
    help=N_(
        "Exit with 1 if a patch is needed, or this vLLM cannot load the model at all; with 5 if "
        "a file is drifted or unproven."
    ),
)
@on_ray
@options()
def status(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    ray: str | None,
    check: bool,
) -> Exit:
    """Show what is installed and which patches it needs."""
    from glmpatch.actions import status as action

    if ray is not None:
        return _fleet(report, ray, names, python, path, check=check)
    target, patches = _open(report, python, path, names)
    outcome = action.status(target, patches, report.words, named=bool(names), check=check)
    return report.show_outcome(outcome, states=True)


@cli.command(name="list")
@options(target=False)
def list_(report: Report) -> Exit:
    """List the patches."""
    from glmpatch.catalogue import load_patches
    from glmpatch.command.report import describe

    patches = load_patches(report.leave_out)
    for patch in patches:
        report.patches.append(describe(patch))
        name = patch.id.ljust(max(len(each.id) for each in patches))
        versions = patch.versions.ljust(max(len(each.versions) for each in patches))
        report.data(f"{name}  vLLM {versions}  {_(patch.title)}")
    return Exit.OK


@cli.command()
@click.argument("text", metavar="PATCH|TEXT|-", nargs=-1, shell_complete=completion.patches)
@options()
def explain(report: Report, text: Sequence[str], python: str | None, path: str | None) -> Exit:
    """Explain a patch, or what an error is about.

    PATCH by its name, or TEXT of an error, in quotes; - reads a server's log from standard input.
    """
    from glmpatch.actions import explain as action
    from glmpatch.command import explained, pasted

    if not text:
        raise Failure(
            Exit.USAGE,
            _("a PATCH, the TEXT of an error, or - for a log"),
            report.words.next("explain --help"),
        )
    said = " ".join(text)
    if text == ("-",):
        # Closed by the caller (<&-), it is as empty as /dev/null.
        said, left_out = pasted.read(sys.stdin.buffer) if sys.stdin else ("", 0)
        if left_out:
            report.message(
                _(
                    "a long log: only its first and last {number} MB were read",
                    number=pasted.KEPT // pasted.MEGABYTE,
                )
            )
    found = action.explain(said, report.words, report.warn, python, path)
    return explained.show(report, found)


@cli.command()
@some_patches
@any_version
@options()
def diff(
    report: Report, names: Sequence[str], python: str | None, path: str | None, any_version: bool
) -> Exit:
    """Show what apply would change, as a unified diff."""
    from glmpatch.actions import diff as action
    from glmpatch.command.report import unified_diff

    target, patches = _find(report, python, path, names)
    report.target = report.words.target = target
    outcome = action.diff(
        target,
        patches,
        report.words,
        named=bool(names),
        any_version=any_version,
        show=lambda found, after: unified_diff(found.file, found.data or b"", after),
    )
    return report.show_outcome(outcome)


@cli.command()
@some_patches
@click.option("--verify", "prove", is_flag=True, help=N_("Prove the planned bytes first."))
@via
@click.option("--dry-run", is_flag=True, help=N_("Stop before anything is written."))
@any_version
@editable
@on_ray
@options()
def apply(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    ray: str | None,
    allow_editable: bool,
    dry_run: bool,
    prove: bool,
    via: str,
    any_version: bool,
) -> Exit:
    """Repair the installed vLLM.

    Without PATCH: with all patches that it needs and that are advised.
    """
    from glmpatch.actions import apply as action

    if ray is not None:
        return _fleet(
            report,
            ray,
            names,
            python,
            path,
            verify=prove,
            via=via,
            dry_run=dry_run,
            any_version=any_version,
            allow_editable=allow_editable,
        )
    target, patches = _open(report, python, path, names)

    def proof(candidates: Sequence[Candidate]) -> Verification:
        return _prove(report, target, candidates, via=via)

    outcome = action.apply(
        target,
        patches,
        report.words,
        named=bool(names),
        prove=proof if prove else None,
        dry_run=dry_run,
        any_version=any_version,
        allow_editable=allow_editable,
    )
    return report.show_outcome(outcome, changes=True)


@cli.command()
@some_patches
@click.option("--force", is_flag=True, help=N_("Restore the original of a file edited since."))
@editable
@on_ray
@options()
def revert(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    ray: str | None,
    allow_editable: bool,
    force: bool,
) -> Exit:
    """Take the patches back, byte for byte."""
    from glmpatch.actions import revert as action

    if ray is not None:
        return _fleet(report, ray, names, python, path, force=force, allow_editable=allow_editable)
    target, patches = _open(report, python, path, names)
    outcome = action.revert(target, patches, report.words, force, allow_editable)
    return report.show_outcome(outcome, changes=True)


@cli.command()
@some_patches
@any_version
@options()
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help=N_("Where to compute; auto takes a GPU where there is one."),
)
@via
@mode
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help=N_("What to compute in; every precision that the way takes, unless told."),
)
@click.option(
    "--against",
    type=click.Choice(["transformers-backend"]),
    help=N_("Ask the engine for Transformers' own model too, and time both."),
)
@click.option(
    "--model",
    metavar="DIR",
    shell_complete=completion.folder,
    help=N_("The folder of a checkpoint, in place of random weights."),
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    metavar="N",
    help=N_("Load only so many of its first layers."),
)
@click.option(
    "--tp", type=click.IntRange(1), metavar="N", default=1, help=N_("Tensor parallel size.")
)
@click.option(
    "--pp", type=click.IntRange(1), metavar="N", default=1, help=N_("Pipeline parallel size.")
)
@click.option(
    "--report",
    "page",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    metavar="FILE.html",
    help=N_("Write a web page with all figures and a plot of each mode."),
)
def verify(
    report: Report,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    any_version: bool,
    against: str | None,
    model: str | None,
    layers: int | None,
    page: str | None,
    **how: Any,
) -> Exit:
    """Prove that the installed vLLM computes and answers right.

    Without PATCH: all that apply would see to, and what is applied.
    """
    from pathlib import Path

    from glmpatch.actions import verify as action

    if page is not None:
        _check_folder(page)
    if layers and not model:
        raise Failure(
            Exit.USAGE, _("--layers says how much of --model is loaded"), _("add --model DIR")
        )
    target, patches = _open(report, python, path, names)
    asked = action.to_verify(
        target, patches, report.words, named=bool(names), any_version=any_version
    )
    code = report.show_outcome(asked.outcome)
    verification = _prove(
        report,
        target,
        asked.candidates,
        page=page,
        against=against is not None,
        model=Path(model) if model else None,
        layers=layers,
        **how,
    )
    if not verification.passed:
        raise report.words.proof_failed(
            verification.failed, planned=False, named=names, any_version=any_version
        )
    if asked.unasked:
        raise asked.unasked
    return code


@cli.command()
@click.argument("file", metavar="FILE.whl", type=click.Path(dir_okay=False))
@some_patches
@click.option(
    "-o",
    "folder",
    metavar="DIR",
    default=".",
    type=click.Path(file_okay=False),
    shell_complete=completion.folder,
    help=N_("Where the repaired wheel goes; the working folder, unless told."),
)
@click.option(
    "--verify", "prove", is_flag=True, help=N_("Prove the repaired files first; needs --python.")
)
@click.option(
    "--python",
    metavar="PATH",
    shell_complete=completion.anything,
    help=N_("The environment in which they are proven: one with that release of vLLM."),
)
@options(target=False)
def wheel(
    report: Report,
    file: str,
    names: Sequence[str],
    folder: str,
    prove: bool,
    python: str | None,
) -> Exit:
    """Make a repaired wheel out of a released one.

    Without PATCH: with all patches that it needs and that are advised.
    """
    from pathlib import Path

    from glmpatch.actions import wheel as action

    if prove and python is None:
        raise Failure(
            Exit.USAGE,
            _("--verify needs an environment that has this vLLM and what it depends on"),
            report.words.next(f"wheel {_quote(file)} --verify --python /opt/venv"),
        )

    def proof(candidates: Sequence[Candidate]) -> Verification:
        from glmpatch.site.target import find_target

        return _prove(report, find_target(python), candidates)

    made = action.wheel(
        Path(file), Path(folder), names, report.warn, proof if prove else None, report.words
    )
    report.show_wheel(made)
    return Exit.OK


# -- what the commands share --------------------------------------------------------------------


def _find(
    report: Report, python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    from glmpatch.catalogue import select_patches
    from glmpatch.site.target import find_target

    patches = select_patches(names, report.warn if names else report.leave_out)
    target = find_target(python, path)
    if target.chosen_by:
        report.message(report.words.chosen(target))
    return target, patches


def _open(
    report: Report, python: str | None, path: str | None, names: Sequence[str] = ()
) -> tuple[Target, tuple[Patch, ...]]:
    target, patches = _find(report, python, path, names)
    report.show_target(target)
    return target, patches


def _fleet(
    report: Report,
    address: str,
    names: Sequence[str],
    python: str | None,
    path: str | None,
    **order: Any,
) -> Exit:
    """The same command on every node of a Ray cluster."""
    from glmpatch.catalogue import select_patches
    from glmpatch.fleet import many

    if python is not None or path is not None:
        raise Failure(
            Exit.USAGE,
            _(
                "--ray takes the vLLM of the interpreter that runs Ray's workers, on each node; "
                "--python and --path name one on this machine"
            ),
            _("leave --python and --path out, or --ray"),
        )
    select_patches(names, report.warn if names else report.leave_out)
    said = many.run(report.command or "", address, names, report.words, report.progress(), order)
    return report.show_fleet(said)


def _prove(
    report: Report,
    target: Target,
    candidates: Sequence[Candidate],
    page: str | None = None,
    **how: Any,
) -> Verification:
    """Run the proof and show it, whatever it says."""
    from glmpatch.proof import driver

    if target.python is None:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            _("no interpreter is known for the vLLM in {folder}", folder=target.root),
            _("name it with --python: the python that starts this vLLM"),
        )
    progress = report.progress()
    try:
        verification = driver.verify(
            target.python, target.root, target.paths, candidates, on_step=progress, **how
        )
    finally:
        if progress:
            progress("")
    report.show_verification(verification)
    if page is not None:
        from glmpatch.proof.page import page as web_page

        title = _("vLLM {version} in {package}", version=target.version, package=target.package)
        # What is there already stays until there is all of the new one.
        whole = not os.path.exists(page) or os.path.isfile(page)
        with click.open_file(page, "w", encoding="utf-8", atomic=whole) as stream:
            stream.write(web_page(verification, title))
        report.message(_("report: {file}", file=page))
    return verification


def _check_folder(page: str) -> None:
    """Fail now, and not after the proof, where no page can be written."""
    folder = os.path.dirname(os.path.abspath(page))
    if page != "-" and not os.access(folder, os.W_OK | os.X_OK):
        raise Failure(
            Exit.USAGE,
            _("--report {file}: {folder} is no folder to write to", file=page, folder=folder),
            _("name a file in another one, such as {file}", file="/tmp/glmpatch.html"),
        )


# -- the frame ----------------------------------------------------------------------------------


def _run(report: Report, debug: bool, command: Callable[[], Exit]) -> int:
    """Run a command; every way in which it can end has its exit code and its message."""
    try:
        code = command()
        if report.left_out:
            raise Failure(
                Exit.INTERNAL,
                "\n".join(report.left_out),
                _("reinstall glmpatch; the other patches were dealt with all the same"),
            )
        return report.finish(code)
    except Failure as failure:
        _trace(debug)
        return report.fail(failure)
    except (KeyboardInterrupt, click.Abort):
        _trace(debug)
        return report.fail(
            Failure(Exit.INTERRUPTED, _("interrupted"), _("run the same command again"))
        )
    except Exception as error:
        _trace(debug)
        return report.fail(
            Failure(
                Exit.INTERNAL,
                _(
                    "a fault of glmpatch itself: {kind}: {error}",
                    kind=type(error).__name__,
                    error=error,
                ),
                _("run it again with --debug, and report what it prints"),
            )
        )


def _trace(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _refuse(failure: Failure, command: str | None = None) -> NoReturn:
    """End with a failure that no command has reported."""
    from glmpatch.command.report import Report

    sys.exit(Report(command, as_json="--json" in sys.argv).fail(failure))


def main() -> None:
    """Entry point of the command."""
    # Looking for garbage takes a tenth of the time, and there is none: a tree holds no cycles.
    gc.disable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    if completion.is_asked():
        completion.answer(cli)
    if "--json" in sys.argv:  # what is said before an option is understood
        speak_english()
    stdout = sys.stdout
    try:
        cli.main(prog_name="glmpatch", standalone_mode=False)
    except click.UsageError as error:
        # Click's parser knows no context where an option lacks its argument.
        command = error.ctx.info_name if error.ctx else sys.argv[1]
        command = command if command in cli.commands else None
        from glmpatch.site.surroundings import started

        hint = " ".join(filter(None, (started(), command, "--help")))
        _refuse(Failure(Exit.USAGE, refusal(error), hint), command)
    except (KeyboardInterrupt, click.Abort):
        _refuse(Failure(Exit.INTERRUPTED, _("interrupted")))
    except SystemExit:
        # Where nobody reads on, such as head, Click takes another stdout and ends with 1; nothing
        # went wrong.
        if sys.stdout is stdout:
            raise
    except OSError as error:
        # Only help and version are printed by Click itself.
        drop(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            _refuse(
                Failure(Exit.INTERNAL, _("cannot write the output: {error}", error=error.strerror))
            )
