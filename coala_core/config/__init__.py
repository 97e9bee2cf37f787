"""One frozen, ranged and described configuration per stage.

The same models serve the command line, YAML files, the Prefect form and the MLflow
parameters, so a default or a range exists in one place only.
"""

from coala_core.config.base import BUILTIN_CONVERSATIONS as BUILTIN_CONVERSATIONS
from coala_core.config.base import BUILTIN_MODEL as BUILTIN_MODEL
from coala_core.config.base import StageConfig as StageConfig
from coala_core.config.data import GenerateConfig as GenerateConfig
from coala_core.config.data import QualityConfig as QualityConfig
from coala_core.config.data import SplitConfig as SplitConfig
from coala_core.config.data import TripletsConfig as TripletsConfig
from coala_core.config.pipeline import DataConfig as DataConfig
from coala_core.config.pipeline import GenerationConfig as GenerationConfig
from coala_core.config.pipeline import PipelineConfig as PipelineConfig
from coala_core.config.pipeline import RecordedConfig as RecordedConfig
from coala_core.config.pipeline import SweepConfig as SweepConfig
from coala_core.config.pipeline import TrackingConfig as TrackingConfig
from coala_core.config.pipeline import load_config as load_config
from coala_core.config.pipeline import parse_config as parse_config
from coala_core.config.training import EmbedConfig as EmbedConfig
from coala_core.config.training import EvaluateConfig as EvaluateConfig
from coala_core.config.training import FinetuneConfig as FinetuneConfig
from coala_core.config.training import Pooling as Pooling
from coala_core.config.training import SolveConfig as SolveConfig
from coala_core.config.training import StoredPooling as StoredPooling
