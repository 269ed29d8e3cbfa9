"""The numbered faults that polysafe has to survive, and the parts of each that a test has to prove."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault.

    Attributes:
        title: What it is.
        parts: What has to be proved of it; a test names the parts that it proves.
    """

    title: str
    parts: tuple[str, ...]


FAULTS: dict[int, Fault] = {
    1: Fault("headers", ("lengths and limits", "text", "offsets, shapes and types", "bytes that nothing describes",
                         "the file is named", "nothing large is allocated", "random headers")),
    2: Fault("indexes", ("names that lead out of the folder", "links and cycles", "folders and other suffixes",
                         "tensors absent or in two shards", "a million entries")),
    3: Fault("what is no shard", ("cut short", "empty", "a git-lfs pointer", "a web page")),
    4: Fault("pickles only", ("refused with the way out", "a malicious pickle does not run")),
    5: Fault("values", ("NaN and infinity are traced to their tensor", "all zero", "denormal numbers", "huge numbers",
                        "what was not finite before may be kept")),
    6: Fault("sources that do not fit", ("shapes, the first three named", "layers", "heads, norms and positions",
                                         "storage types", "tying", "a base that is no ancestor",
                                         "a config that contradicts its tensors")),
    7: Fault("layouts", ("tied and untied", "padded and extended vocabularies", "fused and stacked tensors",
                         "biases, norms and groups of heads", "hybrid layers and several modules",
                         "what is not known is told", "bytes that an independent computation gives")),
    8: Fault("quantised sources", ("by their config", "by types and names")),
    9: Fault("code in a model folder", ("never run for editing", "never run for generating", "never copied")),
    10: Fault("SIGKILL", ("writing", "evaluating", "searching", "building", "every durable point", "a power cut")),
    11: Fault("disks and names", ("full at any write, flush and rename", "a full small disk", "another file system",
                                  "a quota", "a read-only folder, for a user that is not root",
                                  "a folder that vanishes", "long and non-ASCII names", "names that differ in case")),
    12: Fault("the place of the output", ("is an input, or inside one", "a link or a file", "foreign files")),
    13: Fault("two processes", ("one wins and the other is told who holds it", "a lock of a dead process",
                                "processes that share")),
    14: Fault("modes and hashes", ("the umask", "sizes and hashes", "a flipped bit")),
    15: Fault("a source that changes", ("while it is read", "though its time is put back", "after an interruption",
                                        "clocks that are set", "files of other times")),
    16: Fault("signals", ("SIGINT", "SIGTERM", "SIGHUP", "signals that are ignored", "while something is imported",
                          "no half files", "nobody stays behind", "the terminal is put back")),
    17: Fault("identities", ("weights of zero and one", "swapping twice", "strength zero", "order of experts",
                             "blocks and threads", "layout of shards")),
    18: Fault("null space", ("held-out rows are left alone", "ill-conditioned moments", "fewer rows than dimensions")),
    19: Fault("caches and journals", ("every field of the identity", "half-written lines", "concurrent writers",
                                      "an older schema", "damaged values")),
    20: Fault("what a judge is told", ("every family of judges", "verdicts, fences and roles inside an answer",
                                       "invisible and bidirectional characters", "100 kB", "other languages",
                                       "refusal then compliance, compliance then refusal",
                                       "no verdict or two are unparsed", "never safe by default")),
    21: Fault("a judge that is not there", ("offline", "rate limits", "retries are bounded",
                                            "missing verdicts widen the interval", "taken up again")),
    22: Fault("languages", ("the wrong language", "transliterated and code-switched", "gibberish, loops and echoes",
                            "scripts without spaces, from right to left, with marks", "a broken answer is never safe")),
    23: Fault("statistics", ("no items and one", "all alike", "pairs that lack a side", "many languages at once",
                             "prompts that repeat")),
    24: Fault("hostile answers", ("the page", "the terminal", "the card", "the tables", "a notebook",
                                  "a policy that forbids scripts", "lines of a megabyte")),
    25: Fault("publishing", ("no token, path or name leaks", "answers only when asked for", "taken up again",
                             "private by default")),
    26: Fault("another source than the recorded one", ("stops", "a revision is a commit")),
}  # fmt: skip
