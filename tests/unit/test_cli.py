"""amk from the command line, mostly as a program: what each command prints, refuses, and leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
from cpu_time import cpu_seconds

COMMANDS = ["bench", "calibrate", "compile", "eval", "generate", "import", "info", "trace", "tune"]


def one_line(stderr: str, *parts: str) -> None:
    """`stderr` is one line of amk that contains all `parts`."""
    assert stderr.startswith("amk: error: "), stderr
    assert stderr.count("\n") == 1, stderr
    for part in parts:
        assert part in stderr


def test_help(tool):
    run = tool("amk", "--help")
    assert run.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s+\w", run.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help(tool_here, command: str):
    run = tool_here("amk", command, "--help", env={"COLUMNS": "60"})
    assert run.returncode == 0
    assert "MODEL" in run.stdout
    assert "None" not in run.stdout, "a default that says nothing"


def test_starts_fast(tool):
    tool("amk", "--version")
    start = cpu_seconds()
    assert tool("amk", "--version").stdout.startswith("amk 0.")
    assert cpu_seconds() - start < 1.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["compile", "m", "-o", "x", "--taget", "a"],
            "arguments: --taget a; did you mean --target?; see `amk compile --help`",
        ),
        (["bench", "m", "--basline=x"], "arguments: --basline=x; did you mean --baselines?; see `amk bench --help`"),
        (["generate", "m", "--prompt", "x", "--qqq"], "unrecognized arguments: --qqq; see `amk generate --help`"),
        (["info", "m", "n"], "unrecognized arguments: n; see `amk info --help`"),
    ],
)
def test_unknown_options_are_those_of_the_command(tool_here, args: list[str], message: str):
    run = tool_here("amk", *args)
    assert run.returncode == 2
    one_line(run.stderr, message)


@pytest.mark.parametrize("command", [["generate", "--prompt", "x"], ["info"], ["import"], ["eval"]])
def test_a_shape_is_no_model(tool_here, command: list[str]):
    run = tool_here("amk", command[0], "smollm2-135m", *command[1:])
    assert run.returncode == 2
    one_line(run.stderr, "smollm2-135m: is a shape, which has no weights: `amk bench`")


@pytest.mark.parametrize("args", [[], ["no-such-command"], ["info"], ["generate", "m"], ["compile", "m"]])
def test_usage_errors(tool_here, args: list[str]):
    run = tool_here("amk", *args)
    assert run.returncode == 2
    command = args[0] if args and args[0] in COMMANDS else None
    one_line(run.stderr, f"see `amk {command} --help`" if command else "see `amk --help`")


@pytest.mark.parametrize(
    "command",
    [
        ["info"],
        ["eval"],
        ["import"],
        ["generate", "--prompt", "x"],
        ["compile", "-o", "out"],
        ["calibrate", "-o", "out"],
    ],
)
def test_no_such_model(tool_here, command: list[str]):
    run = tool_here("amk", *command, "no-such-model")
    assert run.returncode == 2
    one_line(run.stderr, "no-such-model: no such file or directory")


def test_an_empty_model_name(tool_here):
    run = tool_here("amk", "info", "")
    assert run.returncode == 2
    one_line(run.stderr, "MODEL is empty; expected a folder")


def test_a_folder_without_a_model(tool_here, tmp_path: Path):
    run = tool_here("amk", "info", tmp_path)
    assert run.returncode == 2
    one_line(run.stderr, f"{tmp_path}: MODEL is a folder without config.json; expected", "a GGUF file")


def test_import(tool, tiny_model: Path, tmp_path: Path):
    """What is written can be read by amk-opt, and is what would be printed."""
    out = tmp_path / "model.mlir"
    run = tool("amk", "import", tiny_model, "-o", out)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert tool("amk", "import", tiny_model).stdout == out.read_text()
    assert tool("amk-opt", out).stdout.strip() == out.read_text().strip()


def test_import_dtypes(tool_here, tiny_model: Path):
    text = tool_here("amk", "import", tiny_model, "--weights", "bf16", "--kv", "bf16", "--max-seq", "48").stdout
    assert "max_seq 48" in text
    assert "tensor<48x32xbf16>" in text
    assert "tensor<48x2x8xbf16>" in text


def test_import_without_a_place(tool_here, tiny_model: Path, tmp_path: Path):
    run = tool_here("amk", "import", tiny_model, "-o", tmp_path / "no" / "such" / "model.mlir")
    assert run.returncode == 2
    one_line(run.stderr, "model.mlir: there is no folder ")


@pytest.mark.parametrize("size", ["0", "-1", "x"])
def test_bad_sizes(tool_here, tiny_model: Path, size: str):
    run = tool_here("amk", "import", tiny_model, f"--max-seq={size}")
    assert run.returncode == 2
    assert f"expected an integer of at least 1, found '{size}'" in run.stderr


def test_too_large_max_seq(tool_here, tiny_model: Path):
    run = tool_here("amk", "import", tiny_model, "--max-seq", "65")
    assert run.returncode == 2
    one_line(run.stderr, "max_seq: expected 1 to 64")


def test_a_truncated_model(tool_here, tiny_model: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for command in (["info", broken], ["generate", broken, "--prompt", "x"]):
        run = tool_here("amk", *command)
        assert run.returncode == 2
        one_line(run.stderr, "model.safetensors: truncated")


def test_info(tool, tiny_model: Path):
    run = tool("amk", "info", tiny_model)
    assert (run.returncode, run.stderr) == (0, "")
    for part in ("LlamaForCausalLM", "tied head", "2 of width 32", "4 heads, 2 of keys", "H100", "RTX 4090"):
        assert part in run.stdout


def test_a_closed_pipe_is_quiet(tiny_model: Path):
    """amk info MODEL | head -1"""
    amk = Path(sys.executable).with_name("amk")
    run = subprocess.Popen([amk, "import", tiny_model], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()
    _, stderr = run.communicate(timeout=60)
    assert stderr == b""
    assert run.returncode == 0


def test_a_full_disk(tiny_model: Path):
    """amk import MODEL > /dev/full"""
    amk = Path(sys.executable).with_name("amk")
    with open("/dev/full", "w") as full:
        run = subprocess.run([amk, "import", tiny_model], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    one_line(run.stderr, "stdout: No space left on device")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("amk import MODEL >&-", "amk: error: stdout is closed; "),
        ("amk generate MODEL --prompt - <&-", "amk: error: --prompt -: stdin is closed; "),
        ("amk-opt <&-", "amk-opt: error: amk-opt: stdin is closed; "),
        ("amk-opt >&-", "amk-opt: error: stdout is closed; "),
        ("amk info no-such-model 2>&-", ""),
    ],
)
def test_closed_streams(tiny_model: Path, command: str, message: str):
    bin = Path(sys.executable).parent
    run = subprocess.run(
        ["sh", "-c", f"{bin}/{command}".replace("MODEL", str(tiny_model))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == bool(message)


def test_import_into_a_fifo(tool, tiny_model: Path, tmp_path: Path):
    """What is not a regular file is written, not replaced; /dev/stdout too."""
    expected = tool("amk", "import", tiny_model).stdout
    assert tool("amk", "import", tiny_model, "-o", "/dev/stdout").stdout == expected
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True)
    run = tool("amk", "import", tiny_model, "-o", fifo)
    assert (run.returncode, run.stderr) == (0, "")
    assert reader.communicate(timeout=60)[0] == expected
    assert fifo.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["fifo"]


def test_characters_that_stdout_lacks(tool, tmp_path: Path):
    """An emoji on an ASCII terminal becomes a question mark: text is printed as far as that is possible."""
    code = (
        "import sys; from amk.tools.errors import run_tool; sys.exit(run_tool('amk', lambda: print('a\\U0001f600b')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"a?b\n", b"")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory; "),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory: Unable to allocate 3 TiB; "),
        (RecursionError("maximum recursion depth"), "nested too deeply"),
    ],
)
def test_what_the_machine_lacks(capsys: pytest.CaptureFixture[str], error: Exception, message: str):
    from amk.tools.errors import run_tool

    def fail() -> None:
        raise error

    assert run_tool("amk", fail) == 2
    one_line(capsys.readouterr().err, message)


def test_warnings_are_of_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Those of AMK: others are left to Python."""
    from amk.amk_ir.errors import AmkWarning
    from amk.tools.errors import run_tool

    others: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: others.append(str(message)))

    def warn() -> None:
        warnings.simplefilter("default")
        warnings.warn(AmkWarning("there is\nno cache"), stacklevel=1)
        warnings.warn(UserWarning("of another"), stacklevel=1)

    assert run_tool("amk", warn) == 0
    assert capsys.readouterr().err == "amk: there is no cache\n"
    assert others == ["of another"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "utf-8:surrogateescape"])
