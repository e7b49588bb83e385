"""What `insert-missing-sync` finds missing in a schedule, and the counters, signals and waits that make up for it.

`conflicts` finds the pairs of accesses that nothing orders, `order` gives them a direction in which no deadlock can
arise, `event_plan` (explicit form) and `phase_plan` (compact form) choose counters, `edit` puts them into the kernel.
"""
