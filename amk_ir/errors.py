"""Typed errors of AMK.

Every error that a user can cause derives from `AmkError`: one line that names the file, tensor, op or flag, what was
expected, what was found, and what to do. The tools turn it into exit status 2; anything else is an internal error.
"""


class AmkError(Exception):
    """Base of all errors caused by input, environment or use rather than by a defect in AMK."""


class AmkWarning(UserWarning):
    """Something that a user may want to mend, but which keeps nothing from being done. The tools print it as one line."""


class UsageError(AmkError):
    """A wrong flag, argument or call of the public API."""


class CheckpointError(AmkError):
    """A missing, truncated or corrupt checkpoint file, or a tensor of the wrong name, shape or dtype."""


class ConfigError(AmkError):
    """A model configuration that is unknown, unsupported or contradicts itself or the checkpoint."""


class TokenizerError(AmkError):
    """A tokenizer that is missing, broken or of an unsupported kind."""


class TargetError(AmkError):
    """An unknown target, or a plan that does not fit it."""


class ScheduleError(AmkError):
    """A schedule that the verifier rejects, or that was never verified."""


class CompileError(AmkError):
    """A kernel that a backend cannot emit or its compiler does not accept."""


class DeviceError(AmkError):
    """No usable device or driver, out of device memory, or a failed launch."""


class StuckWaitError(DeviceError):
    """A bounded wait in device code ran out of time: the kernel stopped and says which wait it was."""


class ExecutionError(AmkError):
    """The reference backend met an execution that the semantics forbid: deadlock, poison read, out of bounds."""


class StorageError(AmkError):
    """A file or folder that cannot be written: full disk, no permission."""


class ArtifactError(AmkError):
    """A folder that is not a compiled model, or whose files are not those that were written."""


class TraceError(AmkError):
    """A trace that is incomplete, damaged, or of another version."""
