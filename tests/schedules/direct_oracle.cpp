// Decides schedules of some hundred events by brute force: element by element, position by position, and one execution
// after the other that holds an event back. The definitions are those of docs/semantics.md; nothing here is shared with
// the verifier. The input is the flat list of integers that direct_oracle.py packs.

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

namespace {

using std::vector;

enum Kind { RUN, WAIT, SIGNAL };
enum Buffer { SCRATCH, TAGGED, OUTPUT, STATE, CONSTANT };
enum Verdict { SAFE, TASKS, STREAM, DEADLOCK, WRITTEN_TWICE, OUTPUT_HOLE, UNWRITTEN, RACE, UNDECIDED };

struct Side { int start, start_pos, size, size_pos, limit; vector<int> factors; };
struct Region { int buffer; bool streamed; vector<Side> sides; };
struct Family { vector<int> extents; bool streams; vector<Region> reads, writes; int tasks; };
struct BufferType { int kind; vector<int> shape; int base; };
struct Event { int kind, ref, arg, sm, place; };

const size_t STATES = 20000;  // that are visited to find out whether an access may not see a write

class Schedule {
public:
    explicit Schedule(const int* data) : at(data) {}

    void read() {
        tokens = next(); max_pos = next(); has_ring = next();
        buffers.resize(next());
        int elements = 0;
        for (auto& b : buffers) {
            b.kind = next(); b.shape = list(); b.base = elements;
            int size = 1;
            for (int extent : b.shape) size *= extent;
            if (b.kind != CONSTANT) elements += size;
        }
        kind_of.assign(elements, 0);
        for (auto& b : buffers) {
            if (b.kind == CONSTANT) continue;
            int size = 1;
            for (int extent : b.shape) size *= extent;
            std::fill_n(kind_of.begin() + b.base, size, b.kind);
        }
        families.resize(next());
        for (auto& f : families) {
            f.extents = list(); f.streams = next();
            f.tasks = 1;
            for (int extent : f.extents) f.tasks *= extent;
            f.reads = regions(f.extents.size()); f.writes = regions(f.extents.size());
        }
        counters = next();
        sms = next();
        totals.assign(counters, 0);
        bounds = {0};
        for (int sm = 0; sm < sms; sm++) {
            int n = next();
            for (int i = 0; i < n; i++) {
                Event e{next(), next(), next(), sm, i};
                if (e.kind == SIGNAL) totals[e.ref]++;
                events.push_back(e);
            }
            bounds.push_back(events.size());
        }
        for (auto& e : events) if (e.kind == WAIT && e.arg == 0) e.arg = totals[e.ref];  // a wait for all
        fetches.resize(sms);
        for (auto& stream : fetches) stream = list();
    }

    // The verdict; with it the position and the events that it is about.
    int decide(int* where) {
        out = where;
        out[0] = out[1] = out[2] = -1;
        if (!tasks_run_once()) return TASKS;
        if (!streams_match()) return STREAM;
        history_avoided.assign(max_pos + 1, vector<char>(kind_of.size(), 0));
        for (int p = 0; p <= max_pos; p++) {
            out[0] = p;
            access(p);
            int verdict = at_position(p);
            if (verdict != SAFE) return verdict;
        }
        return SAFE;
    }

    // A random execution at position 0: the events in the order in which they complete; how many did.
    int execute(unsigned seed, int* order) {
        access(0);
        std::mt19937 random(seed);
        vector<int> pcs(sms, 0), values(counters, 0);
        for (int done = 0;; done++) {
            vector<int> able;
            for (int sm = 0; sm < sms; sm++) {
                int e = bounds[sm] + pcs[sm];
                if (e < bounds[sm + 1] && enabled(pcs, values, e, true)) able.push_back(sm);
            }
            if (able.empty()) return done;
            int sm = able[random() % able.size()];
            order[done] = bounds[sm] + pcs[sm]++;
            if (events[order[done]].kind == SIGNAL) values[events[order[done]].ref]++;
        }
    }

private:
    const int* at;
    int* out = nullptr;
    int tokens, max_pos, has_ring, counters, sms;
    vector<BufferType> buffers;
    vector<Family> families;
    vector<Event> events;
    vector<int> bounds, totals, kind_of;
    vector<vector<int>> fetches;
    vector<vector<int>> reads, writes;      // of each event: elements at this position, repeated as often as accessed
    vector<vector<int>> streamed;           // of each event: those of its reads that come from the ring, ordered
    vector<vector<int>> writers, readers;   // of each element: events
    vector<vector<int>> awaited;            // of each event: the writers of the tagged words that it reads
    vector<char> hopeless;                  // of each event: it reads a tagged word that nobody writes
    vector<vector<int>> without, without_untagged;  // of each event: how far the SMs come if it never completes
    vector<signed char> sees_memo;
    // of each position and state element: there is a sequence of earlier steps that leaves it unwritten
    vector<vector<char>> history_avoided;

