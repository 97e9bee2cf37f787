"""Configurations of the stages that make and check data: generate, triplets, split, quality."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from coala_core.config.base import BUILTIN_CONVERSATIONS, BUILTIN_MODEL, CREDENTIALS, Seed, StageConfig

LayoutName = Literal[
    "auto",
    "hh",
    "preference",
    "bridge",
    "llmbar",
    "edufeedback",
    "messages",
    "sharegpt",
    "history",
    "unpaired",
    "helpsteer",
    "imdb",
]
"""Layouts of `coala_core.sources.layouts`."""

ColumnField = Literal[
    "conversation_id", "pair_id", "id", "uid", "prompt_id", "prompt", "chosen", "rejected", "c_id", "lesson_topic",
    "c_h", "c_r", "c_r_", "input", "output_1", "output_2", "label", "utterances", "messages", "conversations",
    "history", "completion", "response", "text",
]  # fmt: skip
"""Fields that layouts know; columns can be given these names."""


class TripletsConfig(StageConfig):
    """Stage ``triplets``: read conversations, build (prompt, chosen, rejected)."""

    conversations: str = BUILTIN_CONVERSATIONS
    """What to read: a file, folder, pattern or fsspec URL of conversations or pairs (.jsonl, .json, .csv, .parquet,
    archives, .gz and .zst), a data set "hub:OWNER/NAME", or "builtin" for the shipped conversations."""
    history: Literal["full", "turn"] = "full"
    """Prompt: every turn up to the student's turn ("full"), or that turn alone ("turn")."""
    pairs: Literal["adjacent", "all_later", "window"] = "adjacent"
    """What a chosen reply is set against: the next reply, as in the paper, every later one, or the next `window`."""
    window: int = Field(default=2, ge=1, le=64)
    """Later replies that a chosen one is set against where `pairs` is "window"."""
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Similarity of a pair's two replies from which the pair is written to the rejects; empty keeps all."""
    layout: LayoutName = "auto"
    """Layout of all rows, or "auto" to recognise each row by its fields."""
    columns: dict[ColumnField, str] = {}
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

    @field_validator("conversations")
    @classmethod
    def _the_address_holds_no_secret(cls, conversations: str) -> str:
        # Here and not when the file is opened: a flow's parameters are stored before the flow runs.
        if CREDENTIALS.search(conversations):
            raise ValueError(
                "`triplets.conversations` must not hold credentials, since settings are recorded; leave them to the "
                "environment of the protocol's client, or fetch the file first"
            )
        return conversations


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
    """Limit on responses of the sample that are near-duplicates of another conversation's."""
    max_length_bias: float = Field(default=0.25, ge=0, le=0.5)
    """Limit on how far from one half the accuracy of "the longer response is chosen" may lie; ties count half."""
    max_leak_share: float = Field(default=0.05, ge=0, le=1)
    """Limit on the test split's prompts, and on its responses, that also occur in training."""
    max_marker_share: float = Field(default=0.0, ge=0, le=1)
    """Limit on pairs with a language model's control tokens or active HTML in a text."""
    seed: Seed = 0
    """Seed of the sample, of the pairs that are shown, and of the permutations that find near-duplicates."""


class GenerateConfig(StageConfig):
    """Stage ``generate``: conversations between two language-model agents, student and tutor."""

    model: str = Field(default=BUILTIN_MODEL, min_length=1)
    """Language model: "builtin" (or "built-in"), a folder or hub name, or with `base_url` the endpoint's own name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; ignored for folders and endpoints."""
    base_url: str | None = None
    """OpenAI-compatible endpoint, such as http://localhost:8000/v1; empty runs the model here with transformers."""
    api_key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the endpoint's key; the key itself is never a setting."""
    conversations: int = Field(default=32, ge=1)
    """Conversations to write."""
    min_exchanges: int = Field(default=2, ge=2, le=64)
    """Fewest exchanges of a conversation, each a student turn and a reply; 2 to 4 are the paper's 4 to 8 turns."""
    max_exchanges: int = Field(default=4, ge=2, le=64)
    """Most exchanges of a conversation; r exchanges give r - 1 adjacent pairs."""
    topics: str = Field(default="builtin", min_length=1)
    """YAML file of topics by field of study, moods and phrases, or "builtin" for the shipped one."""
    min_temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    """Lowest sampling temperature that a conversation may draw."""
    max_temperature: Annotated[float, Field(ge=0, le=2)] = 0.9
    """Highest sampling temperature that a conversation may draw."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Share of the probability that sampling keeps, the likeliest tokens first."""
    repetition_penalty: float = Field(default=1.05, ge=1, le=2)
    """Factor by which a local model's tokens become less likely once they have occurred; endpoints use their own."""
    student_tokens: int = Field(default=40, ge=8, le=8192)
    """Tokens of a student's turn at most."""
    tutor_tokens: int = Field(default=120, ge=8, le=8192)
    """Tokens of a tutor's turn at most; what is cut off is trimmed to the last whole sentence."""
    attempts: int = Field(default=8, ge=1, le=64)
    """Times that a turn is asked for, each with another seed and 0.1 warmer up to `max_temperature`, before its
    conversation is rejected."""
    seed: Seed = 0
    """Seed of topics, moods, temperatures, lengths and sampling."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Conversations that a local model continues at the same time."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of a local model, "auto" bfloat16 where the processor is fast at it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a local model runs."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests that an endpoint gets at the same time."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Seconds that one request may take."""
    max_retries: int = Field(default=5, ge=0, le=20)
    """Times that one request is repeated after a rate limit, a server error or a timeout, waiting longer each time."""
    max_tokens_total: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of the whole set at most; what is finished by then is kept."""
    price_per_million_input: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, in any currency."""
    price_per_million_output: float | None = Field(default=None, ge=0)
    """Price of a million completion tokens, in the same currency."""
    max_cost: float | None = Field(default=None, gt=0)
    """Cost of the whole set at most, by the two prices; what is finished by then is kept."""

    @field_validator("model")
    @classmethod
    def _both_spellings_are_the_same_model(cls, model: str) -> str:
        return BUILTIN_MODEL if model == "built-in" else model

    @field_validator("base_url")
    @classmethod
    def _the_address_holds_no_secret(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(
                "`generate.base_url` must begin with http:// or https:// and a host, as an endpoint's does"
            )
        if "@" in address.netloc or address.query or address.fragment:
            raise ValueError(
                "`generate.base_url` must hold no credentials, query or fragment, since settings are recorded; "
                "give the key in the environment variable that `generate.api_key_variable` names"
            )
        return base_url.rstrip("/")

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for what, low, high in (
            ("exchanges", self.min_exchanges, self.max_exchanges),
            ("temperature", self.min_temperature, self.max_temperature),
        ):
            if low > high:
                raise ValueError(
                    f"`generate.min_{what}` must not exceed `generate.max_{what}`, got {low} and {high}; swap them"
                )
        if self.base_url and self.model == BUILTIN_MODEL:
            raise ValueError("`generate.base_url` needs `generate.model`, the name that the endpoint knows; got none")
        if self.max_cost and self.price_per_million_input is None and self.price_per_million_output is None:
            raise ValueError(
                f"`generate.max_cost` needs prices to count by, got {self.max_cost} and none; give "
                "`generate.price_per_million_input` and `generate.price_per_million_output`"
            )
        return self
