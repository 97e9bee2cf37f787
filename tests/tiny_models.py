"""Tiny random language models with real tokenizers, for tests that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

Architecture = Literal["llama", "gpt2", "qwen3"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gpt2", "qwen3")
OTHERS = ("mistral", "gemma2", "bloom", "mamba", "rwkv", "lfm2", "gpt_oss", "llama4_text")
"""Architectures that tests of prefix sharing need beside the usual ones."""
WINDOW = 8
"""Tokens that the Mistral-type model sees."""
CHUNK = 64
"""Tokens in a chunk of the Llama-4-type model, which attends inside chunks only."""
DEPTH = 4
POSITIONS = 4096

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

# "system", "user" and "assistant" are written as they are, and END is named as the end of a sequence;
# START is special but has no name of its own, as in many published tokenizers.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SENTENCES = (
    "How do I solve this equation? First subtract three from both sides.",
    "Why does the sum of the angles in a triangle equal 180 degrees?",
    "Good question! Try to draw a line that is parallel to the base.",
    "I do not understand the second step. Can you explain it again, please?",
    "Let us look at it together: what happens when x becomes larger?",
    "system user assistant Student: Tutor: System:\n\n",
    "der Winkel beträgt 90° und die Fläche ist 12 cm²",
)


def tiny_tokenizer(*, chat: bool = False, bos: bool = False, plain_tokens: tuple[str, ...] = ()) -> Any:
    """Byte-level BPE trained on a few sentences, so that every text has tokens and none is unknown.

    `chat` adds the ChatML template, `bos` puts a beginning-of-sequence token before plain text, and
    `plain_tokens` are added tokens that are not marked as special.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [PAD, START, END, "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 3, trainer)
    backend.add_tokens(list(plain_tokens))
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    names = {"bos_token": "<s>"} if bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=PAD, **names)
    tokenizer.chat_template = CHATML if chat else None
    return tokenizer


def tiny_config(architecture: str, vocabulary: int) -> Any:
    """Configuration of a decoder with four blocks that differ in what the architectures differ in."""
    from transformers import AutoConfig

    shared = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
    }
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    own: dict[str, dict[str, Any]] = {
        "llama": sizes,
        # learned positions, biases, transposed weights
        "gpt2": {"n_embd": 24, "n_layer": DEPTH, "n_head": 3, "n_positions": POSITIONS},
        "qwen3": {**sizes, "head_dim": 16},  # heads times their width, 64, is not the hidden size
        "mistral": {**sizes, "sliding_window": WINDOW},
        "gemma2": {**sizes, "head_dim": 8, "query_pre_attn_scalar": 8},  # caps the scores
        "bloom": {"hidden_size": 32, "n_layer": DEPTH, "n_head": 4},  # ALiBi, attention of its own
        "mamba": {"hidden_size": 32, "num_hidden_layers": DEPTH, "state_size": 4},
        "rwkv": {"hidden_size": 32, "num_hidden_layers": DEPTH, "context_length": POSITIONS},
        "lfm2": {**sizes, "layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
        "gpt_oss": {**sizes, **experts, "head_dim": 8},  # sinks in the softmax
        "llama4_text": {
            **{**sizes, **experts, "head_dim": 8, "intermediate_size_mlp": 48},
            **{"attention_chunk_size": CHUNK, "layer_types": ["chunked_attention"] * DEPTH},
        },
    }
    return AutoConfig.for_model(architecture, **own[architecture], **shared)


def save_tiny_model(directory: Path, architecture: str, seed: int = 0) -> Path:
    """Write a random model with its tokenizer as safetensors: Llama with BOS, Qwen3 with ChatML, others plain."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer(chat=architecture == "qwen3", bos=architecture == "llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(architecture, len(tokenizer)))
        # The usual initialisation is so small that layers hardly differ and a wrong one would go unnoticed.
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=0.3)
            elif "norm" in name or ".ln_" in name or "bias" in name:
                weights.data += 0.2 * torch.randn_like(weights)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
