"""`verify` and `verify_shared`: the requests that they accept, and those that they refuse."""

from __future__ import annotations

import base64
import contextlib
import email.message
import json
import time
from datetime import UTC, datetime
from typing import Any
from wsgiref.headers import Headers as WsgiHeaders

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from starlette.datastructures import Headers as StarletteHeaders

from lyceum_magic.callbacks import (
    MAX_BODY_BYTES,
    InvalidCallback,
    verification,
    verify,
    verify_shared,
)
from lyceum_magic.config import Secret
from lyceum_magic.protocol.signatures import sign

from .signed import NEW_SECRET, NOW_S, SECRET, body, headers

#: Secret, id, time, body, signature: as the documentation of the specification's authors and the
#: tests of its reference implementations print them.
PUBLISHED = [
    (
        "whsec_plJ3nmyCDGBKInavdOK15jsl", "msg_loFOjxBNrRLzqYUf", 1731705121,
        b'{"event_type":"ping","data":{"success":true}}',
        "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    ),
    (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
        b'{"test": 2432232314}',
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
]  # fmt: skip


def verified(content: bytes, sent: Any, secrets: Any = SECRET, **options: Any) -> Any:
    return verify(content, sent, secrets, now=lambda: NOW_S, **options)


@pytest.mark.parametrize(("secret", "callback_id", "sent_at_s", "content", "signature"), PUBLISHED)
def test_published_vectors_are_made_and_taken(secret, callback_id, sent_at_s, content, signature):
    assert sign(secret, callback_id, sent_at_s, content) == signature
    sent = {
        "webhook-id": callback_id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": signature,
    }
    event = verify(content, sent, secret, now=lambda: sent_at_s)
    assert (event.id, event.raw) == (callback_id, json.loads(content))
    for tampered in (content + b" ", content.replace(b"t", b"T")):
        with pytest.raises(InvalidCallback, match="None of the callback's signatures"):
            verify(tampered, sent, secret, now=lambda: sent_at_s)


keys = st.binary(min_size=24, max_size=64).map(
    lambda key: f"whsec_{base64.b64encode(key).decode()}"
)
ids = st.text("abcABC019_-.", min_size=1, max_size=40)
bodies = st.dictionaries(
    st.text("abcé\u2028\0"), st.text() | st.integers() | st.none(), max_size=4
).map(lambda members: json.dumps(members, ensure_ascii=False).encode())


@given(secret=keys, callback_id=ids, content=bodies)
def test_the_reference_package_takes_what_we_sign(secret, callback_id, content):
    sent = headers(content, secret=secret, callback_id=callback_id, sent_at_s=int(time.time()))
    assert Webhook(secret).verify(content, sent) == json.loads(content)


@given(secret=keys, callback_id=ids, content=bodies, sent_at_s=st.integers(0, 10**10))
def test_we_take_what_the_reference_package_signs(secret, callback_id, content, sent_at_s):
    sent_at = datetime.fromtimestamp(sent_at_s, UTC)
    signature = Webhook(secret).sign(callback_id, sent_at, content.decode())
    sent = {
        "webhook-id": callback_id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": signature,
    }
    assert sign(secret, callback_id, sent_at_s, content) == signature
    event = verify(content, sent, secret, now=lambda: sent_at_s)
    assert (event.id, event.sent_at) == (callback_id, sent_at)


ANY_TEXT = st.text(max_size=60)
HOSTILE_HEADER = st.one_of(
    ANY_TEXT,
    st.binary(max_size=60),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["nan", "inf", "1e9", "١٢٣", "\ud800", "", " ", "v1,", "v1", ",,,", "v1,é="]),
    st.none(),
)
HOSTILE_BODY = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.none()
            for name in ("execution_id", "status", "return_code", "error", "labels", "metadata",
                         "created_at", "started_at", "finished_at", "run_name")
        },
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
DEEP = b"[" * 100_000
WORST_BODIES = [
    DEEP,
    b'{"a":' * 10_000,
    b"[" * 60_000 + b"]" * 5_000,
    b"x" * 200_000,
    b'{"return_code": 1' + b"0" * 30_000 + b"}",
    b'{"return_code": NaN}',
    b'{"return_code": -Infinity}',
    b'\xef\xbb\xbf{"a": 1}',
    '{"a": 1}'.encode("utf-16"),
    b'{"a": "\xff"}',
    b"",
    b"null",
    b'"text"',
    b"[]",
    b'{"execution_id": 5}',
    b'{"execution_id": "../secrets"}',
    b'{"execution_id": "\\ud800"}',
    b'{"execution_id": "a\\u0000"}',
]


