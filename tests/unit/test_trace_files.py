"""Traces as files: raw ones, Perfetto's, HTML; and the sums in them."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_traces import LAYERS, facts, synthetic

from amk.amk_ir.errors import TraceError
from amk.tools.trace.html import timeline_html
from amk.tools.trace.perfetto import CONSUMERS, LOADS, RING, loop_indices, perfetto_json
from amk.tools.trace.raw import RawTrace, read_raw, write_raw
from amk.tools.trace.summary import summarise, summary_text
from amk.tools.trace.timeline import Spent, Timeline, align, occupancy


@pytest.fixture(params=["stages", "phases"])
def timeline(request: pytest.FixtureRequest) -> Timeline:
    return align(synthetic(request.param))


# ---- raw -------------------------------------------------------------------------------------------------------------


def test_raw_round_trip(tmp_path: Path) -> None:
    trace = synthetic()
    path = tmp_path / "t.npz"
    write_raw(path, trace)
    again = read_raw(path)
    assert again.facts == trace.facts
    for block, other in zip(trace.blocks, again.blocks, strict=True):
        assert replace(block, consumers=None, producer=None) == replace(other, consumers=None, producer=None)  # type: ignore[arg-type]
        for row, read in ((block.consumers, other.consumers), (block.producer, other.producer)):
            assert np.array_equal(row.clocks, read.clocks)
            assert np.array_equal(row.codes, read.codes)
            assert row.dropped == read.dropped


def _edit_header(columns: dict[str, Any], **fields: Any) -> None:
    header = {**json.loads(columns["header"].tobytes()), **fields}
    columns["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: _edit_header(c, amk_trace=99), "version 99, this AMK reads version 2"),
        (lambda c: _edit_header(c, sms=5), "do not fit 5 SMs"),
        (lambda c: _edit_header(c, sms=0), "contradicts itself"),
        (lambda c: _edit_header(c, points=[]), "contradicts itself"),
        (lambda c: _edit_header(c, points=3), "cannot be read"),
        (lambda c: _edit_header(c, untraced_us="fast"), "cannot be read"),
        (lambda c: c.update(header=np.frombuffer(b"{", np.uint8)), "cannot be read"),
        (lambda c: c.update(clocks=c["clocks"][:-1]), "do not fit"),
        (lambda c: c.update(codes=c["codes"] | np.uint32(4095)), "do not fit"),
        (lambda c: c.update(codes=c["codes"].astype(np.int32)), "expected uint32, found int32"),
        (lambda c: c.pop("lengths"), "no .npz file"),
    ],
)
def test_damaged(edit: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    write_raw(path, synthetic())
    with np.load(path) as file:
        columns = dict(file)
    edit(columns)
    np.savez(path, **columns)
    with pytest.raises(TraceError, match=message) as e:
        read_raw(path)
    assert str(path) in str(e.value)


def test_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_raw(tmp_path / "none.npz")
    for content in (b"", b"PK\x03\x04 not a zip", b"text"):
        path = tmp_path / "bad.npz"
        path.write_bytes(content)
        with pytest.raises(TraceError, match=r"no \.npz file"):
            read_raw(path)


# ---- sums ------------------------------------------------------------------------------------------------------------


def test_sums(timeline: Timeline) -> None:
    summary = summarise(timeline)
    assert sum(summary.shares.values()) == pytest.approx(1)
    for kind in Spent:
        assert summary.shares[kind] == pytest.approx(sum(o.shares[kind] for o in summary.operations))
    assert summary.overhead == pytest.approx(0.01)
    by_name = {o.name: o for o in summary.operations}
    assert by_name["linear_q"].runs == by_name["linear_down"].runs == LAYERS
    # 320 of words (300 in the first layer), 50 of activations, 400 of stages, 70 until the results are there
    assert by_name["linear_q"].median_us == pytest.approx(0.84, rel=0.01)
    waited = by_name["linear_q"].shares[Spent.WORDS] * timeline.length
    assert waited == pytest.approx(320 * LAYERS - 20, rel=0.02)
    ring = by_name["linear_q"].shares[Spent.RING] * timeline.length
    assert ring == (pytest.approx(2 * 40 * LAYERS, rel=0.05) if timeline.facts.detail == "stages" else 0)


def test_table(timeline: Timeline) -> None:
    text = summary_text(timeline, summarise(timeline))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"^linear_down +40\.0 +0\.8", text, re.MULTILINE)
    assert "1.0% slower" in text


def test_table_of_long_names() -> None:
    points = synthetic().facts.points
    points = tuple(
        replace(p, operation=p.operation.replace("linear_down", "linear_with_a_very_long_name")) for p in points
    )
    operations = tuple(o.replace("linear_down", "linear_with_a_very_long_name") for o in facts().operations)
    timeline = align(replace(synthetic(), facts=facts(points=points, operations=operations)))
    text = summary_text(timeline, summarise(timeline))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "linear_with_a_very_lon~" in text


# ---- Perfetto --------------------------------------------------------------------------------------------------------


def test_perfetto(timeline: Timeline) -> None:
    """The events as the format wants them: complete ones follow each other, asynchronous ones come in pairs."""
    document = json.loads(perfetto_json(timeline))
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    events = document["traceEvents"]
    required = {
        "M": {"args"},
        "X": {"ts", "dur", "cat"},
        "b": {"ts", "id", "cat"},
        "e": {"ts", "id", "cat"},
        "C": {"ts"},
    }
    for event in events:
        assert {"name", "ph", "pid", "tid"} | required[event["ph"]] <= set(event)
        assert event["pid"] in (CONSUMERS, LOADS, RING)
        assert all(isinstance(event[key], int | float) for key in ("ts", "dur") if key in event)
        assert event.get("dur", 0) >= 0
    for number, sm in enumerate(timeline.sms):
        slices = [e for e in events if e["ph"] == "X" and e["tid"] == number]
        assert len(slices) == len(sm.ends)
        for one, other in pairwise(slices):
            assert round((one["ts"] + one["dur"]) * 1e3) == round(other["ts"] * 1e3)
        total = sum(e["dur"] for e in slices if e["cat"] == "wait: words")
        assert total == pytest.approx(0.32 * LAYERS - 0.02, rel=0.02)
    open_ids = Counter(e["id"] for e in events if e["ph"] == "b")
    assert open_ids == Counter(e["id"] for e in events if e["ph"] == "e")
    assert set(open_ids.values()) == {1}
    first = {e["id"]: e["ts"] for e in events if e["ph"] == "b"}
    assert all(e["ts"] >= first[e["id"]] for e in events if e["ph"] == "e")
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names[CONSUMERS, 3] == names[LOADS, 3] == "SM 3"


def test_perfetto_compressed(timeline: Timeline) -> None:
    assert gzip.decompress(perfetto_json(timeline, compress=True)) == perfetto_json(timeline)


def test_loop_indices() -> None:
    assert loop_indices((("layer", 3), ("part", 4)), 7) == {"layer": 1, "part": 3}
    assert loop_indices((), 0) == {}


# ---- HTML ------------------------------------------------------------------------------------------------------------


class _Resources(HTMLParser):
    """The elements of a page, and whatever it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "data", "action")]


