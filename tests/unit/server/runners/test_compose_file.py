"""The limits of a Compose file, before and after Compose has read it."""

from __future__ import annotations

from typing import Any

import pytest

from lyceum_magic.server.runners.base import InvalidField
from lyceum_magic.server.runners.compose.command import failure_of
from lyceum_magic.server.runners.compose.file import read_compose_file
from lyceum_magic.server.runners.compose.model import (
    Model,
    awaited,
    bind_paths,
    complete_model,
    images,
    replicas,
    with_environment,
)
from lyceum_magic.server.runners.compose.policy import check_model
from lyceum_magic.server.runners.compose.yaml_lines import line_of

FOLDER = "/runs/1/work"


def refusal_of(text: str) -> str:
    with pytest.raises(InvalidField) as caught:
        read_compose_file(text)
    assert caught.value.field == "compose_file_code"
    return str(caught.value)


def web(**service: Any) -> Model:
    """A model of one service, as Compose writes it."""
    return {"name": "x", "services": {"web": {"image": "tool", **service}}}


# --- reading ---------------------------------------------------------------------------------

SERVICE = "services:\n  web:\n    image: tool\n"


def test_a_file_is_read_as_it_is():
    assert read_compose_file(SERVICE) == {"services": {"web": {"image": "tool"}}}


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("22:22", "22:22"),  # a number to base 60 in YAML 1.1
        ("yes", "yes"),
        ("off", "off"),
        ("2020-01-01", "2020-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("0440", 0o440),
        ("0o17", 15),
        ("0x1f", 31),
        ("1_000", 1000),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
        ("09", 9.0),
        (".inf", ".inf"),
        ("'1'", "1"),
    ],
)
def test_scalars_mean_what_they_mean_to_compose(scalar: str, value: object):
    content = read_compose_file(f"{SERVICE}x-value: {scalar}\n")
    assert content["x-value"] == value
    assert type(content["x-value"]) is type(value)


def test_anchors_and_merge_keys_are_written_out():
    text = "x-base: &base {image: tool, tty: true}\nservices: {web: {<<: *base, tty: false}}"
    assert read_compose_file(text)["services"] == {"web": {"image": "tool", "tty": False}}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("services: [1\n", "line 2, column 1"),
        ("a: b\n\tc: d\n", "line 2, column 1"),
        ("a: b: c\n", "line 1, column 5"),
        ("services:\n  web:\n    image: x\n   command: y\n", "line 4, column 4"),
        ("a: 'open\n", "line 2, column 1"),
        ("a: *unknown\n", "line 1, column 4"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        ("a: !!python/object:os.system {}\n", "line 1, column 4"),
        ("a: !reset\n", "line 1, column 4"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1"),
        ("a: 1\nb: \x07\n", "line 2, column 4"),
        ("? [a]\n: b\n", "line 1, column 3"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(text: str, where: str):
    sentence = refusal_of(text)
    assert sentence.startswith("The Compose file is not valid YAML: ")
    assert sentence.endswith(f" in {where}.")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "should be a mapping with the key `services`, as every Compose file is, and is empty"),
        ("- a", "is a list"),
        ("just text", "is a text"),
        ("42", "is a single value"),
        ("version: '3'", "names no services"),
        ("services: {}", "names no services"),
        ("services: []", "names no services"),
        ("services: [web]", "not a list"),
        ("services: web", "not a text"),
        (f"{SERVICE}include: [other.yaml]", "`include`"),
        (f"{SERVICE}models: {{m: {{model: x}}}}", "`models`"),
        (f"{SERVICE}    build: .", "`build` in service `web`"),
        (f"{SERVICE}    build: https://github.com/a/b.git", "`build` in service `web`"),
        (f"{SERVICE}    env_file: .env", "`env_file` in service `web`"),
        (f"{SERVICE}    env_file: [{{path: x, required: false}}]", "`env_file`"),
        (f"{SERVICE}    label_file: x", "`label_file`"),
        (f"{SERVICE}    develop: {{watch: []}}", "`develop`"),
        (f"{SERVICE}    provider: {{type: x}}", "`provider`"),
        (f"{SERVICE}    credential_spec: {{file: x}}", "`credential_spec`"),
        (f"{SERVICE}    post_start: [{{command: x}}]", "`post_start`"),
        (f"{SERVICE}    pre_stop: [{{command: x}}]", "`pre_stop`"),
        (f"{SERVICE}    extends: {{file: x, service: y}}", "extends service `web` from a file"),
        (f"{SERVICE}    <<: {{build: .}}", "`build` in service `web`"),
        (f"{SERVICE}configs: {{c: {{external: true}}}}", "`c` of its configs external"),
        (f"{SERVICE}x: &a [*a]", "more than 100000 values"),
        (f"{SERVICE}x: !!timestamp hello", "a value does not fit its type"),
        (f"{SERVICE}x: !!bool foo", "a value does not fit its type"),
        (f"{SERVICE}x: !!int ''", "a value does not fit its type"),
        (f"{SERVICE}x: !!timestamp 2020-01-01", "a value that a Compose file cannot have"),
        (f"{SERVICE}x: !!float .nan", "a value that a Compose file cannot have"),
        (f"{SERVICE}x: {'[' * 5000}", "nested too deeply"),
        (f"{SERVICE}x: {'9' * 10_000}", "is not valid YAML"),
        ("x" * (1 << 20) + "y", "at most 1048576 characters"),
    ],
)
def test_what_could_not_run_here_is_refused(text: str, says: str):
    assert says in refusal_of(text)


