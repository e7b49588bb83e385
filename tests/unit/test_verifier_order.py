"""What orders what: small kernels, one question each. @a is data, @flag is tagged; tasks are named by what they do."""

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser

from amk.dialects.amk import Amk
from amk.dialects.queue import KernelOp, Queue
from amk.dialects.task import Task
from amk.passes.verifier import Diagnostic, check


def task(name: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> str:
    body = "".join(f"    %r{n} = task.load {r} : tensor<1xf32>\n" for n, r in enumerate(reads))
    body += "    %v = task.load @in[0 : 1] : tensor<1xf32>\n"
    body += "".join(f"    task.store %v, {w} : tensor<1xf32>\n" for w in writes)
    return f"  task.family @{name} () {{\n{body}  }}\n"


A, B, FLAG, OTHER, CACHE = "@a[0 : 1]", "@b[0 : 1]", "@flag[0 : 1]", "@flag[1 : 1]", "@cache[0 : 1]"
TASKS = {
    "write": ((), (A,)),
    "write_and_tell": ((), (A, FLAG)),
    "tell": ((), (FLAG,)),
    "pass_on": ((FLAG,), (OTHER,)),
    "hear": ((FLAG,), (B,)),
    "read": ((A,), ("@out[0 : 1]",)),
    "hear_and_read": ((FLAG, A), ("@out[0 : 1]",)),
    "put": ((), (CACHE,)),
    "look": ((CACHE,), ("@out[0 : 1]",)),
    "look_and_tell": ((CACHE,), ("@out[0 : 1]", FLAG)),
    "hear_and_put": ((FLAG,), (CACHE,)),
    "look_and_put": ((CACHE,), (CACHE, "@out[0 : 1]")),
    "finish": ((), ("@out[0 : 1]",)),
}


def verdict(*queues: str) -> list[Diagnostic]:
    """The diagnostics of a kernel with one SM a queue: `write +c0 | c0>=1 c0 read`: task, signal, wait for one, for all."""
    text = f'queue.kernel @k target "reference" sms {len(queues)} max_seq 1 tokens 1 {{\n'
    for name, kind in [("in", "input"), ("a", "scratch"), ("b", "scratch"), ("cache", "state"), ("out", "output")]:
        text += f"  task.buffer @{name} {kind} : tensor<1xf32>\n"
    text += "  task.buffer @flag scratch tagged : tensor<2xf32>\n  queue.counter @c[4]\n"
    events = [q.split() for q in queues]
    text += "".join(task(n, *TASKS[n]) for n in dict.fromkeys(e for q in events for e in q if e in TASKS))
    for sm, queue in enumerate(events):
        text += f"  queue.program sms {sm} to {sm + 1} stream {{}} body {{\n"
        for event in queue:
            if event in TASKS:
                text += f"    queue.run @{event}[]\n"
            elif event[0] == "+":
                text += f"    queue.signal @c[{event[2:]}]\n"
            else:
                counter, _, threshold = event[1:].partition(">=")
                text += f"    queue.wait @c[{counter}] {f'>= {threshold}' if threshold else 'all'}\n"
        text += "  }\n"
    context = Context()
    for dialect in (Builtin, Amk, Task, Queue):
        context.load_dialect(dialect)
    module = Parser(context, text + "}").parse_module()
    module.verify()
    return check(next(op for op in module.walk() if isinstance(op, KernelOp)))


SAFE = [
    ("a counter", ["write +c0", "c0 read"]),
    ("counters are transitive", ["write +c0", "c0 +c1", "c1 read"]),
    ("program order on one SM", ["write read"]),
    ("the other signal is later", ["write +c0 c1 +c0", "c0>=1 +c1 read"]),
    ("either signal is after the write", ["write +c0 +c1", "c0 +c1", "c1>=1 read"]),
    ("two of three signals are enough when one comes after the wait", ["write +c0", "+c0", "c0>=2 read +c0"]),
    ("tags and a counter", ["write_and_tell +c0", "c0 hear_and_read"]),
    ("an overwrite after a reader's tag", ["put +c0", "c0 look_and_tell", "c0 hear_and_put"]),
    ("an overwrite after a counter", ["put look +c0", "c0 hear_and_put", "tell"]),
    ("a task that reads and then overwrites", ["put look_and_put"]),
    ("an overwrite after either of two signals", ["put look +c0 +c1", "c0 +c1", "c1>=1 hear_and_put", "tell"]),
]

UNSAFE = [
    ("no wait", ["write", "read"], "race"),
    ("one of two signals", ["write +c0", "+c0 c0>=1 read"], "race"),
    ("two of three signals", ["write +c0", "+c0", "+c0 c0>=2 read"], "race"),
    ("the signal is too early", ["+c0 write", "c0 read"], "race"),
    ("a tag does not show other data", ["write_and_tell", "hear_and_read"], "race"),
    ("nor does a counter after the tag", ["write tell", "hear +c0", "c0 read"], "race"),
    ("the tag tells nothing of later tasks", ["put +c0 tell look", "c0 hear_and_put"], "race"),
    ("the task after the tag is not ordered", ["put +c0 tell look", "c0 pass_on", "c0 hear_and_put"], "race"),
    ("two writes, ordered by a tag only", ["put look_and_tell", "hear_and_put"], "race"),
    ("two writes, ordered by a tag only, the other way round", ["hear_and_put", "put look_and_tell"], "race"),
    ("a wait for itself", ["c0 write +c0", "finish"], "deadlock"),
    ("a cycle of counters", ["c0 write +c1", "c1 finish +c0"], "deadlock"),
    ("a cycle of a counter and a tag", ["c0 tell", "hear +c0 finish"], "deadlock"),
    ("a tag that nobody writes", ["hear finish"], "deadlock"),
    ("state that was never written", ["look put"], "coverage"),
]


@pytest.mark.parametrize("queues", [q for _, q in SAFE], ids=[n for n, _ in SAFE])
def test_safe(queues: list[str]):
    assert [str(d) for d in verdict(*queues)] == []


@pytest.mark.parametrize(("queues", "rule"), [c[1:] for c in UNSAFE], ids=[c[0] for c in UNSAFE])
def test_unsafe(queues: list[str], rule: str):
    assert rule in {d.rule.value for d in verdict(*queues)}


def test_a_race_says_when_only_tags_order_it():
    (race,) = verdict("write_and_tell", "hear_and_read")
    assert "only tagged words see to that" in race.execution
    assert "signal a counter of its own on SM 0 after task @write_and_tell[]" in race.remedy


def test_a_cycle_names_its_members_only():
    (deadlock,) = verdict("c2 finish", "c0 write +c1", "c1 tell +c0 +c2")
    assert set(deadlock.sms) == {1, 2}
    assert "3 of 3 SMs never finish" in deadlock.message
