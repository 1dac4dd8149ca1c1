"""Tiny encoders with random weights, one of each kind of head."""

from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

SPREAD = {
    "initializer_range": 0.3
}  # with the usual 0.02 rows hardly differ, and float32 has little to tell them apart
USUAL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    **SPREAD,
}
ENCODERS = {
    "bert": lambda n: BertModel(BertConfig(vocab_size=n, **USUAL)),
    "bert_without_pooler": lambda n: BertModel(
        BertConfig(vocab_size=n, **USUAL), add_pooling_layer=False
    ),
    "distilbert": lambda n: DistilBertModel(
        DistilBertConfig(vocab_size=n, dim=16, hidden_dim=32, n_layers=1, n_heads=2, **SPREAD)
    ),
    "roberta": lambda n: RobertaModel(
        RobertaConfig(vocab_size=n, pad_token_id=0, max_position_embeddings=130, **USUAL)
    ),
    "modernbert": lambda n: ModernBertModel(
        ModernBertConfig(vocab_size=n, pad_token_id=0, bos_token_id=1, eos_token_id=2, **USUAL)
    ),
    "gpt2": lambda n: GPT2Model(
        GPT2Config(
            vocab_size=n, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=2, **SPREAD
        )
    ),
    "llama": lambda n: LlamaModel(LlamaConfig(vocab_size=n, **USUAL)),
}
