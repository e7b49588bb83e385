// Exhaustive enumeration of small kernels, many at a time: the definitions of docs/semantics.md, as in enumeration.py.
//
// Two searches over reachable states. The plain one has how far each SM is, and of each task that streams state whether its
// tile is loaded; it decides deadlocks and what happens before what. A load is an event of its own, that waits for nothing
// and that its task waits for. The other search has, for one write, which SM and which signal knows of it, and how many signals of each counter
// everybody has heard of; it decides who sees the write. Nothing is assumed of either, no run is greedy and every number
// of signals that a wait may observe is tried. States are only merged where they cannot differ in what follows: tasks that
// touch no tagged word can neither block nor be blocked, and of the first signals of a counter only their union can be
// observed if no wait is for fewer.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using Mask = uint64_t;  // of elements (over all buffers) or of events (over all SMs)

enum BufferKind { SCRATCH, TAGGED, STATE, OUTPUT };
enum EventKind { RUN, WAIT, SIGNAL };
enum Status { DECIDED, OVER_LIMIT, UNSUPPORTED };
enum Problem { SAFE, STREAM, DEADLOCK, WRITTEN_TWICE, UNWRITTEN_OUTPUT, WRITE_RACE, RACE, COVERAGE };

constexpr int MAX_EVENTS = 64, MAX_SMS = 8, MAX_COUNTERS = 12, COUNT_BITS = 5, MAX_SIGNALS = 31;

struct Dim { int start, per_index, per_position, size, growth; };
struct Box { int buffer; bool streamed; std::vector<Dim> dims; };
struct Family {
    bool streams;
    std::vector<Box> reads, writes;
    bool streams_state() const {
        return std::any_of(reads.begin(), reads.end(), [](const Box& box) { return box.streamed; });
    }
};
struct Event { EventKind kind; int ref, arg; };  // arg: index of a run, threshold of a wait (-1: all signals)
struct Buffer { BufferKind kind; std::vector<int> shape; int first; };
struct OverLimit {};  // too many states, or the kernel has more than fits the oracle's words
struct Unsupported {};

struct Reader {
    const int32_t* at;
    int next() { return *at++; }
};

struct Kernel {
    int tokens, max_seq, counters;
    std::vector<Buffer> buffers;
    std::vector<Family> families;
    std::vector<std::vector<Event>> queues;
    std::vector<std::vector<std::array<int, 2>>> fetches;
    std::vector<int> first;  // number of each SM's first event
    std::array<int, MAX_COUNTERS> total{};

    explicit Kernel(Reader in) {
        tokens = in.next(), max_seq = in.next();
        int elements = 0;
        for (int n = in.next(); n > 0; --n) {
            Buffer buffer{BufferKind(in.next()), {}, elements};
            int size = 1;
            for (int rank = in.next(); rank > 0; --rank) buffer.shape.push_back(in.next()), size *= buffer.shape.back();
            elements += size;
            buffers.push_back(buffer);
        }
        for (int n = in.next(); n > 0; --n) {
            Family family{in.next() != 0, {}, {}};
            for (auto* boxes : {&family.reads, &family.writes})
                for (int m = in.next(); m > 0; --m) {
                    Box box{in.next(), false, {}};
                    box.streamed = in.next() != 0;
                    for (size_t d = 0; d < buffers[box.buffer].shape.size(); ++d) {
                        Dim dim{};
                        for (int* field : {&dim.start, &dim.per_index, &dim.per_position, &dim.size, &dim.growth})
                            *field = in.next();
                        box.dims.push_back(dim);
                    }
                    boxes->push_back(box);
                }
            families.push_back(family);
        }
        counters = in.next();
        int events = 0;
        for (int n = in.next(); n > 0; --n) {
            std::vector<Event> queue;
            for (int m = in.next(); m > 0; --m) {
                Event event{EventKind(in.next()), in.next(), in.next()};
                queue.push_back(event);
            }
            first.push_back(events);
            events += int(queue.size());
            queues.push_back(queue);
        }
        for (size_t s = 0; s < queues.size(); ++s) {
            fetches.emplace_back();
            for (int m = in.next(); m > 0; --m) {
                int family = in.next();
                fetches.back().push_back({family, in.next()});
            }
        }
        if (elements > 64 || events > MAX_EVENTS || queues.size() > MAX_SMS || counters > MAX_COUNTERS) throw OverLimit{};
        for (auto& queue : queues)
            for (auto& event : queue)
                if (event.kind == SIGNAL && ++total[event.ref] > MAX_SIGNALS) throw OverLimit{};
        for (auto& queue : queues)
            for (auto& event : queue)
                if (event.kind == WAIT && event.arg < 0) event.arg = total[event.ref];
    }

