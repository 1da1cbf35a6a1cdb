r"""Tables as LaTeX, to `\input` into a paper: booktabs rules, best numbers bold, published rows below a rule.

What pdfLaTeX cannot set without further packages is never passed on: letters that its standard encoding lacks
become their nearest Latin spelling, or their code point in brackets. A name is never dropped silently.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dalr.report.tables import Table

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "‖": r"$\Vert$",
    "²": "$^2$",
    "·": r"$\cdot$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
    "\u2060": "{}",
}
_LATIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ0-9 .,:;!?()\[\]/@*+=-]")


def latex_document(tables: Sequence[Table]) -> str:
    r"""All tables, for `\input`; what the preamble needs is said in the first lines."""
    preamble = "% \\usepackage[T1]{fontenc} and \\usepackage{textcomp,booktabs,graphicx} in the preamble\n"
    return preamble + "".join(f"\n{latex_table(table)}" for table in tables)


def latex_table(table: Table) -> str:
    """One floating table."""
    width = 1 + len(table.columns)
    alignment = "l" + "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join([escape(table.head), *(escape(column.name) for column in table.columns)])
    lines = [
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^a-z0-9-]', '-', table.name.lower())}}}",
        # never wider than the text, and never stretched
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        rf"{head} \\",
    ]
    for group in table.groups:
        lines.append(r"\midrule")
        if group.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(group.title)}}}}} \\")
        for row in group.rows:
            name = f"{row.head} ({row.about})" if row.about else row.head
            cells = [rf"\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text) for cell in row.cells]
            # a bracket at the start of a row would be read as an argument of the line break before it
            lines.append(rf"{{}}{escape(name)} & {' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [
        rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {escape(note)}\end{{minipage}}"
        for note in table.notes
    ]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    flat = " ".join(text.split()).replace("--", "-\u2060-")  # two hyphens would be set as one dash
    return "".join(map(_letter, flat))


def _letter(letter: str) -> str:
    if letter in _COMMANDS:
        return _COMMANDS[letter]
    if _LATIN.fullmatch(letter):
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if _LATIN.fullmatch(part))
    return plain or f"[U+{ord(letter):04X}]"
