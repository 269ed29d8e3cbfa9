"""The kinds of hostile input: what each is after, who would be hurt, and what polysafe has to do."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of hostile input.

    Attributes:
        what: What it is.
        after: What whoever made it wants, or the accident behind it.
        hurt: Who would be hurt.
        expected: What has to come of it.
    """

    what: str
    after: str
    hurt: str
    expected: str


REFUSED = "refused with file and reason; nothing is run, written or read elsewhere"
INERT = "shown as text, and does nothing"

KINDS: dict[str, Kind] = {
    "folder": Kind("checkpoint folders", "files of the user, code, memory", "whoever opens it", REFUSED),
    "header": Kind("headers of safetensors files", "foreign memory, bombs, two readings of a file", "whoever opens it",
                   f"{REFUSED}; nothing is allocated for what is only announced"),
    "gguf": Kind("headers of GGUF files", "the same", "whoever imports it", f"{REFUSED}; memory stays bounded"),
    "config": Kind("configs, tokenizers and side files", "another model than it says, memory", "whoever edits it",
                   REFUSED),
    "adapter": Kind("adapters", "another model than was meant, endless expressions", "whoever merges it", REFUSED),
    "edit": Kind("edit files", "a changed edit, an edit of another base, NaN, memory", "whoever applies it", REFUSED),
    "probe": Kind("probe files", "statistics of another model", "whoever fits with it", REFUSED),
    "recipe": Kind("recipes", "files, keys, memory; values that mean something else", "whoever runs it",
                   "refused with line and remedy before anything is made"),
    "output": Kind("outputs, workspaces, locks and pending updates", "files outside the output, weights unseen",
                   "whoever writes or verifies there", "refused or made anew; nothing outside is touched"),
    "record": Kind("runs, records, verdicts, caches and journals", "false results, a defect on reading",
                   "whoever reads or resumes", "refused with the file and a remedy, or passed over and asked again"),
    "report": Kind("stored reports, cards and rows", "false claims, a defect on reading", "whoever shows them",
                   REFUSED),
    "log": Kind("Inspect logs", "false results, memory", "whoever loads them", REFUSED),
    "table": Kind("prompt tables and data sets", "memory, shifted rows", "whoever asks them",
                  "refused with file, line and reason, in bounded memory"),
    "reproduction": Kind("reproduce folders", "files and places of the machine, other results", "whoever repeats it",
                         REFUSED),
    "template": Kind("chat templates", "code, files, memory, time, prompts that are left out", "whoever asks the model",
                     "refused; a process of its own bounds time and memory"),
    "server": Kind("servers", "time, memory, a redirect, a defect", "whoever asks it",
                   "an answer or an error, in bounded time and memory"),
    "key": Kind("keys that are said back or sent elsewhere", "the key", "its owner",
                "hidden everywhere, sent nowhere else"),
    "injection": Kind("answers that talk to a judge", "a verdict of safe", "whoever believes the rate",
                      "unsafe or unparsed, never safe"),
    "reply": Kind("replies of judges that are no verdict", "a verdict that was not given", "whoever believes the rate",
                  "unparsed and counted"),
    "marker": Kind("control tokens of model families", "the role of another speaker", "whoever believes the rate",
                   "written so that no tokenizer takes them for one"),
    "answer": Kind("answers and texts of data sets in what is published", "the reader's browser, terminal or sheet",
                   "whoever reads the report", INERT),
    "formula": Kind("cells that begin a formula", "the reader's spreadsheet", "whoever opens the tables", INERT),
    "publishing": Kind("outputs to be published, and what the hub answers", "keys and places of the user",
                       "whoever publishes", "refused before anything is sent"),
}  # fmt: skip
