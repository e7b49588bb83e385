"""amk as it runs from a checkout that is on the path and not installed."""

import subprocess
import sys
from pathlib import Path


def test_version_of_a_checkout(tmp_path: Path):
    (tmp_path / "amk").symlink_to(Path(__file__).parents[2])
    code = "import importlib.metadata as m\n"
    code += "def none(name): raise m.PackageNotFoundError(name)\nm.version = none\n"
    code += f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom amk.tools.amk import main\nmain(['--version'])"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "amk (not installed)\n", "")