NAMES = ["webhook-id", "webhook-timestamp", "webhook-signature"]
HOSTILE_HEADERS = st.fixed_dictionaries(dict.fromkeys(NAMES, HOSTILE_HEADER)) | st.dictionaries(
    st.sampled_from([*NAMES, "Webhook-Id", b"webhook-id"]) | ANY_TEXT | st.binary(max_size=9),
    HOSTILE_HEADER,
)


@given(content=HOSTILE_BODY, sent=HOSTILE_HEADERS)
def test_a_stranger_gets_one_class_of_refusal(content, sent):
    with pytest.raises(InvalidCallback):
        verified(content, sent)
    with pytest.raises(InvalidCallback):
        verify_shared(content, "wrong", "right", sent)


@given(content=HOSTILE_BODY)
@example(content=b'{"error": "\\ud800", "metadata": {"\\udfff": "\\ud800"}, "labels": ["\\ud800"]}')
@example(content=b'{"created_at": "9999-12-31T23:59:59-23:59", "started_at": "0001-01-01+23:59"}')
@example(content=b'{"return_code": 99999999999999999999, "status": "\\ud800"}')
def test_what_is_signed_is_an_event_or_that_refusal(content):
    with contextlib.suppress(InvalidCallback):
        event = verified(content, headers(content))
        # Whatever is typed fits into a database and into a file.
        texts = [event.id, event.run_id or "", event.error, *event.labels, *event.metadata.values()]
        assert [text.encode() for text in texts]
        assert event.return_code is None or -(2**63) <= event.return_code < 2**63
        assert isinstance(hash(event), int)


@pytest.mark.parametrize("content", WORST_BODIES, ids=range(len(WORST_BODIES)))
def test_a_worst_body_is_refused_in_one_sentence_although_it_is_signed(content):
    for receive in (
        lambda: verified(content, headers(content)),
        lambda: verify_shared(content, "right", "right"),
    ):
        with pytest.raises(InvalidCallback, match=r"\A[^\n]{20,140}\.\Z") as refusal:
            receive()
        assert refusal.value.__cause__ is None
        assert refusal.value.__context__ is None  # it would hold the body


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-timestamp": "0" + str(NOW_S)},
        {"webhook-timestamp": f"+{NOW_S}"},
        {"webhook-timestamp": f"{NOW_S}.0"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "١٧٩٠٠٠٠٠٠٠"},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-id": "a b"},
        {"webhook-id": "m" * 257},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"Webhook-Id": "msg_1"},
        {"WEBHOOK-SIGNATURE": "v1,AAAA"},
        {"HTTP_WEBHOOK_TIMESTAMP": str(NOW_S)},
    ],
    ids=str,
)
def test_headers_that_were_changed_or_doubled_are_refused(change):
    with pytest.raises(InvalidCallback, match=r"\.\Z"):
        verified(body(), headers(body()) | change)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_callback_without_one_of_the_headers_is_not_signed(missing):
    sent = headers(body())
    del sent[missing]
    with pytest.raises(InvalidCallback, match="not signed"):
        verified(body(), sent)


def test_only_a_v1_signature_counts_wherever_it_stands():
    good = headers(body())["webhook-signature"]
    for signatures in (
        f"{good} v2,AAAA",
        f"v1a,AAAA v1,AAAA {good}",
        f"nonsense , v1 {good}",
    ):
        assert verified(body(), headers(body()) | {"webhook-signature": signatures}).id == "msg_1"
    for signatures in (good.replace("v1,", "v2,"), good.replace("v1,", "v1a,"), good[3:]):
        with pytest.raises(InvalidCallback):
            verified(body(), headers(body()) | {"webhook-signature": signatures})


def test_either_of_two_secrets_is_enough():
    for secret in (SECRET, NEW_SECRET):
        assert verified(body(), headers(body(), secret=secret), [NEW_SECRET, SECRET]).id == "msg_1"
    both = (
        f"{headers(body(), secret=NEW_SECRET)['webhook-signature']} "
        + headers(body())["webhook-signature"]
    )
    assert verified(body(), headers(body()) | {"webhook-signature": both}, SECRET).id == "msg_1"
    with pytest.raises(InvalidCallback):
        verified(body(), headers(body()), NEW_SECRET)


