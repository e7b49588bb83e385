"""The NumPy backend: executes every level.

`numerics` is the one meaning of each op. The interpreters run a `graph.model`, a `task.program` or a `queue.kernel`
with it; `backend` is what the runtime uses.
"""
