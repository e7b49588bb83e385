"""`amk tune` with times that are made up: what wins, what cannot, what is kept."""

import json
import random
from pathlib import Path

import pytest
from bench_fakes import FakeDevice, FakeEngine, FakeWorkshop
from xdsl.utils.exceptions import PassFailedException

from amk.amk_ir.errors import CompileError, DeviceError, ExecutionError, ScheduleError, StuckWaitError, UsageError
from amk.amk_ir.targets import get_target
from amk.frontends.import_model import ImportedModel, import_model
from amk.runtime.pass_options import option_defaults
from amk.runtime.tuned import TunedRecord, TunedStore, tuned_shape
from amk.tools.commands.tune import tune
from amk.tools.tune.race import Rules, race
from amk.tools.tune.report import report_lines, to_json
from amk.tools.tune.search import Found, Search
from amk.tools.tune.space import Axis, Candidate, axes

AXES = [Axis("widest", (32, 16, 64, 128)), Axis("rows", (8, 16)), Axis("handoff", ("auto", "counter"))]
VOCAB = 50


def cost(candidate: Candidate, pos: int) -> float:
    """Best: widest=64 with rows=16; each alone brings less."""
    us = 100 + pos / 10 + {16: 4, 32: 2, 64: 0, 128: 2}[candidate.value("widest")]
    us *= 0.95 if candidate.value("rows") == 16 else 1
    return us * (1.2 if candidate.value("handoff") == "counter" else 1)


def search(workshop: FakeWorkshop, **more) -> Search:
    return Search(workshop, AXES, more.pop("contexts", (16,)), VOCAB, more.pop("budget", 1e9), **more)


def verdicts(found: Found) -> dict[str, str]:
    return {str(trial.candidate): trial.verdict for trial in found.trials}


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_best_is_found(noise: float):
    """Also with times that scatter by 2%."""
    workshop = FakeWorkshop(cost, noise=noise)
    found = search(workshop).run()
    assert found.best == Candidate({"rows": 16, "widest": 64})
    assert found.is_complete
    assert found.final is not None and found.final.is_won
    assert found.final.ratio == pytest.approx(cost(found.best, 16) / cost(Candidate(), 16), rel=0.01)
    assert verdicts(found)["widest=64"] == verdicts(found)["rows=16 widest=64"] == "faster"
    assert verdicts(found)["widest=16"] == "slower"
    assert all(engine.closed for engine in workshop.engines)


def test_where_memory_lies_wins_nothing():
    """Every copy of a kernel but the first is 1.5% faster: gains must exceed what two copies of the defaults show."""

    def us(candidate: Candidate, pos: int) -> float:
        return 90.0 if candidate.value("rows") == 16 else 100.0

    found = search(FakeWorkshop(us, place=lambda number: 0.985 if number else 1.0)).run()
    assert found.same is not None and found.same.ratio == pytest.approx(0.985)
    assert verdicts(found)["widest=64"] == "slower"
    assert found.best == Candidate({"rows": 16})


def test_noise_alone_wins_nothing():
    """Equal kernels, 2% of scatter, 200 races: the rules promise about 2% by chance for the signs alone."""
    wins = 0
    for seed in range(200):
        shared = random.Random(seed)
        engines = [FakeEngine(noise=0.02, randomness=shared) for _ in range(2)]
        wins += race(*engines, (16,), Rules()).is_won
    assert wins <= 4


def test_a_small_gain_is_not_enough():
    slow, fast = FakeEngine(lambda _: 100.0), FakeEngine(lambda _: 99.7)
    assert not race(slow, fast, (16,), Rules()).is_won
    assert race(slow, fast, (16,), Rules(least_gain=0.001)).is_won


def test_a_race_that_is_lost_ends_early():
    rules = Rules()
    slow = FakeEngine(lambda _: 101.0)
    outcome = race(FakeEngine(lambda _: 100.0), slow, (16,), rules)
    assert len(outcome.ratios) == rules.first_rounds
    assert slow.launches == rules.first_rounds * (rules.launches + 2)
    assert outcome.ratio == pytest.approx(1.01)


