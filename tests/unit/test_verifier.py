"""The schedule verifier on kernels with the shape of a decoder: what it accepts, and what edits of them it rejects."""

import dataclasses

import pytest
from cpu_time import cpu_seconds
from decoder_edits import BIG, EDITS, edited
from decoder_kernels import LLAMA_8B, Shape, decoder
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, StringAttr
from xdsl.parser import Parser
from xdsl.utils.exceptions import PassFailedException

from amk.amk_ir.errors import ScheduleError
from amk.dialects.amk import Amk
from amk.dialects.queue import KernelOp, Queue
from amk.dialects.task import Task
from amk.passes.verifier import Rule, VerifiedKernel, check, verify
from amk.passes.verify_schedule import VerifySchedulePass


def module(text: str):
    context = Context()
    for dialect in (Builtin, Amk, Task, Queue):
        context.load_dialect(dialect)
    result = Parser(context, text).parse_module()
    result.verify()
    return result


def kernel(text: str) -> KernelOp:
    return next(op for op in module(text).walk() if isinstance(op, KernelOp))


def rules(text: str) -> set[str]:
    return {d.rule.value for d in check(kernel(text))}


@pytest.mark.parametrize("handoff", ["counter", "tagged", "barrier"])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        BIG,
        dataclasses.replace(BIG, sms=1),
        dataclasses.replace(BIG, sms=132),
        dataclasses.replace(BIG, max_seq=1),
        dataclasses.replace(BIG, target="reference", sms=4),
    ],
)
def test_safe_decoders(shape: Shape, handoff: str):
    assert check(kernel(decoder(shape, handoff))) == []