def test_aliases_cannot_make_a_small_file_large():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 100000 values" in refusal_of(SERVICE + "\n".join(rows))


def test_extending_a_service_of_the_same_file_is_fine():
    assert read_compose_file(f"{SERVICE}    extends: {{service: web}}")
    assert read_compose_file(f"{SERVICE}    extends: web")


def test_a_configs_content_is_fine():
    assert read_compose_file(f"{SERVICE}configs: {{c: {{content: hello}}}}")


# --- what a model may ask for ----------------------------------------------------------------


def bind(source: str, **more: Any) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": "/x", **more}


@pytest.mark.parametrize(
    ("model", "wish"),
    [
        (web(privileged=True), "`privileged` in service `web`"),
        (web(cap_add=["NET_ADMIN"]), "`cap_add`"),
        (web(devices=[{"source": "/dev/fuse"}]), "`devices`"),
        (web(device_cgroup_rules=["c 1:3 r"]), "`device_cgroup_rules`"),
        (web(cgroup_parent="x"), "`cgroup_parent`"),
        (web(external_links=["other"]), "`external_links`"),
        (web(runtime="other"), "`runtime`"),
        (web(oom_kill_disable=True), "`oom_kill_disable`"),
        (web(use_api_socket=True), "`use_api_socket`"),
        (web(blkio_config={"weight": 3}), "`blkio_config`"),
        (web(isolation="process"), "`isolation`"),
        (web(network_mode="host"), "`network_mode: host`"),
        (web(network_mode="container:other"), "`network_mode: container:other`"),
        (web(network_mode="somebodys_network"), "`network_mode: somebodys_network`"),
        (web(pid="host"), "`pid: host`"),
        (web(ipc="host"), "`ipc: host`"),
        (web(uts="host"), "`uts: host`"),
        (web(cgroup="host"), "`cgroup: host`"),
        (web(userns_mode="host"), "`userns_mode: host`"),
        (web(security_opt=["apparmor:unconfined"]), "`security_opt: apparmor:unconfined`"),
        (web(volumes_from=["container:other"]), "the volumes of `container:other`"),
        (web(volumes=[bind("/")]), "the host path `/`"),
        (web(volumes=[bind("/var/run/docker.sock")]), "the host path `/var/run/docker.sock`"),
        (web(volumes=[bind(f"{FOLDER}/../other")]), "the host path `/runs/1/other`"),
        (web(volumes=[bind(f"{FOLDER}er")]), f"the host path `{FOLDER}er`"),
        (web(volumes=[bind("/a$$b")]), "the host path `/a$b`"),
        (
            web(volumes=[bind(f"{FOLDER}/a", bind={"propagation": "rshared"})]),
            "the propagation of a mount",
        ),
        (web(volumes=[{**bind("x"), "type": "npipe"}]), "a mount of type `npipe`"),
        (
            web(gpus=[{"driver": "cdi", "device_ids": ["vendor.com/device=all"]}]),
            "devices other than GPUs",
        ),
        (
            web(deploy={"resources": {"reservations": {"devices": [{"capabilities": ["tpu"]}]}}}),
            "devices other than GPUs",
        ),
        ({**web(), "networks": {"n": {"external": True}}}, "the external network `n`"),
        ({**web(), "networks": {"n": {"driver": "macvlan"}}}, "for network `n`"),
        ({**web(), "networks": {"n": {"driver_opts": {"parent": "eth0"}}}}, "for network `n`"),
        ({**web(), "volumes": {"v": {"external": True}}}, "the external volume `v`"),
        ({**web(), "volumes": {"v": {"driver": "nfs"}}}, "for volume `v`"),
        ({**web(), "volumes": {"v": {"driver_opts": {"o": "bind"}}}}, "for volume `v`"),
        (
            {**web(), "networks": {"n": {"ipam": {"config": [{"subnet": "8.8.8.0/24"}]}}}},
            "addresses of its own choice for network `n`",
        ),
        (web(oom_score_adj=-1000), "`oom_score_adj`"),
        (web(annotations={"a": "b"}), "`annotations`"),
    ],
)
def test_what_reaches_the_machine_needs_the_server_s_leave(model: Model, wish: str):
    with pytest.raises(InvalidField) as caught:
        check_model(model, FOLDER, allow_privileged=False)
    assert f"asks for {wish}" in str(caught.value) or wish in str(caught.value)
    assert "--allow-privileged" in str(caught.value)
    check_model(model, FOLDER, allow_privileged=True)


