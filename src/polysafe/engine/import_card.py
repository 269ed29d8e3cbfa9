"""The model card of an imported folder: what the weights are, and what they are no more."""

from __future__ import annotations

import yaml

from polysafe._version import __version__
from polysafe.checkpoint.imported import Imported
from polysafe.text.markdown import inline, one_line

_TEXT = """\

# {name}

These are {what}, written as {dtype} by polysafe {polysafe}.{loss}

- file: {file}, {size} bytes, SHA-256 {sha256}
- storage types in it: {types}
- read with: {libraries}
{notes}
## Licence

{licence} polysafe itself claims no right in it.
"""


def import_card(record: Imported) -> bytes:
    """The card as Markdown, byte for byte the same for the same record."""
    tags = ["polysafe", *(["dequantised"] if record.quantised else [])]
    data = {"license": record.licence, "library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    plain = {key: one_line(value) if isinstance(value, str) else value for key, value in data.items() if value}
    text = _TEXT.format(
        name=inline(record.name or record.file),
        what="dequantised weights" if record.quantised else "converted weights",
        dtype=record.dtype,
        polysafe=__version__,
        loss=_loss(record),
        file=inline(record.origin),
        size=record.size,
        sha256=record.sha256,
        types=", ".join(f"{inline(name)} ({count} tensors)" for name, count in record.types.items()),
        libraries=", ".join(f"{name} {inline(version)}" for name, version in record.libraries.items()),
        notes="".join(f"- note: {inline(note)}\n" for note in record.notes),
        licence=_licence(record),
    )
    header = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10**9)
    return f"---\n{header}---\n{text}".encode()


def _loss(record: Imported) -> str:
    if not record.quantised:
        return ""
    return (
        f" They were quantised before ({', '.join(record.quantised)}): what that lost does not come back, and numbers"
        " that are measured on them are not those of the original model."
    )


def _licence(record: Imported) -> str:
    named = f"names {inline(record.licence)}" if record.licence else "names no licence"
    said = f"The file or its package {named}."
    if not record.terms:
        return said
    return f"{said} The terms that came with it lie beside the weights: {', '.join(map(inline, record.terms))}."