    int next() { return *at++; }
    vector<int> list() {
        int n = next();
        vector<int> result(at, at + n);
        at += n;
        return result;
    }
    vector<Region> regions(size_t rank) {
        vector<Region> result(next());
        for (auto& r : result) {
            r.buffer = next(); r.streamed = next();
            r.sides.resize(next());
            for (auto& s : r.sides) {
                s.start = next(); s.start_pos = next(); s.size = next(); s.size_pos = next(); s.limit = next();
                s.factors.assign(at, at + rank);
                at += rank;
            }
        }
        return result;
    }

    bool tasks_run_once() {
        for (size_t f = 0; f < families.size(); f++) {
            vector<int> runs(families[f].tasks, 0);
            for (auto& e : events) if (e.kind == RUN && e.ref == int(f)) runs[e.arg]++;
            for (int n : runs) if (n != 1) return false;
        }
        return true;
    }

    bool streams_match() {
        for (int sm = 0; sm < sms; sm++) {
            vector<int> consumed;
            for (int e = bounds[sm]; e < bounds[sm + 1]; e++)
                if (events[e].kind == RUN && families[events[e].ref].streams) {
                    consumed.push_back(events[e].ref);
                    consumed.push_back(events[e].arg);
                }
            if (consumed != fetches[sm] || (!consumed.empty() && !has_ring)) return false;
        }
        return true;
    }

    void collect(const Region& region, const vector<int>& index, int p, vector<int>& elements) {
        const BufferType& buffer = buffers[region.buffer];
        if (buffer.kind == CONSTANT) return;
        vector<int> found{0};
        for (size_t d = 0; d < region.sides.size(); d++) {
            const Side& side = region.sides[d];
            int low = side.start + side.start_pos * p;
            for (size_t i = 0; i < index.size(); i++) low += side.factors[i] * index[i];
            int high = low + side.size + side.size_pos * p;
            if (side.limit >= 0) high = std::min(high, side.limit);
            vector<int> finer;
            for (int f : found) for (int x = low; x < high; x++) finer.push_back(f * buffer.shape[d] + x);
            found.swap(finer);
        }
        for (int f : found) elements.push_back(buffer.base + f);
    }

    void access(int p) {
        size_t n = events.size();
        reads.assign(n, {}); writes.assign(n, {}); streamed.assign(n, {});
        writers.assign(kind_of.size(), {}); readers.assign(kind_of.size(), {});
        awaited.assign(n, {}); hopeless.assign(n, 0);
        without.assign(n, {}); without_untagged.assign(n, {});
        sees_memo.assign(n * n, -1);
        for (size_t e = 0; e < n; e++) {
            if (events[e].kind != RUN) continue;
            const Family& family = families[events[e].ref];
            vector<int> index(family.extents.size());
            int rest = events[e].arg;
            for (size_t i = index.size(); i-- > 0;) { index[i] = rest % family.extents[i]; rest /= family.extents[i]; }
            for (auto& r : family.reads) {
                collect(r, index, p, reads[e]);
                if (r.streamed) collect(r, index, p, streamed[e]);
            }
            std::sort(streamed[e].begin(), streamed[e].end());
            for (auto& w : family.writes) collect(w, index, p, writes[e]);
            for (int x : writes[e]) writers[x].push_back(e);
            std::sort(reads[e].begin(), reads[e].end());
            reads[e].erase(std::unique(reads[e].begin(), reads[e].end()), reads[e].end());
            for (int x : reads[e]) readers[x].push_back(e);
        }
        for (size_t e = 0; e < n; e++) {
            for (int x : reads[e]) {
                if (kind_of[x] != TAGGED) continue;
                if (writers[x].empty()) hopeless[e] = 1;
                awaited[e].insert(awaited[e].end(), writers[x].begin(), writers[x].end());
            }
            std::sort(awaited[e].begin(), awaited[e].end());
            awaited[e].erase(std::unique(awaited[e].begin(), awaited[e].end()), awaited[e].end());
        }
    }

