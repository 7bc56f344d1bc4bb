"""The connection to a cluster's servers: real servers that die, stand still, and make demands."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import trustme

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Message
from candleshm.cluster.settings import ClusterSettings
from candleshm.errors import ClusterRefused, ClusterUnavailable, ConfigError
from tests.support.commanding import complaint, until
from tests.support.nats_credentials import Identities
from tests.support.nats_servers import NatsServer, Security, nats_cluster, nats_server, tls_of

SECRET = "s3cret-of-the-test"


def settings_of(*servers: NatsServer, **keys: object) -> ClusterSettings:
    """Return the settings that reach these servers."""
    found = ClusterSettings.of({"cluster": ",".join(server.url for server in servers), **keys})
    assert found is not None
    return found


class Received(list[Message]):
    """What came for a subject."""

    @property
    def texts(self) -> list[bytes]:
        """Return the bytes of each message."""
        return [message.data for message in self]


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[ClusterConnection]:
    """Keep a connection for as long as the test needs it."""
    with ClusterConnection(settings, "candleshm test") as connection:
        yield connection


def test_what_is_published_comes_in_order_and_a_request_finds_who_answers() -> None:
    with nats_server() as server, connected(settings_of(server)) as here, connected(settings_of(server)) as there:
        received, answers = Received(), Received()
        there.subscribe("rows.*", received.append)
        there.subscribe("ask", lambda request: there.publish_soon(request.reply, b"for " + request.data))
        assert here.publish([("rows.1", bytes([number])) for number in range(100)]).result()
        until(lambda: len(received) == 100)
        assert received.texts == [bytes([number]) for number in range(100)]

        inbox = here.new_inbox()
        here.subscribe(f"{inbox}.*", answers.append)
        assert here.request("ask", b"me", f"{inbox}.1")
        assert here.request("nobody", b"me", f"{inbox}.2")
        until(lambda: len(answers) == 2)
        by_number = {answer.subject.rpartition(".")[2]: answer for answer in answers}
        assert (by_number["1"].data, by_number["1"].is_unheard) == (b"for me", False)
        assert (by_number["2"].data, by_number["2"].is_unheard) == (b"", True)


@pytest.mark.parametrize("is_secret", [False, True])
def test_messages_of_every_size_come_whole_and_in_order(tmp_path: Path, *, is_secret: bool) -> None:
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    security = Security(tls_of(authority, tmp_path) if is_secret else "")
    keys = {"cluster_ca": str(tmp_path / "ca.pem")} if is_secret else {}
    random = Random(7)
    sizes = [0, 1, 1, 400_000, *(random.choice([0, 2, 50, 1500, 70_000]) for _ in range(300))]
    # Each begins as a message does.
    sent = [(b"MSG rows 1 1500\r\n" + random.randbytes(size))[:size] for size in sizes]
    with nats_server(security=security) as server:
        settings = settings_of(server, **keys)
        with connected(settings) as here, connected(settings) as there:
            received, others = Received(), Received()
            there.subscribe("rows", received.append)
            there.subscribe("other", others.append)
            inbox = here.new_inbox()
            for data in sent:
                assert here.publish([("rows", data), ("other", data[:10])]).result()
                if not random.randrange(20):
                    # With a subject for answers it goes by the client's own way.
                    assert here.request("rows", b"asks", f"{inbox}.1")
            until(lambda: len(others) == len(sent))
            assert [message.data for message in received if not message.reply] == sent
            assert others.texts == [data[:10] for data in sent]


def test_a_receiver_that_raises_does_not_end_what_is_received(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(message: Message) -> None:
        raise RuntimeError("as it would be of a fault here")

    with nats_server() as server, connected(settings_of(server)) as connection:
        received = Received()
        connection.subscribe("rows", refuse)
        connection.subscribe("others", received.append)
        for _ in range(3):
            assert connection.publish([("rows", b"1"), ("others", b"2")]).result()
            assert connection.request("rows", b"3", "answers")
        until(lambda: len(received) == 3)
        until(lambda: len(caplog.records) == 6)
        assert connection.is_connected
    assert {record.getMessage() for record in caplog.records} == {
        "rows: a message was not taken because of an internal error"
    }


def test_a_closed_subscription_hears_nothing_and_a_queue_shares() -> None:
    with nats_server() as server, connected(settings_of(server)) as here, connected(settings_of(server)) as there:
        ended, first, second = Received(), Received(), Received()
        there.subscribe("rows", ended.append).close()
        here.subscribe("ask", first.append, "answer")
        there.subscribe("ask", second.append, "answer")
        here.publish([("rows", b"")] + [("ask", bytes([number])) for number in range(50)]).result()
        until(lambda: len(first) + len(second) == 50)
        assert ended == []
        assert sorted(first.texts + second.texts) == [bytes([number]) for number in range(50)]


def test_who_received_is_let_go_with_its_subscription() -> None:
    has_heard = threading.Event()

    class Hearer:
        def hear(self, message: Message) -> None:
            has_heard.set()

    with nats_server() as server, connected(settings_of(server)) as connection:
        hearer = Hearer()
        subscription = connection.subscribe("rows", hearer.hear)
        connection.publish([("rows", b"1")]).result()
        until(has_heard.is_set)
        subscription.close()
        kept = weakref.ref(hearer)
        del hearer, subscription
        until(lambda: gc.collect() >= 0 and kept() is None)


def test_a_lost_server_is_connected_to_again_with_every_subscription(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    with nats_server() as server, connected(settings_of(server)) as connection:
        received, changes = Received(), list[bool]()
        connection.subscribe("rows", received.append)
        connection.on_change(changes.append)
        server.kill()
        until(lambda: changes == [False])
        assert not connection.is_connected
        # What is said meanwhile is not kept for later.
        assert not connection.publish([("rows", b"too old")]).result()
        with pytest.raises(ClusterUnavailable, match="no server is connected"):
            connection.run(lambda client: client.rtt())
        server.restart()
        until(lambda: changes == [False, True])
        assert connection.publish([("rows", b"new")]).result()
        until(lambda: received)
        assert received.texts == [b"new"]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "is lost" in line]) == 1
    assert lines[-1] == "connected to the cluster's servers again"


def test_a_server_that_stands_still_is_lost_and_another_takes_its_place() -> None:
    with nats_cluster() as servers, connected(settings_of(*servers)) as connection:
        received = Received()
        connection.subscribe("rows", received.append)
        url = connection.run(_url_of)
        silent = next(server for server in servers if server.url == url)
        silent.pause()
        try:
            # More than the system's buffers hold: the client waits for the server to take it.
            connection.publish([("rows", bytes(900_000))] * 40)
            until(lambda: connection.is_connected and connection.run(_url_of) != url)
            received.clear()
            connection.publish([("rows", b"by another")]).result()
            until(lambda: received.texts == [b"by another"])
        finally:
            silent.resume()


async def _url_of(client: object) -> str:
    return client.connected_url.geturl()  # type: ignore[attr-defined, no-any-return]


def test_tls_shows_whom_it_trusts_and_a_password_opens(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    (tmp_path / "ours").mkdir()
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    authority.cert_pem.write_to_path(ours)
    stranger.cert_pem.write_to_path(theirs)
    demands = Security(tls_of(authority, tmp_path / "ours"), f'{{ user: "candles", password: "{SECRET}" }}')
    with nats_server(security=demands) as server:
        keys = {"cluster_user": "candles", "cluster_password": SECRET, "cluster_ca": ours}
        with connected(settings_of(server, **keys)) as connection:
            received = Received()
            connection.subscribe("rows", received.append)
            connection.publish([("rows", bytes(900_000))]).result()
            until(lambda: received)
        for wrong, reason in (
            ({"cluster_ca": theirs}, "certificate is not trusted .*theirs.pem did not sign it"),
            ({"cluster_password": "guessed"}, "refuses user `candles` with that password"),
        ):
            with pytest.raises(ClusterRefused, match=reason) as refused:
                ClusterConnection(settings_of(server, **{**keys, **wrong}), "test").open()
            assert SECRET not in str(refused.value)
            assert "guessed" not in str(refused.value)
        with nats_server(security=Security(tls_of(authority, tmp_path / "ours", "other.example"))) as elsewhere:
            with pytest.raises(ClusterRefused, match="mismatch") as refused:
                ClusterConnection(settings_of(elsewhere, cluster_ca=ours), "test").open()
            assert "sign" not in str(refused.value)
            assert str(refused.value).endswith("; name the server as its certificate does")
        with pytest.raises(ClusterRefused, match="give the authority by --cluster-ca"):
            ClusterConnection(settings_of(server, cluster_user="candles", cluster_password=SECRET), "test").open()
        with pytest.raises(ClusterRefused, match="who shows no credentials"):
            ClusterConnection(settings_of(server, cluster_ca=ours), "test").open()


def test_no_password_goes_to_a_server_without_tls() -> None:
    """The client of NATS would go on in plain text."""
    taken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pretend() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1048576}\r\n')
                while data := connection.recv(65536):
                    taken.append(data)
                    connection.sendall(b"PONG\r\n")

        thread = threading.Thread(target=pretend, daemon=True)
        thread.start()
        url = f"tls://candles:{SECRET}@127.0.0.1:{listener.getsockname()[1]}"
        settings = ClusterSettings.of({"cluster": url})
        assert settings is not None
        with pytest.raises(ClusterRefused, match="it has no TLS, and nothing was sent"):
            ClusterConnection(settings, "test").open()
        thread.join(10)
    assert taken == []


def test_a_token_opens_and_a_wrong_one_does_not() -> None:
    with nats_server(security=Security(authorization=f'{{ token: "{SECRET}" }}')) as server:
        with connected(settings_of(server, cluster_token=SECRET)) as connection:
            assert connection.is_connected
        host = server.url.partition("://")[2]
        with connected(ClusterSettings.of({"cluster": f"nats://{SECRET}@{host}"}) or settings_of(server)) as connection:
            assert connection.is_connected
        with pytest.raises(ClusterRefused, match="refuses the token"):
            ClusterConnection(settings_of(server, cluster_token="guessed"), "test").open()


def test_a_file_of_credentials_opens_and_that_of_another_operator_does_not(tmp_path: Path) -> None:
    ours, others = Identities(), Identities()
    with nats_server(security=Security(identities=ours.configuration), has_jetstream=False) as server:
        with connected(
            settings_of(server, cluster_credentials=ours.credentials(tmp_path / "ours.creds"))
        ) as connection:
            assert connection.is_connected
        stranger = settings_of(server, cluster_credentials=others.credentials(tmp_path / "others.creds"))
        with pytest.raises(ClusterRefused, match=r"refuses the credentials of .*others\.creds"):
            ClusterConnection(stranger, "test").open()


def test_rights_that_are_missing_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rights = '{ users: [{ user: "m", password: "m", permissions: { publish: "candleshm.>", subscribe: ">" } }] }'
    with nats_server(security=Security(authorization=rights)) as server:
        settings = settings_of(server, cluster_user="m", cluster_password="m")
        with connected(settings) as connection:
            for _ in range(3):
                connection.publish([("elsewhere", b"")]).result()
            until(lambda: "complains" in caplog.text)
            assert connection.is_connected
    assert caplog.text.count("ermissions violation") == 1


def test_nobody_there_is_one_line_that_names_the_servers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = ClusterSettings.of({"cluster": f"nats://127.0.0.1:{port},no-such-host.invalid"})
    assert settings is not None
    with pytest.raises(ClusterUnavailable) as unavailable:
        ClusterConnection(settings, "test").open(0.1)
    text = str(unavailable.value)
    assert f"127.0.0.1:{port}: nothing listens there" in text
    assert "no-such-host.invalid:4222: the host is not known" in text


def test_a_mirror_says_in_one_line_why_it_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nats_server(security=Security(authorization=f'{{ user: "candles", password: "{SECRET}" }}')) as server:
        monkeypatch.setenv("CANDLESHM_CLUSTER_USER", "candles")
        monkeypatch.setenv("CANDLESHM_CLUSTER_PASSWORD", "guessed")
        line = complaint("mirror", "candleshm-spot-1m", "--cluster", server.url)
        assert "refuses user `candles`" in line
        assert "guessed" not in line
    monkeypatch.delenv("CANDLESHM_CLUSTER_USER")
    assert "belong together" in complaint("mirror", "candleshm-spot-1m", "--cluster", "nats://h")
    monkeypatch.delenv("CANDLESHM_CLUSTER_PASSWORD")
    assert "cluster is missing" in complaint("mirror", "candleshm-spot-1m")
    assert "no feed is named" in complaint("mirror", "--cluster", "nats://h")
    assert "cluster cannot be" in complaint("mirror", "x", "--cluster", "http://h")
    assert "cluster_ca cannot be" in complaint("mirror", "x", "--cluster", "tls://h", "--cluster-ca", "/nowhere")
    empty = tmp_path / "empty.creds"
    empty.write_text("nothing\n")
    line = complaint("mirror", "x", "--cluster", "nats://h", "--cluster-credentials", str(empty))
    assert "it has no JWT and no seed" in line


def test_settings_say_what_contradicts() -> None:
    with pytest.raises(ConfigError, match="a user and a token"):
        ClusterSettings.of({"cluster": "h", "cluster_user": "u", "cluster_password": "p", "cluster_token": "t"})
    with pytest.raises(ConfigError, match="cluster_name is given without cluster"):
        ClusterSettings.of({"cluster_name": "x"})
    assert ClusterSettings.of({"cluster_password": SECRET}) is None
    settings = ClusterSettings.of({"cluster": f"nats://u:{SECRET}%40x@h1:1,[::1],h3"})
    assert settings is not None
    assert settings.urls == ("nats://h1:1", "nats://[::1]:4222", "nats://h3:4222")
    assert (settings.user, settings.password) == ("u", f"{SECRET}@x")
    assert SECRET not in repr(settings)
