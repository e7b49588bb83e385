"""The schedule verifier: proves a `queue.kernel` free of deadlocks and races, or says what is wrong. docs/semantics.md."""

from .check import VerifiedKernel, check, check_schedule, format_diagnostics, verify
from .diagnostics import Diagnostic
from .failures import Failure, FailureKind, Rule
from .overlap_index import OverlapIndex
from .witness import Witness

__all__ = [
    "Diagnostic",
    "Failure",
    "FailureKind",
    "OverlapIndex",
    "Rule",
    "VerifiedKernel",
    "Witness",
    "check",
    "check_schedule",
    "format_diagnostics",
    "verify",
]