def test_contexts_count_alike():
    """10% faster at one and 5% slower at the other: faster together."""
    incumbent, candidate = FakeEngine(lambda _: 100.0), FakeEngine(lambda pos: 90.0 if pos == 16 else 105.0)
    outcome = race(incumbent, candidate, (16, 128), Rules())
    assert outcome.is_won
    assert outcome.ratio == pytest.approx((0.9 * 1.05) ** 0.5)
    assert outcome.candidate_us == (90.0, 105.0)


def test_drift_meets_both():
    """A GPU that gets 30% slower during the race."""
    clock = iter(range(1_000_000))

    def drifting(us: float):
        return lambda _: us * (1 + 0.3 * min(1, next(clock) / 400))

    assert race(FakeEngine(drifting(100)), FakeEngine(drifting(96)), (16,), Rules()).is_won
    clock = iter(range(1_000_000))
    assert not race(FakeEngine(drifting(100)), FakeEngine(drifting(100)), (16,), Rules()).is_won


def fast(candidate: Candidate, pos: int) -> float:
    return 100.0 if candidate.is_default else 50.0


@pytest.mark.parametrize(
    "error",
    [
        PassFailedException("tile-tasks: no"),
        ScheduleError("race: no\nmore"),
        CompileError("no"),
        AssertionError("no"),
    ],
)
def test_what_cannot_be_lowered_is_reported(error: Exception):
    workshop = FakeWorkshop(fast, plans=lambda c: str(c) if c.is_default else error)
    found = search(workshop).run()
    assert found.best.is_default
    assert set(verdicts(found).values()) == {"refused"}
    assert all("no" in trial.reason and "\n" not in trial.reason for trial in found.trials)
    assert len(workshop.engines) == 2, "the defaults and their copy"


def test_spills_are_reported():
    error = CompileError("kernel 'amk_kernel' spills 8 bytes on sm_90a")
    found = search(FakeWorkshop(fast, loads=lambda c: {} if c.is_default else error)).run()
    assert found.best.is_default
    assert {trial.reason for trial in found.trials} == {str(error)}


def test_wrong_logits_cannot_win():
    workshop = FakeWorkshop(fast, loads=lambda c: {} if c.is_default else {"offset": 0.5})
    found = search(workshop).run()
    assert found.best.is_default
    assert set(verdicts(found).values()) == {"wrong"}
    assert all("relative error" in trial.reason for trial in found.trials)
    assert all(engine.closed for engine in workshop.engines)


def test_rounding_may_differ():
    found = search(FakeWorkshop(cost, loads=lambda c: {} if c.is_default else {"offset": 1e-3})).run()
    assert found.best == Candidate({"rows": 16, "widest": 64})


def test_logits_that_are_not_numbers_cannot_win():
    found = search(FakeWorkshop(fast, loads=lambda c: {} if c.is_default else {"offset": float("nan")})).run()
    assert set(verdicts(found).values()) == {"wrong"}


def test_what_is_not_repeatable_cannot_win():
    found = search(FakeWorkshop(fast, loads=lambda c: {} if c.is_default else {"unsteady": True})).run()
    assert set(verdicts(found).values()) == {"wrong"}
    assert "has other logits when it is repeated" in found.trials[0].reason


@pytest.mark.parametrize("after", [0, 3, 18, 25])
def test_a_stuck_candidate_is_reported(after: int):
    """In the race, or while its logits are computed."""
    error = StuckWaitError("SM 3 waited")
    loads = {"error": error, "fails_after": after}
    found = search(FakeWorkshop(fast, loads=lambda c: {} if c.is_default else loads)).run()
    assert found.best.is_default
    assert set(verdicts(found).values()) == {"failed"}
    assert found.trials[0].reason == "SM 3 waited"