@pytest.mark.parametrize(
    ("content", "signatures", "hashed"),
    [
        (b"x" * (MAX_BODY_BYTES + 1), "v1,AAAA", 0),
        (body(), "a " * 15_000, 0),
        (body(), "a" * 15_000, 0),
        (b"x" * MAX_BODY_BYTES, "a " * 2000, 2),
    ],
    ids=["large", "many", "long", "most"],
)
def test_a_stranger_makes_no_secret_hash_twice(monkeypatch, content, signatures, hashed):
    made = []
    monkeypatch.setattr(verification, "sign", lambda *signed: made.append(signed) or sign(*signed))
    sent = headers(b"") | {"webhook-signature": signatures}
    with pytest.raises(InvalidCallback, match=r"larger|longer|None of"):
        verified(content, sent, [SECRET, NEW_SECRET])
    assert len(made) == hashed


@pytest.mark.parametrize("off_s", [300, -300])
def test_clocks_may_differ_by_the_tolerance_either_way(off_s):
    assert verified(body(), headers(body(), sent_at_s=NOW_S + off_s)).id == "msg_1"
    further = headers(body(), sent_at_s=NOW_S + off_s + (1 if off_s > 0 else -1))
    with pytest.raises(InvalidCallback, match="more than 300 s from now"):
        verified(body(), further)
    assert verified(body(), further, tolerance_s=400).id == "msg_1"
    with pytest.raises(InvalidCallback):
        verified(body(), headers(body()), tolerance_s=float("nan"))


SENT = list(headers(body()).items())


def _message() -> email.message.Message:
    message = email.message.Message()
    for name, value in SENT:
        message[name.title()] = value
    return message


@pytest.mark.parametrize(
    "sent",
    [
        dict(SENT),
        {name.title(): value for name, value in SENT},
        {name.upper(): value for name, value in SENT},
        {name.encode(): value.encode() for name, value in SENT},
        SENT,
        [(name.encode(), value.encode()) for name, value in SENT],  # ASGI's scope
        StarletteHeaders(dict(SENT)),
        WsgiHeaders(SENT),
        _message(),
        # WSGI's environment, which Django calls META.
        {"HTTP_" + name.upper().replace("-", "_"): value for name, value in SENT}
        | {"wsgi.version": (1, 0), "wsgi.multithread": True},
        dict(SENT) | {"other": None, 5: 6},
    ],
    ids=["dict", "title", "upper", "bytes", "pairs", "asgi", "starlette", "wsgiref", "http.server",
         "environ", "?"],
)  # fmt: skip
def test_headers_of_every_framework_are_read(sent):
    assert verified(body(), sent).id == "msg_1"


def test_a_doubled_header_of_a_framework_is_seen():
    with pytest.raises(InvalidCallback, match="several `webhook-id`"):
        verified(body(), WsgiHeaders([*SENT, SENT[0]]))


@pytest.mark.parametrize(
    "secrets", ["", [], "whsec_", "whsec_***", [SECRET, ""], [SECRET, "é"], None]
)
def test_a_wrong_secret_of_ones_own_is_ones_own_fault_whatever_came(secrets):
    for content, sent in ((body(), headers(body())), (DEEP, {})):
        with pytest.raises(ValueError, match="secret") as mistake:
            verified(content, sent, secrets)
        assert not isinstance(mistake.value, InvalidCallback)
        assert "***" not in str(mistake.value)


@pytest.mark.parametrize(
    ("receive", "expected"),
    [
        (lambda: verified('{"a": 1}', SENT), "in bytes, not str"),
        (lambda: verified({"a": 1}, SENT), "in bytes, not dict"),
        (lambda: verify_shared({"a": 1}, "right", "right"), "in bytes, not dict"),
        (lambda: verified(body(), SENT, SECRET.encode()), "is a text, .* not bytes"),
        (lambda: verified(body(), SENT, [SECRET.encode()]), "is a text, not bytes"),
        (lambda: verify_shared(body(), "canary", b"canary"), "is a text, .* not bytes"),
        (lambda: verify_shared(body(), "canary", [["canary"]]), "is a text, not list"),
        (lambda: verify_shared(body(), b"canary", "canary"), "is a text, not bytes"),
        (lambda: verify_shared(body(), ["canary"], "canary"), "is a text, not list"),
        (lambda: verified(body(), None), "not a NoneType"),
        (lambda: verified(body(), "webhook-id: canary"), "not a str"),
        (lambda: verified(body(), ["webhook-id: canary"]), "not a list of other things"),
        (lambda: verify_shared(body(), "a", "a", ["canary"]), "not a list of other things"),
    ],
)
def test_a_wrong_argument_is_ones_own_fault(receive, expected):
    with pytest.raises(TypeError, match=expected) as mistake:
        receive()
    assert "canary" not in str(mistake.value)
    assert SECRET not in str(mistake.value)


