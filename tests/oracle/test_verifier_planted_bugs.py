"""Each of many bugs, planted in the verifier one at a time, is noticed by kernels whose verdict is known.

`AMK_UPDATE_GOLDEN=1 pytest tests/oracle/test_verifier_planted_bugs.py` writes docs/planted_bugs.md anew; it looks at all
groups of kernels for each bug, the tests only at those up to the first that notices it.
"""

import os
from pathlib import Path

import pytest
from schedules.planted_bugs import BUGS, Bug, planted
from schedules.verifier_suite import CASES, clocks_alone, complaints

PAGE = Path(__file__).parents[2] / "docs" / "planted_bugs.md"
UPDATE = os.environ.get("AMK_UPDATE_GOLDEN") == "1"
GROUPS = [*CASES, clocks_alone.__name__.replace("_", " ")]

HEAD = f"""# Bugs planted in the verifier

Would the tests notice if the verifier were wrong? Each row is a bug that `tests/oracle/test_verifier_planted_bugs.py`
plants in `passes/verifier/`, one at a time (`tests/schedules/planted_bugs.py` has the changed lines), and the groups of
kernels (`tests/schedules/verifier_suite.py`) of which at least one then gets a wrong verdict: an unsafe kernel is
accepted, a safe one rejected, or the wrong rule named. Without a bug, all verdicts are right. Where a verdict is known
from: {", ".join(f"*{g}*" for g in GROUPS if g not in ("random kernels", "clocks alone"))} are written by hand; *random
kernels* are decided by enumeration of all interleavings; *clocks alone* are safe ones for which no blocked run may be
needed.

| what the verifier then believes | file | noticed by |
|---|---|---|
"""


def row(bug: Bug, noticed_by: list[str]) -> str:
    return f"| {bug.what} | `{bug.file}.py` | {', '.join(noticed_by)} |"


@pytest.mark.skipif(UPDATE, reason="the page is being written")
@pytest.mark.parametrize("bug", BUGS, ids=[b.what for b in BUGS])
def test_the_bug_is_noticed(bug: Bug):
    with planted(bug) as verifier:
        found = next(complaints(verifier), None)
    assert found is not None, "no test notices this bug"
    print("noticed by {}: {}".format(*found))
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(row(bug, []).removesuffix(" |"))]
    assert found[0] in line, "AMK_UPDATE_GOLDEN=1 writes the page anew"


def test_without_a_bug_every_verdict_is_right():
    with planted(None) as verifier:
        assert dict(complaints(verifier)) == {}


def test_kernels_of_both_verdicts():
    """Each group has both verdicts, or the group that it edits has the other one."""
    for group, cases in CASES.items():
        verdicts = {case.safe for case in cases()}
        assert verdicts == {True, False} or group in ("decoders", "edited decoders"), group


@pytest.mark.skipif(not UPDATE, reason="writes docs/planted_bugs.md")
def test_write_the_page():
    lines: list[str] = []
    for bug in BUGS:
        with planted(bug) as verifier:
            lines.append(row(bug, list(dict(complaints(verifier)))))
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def test_the_page_lists_these_bugs():
    listed = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text().splitlines() if "| `" in line]
    assert listed == [bug.what for bug in BUGS]
