"""Configurations of the stages from features to verdict: embed, solve, finetune, evaluate."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from coala_core.config.base import BUILTIN_MODEL, CREDENTIALS, Seed, StageConfig

StoredPooling = Literal["mean", "last"]
Pooling = Literal["mean", "last", "mean+last"]


class EmbedConfig(StageConfig):
    """Stage ``embed``: features of the responses from a frozen language model."""

    model: str = Field(default=BUILTIN_MODEL, min_length=1)
    """Causal language model: a directory, a hub name, or "builtin" for the shipped SmolLM2-135M-Instruct."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; ignored for directories."""
    layers: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Hidden layers to store, 1 to the depth; empty means two thirds of the depth, rounded."""
    poolings: tuple[StoredPooling, ...] = Field(default=("mean",), min_length=1)
    """How the response's own token states become one vector; each way is stored."""
    max_tokens: int = Field(default=2048, ge=16)
    """Longest sequence, or the model's window where that is shorter; the oldest turns are cut first."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the language model, "auto" bfloat16 where the processor is fast at it; features are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the language model runs."""
    batch_tokens: int = Field(default=4096, ge=64)
    """Tokens in one forward pass at most, padding included."""
    shard_rows: int = Field(default=256, ge=1)
    """Pairs in one Parquet shard, which is the unit of resumption and of work."""
    share_prefixes: bool = True
    """Whether sequences that begin alike compute their common tokens once."""
    cache: str | None = Field(default=None, min_length=1)
    """Folder or fsspec URL of the feature cache; empty means `features` in the store."""
    executor: Literal["local", "ray"] = "local"
    """What runs the workers: processes of this machine, or Ray."""
    workers: int = Field(default=1, ge=1)
    """Processes that embed shards at the same time, each with its own language model."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """Cores that each worker takes; empty means all cores shared among the workers."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """Devices that each worker takes; shares such as 0.5 let workers share one."""
    ray_address: str | None = Field(default=None, min_length=1)
    """Ray cluster to join, "auto" for the running one; empty starts one on this machine."""

    @field_validator("cache")
    @classmethod
    def _the_address_holds_no_secret(cls, cache: str | None) -> str | None:
        if cache is not None and CREDENTIALS.search(cache):
            raise ValueError(
                "`embed.cache` must not hold credentials, since settings are recorded; "
                "give them in the environment, as the URL's filesystem reads them"
            )
        return cache

    @field_validator("layers", "poolings")
    @classmethod
    def _nothing_is_stored_twice(cls, values: tuple[int | str, ...], info: ValidationInfo) -> tuple[int | str, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"`embed.{info.field_name}` must not repeat itself, got {values}; name each once")
        return values


class SolveConfig(StageConfig):
    """Stage ``solve``, Phase I: the convex program of eq. (4), over a path of weights."""

    layer: int | None = Field(default=None, ge=1)
    """Stored hidden layer to fit on; empty means the first of `embed.layers`."""
    pooling: Pooling | None = None
    """Stored pooling to fit on, "mean+last" both side by side; empty means the first of `embed.poolings`."""
    rows: Literal["pointwise", "pairwise"] = "pointwise"
    """Fit labels +1 and -1 of single responses, or a score difference of 1 between chosen and rejected response."""
    activation: Literal["relu", "gated_relu"] = "relu"
    """ReLU neurons, or neurons behind the sampled gates, which the head then keeps: no cones, every point certified."""
    gates: int = Field(default=50, ge=1, le=4096)
    """Number P of activation patterns; the network has at most 2 P neurons, P if gated."""
    probe_gates: int = Field(default=10, ge=0)
    """How many of the gates come from a linear probe's direction, its negative and perturbations of both."""
    path: tuple[float, ...] = (0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.0625, 0.044, 0.031, 0.022)
    """Group-lasso weights to solve for, as shares of the smallest weight that gives the zero head."""
    lasso_weight: float | None = Field(default=None, gt=0)
    """One absolute group-lasso weight instead of the path (beta of eq. 4)."""
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Stop a solve when its certified relative gap falls below this."""
    max_cone_violation: float = Field(default=1e-3, gt=0)
    """Largest cone violation, relative to the largest pre-activation, that a converged solve may have."""
    max_sweeps: int = Field(default=1000, ge=1)
    """ADMM sweeps per weight at most."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Seconds for the whole path at most; empty means no limit. Results then depend on the machine's speed."""
    check_every: int = Field(default=25, ge=1)
    """Sweeps between two computations of the certificate at most; it is also computed where the penalty may change, and
    earlier where the tolerance should be reached."""
    relaxation: float = Field(default=1.6, ge=1, lt=2)
    """Over-relaxation factor of ADMM; 1 means none."""
    penalty: float | None = Field(default=None, gt=0)
    """ADMM's penalty per unit of lasso weight, kept fixed; empty means that it adapts."""
    linear: Literal["auto", "primal", "dual", "pcg"] = "auto"
    """Linear back end of a sweep: a dense system in features times gates ("primal") or in rows ("dual"), one step of
    a preconditioner ("pcg"), or the cheapest of those that fit into memory and do."""
    storage: Literal["auto", "memory", "disk"] = "auto"
    """Where what has a row for every response is kept: in memory, or in files of which blocks are read; "auto" takes
    memory where it fits."""
    max_memory_gib: float | None = Field(default=None, gt=0)
    """Memory that the data and, beside it, the linear back end may take; empty means half of what is available at
    the start, so that near this limit "auto" may choose differently on another day."""
    backend: Literal["auto", "numpy", "cupy"] = "auto"
    """Array library of the solve; "auto" takes CuPy where it finds a device."""
    seed: Seed = 0
    """Seed of the random gates."""

    @field_validator("path")
    @classmethod
    def _path_is_a_falling_sequence_of_shares(cls, path: tuple[float, ...]) -> tuple[float, ...]:
        falling = all(a > b for a, b in zip(path, path[1:], strict=False))
        if not path or not falling or not all(0 < share < 1 for share in path):
            raise ValueError(f"`solve.path` must fall strictly and stay inside (0, 1), got {path}")
        return path

    @model_validator(mode="after")
    def _probe_gates_are_some_of_the_gates(self) -> Self:
        if self.probe_gates > self.gates:
            raise ValueError(
                f"`solve.probe_gates` must not exceed `solve.gates`, got {self.probe_gates} and {self.gates}"
            )
        return self


