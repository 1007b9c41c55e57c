"""Which versions a specifier holds for, without importing packaging wherever it can be done.

That import takes as long as all the rest of a command that has nothing to do, and it is needed only
for versions and specifiers that are more than numbers: ``0.8.3rc2``, ``~=0.8.1``.
"""

from __future__ import annotations

import operator
import re

_NUMBER = r"[0-9]+(?:\.[0-9]+)*"
_BOUND = re.compile(rf"\s*(==|!=|<=|>=|<|>)\s*({_NUMBER})\s*")
_VERSION = re.compile(rf"({_NUMBER})(?:\.post[0-9]+)?(?:\+[A-Za-z0-9.]+)?")
_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def covers(specifier: str, version: str) -> bool:
    """Whether a PEP 440 specifier holds for a version; its local and post parts do not matter.

    A version that is none is not covered.

    Raises:
        ValueError: the specifier is none.
    """
    bounds = [_BOUND.fullmatch(each) for each in specifier.split(",")]
    plain = _VERSION.fullmatch(version)
    if plain and None not in bounds:
        here = _numbers(plain[1])
        return all(_COMPARE[each[1]](here, _numbers(each[2])) for each in bounds if each)
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    specifiers = SpecifierSet(specifier)
    try:
        release = Version(Version(version).public.split(".post")[0])
    except InvalidVersion:
        return False
    return specifiers.contains(release, prereleases=True)


def some_version(specifier: str) -> bool:
    """Whether there is any release that a specifier holds for.

    If there is, one at, just above or just below one of its numbers is.

    Raises:
        ValueError: the specifier is none.
    """
    tried = ["0", "99999"]
    for bound in re.findall(_NUMBER, specifier):
        *before, last = bound.split(".")
        tried += [bound, f"{bound}.0.1", ".".join([*before, str(max(0, int(last) - 1)), "99999"])]
    return any(covers(specifier, version) for version in tried)


def _numbers(version: str) -> tuple[int, ...]:
    """``0.8`` and ``0.8.0`` are one version."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
