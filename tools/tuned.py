"""Which pass options a model is lowered with: those given, else those that `amk tune` found, else the defaults."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..amk_ir.errors import CompileError, DeviceError
from ..amk_ir.targets import Target
from ..frontends.import_model import ImportedModel
from ..runtime.compile import plan
from ..runtime.tuned import TunedRecord, TunedStore, tuned_shape

if TYPE_CHECKING:
    from ..passes.verify_schedule import VerifiedKernel
    from ..runtime.pass_options import PassOptions

_LAYOUT = ("rows", "tasks", "widest", "bytes", "fuse_attention")
"""Options that decide how weights are packed, which two kernels have to agree on to share them."""


@dataclass(frozen=True)
class Choice:
    """Options and size of the grid (None: all SMs) for a model; record: where they come from, if they were tuned."""

    options: PassOptions
    sms: int | None = None
    record: TunedRecord | None = None

    def __str__(self) -> str:
        from ..runtime.pass_options import options_text

        text = options_text(self.options)
        if self.record is None:
            return text
        return f"{text}{f' sms={self.sms}' if self.sms else ''}, tuned on {self.record.gpu}"

    def plan(self, model: ImportedModel, target: Target) -> VerifiedKernel:
        """The verified kernel of `model`; errors as `runtime.compile.plan`."""
        return plan(model.module, target, self.sms, self.options)

    def plan_chunk(self, model: ImportedModel, target: Target, tokens: int) -> VerifiedKernel:
        """The verified kernel that takes `tokens` tokens of a prompt, beside that of `plan`; errors as there.

        It packs the weights in the same way. What was chosen for the ring and the attention of one token has no meaning
        for it: its activations leave less room for stages.
        """
        shared = {name: value for name, value in self.options.items() if name in _LAYOUT}
        return plan(model.with_tokens(tokens).module, target, self.sms, shared, outputs=False)

    def plan_far(self, model: ImportedModel, target: Target) -> VerifiedKernel:
        """The verified kernel for long contexts, in which more SMs share the work of attention; errors as `plan`."""
        return plan(model.module, target, self.sms, {**self.options, "parts": 0})

    @contextmanager
    def blamed(self) -> Generator[None]:
        """What cannot be compiled within the block says so if tuned options may be why."""
        try:
            yield
        except CompileError as e:
            if self.record is None:
                raise
            raise CompileError(f"{e}; the options are those of {self.record.path}: --no-tuned leaves them out") from e


def choose_options(
    model: ImportedModel,
    target: Target,
    *,
    sms: int | None = None,
    options: PassOptions | None = None,
    store: TunedStore | None = None,
) -> Choice:
    """Options for `model`: `options` with `sms` if either is given ({}: the defaults), else what was tuned.

    Without a GPU of the target, a record of another machine's GPU counts if there is just one.
    """
    if options is not None or sms is not None or not target.is_cuda:
        return Choice(options or {}, sms)
    record = _find(store or TunedStore(), model, target)
    return Choice({}) if record is None else Choice(record.options, record.sms, record)


def _find(store: TunedStore, model: ImportedModel, target: Target) -> TunedRecord | None:
    shape = tuned_shape(model)
    found = list(store.find_all(target.name, shape))
    if not found:
        return None  # and the driver, which takes a while to start, is not asked
    gpu = gpu_name(target)
    if gpu is not None:
        found = [record for record in found if record.gpu == gpu]
    found = [record for record in found if record.num_sms == target.num_sms]
    return found[0] if len(found) == 1 else None


def gpu_name(target: Target) -> str | None:
    """The driver's name of this machine's GPU if it is of `target`."""
    from ..backends.cuda.driver import device_info

    try:
        info = device_info()
        return info.name if info.target.name == target.name else None
    except DeviceError:
        return None
