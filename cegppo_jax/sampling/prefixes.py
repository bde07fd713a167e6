"""Prefix caches of prompts, each prompt prefilled once for all its samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np

from cegppo_jax.models.kv_cache import KVCache
from cegppo_jax.types import Prompt


class PrefixQueue:
    """Prefills prompts in the order in which they wait, a batch at a time, when the first of the
    batch is needed.
    """

    def __init__(self, prefill_prompts: int, max_prompt_tokens: int):
        self._shape = (prefill_prompts, max_prompt_tokens)
        self._cache: KVCache | None = None
        self.rows: dict[int, int] = {}  # prompt index -> row of the present prefix cache

    def holding(
        self, waiting: Iterable[Prompt], prefill: Callable[[np.ndarray], KVCache]
    ) -> KVCache:
        """Returns the prefix cache that holds the first of the waiting prompts; `prefill` turns
        right-padded tokens [B, Tp] into one.
        """
        waiting = iter(waiting)
        first = next(waiting)
        if first.index not in self.rows:
            tokens, rows = np.zeros(self._shape, np.int32), dict[int, int]()
            for prompt in itertools.chain([first], waiting):
                if prompt.index in rows:
                    continue
                if len(rows) == len(tokens):
                    break
                tokens[len(rows), : len(prompt.tokens)] = prompt.tokens
                rows[prompt.index] = len(rows)
            self._cache, self.rows = prefill(tokens), rows
        assert self._cache is not None
        return self._cache
