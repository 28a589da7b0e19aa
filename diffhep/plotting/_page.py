"""The text of a report: HTML that needs nothing from outside itself."""

import html
import re
from collections.abc import Mapping, Sequence

from ._table import Table, as_text


_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1d2127;
  --soft: #5b6470; --line: #dfe3e8; --accent: #0072b2; --good: #00724f;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2127;
  --ink: #e6e9ed; --soft: #a3adb9; --line: #343b44; --accent: #6cb8e6;
  --good: #4fc79a; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 48rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem;
  padding: .6rem 0 1.2rem; }
section, figure, .tile { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
section { padding: 1.2rem 1.4rem; margin: 0 0 1.2rem; }
.tiles { display: grid; gap: .8rem; margin: 0 0 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }
.tile { padding: .8rem 1.1rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .9rem; }
figure { margin: 0 0 1.2rem; padding: 1rem; }
figure img { display: block; margin: 0 auto; max-width: 100%; height: auto;
  background: #fff; border-radius: 6px; padding: .5rem; }
figcaption { padding: .8rem .3rem 0; color: var(--soft); font-size: .95rem; }
figcaption b, caption b { color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .7rem; color: var(--soft); }
th, td { padding: .38rem .7rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; }
tbody tr:hover { background: color-mix(in srgb, var(--accent) 7%, transparent); }
th.number, td.number { text-align: right; white-space: nowrap; }
td.good { color: var(--good); font-weight: 600; }
td.bad { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem;
  margin: 0; font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; }
  dd { padding: 0 0 .4rem; } section { padding: 1rem; } figure { padding: .6rem; } }
@media print { body { background: #fff; } section, figure { break-inside: avoid; } }
"""

_NUMBER = re.compile(r"^[(\s+\u2212±~≈<>-]*(\d|nan|inf)")


def lead(caption: str) -> tuple[str, str]:
    """A caption's first sentence, and the rest.

    Args:
        caption: The caption.

    Returns:
        Both, without the blank between them.
    """
    first, dot, rest = caption.partition(". ")
    return first + (dot[:1]), rest


def _emphasised(caption: str) -> str:
    first, rest = lead(caption)
    return f"<b>{html.escape(first)}</b> {html.escape(rest)}".strip()


def _paragraphs(text: str) -> str:
    blocks = [block.strip() for block in text.split("\n\n")]
    return "\n".join(f"<p>{html.escape(block)}</p>" for block in blocks if block)


def _table(table: Table) -> str:
    caption, header, rows = table
    cells = [[as_text(cell) for cell in row] for row in rows]
    numeric = [
        bool(cells)
        and all(not row[column] or _NUMBER.match(row[column]) for row in cells)
        for column in range(len(header))
    ]
    head = "".join(
        f'<th scope="col"{_cell_class("", number)}>{html.escape(name)}</th>'
        for name, number in zip(header, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_cell_class(cell, number)}>{html.escape(cell)}</td>"
            for cell, number in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in cells
    )
    return (
        f'<div class="scroll"><table><caption>{_emphasised(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell_class(cell: str, number: bool) -> str:
    names = ["number"] if number else []
    if cell.startswith("✓"):
        names.append("good")
    elif cell.startswith("✗"):
        names.append("bad")
    return f' class="{" ".join(names)}"' if names else ""


def _summary_section(anchor: str, item: tuple[str, str]) -> str:
    heading, text = item
    return (
        f'<section id="{anchor}"><h2>{html.escape(heading)}</h2>\n'
        f"{_paragraphs(text)}</section>"
    )


def _figure_section(anchor: str, item: tuple[str, str, int]) -> str:
    caption, data, width = item
    return (
        f'<figure id="{anchor}"><img alt="{html.escape(lead(caption)[0])}" '
        f'width="{width}" '
        f'src="data:image/png;base64,{data}">\n'
        f"<figcaption>{_emphasised(caption)}</figcaption></figure>"
    )


def _table_section(anchor: str, item: Table) -> str:
    return f'<section id="{anchor}">{_table(item)}</section>'


def _provenance_section(provenance: Mapping[str, object]) -> str:
    items = "\n".join(
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in provenance.items()
    )
    return f'<section id="provenance"><h2>Provenance</h2><dl>{items}</dl></section>'


def _tiles(highlights: Sequence[tuple[str, str]]) -> str:
    tiles = "".join(
        f'<div class="tile"><span>{html.escape(label)}</span>'
        f"<b>{html.escape(value)}</b></div>"
        for label, value in highlights
    )
    return f'<div class="tiles">{tiles}</div>' if tiles else ""


def page(
    *,
    title: str,
    highlights: Sequence[tuple[str, str]],
    summary: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    figures: Sequence[tuple[str, str, int]],
    provenance: Mapping[str, object],
) -> str:
    """A report as one HTML document.

    Args:
        title: Title.
        highlights: (label, value) of the most important numbers.
        summary: (heading, text); a blank line in the text starts a paragraph.
        tables: (caption, header, rows).
        figures: (caption, PNG in base64, width in pixels of the page).
        provenance: What the report was made from.

    Returns:
        The document. All text is escaped; nothing is fetched from outside.
    """
    anchors = [f"summary-{number}" for number, _ in enumerate(summary, 1)]
    links = [(name, item[0]) for name, item in zip(anchors, summary, strict=True)]
    sections = [_summary_section(*pair) for pair in zip(anchors, summary, strict=True)]
    if figures:
        links.append(("figure-1", "Figures"))
    if tables:
        links.append(("table-1", "Tables"))
    for number, figure in enumerate(figures, 1):
        sections.append(_figure_section(f"figure-{number}", figure))
    for number, table in enumerate(tables, 1):
        sections.append(_table_section(f"table-{number}", table))
    if provenance:
        links.append(("provenance", "Provenance"))
        sections.append(_provenance_section(provenance))
    menu = "\n".join(
        f'<a href="#{name}">{html.escape(heading)}</a>' for name, heading in links
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>",
            f"<body>\n<main>\n<header><h1>{html.escape(title)}</h1>",
            f'<nav aria-label="Contents">{menu}</nav></header>',
            _tiles(highlights),
            *sections,
            "</main>\n</body>\n</html>\n",
        ]
    )
