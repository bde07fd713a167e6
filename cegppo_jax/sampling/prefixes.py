"""Prefix caches of prompts, each prompt prefilled once for all its samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from cegppo_jax.models.kv_cache import KVCache
from cegppo_jax.types import Prompt


class PrefixQueue:
    """Prefills prompts in order, a batch at a time, when the first of the batch is needed."""

    def __init__(self, prompts: Sequence[Prompt], prefill_prompts: int, max_prompt_tokens: int):
        self._shape = (prefill_prompts, max_prompt_tokens)
        self._batches = deque(
            prompts[start : start + prefill_prompts]
            for start in range(0, len(prompts), prefill_prompts)
        )
        self._cache: KVCache | None = None
        self.rows: dict[int, int] = {}  # prompt index -> row of the present prefix cache

    def holding(self, prompt: Prompt, prefill: Callable[[np.ndarray], KVCache]) -> KVCache:
        """Returns the prefix cache that holds `prompt`; `prefill` turns right-padded tokens
        [B, Tp] into one.
        """
        if prompt.index not in self.rows:
            batch = self._batches.popleft()
            tokens = np.zeros(self._shape, np.int32)
            for row, member in enumerate(batch):
                tokens[row, : len(member.tokens)] = member.tokens
            self._cache = prefill(tokens)
            self.rows = {member.index: row for row, member in enumerate(batch)}
        assert self._cache is not None
        return self._cache