def test_html_is_self_contained(timeline: Timeline) -> None:
    page = timeline_html(timeline, summarise(timeline))
    found = _Resources()
    found.feed(page)
    assert found.loads == []
    assert found.tags["script"] == 3
    assert found.tags["link"] == found.tags["iframe"] == found.tags["img"] == 0
    for word in ("http", "//www", "@import", "url(", "fetch(", "XMLHttpRequest", "import("):
        assert word not in page
    assert "{{" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_html_escapes() -> None:
    """A name cannot leave its place in the page."""
    name = '</script><script>alert("{{columns}}")</script>'
    page = timeline_html(*_with_summary(replace(synthetic(), facts=facts(model=name))))
    found = _Resources()
    found.feed(page)
    assert found.tags["script"] == 3
    assert "<script>alert" not in page


def _with_summary(trace: RawTrace) -> tuple[Timeline, Any]:
    timeline = align(trace)
    return timeline, summarise(timeline)


_NODE = """
const page = require(process.argv[2]);
const fs = require("fs");
const text = fs.readFileSync(process.argv[3], "utf8");
const part = (id) => text.match(new RegExp(`id="${id}">([^<]*)<`))[1];
const header = JSON.parse(part("header"));
page.unpack(part("columns")).then((bytes) => {
  const sms = page.smsOf(header, bytes);
  const sums = new Float32Array(2 * 50);
  page.addRing(sums, sms[1].ring, 0, header.length, 50);
  const at = page.intervalAt(sms[1], 450);
  console.log(JSON.stringify({
    header,
    sms: sms.map((sm) => ({
      ends: [...sm.ends], points: [...sm.points], owners: [...sm.owners], pushed: [...sm.pushed], read: [...sm.read],
      landed: [...sm.landed], times: [...sm.ring.times], ready: [...sm.ring.ready], loading: [...sm.ring.loading],
    })),
    at,
    hints: sms[1].ends.length ? [...sms[1].ends].map((_, n) => page.describe(header, sms[1], 1, n)) : [],
    before: page.intervalAt(sms[1], sms[1].start - 1),
    ring: [...sums],
    loops: page.loopText([["layer", 3], ["part", 4]], 7),
    views: ["#1.5-20", "#20-1", "", "#x"].map(page.viewOf),
  }));
});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_html_script(timeline: Timeline, tmp_path: Path) -> None:
    """The page's own script unpacks the columns that were packed, and finds what lies at a time."""
    (tmp_path / "run.cjs").write_text(_NODE)
    (tmp_path / "page.html").write_text(timeline_html(timeline, summarise(timeline)))
    script = Path(__file__).parents[2] / "tools" / "trace" / "page.js"
    shutil.copy(script, tmp_path / "page.cjs")
    command = ["node", "run.cjs", str(tmp_path / "page.cjs"), "page.html"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    for sm, drawn in zip(timeline.sms, result["sms"], strict=True):
        assert np.abs(sm.ends - drawn["ends"]).max() <= 1
        assert sm.points.tolist() == drawn["points"]
        assert sm.owners.tolist() == drawn["owners"]
        for name in ("pushed", "landed", "read"):
            assert np.abs(getattr(sm, name) - drawn[name]).max() <= 1
        _, loading, ready = occupancy(sm)
        assert sum(drawn["ready"]) == pytest.approx(ready.sum(), abs=12)
        assert max(drawn["loading"]) == loading.max()
        assert drawn["loading"][-1] == drawn["ready"][-1] == 0
    sm = timeline.sms[1]
    assert sm.starts[result["at"]] <= 450 < sm.ends[result["at"]]
    assert result["before"] == -1
    assert result["loops"] == "layer 1, part 3"
    assert result["views"] == [[1500, 20000], None, None, None]
    titles = [hint["title"] for hint in result["hints"]]
    assert titles[0] == "wait: words, for linear_q"
    assert result["hints"][0]["lines"][-1] == "waited for the words of the read of @x[layer, 0:1, 0:64]"
    assert titles[1] == "linear_q: activations"
    assert "wait: counters, for linear_down" in titles
    if timeline.facts.detail == "stages":
        weights = next(h for h in result["hints"] if h["title"] == "wait: ring, for linear_q")
        assert weights["lines"][-1].endswith("(task.stream in @linear_q, consumed)")
    # the mean over a lane's pixels is the mean over time
    times, loading, ready = occupancy(sm)
    for channel, values in enumerate((ready, loading)):
        mean = (values[:-1] * np.diff(times)).sum() / timeline.length
        assert np.mean(result["ring"][channel::2]) == pytest.approx(mean, rel=0.02)


_BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)

