//! `candleshm._core`: the compiled module. Converts arguments, releases the GIL, maps errors; decides nothing.
//!
//! The comments of Python's classes and methods are their docstrings, and are written as such.
#![allow(clippy::doc_markdown, clippy::doc_link_with_quotes, reason = "docstrings are not Markdown")]

mod arguments;
mod array;
mod blocks;
mod closed;
mod daily;
mod derive;
mod descriptor;
mod errors;
mod event_sink;
mod exchange_clock;
mod feed;
mod gap;
mod guarded;
mod ingested;
mod kline_events;
mod klines;
mod opening;
mod outlet;
mod parsed;
mod pool;
mod process;
mod pushed;
mod recording;
mod recording_player;
mod replay;
mod replica;
mod rows;
mod rules;
mod series;
mod series_state;
mod streams;
mod view;
mod waiting;
mod writer;
mod zone;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The compiled core of candleshm.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<feed::Feed>()?;
    module.add_class::<closed::Closed>()?;
    module.add_class::<series::Series>()?;
    module.add_class::<gap::Gap>()?;
    module.add_class::<kline_events::KlineEvents>()?;
    module.add_function(wrap_pyfunction!(kline_events::frame_text, module)?)?;
    module.add_class::<klines::KlinesText>()?;
    module.add_function(wrap_pyfunction!(klines::klines_text, module)?)?;
    module.add_class::<view::View>()?;
    module.add_class::<waiting::News>()?;
    module.add_class::<writer::Writer>()?;
    module.add_class::<replay::Replay>()?;
    module.add_class::<ingested::Ingested>()?;
    module.add_class::<series_state::SeriesState>()?;
    module.add_class::<recording::RecordingStatus>()?;
    module.add_class::<recording_player::RecordingPlayer>()?;
    module.add_class::<ingested::Older>()?;
    module.add("NotMerged", module.py().get_type::<errors::NotMerged>())?;
    module.add_function(wrap_pyfunction!(derive::py_derive, module)?)?;
    module.add_function(wrap_pyfunction!(derive::derivation_parts, module)?)?;
    module.add_function(wrap_pyfunction!(derive::ended_ms, module)?)?;
    module.add_function(wrap_pyfunction!(arguments::check_moment, module)?)?;
    module.add_function(wrap_pyfunction!(arguments::py_check_timeout, module)?)?;
    module.add_class::<pushed::Pushed>()?;
    module.add_class::<streams::StreamThread>()?;
    module.add_class::<streams::StreamCounts>()?;
    module.add_class::<streams::StreamNews>()?;
    module.add_function(wrap_pyfunction!(blocks::py_block_names, module)?)?;
    module.add_function(wrap_pyfunction!(blocks::py_is_owned, module)?)?;
    module.add_function(wrap_pyfunction!(blocks::py_unlink, module)?)?;
    module.add_function(wrap_pyfunction!(blocks::block_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(blocks::share_with, module)?)?;
    module.add_function(wrap_pyfunction!(parsed::parse_klines, module)?)?;
    module.add_function(wrap_pyfunction!(parsed::parse_archive_csv, module)?)?;
    module.add_function(wrap_pyfunction!(daily::read_daily, module)?)?;
    module.add_class::<pool::PoolWords>()?;
    module.add_class::<outlet::Outlet>()?;
    module.add_class::<replica::Shadow>()?;
    module.add_class::<replica::Applied>()?;
    module.add_class::<replica::FeedShape>()?;
    module.add_function(wrap_pyfunction!(replica::shard_of, module)?)?;
    module.add_function(wrap_pyfunction!(replica::message_feed, module)?)?;
    module.add_function(wrap_pyfunction!(replica::message_head, module)?)?;
    rules::add_constants(module)?;
    module.add_function(wrap_pyfunction!(rules::candle_end_ms, module)?)?;
    module.add_function(wrap_pyfunction!(rules::freshness, module)?)?;
    module.add_function(wrap_pyfunction!(rules::hole_apart_ms, module)?)?;
    module.add_function(wrap_pyfunction!(rules::candles_within, module)?)?;
    module.add_function(wrap_pyfunction!(rules::is_symbol_name, module)?)?;
    module.add_function(wrap_pyfunction!(rules::is_block_name, module)?)?;
    module.add_class::<zone::PyZone>()?;
    module.add_function(wrap_pyfunction!(zone::zone_names, module)?)?;
    for forget in
        [wrap_pyfunction!(guarded::forget_writers, module)?, wrap_pyfunction!(replay::forget_replays, module)?]
    {
        let after_fork = PyDict::new(module.py());
        after_fork.set_item("after_in_child", forget)?;
        module.py().import("os")?.call_method("register_at_fork", (), Some(&after_fork))?;
    }
    Ok(())
}
