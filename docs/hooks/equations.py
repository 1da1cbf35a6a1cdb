"""Equations between `$` and `$$`, written as MathML when the site is built: browsers need no script for them."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

_PARTS = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|(?<![\w$\\])\$(?P<inline>[^$\s](?:[^$\n]*[^$\s])?)\$(?![\w$])",
    re.DOTALL | re.MULTILINE,
)


class Equations:
    """Holds the equations of a page while Markdown is converted, which would read `_` and `*` in them."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def taken_out(self, markdown: str) -> str:
        def mark(match: re.Match[str]) -> str:
            if match["code"] is not None:
                return match[0]
            latex, display = (match["block"], "block") if match["block"] else (match["inline"], "inline")
            self._found.append(convert(" ".join(latex.split()), display=display))
            return f"equation{len(self._found) - 1:05d}here"

        return _PARTS.sub(mark, markdown)

    def put_back(self, html: str) -> str:
        return re.sub(r"equation(\d{5})here", lambda match: self._found[int(match[1])], html)
