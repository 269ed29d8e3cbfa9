from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from polysafe.card.store import load_card
from polysafe.checkpoint.update import replace_files
from polysafe.checkpoint.verify import read_manifest, verify_output
from polysafe.errors import OutputError, PolysafeError, RecipeError, ResourceError, VerificationError
from polysafe.publish.push import Pushed, preview, push
from tests.checkpoint.raw import snapshot
from tests.publish.standin import GITATTRIBUTES, TOKEN, Fault, Repo, StandIn

# The hub's client gives files to its HTTP library in a way that the library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "team/model"
Send = Callable[..., Pushed]


@pytest.fixture
def send(hub: StandIn, model: Path) -> Send:
    def call(**options: Any) -> Pushed:
        return push(model, REPO, **{"token": TOKEN, "endpoint": hub.url, **options})

    return call


def weights(model: Path) -> dict[str, str]:
    """SHA-256 of the weight files by name."""
    entries = read_manifest(model)["files"]
    return {entry["path"]: entry["sha256"] for entry in entries if entry["path"].endswith(".safetensors")}


def download(hub: StandIn, folder: Path) -> Path:
    """What somebody gets who downloads the repository."""
    for path, content in hub.files(REPO).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_what_arrives_is_what_the_manifest_vouches_for(hub: StandIn, send: Send, model: Path, tmp_path: Path) -> None:
    (model / "notes.txt").write_text("of mine")
    done = send()
    assert hub.repos[REPO].private
    assert done.private
    assert hub.repos[REPO].commits[-1][0] == done.commit
    files = hub.files(REPO)
    assert set(files) == {entry["path"] for entry in read_manifest(model)["files"]} | {
        "polysafe/manifest.json",
        ".gitattributes",
    }
    local = snapshot(model)
    differing = {path for path in files if path != ".gitattributes" and files[path] != local[path]}
    assert differing == {"polysafe/recipe.yaml", "polysafe/manifest.json"}
    got = download(hub, tmp_path / "got")
    report = verify_output(got)
    assert report.ok, report.problems
    assert report.unlisted == (".gitattributes",)
    assert len(weights(model)) > 1
    assert sorted(hub.sent) == sorted(weights(model).values())


def test_commit_names_version_and_edit(hub: StandIn, send: Send, model: Path) -> None:
    import polysafe

    send()
    message = hub.repos[REPO].commits[-1][1]
    assert f"polysafe {polysafe.__version__}" in message
    assert read_manifest(model)["edit"] in message


@pytest.mark.fault(25, "no token, path or name leaks")
def test_nothing_of_this_machine_is_published(hub: StandIn, send: Send, model: Path, made: Path) -> None:
    send()
    for path, content in hub.files(REPO).items():
        for place in (str(model.parent), str(made.parent), str(Path.home()) + "/", TOKEN):
            assert place.encode() not in content, path
        assert b"../" not in content, path


def test_second_push_sends_nothing(hub: StandIn, send: Send, model: Path) -> None:
    send()
    before, commits = list(hub.sent), len(hub.repos[REPO].commits)
    done = send()
    assert hub.sent == before
    assert len(hub.repos[REPO].commits) == commits
    assert len(done.unchanged) == len(done.publication.items)


@pytest.mark.fault(25, "taken up again")
@pytest.mark.parametrize("part", [None, 3000])
def test_interrupted_push_goes_on_with_what_is_missing(part: int | None, hub: StandIn, send: Send, model: Path) -> None:
    hub.part = part
    names = sorted(weights(model))
    last = weights(model)[names[-1]]
    hub.faults.append(Fault(f"PUT /storage/{last}", times=10**6))
    with pytest.raises(ResourceError, match="connection was lost") as caught:
        send()
    assert "not sent twice" in str(caught.value.remedy)
    assert set(hub.files(REPO)) == {".gitattributes"}
    arrived = list(hub.sent)
    assert len(arrived) == len(names) - 1
    hub.faults.clear()
    send()
    assert hub.sent == [*arrived, last]


