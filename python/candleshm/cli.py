"""The command line: arguments and nothing more. Each command is implemented in the module that it calls."""

from __future__ import annotations

import argparse
import math
import re
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

from candleshm._core import MARKETS, PRICES, ZONES_VERSION
from candleshm.cluster.mirror_config import MIRROR_KEYS
from candleshm.commands.cluster_flags import add_cluster_flags, add_member_flags
from candleshm.commands.outcome import outcome
from candleshm.commands.settings import (
    PROCESS_KEYS,
    Configuration,
    add_field_flags,
    add_flags,
    cluster_settings,
    collector_configs,
    configuration,
    in_environment,
    in_utf8,
    listening_address,
    mirror_configuration,
)
from candleshm.commands.signals import UNTIL_STDIN_CLOSES
from candleshm.commands.streams import say
from candleshm.config import CANDLE_DIR
from candleshm.names import BLOCK_NAMES, is_block_name
from candleshm.system.log_text import printable, without_credentials
from candleshm.system.sharing import group, share_with

__all__ = ["main"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
DOWNLOAD_FIELDS = (
    *("market", "price", "interval", "timezone", "symbols", "symbols_filter", "symbol_contains", "symbol_endswith"),
    *("contract", "quote", "top"),
    *("base_url", "proxy_host", "proxies", "trust_env", "server_weight", "settle_seconds", "workers", "start_seconds"),
)
REPLAY_ARGUMENTS = (
    *("candle_dir", "market", "price", "symbols", "interval", "start", "end", "derive", "length", "warm", "speed"),
    *("inside", "timezone", "name", "consumers", "absent"),
)
UPSTREAM_FIELDS = ("proxy_host", "proxies", "trust_env")

_Command = Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error without passwords: a value may be the URL of a proxy that was meant for another flag."""
        super().error(printable(re.sub(r"[^\s'`]*@", "", without_credentials(message))))

    def _print_message(self, message: str, file: Any = None) -> None:
        # The reader of help and usage may have left, as `head` does.
        say(message, file or sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, see `outcome`. Wrong usage exits with 2."""

    def command() -> None:
        arguments = make_parser().parse_args(argv)
        group()  # One that cannot be used is an error of every command.
        arguments.command(arguments)

    return outcome(command)


# Imports stand in the commands that need them, so that `ls` and `read` do not wait for the network's libraries.


def _demo(arguments: argparse.Namespace) -> None:
    from candleshm.commands.demo import demo

    demo(arguments.seconds, arguments.name)


def _serve(arguments: argparse.Namespace) -> None:
    def read() -> Configuration:
        return configuration(vars(arguments), arguments.config)

    given = read()
    _check_mirrors(given, arguments.config)
    if "group" in given.process:
        share_with(given.process["group"])
    if arguments.check:
        from candleshm.commands.forecast import forecast
        from candleshm.commands.gateway import check_libraries
        from candleshm.commands.memberships import check_servers
        from candleshm.reader.frames import library

        forecast(given.feeds)
        if "gateway" in given.process:
            check_libraries()
        if given.cluster is not None:
            check_servers(given.cluster)
        if "metrics" in given.process:
            library("prometheus_client.core", "metrics")
        return
    from candleshm.commands.reload import Reload
    from candleshm.commands.serve import Address, serve

    addresses = {name: Address(*given.process[name]) for name in ("metrics", "gateway") if name in given.process}
    # What came through a pipe cannot be read again.
    is_file = arguments.config is not None and arguments.config.is_file()
    serve(
        given.feeds,
        log_level=arguments.log_level,
        log_format=arguments.log_format,
        metrics=addresses.get("metrics"),
        metrics_per_symbol=given.process.get("metrics_per_symbol", True),
        gateway=addresses.get("gateway"),
        until_stdin_closes=arguments.until_stdin_closes,
        reload=Reload(arguments.config, read, given) if is_file else None,
        cluster=given.cluster,
        members=given.members,
        mirrors=given.mirrors,
    )


def _check_mirrors(given: Configuration, path: Path | None) -> None:
    """Raise ConfigError for mirrors without a cluster, of blocks that a feed has, and for a file with nothing else."""
    from candleshm.commands.mirror_names import refuse_shared_names
    from candleshm.errors import ConfigError

    if given.mirrors and given.cluster is None:
        raise ConfigError(f"{path} has mirrors and no cluster; give it a key `cluster`, or --cluster nats://HOST")
    if given.mirrors and not given.feeds:
        raise ConfigError(f"{path} has mirrors and no feed; run: candleshm mirror --config {path}")
    refuse_shared_names(given.feeds, given.mirrors, path)


def _mirror(arguments: argparse.Namespace) -> None:
    from candleshm.cluster.mirror_config import MirrorConfig
    from candleshm.commands.mirror import mirror
    from candleshm.errors import ConfigError

    given = mirror_configuration(vars(arguments), arguments.config)
    if "group" in given.process:
        share_with(given.process["group"])
    configs = list(given.mirrors)
    if arguments.name is not None:
        configs = [MirrorConfig.of({name: getattr(arguments, name) for name in MIRROR_KEYS})]
    if not configs:
        raise ConfigError("no feed is named; give NAME, or --config FILE with a [[mirror]] table")
    settings = given.cluster
    if settings is None:
        raise ConfigError("cluster is missing; give --cluster nats://HOST")
    mirror(
        settings,
        configs,
        metrics=given.process.get("metrics"),
        metrics_per_symbol=given.process.get("metrics_per_symbol", True),
        log_level=arguments.log_level,
        log_format=arguments.log_format,
        until_stdin_closes=arguments.until_stdin_closes,
    )


def _gateway(arguments: argparse.Namespace) -> None:
    from candleshm.commands.gateway import GatewayOptions, gateway
    from candleshm.gateway.settings import GatewaySettings, Upstream

    variables = in_environment(("base_url", *UPSTREAM_FIELDS))
    given = variables | vars(arguments)
    ways = {name: given[name] for name in UPSTREAM_FIELDS if name in given}
    urls = _urls_of_markets(arguments.base_url, variables.get("base_url"))
    upstreams = {market: Upstream(base_url=url, **ways) for market, url in urls.items()}
    settings = GatewaySettings(
        blocks=tuple(arguments.block),
        candle_dir=arguments.candle_dir,
        max_age_seconds=arguments.max_age,
        pass_through=arguments.pass_through,
        upstreams=upstreams,
        cache_dir=arguments.cache_dir,
    )
    host, port = arguments.listen
    gateway(
        GatewayOptions(
            host=host,
            port=port,
            token_file=arguments.token_file,
            origins=tuple(arguments.allow_origin),
            hosts=tuple(arguments.allow_host),
            log_level=arguments.log_level,
            log_format=arguments.log_format,
            until_stdin_closes=arguments.until_stdin_closes,
            settings=settings,
        )
    )


def _download(arguments: argparse.Namespace) -> None:
    feeds = collector_configs(vars(arguments), arguments.config)
    if arguments.funding:
        from candleshm.errors import ConfigError

        if arguments.format == "csv":
            raise ConfigError("--funding cannot be given with --format csv: files of funding rates are Parquet")
        given = {"--source archive": arguments.source != "exchange"}
        given |= {"--verify": arguments.verify, "--archive-url": arguments.archive_url is not None}
        if others := [flag for flag, is_given in given.items() if is_given]:
            raise ConfigError(
                f"--funding cannot be given with {', '.join(others)}: funding rates come from the exchange"
            )
        from candleshm.commands.funding import download_funding

        download_funding(
            feeds,
            arguments.start,
            arguments.end,
            kind=arguments.type,
            replace=arguments.replace,
            quiet=arguments.quiet,
        )
        return
    from candleshm.commands.days import download

    download(
        feeds,
        arguments.start,
        arguments.end,
        kind=arguments.type,
        form=arguments.format,
        replace=arguments.replace,
        source=arguments.source,
        archive_url=arguments.archive_url,
        verify=arguments.verify,
        quiet=arguments.quiet,
    )


def _import_csv(arguments: argparse.Namespace) -> None:
    from candleshm.commands.days import import_csv

    import_csv(arguments.source, arguments.candle_dir, replace=arguments.replace)


def _history(arguments: argparse.Namespace) -> None:
    from candleshm.commands.days import repack

    repack(arguments.candle_dir, quiet=arguments.quiet)


def _replay(arguments: argparse.Namespace) -> None:
    if arguments.recording is not None:
        from candleshm.commands.replay_recording import replay_recording_command

        sys.exit(replay_recording_command(arguments.recording, arguments.name, as_json=arguments.json))
    from candleshm.commands.replay import replay

    given = {name: getattr(arguments, name) for name in REPLAY_ARGUMENTS}
    replay(given, as_json=arguments.json)


def _sim(arguments: argparse.Namespace) -> None:
    from candleshm.commands.signals import on_stop_signal
    from candleshm.errors import MissingExtra
    from candleshm.sim import SimulatedExchange

    stop = threading.Event()
    on_stop_signal(stop.set)
    with SimulatedExchange(
        arguments.host,
        arguments.port,
        seed=arguments.seed,
        symbols=arguments.symbols,
        late_ms=arguments.late_ms,
        spot_limit=arguments.spot_limit,
        futures_limit=arguments.futures_limit,
        skew_ms=arguments.skew_ms,
        off_hours=arguments.off_hours,
    ) as exchange:
        try:
            streams = f"streams: {exchange.ws_url} SPOT and CM /stream, UM /market/stream"
        except MissingExtra as error:
            streams = f"no streams: {error}"
        say(
            f"{exchange.base_url}\n"
            f"{arguments.symbols} symbols each: SPOT /api/v3, UM /fapi/v1, CM /dapi/v1; Ctrl-C ends it\n"
            f"{streams}\n"
        )
        stop.wait()


def _ls(arguments: argparse.Namespace) -> None:
    from candleshm.commands.listing import listing_json, listing_table, unlisted
    from candleshm.commands.table import columns_of_stdout

    print(listing_json() if arguments.json else listing_table(columns_of_stdout()), end="")
    sys.stdout.flush()
    for line in unlisted():
        say(f"candleshm: {line}\n", sys.stderr)


def _read(arguments: argparse.Namespace) -> None:
    from candleshm.commands.rows import TABLE_ROWS, chart_columns, read_rows, shown_chart
    from candleshm.reader.feed import attach
    from candleshm.reader.freshness import STALE_SECONDS

    is_table = not (arguments.json or arguments.csv)
    with attach(arguments.name) as feed:
        if arguments.chart:
            text = shown_chart(feed, arguments.symbol, min(arguments.rows or feed.length, chart_columns()))
        else:
            count = TABLE_ROWS if is_table and arguments.rows is None else arguments.rows
            rows = read_rows(feed, arguments.symbol, count)
            text = rows.as_table() if is_table else rows.as_json() if arguments.json else rows.as_csv()
        age_seconds = feed[arguments.symbol].age
    print(text, end="")
    if STALE_SECONDS < age_seconds < math.inf:
        print(f"candleshm: {arguments.symbol}: stale, its data is {age_seconds:.0f} s old", file=sys.stderr)


def _top(arguments: argparse.Namespace) -> None:
    from candleshm.commands.top import top, top_json

    if arguments.json:
        print(top_json(arguments.name), end="")
        return
    top(
        arguments.name,
        interval_seconds=arguments.interval_seconds,
        once=arguments.once,
        max_age_seconds=arguments.max_age_seconds,
    )


def _check(arguments: argparse.Namespace) -> None:
    from candleshm.commands.check import check

    is_ready, line = check(arguments.name, arguments.max_age, requires_streams=arguments.require_streams)
    say(f"{line}\n")
    if not is_ready:
        sys.exit(1)


def _cluster(arguments: argparse.Namespace) -> None:
    from candleshm.commands.cluster_status import present_in, status_json, status_table
    from candleshm.commands.table import columns_of_stdout

    present = present_in(cluster_settings(vars(arguments)))
    print(status_json(present) if arguments.json else status_table(present, columns_of_stdout()), end="")


def _rm(arguments: argparse.Namespace) -> None:
    from candleshm.errors import CandleShmError
    from candleshm.reader.feed import unlink

    errors: list[CandleShmError] = []
    for name in arguments.name:
        try:
            unlink(name)
            print(f"removed {name}")
        except CandleShmError as error:
            errors.append(error)
    for other in errors[:-1]:
        say(f"candleshm: {other}\n", sys.stderr)
    if errors:
        raise errors[-1]


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="candleshm",
        description="The newest Binance candles in shared memory: one collector, any number of readers.",
        epilog="example: candleshm demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, command: _Command, text: str, *examples: str, usage: Sequence[str] = ()
    ) -> argparse.ArgumentParser:
        lines = [f"candleshm {example}" for example in examples]
        added = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: {lines[0]}" if len(lines) == 1 else "\n  ".join(["examples:", *lines]),
            usage="\n       ".join(f"candleshm {name} {line}" for line in usage) or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(command=command)
        return added

    demo = add(
        "demo", _demo, "run a simulated exchange, two collectors and a strategy, without network", "demo --seconds 60"
    )
    demo.add_argument("--seconds", type=_seconds, metavar="X", default=30.0, help="duration (default: 30)")
    demo.add_argument(
        "--name",
        type=in_utf8,
        default="candleshm-demo",
        help="name the blocks NAME-1s and NAME-1m (default: candleshm-demo)",
    )

    serve = add(
        "serve",
        _serve,
        "keep the newest candles in a block until Ctrl-C",
        "serve --market spot --symbols BTCUSDT,ETHUSDT --length 2880",
        "serve --market um --quote USDT --top 50 --derive 5m,1h",
        "serve --config feeds.toml --check",
        "serve --config feeds.toml --metrics 9100 --gateway 8700",
        usage=(
            "--market spot|um|cm [--symbols A,B,...] [OPTION ...]",
            "--config FILE.toml [OPTION ...]",
        ),
    )
    add_flags(serve)
    serve.add_argument(
        "--check",
        action="store_true",
        help="print what the configuration would take (memory, weight, time) and what is in its way, and exit",
    )
    beside = serve.add_argument_group("gateway and metrics")
    beside.add_argument(
        "--gateway",
        type=_address,
        metavar="[HOST:]PORT",
        help=PROCESS_KEYS["gateway"].help,
    )
    beside.add_argument(
        "--metrics",
        type=_address,
        metavar="[HOST:]PORT",
        help=PROCESS_KEYS["metrics"].help,
    )
    beside.add_argument(
        "--metrics-per-symbol",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=PROCESS_KEYS["metrics_per_symbol"].help,
    )
    beside.add_argument("--group", metavar="NAME", help=PROCESS_KEYS["group"].help)
    with_others = serve.add_argument_group("cluster")
    add_cluster_flags(with_others)
    add_member_flags(with_others)
    _add_log_flags(serve.add_argument_group("log, and the end"))

    mirror = add(
        "mirror",
        _mirror,
        "keep a block of a feed that another host collects, until Ctrl-C",
        "mirror candleshm-spot-1m --cluster nats://h1,h2,h3",
    )
    mirror.add_argument(
        "name", type=in_utf8, metavar="NAME", nargs="?", help="name of the feed, which is that of its collector's block"
    )
    mirror.add_argument("--as", type=_block_name, metavar="LOCAL", help=MIRROR_KEYS["as"].help)
    mirror.add_argument("--length", type=_count, metavar="N", help=MIRROR_KEYS["length"].help)
    mirror.add_argument("--derive", type=_words, metavar="A,B,...", help=MIRROR_KEYS["derive"].help)
    mirror.add_argument(
        "--config",
        metavar="FILE.toml",
        type=Path,
        help="read keys of the cluster from this file, and without NAME a [[mirror]] table for each mirror",
    )
    add_cluster_flags(mirror)
    mirror.add_argument("--metrics", type=_address, metavar="[HOST:]PORT", help=PROCESS_KEYS["metrics"].help)
    mirror.add_argument("--group", metavar="NAME", help=PROCESS_KEYS["group"].help)
    _add_log_flags(mirror)

    gateway = add(
        "gateway", _gateway, "answer Binance's own API from the blocks, until Ctrl-C", "gateway --listen 8700"
    )
    gateway.add_argument(
        "--listen",
        type=_address,
        metavar="[HOST:]PORT",
        default=("127.0.0.1", 8700),
        help="address to listen on (default: 127.0.0.1:8700); without HOST only this machine can reach it",
    )
    gateway.add_argument(
        "--block",
        type=_block_name,
        metavar="NAME",
        action="append",
        default=[],
        help="answer from this block only; may be repeated (default: all blocks of this machine)",
    )
    gateway.add_argument("--candle-dir", metavar="DIR", help="answer from the daily files of this directory as well")
    gateway.add_argument(
        "--max-age",
        type=_seconds,
        metavar="SECONDS",
        help="how old data may be; older is an error (default: 15 on SPOT, 45 on UM and CM)",
    )
    gateway.add_argument(
        "--pass-through",
        action="store_true",
        help="request public market data that the blocks do not have from the exchange, within the weight budget",
    )
    gateway.add_argument(
        "--base-url",
        type=_url_of_market,
        metavar="[MARKET=]URL",
        action="append",
        default=[],
        help="URL that replaces the exchange's REST host, of all markets or of one; may be repeated (default: the "
        "variable CANDLESHM_BASE_URL, or the exchange's own)",
    )
    gateway.add_argument(
        "--token-file",
        metavar="FILE",
        help="admit only requests with the bearer token in this file, whose mode must be 0600",
    )
    gateway.add_argument(
        "--allow-origin",
        type=_origin,
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let web pages of this origin, such as https://charts.example, read responses; may be repeated (default: "
        "none)",
    )
    gateway.add_argument(
        "--allow-host",
        type=_host_name,
        metavar="HOST",
        action="append",
        default=[],
        help="serve requests for this host name as well, such as the name that a reverse proxy passes on; may be "
        "repeated (default: addresses and names without a dot)",
    )
    gateway.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="directory that keeps the exchange's list of symbols (default: the runtime directory of this user)",
    )
    add_field_flags(gateway, UPSTREAM_FIELDS, has_file=False)
    _add_log_flags(gateway)

    example = "download --market spot --symbols BTCUSDT --start 2026-11-01"
    days = add("download", _download, "download days into daily files, newest first", example)
    days.add_argument("--start", required=True, metavar="DAY", help="the first day, YYYY-MM-DD")
    days.add_argument("--end", metavar="DAY", help="the last day, included (default: yesterday)")
    days.add_argument(
        "--type",
        choices=("trading", "not_trading", "all"),
        default="trading",
        help="symbols that trade now, that do not, or all of them (default: trading)",
    )
    days.add_argument(
        "--format",
        choices=("parquet", "csv"),
        default="parquet",
        help="csv writes the directory tree that binance_interface reads (default: parquet)",
    )
    days.add_argument(
        "--funding", action="store_true", help="download funding rates of perpetual contracts instead of candles"
    )
    days.add_argument("--replace", action="store_true", help="also download days that are already complete")
    days.add_argument(
        "--source",
        choices=("exchange", "archive"),
        default="exchange",
        help="archive downloads from data.binance.vision without request weight, and from the exchange what is "
        "missing there (default: exchange)",
    )
    days.add_argument(
        "--verify", action="store_true", help="download every day from the exchange, then compare it with the archive"
    )
    days.add_argument("--quiet", action="store_true", help="log warnings and the sum only, not every day")
    days.add_argument(
        "--archive-url",
        metavar="URL",
        help="URL of the archive or a mirror, https://, http:// or file:// (default: https://data.binance.vision)",
    )
    days.add_argument(
        "--candle-dir",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help=f"directory of the daily files (default: {CANDLE_DIR})",
    )
    add_field_flags(days, DOWNLOAD_FIELDS)

    taken = add(
        "import-csv",
        _import_csv,
        "convert the CSV files of binance_interface to daily files",
        "import-csv ./OLD/BINANCE",
    )
    taken.add_argument(
        "source",
        type=Path,
        metavar="DIR",
        help="the directory that contains directories such as SPOT-UTC-1m",
    )
    taken.add_argument(
        "--candle-dir", metavar="DIR", default=CANDLE_DIR, help=f"directory of the daily files (default: {CANDLE_DIR})"
    )
    taken.add_argument("--replace", action="store_true", help="also write days that are already complete")

    stored = add("history", _history, "move stored days into files of a month or a year", "history repack")
    stored.add_argument(
        "action",
        choices=("repack",),
        help="repack: from 15m on a file holds a month, of 1d a year; move days that have files of their own",
    )
    stored.add_argument(
        "--candle-dir", metavar="DIR", default=CANDLE_DIR, help=f"directory of the daily files (default: {CANDLE_DIR})"
    )
    stored.add_argument("--quiet", action="store_true", help="log warnings and the sum only")

    example = "replay --market spot --start 2026-11-01 --end 2026-11-27"
    _add_replay_flags(add("replay", _replay, "publish stored days into a block as if they happened now", example))

    sim = add("sim", _sim, "run the simulated exchange alone, until Ctrl-C", "sim --port 8400 --seed 1 --symbols 40")
    sim.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    sim.add_argument(
        "--port", type=_port, metavar="N", default=0, help="port to listen on, 0 for any free one (default: 0)"
    )
    sim.add_argument(
        "--seed", type=int, metavar="N", default=1, help="the same seed gives the same candles (default: 1)"
    )
    for flag, default, text in (
        ("--symbols", 40, "number of trading symbols in each market"),
        ("--spot-limit", 6000, "request weight limit per minute of SPOT"),
        ("--futures-limit", 2400, "request weight limit per minute that UM and CM share"),
    ):
        sim.add_argument(flag, type=_count, metavar="N", default=default, help=f"{text} (default: {default})")
    sim.add_argument("--late-ms", type=int, metavar="N", default=300, help="delay of trades in ms (default: 300)")
    sim.add_argument(
        "--skew-ms", type=int, metavar="N", default=0, help="error of the exchange's clock in ms (default: 0)"
    )
    sim.add_argument(
        "--off-hours",
        choices=("flat", "absent", "trade"),
        default="flat",
        help="klines of TradFi contracts while their market is closed (default: flat)",
    )

    ls = add("ls", _ls, "list the blocks of this machine", "ls --json")
    ls.add_argument(
        "--json", action="store_true", help="print a list of objects with every field of Health; ages in seconds"
    )

    read = add("read", _read, "show the newest candles of a symbol", "read candleshm-spot-1m BTCUSDT --rows 5")
    read.add_argument("name", type=in_utf8, metavar="NAME", help="the block's name")
    read.add_argument("symbol", type=in_utf8, metavar="SYMBOL", help="a symbol such as BTCUSDT")
    read.add_argument(
        "--rows",
        type=_count,
        metavar="N",
        help="number of newest time slots, the live candle included (default: 20 in a table, else all that fit)",
    )
    form = read.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--csv", action="store_true", help="print comma-separated values with a header")
    form.add_argument("--chart", action="store_true", help="draw the candles, as many as fit the terminal")

    top = add("top", _top, "watch a block and its collector", "top candleshm-spot-1m --interval-seconds 1")
    top.add_argument("name", type=in_utf8, metavar="NAME", nargs="?", help="the block's name (default: all blocks)")
    top.add_argument(
        "--interval-seconds",
        type=_seconds,
        metavar="X",
        help="time between two updates (default: 0.5 on a terminal, else 2)",
    )
    top.add_argument(
        "--max-age-seconds",
        type=_seconds,
        metavar="X",
        default=60.0,
        help="a series counts as stale when its data is older (default: 60)",
    )
    once = top.add_mutually_exclusive_group()
    once.add_argument("--once", action="store_true", help="print the state once and exit")
    once.add_argument("--json", action="store_true", help="print the state once, as a list of objects, and exit")

    check = add(
        "check",
        _check,
        "say in one line whether a block is ready, with exit code 0 or 1",
        "check candleshm-spot-1m --max-age 60",
    )
    check.add_argument("name", type=in_utf8, metavar="NAME", help="the block's name")
    check.add_argument(
        "--max-age",
        type=_seconds,
        metavar="SECONDS",
        help="a series counts as stale when its data is older (default: 60)",
    )
    check.add_argument(
        "--require-streams",
        action="store_true",
        help="also exit with 1 while requests, not streams, bring the candles of more than one symbol in ten",
    )

    cluster = add(
        "cluster",
        _cluster,
        "show who takes part in a cluster, who leads, and who is behind",
        "cluster status --cluster nats://h1,h2,h3",
    )
    cluster.add_argument("action", choices=("status",), help="status: members, mirrors, and the weight of each exit")
    cluster.add_argument("--json", action="store_true", help="print an object with every field")
    add_cluster_flags(cluster)

    rm = add("rm", _rm, "remove blocks that dead collectors left behind", "rm candleshm-spot-1m candleshm-um-1m")
    rm.add_argument("name", type=in_utf8, metavar="NAME", nargs="+", help="a block's name")
    return parser


