"""Completions as HTML, each token coloured by what the trainer found there.

    entropy     the darker, the less certain the policy was
    log_ratio   trainer against sampler: orange where the trainer gives the token less probability,
                blue where it gives more; no colour where the two programs agree
    quadrant    the sign of the advantage and whether the token was likely: what an update does to
                entropy there (losses/entropy_budget.py)

Model text is escaped: nothing in a completion becomes markup. In a notebook:

    from IPython.display import HTML
    HTML(tokens_page([tokens_of_sample(line) for line in run.samples[:8]], by="entropy"))
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

# The colourings: name -> what it shows.
COLOURINGS = {
    "entropy": "entropy",
    "log_ratio": "trainer against sampler",
    "quadrant": "quadrant",
}

# Classes of tokens and what an update does to entropy there; colours as in report.png.
QUADRANTS = {
    "pa_hp": "A > 0, likely: entropy falls",
    "pa_lp": "A > 0, rare: entropy rises",
    "na_hp": "A < 0, likely: entropy rises",
    "na_lp": "A < 0, rare: entropy falls",
}

HALF_ENTROPY = 0.7  # nats at which half of the colour is reached
HALF_LOG_RATIO = 0.05  # nats; bfloat16 sampling differs by about 0.02, float32 by 1e-6

STYLE = """
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7;
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.tokens span { border-radius: 2px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.by-entropy span { background: rgb(213 94 0 / var(--e, 0)); }
.by-log_ratio span { background: rgb(0 114 178 / var(--r, 0)); }
.by-log_ratio span.less { background: rgb(213 94 0 / var(--r, 0)); }
.by-quadrant .pa_hp { background: rgb(120 120 120 / 0.35); }
.by-quadrant .pa_lp { background: rgb(0 114 178 / 0.45); }
.by-quadrant .na_hp { background: rgb(0 158 115 / 0.45); }
.by-quadrant .na_lp { background: rgb(213 94 0 / 0.5); }
.legend span { padding: 0 0.4em; margin-right: 0.6em; white-space: nowrap; display: inline-block; }
"""


@dataclasses.dataclass(frozen=True)
class ColouredTokens:
    """The tokens of a completion and what to colour them by: lists with one entry a token. None:
    not known, or not finite.
    """

    texts: Sequence[str]
    logprobs: Sequence[float | None]  # nats, by the trainer
    entropies: Sequence[float | None]  # nats
    log_ratios: Sequence[float | None] = ()  # ln pi_old - ln pi_sampler; (): not known
    advantage: float = 0.0  # 0: no quadrant
    high_probability: str = "half"  # as loss.high_probability
    rest: str = ""  # what follows without readings

    def __post_init__(self) -> None:
        lengths = [len(self.texts), len(self.logprobs), len(self.entropies)]
        lengths += [len(self.log_ratios)] if len(self.log_ratios) else []
        if len(set(lengths)) > 1:
            raise ValueError(
                f"texts, logprobs, entropies and log_ratios have {lengths} entries: one a token"
            )
        if self.high_probability not in ("half", "surprisal"):
            raise ValueError(
                f"high_probability = {self.high_probability!r} is neither 'half' nor 'surprisal'"
            )

    def quadrant(self, token: int) -> str:
        """Returns the name in QUADRANTS of a token, "" where none is known or A = 0."""
        logprob, entropy = self.logprobs[token], self.entropies[token]
        if not self.advantage or logprob is None or entropy is None:
            return ""
        half = self.high_probability == "half"
        likely = math.exp(logprob) >= 0.5 if half else -logprob < entropy
        return ("pa" if self.advantage > 0 else "na") + ("_hp" if likely else "_lp")


def tokens_of_sample(
    sample: Mapping[str, Any], high_probability: str = "half"
) -> ColouredTokens | None:
    """Returns the tokens of a line of samples.jsonl; None for one without readings: of an older
    version, or of a completion that did not train.
    """
    if "token_texts" not in sample:
        return None
    texts = sample["token_texts"]
    missing = sample["tokens"] - len(texts)
    return ColouredTokens(
        texts,
        sample["token_logprobs"],
        sample["token_entropies"],
        sample["token_log_ratios"],
        sample["advantage"],
        high_probability,
        f" … {missing:,} more tokens without readings" if missing else "",
    )


def coloured_tokens(tokens: ColouredTokens, by: str = "entropy") -> str:
    """Returns a <div> with a <span> for each token, for a page that has STYLE. Another class
    `by-...` on it, or on what holds it, colours the same spans anew. A token's tooltip has its
    numbers.

    Raises:
      ValueError: `by` is not in COLOURINGS.
    """
    _check_colouring(by)
    spans = "".join(_span(tokens, token) for token in range(len(tokens.texts)))
    rest = f"<i>{escaped(tokens.rest)}</i>" if tokens.rest else ""
    return f'<div class="tokens by-{by}">{spans}{rest}</div>'


def _span(tokens: ColouredTokens, token: int) -> str:
    entropy, logprob = tokens.entropies[token], tokens.logprobs[token]
    log_ratio = tokens.log_ratios[token] if len(tokens.log_ratios) else None
    style, numbers, classes = [], [], [tokens.quadrant(token)]
    if logprob is not None:
        numbers.append(f"p {math.exp(logprob):.3g}")
    if entropy is not None:
        style.append(f"--e:{_strength(entropy, HALF_ENTROPY)}")
        numbers.append(f"entropy {entropy:.3g} nats")
    if log_ratio is not None:
        style.append(f"--r:{_strength(log_ratio, HALF_LOG_RATIO)}")
        numbers.append(f"ln trainer/sampler {log_ratio:+.2g}")
        classes.append("less" if log_ratio < 0 else "")
    names = " ".join(filter(None, classes))
    attributes = f' class="{names}"' if names else ""
    text = escaped(tokens.texts[token]).replace("\n", "↵\n")
    return f'<span{attributes} style="{";".join(style)}" title="{", ".join(numbers)}">{text}</span>'


def _strength(value: float, half: float) -> str:
    """The share of the full colour: 0 at 0, 1/2 at `half`, and never quite 1."""
    return f"{1 - 2 ** (-abs(value) / half):.2g}"


def legend(by: str = "entropy", high_probability: str = "half") -> str:
    """Returns a <div> that explains a colouring. Raises ValueError as coloured_tokens does."""
    _check_colouring(by)
    if by == "quadrant":
        rule = "p ≥ 1/2" if high_probability == "half" else "-ln p < entropy"
        spans = [f'<span class="{name}">{escaped(text)}</span>' for name, text in QUADRANTS.items()]
        return f'<div class="legend by-quadrant">{"".join(spans)} likely: {escaped(rule)}</div>'
    if by == "entropy":
        shown = [("", "--e", value, f"{value:g} nats") for value in (0.1, 0.7, 2.0)]
        half = HALF_ENTROPY
    else:
        values = (-0.2, -0.02, 0.02, 0.2)
        shown = [("less" * (v < 0), "--r", v, f"ln trainer/sampler {v:+g}") for v in values]
        half = HALF_LOG_RATIO
    spans = [
        f'<span class="{kind}" style="{name}:{_strength(value, half)}">{text}</span>'
        for kind, name, value, text in shown
    ]
    return f'<div class="legend by-{by}">{"".join(spans)}</div>'


def tokens_page(completions: Sequence[ColouredTokens | None], by: str = "entropy") -> str:
    """Returns HTML that stands alone, for a notebook: style, legend and the completions; those that
    are None are left out. Raises ValueError as coloured_tokens does.
    """
    known = [one for one in completions if one is not None]
    if not known:
        return "<p>None of these completions has readings of its tokens.</p>"
    blocks = [coloured_tokens(one, by) for one in known]
    head = f"<style>{STYLE}</style>{legend(by, known[0].high_probability)}"
    return head + "".join(f'<div style="margin:0.4em 0">{block}</div>' for block in blocks)


def _check_colouring(by: str) -> None:
    if by not in COLOURINGS:
        raise ValueError(f"by = {by!r}: tokens are coloured by one of {[*COLOURINGS]}")


def escaped(text: str) -> str:
    """Returns text as HTML that shows it and does nothing. Control characters that HTML forbids are
    shown by their symbols, and lone surrogates, which no file can hold, by a replacement character.
    """
    shown = "".join(chr(0x2400 + ord(c)) if c < " " and c not in "\n\t" else c for c in text)
    return html.escape(shown.encode("utf-8", "replace").decode("utf-8"), quote=True)
