"""Fields of config.json that change no log-probability, as transformers 4.57 and 5 define them."""

# How to generate. transformers reads them from generation_config.json, and from config.json where
# there is no such file.
GENERATION = {
    *("do_sample", "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "penalty_alpha", "dola_layers", "guidance_scale"),
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "stop_strings"),
    *("early_stopping", "length_penalty", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("num_return_sequences", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("repetition_penalty", "encoder_repetition_penalty", "exponential_decay_length_penalty"),
    *("bad_words_ids", "force_words_ids", "constraints", "sequence_bias", "suppress_tokens"),
    *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("remove_invalid_values", "renormalize_logits", "token_healing", "watermarking_config"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("output_scores", "output_logits", "return_dict_in_generate", "low_memory"),
    *("cache_implementation", "cache_config", "prefill_chunk_size"),
}
# Names, versions and other marks of a model's origin.
BOOKKEEPING = {
    *("model_type", "architectures", "_name_or_path", "name_or_path", "_commit_hash"),
    *("transformers_version", "transformers.js_config", "unsloth_fixed", "unsloth_version"),
    *("tokenizer_class", "prefix", "task_specific_params", "finetuning_task", "is_llama_config"),
    *("unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
}
# How to store, initialise, run or print; heads that a causal language model does not have.
EXECUTION = {
    *("torch_dtype", "dtype", "use_bfloat16", "use_cache", "initializer_range", "pretraining_tp"),
    *("torchscript", "tf_legacy_loss", "gradient_checkpointing", "keys_to_ignore_at_inference"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("_attn_implementation_autoset", "_experts_implementation_internal", "_flash_attn_2_enabled"),
    *("_post_init_done", "_output_attentions", "output_attentions", "output_hidden_states"),
    *("return_dict", "use_return_dict", "is_decoder", "cross_attention_hidden_size"),
    *("tie_encoder_decoder", "problem_type", "id2label", "label2id", "num_labels"),
    *("classifier_dropout", "label_smoothing"),
}
IRRELEVANT = GENERATION | BOOKKEEPING | EXECUTION