def test_no_refusal_quotes_a_secret_or_a_signature():
    sent = headers(body())
    said = []
    for content, changed, secrets in (
        (body(), sent, NEW_SECRET),
        (body(error="other"), sent, SECRET),
        (body(), sent | {"webhook-timestamp": "yesterday"}, SECRET),
        (body(), sent | {"webhook-signature": "é" + sent["webhook-signature"]}, SECRET),
    ):
        with pytest.raises(InvalidCallback) as refusal:
            verified(content, changed, secrets)
        said.append(repr(refusal.value))
    with pytest.raises(InvalidCallback) as refusal:
        verify_shared(body(), "guess-of-mine", "token-of-mine")
    said.append(repr(refusal.value))
    text = " ".join(said)
    for hidden in (SECRET, NEW_SECRET, sent["webhook-signature"], "guess-of-mine", "token-of-mine"):
        assert hidden not in text
        assert hidden[3:15] not in text


def test_the_secret_of_a_url_lets_an_unsigned_callback_in():
    event = verify_shared(body(), "a-long-token", "a-long-token")
    assert (event.id, event.sent_at) == (f"{event.run_id}/failed", None)
    assert verify_shared(body(), "old", ["new", "old"]).run_id == event.run_id
    # The embedded server's headers are read, if they are handed over.
    assert verify_shared(body(), "old", "old", {"webhook-id": "msg_7"}).id == "msg_7"
    for given_secret in (None, "", "a-long-toke", "A-LONG-TOKEN", "a-long-token ", "\ud800", "é"):
        with pytest.raises(InvalidCallback, match="does not bring the secret"):
            verify_shared(body(), given_secret, "a-long-token")


@pytest.mark.parametrize("secrets", ["", [], ["token", ""], None])
def test_an_empty_secret_lets_nobody_in(secrets):
    with pytest.raises(ValueError, match="needs a secret"):
        verify_shared(body(), "", secrets)


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_a_body_may_come_in_any_kind_of_bytes(kind: Any) -> None:
    content = body()
    assert verified(kind(content), headers(content)) == verified(content, headers(content))
    shared = verify_shared(kind(content), "token", "token")
    assert shared == verify_shared(content, "token", "token")
    with pytest.raises(InvalidCallback, match="larger"):
        verified(kind(b" " * (MAX_BODY_BYTES + 1)), headers(content))


@pytest.mark.parametrize("kind", [list, tuple])
def test_values_of_headers_may_come_in_lists(kind: Any) -> None:
    content = body()
    listed = {name: kind([value]) for name, value in headers(content).items()}
    assert verified(content, listed).id == verified(content, headers(content)).id
    assert verified(content, list(listed.items())).id == verified(content, headers(content)).id
    listed["webhook-id"] = kind(["msg_1", "msg_2"])
    with pytest.raises(InvalidCallback, match="several `webhook-id` headers"):
        verified(content, listed)
    listed["webhook-id"] = kind([])
    with pytest.raises(InvalidCallback, match="not signed"):
        verified(content, listed)
    listed["webhook-id"] = kind([["msg_1"]])
    with pytest.raises(InvalidCallback, match="no ASCII text"):
        verified(content, listed)


def test_a_hidden_secret_is_taken_alone_or_among_others() -> None:
    content = body()
    sent = headers(content)
    assert verified(content, sent, Secret(SECRET)).id == verified(content, sent).id
    assert verified(content, sent, [NEW_SECRET, Secret(SECRET)]).id == verified(content, sent).id
    assert verify_shared(content, "token", Secret("token")).run_id is not None
    with pytest.raises(ValueError, match="not empty"):
        verify_shared(content, "token", Secret(""))
