import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._page import lead, page
from ._style import Figure
from ._table import Table


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Sequence[tuple[str, str]] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[tuple[str, Figure]] = (),
    provenance: Mapping[str, object] | None = None,
    highlights: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write a report: one HTML file that needs nothing else, and its figures as PNGs.

    Each file is written under a temporary name in the same folder and renamed, the
    HTML last, so that a report is whole or absent. All text is escaped.

    Args:
        path: Where to write; its folder is made if it is missing.
        title: Title of the report.
        summary: (heading, text); a blank line in the text starts a new paragraph.
        tables: (caption, header, rows); see `gradient_table`. Cells that start with a
            tick or a cross are coloured.
        figures: (caption, figure). The caption's first sentence stands out, and names
            the PNG.
        provenance: What the report was made from: versions, seeds, configuration.
        highlights: (label, value) of the most important numbers, shown large on top.

    Returns:
        The files written, the HTML first.

    Raises:
        OSError: The folder cannot be written to.
        ValueError: A row of a table has another length than its header.
    """
    target = Path(path)
    _check_tables(tables)
    images = [(caption, _png(figure)) for caption, figure in figures]
    # One scale for all, so that letters have one size on the page.
    widths = [round(82 * figure.get_figwidth()) for _, figure in figures]
    document = page(
        title=title,
        highlights=highlights,
        summary=summary,
        tables=tables,
        figures=[
            (caption, base64.b64encode(data).decode(), width)
            for (caption, data), width in zip(images, widths, strict=True)
        ],
        provenance=provenance or {},
    )
    files = {
        target.with_name(f"{target.stem}-{number}-{_slug(caption)}.png"): data
        for number, (caption, data) in enumerate(images, 1)
    }
    files[target] = document.encode()
    _write_all(files, target)
    return [target, *(file for file in files if file != target)]


def _check_tables(tables: Sequence[Table]) -> None:
    for caption, header, rows in tables:
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(
                    f"Row {number} of the table {caption!r} has {len(row)} cells and "
                    f"its header has {len(header)}: give one cell for each column."
                )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No time and no version inside: the same figure gives the same bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _slug(caption: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", lead(caption)[0].lower()).strip("-")
    return words[:40].strip("-") or "figure"


def _write_all(files: Mapping[Path, bytes], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            _write_whole(file, data)
    except OSError as error:
        raise OSError(
            f"The report could not be written to {target} "
            f"({error.strerror or error}): choose a folder that can be written to."
        ) from error


def _write_whole(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