@pytest.mark.fault(25, "taken up again")
def test_push_that_is_killed_shows_nothing_and_is_taken_up_again(hub: StandIn, send: Send, model: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "uploading" and len(hub.sent) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(progress=stop)
    assert set(hub.files(REPO)) == {".gitattributes"}
    (first,) = hub.sent
    send()
    assert hub.sent.count(first) == 1
    assert len(hub.sent) == len(weights(model))


REQUESTS = (
    "GET /api/whoami-v2", "/api/repos/create", "/tree/", "/preupload/", "/batch", "PUT /storage", "/commit/",
)  # fmt: skip
ANSWERS = (429, 500, 503)


# One wrapper waits for all requests: each of them fails in two ways, and each status comes to two of them or more.
@pytest.mark.parametrize(
    ("where", "status"),
    [(where, status) for at, where in enumerate(REQUESTS) for status in (None, ANSWERS[at % len(ANSWERS)])],
)
def test_failures_that_pass_are_waited_for(
    where: str, status: int | None, hub: StandIn, send: Send, clock: Any
) -> None:
    hub.faults.append(Fault(where, status, times=2, headers={"Retry-After": "7"} if status == 429 else {}))
    send()
    assert hub.faults[0].times == 0
    assert len(clock.waits) == 2
    assert all(wait >= (7 if status == 429 else 1) for wait in clock.waits)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: StandIn, send: Send) -> None:
    hub.faults.append(Fault("/commit/", served=True))
    send()
    assert len(hub.repos[REPO].commits) == 2  # the first one is the hub's own


@pytest.mark.parametrize(
    ("where", "status", "kind", "problem", "remedy"),
    [
        ("whoami", 401, OutputError, "answered 401 while logging in", "expired"),
        ("/commit/", 401, OutputError, "answered 401 while committing", "expired"),
        ("/api/repos/create", 403, OutputError, "answered 403 while creating", "may not write"),
        ("/commit/", 403, OutputError, "answered 403", "may not write"),
        ("/tree/", 404, OutputError, "answered 404 while listing", "OWNER/NAME"),
        ("/api/repos/create", 409, OutputError, "answered 409", "something else"),
        ("/commit/", 412, OutputError, "answered 412", "again"),
        ("/tree/", 429, ResourceError, "answered 429", "wait a little"),
        ("/commit/", 500, ResourceError, "answered 500", "not sent twice"),
        ("/tree/", None, ResourceError, "connection was lost while listing", "not sent twice"),
    ],
)
def test_failures_that_stay_are_told_with_a_remedy(
    where: str,
    status: int | None,
    kind: type[PolysafeError],
    problem: str,
    remedy: str,
    hub: StandIn,
    send: Send,
) -> None:
    hub.faults.append(Fault(where, status, times=10**6))
    with pytest.raises(kind) as caught:
        send()
    assert problem in str(caught.value)
    assert remedy in str(caught.value.remedy)
    assert TOKEN not in str(caught.value)


def test_a_long_wait_is_the_users_to_choose(hub: StandIn, send: Send, clock: Any) -> None:
    hub.faults.append(Fault("whoami", 429, headers={"Retry-After": "3600"}))
    with pytest.raises(ResourceError) as caught:
        send()
    assert "wait 3600 s" in str(caught.value.remedy)
    assert clock.waits == []


def test_token_that_expires_on_the_way(hub: StandIn, send: Send, model: Path) -> None:
    def expire(what: str, done: int, total: int) -> None:
        if what == "uploading" and hub.sent:
            hub.token = "another"

    with pytest.raises(OutputError, match="401") as caught:
        send(progress=expire)
    assert "--token-env" in str(caught.value.remedy)
    arrived = list(hub.sent)
    hub.token = TOKEN
    send()
    assert hub.sent[: len(arrived)] == arrived
    assert len(hub.sent) == len(set(hub.sent)) == len(weights(model))


def test_wrong_token_and_no_token(hub: StandIn, send: Send) -> None:
    with pytest.raises(OutputError, match="401"):
        send(token="hf_wrong")
    with pytest.raises(OutputError, match="nobody is logged in") as caught:
        send(token=None)
    assert "hf auth login" in str(caught.value.remedy)
    assert hub.repos == {}


