"""`coala promote` and its flow, on a real run of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.promote import PromotionConfig, coala_promote


def test_every_setting_is_described_and_a_bad_name_is_refused() -> None:
    assert all((field.description or "").endswith(".") for field in PromotionConfig.model_fields.values())
    for name in ("../head", "a/b", ""):
        with pytest.raises(ValueError, match="name"):
            PromotionConfig(run="r", name=name)


@pytest.mark.slow
def test_a_flow_promotes_and_says_why(
    prefect_server: None, make_store: Callable[[str], Path], tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    from tests.tasks.recorded_pipeline import config_of, head_chain, record, write_pairs

    store = make_store("store")
    config = config_of(store, write_pairs(tmp_path / "pairs.jsonl"), tiny_models["llama"])
    run = record(config, head_chain(config))
    tried = coala_promote(PromotionConfig(run=run.evaluation, dry_run=True, store=str(store)))
    assert (tried.champion, tried.version) == (True, None)
    done = coala_promote(PromotionConfig(run=str(run.tracker.remote_id), store=str(store)))
    assert (done.champion, done.version) == (True, "1")
    assert "against guessing" in done.reason
