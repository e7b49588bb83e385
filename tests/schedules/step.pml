/*
 * One step of a schedule, at one position: the SMs, their queues, and who knows of whom. Follows docs/semantics.md.
 *
 * The schedule is data (the hidden arrays, read from standard input), so that one compiled model checks any number
 * of schedules. Sets of tasks and of regions are bit masks. A search reports
 *
 * - a deadlock, as an invalid end state;
 * - a broken rule about one execution, as an assertion with the name of the rule;
 * - which tasks each task always sees, which always complete before it, and of which the ring has always loaded the
 *   tiles by then, when the search is over: what every execution has in common is no property of a single one.
 *
 * SMS, EVENTS, TASKS, COUNTERS and SIGNALS are the sizes of the arrays.
 *
 * With LEAST, a wait observes as few signals as it may, and the search is much smaller. It finds the same: let two
 * executions have the same order of events, and one of them observe the least everywhere. Event by event, each view
 * in it is part of the same view in the other (a smaller view allows a smaller k, and the first k signals carry
 * less), and the rules ask only what may not have been seen.
 */

#define RUN 0
#define WAIT 1
#define SIGNAL 2

/* The queues: event e of SM s is at s * EVENTS + e. */
hidden byte sms;
hidden byte length[SMS];
hidden byte kind[SMS * EVENTS];
hidden byte subject[SMS * EVENTS];      /* of a run its task, otherwise its counter */
hidden byte least[SMS * EVENTS];        /* of a wait: how many signals it waits for */
hidden byte slot[COUNTERS];             /* where the signals of a counter are kept in `sent` */
hidden byte fewest[COUNTERS];           /* that any wait waits for; 0: none waits */

/* The streams: tile n of SM s is at s * EVENTS + n, and belongs to a task. */
hidden byte tiles[SMS];
hidden byte tile[SMS * EVENTS];

/* The tasks. */
hidden int all_tasks;
hidden byte streams[TASKS];
hidden int words[TASKS];                /* tagged regions that it reads: it waits for them */
hidden int loads[TASKS];                /* other regions that it reads, but for its tiles */
hidden int tiled[TASKS];                /* regions of state that the ring reads for it */
hidden int stores[TASKS];               /* regions that it writes */
hidden int repeats[TASKS];              /* regions that it writes more than once */
hidden byte matters[TASKS];             /* the rules ask whether others have seen it */

/* The regions. */
hidden int state;                       /* of state buffers; the others are written once in a step */
hidden int outputs;
hidden int kept;                        /* certainly written by earlier steps */

/* What an SM knows: tasks, and how many signals of each counter. A signal carries it. */
typedef View {
	int tasks;
	byte heard[COUNTERS];
}

c_decl {
	static int seen[TASKS];         /* by task: the tasks that it has seen in all executions so far */
	static int preceding[TASKS];    /* by task: the tasks that had completed before it in all executions so far */
	static int loaded[TASKS];       /* by task: those whose tiles were in the ring by then in all executions so far */
	static int table(void) { int value = 0; if (scanf("%d", &value) != 1) { puts("table ends"); exit(3); } return value; }
	static void report(void);
}

c_code {
	static void report(void)
	{	int t;
		for (t = 0; all_tasks >> t; t++)
			printf("task %d seen %d preceding %d loaded %d\n", t, seen[t], preceding[t], loaded[t]);
	}
}

inline read_tables() {
	c_code {
		int n, s;
		sms = table();
		for (s = 0; s < sms; s++) {
			length[s] = table();
			for (n = s * EVENTS; n < s * EVENTS + length[s]; n++) {
				kind[n] = table(); subject[n] = table(); least[n] = table();
			}
			tiles[s] = table();
			for (n = s * EVENTS; n < s * EVENTS + tiles[s]; n++) tile[n] = table();
		}
		s = table();
		for (n = 0; n < s; n++) { slot[n] = table(); fewest[n] = table(); }
		s = table();
		for (n = 0; n < s; n++) {
			all_tasks |= 1 << n;
			streams[n] = table(); words[n] = table(); loads[n] = table(); tiled[n] = table();
			stores[n] = table(); repeats[n] = table(); matters[n] = table();
		}
		state = table(); outputs = table(); kept = table();
		for (n = 0; n < TASKS; n++) seen[n] = preceding[n] = loaded[n] = ~0;
		atexit(report);
	}
}

View view[SMS];
/*
 * For each counter, after each of its signals: what it and those before it carried. Fewer signals than `fewest` are
 * never observed, so the first ones share a place.
 */
