"""The schedule verifier: proves a `queue.kernel` free of deadlocks and races, or says what is wrong. docs/semantics.md."""

from .check import VerifiedKernel, check, check_schedule, format_diagnostics, verify
from .diagnostics import Diagnostic, Rule

__all__ = [
    "Diagnostic",
    "Rule",
    "VerifiedKernel",
    "check",
    "check_schedule",
    "format_diagnostics",
    "verify",
]