    Mask elements(const Box& box, int index, int position) const {
        const Buffer& buffer = buffers[box.buffer];
        std::vector<int> found{0};
        for (size_t d = 0; d < box.dims.size(); ++d) {
            const Dim& dim = box.dims[d];
            int low = dim.start + dim.per_index * index + dim.per_position * position;
            int high = low + dim.size + dim.growth * position;
            if (low < 0 || high > buffer.shape[d]) throw Unsupported{};
            std::vector<int> more;
            for (int e : found)
                for (int x = low; x < high; ++x) more.push_back(e * buffer.shape[d] + x);
            found = more;
        }
        Mask mask = 0;
        for (int e : found) mask |= Mask(1) << (buffer.first + e);
        return mask;
    }

    Mask of_kind(BufferKind kind) const {
        Mask mask = 0;
        for (auto& b : buffers) {
            int size = 1;
            for (int extent : b.shape) size *= extent;
            if (b.kind == kind)
                for (int e = 0; e < size; ++e) mask |= Mask(1) << (b.first + e);
        }
        return mask;
    }
};

// What the tasks access at one position; of events that are no tasks, nothing.
struct Accesses {
    std::array<Mask, MAX_EVENTS> reads{}, writes{};
    std::array<Mask, MAX_EVENTS> tiles{};  // of state, read when the ring loads them; no part of `reads`
    std::array<Mask, MAX_EVENTS> twice{};  // written by two stores of the task
};

// Which elements of tagged buffers each task polls and writes: what executions depend on.
struct Tags {
    std::array<Mask, MAX_EVENTS> polls{}, tells{};
    bool operator==(const Tags& other) const { return polls == other.polls && tells == other.tells; }
};

// A set of states of `width` words, in the order in which they were added.
class States {
  public:
    void clear(int width) {
        width_ = width;
        words_.clear();
        if (table_.size() > 4096) table_.assign(1024, 0);
        else std::fill(table_.begin(), table_.end(), 0);
        size_ = 0;
    }
    size_t size() const { return size_; }
    const uint64_t* operator[](size_t i) const { return &words_[i * width_]; }
    void add(const uint64_t* state) {
        if (size_ * 2 >= table_.size()) grow();
        size_t at = slot(state);
        while (table_[at]) {
            if (!std::memcmp((*this)[table_[at] - 1], state, width_ * 8)) return;
            at = (at + 1) & (table_.size() - 1);
        }
        words_.insert(words_.end(), state, state + width_);
        table_[at] = uint32_t(++size_);
    }

