"""A cluster with TLS and passwords, as commands use it: everything works, and no output has a secret."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import STDOUT

import pytest
import trustme

import candleshm
from candleshm.errors import BlockNotFound
from candleshm.sim import SimulatedExchange
from tests.support.commanding import DEADLINE_SECONDS, complaint, run, started, until
from tests.support.nats_servers import NatsServer, Security, nats_server, tls_of
from tests.support.telling import differences_of

COLLECTOR, MIRROR = ("collector", "s3cret-of-collectors"), ("mirror", "s3cret-of-mirrors")
WRONG = ("collector", "s3cret-that-is-wrong")


def known_as(user: str, password: str) -> dict[str, str]:
    """Return an environment with these credentials."""
    return {**os.environ, "CANDLESHM_CLUSTER_USER": user, "CANDLESHM_CLUSTER_PASSWORD": password}


@contextmanager
def secured(folder: Path) -> Iterator[tuple[NatsServer, tuple[str, ...]]]:
    """Run a server that demands TLS and passwords; give it, and the flags that reach it."""
    users = ", ".join(f'{{ user: "{user}", password: "{password}" }}' for user, password in (COLLECTOR, MIRROR))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    security = Security(tls=tls_of(authority, folder), authorization=f"{{ users: [{users}] }}")
    with nats_server(security=security) as server:
        yield server, ("--cluster", server.url, "--cluster-ca", str(folder / "authority.pem"))


def is_ready(name: str) -> bool:
    """Return whether a block is there and ready."""
    try:
        with candleshm.attach(name) as feed:
            return feed.health.ready
    except BlockNotFound:
        return False


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_feeds_and_mirrors_of_a_file_work_over_tls_and_no_output_has_a_secret(
    block_name: str, tmp_path: Path, log_format: str
) -> None:
    """One host collects a feed; a file of another has a feed of its own and a mirror of the first; a third mirrors."""
    first, second = f"{block_name}-a", f"{block_name}-b"
    outputs = [tmp_path / f"output-{number}" for number in range(3)]
    debugging = ("--log-level", "debug", "--log-format", log_format)
    with SimulatedExchange(symbols=2) as exchange, secured(tmp_path) as (server, reaching), ExitStack() as stack:
        path = tmp_path / "feeds.toml"
        path.write_text(
            f'cluster = "{server.url}"\ncluster_ca = "{tmp_path / "authority.pem"}"\nmetrics = "127.0.0.1:0"\n'
            f'[[feed]]\nmarket = "spot"\nsymbols = ["ETHUSDT"]\nname = "{second}"\nlength = 50\n'
            f'base_url = "{exchange.base_url}"\n'
            f'[[mirror]]\nname = "{first}"\nas = "{first}-copy"\n'
        )
        serving = ("--market", "spot", "--symbols", "BTCUSDT,ETHUSDT", "--length", "100", "--name", first)
        commands = [
            (COLLECTOR, ("serve", *serving, "--base-url", exchange.base_url, *reaching)),
            (COLLECTOR, ("serve", "--config", str(path))),
            (MIRROR, ("mirror", second, "--as", f"{second}-copy", *reaching)),
        ]
        processes = []
        for (who, words), output in zip(commands, outputs, strict=True):
            file = stack.enter_context(output.open("wb"))
            settings = {"stdout": file, "stderr": STDOUT, "text": False, "env": known_as(*who)}
            processes.append(stack.enter_context(started(*words, *debugging, **settings)))

        for name in (first, second):
            until(lambda name=name: is_ready(name) and is_ready(f"{name}-copy"))  # type: ignore[misc]
            until(lambda name=name: not differences_of(name, f"{name}-copy"))  # type: ignore[misc]
        shown = run("cluster", "status", "--json", *reaching, env=known_as(*MIRROR))
        present = {(each["block"], each["role"]) for each in json.loads(shown.stdout)["present"]}
        roles = {first: "leader", second: "leader", f"{first}-copy": "mirror", f"{second}-copy": "mirror"}
        assert present == set(roles.items())

        refused = [
            complaint(*words, *reaching, env=known_as(*WRONG))
            for words in (("mirror", first, "--as", f"{first}-x"), ("cluster", "status"))
        ]
        for process in processes:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        for name in (first, second):
            assert not {name, f"{name}-copy"} & {health.name for health in candleshm.blocks()}

        texts = [output.read_text() for output in outputs]
        assert f'mirroring {first}-copy: candleshm.attach("{first}-copy")' in texts[1]
        for text in (*texts, shown.stdout, *refused):
            assert text
            for _, password in (COLLECTOR, MIRROR, WRONG):
                assert password not in text
