"""What the page says between its tables; every figure in it comes from the data."""

from __future__ import annotations

from statistics import median

from tests.bench.data import Contest, Group, Growth

HEAD = """\
# Benchmarks

<!-- Written by `python -m tests.bench` from benchmarks.json; `--redraw` writes it anew. -->

glmpatch beside what people use in its place, and beside what it cannot do without. Ratios first:
they hold on other machines too, as absolute times do not, which stand [below](#absolute-numbers).

    python -m tests.bench                      # all of it, about a quarter of an hour
    python -m tests.bench start-up growth      # some groups; the others stay as they were
    python -m tests.bench --redraw             # this page and its plots, from the data

The commands of a comparison run in turn (A, B, C, A, B, C, ...), each in a process of its own, so
that a machine that gets busy slows them all. A ratio is the median of the ratios run by run, with
the middle half of them in brackets; memory is the peak that Linux reports of the process. A budget
is a ratio that glmpatch must not exceed.
"""
START_UP = """\
## Start-up

What people feel: most of the time of a command goes into importing. Bytecode is there, as in any
installed package after its first run. `apply` is without `--verify`.
"""
COLD = """\
### Without bytecode

The first run in a new container, or with PYTHONDONTWRITEBYTECODE: Python compiles everything, its
own library too.
"""
VERIFY = """\
## The proof

`verify` on a CPU runs vLLM's and Transformers' models; what it cannot do without is to import them
in a fresh interpreter. A plain interpreter also takes all of it apart at its end; the probe ends at
once when its report is written, and so can take less time than the import alone.
"""
STEPS = "Where one proof spends its time (to 0.1 s):\n"
PACKAGES = """\
And in which packages the imports spend theirs, by `-X importtime`: the time in a module itself, not
in what it imports. A model file needs little of this; but it imports vLLM, which imports the rest.
"""
GROWTH = """\
## More of everything

Several environments, or releases of vLLM, are gone through in one process, so that anything left
over would add up; from a shell, each takes a start-up more. The long files are the released
`glm4.py` with generated classes and functions after it.
"""
MODEL = """\
## The repaired model

The repair must cost nothing. Both files are run in one process in turn, on one thread, in plain
PyTorch, by the means of the proof; the engine by `verify --via engine --against
transformers-backend`, which runs one implementation after the other, each several times.
"""
ABSOLUTE = """\
## Absolute numbers

Medians; they say as much of the machine as of glmpatch. Of the engine: milliseconds a token.
"""
ABOUT = """\
## Where and with what

"Load before" is what else the machine did when a group began. Above 0.7, or where it was not noted,
take the milliseconds for too high and the ratios for less certain than their brackets say.
"""


def instead(group: Group) -> str:
    """What else does the same, and what it does not do."""
    contest = _named(group, "apply of one patch")
    patch, codemod = contest.times("patch -p1").median, contest.times("libcst.tool codemod").median
    return f"""\
**`patch -p1` is the faster tool by far**: here `apply` takes {patch:,.0f} times as long, since
`patch` is a small C program that imports nothing. It knows no versions, no structure and no proof:
it fits one text, by offset and fuzz if need be; of a file that was reformatted or half mended by
hand it writes the hunks that fit and leaves the others in a `.rej`; and it keeps no receipt and
leaves old bytecode where it is. And somebody has to write the diff.

**LibCST's own codemod runner** is what one would write this with otherwise
(`tests/bench/codemod.py`, the same four changes, for the released form of the code alone). `apply`
takes {codemod:.2f} times as long as the runner, which imports LibCST's matchers and metadata.
"""


def apply_profile(group: Group) -> str:
    """Where an ``apply`` spends its time; there is more to say where it is over its budget."""
    shares = group.figures["apply"]
    told = ", ".join(f"{share:.0%} {what}" for what, share in shares.items())
    over = [
        f"`{contest.name}` against `{other}`"
        for contest in group.contests
        for other in contest.budgets
        if not contest.met(other)
    ]
    text = f"Where `apply` of one patch spends its time, by `-X importtime`: {told}.\n"
    if over:
        text += f"""
Over budget: {", ".join(over)}.
LibCST is imported without its matchers and metadata, and the baseline imports it too; the imports
that are glmpatch's alone are the smaller part. What the baseline does not do is the work: the form
of the whole file, before and mended, by Python's own compiler and parser; the places and their line
numbers; printing the module to see that not a byte would be lost, and printing it mended; reading
the result anew where its sha256 is not known; original, receipt and file on the disk with `fsync`.
"""
    return text


def growth(group: Group) -> str:
    """Whether the curves are as flat as they should be, in numbers."""
    parts = []
    for each in group.growths:
        if each.unit != "lines":
            few, many = _ends(each)
            parts.append(
                f"- {each.name}: from {few:,} to {many:,}, the peak memory grows by a factor of "
                f"{_peak(each, many) / _peak(each, few):.2f}."
            )
    few, many = _ends(_status_of_lines(group))
    factor = _peak(_status_of_lines(group), many) / _peak(_status_of_lines(group), few)
    parts.append(
        f"- A longer file takes more memory ({factor:.1f} times as much for {many:,} lines as for "
        f"the released one), since LibCST holds the tree of the whole file; the last columns show "
        "it beside LibCST's parser alone."
    )
    return "\n".join(parts) + "\n"


def model(group: Group) -> str:
    """What the two comparisons mean."""
    figures = group.figures
    same = "the very same numbers" if not figures["away"] else f"numbers {figures['away']:.1e} away"
    return f"""\
The two files compute {same}. (0.8.5's cannot be used in 0.8.4: it lacks `sample()`, which the
runners of 0.8.4 call; here it is given an empty one.) The engine ran {figures["load"]}; on a CPU,
in float32, eager. On a GPU the ratios are others: run `glmpatch verify --via engine --against
transformers-backend` there.
"""


def footprint(group: Group) -> str:
    """What an installation adds."""
    figures = group.figures
    added = ", ".join(f"`{name}`" for name in figures["added"])
    return f"""\
## Footprint

| | |
|---|---|
| the wheel | {figures["wheel"] / 1000:.0f} kB |
| glmpatch, installed | {figures["glmpatch"] / 1000:.0f} kB in {figures["files"]} files |
| LibCST, installed | {figures["libcst"] / 1e6:.1f} MB |

That is all that `pip install` adds to an environment with vLLM 0.8.4, which has Click and packaging
already: {added}. Run isolated (`uvx`, `pipx`, `uv tool`) with `--python`, it adds nothing there,
and nothing of glmpatch or LibCST is imported when vLLM runs. Both are shown by
`tests/real/test_package.py`.
"""


def _named(group: Group, name: str) -> Contest:
    (found,) = (contest for contest in group.contests if contest.name == name)
    return found


def _status_of_lines(group: Group) -> Growth:
    return next(each for each in group.growths if each.unit == "lines")


def _ends(growth: Growth) -> tuple[int, int]:
    return min(growth.contests), max(growth.contests)


def _peak(growth: Growth, count: int) -> float:
    contest = growth.contests[count]
    return median(contest.peaks[contest.entrants[0]])