def test_a_prompt_that_is_not_text(tiny_model: Path, encoding: str):
    amk = Path(sys.executable).with_name("amk")
    command = [amk, "generate", tiny_model, "--prompt", "-"]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    run = subprocess.run(command, input=b"\xff", capture_output=True, env=env, check=False)
    assert run.returncode == 2
    one_line(run.stderr.decode(), "--prompt -: not ", " text")


def test_an_internal_error(tool, tiny_model: Path, tmp_path: Path):
    """A defect is status 1, one line, and a hint; simulated by a broken module in front of AMK's dependencies."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nimport types\nm = types.ModuleType('xdsl.printer')\nsys.modules['xdsl.printer'] = m\n"
    )
    run = tool("amk", "import", tiny_model, env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 1
    assert run.stderr.startswith("amk: internal error: ImportError: ")
    assert run.stderr.count("\n") == 1
    assert "AMK_DEBUG=1" in run.stderr


def generate(tool, model: Path, *args: str | Path, stdin: str = ""):
    return tool("amk", "generate", model, *args, stdin=stdin)


def test_generate(tool, tiny_model: Path):
    """Greedy text is the same every time; the prompt is not repeated; nothing but text on stdout."""
    first = generate(tool, tiny_model, "--prompt", "Hello", "--max-tokens", "8")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith("\n")
    assert len(first.stdout) > 1
    assert generate(tool, tiny_model, "--prompt", "-", "--max-tokens", "8", stdin="Hello").stdout == first.stdout


def test_generate_several_steps_a_launch(tool_here, tiny_model: Path):
    args = ("--prompt", "Hello", "--max-tokens", "8")
    first = generate(tool_here, tiny_model, *args)
    assert generate(tool_here, tiny_model, *args, "--steps-per-launch", "3").stdout == first.stdout


def test_generate_with_a_prompt_in_chunks(tool_here, tiny_model: Path):
    args = ("--prompt", "Hello, this is a longer prompt", "--max-tokens", "8")
    first = generate(tool_here, tiny_model, *args)
    assert generate(tool_here, tiny_model, *args, "--chunk", "4").stdout == first.stdout
    assert generate(tool_here, tiny_model, *args, "--chunk", "8", "--steps-per-launch", "4").stdout == first.stdout


def test_generate_nothing(tool_here, tiny_model: Path):
    """--max-tokens 0 is what the API's max_tokens=0 is: no text."""
    run = generate(tool_here, tiny_model, "--prompt", "Hello", "--max-tokens", "0")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_generate_chat(tool_here, tiny_model: Path):
    run = generate(
        tool_here, tiny_model, "--prompt", "Hi", "--chat", "--system", "Be brief", "--max-tokens", "4", "--stats"
    )
    assert run.returncode == 0
    assert re.fullmatch(r"\[prompt: \d+ tokens in .* s; text: \d+ tokens, .*\]\n", run.stderr)


