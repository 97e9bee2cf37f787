"""Messages to token ids: chat template, control tokens in foreign text, and truncation.

Prompt and response are tokenised apart and joined as ids, so the response's own tokens are known
exactly and a pair's two sequences share their prompt to the token, also where it had to be cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]

_PLAIN_NAMES = {"system": "System", "user": "Student", "assistant": "Tutor"}
_PLAIN_CUE = "Tutor:"
_ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True)
class TokenSequence:
    """One prompt with one response, as token ids."""

    token_ids: tuple[int, ...]
    """Prompt, then response."""
    response_start: int
    """Index of the response's first token."""
    turns_cut: int
    """Oldest turns that were left out to fit."""
    prompt_tokens_cut: int
    """Oldest tokens cut from the last turn, where that turn alone was too long."""
    response_tokens_cut: int
    """Tokens cut from the end of a response longer than the whole window."""
    control_tokens: int
    """Control tokens found in foreign text and made harmless."""


class Renderer:
    """Turns messages into token ids for one tokenizer.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With its chat template, or without one: then a plain role template is used.
    max_tokens : int
        Longest sequence.
    vocabulary : int
        Ids at or beyond it are refused.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._vocabulary = vocabulary
        self._control = _control_tokens(tokenizer)
        self._prefix = _sequence_prefix(tokenizer)

    def render(self, prompt: Sequence[Message], response: str) -> TokenSequence:
        """Render one prompt with one response; the oldest turns go first where both do not fit.

        Raises
        ------
        ValueError
            If the prompt has no turns or the response no tokens, an id lies outside the vocabulary, or the chat
            template refuses the turns.
        """
        return self._render(prompt, (response,))[0]

    def render_pair(self, prompt: Sequence[Message], chosen: str, rejected: str) -> tuple[TokenSequence, ...]:
        """Render one prompt with two responses, leaving room for the longer one: both see the same prompt.

        Raises
        ------
        ValueError
            As `render`.
        """
        return self._render(prompt, (chosen, rejected))

    def _render(self, prompt: Sequence[Message], responses: Sequence[str]) -> tuple[TokenSequence, ...]:
        if not prompt:
            raise ValueError("`embed` needs prompts of at least one turn, got none; reject the pair")
        answers = [self._answer(response) for response in responses]
        safe, hits = self._make_safe(prompt)
        room = max(0, self._max_tokens - max(len(answer) for answer, _ in answers))
        whole, turns_cut = self._fit_turns(safe, room)
        ids = whole if len(whole) <= room else self._cut_last_turn(whole, safe, room)
        self._check_vocabulary([*ids, *(token for answer, _ in answers for token in answer)])
        return tuple(
            TokenSequence(
                token_ids=(*ids, *answer[: self._max_tokens]),
                response_start=len(ids),
                turns_cut=turns_cut,
                prompt_tokens_cut=len(whole) - len(ids),
                response_tokens_cut=max(0, len(answer) - self._max_tokens),
                control_tokens=hits + answer_hits,
            )
            for answer, answer_hits in answers
        )

    def _answer(self, response: str) -> tuple[list[int], int]:
        """Token ids of a response, and the control tokens found in it."""
        (safe,), hits = self._make_safe([{"role": "assistant", "content": response}])
        ids = self._split_ids(safe["content"])
        if ids and self._tokenizer.chat_template is None:
            ids = self._after_cue(safe["content"], ids)
        return ids or self._end_of_turn(response), hits

    def _end_of_turn(self, response: str) -> list[int]:
        """Token that stands for a response without any: the one by which a model says that it has nothing to add."""
        end = self._tokenizer.eos_token_id
        if end is None:
            raise ValueError(
                f"`embed` needs responses of at least one token, or a tokenizer that ends a turn with one, got "
                f"{response!r} and none; reject the pair"
            )
        return [end]

    def _after_cue(self, text: str, alone: list[int]) -> list[int]:
        """Token ids of a response as they are after the plain template's cue, where the tokenizer splits there.

        So a response has the tokens that it has as a turn of a later prompt, and is computed once.
        """
        joint, cue = self._split_ids(f"{_PLAIN_CUE} {text}"), self._split_ids(_PLAIN_CUE)
        return joint[len(cue) :] if joint[: len(cue)] == cue else alone

    def _split_ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _fit_turns(self, messages: list[Message], room: int) -> tuple[list[int], int]:
        """Drop the oldest turns, never the system turn or the last one, until the prompt fits into `room`."""
        system, turns = _split_system(messages)
        ids = self._encode(messages)
        starts = [i for i, turn in enumerate(turns) if turn["role"] == "user" or i == len(turns) - 1]
        starts = [i for i in starts if i > 0]
        if len(ids) <= room or not starts:
            return ids, 0

        def fits(first: int) -> bool:
            return len(self._encode([*system, *turns[first:]])) <= room

        # Fewer turns never take more tokens, so the first start that fits is found by halving.
        first = starts[bisect_left(starts, True, hi=len(starts) - 1, key=fits)]
        return self._encode([*system, *turns[first:]]), first

    def _cut_last_turn(self, ids: list[int], messages: list[Message], room: int) -> list[int]:
        """Cut the oldest tokens of the only turn left.

        What stands before its text stays, unless that takes more than half of the room; then only the
        beginning-of-sequence token does.
        """
        system, turns = _split_system(messages)
        other = self._encode([*system, {**turns[-1], "content": "."}]) if turns else []
        differs = (i for i, (one, two) in enumerate(zip(ids, other, strict=False)) if one != two)
        head = next(differs, 0)
        if not 0 < head <= room // 2:
            head = min(room, int(ids[0] == self._tokenizer.bos_token_id))
        return ids[:head] + ids[head + len(ids) - room :]

    def _encode(self, messages: list[Message]) -> list[int]:
        if self._tokenizer.chat_template is None:
            return [*self._prefix, *self._ids(_plain_template(messages))]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise whatever they like
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(
                f"`embed` needs turns that the model's chat template accepts, got roles {roles} and the answer "
                f"{error}; use `history: turn`, or a model whose template takes them"
            ) from error
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _make_safe(self, messages: Sequence[Message]) -> tuple[list[Message], int]:
        """Break control tokens that foreign text contains, so that they are read and not obeyed."""
        hits = 0
        safe = []
        for message in messages:
            content = message["content"]
            for token in self._control:
                hits += content.count(token)
                content = content.replace(token, token[0] + _ZERO_WIDTH_SPACE + token[1:])
            safe.append({"role": message["role"], "content": content})
        return safe, hits

    def _check_vocabulary(self, token_ids: Sequence[int]) -> None:
        if max(token_ids) >= self._vocabulary:
            raise ValueError(
                f"`embed` needs token ids below the model's vocabulary of {self._vocabulary}, got {max(token_ids)}; "
                "tokenizer and weights do not belong together"
            )


def _split_system(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system turn, if there is one, and the other turns."""
    count = int(messages[0]["role"] == "system")
    return messages[:count], messages[count:]


def _control_tokens(tokenizer: Any) -> list[str]:
    """Tokens that steer the model: the special ones, and added ones that the chat template writes.

    Many tokenizers name only a few of their special tokens, and some do not mark their role tokens as special.
    """
    template = str(tokenizer.chat_template or "")
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special or token.content in template]
    tokens = {str(token) for token in tokenizer.all_special_tokens} | {token.content for token in added}
    return sorted(token for token in tokens if token.strip())


def _plain_template(messages: Sequence[Message]) -> str:
    """Role template for models without one: a line a turn, then the tutor's cue."""
    lines = [f"{_PLAIN_NAMES[message['role']]}: {message['content']}\n" for message in messages]
    return "".join(lines) + _PLAIN_CUE


def _sequence_prefix(tokenizer: Any) -> list[int]:
    """Return the beginning-of-sequence token, for tokenizers that put one before plain text."""
    ids = tokenizer("")["input_ids"]
    return [tokenizer.bos_token_id] if ids and ids[0] == tokenizer.bos_token_id else []
