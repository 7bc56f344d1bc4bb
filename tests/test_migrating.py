"""Every statement of docs/migrating.md has a test: the table below says which.

A statement is a sentence, or a row of a table. What the page says about binance_interface itself is what its version
2.0.5 does; it is not installed here.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import candleshm
from candleshm import history
from candleshm.compat.candle_server import CandleRule, CandleServer
from candleshm.sim import SimulatedExchange
from tests.support.days import NEW_YORK
from tests.test_candle_server import QUICK, until

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "migrating.md"
DAY_MS = 86_400_000

RULE = "test_each_setting_has_the_default_of_the_page"
WRONG = "test_a_wrong_value_names_setting_value_and_what_is_allowed"
NAMES = "test_calls_and_parameters_have_the_known_names"

# A part of each statement, and the tests that run it.
CHECKS: dict[str, list[str]] = {
    "Change the import; most programs": ["test_the_notebook_runs_as_it_was_written"],
    "is such a notebook": ["test_the_notebook_runs_as_it_was_written"],
    "every other process of the machine can read": ["test_the_block_is_named_after_market_and_bar_and_others_attach"],
    "The name is `candleshm-{market}-{BAR}`": [
        "test_the_block_is_named_after_market_and_bar_and_others_attach",
        "test_a_block_that_lacks_something_is_left_alone_and_the_next_free_name_is_taken",
    ],
    "Two servers for one market and BAR": [
        "test_the_second_server_reads_the_block_of_the_first_and_sends_one_request_for_candles"
    ],
    "A block has one writer": [
        "test_a_second_collector_under_the_same_name_is_refused_and_harms_nothing",
        "test_the_second_server_reads_the_block_of_the_first_and_sends_one_request_for_candles",
        "test_a_block_that_lacks_something_is_left_alone_and_the_next_free_name_is_taken",
    ],
    "The log names the block": [
        "test_the_second_server_reads_the_block_of_the_first_and_sends_one_request_for_candles"
    ],
    "The second server's `candle_map`": [
        "test_the_second_server_reads_the_block_of_the_first_and_sends_one_request_for_candles",
        "test_the_second_server_writes_the_daily_files_of_its_own_rule",
    ],
    "When the first one ends, or is killed": [
        "test_the_second_server_collects_once_the_first_has_ended",
        "test_a_first_server_that_is_restarted_gets_its_name_back",
    ],
    "symbols that are listed later come": ["test_a_symbol_that_is_listed_later_comes_with_the_first_server"],
    "Where the first block lacks something": [
        "test_a_block_that_lacks_something_is_left_alone_and_the_next_free_name_is_taken"
    ],
    "With `name=` there is no other name": ["test_the_block_of_a_given_name_that_lacks_something_is_an_error"],
    "a script whose last line is `download_daily()`": [
        "test_a_script_that_ends_with_download_daily_stores_the_day_in_hand"
    ],
    "Here the program waits for the day": ["test_a_script_that_ends_with_download_daily_stores_the_day_in_hand"],
    "should keep daily files for ever": ["test_serve_keeps_daily_files_only_where_it_is_told_to"],
    "`CandleRule` with its names and defaults": ["test_names_and_defaults_are_the_known_ones", NAMES],
    "`run_candle_map()` blocks until": [
        "test_candle_map_is_a_read_only_dict_of_private_arrays",
        "test_update_interval_is_the_pause_between_requests",
        "test_the_last_state_stays_readable_and_the_server_runs_again",
    ],
    "`candle_map[symbol]` is a float64 array": ["test_candle_map_is_a_read_only_dict_of_private_arrays"],
    "`LENGTH` counts the live row": ["test_candle_map_is_a_read_only_dict_of_private_arrays"],
    "`get_candle_security(symbol, security_seconds=180)`": [
        NAMES,
        "test_get_candle_security_goes_by_the_age_of_the_newest_candle",
    ],
    "`get_symbols_filtered(type)`": ["test_get_symbols_filtered_by_trading_state"],
    "Any other `code` means": ["test_get_symbols_filtered_without_a_response"],
    "is a relay: requests go to": ["test_proxy_host_gets_the_path_that_the_relay_expects"],
    "Log lines `DOWNLOAD BTCUSDT": ["test_log_lines_and_files_carry_the_day_of_the_time_zone"],
    "The date is that of the newest candle": ["test_log_lines_and_files_carry_the_day_of_the_time_zone"],
    "WARN counts symbols": [
        "test_new_listings_and_holes_are_served_as_they_are",
        "test_a_symbol_that_fails_is_left_out_and_comes_later",
    ],
    "| A row fetched while its candle was live": [
        "test_minutes_captured_live_are_true_once_closed_whatever_the_local_clock_shows"
    ],
    "| A candle that the exchange does not have": ["test_new_listings_and_holes_are_served_as_they_are"],
    "| A new listing, shorter than": ["test_new_listings_and_holes_are_served_as_they_are"],
    "| `proxies` |": ["test_proxies_are_really_used"],
    "| Listings and delistings": [
        "test_the_list_of_symbols_is_read_every_two_minutes",
        "test_a_laggard_makes_it_be_read_soon_and_the_longer_it_lags_the_less_often",
    ],
    "| A local clock that is wrong": ["test_get_candle_security_goes_by_the_age_of_the_newest_candle"],
    "| `get_candle_security` with `BAR='1h'`": ["test_get_candle_security_goes_by_confirmation_for_longer_bars"],
    "| 429 and 418": [
        "test_a_429_stops_all_requests_for_as_long_as_it_states",
        "test_a_418_stops_all_requests_until_the_epoch_it_names",
    ],
    "| Weights and limits": ["test_recorded_exchange_info", "test_recorded_server_time_and_used_weight"],
    "| Requests | one after the other": ["test_the_budget_is_kept_and_used_up"],
    "| Arrays of `candle_map`": ["test_candle_map_is_a_read_only_dict_of_private_arrays"],
    "| A slow or failing symbol": [
        "test_a_symbol_that_fails_from_the_start_neither_delays_nor_drops_another",
        "test_a_symbol_that_fails_is_left_out_and_comes_later",
    ],
    "| `run_candle_map()` called twice": ["test_running_twice_is_harmless"],
    "| `close_run_candle_map()` | ends after": [
        "test_close_ends_a_start_that_still_blocks",
        "test_stop_is_prompt_removes_the_block_and_lets_nothing_be_written_any_more",
    ],
    "| A setting that does not exist": ["test_an_unknown_name_in_capitals_gets_the_nearest_one"],
    "| An exchange that cannot be reached": ["test_an_unreachable_exchange_is_an_error_with_nothing_left_behind"],
    "`candle_map` is a read-only `Mapping`": ["test_candle_map_is_a_read_only_dict_of_private_arrays"],
    "`dict(server.candle_map)` gives a dict": ["test_candle_map_is_a_read_only_dict_of_private_arrays"],
    "It is empty before the start": [
        "test_candle_map_is_a_read_only_dict_of_private_arrays",
        "test_the_last_state_stays_readable_and_the_server_runs_again",
    ],
    "The server does not keep a process alive": ["test_a_process_that_just_ends_takes_its_block_away"],
    "A program that only serves": ["test_a_signal_ends_serve_in_order"],
    "Of a list in `SYMBOLS`": [
        "test_a_listed_symbol_that_is_unknown_is_dropped",
        "test_no_symbol_left_is_an_error_with_nothing_left_behind",
        "test_get_symbols_filtered_by_trading_state",
    ],
    "Listed symbols that do not trade": ["test_a_listed_symbol_that_does_not_trade_is_loaded_once"],
    "One log file a day": [
        "test_log_lines_and_files_carry_the_day_of_the_time_zone",
        "test_log_levels_and_directory",
    ],
    "It is created when the server has started": ["test_an_unreachable_exchange_is_an_error_with_nothing_left_behind"],
    "A directory that cannot be written": ["test_a_log_directory_that_cannot_be_made_costs_one_warning"],
    "Where the program's own logging": ["test_a_line_that_a_handler_of_the_program_shows_is_not_shown_again"],
    "Errors are classes under": ["test_every_error_has_one_base"],
    "Internal parts are gone": ["test_internal_parts_are_gone"],
    "runs on entry and closes": ["test_a_server_prints_what_it_serves_and_whether_it_runs"],
    "`status()` returns a `candleshm.Health`": ["test_status_is_the_health_of_the_block"],
    "Keyword arguments `name`": [NAMES, "test_wrong_arguments_are_named_when_the_server_is_made"],
    "`download_candles_by_date`, `download_daily`": [NAMES, "test_days_are_downloaded_with_the_familiar_lines"],
    "| A process killed while it writes": ["test_a_killed_writer_leaves_the_old_file_or_the_new_one"],
    "| An existing file": [
        "test_what_is_there_and_whole_is_not_requested_again",
        "test_an_incomplete_file_is_fetched_again",
    ],
    "| A day with candles that the exchange does not have": [
        "test_a_hole_counts_once_two_responses_a_settle_time_apart_confirm_it"
    ],
    "| A symbol listed during the day": ["test_a_symbol_listed_at_noon_is_complete_from_then_on"],
    "| A download | one request": [
        "test_a_download_beside_a_running_server_spends_from_one_budget",
        "test_the_weight_stays_within_the_share",
    ],
    "| At DOWNLOAD_TIME": [
        "test_yesterday_is_written_from_the_block_without_a_request",
        "test_what_the_block_does_not_have_comes_from_the_exchange",
    ],
    "| After a restart, or a suspended": ["test_a_machine_that_slept_through_the_hour_writes_every_day_once"],
    "Files are Parquet": ["test_pandas_polars_and_duckdb_read_the_tree_as_it_lies"],
    "Without that extra a server runs": [
        "test_without_pyarrow_a_server_runs_and_says_that_it_keeps_no_files",
        "test_without_pyarrow_the_text_says_what_to_install",
    ],
    "`candleshm import-csv ./CANDLELITE_DATA/BINANCE`": ["test_import_takes_what_is_good_and_names_what_is_not"],
    "It writes below `./candles`": ["test_the_command_ends_with_a_table"],
    "`candleshm download --format csv`": ["test_the_command_writes_the_predecessors_tree"],
    "Checked with `candlelite` 1.0.17": [
        "test_a_file_that_the_predecessor_wrote_is_read",
        "test_what_is_written_is_what_pandas_writes_and_reads",
    ],
    "At its start a server loads": ["test_local_days_are_loaded_and_not_requested_again"],
    "It does not wait for days": ["test_without_a_download_time_nothing_is_stored"],
    "With a `DOWNLOAD_TIME` the server stores": [
        "test_a_running_server_writes_yesterday_with_the_familiar_line",
        "test_without_a_download_time_nothing_is_stored",
    ],
    "Days imported from CSV are not loaded": ["test_days_of_a_predecessor_are_not_loaded"],
    "returns the outcome of each day": ["test_days_are_downloaded_with_the_familiar_lines"],
    "`end` is included": [
        "test_days_are_downloaded_with_the_familiar_lines",
        "test_a_day_that_is_not_over_is_left_out",
    ],
    "Intervals above `1d`": ["test_intervals_above_1d_have_no_daily_files"],
    "Outside `CandleServer`": ["test_days_are_those_of_utc_below_candles_unless_told_otherwise"],
    "To read the files of a server": ["test_the_files_of_a_server_are_read_by_its_zone_and_directory"],
    "| `SERVER_WEIGHT` | `0.75`": [RULE, WRONG, "test_server_weight_is_the_part_of_the_limit_that_is_used"],
    "| `SYMBOLS` |": [RULE, WRONG, "test_all_symbols_that_trade_less_what_the_filters_take"],
    "| `SYMBOLS_FILTER` |": [RULE, WRONG, "test_filters_hold_for_a_list_too"],
    "| `SYMBOL_CONTAINS` |": [RULE, WRONG, "test_filters_hold_for_a_list_too"],
    "| `SYMBOL_ENDSWITH` |": [RULE, WRONG, "test_filters_hold_for_a_list_too"],
    "| `BAR` |": [RULE, WRONG, "test_market_bar_and_length", "test_seconds_are_spot_only"],
    "| `TIMEZONE` |": [RULE, WRONG, "test_log_lines_and_files_carry_the_day_of_the_time_zone"],
    "| `LENGTH` |": [RULE, WRONG, "test_market_bar_and_length"],
    "| `UPDATE_INTERVAL_SECONDS` |": [RULE, WRONG, "test_update_interval_is_the_pause_between_requests"],
    "| `KEY`, `SECRET` |": [RULE, "test_secrets_are_not_repeated", "test_keys_are_never_sent_or_logged"],
    "| `LOG_DIRPATH` |": [RULE, WRONG, "test_log_levels_and_directory"],
    "| `LOG_FILE_LEVEL` |": [RULE, WRONG, "test_log_levels_and_directory"],
    "| `LOG_CONSOLE_LEVEL` |": [RULE, WRONG, "test_log_levels_and_directory"],
    "| `CANDLE_DIR` |": [RULE, WRONG, "test_the_files_of_a_server_are_read_by_its_zone_and_directory"],
    "| `DOWNLOAD_TIME` |": [RULE, WRONG, "test_a_day_is_due_at_that_time_of_the_day_after"],
    "| `LOCAL_CANDLE_DAYS` |": [RULE, WRONG, "test_local_days_are_loaded_and_not_requested_again"],
    "| `CACHE_DIR` |": [RULE, WRONG, "test_the_cache_is_written_every_now_and_then_and_at_the_end"],
    "| `CACHE_DELAY_SECONDS` |": [
        RULE,
        WRONG,
        "test_the_cache_is_written_every_now_and_then_and_at_the_end",
        "test_a_cache_delay_of_none_writes_nothing",
    ],
    "A wrong value is a ConfigError": ["test_wrong_arguments_are_named_when_the_server_is_made"],
    "So is any other name in capitals": [
        "test_an_unknown_name_in_capitals_gets_the_nearest_one",
        "test_other_attributes_are_the_users_own",
    ],
}


def statements() -> Iterator[str]:
    """Yield the sentences and table rows of the page, each on one line."""
    text = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip().splitlines()
        if not lines or lines[0].startswith("#"):
            continue
        if lines[0].startswith("|"):
            yield from lines[2:]
            continue
        for item in re.split(r"\n(?=- )", "\n".join(lines)):
            sentences = re.split(r"(?<=\.)\s+(?=[A-Z`*])", " ".join(item.removeprefix("- ").split()))
            yield from (sentence for sentence in sentences if sentence != "Differences:")


def test_each_statement_of_the_page_is_in_the_table() -> None:
    page = list(statements())
    assert len(page) > 90
    assert [statement for statement in page if not any(part in statement for part in CHECKS)] == []


def test_the_table_has_no_statement_that_the_page_does_not_make() -> None:
    page = list(statements())
    assert [part for part in CHECKS if sum(part in statement for statement in page) != 1] == []


def test_the_tests_of_the_table_exist() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").glob("test_*.py")]
    known = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for names in CHECKS.values() for name in names} - known == set()


def test_each_setting_has_the_default_of_the_page() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| `([^`]*)` \|", PAGE.read_text(), re.MULTILINE)
    page = {name: ast.literal_eval(default) for names, default in rows for name in re.findall(r"[A-Z_]+", names)}
    assert page == {name: getattr(CandleRule, name) for name in dir(CandleRule) if name.isupper()}


def test_calls_and_parameters_have_the_known_names() -> None:
    parameters: dict[Callable[..., object], list[str]] = {
        CandleServer: ["instType", "rule", "proxies", "proxy_host"],
        CandleServer.run_candle_map: ["self"],
        CandleServer.close_run_candle_map: ["self"],
        CandleServer.get_candle_security: ["self", "symbol", "security_seconds"],
        CandleServer.get_symbols_filtered: ["self", "type"],
        CandleServer.download_candles_by_date: ["self", "start", "end", "type", "replace"],
        CandleServer.download_daily: ["self", "start", "replace", "type"],
        CandleServer.close_download_daily: ["self"],
    }
    for call, names in parameters.items():
        found = inspect.signature(call).parameters.values()
        assert [each.name for each in found if each.kind is not inspect.Parameter.KEYWORD_ONLY] == names
    security = inspect.signature(CandleServer.get_candle_security).parameters["security_seconds"]
    assert security.default == 180
    new = [
        each.name for each in inspect.signature(CandleServer).parameters.values() if each.kind.name == "KEYWORD_ONLY"
    ]
    assert new == ["name", "base_url", "ws_url", "live", "settle_seconds"]


def test_the_list_of_symbols_is_read_every_two_minutes() -> None:
    assert candleshm.CollectorConfig(market="SPOT").universe_refresh_seconds == 120


def test_every_error_has_one_base() -> None:
    errors = [value for value in vars(candleshm).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 20
    assert [error for error in errors if not issubclass(error, candleshm.CandleShmError)] == []


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture
def make(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CandleServer]:
    """Make servers in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def server(**settings: Any) -> CandleServer:
        return CandleServer(
            "SPOT", type("MyRule", (CandleRule,), QUICK | settings), name=block_name, base_url=exchange.base_url
        )

    return server