def test_generate_samples(tool_here, tiny_model: Path):
    def draw(seed: int) -> str:
        args = ("--prompt", "Hello", "--max-tokens", "12", "--temperature", "2", "--seed", str(seed))
        return generate(tool_here, tiny_model, *args).stdout

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--prompt", ""], ["--prompt", "empty"]),
        (["--prompt", "x" * 70], ["max_seq is 64"]),
        (["--prompt", "x" * 20, "--max-tokens", "50"], ["max_seq is 64; ask for"]),
        (["--prompt", "x", "--temperature", "-1"], ["temperature: expected"]),
        (["--prompt", "x", "--top-p", "0"], ["top-p: expected"]),
        (["--prompt", "x", "--system", "y"], ["--system needs --chat"]),
        (["--prompt", "x", "--backend", "cuda", "--target", "reference"], ["target 'reference' is not a GPU"]),
        (["--prompt", "x", "--compiled", "dir"], ["--compiled goes with --backend cuda"]),
        *(
            (["--prompt", "x", "--backend", "cuda", "--compiled", "dir", option, value], [f"without {option}"])
            for option, value in (
                ("--target", "sm_80"),
                ("--sms", "4"),
                ("--weights", "f32"),
                ("--kv", "bf16"),
                ("--max-seq", "8"),
            )
        ),
        (["--prompt", "x", "--chunk", "0"], ["--chunk", "at least 1"]),
        (["--prompt", "x", "--chunk", "100000"], ["chunk: 100000 tokens at once have no room", "max_seq = 64"]),
        (["--prompt", "x", "--steps-per-launch", "0"], ["--steps-per-launch", "at least 1"]),
        (
            ["--prompt", "x", "--steps-per-launch", "4", "--temperature", "1"],
            ["steps-per-launch", "temperature is 1.0"],
        ),
        (["--prompt", "x", "--max-tokens", "-1"], ["--max-tokens", "see `amk generate --help`"]),
        (["--prompt", "x", "--sms", "1000000000"], ["at most 1024 SMs, found 1000000000"]),
        (["--prompt", "x", "--target", "sm_90a", "--sms", "100000"], ["sm_90a has 132 SMs, found 100000"]),
        (["--prompt", "x", "--target", "sm_1"], ["unknown target 'sm_1'", "sm_90a"]),
    ],
)
def test_generate_refuses(tool_here, tiny_model: Path, args: list[str], parts: list[str]):
    run = tool_here("amk", "generate", tiny_model, *args)
    assert (run.returncode, run.stdout) == (2, "")
    one_line(run.stderr, *parts)


def test_interrupt(tiny_model: Path):
    """Ctrl-C while the prompt is read: quiet, status 130."""
    amk = Path(sys.executable).with_name("amk")
    command = [amk, "generate", tiny_model, "--prompt", "-"]
    run = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # tests that a shell runs in the background ignore the signal, and what they start inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process, waits, end = psutil.Process(run.pid), 0, time.monotonic() + 30
    while waits < 5 and time.monotonic() < end:  # until it has started, and waits for the prompt
        time.sleep(0.1)
        started = process.cpu_times().user > 0.2
        waits = waits + 1 if started and process.status() == psutil.STATUS_SLEEPING else 0
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout, stderr.strip()) == (130, b"", b"")
