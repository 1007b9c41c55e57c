"""Versions: the quick comparison says what packaging says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from glmpatch.catalogue import load_patches
from glmpatch.versions import covers, some_version

number = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
bound = st.builds("{}{}".format, st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]), number)
specifier = st.lists(bound, min_size=1, max_size=3).map(", ".join)


@given(specifier, number)
def test_plain_versions_are_judged_as_packaging_does(specifier: str, version: str) -> None:
    assert covers(specifier, version) == SpecifierSet(specifier).contains(version)


@given(specifier, number)
def test_where_a_version_fits_some_version_fits(specifier: str, version: str) -> None:
    assert some_version(specifier) or not covers(specifier, version)


@pytest.mark.parametrize("specifier", ["0.8.4", "=0.8.4", ">=0.8;", "new"])
def test_what_is_no_specifier_is_an_error(specifier: str) -> None:
    with pytest.raises(ValueError, match=r"[Ii]nvalid specifier"):
        some_version(specifier)


def test_no_patch_needs_packaging_for_a_released_version() -> None:
    checks = "; ".join(f"covers({p.versions!r}, '0.8.4')" for p in load_patches())
    code = (
        "import sys; from glmpatch.catalogue import load_patches; load_patches(); "
        f"from glmpatch.versions import covers; {checks}; "
        "assert 'packaging' not in sys.modules, 'plain'; covers('==0.8.4', '0.8.4+cpu'); "
        "assert 'packaging' not in sys.modules, 'local'; covers('==0.8.4', '0.8.4rc1'); "
        "assert 'packaging' in sys.modules, 'candidate'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