def _add_replay_flags(replay: argparse.ArgumentParser) -> None:
    replay.add_argument(
        "--recording",
        type=Path,
        metavar="DIR",
        help="replay what `serve --record DIR` wrote instead of daily files, through parser, merge, planner and "
        "writer; with --name the block stays until Ctrl-C; of the other flags only --name and --json count",
    )
    replay.add_argument(
        "--candle-dir", metavar="DIR", default=CANDLE_DIR, help=f"directory of the daily files (default: {CANDLE_DIR})"
    )
    replay.add_argument("--market", metavar="MARKET", help="SPOT | UM | CM, in any case")
    replay.add_argument("--price", choices=PRICES, default="trade", help="what the prices are (default: trade)")
    replay.add_argument("--symbols", type=_names, metavar="A,B", help="symbols (default: all that have files)")
    replay.add_argument(
        "--interval", metavar="NAME", default="1m", help="length of a candle; one that has files (default: 1m)"
    )
    replay.add_argument(
        "--start", metavar="DAY", help="the first day, YYYY-MM-DD, or a moment, YYYY-MM-DDTHH:MM or epoch ms"
    )
    replay.add_argument("--end", metavar="DAY", help="the last day, included, or a moment, excluded")
    replay.add_argument(
        "--derive",
        type=_names,
        metavar="A,B",
        default=(),
        help="further intervals, each in a block of its own: 5m,1h:400,1d@Asia/Shanghai",
    )
    replay.add_argument(
        "--length", type=int, metavar="N", help="candles kept of every symbol, the live one included (default: 2880)"
    )
    replay.add_argument(
        "--warm", type=int, metavar="N", help="rows before the start that are there from the beginning (default: 0)"
    )
    replay.add_argument(
        "--speed",
        type=_speed,
        metavar="max|X",
        default="max",
        help="max: time moves on when every reader has asked for it; X: so many times faster than the clock "
        "(default: max)",
    )
    replay.add_argument(
        "--inside",
        metavar="HOW",
        help="show candles before they close: open,high,low,close in four steps, 1s from files of 1s (default: not)",
    )
    replay.add_argument("--timezone", metavar="NAME", default="UTC", help="whose days the files hold (default: UTC)")
    replay.add_argument("--name", type=_block_name, help="name of the block (default: one that nobody else uses)")
    replay.add_argument(
        "--consumers",
        type=int,
        metavar="N",
        default=1,
        help="readers that are awaited before time begins to move; 0 awaits none (default: 1)",
    )
    replay.add_argument(
        "--absent",
        choices=("raise", "accept"),
        default="raise",
        help="accept: days before the first and after the newest stored one of a symbol have no candles, and candles "
        "that are missing in the files stay missing (default: raise an error)",
    )
    replay.add_argument("--json", action="store_true", help="print what was replayed as an object, at the end")