def test_a_dead_gpu_ends_the_search():
    """An error of the incumbent is not the candidate's."""
    workshop = FakeWorkshop(cost, loads=lambda c: {"error": DeviceError("gone"), "fails_after": 40})
    with pytest.raises(DeviceError, match="gone"):
        search(workshop).run()
    assert all(engine.closed for engine in workshop.engines)


def test_the_defaults_must_work():
    with pytest.raises(CompileError, match="no"):
        search(FakeWorkshop(cost, plans=lambda c: CompileError("no"))).run()
    with pytest.raises(ExecutionError, match="other logits"):
        search(FakeWorkshop(cost, loads=lambda c: {"unsteady": True})).run()


def test_the_same_kernel_is_timed_once():
    """Options that change nothing."""
    found = search(FakeWorkshop(fast, plans=lambda c: "one")).run()
    assert set(verdicts(found).values()) == {"same kernel"}
    assert found.trials[0].reason == "as the defaults"


class Clock:
    """Ten seconds each time that it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_the_budget_is_kept():
    clock = Clock()
    found = search(FakeWorkshop(cost), budget=100, clock=clock).run()
    assert 1 <= len(found.trials) < 8
    assert not found.is_complete
    assert clock.now <= 130, "the clock moves while the last race is run, too"


def test_it_begins_with_what_was_found_before():
    before = Candidate({"rows": 16, "widest": 64})
    found = search(FakeWorkshop(cost), first=before).run()
    assert (found.trials[0].axis, found.trials[0].verdict) == ("found before", "faster")
    assert found.best == before
    slow = Candidate({"handoff": "counter"})
    found = search(FakeWorkshop(cost), first=slow).run()
    assert (found.trials[0].verdict, found.best) == ("slower", before)


def test_luck_is_noticed_at_the_end():
    """A candidate that is fast until it has won."""
    won: list[Candidate] = []

    def us(candidate: Candidate, pos: int) -> float:
        return 100.0 if candidate.is_default or won else 90.0

    lucky = search(FakeWorkshop(us))
    lucky.keep = lambda candidate, *_: won.append(candidate)
    found = lucky.run()
    assert [trial.verdict for trial in found.trials].count("faster") == 1
    assert found.best.is_default
    assert found.final is None


def test_no_room_for_the_last_race():
    """Somebody else has taken the memory: what was won stays."""
    count = {"defaults": 0}

    def loads(candidate: Candidate):
        count["defaults"] += candidate.is_default
        return DeviceError("out of device memory") if count["defaults"] > 2 else {}

    found = search(FakeWorkshop(cost, loads=loads)).run()
    assert found.best == Candidate({"rows": 16, "widest": 64})
    assert found.final is None
    assert found.best_us < found.default_us


# The space.


def test_axes_cover_the_options():
    """Each pass option that a GPU's kernel depends on, and the grid, each with its default."""
    found = {axis.name: axis for axis in axes(get_target("sm_90a"))}
    assert set(found) == set(option_defaults()) - {"tasks"} | {"sms"}
    for name, default in option_defaults().items():
        assert name not in found or default in found[name].values
    assert found["sms"].values == (None, 115, 99, 66)


def test_chosen_axes():
    found = axes(get_target("sm_90a"), ["sms", "in-flight", "in_flight"])
    assert [axis.name for axis in found] == ["sms", "in_flight"]
    with pytest.raises(UsageError, match="--options: expected some of in-flight, .*sms, found 'speed'"):
        axes(get_target("sm_90a"), ["speed"])


def test_candidates():
    candidate = Candidate().replaced("widest", 64).replaced("sms", 66)
    assert (str(candidate), candidate.value("widest"), candidate.value("sms")) == ("widest=64 sms=66", 64, 66)
    assert candidate.replaced("widest", 32).replaced("sms", None) == Candidate()
    assert (str(Candidate()), str(Candidate({}, 66))) == ("defaults", "sms=66")


# What is kept and shown.


@pytest.fixture
def model(tiny_model: Path) -> ImportedModel:
    return import_model(tiny_model, weight_dtype="bf16", kv_dtype="bf16")


