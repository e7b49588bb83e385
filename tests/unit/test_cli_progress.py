"""Progress bars on a real terminal: late, never wider than it, gone at the end; nothing where there is no terminal."""

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest

WORK = """
import time
from amk.tools.progress import ProgressBar
with ProgressBar() as progress:
    for step in range(16):
        progress("packing the weights of a large model", step, 16)
        time.sleep({delay})
    {end}
"""


def on_terminal(columns: int, delay: float, end: str = "progress('packing the weights of a large model', 16, 16)"):
    """What the work above writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    code = WORK.format(delay=delay, end=end)
    run = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, cwd="/")
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says EIO when the other end is closed
            break
        if not piece:
            break
        written += piece
    run.wait()
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("columns", [20, 40, 100])
def test_a_long_work(columns: int):
    written = on_terminal(columns, 0.12)
    lines = written.split("\r")
    assert any("packing" in line for line in lines)
    assert all(len(line) <= columns for line in lines)
    assert "\n" not in written
    assert not lines[-1].strip()
    assert not lines[-2].strip(), "the bar is overwritten with spaces"


def test_a_short_work():
    assert on_terminal(80, 0.01).strip() == ""


def test_an_error_comes_on_a_line_of_its_own():
    lines = on_terminal(80, 0.12, "raise SystemExit('amk: error: full')").split("\r")
    assert "amk: error: full" in lines


def test_a_warning_comes_above_the_bar():
    end = "from amk.tools.progress import print_above; print_above('amk: no cache'); time.sleep(0.2)"
    lines = on_terminal(80, 0.12, end).replace("\n", "\r").split("\r")
    assert "amk: no cache" in lines
    assert any("packing" in line for line in lines[lines.index("amk: no cache") :]), "the bar is drawn again"
    assert not lines[-1].strip()


def test_no_terminal():
    run = subprocess.run(
        [sys.executable, "-c", WORK.format(delay=0.08, end="")], capture_output=True, cwd="/", check=True
    )
    assert run.stderr == b""