def test_internal_parts_are_gone(make: Callable[..., CandleServer]) -> None:
    server = make()
    for name in ("market", "filter", "lite", "log", "prepare_candle_map", "update_candle"):
        assert not hasattr(server, name)


def test_status_is_the_health_of_the_block(make: Callable[..., CandleServer], block_name: str) -> None:
    with make() as server:
        health = server.status()
    assert isinstance(health, candleshm.Health)
    assert (health.name, health.symbols, health.missing, health.holes) == (block_name, 2, 0, 0)
    assert 0 < health.weight_used < health.weight_limit
    assert health.banned_until is None
    assert health.heartbeat_age < 60


def test_a_listed_symbol_that_does_not_trade_is_loaded_once(
    exchange: SimulatedExchange, make: Callable[..., CandleServer]
) -> None:
    def requested(symbol: str) -> int:
        return exchange.stats().count("/klines", symbol)

    with make(SYMBOLS=["BTCUSDT", "LUNAUSDT"], UPDATE_INTERVAL_SECONDS=0.1) as server:
        assert len(server.candle_map["LUNAUSDT"])
        until(lambda: requested("BTCUSDT") > 10)
        loaded = requested("LUNAUSDT")
        assert loaded <= 3  # a second response confirms its last candle
        until(lambda: requested("BTCUSDT") > 20)
        assert requested("LUNAUSDT") == loaded


