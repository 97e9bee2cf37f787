"""A transformers language model on this machine that continues many chats in one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coala_core.config import GenerateConfig
from coala_core.embed.model_settings import choose_device, choose_dtype
from coala_core.embed.model_source import quiet_transformers
from coala_core.generate.backends import Completion, Request, Ticket
from coala_core.generate.prompts import Message

if TYPE_CHECKING:
    import torch

TOP_K = 50
"""Tokens that sampling chooses from at most, the likeliest ones."""
_COLDEST = 1e-4
"""Temperature that stands for 0."""


class LocalModel:
    """A causal language model with its chat template, as a `Backend`.

    Waiting chats with equal `max_tokens` run as one batch, padded on the left; the larger batch goes first, so that
    a turn that is asked for again waits until the other chats are where it is. A token is drawn with one uniform
    number that depends on the request's seed and the token's place only, so what else is in the batch moves an answer
    by rounding only; equal batches give equal answers.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With a language-model head.
    tokenizer : transformers.PreTrainedTokenizerBase
        With a chat template.
    config : GenerateConfig
        Batch size, `top_p` and repetition penalty.
    """

    def __init__(self, model: Any, tokenizer: Any, config: GenerateConfig) -> None:
        self.capacity = config.batch_size
        self._model = model
        self._tokenizer = tokenizer
        self._config = config
        self._waiting: dict[Ticket, tuple[Request, list[int]]] = {}
        self._window: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._ends = _end_tokens(model, tokenizer)
        model.generation_config = _plain_generation(self._ends)

    def send(self, requests: Sequence[Request]) -> None:
        """Take requests, and render and tokenise their chats."""
        for request in requests:
            text = _render(self._tokenizer, request.messages)
            self._waiting[request.ticket] = request, self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def receive(self) -> Mapping[Ticket, Completion]:
        """Answer the waiting requests whose limit most of them share, of equally many those with the lower one."""
        sizes = Counter(request.max_tokens for request, _ in self._waiting.values())
        limit = max(sizes, key=lambda size: (sizes[size], -size))
        batch = {
            ticket: self._waiting.pop(ticket)
            for ticket in sorted(self._waiting)
            if self._waiting[ticket][0].max_tokens == limit
        }
        answers = {
            ticket: Completion("", "too_long")
            for ticket, (_, ids) in batch.items()
            if self._window is not None and len(ids) + limit > self._window
        }
        fitting = {ticket: chat for ticket, chat in batch.items() if ticket not in answers}
        if fitting:
            answers |= dict(zip(fitting, self._answer(list(fitting.values())), strict=True))
        return answers

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _answer(self, batch: Sequence[tuple[Request, list[int]]]) -> list[Completion]:
        import torch
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        longest = max(len(ids) for _, ids in batch)
        pad = self._ends[0]
        ids = torch.tensor([[pad] * (longest - len(ids)) + ids for _, ids in batch], device=self._model.device)
        mask = torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for _, i in batch], device=self._model.device)
        draw = Draw([request for request, _ in batch], longest, self._config.top_p)
        penalty = RepetitionPenaltyLogitsProcessor(self._config.repetition_penalty, prompt_ignore_length=longest)
        with torch.inference_mode():
            written = self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=batch[0][0].max_tokens,
                logits_processor=LogitsProcessorList([penalty, draw]),
            )
        return [
            self._completion(row, len(ids)) for row, (_, ids) in zip(written[:, longest:].tolist(), batch, strict=True)
        ]

    def _completion(self, row: list[int], prompt_tokens: int) -> Completion:
        """Cut a row at its first end token; other control tokens stay in the text, where the checks see them."""
        end = next((at for at, token in enumerate(row) if token in self._ends), None)
        text = self._tokenizer.decode(row[:end], skip_special_tokens=False)
        if end is None:
            return Completion(text, "length", prompt_tokens, len(row))
        return Completion(text, "stop", prompt_tokens, end + 1)


class Draw:
    """A logits processor that leaves of each row the one token that is drawn.

    Of the `TOP_K` likeliest tokens those are kept that make up `top_p` of their probability; of these the inverse
    distribution function, over tokens in the order of their ids, chooses at a uniform number.

    Parameters
    ----------
    requests : sequence of Request
        One for each row: seed and temperature.
    start : int
        Tokens before the first that is drawn.
    top_p : float
        In (0, 1].
    """

    def __init__(self, requests: Sequence[Request], start: int, top_p: float) -> None:
        self._uniforms = np.stack([np.random.default_rng(r.seed).random(r.max_tokens) for r in requests])
        self._temperatures = np.array([[max(r.temperature, _COLDEST)] for r in requests])
        self._start = start
        self._top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of which one a row is finite.

        Parameters
        ----------
        input_ids : (rows, tokens) int64, prompts and what was drawn so far
        scores : (rows, vocabulary), of the next token
        """
        import torch

        tokens = scores.topk(min(TOP_K, scores.shape[-1])).indices.sort(dim=-1).values  # (rows, k)
        heat = torch.from_numpy(self._temperatures).to(scores.device)
        likely = (scores.gather(-1, tokens).double() / heat).softmax(dim=-1)
        falling, order = likely.sort(dim=-1, descending=True, stable=True)
        beyond = falling.cumsum(dim=-1) - falling >= self._top_p  # the likeliest stays whatever top_p
        kept = likely.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
        heights = kept.cumsum(dim=-1)
        uniform = torch.from_numpy(self._uniforms[:, input_ids.shape[1] - self._start, None]).to(scores.device)
        place = (heights <= uniform * heights[:, -1:]).sum(dim=-1, keepdim=True).clamp(max=tokens.shape[-1] - 1)
        chosen = tokens.gather(-1, place)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


def load_local_model(directory: Path, config: GenerateConfig) -> LocalModel:
    """Load tokenizer and model from a folder with safetensors weights.

    Raises
    ------
    ValueError
        If transformers does not know the model without foreign code, weights are missing, there is no chat
        template, or CUDA is asked for and absent.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = choose_device(config.device)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
            model, loading = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=getattr(torch, choose_dtype(config.dtype, device)),
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"`generate.model={config.model}` must be a causal language model that transformers knows without remote "
            f"code, got: {error}; choose another model, or an endpoint by `generate.base_url`"
        ) from error
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        raise ValueError(
            f"`generate.model={config.model}` must hold all weights, got none for {len(loading['missing_keys'])} "
            f"tensors, first {min(loading['missing_keys'])}; fetch or save the model again"
        )
    if tokenizer.chat_template is None:
        raise ValueError(
            f"`generate.model={config.model}` must have a chat template, as models that follow instructions do, got "
            "none; choose such a model, or an endpoint by `generate.base_url`"
        )
    return LocalModel(model.eval().to(device), tokenizer, config)


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Apply the chat template; where it knows no system message, the first message of the user begins with it."""
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        system, first, *others = messages
        joined = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
        text = tokenizer.apply_chat_template([joined, *others], tokenize=False, add_generation_prompt=True)
    return text


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a turn, as the model and the tokenizer name them; never none."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    ends = [named] if isinstance(named, int) else list(named or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.append(tokenizer.eos_token_id)
    if not ends:
        raise ValueError(
            "`generate.model` must name a token that ends a turn, got none; set `eos_token` in its tokenizer's files"
        )
    return ends


def _plain_generation(ends: list[int]) -> Any:
    """Make settings of transformers' decoding in which `Draw` alone decides."""
    from transformers import GenerationConfig

    return GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
