"""Opens folders with one program, each in a process of its own with bounds of time and memory.

Called by `peers.py` as `python opener.py PROGRAM SECONDS BYTES` with the interpreter of an environment in which that
program is installed; nothing of this project is needed but for polysafe itself. Folders come as lines of the standard
input, and outcomes go as lines of JSON to the standard output. Imports are paid once: the processes are forks.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Open = Callable[[str], object]


def polysafe() -> Open:
    from tests.attacks.test_attacks import look_at

    return lambda folder: look_at(Path(folder))


def transformers() -> Open:
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import modeling_llama  # noqa: F401 (imported once, before the clock runs)

    return AutoModelForCausalLM.from_pretrained


def lm_eval() -> Open:
    from lm_eval.models.huggingface import HFLM
    from transformers.models.llama import modeling_llama  # noqa: F401

    sound = os.environ["SOUND_TOKENIZER"]
    return lambda folder: HFLM(pretrained=folder, tokenizer=sound, device="cpu", trust_remote_code=False)


def mergekit() -> Open:
    """What a merge does with every source: its config, its index, and then one tensor after the other."""
    from mergekit.common import ModelReference

    def load(folder: str) -> None:
        reference = ModelReference.model_validate(folder)
        reference.config()
        loader = reference.lazy_loader()
        for name in loader.index.tensor_paths:
            loader.get_tensor(name)

    return load


PROGRAMS = {program.__name__: program for program in (polysafe, transformers, lm_eval, mergekit)}
# Exceptions that a check raises. Others come from code that did not expect what it met.
REFUSALS = {"OSError", "FileNotFoundError", "IsADirectoryError", "SafetensorError", "JSONDecodeError",
            "ValueError", "RuntimeError", "CheckpointError", "ArchitectureError", "UnpicklingError",
            "StrictDataclassFieldValidationError", "StrictDataclassClassValidationError"}  # fmt: skip


def attempt(load: Open, folder: str, memory: int) -> dict[str, Any]:
    """Within the child: bounded memory, and whatever is raised as data."""
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    try:
        load(folder)
    except MemoryError:
        return {"outcome": "memory"}
    except Exception as error:  # noqa: BLE001
        kind = type(error).__name__
        text = str(error)
        named = any(name in text for name in os.listdir(folder)) or folder in text
        outcome = "refused" if kind in REFUSALS else "crashed"
        return {"outcome": outcome, "error": kind, "names_file": named, "text": text.replace("\n", " ")[:400]}
    return {"outcome": "loaded"}


def bounded(load: Open, folder: str, seconds: float, memory: int) -> dict[str, Any]:
    """The outcome of one folder, in a fork of this process."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(sender, json.dumps(attempt(load, folder, memory)).encode())
        os._exit(0)
    os.close(sender)
    status = ended(child, seconds)
    with os.fdopen(receiver, "rb") as stream:
        said = stream.read()
    if status is None:
        return {"outcome": "hung"}
    return dict(json.loads(said)) if said else {"outcome": "killed", "error": f"status {status}"}


def ended(child: int, seconds: float) -> int | None:
    """The status of a child, None where it had to be killed."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main(program: str, seconds: float, memory: int) -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what programs print is no outcome
    load = PROGRAMS[program]()
    with os.fdopen(answers, "w", encoding="utf-8") as stream:
        for line in sys.stdin:
            json.dump(bounded(load, line.rstrip("\n"), seconds, memory), stream)
            stream.write("\n")
            stream.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