@pytest.mark.parametrize(
    "model",
    [
        web(),
        web(privileged=False, cap_add=[], devices=None),
        web(cap_drop=["ALL"], read_only=True, security_opt=["no-new-privileges:true"]),
        web(network_mode="none"),
        web(network_mode="service:db", pid="service:db", ipc="shareable"),
        web(volumes=[bind(f"{FOLDER}/data"), bind(f"{FOLDER}/database")]),
        web(volumes=[bind(FOLDER)]),
        web(volumes=[{"type": "volume", "source": "v", "target": "/v"}, {"type": "tmpfs"}]),
        web(volumes_from=["db"]),
        web(gpus=[{"count": -1}]),
        web(**{"x-note": 1}),
        {**web(), "x-note": 1, "networks": {"n": None}, "volumes": {"v": None}},
        {**web(), "networks": {"default": {"name": "x_default", "ipam": {}, "driver": "bridge"}}},
    ],
)
def test_what_stays_in_its_containers_is_fine(model: Model):
    check_model(model, FOLDER, allow_privileged=False)


@pytest.mark.parametrize("allow_privileged", [True, False])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"services": {}}, "starts no services"),
        (web(invention="of a later Compose"), "`invention` in service `web`"),
        ({**web(), "invention": {}}, "uses `invention`"),
        (
            web(volumes=[bind(f"{FOLDER}/a"), bind(f"{FOLDER}/a/b")]),
            "the path `a/b`, which lies in `a`",
        ),
        (web(volumes=[bind(FOLDER), bind(f"{FOLDER}/a")]), "the path `a`, which lies in `.`"),
    ],
)
def test_some_things_no_server_allows(model: Model, says: str, allow_privileged: bool):
    with pytest.raises(InvalidField, match=says.replace(".", r"\.")):
        check_model(model, FOLDER, allow_privileged=allow_privileged)


# --- what becomes of a model -----------------------------------------------------------------


def completed(model: Model, bucket: str | None = None) -> Model:
    return complete_model(model, project="lyceum-1", labels={"lyceum.run": "1"}, bucket=bucket)


def test_every_part_is_marked_and_named_apart():
    model = {
        **web(labels={"own": "kept"}),
        "networks": {"default": {"name": "fixed"}, "n": None},
        "volumes": {"v": {"name": "fixed"}},
    }
    complete = completed(model)
    assert complete["name"] == "lyceum-1"
    assert complete["services"]["web"]["labels"] == {"own": "kept", "lyceum.run": "1"}
    assert complete["networks"] == {
        "default": {"name": "lyceum-1_default", "labels": {"lyceum.run": "1"}},
        "n": {"name": "lyceum-1_n", "labels": {"lyceum.run": "1"}},
    }
    assert complete["volumes"] == {"v": {"name": "lyceum-1_v", "labels": {"lyceum.run": "1"}}}


def test_a_fixed_name_becomes_a_name_in_the_stack_s_networks():
    networks = {"default": None, "n": {"aliases": ["own"]}}
    service = completed(web(container_name="fixed", networks=networks))["services"]["web"]
    assert "container_name" not in service
    assert service["networks"] == {
        "default": {"aliases": ["fixed"]},
        "n": {"aliases": ["own", "fixed"]},
    }


@pytest.mark.parametrize(("asked", "given"), [({}, True), ({"init": None}, True),
                                              ({"init": False}, False)])  # fmt: skip
def test_an_init_passes_signals_on_unless_a_service_says_otherwise(
    asked: dict[str, Any], given: bool
):
    assert completed(web(**asked))["services"]["web"]["init"] is given


@pytest.mark.parametrize("target", ["/mnt/s3", "/mnt/s3/", "/mnt//s3"])
def test_the_bucket_is_mounted_unless_something_else_is(target: str):
    own = {"type": "volume", "source": "v", "target": target}
    [mount] = completed(web(), "/a$b")["services"]["web"]["volumes"]
    assert mount == {"type": "bind", "source": "/a$$b", "target": "/mnt/s3"}
    assert completed(web(volumes=[own]), "/b")["services"]["web"]["volumes"] == [own]
    assert "volumes" not in completed(web())["services"]["web"]