    bool completed(const vector<int>& pcs, int e) const { return events[e].place < pcs[events[e].sm]; }

    bool enabled(const vector<int>& pcs, const vector<int>& values, int e, bool tags) const {
        const Event& event = events[e];
        if (event.kind == WAIT) return values[event.ref] >= event.arg;
        if (event.kind == RUN && tags) {
            if (hopeless[e]) return false;
            for (int w : awaited[e]) if (!completed(pcs, w)) return false;
        }
        return true;
    }

    // How many events of each SM complete if `never` does not (-1: all may), with or without regard to tags.
    vector<int> run(int never, bool tags) const {
        vector<int> pcs(sms, 0), values(counters, 0);
        for (bool moved = true; moved;) {
            moved = false;
            for (int sm = 0; sm < sms; sm++) {
                for (;;) {
                    int e = bounds[sm] + pcs[sm];
                    if (e == bounds[sm + 1] || e == never || !enabled(pcs, values, e, tags)) break;
                    if (events[e].kind == SIGNAL) values[events[e].ref]++;
                    pcs[sm]++;
                    moved = true;
                }
            }
        }
        return pcs;
    }

    // In every execution, a completes before b.
    bool before(int a, int b) {
        if (without[a].empty()) without[a] = run(a, true);
        return !completed(without[a], b);
    }

    // Whether b sees a: 1 yes, 0 no, 2 unknown.
    int sees(int a, int b) {
        signed char& memo = sees_memo[a * events.size() + b];
        if (memo >= 0) return memo;
        if (without_untagged[a].empty()) without_untagged[a] = run(a, false);
        if (!completed(without_untagged[a], b)) return memo = 1;
        if (!before(a, b)) return memo = 0;
        return memo = find_unseen(a, b);
    }

    // How far an execution is, and who knows of event a by then. heard: of each SM, how many signals of each counter it
    // has observed or sent itself. sent: of each counter, what each signal tells: (knows, heard...).
    struct State {
        vector<int> pcs, knows;
        vector<vector<int>> heard;
        vector<vector<vector<int>>> sent;

        vector<int> key() const {
            vector<int> result(pcs);
            result.insert(result.end(), knows.begin(), knows.end());
            for (auto& h : heard) result.insert(result.end(), h.begin(), h.end());
            for (auto& signals : sent) {
                result.push_back(signals.size());
                for (auto& signal : signals) result.insert(result.end(), signal.begin(), signal.end());
            }
            return result;
        }
    };

    // Whether in some execution b completes on an SM that has not seen a: 0 yes, 1 no, 2 unknown, too many states.
    //
    // A wait observes as few signals as it may: who knows less may do whatever who knows more may do. What an event does
    // then depends on the order of the signals alone: a wait observes the first ones, which are there already when it is
    // enabled, and a task tells nobody but its own SM. So all but signals happen at once, and only orders of signals are
    // tried, and only of counters on which somebody waits for fewer than all.
    int find_unseen(int a, int b) const {
        vector<char> partial(counters, 0);
        for (auto& e : events) if (e.kind == WAIT && e.arg < totals[e.ref]) partial[e.ref] = 1;
        vector<State> todo{{vector<int>(sms, 0), vector<int>(sms, 0), vector<vector<int>>(sms, vector<int>(counters, 0)),
                            vector<vector<vector<int>>>(counters)}};
        std::set<vector<int>> known;
        while (!todo.empty()) {
            State state = todo.back();
            todo.pop_back();
            if (advance(state, a, b, partial)) return 0;
            if (!known.insert(state.key()).second) continue;
            if (known.size() > STATES) return 2;
            for (int sm = 0; sm < sms; sm++) {
                int e = bounds[sm] + state.pcs[sm];
                if (e == bounds[sm + 1] || events[e].kind != SIGNAL) continue;
                todo.push_back(state);
                send(todo.back(), e);
            }
        }
        return 1;
    }

    void send(State& state, int e) const {
        int sm = events[e].sm, c = events[e].ref;
        state.heard[sm][c] = state.sent[c].size() + 1;
        vector<int> told{state.knows[sm]};
        told.insert(told.end(), state.heard[sm].begin(), state.heard[sm].end());
        state.sent[c].push_back(told);
        state.pcs[sm]++;
    }