@pytest.mark.parametrize(("old", "new", "rule"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_unsafe_edits(old: str, new: str, rule: str):
    assert rule in rules(edited(decoder(BIG), old, new))


@pytest.mark.parametrize("lost", ["@x_done[layer*2 + 1]", "@x_done[layer*2 + 2]", "@a_done[layer]", "@qkv_done[layer]"])
def test_lost_signals(lost: str):
    assert rules(edited(decoder(BIG), f"      queue.signal {lost}\n", "")) == {"race"}


def test_tags_need_no_counters_but_do_not_replace_them():
    text = decoder(BIG, "tagged")
    assert rules(edited(text, "      queue.wait @qkv_done[layer] all\n", "")) == {"race"}
    assert rules(edited(text, "@x scratch tagged", "@x scratch")) == {"race"}
    # q is read by the SM that wrote some of it, and by others
    assert rules(edited(text, "@q scratch", "@q scratch tagged")) == set()


def test_phases_in_the_wrong_order_deadlock_on_tags():
    text = decoder(dataclasses.replace(BIG, layers=1), "tagged")
    up, down = (f"    queue.phase {{\n      queue.run @{n}[layer] on cyclic 0\n    }}" for n in ("up", "down"))
    assert f"{up}\n{down}" in text
    swapped = text.replace(f"{up}\n{down}", f"{down}\n{up}")
    fetches = [f"      queue.fetch @{n}[layer] on cyclic 0" for n in ("up", "down")]
    swapped = edited(swapped, "\n".join(fetches), "\n".join(reversed(fetches)))
    assert rules(swapped) == {"deadlock"}


def test_one_counter_for_all_phases():
    """A barrier of all SMs that rises through the kernel: its waits are for parts of its signals."""
    text = decoder(BIG, "barrier")
    assert check(kernel(text)) == []
    assert rules(edited(text, f">= layer*{5 * 7} + 28", f">= layer*{5 * 7} + 27")) == {"race"}
    assert rules(edited(text, f">= layer*{5 * 7} + 28", f">= layer*{5 * 7} + 29")) == {"deadlock"}


def test_work_is_bounded(monkeypatch):
    """What clocks cannot decide takes a run for each write; with too many, the schedule is rejected."""
    text = edited(decoder(BIG, "barrier"), f">= layer*{5 * 7} + 28", f">= layer*{5 * 7} + 27")
    monkeypatch.setattr("amk.passes.verifier.races.WORK_LIMIT", 0)
    assert rules(text) == {"undecided"}


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("amk.passes.verifier.arrangement.MAX_COVER", 10)
    (diagnostic,) = check(kernel(decoder(BIG)))
    assert diagnostic.rule is Rule.UNDECIDED
    assert "@x" in diagnostic.message


def test_empty_kernels():
    assert rules('queue.kernel @k target "sm_90a" sms 3 max_seq 4 tokens 1 {}') == set()
    text = 'queue.kernel @k target "sm_90a" sms 3 max_seq 4 tokens 1 {\n  task.buffer @o output : tensor<f32>\n}'
    assert rules(text) == {"coverage"}
    waiting = 'queue.kernel @k target "sm_90a" sms 3 max_seq 4 tokens 1 {{ queue.counter @c[1]\n  queue.program sms 1 to 2 stream {{}} body {{ queue.wait @c[0] {} }} }}'
    assert rules(waiting.format("all")) == set()
    assert rules(waiting.format(">= 1")) == {"deadlock"}


def test_a_family_far_too_large():
    """Nothing is allocated for tasks that no queue holds."""
    text = edited(decoder(), "task.family @argmax ()", "task.family @argmax (many = 2147483647)")
    text = edited(text, "queue.run @argmax[] on cyclic 0", "queue.run @argmax[3] on cyclic 0")
    (diagnostic,) = check(kernel(text))
    assert diagnostic.rule is Rule.TASKS
    assert diagnostic.tasks == ("@argmax[0]",)


@pytest.mark.parametrize(
    ("written", "read", "expected"), [("pos", "pos", set()), ("pos", "0", {"coverage", "deadlock"})]
)
def test_tags_that_move_with_the_position(written: str, read: str, expected: set[str]):
    """Who waits for whom depends on the position: at 0 the reader of word 0 goes on, later it never does."""
    text = f"""queue.kernel @k target "reference" sms 2 max_seq 5 tokens 1 {{
      task.buffer @in input : tensor<1xf32>
      task.buffer @t scratch tagged : tensor<5xf32>
      task.buffer @o output : tensor<1xf32>
      task.family @tell () {{
        %v = task.load @in[0 : 1] : tensor<1xf32>
        task.store %v, @t[{written} : 1] : tensor<1xf32>
      }}
      task.family @hear () {{
        %v = task.load @t[{read} : 1] : tensor<1xf32>
        task.store %v, @o[0 : 1] : tensor<1xf32>
      }}
      queue.program sms 0 to 1 stream {{}} body {{ queue.run @tell[] }}
      queue.program sms 1 to 2 stream {{}} body {{ queue.run @hear[] }}
    }}"""
    assert rules(text) == expected


def test_only_verification_makes_a_verified_kernel():
    op = kernel(decoder())
    verified = verify(op)
    assert verified.current() is op
    with pytest.raises(TypeError, match="verify"):
        VerifiedKernel(op, verified.digest, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified.kernel = op  # type: ignore[misc]
    op.properties["target"] = StringAttr("sm_100a")
    with pytest.raises(ScheduleError, match="changed after it was verified"):
        verified.current()


def test_verify_raises_all_diagnostics():
    text = edited(decoder(BIG), "@m_done[layer] all", "@m_done[layer] >= 3")
    text = edited(text, "      queue.wait @logits_done[0] all\n", "")
    with pytest.raises(ScheduleError) as error:
        verify(kernel(text))
    assert str(error.value).startswith("schedule @decoder is rejected\nrace: ")
    assert "@logits" in str(error.value)
    assert "@m_done" in str(error.value)


def test_diagnostics_are_data():
    (race,) = check(kernel(edited(decoder(), "@m_done[layer] all", "@m_done[layer] >= 2")))
    assert race.rule is Rule.RACE
    assert race.tasks == ("@up[0, 4]", "@down[0, 0]")
    assert race.regions == ("@m[0, 0 : 1, 16 : 4]", "@m[0, 0 : 1, 0 : 24]")
    assert race.sms == (1, 0)
    assert [op.name for op in race.ops] == ["queue.run", "queue.run"]
    assert "raise the threshold" in race.remedy


def test_the_pass_reports_and_changes_nothing():
    good = module(decoder())
    before = str(good)
    VerifySchedulePass().apply(Context(), good)
    assert str(good) == before
    with pytest.raises(PassFailedException, match="schedule @decoder is rejected\nrace: "):
        VerifySchedulePass().apply(Context(), module(edited(decoder(), "      queue.wait @a_done[layer] all\n", "")))


@pytest.mark.parametrize("old", ["      queue.wait @qkv_done[layer] all\n", "      queue.wait @x_done[layer*2] all\n"])
def test_a_large_model_is_rejected_in_seconds(old: str):
    """A missing wait leaves hundreds of thousands of pairs open; a few are enough to reject it."""
    op = kernel(edited(decoder(LLAMA_8B), old, ""))
    start = cpu_seconds()
    assert {d.rule for d in check(op)} == {Rule.RACE}
    assert cpu_seconds() - start < 20