def test_ports_are_this_machine_s_alone_unless_they_say_otherwise():
    ports = [{"target": 80, "published": "8080"}, {"target": 90, "host_ip": "0.0.0.0"}]
    given = completed(web(ports=ports))["services"]["web"]["ports"]
    assert [port["host_ip"] for port in given] == ["127.0.0.1", "0.0.0.0"]


def test_the_account_s_variables_come_in_and_the_service_s_own_win():
    model = web(environment={"OWN": "1$$", "TAKEN": "own", "ASKED": None, "NOWHERE": None})
    added = {"TAKEN": "secret", "ASKED": "a$b", "MORE": "m"}
    assert with_environment(model, added)["services"]["web"]["environment"] == {
        "OWN": "1$$",
        "TAKEN": "own",
        "ASKED": "a$$b",
        "MORE": "m",
    }
    assert model == web(environment={"OWN": "1$$", "TAKEN": "own", "ASKED": None, "NOWHERE": None})


def test_images_and_replicas_and_paths_are_found():
    mounted = {"type": "image", "source": "data", "target": "/d"}
    model: Model = {
        "services": {
            "a": {"image": "tool", "scale": 3, "volumes": [mounted]},
            "b": {"image": "tool", "deploy": {"replicas": 2}},
            "c": {"image": "other", "volumes": [bind("/x/../y")]},
        }
    }
    assert images(model) == ["tool", "other", "data"]
    assert replicas(model) == {"a": 3, "b": 2, "c": 1}
    assert list(bind_paths(model)) == ["/y"]


# --- why a stack could not be started --------------------------------------------------------

WAITED = "what waits for it was not started"


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        (
            "dependency failed to start: container lyceum-1-my-db-1 is unhealthy",
            f"service `my-db` never became healthy, and {WAITED}",
        ),
        (
            "dependency failed to start: container lyceum-1-db-1 exited (3)",
            f"service `db` ended with code 3 before it was healthy, and {WAITED}",
        ),
        (
            "service \"init\" didn't complete successfully: exit 4",
            f"service `init` ended with code 4, and {WAITED}",
        ),
        (
            "time=\"x\" level=warning msg=\"y\"\nError response from daemon: port is taken.\n",
            "the stack could not be started: port is taken",
        ),
        ("", "the stack could not be started: it gives no reason"),
        (
            "cannot start lyceum-1-web-1: no",
            "the stack could not be started: cannot start `web`: no",
        ),
    ],
)  # fmt: skip
def test_compose_s_complaints_become_sentences(stderr: str, sentence: str):
    assert failure_of(stderr.encode(), "lyceum-1") == sentence


# --- lines -----------------------------------------------------------------------------------

FILE = """\
x-common: &common
  image: tool
services:
  web:
    <<: *common
    ports:
      - "80"
      - published: 1
  "other": {image: x, command: [a,
    b]}
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (["services"], 3),
        (["services", "web", "ports"], 6),
        (["services", "web", "ports", "1", "published"], 8),
        (["services", "web", "image"], 4),  # it comes by way of `<<`
        (["services", "other", "command", "1"], 10),
        (["services", "nosuch"], 3),
        (["nosuch"], None),
        ([], None),
    ],
)
def test_keys_lead_to_a_line(place: list[str], line: int | None) -> None:
    assert line_of(FILE, place) == line


# --- what a stack waits for ------------------------------------------------------------------


def needing(**services: dict[str, str]) -> Model:
    """A model of services, each with what it depends on and the condition."""
    return {
        "services": {
            name: {"depends_on": {other: {"condition": term} for other, term in needed.items()}}
            for name, needed in services.items()
        }
    }


STARTED, DONE = "service_started", "service_completed_successfully"


@pytest.mark.parametrize(
    ("model", "jobs", "waited_for"),
    [
        (needing(db={}, job={"db": STARTED}), {"db", "job"}, {"job"}),
        (needing(db={}, job={"db": STARTED}), {"job"}, {"job"}),
        (needing(one={}, two={}), {"one", "two"}, {"one", "two"}),
        (needing(step={}, job={"step": DONE}), {"step", "job"}, {"job"}),
        (needing(step={}, web={"step": DONE}), {"step"}, {"step", "web"}),
        (needing(train={}, web={"train": STARTED}), {"train"}, {"train"}),
        (needing(web={}, db={}), set(), {"web", "db"}),
    ],
)
def test_a_stack_waits_for_its_last_jobs(
    model: Model, jobs: set[str], waited_for: set[str]
) -> None:
    assert awaited(model, jobs) == waited_for