View sent[SIGNALS];
byte value[COUNTERS];
int done;                               /* the tasks that have completed */
int written;                            /* regions, in this step */
int in_ring;                            /* the tasks whose tiles of state the ring has loaded */

/* Set before use in one indivisible step, so no part of the state. */
hidden byte task, counter, place, one;
hidden int found;

/* The rules, as the assertions name them. */
hidden byte runs_once, every_task_runs, writes_once, outputs_are_written, reads_what_is_written;
hidden byte tile_is_its_own, tiles_are_used;

#define event (s * EVENTS + next)
#define place_of(signal) (slot[counter] + (signal > fewest[counter] -> signal - fewest[counter] : 0))
#define is_next(k) (next < length[s] && kind[event] == k)

inline learn(who, what) {
	who.tasks = who.tasks | what.tasks;
	for (one : 0 .. COUNTERS - 1) {
		if
		:: what.heard[one] > who.heard[one] -> who.heard[one] = what.heard[one]
		:: else
		fi
	}
}

proctype sm(byte s) {
	byte next = 0;                  /* event */
	byte taken = 0;                 /* tiles */
	byte k = 0;

	do
	:: d_step {
		is_next(RUN) && (words[subject[event]] & ~written) == 0 &&
		(!tiled[subject[event]] || in_ring & (1 << subject[event])) ->
		task = subject[event];
		c_code {
			seen[task] &= now.view[Psm->s].tasks;
			preceding[task] &= now.done;
			loaded[task] &= now.in_ring;
		}
		runs_once = !(done & (1 << task));
		assert(runs_once);

		if
		:: streams[task] ->
			tile_is_its_own = (taken < tiles[s] && tile[s * EVENTS + taken] == task);
			assert(tile_is_its_own);
			taken++
		:: else
		fi;

		/* the task reads ... */
		found = kept;
		for (one : 0 .. TASKS - 1) {
			if
			:: view[s].tasks & (1 << one) -> found = found | stores[one]
			:: else
			fi
		}
		reads_what_is_written = !(loads[task] & ~found);
		assert(reads_what_is_written);

		/* ... and then writes */
		writes_once = !((stores[task] & written | repeats[task]) & ~state);
		assert(writes_once);
		written = written | stores[task];
		done = done | (1 << task);
		if
		:: matters[task] -> view[s].tasks = view[s].tasks | (1 << task)
		:: else
		fi;
		next++
	   }
	:: d_step {
		is_next(SIGNAL) ->
		counter = subject[event];
		if
		:: fewest[counter] ->
			value[counter]++;
			view[s].heard[counter] = value[counter];
			place = place_of(value[counter]);
			learn(sent[place], view[s]);
			if
			:: place > slot[counter] -> learn(sent[place], sent[place - 1])
			:: else
			fi
		:: else                 /* nobody will know */
		fi;
		next++
	   }
	:: atomic {
		is_next(WAIT) && value[subject[event]] >= least[event] ->
		/* it observes the first k signals: no fewer than it waits for, or than the SM has heard of */
		k = (least[event] > view[s].heard[subject[event]] -> least[event] : view[s].heard[subject[event]]);
#ifndef LEAST
		do
		:: k < value[subject[event]] -> k++
		:: break
		od;
#endif
		d_step {
			counter = subject[event];
			if
			:: k > view[s].heard[counter] -> view[s].heard[counter] = k
			:: else
			fi;
			if
			:: k > 0 -> place = place_of(k); learn(view[s], sent[place])
			:: else
			fi;
			k = 0;
			next++
		}
	   }
	:: atomic {
		next == length[s] ->
		tiles_are_used = (taken == tiles[s]);
		assert(tiles_are_used);
		d_step {                /* it will tell nobody: what it knows makes no difference any more */
			view[s].tasks = 0;
			for (one : 0 .. COUNTERS - 1) {
				view[s].heard[one] = 0
			}
		}
		break
	   }
	od
}

/* The ring loads the tiles of state of a task, whenever there is room: at any time before the task. */
proctype ring(byte t) {
	d_step {
		reads_what_is_written = !(tiled[t] & ~(kept | written));
		assert(reads_what_is_written);
		in_ring = in_ring | (1 << t)
	}
}

init {
	atomic {
		read_tables();
		byte n;
		for (n : 0 .. TASKS - 1) {
			if
			:: tiled[n] -> run ring(n)
			:: else
			fi
		}
		for (n : 0 .. sms - 1) {
			run sm(n)
		}
		n = 0
	}
	_nr_pr == 1;
	d_step {
		every_task_runs = (done == all_tasks);
		assert(every_task_runs);
		outputs_are_written = !(outputs & ~written);
		assert(outputs_are_written)
	}
}