class FinetuneConfig(StageConfig):
    """Stage ``finetune``, Phase II: the last layer by AdamW on the COALA loss."""

    loss: Literal["pairwise", "pointwise"] = "pairwise"
    """Equation (8) on pairs, or equation (9) on single responses."""
    beta: float = Field(default=1.0, gt=0)
    """Reward scale, beta of eq. (7) and (8)."""
    gamma: float = Field(default=0.5, ge=0)
    """Margin asked for, gamma of eq. (6) and (8)."""
    ridge: float = Field(default=1e-3, ge=0)
    """Weight of the squared norm of theta_2 in the objective, which keeps the optimum finite on separable pairs."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled decay; not part of the objective whose optimum is reported."""
    epochs: int = Field(default=400, ge=1)
    """Passes over the training pairs."""
    batch_size: int = Field(default=128, ge=1)
    """Pairs (pairwise) or responses (pointwise) in one step."""
    keep: Literal["best", "last"] = "best"
    """Which epoch to keep: lowest validation loss (the start counts as epoch 0), or the last."""
    seed: Seed = 0
    """Seed of the batch order."""


class EvaluateConfig(StageConfig):
    """Stage ``evaluate``: accuracy, margins and baselines on the test split."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of whole groups."""
    seed: Seed = 0
    """Seed of the bootstrap."""