    // Executes all that may happen at once; whether b is among it, unseen.
    bool advance(State& state, int a, int b, const vector<char>& partial) const {
        vector<int> values(counters);
        for (bool moved = true; moved;) {
            moved = false;
            for (int sm = 0; sm < sms; sm++) {
                for (int e; (e = bounds[sm] + state.pcs[sm]) < bounds[sm + 1]; moved = true) {
                    if (events[e].kind == SIGNAL) {
                        if (partial[events[e].ref]) break;
                        send(state, e);
                        continue;
                    }
                    for (int c = 0; c < counters; c++) values[c] = state.sent[c].size();
                    if (!enabled(state.pcs, values, e, true)) break;
                    if (e == b && !state.knows[sm]) return true;
                    if (e == a) state.knows[sm] = 1;
                    if (events[e].kind == WAIT) {
                        int c = events[e].ref, k = std::max(events[e].arg, state.heard[sm][c]);
                        for (int i = 0; i < k; i++) {
                            auto& told = state.sent[c][i];
                            state.knows[sm] |= told[0];
                            for (int d = 0; d < counters; d++) state.heard[sm][d] = std::max(state.heard[sm][d], told[d + 1]);
                        }
                        state.heard[sm][c] = std::max(state.heard[sm][c], k);
                    }
                    state.pcs[sm]++;
                }
            }
        }
        return false;
    }

    int said(int verdict, int a, int b) { out[1] = a; out[2] = b; return verdict; }

    int at_position(int p) {
        // a sequence of steps that comes to p without writing an element: to an earlier position, and then not there
        for (size_t x = 0; x < kind_of.size(); x++) {
            if (kind_of[x] != STATE) continue;
            history_avoided[p][x] |= p == 0;
            if (writers[x].empty() && history_avoided[p][x])
                for (int q = p + 1; q <= std::min(p + tokens, max_pos); q++) history_avoided[q][x] = 1;
        }
        bool undecided = false;
        int verdict = SAFE;
        for (size_t x = 0; x < kind_of.size() && verdict == SAFE; x++) {
            if (kind_of[x] == STATE) continue;
            if (writers[x].size() > 1) verdict = said(WRITTEN_TWICE, writers[x][0], writers[x][1]);
            else if (kind_of[x] == OUTPUT && writers[x].empty()) verdict = said(OUTPUT_HOLE, -1, -1);
        }
        if (verdict != SAFE) return verdict;
        vector<int> end = run(-1, true);
        for (int sm = 0; sm < sms; sm++)
            if (end[sm] < bounds[sm + 1] - bounds[sm]) return said(DEADLOCK, bounds[sm] + end[sm], -1);
        for (size_t x = 0; x < kind_of.size(); x++) {
            if (kind_of[x] == TAGGED) continue;  // whoever reads a word has waited for it
            for (size_t i = 0; i < writers[x].size(); i++)
                for (size_t j = i + 1; j < writers[x].size(); j++) {
                    int a = writers[x][i], b = writers[x][j];
                    if (a == b) return said(RACE, a, b);
                    int either = std::max(sees(a, b) == 1, sees(b, a) == 1);
                    if (!either && (sees(a, b) == 2 || sees(b, a) == 2)) { undecided = true; continue; }
                    if (!either) return said(RACE, a, b);
                }
            for (int r : readers[x]) {
                bool covered = kind_of[x] == STATE && !history_avoided[p][x], open = false;
                // a tile enters the ring at any time before its task ends: no write of this step is sure to be in it
                bool early = std::binary_search(streamed[r].begin(), streamed[r].end(), x);
                for (int w : writers[x]) {
                    if (w == r) continue;
                    if (early) {
                        if (!before(r, w)) return said(RACE, w, r);
                        continue;
                    }
                    int seen = sees(w, r);
                    if (seen == 1) { covered = true; continue; }
                    if (seen == 2) { open = true; continue; }
                    if (!before(r, w)) return said(RACE, w, r);
                }
                if (open) undecided = true;
                else if (!covered) return said(UNWRITTEN, -1, r);
            }
        }
        return undecided ? UNDECIDED : SAFE;
    }
};

}  // namespace

extern "C" int decide(const int* data, int* where) {
    Schedule schedule(data);
    schedule.read();
    return schedule.decide(where);
}

extern "C" int execute(const int* data, unsigned seed, int* order) {
    Schedule schedule(data);
    schedule.read();
    return schedule.execute(seed, order);
}
