import pytest

from coala_core.config import EmbedConfig, PipelineConfig, SplitConfig, TripletsConfig
from coala_core.naming import run_name


def test_the_built_in_data_and_model_are_called_so():
    assert run_name(PipelineConfig()) == "built-in conversations, built-in model, seed 0"


@pytest.mark.parametrize("model", ["/home/someone/private/tiny", "hub/tiny", "tiny", "tiny/"])
def test_folders_are_left_out(model):
    config = PipelineConfig(
        triplets=TripletsConfig(conversations="/home/someone/lessons.jsonl"),
        embed=EmbedConfig(model=model),
        split=SplitConfig(seed=7),
    )
    assert run_name(config) == "lessons.jsonl, tiny, seed 7"
