"""Configurations of the stages that make and check data: generate, triplets, split, quality."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coala_core.config.base import BUILTIN_CONVERSATIONS, BUILTIN_MODEL, Seed, StageConfig


class TripletsConfig(StageConfig):
    """Stage ``triplets``: read conversations, build (prompt, chosen, rejected)."""

    conversations: str = BUILTIN_CONVERSATIONS
    """File of conversations or ready triplets (.jsonl, .json, .parquet, also .gz), or "builtin" for the shipped set."""
    history: Literal["full", "turn"] = "full"
    """Prompt: every turn up to the student's turn ("full"), or that turn alone ("turn")."""
    pairs: Literal["adjacent", "all_later", "window"] = "adjacent"
    """What a chosen reply is set against: the next reply, as in the paper, every later one, or the next `window`."""
    window: int = Field(default=2, ge=1, le=64)
    """Later replies that a chosen one is set against where `pairs` is "window"."""
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Similarity of a pair's two replies from which the pair is written to the rejects; empty keeps all."""
    layout: str = "auto"
    """Layout of the rows, or "auto" to recognise each row by its fields."""
    columns: dict[str, str] = {}
    """Names that the fields of a layout have in the file, as {field: name}; needed for most CSV files."""
    score: str = Field(default="helpfulness", min_length=1)
    """Attribute by which rated responses to one prompt become pairs; equal ones give none."""
    group_by: str = Field(default="conversation_id", min_length=1)
    """Field whose value keeps rows together in the split; any field of the input, the conversation by default."""
    identical_pairs: Literal["keep", "reject"] = "keep"
    """Pairs of twice the same reply: kept, so that r replies give r - 1 pairs, or written to the rejects."""
    max_turn_characters: int = Field(default=32_768, ge=1)
    """A row holding a longer turn is rejected."""
    max_turns: int = Field(default=512, ge=2)
    """A row holding more turns is rejected."""


class SplitConfig(StageConfig):
    """Stage ``split``: train, validation and test by hash of the group."""

    train: float = Field(default=0.7, gt=0, lt=1)
    """Share of groups used to fit Phase I and Phase II."""
    validation: float = Field(default=0.15, gt=0, lt=1)
    """Share of groups used to choose the weight and the epoch; the rest is the test split."""
    seed: Seed = 0
    """Seed of the hash."""

    @model_validator(mode="after")
    def _leave_room_for_test(self) -> Self:
        if self.train + self.validation >= 1:
            raise ValueError(
                f"`split.train + split.validation` must be below 1 so that a test split remains, "
                f"got {self.train} + {self.validation}; lower one of them"
            )
        return self


class QualityConfig(StageConfig):
    """Stage ``quality``: what the pairs are like, and whether they are worth training on."""

    sample: int = Field(default=20_000, ge=10)
    """Pairs that near-duplicates and languages are counted on, drawn at random where there are more."""
    similarity: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of two responses' word shingles from which they are near-duplicates."""
    max_rejected_share: float = Field(default=0.05, ge=0, le=1)
    """Limit on rows rejected."""
    max_identical_share: float = Field(default=0.05, ge=0, le=1)
    """Limit on pairs of twice the same response."""
    max_near_duplicate_share: float = Field(default=0.2, ge=0, le=1)
    """Limit on responses that are near-duplicates of another conversation's."""
    max_length_bias: float = Field(default=0.25, ge=0, le=0.5)
    """Limit on how far from one half the share of pairs may lie in which the chosen response is the longer one."""
    max_leak_share: float = Field(default=0.05, ge=0, le=1)
    """Limit on test texts that also occur in training."""
    max_marker_share: float = Field(default=0.0, ge=0, le=1)
    """Limit on pairs with a language model's control tokens or active HTML in a text."""
    seed: Seed = 0
    """Seed of the sample."""


class GenerateConfig(StageConfig):
    """Stage ``generate``: conversations between two language-model agents, student and tutor."""

    model: str = Field(default=BUILTIN_MODEL, min_length=1)
    """Language model: "builtin", a directory or hub name, or with `base_url` the name that the endpoint knows."""
    base_url: str | None = None
    """OpenAI-compatible endpoint; empty runs the model here with transformers."""
    api_key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the endpoint's key; the key itself is never a setting."""
    conversations: int = Field(default=32, ge=1)
    """Conversations to write."""
    min_turns: int = Field(default=4, ge=2, le=64)
    """Fewest exchanges of a conversation."""
    max_turns: int = Field(default=8, ge=2, le=64)
    """Most exchanges of a conversation."""
    topics: str = "builtin"
    """YAML file of topics by field of study, or "builtin" for the shipped one."""
    min_temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    """Lowest sampling temperature that a conversation may draw."""
    max_temperature: Annotated[float, Field(ge=0, le=2)] = 0.9
    """Highest sampling temperature that a conversation may draw."""
    seed: Seed = 0
    """Seed of topics, moods, temperatures and local sampling."""
