"""What amk verify and amk replay say of each kind of mistake, word for word: what is wrong, how it goes wrong, what to do.

`AMK_UPDATE_GOLDEN=1 pytest tests/unit/test_verifier_golden.py` writes the files of golden/verify/ anew; look at the
difference.
"""

import os
import re
from pathlib import Path

import pytest
from rejected_kernels import CASES

from amk.passes.verifier import Rule
from amk.passes.verifier.unseen import UnseenSearch
from amk.tools.amk import main

GOLDEN = Path(__file__).parent / "golden" / "verify"
UPDATE = os.environ.get("AMK_UPDATE_GOLDEN") == "1"


def amk(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str]:
    """Exit status, and what is printed: stdout, then stderr."""
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in args])
    printed = capsys.readouterr()
    return int(exit.value.code or 0), printed.out + printed.err


@pytest.mark.parametrize("case", CASES)
def test_golden(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str):
    """And the replay shows it."""
    if case == "undecided_order":
        monkeypatch.setattr("amk.passes.verifier.races.WORK_LIMIT", 0)
    if case == "undecided_order_of_tags":
        monkeypatch.setattr("amk.passes.verifier.races.UnseenSearch", lambda items: UnseenSearch(items, limit=0))
    file, witness = tmp_path / "kernel.mlir", tmp_path / "witness.json"
    file.write_text(CASES[case])
    status, text = amk(capsys, "verify", file, "--witness", witness)
    assert status == 2
    if witness.exists():
        status, replayed = amk(capsys, "replay", file, witness)
        assert status == 0
        text += f"--- replay\n{replayed}"
    text = text.replace(f"{tmp_path}/", "")
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", "#", text)  # values differ between processors
    golden = GOLDEN / f"{case}.txt"
    if UPDATE:
        golden.write_text(text)
    assert text == golden.read_text(), "AMK_UPDATE_GOLDEN=1 accepts it"


def test_no_golden_file_is_left_over():
    assert {p.stem for p in GOLDEN.iterdir()} == set(CASES)


def test_every_rule_has_one():
    said = {line.partition(":")[0] for p in GOLDEN.iterdir() for line in p.read_text().splitlines()}
    assert set(map(str, Rule)) <= said


def test_every_diagnostic_has_a_remedy():
    rules = "|".join(Rule)
    for path in GOLDEN.iterdir():
        text = path.read_text().partition("--- replay")[0]
        for diagnostic in re.split(rf"^(?=(?:{rules}): )", text, flags=re.MULTILINE)[1:]:
            (remedy,) = re.findall(r"^  to fix: (.+)$", diagnostic, flags=re.MULTILINE)
            assert len(remedy.split()) > 4, remedy
