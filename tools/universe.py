"""The entry point by which xDSL's tools find AMK."""

from xdsl.universe import Universe

from .registry import get_all_dialects, get_all_passes, get_all_targets

AMK_UNIVERSE = Universe(all_dialects=get_all_dialects(), all_passes=get_all_passes(), all_targets=get_all_targets())
