"""The names of images, and the messages of engines about them."""

from __future__ import annotations

import pytest

from lyceum_magic.server.runners.engine.images import (
    PullProgress,
    parse_reference,
    why_not_pulled,
)

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("text", "registry", "meaning"),
    [
        ("python", "docker.io", "python:latest"),
        ("python:3.12", "docker.io", "python:3.12"),
        ("library/python", "docker.io", "library/python:latest"),
        ("jupyter/base-notebook:latest", "docker.io", "jupyter/base-notebook:latest"),
        ("localhost/python:test", "localhost", "localhost/python:test"),
        ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000", "127.0.0.1:5000/a/b:1"),
        ("myhost:5000/tool", "myhost:5000", "myhost:5000/tool:latest"),
        ("[::1]:5000/tool", "[::1]:5000", "[::1]:5000/tool:latest"),
        ("GHCR.io/team/a_b__c-d.e:V1", "GHCR.io", "GHCR.io/team/a_b__c-d.e:V1"),
        (f"python@{DIGEST}", "docker.io", f"python@{DIGEST}"),
        (f"quay.io/python:3@{DIGEST}", "quay.io", f"quay.io/python@{DIGEST}"),
    ],
)
def test_a_name_means_one_image(text: str, registry: str, meaning: str) -> None:
    reference = parse_reference(text)
    assert (reference.registry, str(reference)) == (registry, meaning)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Python",
        "a b",
        "python:",
        "python:3.12 ",
        "python\n",
        "/python",
        "a//b",
        "python:-x",
        "-python",
        "https://ghcr.io/a/b",
        "python@sha256:abc",
        "a" * 256,
        f"python:{'t' * 129}",
        "pythön",
    ],
)
def test_other_texts_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an image"):
        parse_reference(text)


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    detail = {"current": current, "total": total}
    return {"id": layer, "status": "Downloading", "progressDetail": detail}


def test_progress_is_the_share_of_all_layers_that_are_known() -> None:
    progress = PullProgress()
    assert progress.after({"status": "Pulling from library/python", "id": "3.12"}) == 0
    assert progress.after({"status": "Pulling fs layer", "progressDetail": {}, "id": "a"}) == 0
    assert progress.after(downloading("a", 30, 100)) == 30
    assert progress.after(downloading("b", 0, 100)) == 15
    assert progress.after({"status": "Download complete", "progressDetail": {}, "id": "a"}) == 50
    assert progress.after({"status": "Already exists", "progressDetail": {}, "id": "c"}) == 50
    assert progress.after({"status": "Pull complete", "progressDetail": {}, "id": "b"}) == 100


@pytest.mark.parametrize(
    ("reason", "signed_in", "sentence"),
    [
        (
            "manifest for python:nope not found: manifest unknown: manifest unknown",
            False,
            "the registry docker.io has no image python:nope",
        ),
        (
            "pull access denied for nope, repository does not exist or may require 'docker login'",
            False,
            "has no image python:nope, or gives it only to those who sign in",
        ),
        (
            'Head "https://ghcr.io/v2/a/manifests/1": unauthorized',
            True,
            "does not accept the credentials for python:nope",
        ),
        (
            'Get "http://127.0.0.1:5000/v2/": no basic auth credentials',
            False,
            "only to those who sign in; give docker_registry_credential_type",
        ),
        (
            "dial tcp: lookup registry.example on 127.0.0.1:53: no such host",
            False,
            "python:nope cannot be pulled, for the registry docker.io cannot be reached: dial tcp",
        ),
        (
            "no matching manifest for linux/arm64/v8 in the manifest list entries",
            False,
            "no variant of the image python:nope for this machine's processor",
        ),
        (
            "failed to register layer: write /x: no space left on device",
            False,
            "the disk has no room for the image python:nope",
        ),
        ("something new", True, "the image python:nope cannot be pulled: something new"),
    ],
)
def test_each_reason_has_its_own_sentence(reason: str, signed_in: bool, sentence: str) -> None:
    reference = parse_reference("python:nope")
    assert sentence in why_not_pulled(reference, reason, signed_in=signed_in)
