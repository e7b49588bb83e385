"use strict";
// The page of `amk trace`: unpacks the columns, draws the SMs by time, and answers the mouse. No library, no network.

// ---- data -----------------------------------------------------------------------------------------------------------

// Bytes of the packed columns, from base64 of a zlib stream.
async function unpack(base64) {
  const binary = atob(base64.trim());
  const bytes = Uint8Array.from(binary, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Columns of little-endian u32, one after the other, each with the values of all SMs.
function columnsOf(bytes, names, lengths) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const result = {};
  let at = 0;
  names.forEach((name, n) => {
    const column = new Uint32Array(lengths[n]);
    for (let i = 0; i < column.length; ++i, at += 4) column[i] = view.getUint32(at, true);
    result[name] = column;
  });
  if (at !== bytes.byteLength) throw new Error(`${bytes.byteLength} bytes of columns, expected ${at}`);
  return result;
}

// The SMs: `ends`, `points`, `indices`, `owners` of their intervals, `pushed`, `landed`, `read`, `fetches` of stages.
function smsOf(header, bytes) {
  const intervals = header.intervals.reduce((a, b) => a + b, 0), loads = header.loads.reduce((a, b) => a + b, 0);
  const lengths = [intervals, intervals, intervals, intervals, loads, loads, loads, loads];
  const packed = columnsOf(bytes, ["ends", "points", "indices", "owners", "pushed", "landed", "read", "fetches"], lengths);
  const sms = [];
  let first = 0, stage = 0;
  header.intervals.forEach((count, number) => {
    const sm = { start: header.starts[number] };
    for (const name of ["points", "indices", "owners"]) sm[name] = packed[name].subarray(first, first + count);
    sm.ends = added(packed.ends.subarray(first, first + count), sm.start);
    first += count;
    const stages = header.loads[number];
    sm.pushed = added(packed.pushed.subarray(stage, stage + stages), 0);
    for (const name of ["landed", "read"])
      sm[name] = packed[name].subarray(stage, stage + stages).map((after, n) => sm.pushed[n] + after);
    sm.fetches = packed.fetches.subarray(stage, stage + stages);
    stage += stages;
    sm.ring = occupancy(sm);
    sms.push(sm);
  });
  return sms;
}

function added(steps, start) {
  let sum = start;
  return steps.map((step) => (sum += step));
}

// How many stages are ready and loading from each time on, as `occupancy` of timeline.py.
function occupancy(sm) {
  const events = [];
  sm.pushed.forEach((time, n) => {
    events.push([time, 1, 0], [Math.min(sm.landed[n], sm.read[n]), -1, 1], [sm.read[n], 0, -1]);
  });
  events.sort((a, b) => a[0] - b[0]);
  const times = new Uint32Array(events.length), loading = new Int16Array(events.length), ready = new Int16Array(events.length);
  let l = 0, r = 0;
  events.forEach(([time, dl, dr], n) => {
    times[n] = time;
    loading[n] = l += dl;
    ready[n] = r += dr;
  });
  return { times, loading, ready };
}

// The first n with sorted[n] > value.
function after(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The number of the interval of `sm` at a time, or -1.
function intervalAt(sm, time) {
  if (time < sm.start) return -1;
  const n = after(sm.ends, time);
  return n < sm.ends.length ? n : -1;
}

// Adds to sums[2 * x] and sums[2 * x + 1] the mean ready and loading stages in pixel x, for times from `from` to `to`.
function addRing(sums, ring, from, to, width) {
  const scale = width / (to - from);
  let n = Math.max(0, after(ring.times, from) - 1);
  for (; n < ring.times.length && ring.times[n] < to; ++n) {
    const end = n + 1 < ring.times.length ? ring.times[n + 1] : ring.times[n];
    if (ring.ready[n] || ring.loading[n])
      cover((ring.times[n] - from) * scale, (end - from) * scale, width, (x, part) => {
        sums[2 * x] += part * ring.ready[n];
        sums[2 * x + 1] += part * ring.loading[n];
      });
  }
}

// Calls put(x, part) for each pixel of which [left, right) covers a part.
function cover(left, right, width, put) {
  left = Math.max(0, left);
  right = Math.min(width, right);
  for (let x = Math.floor(left); x < right; ++x) {
    const part = Math.min(right, x + 1) - Math.max(left, x);
    if (part > 0) put(x, part);
  }
}

function timeText(ns) {
  return `${(ns / 1000).toFixed(ns < 100000 ? 3 : 2)} µs`;
}

// The iteration of each loop that the row-major number `index` stands for.
function loopText(loops, index) {
  const parts = [];
  for (const [name, extent] of [...loops].reverse()) {
    parts.unshift(`${name} ${index % extent}`);
    index = Math.floor(index / extent);
  }
  return parts.join(", ");
}

// The times in "#FROM-TO", in microseconds: a part of the step that the page shows first.
function viewOf(hash) {
  const match = hash.match(/^#([0-9.]+)-([0-9.]+)$/);
  const times = match ? [1000 * match[1], 1000 * match[2]] : [];
  return times[1] > times[0] ? times : null;
}

// What a hint says of an interval: its title, and lines.
function describe(header, sm, number, n) {
  const point = header.points[sm.points[n]], operation = header.operations[sm.owners[n]];
  const start = n ? sm.ends[n - 1] : sm.start;
  const kind = header.spent[sm.points[n]], isWork = kind === "work";
  const lines = [`SM ${number}, ${timeText(sm.ends[n] - start)}, from ${timeText(start)}`];
  const iteration = loopText(point.loops, sm.indices[n]);
  if (iteration) lines.push(iteration);
  if (!isWork) lines.push(`waited for ${waitedFor(header, point, kind, sm.indices[n])}`);
  const title = isWork ? `${sm.owners[n] ? `${operation}: ` : ""}${point.text}` : `${kind}, for ${operation}`;
  return { title, lines, ir: isWork ? point.operation : "" };
}

function waitedFor(header, point, kind, index) {
  if (kind === "wait: ring") return `the next stage of the ring (${header.texts[index]})`;
  return kind === "wait: words" ? `the words of ${point.text}` : point.operation;
}

// ---- page -----------------------------------------------------------------------------------------------------------

const GUTTER = 44, AXIS = 20, RING_HEIGHT = 96;

class Page {
  constructor(header, sms) {
    this.header = header;
    this.sms = sms;
    [this.from, this.to] = viewOf(window.location.hash) || [0, header.length];
    this.rowHeight = 0; // 0: all SMs fit
    this.top = 0;
    this.chosen = 0;
    this.isMean = false;
    this.only = null; // {owner} or {kind} of the legend entry that is shown alone
    this.rows = document.getElementById("rows");
    this.ring = document.getElementById("ring");
    this.hint = document.getElementById("hint");
    this.writeText();
    this.listen();
    this.readColours();
    this.resize();
  }

  // ---- text ----

  writeText() {
    const h = this.header;
    document.getElementById("title").textContent = `${h.facts.model}: one step at context ${h.facts.context}`;
    document.getElementById("facts").textContent =
      `${h.facts.device}, ${h.facts.sms} SMs. ` +
      (h.facts.untraced_us === null
        ? ""
        : `Step: ${h.facts.untraced_us.toFixed(1)} µs; traced ${h.facts.traced_us.toFixed(1)} µs ` +
          `(${(100 * h.facts.overhead).toFixed(1)}% slower). `) +
      `Shown: ${timeText(h.length)}, detail: ${h.facts.detail}. SMs are aligned to ${h.facts.doubt} ns.`;
    const choice = document.getElementById("ring-of");
    choice.append(new Option("all SMs (mean)", "mean"));
    h.intervals.forEach((_, n) => choice.append(new Option(`SM ${n}`, String(n))));
    choice.value = "0";
    this.writeTable();
    document.getElementById("notes").textContent =
      "One thread of each SM is observed. Work ends at barriers, so it includes waiting for the SM's other warps" +
      (h.facts.detail === "stages" ? ". " : ", and products include waiting for the ring (--detail stages tells them apart). ") +
      "Waiting for words includes the latency of loading them.";
  }

  writeLegend() {
    const legend = document.getElementById("legend");
    legend.replaceChildren();
    const add = (name, colour, share, only) => {
      const item = document.createElement("li"), button = document.createElement("button");
      const swatch = document.createElement("i"), text = document.createElement("span");
      swatch.style.background = colour;
      text.textContent = `${(100 * share).toFixed(1)}%`;
      button.type = "button";
      button.append(swatch, name, text);
      button.setAttribute("aria-pressed", String(JSON.stringify(only) === JSON.stringify(this.only)));
      button.addEventListener("click", () => {
        this.only = JSON.stringify(only) === JSON.stringify(this.only) ? null : only;
        this.writeLegend();
        this.draw();
      });
      item.append(button);
      legend.append(item);
    };
    for (const kind of ["wait: words", "wait: counters", "wait: ring"])
      if (this.header.shares[kind] > 0) add(kind, css(this.waits[kind]), this.header.shares[kind], { kind });
    this.header.summary.forEach((row) => {
      if (row.shares.work > 0) add(row.name, css(this.works[row.owner]), row.shares.work, { owner: row.owner });
    });
  }

  writeTable() {
    const table = document.getElementById("summary");
    const row = (cells, kind) => {
      const line = table.insertRow();
      for (const cell of cells) {
        const element = document.createElement(kind);
        element.textContent = cell;
        line.append(element);
      }
      return line;
    };
    const percent = (share) => (share >= 0.0005 ? `${(100 * share).toFixed(1)}%` : "");
    row(["operation", "runs per SM", "median µs", "p90 µs", "work", "words", "counters", "ring", ""], "th");
    const kinds = ["work", "wait: words", "wait: counters", "wait: ring"];
    const widest = Math.max(...this.header.summary.map((r) => kinds.reduce((sum, kind) => sum + r.shares[kind], 0)));
    this.bars = [];
    for (const r of this.header.summary) {
      const number = (value) => (value === null ? "" : value.toFixed(2));
      const cells = [r.name, r.runs.toFixed(1), number(r.median_us), number(r.p90_us)];
      const line = row([...cells, ...kinds.map((kind) => percent(r.shares[kind]))], "td");
      const cell = line.insertCell(), bar = document.createElement("div");
      cell.className = "bar";
      for (const kind of kinds) {
        const part = document.createElement("div");
        part.style.width = `${(100 * r.shares[kind]) / widest}%`;
        bar.append(part);
        this.bars.push([part, kind, r.owner]);
      }
      cell.append(bar);
    }
    row(["all", "", "", "", ...kinds.map((kind) => percent(this.header.shares[kind])), ""], "td");
    row(["nothing to do", "", "", "", percent(this.header.shares.idle), "", "", "", ""], "td");
  }

  // ---- colours ----

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    const saturation = get("--work-saturation"), light = get("--work-light");
    this.waits = {
      "wait: words": rgb(get("--words")),
      "wait: counters": rgb(get("--counter")),
      "wait: ring": rgb(get("--wait-ring")),
      idle: rgb(get("--idle")),
    };
    this.empty = rgb(get("--empty"));
    this.text = get("--text");
    this.faint = get("--faint");
    this.line = get("--line");
    // work is cool, waits are warm
    const hues = [205, 158, 262, 182, 232, 128, 288, 218, 145, 196, 248, 170];
    this.works = this.header.operations.map((_, n) =>
      n === 0 ? rgb("#8b95a5") : rgb(`hsl(${hues[(n - 1) % hues.length]} ${saturation} ${light})`));
    for (const [part, kind, owner] of this.bars) part.style.background = css(this.colourOf(kind, owner));
    this.writeLegend();
  }

  colourOf(kind, owner) {
    return kind === "work" ? this.works[owner] : this.waits[kind] || this.empty;
  }

  shown(kind, owner) {
    const only = this.only;
    return !only || (only.kind ? kind === only.kind : kind === "work" && owner === only.owner);
  }

  // ---- drawing ----

  resize() {
    this.ratio = window.devicePixelRatio || 1;
    const width = this.rows.parentElement.clientWidth;
    const room = Math.max(160, Math.floor(window.innerHeight * 0.56)) - AXIS;
    this.fitting = Math.min(40, Math.max(2, Math.floor(room / this.sms.length)));
    const height = Math.min(room, this.height() * this.sms.length) + AXIS;
    for (const [canvas, h] of [[this.rows, height], [this.ring, RING_HEIGHT]]) {
      canvas.style.height = `${h}px`;
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(h * this.ratio);
    }
    this.width = width - GUTTER;
    this.viewHeight = height - AXIS;
    this.draw();
  }

  height() {
    return this.rowHeight || this.fitting;
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.drawRows();
      this.drawRing();
    });
  }

  clampView() {
    const span = Math.min(Math.max(this.to - this.from, 40), this.header.length * 1.02);
    const from = Math.min(Math.max(this.from, -0.01 * this.header.length), this.header.length * 1.01 - span);
    this.from = from;
    this.to = from + span;
    this.top = Math.min(Math.max(0, this.top), Math.max(0, this.height() * this.sms.length - this.viewHeight));
  }

  drawRows() {
    this.clampView();
    const g = this.rows.getContext("2d"), ratio = this.ratio;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.rows.width, this.rows.height);
    const left = Math.round(GUTTER * ratio), width = this.rows.width - left;
    const rowPixels = this.height() * ratio, axis = Math.round(AXIS * ratio);
    const image = g.createImageData(width, Math.max(1, this.rows.height - axis));
    const pixels = new Uint32Array(image.data.buffer), line = new Uint32Array(width);
    const sums = new Float32Array(3 * width);
    const first = Math.floor(this.top / this.height());
    for (let number = first; number < this.sms.length; ++number) {
      const begin = Math.round(number * rowPixels - this.top * ratio), gap = rowPixels >= 4 ? 1 : 0;
      const end = Math.round((number + 1) * rowPixels - this.top * ratio) - gap;
      if (begin >= image.height) break;
      this.paintLine(this.sms[number], sums, line, width);
      for (let y = Math.max(0, begin); y < Math.min(end, image.height); ++y) pixels.set(line, y * width);
    }
    g.putImageData(image, left, axis);
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawLabels(g, first);
    this.drawAxis(g, AXIS);
  }

  // The colours of one SM's pixels: the mean of what there is in each.
  paintLine(sm, sums, line, width) {
    const scale = width / (this.to - this.from), empty = this.empty;
    for (let x = 0; x < width; ++x) sums[3 * x] = sums[3 * x + 1] = sums[3 * x + 2] = 0;
    const covered = new Float32Array(width);
    let n = Math.max(0, after(sm.ends, this.from));
    let start = n ? sm.ends[n - 1] : sm.start;
    for (; n < sm.ends.length && start < this.to; start = sm.ends[n++]) {
      const kind = this.header.spent[sm.points[n]], owner = sm.owners[n];
      if (!this.shown(kind, owner)) continue;
      const colour = this.colourOf(kind, owner);
      cover((start - this.from) * scale, (sm.ends[n] - this.from) * scale, width, (x, part) => {
        sums[3 * x] += part * colour[0];
        sums[3 * x + 1] += part * colour[1];
        sums[3 * x + 2] += part * colour[2];
        covered[x] += part;
      });
    }
    for (let x = 0; x < width; ++x) {
      const rest = Math.max(0, 1 - covered[x]);
      const [r, g, b] = [0, 1, 2].map((c) => Math.min(255, sums[3 * x + c] + rest * empty[c]));
      line[x] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }

  drawLabels(g, first) {
    const height = this.height();
    g.save();
    g.beginPath();
    g.rect(0, AXIS, GUTTER + this.width, this.viewHeight);
    g.clip();
    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    const step = Math.max(1, Math.ceil(13 / height));
    for (let n = first - (first % step); n < this.sms.length; n += step) {
      const middle = AXIS + (n + 0.5) * height - this.top;
      if (middle > AXIS + this.viewHeight) break;
      const y = n === 0 ? Math.max(middle, AXIS + 6) : middle;
      g.fillStyle = this.faint;
      g.fillText(`SM ${n}`, 4, y);
    }
    g.strokeStyle = this.text;
    if (!this.isMean) g.strokeRect(GUTTER - 0.5, AXIS + this.chosen * height - this.top - 0.5, this.width, height);
    if (height >= 12) this.drawNames(g, first);
    g.restore();
  }

  // The names of intervals that have room for them.
  drawNames(g, first) {
    const height = this.height(), scale = this.width / (this.to - this.from);
    g.fillStyle = "#ffffff";
    for (let number = first; number < this.sms.length; ++number) {
      const y = AXIS + (number + 0.5) * height - this.top, sm = this.sms[number];
      if (y > AXIS + this.viewHeight + height) break;
      for (let n = after(sm.ends, this.from); n < sm.ends.length; ++n) {
        const start = n ? sm.ends[n - 1] : sm.start;
        if (start > this.to) break;
        const x = Math.max(0, (start - this.from) * scale), right = Math.min(this.width, (sm.ends[n] - this.from) * scale);
        if (right - x < 46 || !this.shown(this.header.spent[sm.points[n]], sm.owners[n])) continue;
        const text = describe(this.header, sm, number, n).title;
        const fitting = text.slice(0, Math.floor((right - x - 6) / 6.2));
        g.fillText(fitting, GUTTER + x + 3, y);
      }
    }
  }

  drawAxis(g, height) {
    const span = this.to - this.from, wanted = (span * 90) / this.width;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted);
    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    for (let time = Math.ceil(this.from / step) * step; time < this.to; time += step) {
      const x = GUTTER + ((time - this.from) / span) * this.width;
      g.strokeStyle = this.line;
      g.beginPath();
      g.moveTo(x + 0.5, height - 5);
      g.lineTo(x + 0.5, height);
      g.stroke();
      g.fillStyle = this.faint;
      const digits = Math.max(0, 3 - Math.floor(Math.log10(step)));
      g.fillText(`${(time / 1000).toFixed(Math.min(3, digits))} µs`, x + 3, height / 2);
    }
  }

  drawRing() {
    const g = this.ring.getContext("2d"), ratio = this.ratio;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.ring.width, this.ring.height);
    const left = Math.round(GUTTER * ratio), width = this.ring.width - left;
    const sums = new Float32Array(2 * width);
    const sms = this.isMean ? this.sms : [this.sms[this.chosen]];
    for (const sm of sms) addRing(sums, sm.ring, this.from, this.to, width);
    const top = 16 * ratio, room = this.ring.height - top - 2 * ratio, scale = room / this.header.facts.stages / sms.length;
    const fill = (channel, below, colour) => {
      g.fillStyle = colour;
      for (let x = 0; x < width; ++x) {
        const base = below ? sums[2 * x] * scale : 0, tall = sums[2 * x + channel] * scale;
        if (tall > 0) g.fillRect(left + x, this.ring.height - base - tall, 1, tall);
      }
    };
    fill(0, false, css(this.works[1] || this.empty));
    g.globalAlpha = 0.4;
    fill(1, true, css(this.works[1] || this.empty));
    g.globalAlpha = 1;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    g.fillStyle = this.faint;
    const of = this.isMean ? "all SMs, mean" : `SM ${this.chosen}`;
    g.fillText(`Weight ring of ${of}: stages ready (full) and loading (pale), of ${this.header.facts.stages}`, GUTTER, 8);
    for (const part of [0, 0.5, 1]) {
      const y = RING_HEIGHT - 2 - part * (RING_HEIGHT - 18);
      g.fillText(String(part * this.header.facts.stages), 4, Math.min(y, RING_HEIGHT - 6));
      g.fillRect(GUTTER, y, this.width, 0.5);
    }
  }

  // ---- mouse and keys ----

  timeAt(x) {
    return this.from + ((x - GUTTER) / this.width) * (this.to - this.from);
  }

  zoom(factor, x = GUTTER + this.width / 2) {
    const time = this.timeAt(x);
    this.from = time - (time - this.from) * factor;
    this.to = time + (this.to - time) * factor;
    this.draw();
  }

  move(dx, dy) {
    const span = this.to - this.from;
    this.from -= (dx / this.width) * span;
    this.to = this.from + span;
    this.top -= dy;
    this.draw();
  }

  choose(number) {
    this.isMean = number === "mean";
    if (!this.isMean) this.chosen = Number(number);
    document.getElementById("ring-of").value = String(number);
    this.draw();
  }

  fit() {
    this.from = 0;
    this.to = this.header.length;
    this.draw();
  }

  setHeight(height) {
    this.rowHeight = height <= this.fitting ? 0 : Math.min(40, height);
    this.resize();
  }

  listen() {
    const on = (id, event, action) => document.getElementById(id).addEventListener(event, action);
    on("fit", "click", () => this.fit());
    on("closer", "click", () => this.zoom(0.5));
    on("wider", "click", () => this.zoom(2));
    on("taller", "click", () => this.setHeight(Math.ceil(this.height() * 1.5)));
    on("lower", "click", () => this.setHeight(Math.floor(this.height() / 1.5)));
    on("ring-of", "change", (event) => this.choose(event.target.value));
    window.addEventListener("resize", () => this.resize());
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.draw();
    });
    for (const canvas of [this.rows, this.ring]) this.listenTo(canvas);
    this.rows.addEventListener("keydown", (event) => {
      const actions = {
        ArrowLeft: () => this.move(80, 0),
        ArrowRight: () => this.move(-80, 0),
        ArrowUp: () => this.move(0, 40),
        ArrowDown: () => this.move(0, -40),
        "+": () => this.zoom(0.5),
        "=": () => this.zoom(0.5),
        "-": () => this.zoom(2),
        0: () => this.fit(),
      };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  listenTo(canvas) {
    let held = null, moved = 0;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(-(event.deltaX || event.deltaY), 0);
      else this.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) * 0.003), event.offsetX);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      moved = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (held) {
        const dx = event.clientX - held[0], dy = event.clientY - held[1];
        moved += Math.abs(dx) + Math.abs(dy);
        held = [event.clientX, event.clientY];
        this.move(dx, canvas === this.rows ? dy : 0);
        this.hint.hidden = true;
      } else {
        this.showHint(event, canvas);
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      const number = this.rowAt(event);
      if (held && moved < 4 && canvas === this.rows && number >= 0) this.choose(number);
      held = null;
    });
    canvas.addEventListener("pointerleave", () => (this.hint.hidden = true));
    canvas.addEventListener("dblclick", (event) => {
      const number = this.rowAt(event), n = number < 0 ? -1 : intervalAt(this.sms[number], this.timeAt(event.offsetX));
      if (canvas !== this.rows || n < 0) return;
      const sm = this.sms[number], start = n ? sm.ends[n - 1] : sm.start, length = sm.ends[n] - start;
      this.from = start - length;
      this.to = sm.ends[n] + length;
      this.draw();
    });
  }

  rowAt(event) {
    if (event.offsetY < AXIS || event.offsetX < 0) return -1;
    const number = Math.floor((event.offsetY - AXIS + this.top) / this.height());
    return number < this.sms.length ? number : -1;
  }

  showHint(event, canvas) {
    const time = this.timeAt(event.offsetX);
    const text = event.offsetX < GUTTER ? null : canvas === this.rows ? this.rowHint(event, time) : this.ringHint(time);
    this.hint.hidden = !text;
    if (!text) return;
    const title = document.createElement("b");
    title.textContent = text.title;
    this.hint.replaceChildren(title);
    for (const line of text.lines) {
      const part = document.createElement("div");
      part.textContent = line;
      this.hint.append(part);
    }
    if (text.ir) {
      const code = document.createElement("code");
      code.textContent = text.ir;
      this.hint.append(code);
    }
    const plot = canvas.parentElement.getBoundingClientRect();
    const x = event.clientX - plot.left, y = event.clientY - plot.top;
    const right = Math.min(x + 14, plot.width - this.hint.offsetWidth - 4);
    const below = y + 16 + this.hint.offsetHeight < plot.height ? y + 16 : y - this.hint.offsetHeight - 10;
    this.hint.style.left = `${Math.max(2, right)}px`;
    this.hint.style.top = `${Math.max(2, below)}px`;
  }

  rowHint(event, time) {
    const number = this.rowAt(event);
    const n = number < 0 ? -1 : intervalAt(this.sms[number], time);
    return n < 0 ? null : describe(this.header, this.sms[number], number, n);
  }

  ringHint(time) {
    const sms = this.isMean ? this.sms : [this.sms[this.chosen]];
    let ready = 0, loading = 0;
    for (const { ring } of sms) {
      const n = after(ring.times, time) - 1;
      if (n >= 0) (ready += ring.ready[n]), (loading += ring.loading[n]);
    }
    const mean = (sum) => (this.isMean ? (sum / sms.length).toFixed(1) : String(sum));
    const title = this.isMean ? "all SMs, mean" : `SM ${this.chosen}`;
    return { title, lines: [`${mean(ready)} stages ready, ${mean(loading)} loading`, `at ${timeText(time)}`] };
  }
}

// [r, g, b] of a CSS colour.
function rgb(colour) {
  const g = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  g.fillStyle = colour;
  g.fillRect(0, 0, 1, 1);
  return [...g.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function css([r, g, b]) {
  return `rgb(${r} ${g} ${b})`;
}

async function start() {
  const header = JSON.parse(document.getElementById("header").textContent);
  try {
    const bytes = await unpack(document.getElementById("columns").textContent);
    window.page = new Page(header, smsOf(header, bytes));
  } catch (error) {
    document.getElementById("facts").textContent = `This trace cannot be drawn: ${error.message}`;
    throw error;
  }
}

if (typeof document !== "undefined") start();
else module.exports = { unpack, smsOf, intervalAt, describe, addRing, loopText, viewOf };