_ACTIONS = """
<pre id="result"></pre>
<script>
async function act() {
  while (!window.page) await new Promise((done) => setTimeout(done, 20));
  const rows = document.getElementById("rows"), box = rows.getBoundingClientRect(), page = window.page;
  const at = (x, row) => ({ clientX: box.left + x, clientY: box.top + 20 + (row + 0.5) * page.height(), bubbles: true });
  const view = () => [page.from, page.to], result = { start: view() };
  rows.dispatchEvent(new WheelEvent("wheel", { deltaY: -200, cancelable: true, ...at(300, 1) }));
  result.closer = view();
  rows.setPointerCapture = () => {};
  rows.dispatchEvent(new PointerEvent("pointermove", at(300, 2)));
  result.hint = document.getElementById("hint").textContent;
  rows.dispatchEvent(new PointerEvent("pointerdown", at(300, 2)));
  rows.dispatchEvent(new PointerEvent("pointerup", at(300, 2)));
  result.chosen = page.chosen;
  rows.dispatchEvent(new PointerEvent("pointerdown", at(300, 2)));
  rows.dispatchEvent(new PointerEvent("pointermove", at(200, 2)));
  rows.dispatchEvent(new PointerEvent("pointerup", at(200, 2)));
  result.moved = view();
  rows.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
  result.fit = view();
  document.querySelector("#legend button").click();
  result.only = page.only;
  page.drawRows();
  page.drawRing();
  const data = rows.getContext("2d").getImageData(0, 0, rows.width, rows.height).data;
  result.colours = new Set(new Uint32Array(data.buffer)).size;
  result.table = document.querySelectorAll("#summary tr").length;
  result.title = document.getElementById("title").textContent;
  document.getElementById("result").textContent = JSON.stringify(result);
}
act().catch((error) => (document.getElementById("result").textContent = `failed: ${error.stack}`));
</script>
"""


@pytest.mark.skipif(_BROWSER is None, reason="needs chromium")
def test_html_in_a_browser(timeline: Timeline, tmp_path: Path) -> None:
    """Zoomed, moved and pointed at: the page does what its help says."""
    assert _BROWSER is not None
    page = timeline_html(timeline, summarise(timeline))
    (tmp_path / "page.html").write_text(page.replace("</body>", _ACTIONS + "</body>"))
    command = [_BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=900,700", "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result = json.loads(found[1])
    length = result["start"][1]
    assert result["start"] == [0, length]
    closer, moved = (view[1] - view[0] for view in (result["closer"], result["moved"]))
    assert closer == pytest.approx(length * 2.718281828**-0.6, rel=0.01)
    assert moved == pytest.approx(closer)
    assert result["moved"][0] > result["closer"][0]
    assert result["fit"] == [0, length]
    assert "SM 2, " in result["hint"]
    assert result["chosen"] == 2
    assert result["only"] == {"kind": "wait: words"}
    assert result["colours"] > 10
    assert result["table"] == 1 + 2 + 2
    assert result["title"] == "synthetic: one step at context 16"
