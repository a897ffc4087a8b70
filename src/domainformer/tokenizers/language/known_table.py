"""The rows of ``KNOWN_TOKENIZERS``: one per released model, as text that reads as a table.

Columns, apart by blanks::

    len(tokenizer)  embedding rows  kind  special tokens  flag  licence  model type  hub id

``=`` before the model type says that the default ``vocab_size`` of the transformers configuration
class is the released model's number of embedding rows, ``!`` that it is not; a test reads the
class and holds both. Flag ``G``: the hub asks to log in and accept terms. ``P``: the tokenizer is
Python code, without offsets.

The number of rows of a line with ``=`` is thereby known from transformers itself. Everything else
was written down from memory, and nothing here has verified it: all values of
``len(tokenizer)``, the rows of lines with ``!``, special tokens, licences and flags. A tokenizer
that is loaded is measured, and a difference is told.
"""

from __future__ import annotations

SPECIALS: dict[str, dict[str, str]] = {
    "gpt": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"},
    "end": {"eos": "<|endoftext|>"},
    "olmo": {"eos": "<|endoftext|>", "pad": "<|padding|>"},
    "olmo2": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"},
    "bert": {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    "mpnet": {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "[UNK]",
        "sep": "</s>",
        "pad": "<pad>",
        "cls": "<s>",
        "mask": "<mask>",
    },
    "big": {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "[SEP]",
        "pad": "<pad>",
        "cls": "[CLS]",
        "mask": "[MASK]",
    },
    "deb": {
        "bos": "[CLS]",
        "eos": "[SEP]",
        "unk": "[UNK]",
        "sep": "[SEP]",
        "pad": "[PAD]",
        "cls": "[CLS]",
        "mask": "[MASK]",
    },
    "fair": {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "</s>",
        "pad": "<pad>",
        "cls": "<s>",
        "mask": "<mask>",
    },
    "alb": {
        "bos": "[CLS]",
        "eos": "[SEP]",
        "unk": "<unk>",
        "sep": "[SEP]",
        "pad": "<pad>",
        "cls": "[CLS]",
        "mask": "[MASK]",
    },
    "xlnet": {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "<sep>",
        "pad": "<pad>",
        "cls": "<cls>",
        "mask": "<mask>",
    },
    "t5": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "llama": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "ll3": {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"},
    "qwen": {"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
    "gemma": {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
    "phi3": {"bos": "<s>", "eos": "<|endoftext|>", "unk": "<unk>", "pad": "<|endoftext|>"},
    "bloom": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "opt": {"bos": "</s>", "eos": "</s>", "unk": "</s>", "pad": "<pad>"},
    "clip": {
        "bos": "<|startoftext|>",
        "eos": "<|endoftext|>",
        "unk": "<|endoftext|>",
        "pad": "<|endoftext|>",
    },
    "deep": {
        "bos": "<｜begin▁of▁sentence｜>",
        "eos": "<｜end▁of▁sentence｜>",
        "pad": "<｜▁pad▁｜>",
    },
    "oss": {"bos": "<|startoftext|>", "eos": "<|return|>", "pad": "<|endoftext|>"},
    "unk": {"unk": "<unk>"},
    "jam": {"bos": "<|startoftext|>", "eos": "<|endoftext|>", "unk": "<|unk|>", "pad": "<|pad|>"},
}

KINDS = {
    "bbpe": "byte-level BPE",
    "sbpe": "SentencePiece BPE",
    "uni": "SentencePiece Unigram",
    "wp": "WordPiece",
    "cbpe": "BPE on characters",
    "bytes": "bytes",
}

ROWS = """
 50257  50257 bbpe  gpt   - MIT          =gpt2             openai-community/gpt2
 50257  50257 bbpe  gpt   - Apache-2.0   =gpt2             distilbert/distilgpt2
 40478  40478 cbpe  unk   - MIT          =openai-gpt       openai-community/openai-gpt
 30522  30522 wp    bert  - Apache-2.0   =bert             google-bert/bert-base-uncased
 28996  28996 wp    bert  - Apache-2.0   !bert             google-bert/bert-base-cased
119547 119547 wp    bert  - Apache-2.0   !bert             google-bert/bert-base-multilingual-cased
 30522  30522 wp    bert  - Apache-2.0   =distilbert       distilbert/distilbert-base-uncased
 30522  30522 wp    bert  - Apache-2.0   =bert             sentence-transformers/all-MiniLM-L6-v2
 30522  30522 wp    bert  - Apache-2.0   =electra          google/electra-small-discriminator
 30522  30522 wp    bert  - Apache-2.0   =mobilebert       google/mobilebert-uncased
 30527  30527 wp    mpnet - MIT          =mpnet            microsoft/mpnet-base
 30522  30528 wp    bert  - Apache-2.0   =nomic_bert       nomic-ai/nomic-embed-text-v1.5
 50368  50368 bbpe  bert  - Apache-2.0   =modernbert       answerdotai/ModernBERT-base
 50265  50265 bbpe  fair  - MIT          =roberta          FacebookAI/roberta-base
250002 250002 uni   fair  - MIT          !xlm-roberta      FacebookAI/xlm-roberta-base
 32005  32005 uni   fair  - MIT          !camembert        almanach/camembert-base
 50265  50265 bbpe  fair  - Apache-2.0   !longformer       allenai/longformer-base-4096
 50265  50265 bbpe  fair  - Apache-2.0   =led              allenai/led-base-16384
 50358  50358 uni   big   - Apache-2.0   =big_bird         google/bigbird-roberta-base
 30000  30000 uni   alb   - Apache-2.0   =albert           albert/albert-base-v2
 50265  50265 bbpe  deb   - MIT          =deberta          microsoft/deberta-base
128001 128100 uni   deb   - MIT          =deberta-v2       microsoft/deberta-v3-base
 32000  32000 uni   xlnet - MIT          =xlnet            xlnet/xlnet-base-cased
 32100  32128 uni   t5    - Apache-2.0   =t5               google-t5/t5-small
 32100  32128 uni   t5    - Apache-2.0   =t5               google/flan-t5-base
 32100  32128 uni   t5    - Apache-2.0   =switch_transformers google/switch-base-8
 32100  32128 uni   t5    - Apache-2.0   =longt5           google/long-t5-local-base
250100 250112 uni   t5    - Apache-2.0   =mt5              google/mt5-small
   384    384 bytes t5    P Apache-2.0   !t5               google/byt5-small
 50265  50265 bbpe  fair  - Apache-2.0   =bart             facebook/bart-base
250027 250027 uni   fair  - MIT          !mbart            facebook/mbart-large-cc25
 96103  96103 uni   t5    - Apache-2.0   !pegasus          google/pegasus-xsum
128104 128112 uni   fair  P MIT          =m2m_100          facebook/m2m100_418M
256204 256206 uni   fair  - CC-BY-NC-4.0 !m2m_100          facebook/nllb-200-distilled-600M
 58101  58101 uni   t5    P CC-BY-4.0    =marian           Helsinki-NLP/opus-mt-en-de
256008 256008 uni   fair  - MIT          =xglm             facebook/xglm-564M
 51865  51865 bbpe  gpt   - Apache-2.0   =whisper          openai/whisper-tiny
 49408  49408 bbpe  clip  - MIT          =clip_text_model  openai/clip-vit-base-patch32
 32000  32000 sbpe  llama G Llama-2      =llama            meta-llama/Llama-2-7b-hf
128256 128256 bbpe  ll3   G Llama-3.1    !llama            meta-llama/Llama-3.1-8B
 32000  32000 sbpe  llama - Apache-2.0   =llama            TinyLlama/TinyLlama-1.1B-Chat-v1.0
 49152  49152 bbpe  gpt   - Apache-2.0   !llama            HuggingFaceTB/SmolLM2-135M
128256 128256 bbpe  ll3   - Apache-2.0   =smollm3          HuggingFaceTB/SmolLM3-3B
128256 128256 bbpe  ll3   - MIT          =bitnet           microsoft/bitnet-b1.58-2B-4T
 32000  32000 sbpe  llama - Apache-2.0   =mistral          mistralai/Mistral-7B-v0.1
 32768  32768 sbpe  llama - Apache-2.0   !mistral          mistralai/Mistral-7B-v0.3
131072 131072 bbpe  llama - Apache-2.0   !mistral          mistralai/Mistral-Nemo-Base-2407
 32000  32000 sbpe  llama - Apache-2.0   =mixtral          mistralai/Mixtral-8x7B-v0.1
151646 151936 bbpe  qwen  - Qianwen      =qwen2            Qwen/Qwen1.5-0.5B
151665 151936 bbpe  qwen  - Apache-2.0   =qwen2            Qwen/Qwen2.5-0.5B
151665 152064 bbpe  qwen  - Apache-2.0   !qwen2            Qwen/Qwen2.5-7B
151669 151936 bbpe  qwen  - Apache-2.0   =qwen3            Qwen/Qwen3-0.6B
256000 256000 sbpe  gemma G Gemma        =gemma            google/gemma-2b
256000 256000 sbpe  gemma G Gemma        =gemma2           google/gemma-2-2b
262145 262208 sbpe  gemma G Gemma        =gemma3_text      google/gemma-3-4b-pt
262145 262144 sbpe  gemma G Gemma        !gemma3_text      google/gemma-3-1b-pt
256000 256000 sbpe  gemma G Gemma        =recurrent_gemma  google/recurrentgemma-2b
 50295  51200 bbpe  gpt   - MIT          =phi              microsoft/phi-2
 32011  32064 sbpe  phi3  - MIT          =phi3             microsoft/Phi-3-mini-4k-instruct
100352 100352 bbpe  gpt   - MIT          !phi3             microsoft/phi-4
 50257  50257 bbpe  gpt   - MIT          =gpt_neo          EleutherAI/gpt-neo-125m
 50400  50400 bbpe  gpt   - Apache-2.0   =gptj             EleutherAI/gpt-j-6b
 50277  50432 bbpe  gpt   - Apache-2.0   =gpt_neox         EleutherAI/gpt-neox-20b
 50277  50304 bbpe  gpt   - Apache-2.0   !gpt_neox         EleutherAI/pythia-70m
 50277  50304 bbpe  gpt   - CC-BY-SA-4.0 =stablelm         stabilityai/stablelm-3b-4e1t
 50277  50280 bbpe  gpt   - Apache-2.0   =mamba            state-spaces/mamba-130m-hf
 50277  50277 bbpe  gpt   - Apache-2.0   =rwkv             RWKV/rwkv-4-169m-pile
 50277  50432 bbpe  gpt   - Apache-2.0   !mpt              mosaicml/mpt-7b
250680 250880 bbpe  bloom - RAIL-1.0     =bloom            bigscience/bloom-560m
 50265  50272 bbpe  opt   - OPT-175B     =opt              facebook/opt-125m
 65024  65024 bbpe  end   - Apache-2.0   =falcon           tiiuae/falcon-7b
 50295  51200 bbpe  gpt   - BSD-3-Clause !codegen          Salesforce/codegen-350M-mono
 49152  49152 bbpe  gpt   G OpenRAIL-M   !gpt_bigcode      bigcode/starcoder
 49152  49152 bbpe  gpt   - OpenRAIL-M   =starcoder2       bigcode/starcoder2-3b
 50280  50304 bbpe  olmo  - Apache-2.0   =olmo             allenai/OLMo-1B-hf
 50280  50304 bbpe  olmo  - Apache-2.0   =olmoe            allenai/OLMoE-1B-7B-0924
100278 100352 bbpe  olmo2 - Apache-2.0   !olmo2            allenai/OLMo-2-1124-7B
128815 129280 bbpe  deep  - MIT          =deepseek_v3      deepseek-ai/DeepSeek-V3
200019 201088 bbpe  oss   - Apache-2.0   =gpt_oss          openai/gpt-oss-20b
 65536  65536 sbpe  jam   - Apache-2.0   =jamba            ai21labs/Jamba-v0.1
"""
