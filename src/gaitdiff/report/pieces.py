"""Small pieces of HTML that several sections of a report share."""

from __future__ import annotations

import html


def left_out(sentence: str) -> str:
    """A sentence in place of what cannot be shown."""
    return f'<p class="left-out">{html.escape(sentence[:1].upper() + sentence[1:].rstrip("."))}.</p>'


def definitions(items: dict[str, str]) -> str:
    """Names and what they mean or are, as a list."""
    return f"<dl>{''.join(f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in items.items())}</dl>\n"
