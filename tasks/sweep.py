"""What a sweep says about its runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from pydantic import BaseModel, ConfigDict

from tasks.summary import RunSummary


class SweepRow(BaseModel):
    """One combination of settings and how its head did."""

    model_config = ConfigDict(frozen=True)

    choice: dict[str, Any]
    """Values by setting."""
    validation_loss: float | None = None
    """Loss of the kept head on the validation split, by which rows are ranked."""
    validation_accuracy: float | None = None
    """Share of validation pairs that the kept head orders rightly."""
    test_accuracy: float | None = None
    """Held-out accuracy; of use for the best row alone, since many looks at a test split spoil it."""
    gap: float | None = None
    """Certified relative gap of Phase I."""
    folder: Path | None = None
    """Folder of the verdict."""
    failure: str | None = None
    """Why there is none."""


class SweepResult(BaseModel):
    """All rows of a sweep, in the order of the grid."""

    model_config = ConfigDict(frozen=True)

    rows: list[SweepRow]
    """One per combination."""

    def ranked(self) -> list[SweepRow]:
        """Rows by falling merit: lowest validation loss first, failures last."""
        return sorted(self.rows, key=lambda row: (row.validation_loss is None, row.validation_loss))

    def require_one(self) -> None:
        """Refuse a sweep of which nothing came.

        Raises
        ------
        RuntimeError
            If every run failed.
        """
        failures = [row.failure for row in self.rows if row.failure]
        if len(failures) == len(self.rows):
            raise RuntimeError(
                f"`coala_sweep` needs a run that succeeds, got {len(failures)} failures; mend the first: {failures[0]}"
            )


def finished_row(choice: Mapping[str, Any], summary: RunSummary) -> SweepRow:
    """Read a row off a finished run."""
    finetune, evaluate = summary.stages["finetune"].report, summary.stages["evaluate"]
    return SweepRow(
        choice=dict(choice),
        validation_loss=finetune["eval_loss"],
        validation_accuracy=finetune["eval_rewards/accuracies"],
        test_accuracy=evaluate.report["head"]["accuracy"],
        gap=summary.stages["solve"].report["gap"],
        folder=evaluate.path,
    )


def failed_row(choice: Mapping[str, Any], failure: BaseException) -> SweepRow:
    """State that a run failed, in one line."""
    return SweepRow(choice=dict(choice), failure=" ".join(f"{type(failure).__name__}: {failure}".split()))


def choice_text(choice: Mapping[str, Any]) -> str:
    """Name a combination, such as "solve.gates=20, finetune.beta=2.5"."""
    return ", ".join(f"{name}={value}" for name, value in choice.items())


def sweep_table(result: SweepResult) -> list[dict[str, str]]:
    """Rows by rank, as text."""
    table = []
    for rank, row in enumerate(result.ranked(), start=1):
        numbers = {
            "validation loss": _number(row.validation_loss, ".4f"),
            "validation accuracy": _number(row.validation_accuracy, ".3f"),
            "held-out accuracy": _number(row.test_accuracy, ".3f"),
            "certified gap": _number(None if row.gap is None else abs(row.gap), ".1e"),
        }
        verdict = row.failure or str(row.folder)
        table.append({"rank": str(rank), "settings": choice_text(row.choice), **numbers, "verdict": verdict})
    return table


def publish_sweep(result: SweepResult) -> None:
    """Put the table on the page of the Prefect run."""
    description = "Ranked by validation loss; a held-out accuracy is an honest estimate of the first row alone."
    create_table_artifact(sweep_table(result), key="sweep", description=description)


def _number(value: float | None, form: str) -> str:
    """Format a number, or nothing."""
    return "" if value is None else format(value, form)