  private:
    size_t slot(const uint64_t* state) const {
        uint64_t hash = 0;
        for (int i = 0; i < width_; ++i) hash = (hash ^ state[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
        return hash & (table_.size() - 1);
    }
    void grow() {
        table_.assign(table_.size() * 2, 0);
        for (size_t i = 0; i < size_; ++i) {
            size_t at = slot((*this)[i]);
            while (table_[at]) at = (at + 1) & (table_.size() - 1);
            table_[at] = uint32_t(i + 1);
        }
    }
    int width_ = 0;
    size_t size_ = 0;
    std::vector<uint64_t> words_;
    std::vector<uint32_t> table_ = std::vector<uint32_t>(1024, 0);
};

class Oracle {
  public:
    Oracle(const Kernel& kernel, States& states, int64_t limit) : k(kernel), states_(states), limit_(limit) {
        sms = int(k.queues.size());
        for (int s = 0; s < sms; ++s)
            for (auto& event : k.queues[s]) {
                if (event.kind == RUN && k.families[event.ref].streams_state()) loaders.push_back(int(events.size()));
                events.push_back(event), sm.push_back(s);
            }
        low.fill(0);
        for (auto& event : events)
            if (event.kind == WAIT) {
                int& least = low[event.ref];
                least = least ? std::min(least, std::max(event.arg, 1)) : std::max(event.arg, 1);
            }
    }

    bool deadlock = false, tags_rewritten = false;
    int position = 0;
    int64_t visited = 0;

    Problem decide() {
        const int last = k.max_seq - k.tokens;
        for (int p = 0; p <= last; ++p) accesses_.push_back(at_position(p)), tags_.push_back(tags(accesses_.back()));
        for (int p = 0; p <= last; ++p) {
            explore(p);
            deadlock |= stuck_;
            Mask once = 0;
            for (size_t e = 0; e < events.size(); ++e) {
                tags_rewritten |= (tags_[p].tells[e] & (once | accesses_[p].twice[e])) != 0;
                once |= tags_[p].tells[e];
            }
        }
        if (wrong_stream()) return STREAM;
        if (deadlock) return DEADLOCK;
        for (position = 0; position <= last; ++position) {
            explore(position);
            if (Problem problem = at(position)) return problem;
        }
        position = 0;
        return SAFE;
    }

  private:
    const Kernel& k;
    States& states_;
    int64_t limit_;
    int sms;
    std::vector<Event> events;
    std::vector<int> sm;
    std::vector<int> loaders;               // the tasks that stream state
    std::array<int, MAX_COUNTERS> low;  // the least number of signals that a wait observes, 0 without waits
    std::vector<Accesses> accesses_;
    std::vector<Tags> tags_;
    int explored_ = -1;                       // the position to which what follows belongs
    bool stuck_ = false;
    std::array<Mask, MAX_EVENTS> pending_{};  // events that may not have completed when this one does
    std::array<Mask, MAX_EVENTS> unloaded_{};  // tasks whose tiles may not have been loaded when this event completes
    Mask decided_ = 0;                        // writes whose `unseen_` is known
    std::array<Mask, MAX_EVENTS> unseen_{};   // events that may execute without having seen this one

    static Mask bit(int i) { return Mask(1) << i; }
    int first(int s) const { return k.first[s]; }
    int last(int s) const { return k.first[s] + int(k.queues[s].size()); }

    Accesses at_position(int p) const {
        Accesses found;
        for (size_t e = 0; e < events.size(); ++e) {
            if (events[e].kind != RUN) continue;
            const Family& family = k.families[events[e].ref];
            for (auto& box : family.reads)
                (box.streamed ? found.tiles : found.reads)[e] |= k.elements(box, events[e].arg, p);
            for (auto& box : family.writes) {
                Mask mask = k.elements(box, events[e].arg, p);
                found.twice[e] |= found.writes[e] & mask;
                found.writes[e] |= mask;
            }
        }
        return found;
    }

    Tags tags(const Accesses& accesses) const {
        Tags found;
        const Mask tagged = k.of_kind(TAGGED);
        for (size_t e = 0; e < events.size(); ++e)
            found.polls[e] = accesses.reads[e] & tagged, found.tells[e] = accesses.writes[e] & tagged;
        return found;
    }

    bool wrong_stream() const {
        for (int s = 0; s < sms; ++s) {
            std::vector<std::array<int, 2>> consumed;
            for (auto& e : k.queues[s])
                if (e.kind == RUN && k.families[e.ref].streams) consumed.push_back({e.ref, e.arg});
            if (consumed != k.fetches[s]) return true;
        }
        return false;
    }

    // Of each SM, what its first n events have signalled and written of tagged buffers.
    struct Done {
        std::array<int8_t, MAX_COUNTERS> signals{};
        Mask told = 0;
    };
    std::vector<std::vector<Done>> progress(const Tags& tags) const {
        std::vector<std::vector<Done>> done(sms, std::vector<Done>(1));
        for (int s = 0; s < sms; ++s)
            for (int e = first(s); e < last(s); ++e) {
                Done next = done[s].back();
                if (events[e].kind == SIGNAL) ++next.signals[events[e].ref];
                next.told |= tags.tells[e];
                done[s].push_back(next);
            }
        return done;
    }

    // All reachable states of a step at `p`: sets `stuck_`, `pending_` and `unloaded_`.
    void explore(int p) {
        const Tags& tags = tags_[p];
        if (explored_ >= 0 && tags == tags_[explored_]) return;
        explored_ = p, stuck_ = false, decided_ = 0;
        pending_.fill(0), unloaded_.fill(0);
        const auto done = progress(tags);
        int64_t size = 1;
        std::array<int64_t, MAX_SMS> stride{};
        for (int s = 0; s < sms; ++s) stride[s] = size, size *= int64_t(k.queues[s].size()) + 1;
        const int64_t first_load = size;
        for (size_t i = 0; i < loaders.size() && size <= 64 * limit_; ++i) size *= 2;
        if (size > 64 * limit_) throw OverLimit{};
        std::vector<bool> found(size);
        std::vector<int64_t> todo{0};
        found[0] = true;
        while (!todo.empty()) {
            int64_t state = todo.back();
            todo.pop_back();
            if (++visited > limit_) throw OverLimit{};
            int at[MAX_SMS], signals[MAX_COUNTERS] = {};
            Mask left = 0, told = 0, unloaded = 0;
            bool ended = true, moves = false;
            for (size_t i = 0; i < loaders.size(); ++i) {
                const int64_t load = first_load << i;
                if (state / load % 2) continue;
                unloaded |= bit(loaders[i]), moves = true;
                if (!found[state + load]) found[state + load] = true, todo.push_back(state + load);
            }
            for (int s = 0; s < sms; ++s) {
                const int place = int(state / stride[s] % (int64_t(k.queues[s].size()) + 1));
                at[s] = first(s) + place;
                for (int e = at[s]; e < last(s); ++e) left |= bit(e);
                for (int c = 0; c < k.counters; ++c) signals[c] += done[s][place].signals[c];
                told |= done[s][place].told;
                ended &= at[s] == last(s);
            }
            for (int s = 0; s < sms; ++s) {
                const int e = at[s];
                if (e == last(s)) continue;
                if (events[e].kind == WAIT && signals[events[e].ref] < events[e].arg) continue;
                if (events[e].kind == RUN && ((tags.polls[e] & ~told) || (unloaded & bit(e)))) continue;
                moves = true;
                pending_[at[s]] |= left, unloaded_[at[s]] |= unloaded;
                if (!found[state + stride[s]]) found[state + stride[s]] = true, todo.push_back(state + stride[s]);
            }
            stuck_ |= !moves && !ended;
        }
    }

    // What an SM or a signal knows, in a word: of the write in question, and how many signals of each counter.
    static constexpr uint64_t KNOWS = uint64_t(1) << 63;
    static int heard(uint64_t word, int c) { return int(word >> (COUNT_BITS * c)) & ((1 << COUNT_BITS) - 1); }
    static uint64_t with_heard(uint64_t word, int c, int n) {
        const uint64_t field = (uint64_t(1) << COUNT_BITS) - 1;
        return (word & ~(field << (COUNT_BITS * c))) | uint64_t(n) << (COUNT_BITS * c);
    }
    uint64_t merge(uint64_t a, uint64_t b) const {
        uint64_t both = (a | b) & KNOWS;
        for (int c = 0; c < k.counters; ++c) both = with_heard(both, c, std::max(heard(a, c), heard(b, c)));
        return both;
    }

    // Sets `unseen_[a]`, as far as `readers` go.
    void explore_knowledge(int a, Mask readers, const Tags& tags) {
        // Of each SM, the events that others or the search can notice; before each of them, tasks that nobody notices.
        std::vector<int> queue[MAX_SMS];
        std::vector<Mask> between[MAX_SMS];  // readers among the tasks before each event of the queue
        std::vector<Mask> rest[MAX_SMS];     // readers from there on
        for (int s = 0; s < sms; ++s) {
            between[s].push_back(0);
            for (int e = first(s); e < last(s); ++e) {
                if (events[e].kind == RUN && !tags.polls[e] && !tags.tells[e] && e != a) {
                    between[s].back() |= readers & bit(e);
                } else {
                    queue[s].push_back(e);
                    between[s].push_back(0);
                }
            }
            rest[s] = between[s];
            for (int i = int(queue[s].size()) - 1; i >= 0; --i) rest[s][i] |= rest[s][i + 1] | (readers & bit(queue[s][i]));
        }
        // words of a state: [0] places in the queues, [1 + s] what SM s knows, then what the first `low`, `low` + 1, ...
        // signals of each counter tell together
        int width = 1 + sms, told[MAX_COUNTERS];
        for (int c = 0; c < k.counters; ++c) {
            told[c] = width;
            if (low[c]) width += std::max(0, k.total[c] - low[c]) + 1;
        }
        states_.clear(width);
        Mask unseen = 0;
        std::vector<uint64_t> now(width), next(width);
        states_.add(now.data());
        for (size_t i = 0; i < states_.size() && unseen != readers; ++i) {
            if (++visited > limit_) throw OverLimit{};
            std::copy(states_[i], states_[i] + width, now.begin());
            int place[MAX_SMS], at[MAX_SMS], count[MAX_COUNTERS] = {};
            bool hopeless = true;
            Mask written = 0;
            for (int s = 0; s < sms; ++s) {
                place[s] = int(now[0] >> (8 * s)) & 255;
                const bool knows = now[1 + s] & KNOWS;
                if (!knows) {
                    unseen |= between[s][place[s]];
                    hopeless &= !(rest[s][place[s]] & ~unseen);
                }
                at[s] = place[s] < int(queue[s].size()) ? queue[s][place[s]] : -1;
                for (int j = 0; j < place[s]; ++j) {
                    written |= tags.tells[queue[s][j]];
                    const Event& event = events[queue[s][j]];
                    if (event.kind == SIGNAL) ++count[event.ref];
                }
            }
            if (hopeless) continue;
            for (int s = 0; s < sms; ++s) {
                const int e = at[s];
                if (e < 0) continue;
                const Event& event = events[e];
                const int c = event.ref;
                const uint64_t mine = now[1 + s];
                next = now;
                next[0] += uint64_t(1) << (8 * s);
                if (event.kind == RUN) {
                    if (tags.polls[e] & ~written) continue;
                    if (!(mine & KNOWS)) unseen |= readers & bit(e);
                    if (e == a) next[1 + s] |= KNOWS;
                    states_.add(next.data());
                } else if (event.kind == SIGNAL) {
                    if (low[c]) {
                        const int number = count[c] + 1;
                        next[1 + s] = with_heard(mine, c, number);
                        const uint64_t before = number > 1 ? now[told[c] + std::max(number - 1 - low[c], 0)] : 0;
                        next[told[c] + std::max(number - low[c], 0)] = merge(before, next[1 + s]);
                    }
                    states_.add(next.data());
                } else {
                    for (int n = std::max(event.arg, heard(mine, c)); n <= count[c]; ++n) {
                        next[1 + s] = n ? merge(mine, with_heard(now[told[c] + std::max(n - low[c], 0)], c, n)) : mine;
                        states_.add(next.data());
                    }
                }
            }
        }
        unseen_[a] = unseen & readers;
        decided_ |= bit(a);
    }

    // b sees a in every execution.
    bool always_visible(int a, int b) {
        if (!(decided_ & bit(a))) {
            Mask readers = 0;  // at all positions with these tags
            for (size_t p = 0; p < accesses_.size(); ++p)
                if (tags_[p] == tags_[position])
                    for (size_t e = 0; e < events.size(); ++e)
                        if (int(e) != a && (accesses_[p].writes[a] & (accesses_[p].reads[e] | accesses_[p].writes[e])))
                            readers |= bit(int(e));
            explore_knowledge(a, readers, tags_[position]);
        }
        return !(unseen_[a] & bit(b));
    }

    // b completes before a in every execution.
    bool always_before(int b, int a) const { return !(pending_[a] & bit(b)); }

    // State elements that are written before a step at `p`, however the earlier steps advanced.
    Mask history(int p) const {
        const Mask state = k.of_kind(STATE);
        std::vector<Mask> certain(p + 1, ~Mask(0));  // by all sequences of steps before one at q
        certain[0] = 0;
        for (int q = 1; q <= p; ++q)
            for (int back = 1; back <= k.tokens && back <= q; ++back) {
                Mask here = certain[q - back];
                for (auto writes : accesses_[q - back].writes) here |= writes & state;
                certain[q] &= here;
            }
        return certain[p];
    }

    Problem at(int p) {
        const Accesses& now = accesses_[p];
        const Mask state = k.of_kind(STATE), tagged = k.of_kind(TAGGED), output = k.of_kind(OUTPUT);
        const int n = int(events.size());
        Mask written = 0, twice = 0;
        for (int e = 0; e < n; ++e) twice |= (written & now.writes[e]) | now.twice[e], written |= now.writes[e];
        if (twice & ~state) return WRITTEN_TWICE;
        if (output & ~written) return UNWRITTEN_OUTPUT;
        for (int a = 0; a < n; ++a) {
            if (now.twice[a] & state) return WRITE_RACE;
            for (int b = a + 1; b < n; ++b)
                if ((now.writes[a] & now.writes[b] & state) && !always_visible(a, b) && !always_visible(b, a)) return WRITE_RACE;
        }
        for (int b = 0; b < n; ++b) {
            Mask covered = history(p) | (written & tagged);
            for (int a = 0; a < n; ++a) {
                const Mask shared = now.writes[a] & now.reads[b] & ~tagged;
                if (!shared) continue;
                if (a != b && always_visible(a, b)) covered |= shared;
                else if ((shared & ~state) || (a != b && !always_before(b, a))) return RACE;
            }
            if (now.reads[b] & ~covered) return COVERAGE;
            // the load may be the first event of all, so no write of this step is sure to come before it
            for (int a = 0; a < n; ++a)
                if ((now.writes[a] & now.tiles[b]) && (unloaded_[a] & bit(b))) return RACE;
            if (now.tiles[b] & ~history(p)) return COVERAGE;
        }
        return SAFE;
    }
};

}  // namespace

// Decides `count` kernels; `offsets[i]` is where kernel i starts in `data` (see enumeration.py, `pack`). Four numbers for
// each: status, problem, 1 for a deadlock and 2 if tagged words are written twice, the position of the problem. `visited`:
// states of each.
extern "C" void decide(const int32_t* data, const int64_t* offsets, int count, int64_t limit, int32_t* verdicts, int64_t* visited) {
    States states;
    for (int i = 0; i < count; ++i) {
        int32_t* verdict = verdicts + 4 * i;
        verdict[0] = DECIDED, verdict[1] = SAFE, verdict[2] = verdict[3] = 0, visited[i] = 0;
        try {
            Kernel kernel(Reader{data + offsets[i]});
            Oracle oracle(kernel, states, limit);
            try {
                verdict[1] = oracle.decide();
            } catch (OverLimit) {
                verdict[0] = OVER_LIMIT;
            }
            verdict[2] = oracle.deadlock + 2 * oracle.tags_rewritten, verdict[3] = oracle.position, visited[i] = oracle.visited;
        } catch (OverLimit) {
            verdict[0] = OVER_LIMIT;
        } catch (Unsupported) {
            verdict[0] = UNSUPPORTED;
        }
    }
}