def _add_log_flags(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--log-level",
        type=str.lower,
        choices=LOG_LEVELS,
        default="info",
        help="log lines of this level and above (default: info)",
    )
    command.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json: one object per line with time, level, logger, event, block and message (default: text)",
    )
    command.add_argument(
        UNTIL_STDIN_CLOSES,
        action="store_true",
        help="also stop when standard input ends, for programs that start this one through a pipe",
    )


def _version() -> str:
    return f"candleshm {version('candleshm')} (time zones {ZONES_VERSION})"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a positive integer: `{text}`")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if all(names):
        return names
    raise argparse.ArgumentTypeError(f"must be names with commas between them: `{text}`")


def _speed(text: str) -> float | str:
    """Return the number that a speed is, or its text: a replay says which speeds there are."""
    try:
        return float(text)
    except ValueError:
        return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if 0 < seconds < math.inf:
        return seconds
    raise argparse.ArgumentTypeError(f"must be a positive number of seconds: `{text}`")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a port, 0 to 65535: `{text}`")


def _address(text: str) -> tuple[str, int]:
    try:
        return listening_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _url_of_market(text: str) -> tuple[str, str]:
    """Return (market, URL) of `MARKET=URL`, and ("", URL) of a URL alone."""
    market, equals, url = text.partition("=")
    if not equals or "://" in market:
        market, url = "", text
    elif market.upper() not in MARKETS:
        raise argparse.ArgumentTypeError(f"`{market}` is no market; use SPOT=URL, UM=URL, CM=URL, or a URL alone")
    if not url.startswith(("http://", "https://")):
        form = f"{market.upper()}=https://host" if market else "https://host, or SPOT=https://host for one market"
        raise argparse.ArgumentTypeError(f"`{url}` is no URL of a REST host; use {form}")
    return market.upper(), url


def _block_name(text: str) -> str:
    if not is_block_name(text):
        raise argparse.ArgumentTypeError(f"`{text}` cannot be the name of a block; allowed: {BLOCK_NAMES}")
    return text


def _origin(text: str) -> str:
    """Return an origin as browsers send it: lower case, without a path."""
    if not re.fullmatch(r"https?://[^/?#@\s]+", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(
            f"`{text}` is no origin; use scheme, host and port, such as https://charts.example"
        )
    return text.lower()


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]+", text):
        raise argparse.ArgumentTypeError(f"`{text}` is no host name; use a name without scheme and port")
    return text.lower()


def _urls_of_markets(
    pairs: Sequence[tuple[str, str]], of_others: str | None
) -> dict[Literal["SPOT", "UM", "CM"], str | None]:
    """Return the URL of every market, None where the exchange's own counts; one market's wins over that of all."""
    given = dict(pairs)
    return {market: given.get(market, given.get("", of_others)) for market in MARKETS}
