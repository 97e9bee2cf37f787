"""Data sets from one layout and format to another, with nothing lost and nothing dropped silently."""

from coala_core.convert.columns import PACKED as PACKED
from coala_core.convert.conversion import FLAT_TARGETS as FLAT_TARGETS
from coala_core.convert.conversion import REJECTS_SUFFIX as REJECTS_SUFFIX
from coala_core.convert.conversion import ConvertReport as ConvertReport
from coala_core.convert.conversion import convert as convert
from coala_core.convert.layouts import DIALOGUE_TARGETS as DIALOGUE_TARGETS
from coala_core.convert.layouts import PAIR_TARGETS as PAIR_TARGETS
from coala_core.convert.layouts import TARGETS as TARGETS
from coala_core.convert.layouts import TargetLayout as TargetLayout
from coala_core.convert.target import TARGET_SUFFIXES as TARGET_SUFFIXES
