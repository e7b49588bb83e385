"""What orders what: small kernels, one question each. @a is data, @flag is tagged; tasks are named by what they do.

A kernel is one string an SM: `write +c0` runs a task and signals, `c0 read` waits for all signals, `c0>=1` for one.
"""

from collections.abc import Sequence


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
    "tell_other": ((), (OTHER,)),
    "hear_other": ((OTHER,), (B,)),
    "hear_and_write": ((FLAG,), (A,)),
    "pass_on": ((FLAG,), (OTHER,)),
    "pass_back": ((OTHER,), (FLAG,)),
    "hear": ((FLAG,), (B,)),
    "read": ((A,), ("@out[0 : 1]",)),
    "hear_and_read": ((FLAG, A), ("@out[0 : 1]",)),
    "put": ((), (CACHE,)),
    "look": ((CACHE,), ("@out[0 : 1]",)),
    "look_and_tell": ((CACHE,), ("@out[0 : 1]", FLAG)),
    "hear_and_put": ((FLAG,), (CACHE,)),
    "put_again": ((), (CACHE,)),
    "look_and_put": ((CACHE,), (CACHE, "@out[0 : 1]")),
    "finish": ((), ("@out[0 : 1]",)),
}


def kernel_text(queues: Sequence[str]) -> str:
    """A kernel with one SM a queue."""
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
    return text + "}"


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
    (
        "an overwrite after either of two signals, both after a reader's tag",
        ["put +c1 look_and_tell", "hear +c0", "pass_on +c0", "c1 c0>=1 put_again"],
    ),
    ("a tag keeps the signal of a task that knows nothing second", ["write +c0 tell", "hear +c0", "c0>=1 read"]),
    (
        "who has heard of three signals observes three",
        ["hear_and_write +c0 tell_other", "hear_other +c0 +c1", "c1 c0>=1 read", "+c0 tell"],
    ),
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
    (
        "a tag lets the signal of a task that knows nothing be first",
        ["write tell +c0", "hear +c0", "c0>=1 read"],
        "race",
    ),
    ("two tasks that read each other's tags", ["pass_on", "pass_back finish"], "deadlock"),
]
