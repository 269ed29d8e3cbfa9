"""Keys and places are found in every file and however they are spelt; ordinary files hold none."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.update import replace_files
from polysafe.errors import VerificationError
from polysafe.publish.leaks import leaks
from polysafe.publish.push import preview
from polysafe.secret import keep_secret
from tests.models import write_tokenizer

MODEL = Path("/srv/of-the-test/model")
JWT = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "HS256"},
               {"sub": "1"}, {"x": 1}))  # fmt: skip
KEYS = {
    "hub": "hf_" + "aB3dE6gH9k" * 3,
    "openai": "sk-proj-" + "aB3dE6gH9k" * 3,
    "aws": "AKIA" + "ABCDEFGH12345678",
    "github": "ghp_" + "aB3dE6gH9k" * 4,
    "github, fine": "github_pat_" + "aB3dE6gH9k" * 3,
    "gitlab": "glpat-" + "aB3dE6gH9k" * 2,
    "google": "AIza" + "aB3dE6gH9k" * 3 + "abcde",
    "google, oauth": "ya29." + "aB3dE6gH9k" * 3,
    "slack": "xoxb-" + "1234567890" * 2,
    "private": "-----BEGIN RSA PRIVATE KEY-----",
    "stripe": "sk_live_" + "aB3dE6gH9k" * 3,
    "npm": "//registry.npmjs.org/:_authToken=npm_" + "aB3dE6gH9k" * 4,
    "web token": JWT,
}
SPELT: dict[str, Callable[[str], bytes]] = {
    "as it is": lambda key: f'{{% set key = "{key}" %}}'.encode(),
    "JSON": lambda key: json.dumps({"key": key}).encode(),
    "JSON escapes": lambda key: ('{"key": "' + "".join(f"\\u{ord(char):04x}" for char in key) + '"}').encode(),
    "escapes of a template": lambda key: ('{{ "' + "".join(f"\\x{ord(char):02x}" for char in key) + '" }}').encode(),
    "an address": lambda key: "".join(f"%{ord(char):02X}" for char in key).encode(),
    "HTML": lambda key: "".join(f"&#{ord(char)};" for char in key).encode(),
    "UTF-16": lambda key: f"key: {key}".encode("utf-16"),
    "UTF-16, no mark": lambda key: b"\x01" + f"key: {key}".encode("utf-16-be"),
    "a pickle": lambda key: pickle.dumps({"key": key}),
}


def found(data: bytes, **options: bool) -> list[str]:
    return [leak.told for leak in leaks(data, MODEL, **options)]


@pytest.mark.parametrize("spelt", SPELT)
@pytest.mark.parametrize("key", KEYS)
def test_keys_however_they_are_spelt(key: str, spelt: str) -> None:
    data = SPELT[spelt](KEYS[key])
    (leak,) = leaks(data, MODEL, places=False)
    assert leak.secret
    assert KEYS[key] not in leak.told


@pytest.mark.parametrize("spelt", SPELT)
def test_a_key_that_was_used_is_known_whatever_its_form(spelt: str) -> None:
    keep_secret("correct-horse-battery")
    assert found(SPELT[spelt]("correct-horse-battery")) == ["something that looks like a secret key"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://user:hunter2@host.example/v1", "a password in an address"),
        ("postgres://app:pa55word@db/x", "a password in an address"),
        ("/mnt/models/base", "somebody's folder (/mnt/models…)"),
        ("/media/alice/models", "somebody's folder (/media/alice…)"),
        (r"\\fileserver\models\base", r"somebody's folder (\\fileserver\models…)"),
        ("/home/alice/models/base", "somebody's folder (/home/alice…)"),
    ],
)
def test_addresses_and_places(text: str, told: str) -> None:
    for data in (text.encode(), json.dumps({"_name_or_path": text}).encode(), text.encode("utf-16")):
        assert found(data) == [told]


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a:b, see team@example.org",
        '["m@http://localhost:8000/v1","n@http://localhost:8001/v1"]',
        "{{ '\\nUser\\nAssistant' }} risk-assessment-of-a-long-name task-specific-evaluation-results",
        "https://{user}:{password}@host and https://$USER:$PASSWORD@host",
        "f" * 64 + " " + "0123456789abcdef" * 4,
        "<|im_start|>user\\nHello<|im_end|>",
        "huggingface_hub hf_transfer hf_xet",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert found(text.encode()) == []
    assert found(json.dumps({"chat_template": text}).encode()) == []


def test_an_ordinary_tokenizer_holds_none(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 40)
    for file in tmp_path.iterdir():
        assert found(file.read_bytes(), places=False) == []


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "vocab.txt", "tokenizer.model"])
def test_every_file_of_a_model_is_looked_at(name: str, model: Path) -> None:
    assert preview(model, "team/model").leaks == {}
    content = (model / name).read_bytes() if (model / name).exists() else b""
    text = content.decode().replace("{", '{"note": "' + KEYS["github"] + '", ', 1) or KEYS["github"]
    replace_files(model, {name: text.encode()})
    assert list(preview(model, "team/model").leaks) == [name]
    assert preview(model, "team/model", places=True).leaks
    assert preview(model, "team/model", keys=True).leaks == {}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "extra/weights.pt"])
def test_code_and_pickles_are_not_published(name: str, model: Path) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    replace_files(model, {name: b"x"})
    with pytest.raises(VerificationError, match="is code or a pickle") as caught:
        preview(model, "team/model")
    assert caught.value.where == model / name


def test_a_link_within_the_model_is_not_published(model: Path) -> None:
    (model / "tokenizer.json").rename(model / "other.json")
    (model / "tokenizer.json").symlink_to("other.json")
    assert (model / MANIFEST).is_file()
    with pytest.raises(VerificationError, match="is a link; only files of the model itself are published") as caught:
        preview(model, "team/model")
    assert caught.value.where == model / "tokenizer.json"
