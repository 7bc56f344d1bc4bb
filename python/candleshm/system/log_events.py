"""The stable name of each event that is logged: messages may be reworded, these names may not.

`docs/logs.md` lists them for people; `tests/test_log_events.py` fails for a message without a name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

__all__ = ["EVENTS", "event_of"]

OTHER = "other"
# How a line that is logged ever more rarely ends, see `stream/repeated_log.py`.
REPEATED = "; %d times so far"

EVENTS: Mapping[str, Mapping[str, str]] = {
    "cluster.disagreements": {
        "cluster feed %s: %s, so it leads none, and collects for its own host; give all the same "
        "number": "cluster_divided_otherwise",
        "cluster feed %s: this collector takes no lease: %s": "cluster_unfit",
        "cluster feed %s: no rows of %s: %s leads them and does not serve them; give it the same "
        "symbols": "cluster_unserved",
    },
    "cluster.member": {
        "cluster feed %s: leads shard %s of %d": "cluster_leads",
        "cluster feed %s: stands by": "cluster_stands_by",
        "cluster feed %s: no lease for %.0f s (%s); this host collects everything for itself": "cluster_alone",
        "the cluster's member goes on after an internal error": "internal_error",
    },
    "cluster.connection": {
        "the connection to the cluster's servers is lost; connecting again to %s": "cluster_lost",
        "connected to the cluster's servers": "cluster_reachable",
        "connected to the cluster's servers again": "cluster_reachable",
        "%s; it is tried again": "cluster_refused",
        "the cluster's server complains: %s": "cluster_complaint",
    },
    "cluster.follower": {
        "the follower ends because of an internal error": "internal_error",
        "a message of %d bytes was not used (%s); %d so far": "message_refused",
    },
    "cluster.log": {
        "the cluster's servers keep no log of changes (%s); what a host misses comes by requests": "change_log_missing",
    },
    "cluster.mirror_answers": {
        "the mirror goes on and answers no requests because of an internal error": "internal_error",
    },
    "cluster.mirror": {
        "mirror of feed %s, %d %s symbols, %d candles each; %s": "block_opened",
        "no collector of cluster %s tells of feed %s yet; the mirror waits for one": "mirror_waits",
        "left out, because the block is full: %s; %s": "block_full",
        "symbols added: %s": "symbols_added",
        "stopped, block removed": "stopped",
        "the mirror ends because of an internal error": "internal_error",
    },
    "cluster.publisher": {"the publisher ends because of an internal error": "internal_error"},
    "cluster.server_session": {"%s: a message was not taken because of an internal error": "internal_error"},
    "collector.block_names": {
        "another program removed block %s from /dev/shm%s; it was created again with the same rows": "name_restored",
        "another program removed block %s from /dev/shm, and it cannot be created again: %s. Attached readers keep "
        "working, but no new reader can attach until this is solved": "name_lost",
        "block %s is back under its name; readers can attach again": "name_restored",
        "block %s was removed, and another collector has taken its name; this one stops": "name_taken",
    },
    "collector.cache": {
        "cache written: %s (%d rows of %s, %.1f MB, %.2f s)": "cache_written",
        "cache %s could not be written (%s); the older file is kept": "cache_not_written",
        "cache %s cannot be read (%s); its rows are requested again": "cache_not_read",
        "cache %s is not used: %s; its rows are requested again": "cache_not_read",
    },
    "collector.calendars": {
        "%s rolled at %s: it was %s and is %s now": "contract_rolled",
        "%s does not trade until %s: candles of %s are flat or absent until then": "session_ended",
        "%s trades again: candles of %s are awaited": "session_began",
    },
    "collector.clock_sync": {
        "%s; the exchange's clock is measured before any other request": "exchange_clock_remeasured",
        "this machine's clock is %.1f s %s the exchange's; this affects only times in logs, not candles": "clock_off",
        "this machine's clock agrees with that of the exchange again": "clock_right",
    },
    "collector.collector": {
        "block %s, %s of %s, %d candles each; %s": "block_opened",
        "no streams: %s; candles by REST requests every %g s": "by_requests",
        "candles by streams of %s (live is %s); by REST requests until they flow, and if one stalls": "by_streams",
        "%s candles derived into block %s, %d each": "block_derived",
        "block %s was derived before and is not now; it was removed": "block_left_removed",
        "the hours of markets are not known yet: %s": "sessions_not_read",
        "stopped, block removed": "stopped",
        "the collector ends because of an internal error": "internal_error",
    },
    "collector.derived_files": {
        "%s: daily files are left out: %s": "day_not_read",
    },
    "collector.failures": {
        "%s: %s; failure %d, next try in %.1f s": "request_failed",
        "%s: requests succeed again after %d failures": "request_recovered",
        "%s: given up for now: %s%s; retried at growing intervals": "symbol_given_up",
        "%s; no requests for %.0f s": "requests_stopped",
    },
    "collector.filling": {
        "%d rows loaded from cache %s": "rows_loaded",
        "%d rows loaded from daily files": "rows_loaded",
        "candles of %s have no daily files": "no_daily_files",
        "no daily files are read or written: %s": "no_daily_files",
        "no days were fetched from the archive: %s": "archive_failed",
    },
    "collector.loading": {"loaded %d of %s%s": "loaded"},
    "collector.outdated_responses": {
        "%s has sent the same old data since %s (exchange time), although its clock runs: %d symbols (%s); their age "
        "grows, and none of their candles becomes final": "responses_outdated",
        "%s sends new data again": "responses_current",
    },
    "collector.recording": {
        "nothing is recorded in %s: %s; candles come as ever": "recording_failed",
        "recording into %s, at most %.1f MiB": "recording_began",
        "the recording in %s cannot be written: %s; candles come as ever, and what does not fit is left out": (
            "recording_failed"
        ),
        "the recording goes on; %d records are missing in it": "recording_began",
        "the recording lacks %d records: %s is too slow; candles come as ever": "recording_lacks",
        "%d old files of the recording were removed so far, to stay below %.1f MiB": "recording_shortened",
    },
    "collector.repair": {
        "%s: stream and REST differ in %d rows": "sources_differ",
        "%s: two responses had no row for %d candles; they count as holes": "holes_confirmed",
        "%s: %d candles arrived late and fill their holes": "holes_filled",
        "%s: the exchange corrected %d closed candles": "rows_corrected",
        "%s: %d rows have impossible values and were left out": "rows_refused",
    },
    "collector.status_board": {
        "%s": "outage",
        "source of live candles: %s; %s by REST requests": "live_source",
    },
    "collector.symbols": {
        "symbols added: %s": "symbols_added",
        "not trading: %s; their rows stay readable but are no longer updated": "symbols_ended",
        "no new candles, although the exchange lists them as trading: %s; closes no longer wait for them": (
            "symbols_silent"
        ),
        "new candles again: %s; closes wait for them again": "symbols_back",
        "left out, because the block is full: %s; %s": "block_full",
        "the block was full; a larger one with the same rows has replaced it, and readers move to it": "block_enlarged",
    },
    "collector.universe_refresh": {
        "%s; the list is not used, and is requested again in %.0f s": "list_refused",
        "%s; the list is used now: the exchange repeated it, or candles confirm it": "list_accepted",
        "%s: not listed; it is added once the exchange lists it%s": "symbol_not_listed",
    },
    "collector.workers": {"only %d of %d worker threads can be started: %s": "threads_short"},
    "commands.gateway_child": {
        "the gateway has ended (%s); it is started again in %g s": "gateway_ended",
    },
    "commands.reload": {
        "%s was read again, and an internal error kept the feeds from following it": "internal_error",
        "%s was read again and is not used, everything stays as it is: %s": "configuration_not_used",
        "%s: %s": "configuration_refused",
        "%s was read again; the symbols of %d feeds change": "configuration_read",
        "%s: %s of block %s is `%s` now, and stays `%s`; it takes a restart": "configuration_refused",
    },
    "commands.days": {
        "verified: the archive agrees on %d candles and differs on %d": "days_verified",
        "%s; it is left as it is": "day_damaged",
    },
    "commands.funding": {"%s: funding rates could not be fetched: %s": "funding_failed"},
    "commands.progress": {"%s: %s": "progress"},
    "commands.scrape_server": {"metrics: %s": "metrics_failed"},
    "gateway.directory": {
        "block %s: %s %s, %s": "block_found",
        "block %s is gone": "block_gone",
        "block %s is left out: its candles are those of %s, and requests are answered for %s": "block_left_out",
        "%s": "block_not_read",
        "the blocks of this machine cannot be listed; the gateway goes on with those it has": "internal_error",
    },
    "gateway.exchange_info": {
        "%s cannot be used, the list of symbols is requested anew: %s": "list_not_read",
        "%s cannot be written, the list of symbols is kept in memory: %s": "list_not_written",
        "the list of symbols of %s cannot be kept": "internal_error",
        "the list of symbols of %s was not fetched: %s": "list_not_fetched",
    },
    "gateway.gateway": {
        "listening on %s: other machines that reach it are admitted by the token, which HTTP shows": "gateway_reach",
        "listening on %s without --token-file: everybody who reaches it can read candles and names of blocks, and "
        "with --pass-through spend the request weight of this machine": "gateway_reach",
    },
    "gateway.page.watch": {"the page's look at the blocks failed; it is repeated": "internal_error"},
    "gateway.streams.client": {"stream client %s is disconnected: %d, %s": "client_disconnected"},
    "gateway.streams.hub": {"%d stream clients are disconnected: %s": "clients_disconnected"},
    "history.archive": {"archive: %s; the remaining files are not requested from it": "archive_failed"},
    "history.archive_days": {
        "archive: %s: %s": "archive_file_absent",
        "archive: %s cannot be used: %s": "archive_file_refused",
        "archive: %s: %d rows have impossible values and were left out": "rows_refused",
    },
    "history.block": {"%s; left out": "day_not_read"},
    "history.daily_writer": {
        "%s: daily files %s": "day_kept",
        "%s: %s; written again": "day_damaged",
        "daily files: %s; next attempt in %.0f s": "day_failed",
        "daily files: internal error; next attempt in %.0f s": "day_failed",
        "daily files: the program ends, and %s not stored; call download_daily again": "days_left",
        "daily files: the program ends; no further day is stored": "days_left",
    },
    "history.day_writing": {
        "%s: %s written": "day_written",
        "%s: no candles yet on %s, nor before": "symbol_without_candles",
        "%s: %s %d of %d times of %s": "day_incomplete",
        "%s: %s: the archive has %d of %d candles, which are stored; the exchange does not give the rest": (
            "day_incomplete"
        ),
        "%s; the exchange's value is kept": "sources_differ",
        "%s: %d more candles of that day differ": "sources_differ",
    },
    "history.downloader": {
        "%s: %s could not be fetched: %s": "day_failed",
        "%s: %s; fetched again": "day_damaged",
    },
    "history.fetching": {
        "%s: %s does not list it, %s%s": "symbol_not_listed",
        "%s: left out, its status is %s; type `all` includes it": "symbol_left_out",
        "%s is not over yet and is left out; the newest complete day is %s": "day_left_out",
    },
    "history.funding_rates": {
        "%s; fetched again": "funding_damaged",
    },
    "history.lock": {
        "%s: its file system has no locks; only this user's writers on this host are excluded": "no_file_locks",
    },
    "history.store": {
        "%s; it is kept as %s, and its other days have to be downloaded again": "day_damaged",
    },
    "history.tally": {"%s %s: %d of %s new, %d done before, %d with remarks, %d failed": "day_done"},
    "history.verification": {
        "%s": "day_failed",
        "%s: %s is from %s, not from the exchange": "day_incomplete",
        "%s: the archive does not have %d of %d candles of %s": "day_incomplete",
    },
    "ratelimit.ledger": {
        "the weight ledger cannot be created in %s (%s): THIS PROCESS DOES NOT SHARE ITS WEIGHT BUDGET, and the "
        "exchange may ban this host; set CANDLESHM_RUNTIME_DIR to a directory that can be written": "ledger_failed",
        "the weight ledger %s is locked by process %d, which seems to be stopped; no request is sent until it "
        "continues or ends": "ledger_locked",
        "the weight ledger %s was removed and cannot be created again: %s": "ledger_failed",
        "the weight ledger %s was removed while in use; it was created again": "ledger_restored",
    },
    "replaying.standstill": {"replay %s has stood still for %.0f s at %s UTC: %s": "replay_held_up"},
    "rest.client": {
        "%s; failure %d, next attempt in %.1f s": "exchange_unreachable",
        "the exchange responds again after %d failures": "exchange_reachable",
        "%s; no requests for %.0f s": "requests_stopped",
    },
    "stream.manager": {
        "%s": "stream_path",
        "a stream frame was skipped: %s": "stream_frame_skipped",
        "%s; reconnecting in %.1f s": "stream_reconnecting",
        "a stream connection of %d symbols ended: %s": "stream_lost",
        "opening a standby for a stream connection of %d symbols, because %s": "stream_standby",
        "the server refused a stream message: %s": "stream_message_refused",
        "streams stopped because of an internal error; the collector continues by REST": "internal_error",
    },
    "stream.stalls": {"%s": "streams_stalled"},
    "system.sharing": {"%s is not used: %s": "group_not_used"},
    "universe": {
        "%s: %s does not list it, left out%s": "symbol_not_listed",
        "%s chosen by their volume in 24 hours: %s": "symbols_chosen",
    },
}


def event_of(record: logging.LogRecord) -> str:
    """Return the name of a record's event, `other` for a record of another program.

    >>> event_of(logging.makeLogRecord({"name": "candleshm.collector.collector", "msg": "stopped, block removed"}))
    'stopped'
    """
    message = str(record.msg)
    block = getattr(record, "block", None)
    if block is not None:
        message = message.removeprefix(f"{block.replace('%', '%%')}: ")
    of_module = EVENTS.get(record.name.removeprefix("candleshm."), {})
    return of_module.get(message.removesuffix(REPEATED), OTHER)