def test_keys_are_never_sent_or_logged(
    exchange: SimulatedExchange, make: Callable[..., CandleServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(KEY="mykey0123", SECRET="mysecret0123"):
        pass
    sent = repr(exchange.served())
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for text in (sent, written, *capsys.readouterr()):
        assert "mykey0123" not in text
        assert "mysecret0123" not in text
    assert "/klines" in sent


def test_without_a_download_time_nothing_is_stored(make: Callable[..., CandleServer], tmp_path: Path) -> None:
    with make(DOWNLOAD_TIME=None, LOCAL_CANDLE_DAYS=2, LENGTH=2880) as server:
        assert server.candle_map["BTCUSDT"].shape == (2880, 12)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_intervals_above_1d_have_no_daily_files(make: Callable[..., CandleServer], tmp_path: Path) -> None:
    with make(BAR="1w", LENGTH=5, DOWNLOAD_TIME="00:00:00", LOCAL_CANDLE_DAYS=2) as server:
        assert server.candle_map["BTCUSDT"].shape == (5, 12)
    assert "candles of 1w have no daily files" in "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    with pytest.raises(candleshm.ConfigError, match="interval cannot be `1w`"):
        server.download_candles_by_date("2026-11-01")


def test_the_files_of_a_server_are_read_by_its_zone_and_directory(
    exchange: SimulatedExchange, make: Callable[..., CandleServer]
) -> None:
    yesterday = history.Day.of(exchange.now_ms() - DAY_MS, NEW_YORK)
    make().download_candles_by_date(yesterday.date)
    rows = history.load(
        "SPOT", "BTCUSDT", yesterday.date, timezone="America/New_York", base_dir="./CANDLELITE_DATA/BINANCE"
    )
    expected = exchange.truth.floats("SPOT", "BTCUSDT", "1m", yesterday.start_ms, yesterday.end_ms)
    assert rows.tolist() == expected.tolist()
