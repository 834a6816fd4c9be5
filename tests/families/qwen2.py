"""Qwen2 and Qwen2.5, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

reference = Reference(
    rows=("LM-32", "LM-33"),
    cases={
        "qwen2": lambda: tf.Qwen2Config(**GROUPED),
        "qwen2-tied": lambda: tf.Qwen2Config(**GROUPED, tie_word_embeddings=True),
        "qwen2-window": lambda: tf.Qwen2Config(
            **GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1
        ),
    },
    # 2.5-7B held against files of models derived from it: the same, but for sliding_window, which later versions of
    # transformers store as null where it is off. 1.5-7B was not found, and is written down from knowledge of the file.
    released={
        "qwen1.5-7b": """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.37.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}""",
        "qwen2.5-7b": """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 152064}""",
    },
    unused=("max_window_layers",),  # where there is no window
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "qwen1.5-0.5b": 463_987_712,
        "qwen1.5-1.8b": 1_836_828_672,
        "qwen1.5-4b": 3_950_369_280,
        "qwen1.5-7b": 7_721_324_544,
        "qwen1.5-14b": 14_167_290_880,
        "qwen1.5-32b": 32_512_218_112,
        "qwen1.5-72b": 72_287_920_128,
        "qwen1.5-110b": 111_209_914_368,
        "qwen2-0.5b": 494_032_768,
        "qwen2-1.5b": 1_543_714_304,
        "qwen2-7b": 7_615_616_512,
        "qwen2-72b": 72_706_203_648,
        "qwen2.5-3b": 3_085_938_688,
        "qwen2.5-14b": 14_770_033_664,
        "qwen2.5-32b": 32_763_876_352,
    },
    same_parameters=("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-72b"),
)
