"""What MLflow runs to serve a head; kept as text in every model, so it needs no pickle.

``COALA_SERVED_MODEL`` names the language model's folder where it does not lie where it lay when the head was made;
``COALA_STORE`` a folder for the converted built-in model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from coala_core.scorer import PairScorer, Scores, text_pair

TEXTS = ("prompt", "chosen", "rejected")
FEATURES = ("chosen_features", "rejected_features")


class ServedHead(PythonModel):  # type: ignore[misc]  # mlflow is not typed for us
    """Scores pairs of texts, or of features; the language model is loaded when the first text comes."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the head."""
        store = Path(os.environ.get("COALA_STORE") or Path.home() / ".cache" / "coala")
        model = os.environ.get("COALA_SERVED_MODEL") or None
        self._scorer = PairScorer.read(Path(context.artifacts["head"]), store, model)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score both responses of each row, and say which one is preferred.

        Parameters
        ----------
        context : PythonModelContext
        model_input : DataFrame
            Columns ``prompt``, ``chosen`` and ``rejected``, each text or messages; or ``chosen_features`` and
            ``rejected_features``, each d numbers.
        params : dict, optional
            There are none.

        Returns
        -------
        DataFrame
            ``chosen_score``, ``rejected_score``, and ``preferred``: "chosen", "rejected", or "tie" at equal scores.

        Raises
        ------
        MlflowException
            If columns are missing, both kinds are there, or a row cannot be scored; the server answers 400 with its
            sentence alone.
        """
        try:
            chosen, rejected = self._scores(model_input.dropna(axis="columns", how="all"))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        preferred = np.select([chosen > rejected, chosen < rejected], ["chosen", "rejected"], "tie")
        return pd.DataFrame({"chosen_score": chosen, "rejected_score": rejected, "preferred": preferred})

    def _scores(self, rows: pd.DataFrame) -> Scores:
        columns = set(rows.columns)
        if columns == set(TEXTS):
            records: list[Any] = rows.to_dict("records")
            return self._scorer.score_texts([text_pair(row, f"row {i}") for i, row in enumerate(records)])
        if columns == set(FEATURES):
            chosen, rejected = (np.stack([np.asarray(cell, np.float64) for cell in rows[name]]) for name in FEATURES)
            return self._scorer.head.score(chosen), self._scorer.head.score(rejected)
        raise ValueError(
            f"`score` needs the columns {', '.join(TEXTS)}, or {' and '.join(FEATURES)}, in every row, got "
            f"{', '.join(sorted(map(str, columns))) or 'none'}; send one kind."
        )


set_model(ServedHead())
