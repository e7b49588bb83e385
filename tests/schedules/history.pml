/*
 * The steps before a step: which regions of state buffers has every sequence of earlier steps written? Follows
 * "Earlier steps" of docs/semantics.md. The first step is at position 0, each next one at most `tokens` positions
 * further, or anywhere before.
 *
 * Positions and stores are data, read from standard input. When the search is over, it reports for each position which
 * regions were written before it, whatever steps there were. POSITIONS is the size of the array.
 */

hidden byte tokens;
hidden byte last;                       /* position */
hidden int stores[POSITIONS];           /* by position: the regions that a step there writes */

c_decl {
	static int kept[POSITIONS];     /* by position: the regions that were written before every step there so far */
	static int table(void) { int value = 0; if (scanf("%d", &value) != 1) { puts("table ends"); exit(3); } return value; }
	static void report(void);
}

c_code {
	static void report(void)
	{	int p;
		for (p = 0; p <= last; p++) printf("position %d kept %d\n", p, kept[p]);
	}
}

byte position;
int written;

init {
	c_code {
		int p;
		tokens = table();
		last = table() - 1;
		for (p = 0; p <= last; p++) {
			stores[p] = table();
			kept[p] = ~0;
		}
		atexit(report);
	}
	do
	:: d_step {
		c_code { kept[now.position] &= now.written; }
		written = written | stores[position]
	   }
	   atomic {
		position = (position + tokens < last -> position + tokens : last);
		do
		:: position > 0 -> position--
		:: break
		od
	   }
	od
}