def test_the_result_is_kept(model: ImportedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store, device = TunedStore(tmp_path), FakeDevice()
    found, path = tune(search(FakeWorkshop(cost)), store, device, model)
    record = store.find(device.name, "sm_90a", tuned_shape(model))
    assert record == TunedRecord(
        device.name,
        "sm_90a",
        132,
        tuned_shape(model),
        {"rows": 16, "widest": 64},
        None,
        (16,),
        found.default_us,
        found.best_us,
        path,
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(found.trials)
    assert lines[0].startswith("widest=16: slower (+1.9%) [")


def test_that_the_defaults_are_best_is_kept_too(model: ImportedModel, tmp_path: Path):
    store = TunedStore(tmp_path)
    tune(search(FakeWorkshop(lambda *_: 100.0)), store, FakeDevice(), model)
    (record,) = store.find_all("sm_90a", tuned_shape(model))
    assert (record.options, record.sms) == ({}, None)


def test_what_was_won_before_an_error_is_kept(model: ImportedModel, tmp_path: Path):
    store = TunedStore(tmp_path)

    def loads(candidate: Candidate):
        if str(candidate) == "widest=64":
            return {"error": KeyboardInterrupt(), "fails_after": 30}
        return {}

    with pytest.raises(KeyboardInterrupt):
        tune(search(FakeWorkshop(cost, loads=loads)), store, FakeDevice(), model)
    (record,) = store.find_all("sm_90a", tuned_shape(model))
    assert record.options == {"widest": 64}


LONG = "/models/" + "a-folder-with-a-long-name/" * 5


@pytest.mark.parametrize("name", ["tiny", LONG])
@pytest.mark.parametrize("refuse", [False, True])
def test_the_report(name: str, refuse: bool):
    def plans(candidate: Candidate):
        odd = refuse and candidate.value("rows") == 16
        return CompileError("spills " + "many " * 50 + "bytes") if odd else str(candidate)

    found = search(FakeWorkshop(cost, plans=plans), contexts=(16, 4_000)).run()
    lines = list(report_lines(name, found, AXES, (16, 4_000), None))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "widest      32 -> 64" in text
    assert ("refused: rows=16 widest=64: spills many" in text) == refuse
    assert "rows        8 -> 16" in text or refuse
    assert "handoff     auto stays, counter:" in text
    assert "by default" in text


def test_the_json():
    found = search(FakeWorkshop(cost)).run()
    content = json.loads(json.dumps(to_json("tiny", found, (16,), Rules(), {"gpu": "x"}, None), allow_nan=False))
    assert content["best"] == {"options": {"rows": 16, "widest": 64}, "sms": None}
    assert content["final"]["is_won"] is True
    assert len(content["trials"]) == len(found.trials)
    first = content["trials"][0]
    assert (first["option"], first["before"], first["after"], first["verdict"]) == ("widest", 32, 16, "slower")
    assert len(first["race"]["ratios"]) == Rules().first_rounds


# The command.


def test_no_gpu(tool):
    run = tool("amk", "tune", "smollm2-135m", env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("amk: error: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no-such-model"], "no-such-model: no such file"),
        (["smollm2-135m", "--context", "9000"], "--context 9000: smollm2-135m serves 8192 positions"),
        (["smollm2-135m", "--json", "no-such-folder/out.json"], "--json no-such-folder/out.json: there is no folder"),
        (["smollm2-135m", "--budget", "0"], "--budget: expected an integer of at least 1"),
    ],
)
def test_refused(tool_here, args: list[str], message: str):
    run = tool_here("amk", "tune", *args)
    assert run.returncode == 2
    assert message in run.stderr


def test_no_place_for_what_is_found(tool, tmp_path: Path):
    """Said before the search, not after minutes of it."""
    (tmp_path / "file").touch()
    run = tool("amk", "tune", "no-such-model", env={"AMK_CACHE_DIR": str(tmp_path / "file" / "cache")})
    assert run.returncode == 2
    assert "cannot write: Not a directory" in run.stderr and "AMK_CACHE_DIR says where" in run.stderr