def test_token_that_may_only_read(hub: StandIn, send: Send) -> None:
    hub.role = "read"
    with pytest.raises(OutputError, match="may only read"):
        send()


def test_offline_client(hub: StandIn, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _http.close_session()
    try:
        with pytest.raises(ResourceError, match="offline"):
            send()
    finally:
        monkeypatch.undo()
        _http.close_session()


@pytest.mark.fault(25, "private by default")
def test_public_only_when_asked(hub: StandIn, send: Send) -> None:
    assert not send(public=True).private
    assert not hub.repos[REPO].private
    with pytest.raises(OutputError, match="public") as caught:
        send()
    assert "--public" in str(caught.value.remedy)


def test_private_repository_stays_private(hub: StandIn, send: Send) -> None:
    send()
    assert send(public=True).private
    assert hub.repos[REPO].private


@pytest.mark.hostile("publishing")
def test_somebody_elses_model_is_not_written_over(hub: StandIn, send: Send) -> None:
    repo = hub.repos[REPO] = Repo(private=True)
    repo.commit("theirs", {"config.json": (b"{}", False), "model.safetensors": (b"weights", True)})
    with pytest.raises(OutputError, match="did not put there"):
        send()
    assert set(hub.files(REPO)) == {"config.json", "model.safetensors"}


def test_leftovers_of_an_earlier_model_go_and_other_files_stay(hub: StandIn, send: Send) -> None:
    send()
    repo = hub.repos[REPO]
    tree = {**repo.tree("main"), "model-00099-of-00099.safetensors": (b"old", True), "samples.png": (b"x", False)}
    repo.commit("by hand", tree)
    done = send()
    assert "model-00099-of-00099.safetensors" not in hub.files(REPO)
    assert done.foreign == ("samples.png",)
    assert hub.files(REPO)["samples.png"] == b"x"
    assert hub.files(REPO)[".gitattributes"] == GITATTRIBUTES


@pytest.mark.hostile("publishing")
def test_a_hub_that_keeps_something_else_is_found_out(hub: StandIn, send: Send) -> None:
    original = Repo.commit

    def garble(self: Repo, message: str, tree: dict[str, tuple[bytes, bool]]) -> str:
        broken = {path: (b"?" if path == "config.json" else data, large) for path, (data, large) in tree.items()}
        return original(self, message, broken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repo, "commit", garble)
        with pytest.raises(VerificationError, match=r"does not hold what was sent: config\.json"):
            send()
    send()
    assert hub.files(REPO)["config.json"] != b"?"


@pytest.mark.hostile("publishing")
@pytest.mark.parametrize("damage", ["change", "remove", "card"])
def test_an_output_that_is_not_as_it_was_written_is_refused(damage: str, hub: StandIn, send: Send, model: Path) -> None:
    name = "README.md" if damage == "card" else min(weights(model))
    if damage == "remove":
        (model / name).unlink()
    else:
        data = bytearray((model / name).read_bytes())
        data[-1] ^= 1
        (model / name).write_bytes(data)
    with pytest.raises(VerificationError, match=name):
        send()
    assert hub.calls == []


def test_licence_has_to_be_settled(hub: StandIn, send: Send, model: Path) -> None:
    card = load_card(model)
    assert card.settled_licence == "apache-2.0"
    text = (model / "polysafe/card.json").read_text().replace('"id": "apache-2.0"', '"id": null')
    replace_files(model, {"polysafe/card.json": text.encode()})
    with pytest.raises(RecipeError, match="licence of the result is not settled") as caught:
        send()
    assert "--license" in str(caught.value.remedy)
    assert hub.calls == []
    assert preview(model, REPO).objections
    assert preview(model, REPO, licence="mit").objections == []
    send(licence="MIT")
    assert b"\nlicense: mit\n" in hub.files(REPO)["README.md"]
    assert load_card(model).licence == "mit"
    send()


def test_dry_run_contacts_nobody_and_tells_exactly_what_would_go(
    hub: StandIn, send: Send, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(model)
    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", lambda *_: pytest.fail("a dry run contacts somebody"))
        seen = preview(model, REPO)
    assert snapshot(model) == before
    assert hub.calls == []
    assert not seen.public
    done = send()
    assert done.publication.to_json() == seen.to_json()
    sizes = {item.path: (item.size, item.sha256) for item in seen.items}
    arrived = hub.files(REPO)
    assert {path: size for path, (size, _) in sizes.items()} == {
        path: len(data) for path, data in arrived.items() if path != ".gitattributes"
    }
    assert seen.to_json()["card"].encode() == arrived["README.md"]


@pytest.mark.hostile("publishing")
@pytest.mark.parametrize("repo", ["model", "a/b/c", "a/b?x", "a b/c", "../etc", "team/--x", "team/", "тим/model"])
def test_names_that_are_none(repo: str, hub: StandIn, model: Path) -> None:
    with pytest.raises(PolysafeError, match="name of a repository"):
        push(model, repo, token=TOKEN, endpoint=hub.url)
    assert all("storage" not in call for call in hub.calls)


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    for name in (
        *(
            "results.json",
            "report/index.html",
            "report/report.json",
            "reproduce/recipe.yaml",
            "reproduce/records.jsonl",
        ),
        *("before/records.jsonl", "before/run.json", "after/records.jsonl", "after/run.json", "edit/edit.json"),
        "report/.index.html.1.polysafe-tmp",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    return folder


@pytest.mark.fault(25, "answers only when asked for")
def test_reports_and_answers_go_only_when_asked_for(hub: StandIn, send: Send, evaluation: Path, tmp_path: Path) -> None:
    def sent() -> set[str]:
        return {path for path in hub.files(REPO) if path.startswith("evaluation/")}

    send()
    assert sent() == set()
    send(report=evaluation)
    some = {f"evaluation/{name}" for name in ("results.json", "report/index.html", "report/report.json")}
    assert sent() == {*some, "evaluation/reproduce/recipe.yaml"}
    send(report=evaluation, answers=True)
    assert {"evaluation/before/records.jsonl", "evaluation/after/records.jsonl"} <= sent()
    assert not any("edit" in path or "tmp" in path for path in sent())
    assert verify_output(download(hub, tmp_path / "got")).ok
    send()
    assert sent() == set()


@pytest.mark.fault(25, "no token, path or name leaks")
@pytest.mark.hostile("publishing")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{home}/models/base", "folder of this machine"),
        ("/home/alice/models/base", "somebody's folder"),
        (r"C:\\Users\\alice\\models", "somebody's folder"),
        ("hf_" + "a1B2c3D4" * 4, "secret key"),
        ("{host}", "name of this machine"),
    ],
)
def test_places_and_keys_stop_a_push(
    text: str, found: str, hub: StandIn, send: Send, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-node-7")
    said = text.replace("{home}", str(Path.home())).replace("{host}", "gpu-node-7")
    config = {**json.loads((model / "config.json").read_text()), "_name_or_path": said}
    replace_files(model, {"config.json": json.dumps(config).encode()})
    with pytest.raises(VerificationError, match=found) as caught:
        send()
    assert "config.json" in str(caught.value)
    assert "hf_a1" not in str(caught.value)
    assert hub.calls == []
    other, own = ("keys", "places") if found != "secret key" else ("places", "keys")
    with pytest.raises(VerificationError, match=found):
        send(**{other: True})
    send(**{own: True})
    assert "config.json" in hub.files(REPO)


@pytest.mark.hostile("publishing")
@pytest.mark.parametrize("name", ["report", "report/more", "before/more.json"])
def test_links_are_not_published(name: str, send: Send, hub: StandIn, evaluation: Path, tmp_path: Path) -> None:
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (tmp_path / "private" / "letter.txt").write_text("private")
    place = evaluation / name
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(tmp_path / "private")
    with pytest.raises(VerificationError, match="is a link; only files of the evaluation itself") as caught:
        send(report=evaluation, answers=True)
    assert caught.value.where == place
    assert hub.calls == []


@pytest.mark.hostile("publishing")
def test_a_member_that_leads_elsewhere_is_not_published(send: Send, model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").rename(tmp_path / "elsewhere")
    (model / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match="is a link that leads out"):
        send()
