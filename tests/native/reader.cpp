// Reads a block by candleshm.hpp as it is told; the words that come in and go out are those of reader.c.
#include <chrono>
#include <cstring>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <thread>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "candleshm.hpp"

namespace {

std::optional<candleshm::feed> feed;
std::optional<candleshm::series> series;
std::optional<candleshm::view> view;

template <typename Values>
void print(std::ostream& out, const Values& values) {
  for (double value : values) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    out << ' ' << std::hex << std::setw(16) << std::setfill('0') << bits << std::dec;
  }
}

candleshm::holes holes_of(int flags) { return static_cast<candleshm::holes>(flags & 3); }
candleshm::rows rows_of(int flags) { return static_cast<candleshm::rows>(flags & CSHM_CLOSED_ONLY); }

void obey(std::istringstream& words, std::ostream& out) {
  std::string call;
  words >> call;
  const auto number = [&words] {
    double value = 0;
    words >> value;
    return value;
  };
  const auto count = [&number] { return static_cast<std::size_t>(number()); };
  const auto integer = [&number] { return static_cast<int>(number()); };
  if (call == "attach") {
    std::string name;
    words >> name;
    feed.emplace(name, number());
    out << 0;
  } else if (call == "detach") {
    feed.reset();
    out << 0;
  } else if (call == "names") {
    const auto names = candleshm::names();
    out << names.size();
    for (const auto& name : names) out << ' ' << name;
  } else if (call == "symbols") {
    const auto symbols = feed->symbols();
    out << symbols.size();
    for (const auto& symbol : symbols) out << ' ' << symbol;
  } else if (call == "health") {
    const auto health = feed->health();
    out << 0 << ' ' << health.market << ' ' << health.interval << ' ' << health.length << ' ' << health.symbols;
    out << ' ' << health.epoch << ' ' << health.replay_ms << " [" << health.source << ']';
  } else if (call == "series") {
    std::string symbol;
    words >> symbol;
    series = (*feed)[symbol];
    out << 0;
  } else if (call == "last_close") {
    const double close = series->last_close();
    out << 0;
    print(out, std::array<double, 1>{close});
  } else if (call == "live") {
    int state = 0;
    const candleshm::row row = series->live(&state);
    out << 0;
    print(out, row);
    out << ' ' << state;
  } else if (call == "age") {
    const double age = series->age();
    out << 0 << ' ' << std::fixed << age;
  } else if (call == "last_open_ms") {
    out << series->last_open_ms().value_or(0);
  } else if (call == "revision") {
    out << series->revision();
  } else if (call == "candles") {
    const std::size_t n = count();
    const int flags = integer();
    const candleshm::candles rows = series->candles(n, holes_of(flags), rows_of(flags));
    out << rows.size();
    for (int column = 0; column < CSHM_COLUMNS; ++column) print(out, rows.column(column));
#if __cplusplus >= 202002L
    const std::span<const double> closes = rows.close();
    if (closes.size() != rows.size()) std::abort();
#endif
    for (const int state : rows.states()) out << ' ' << state;
  } else if (call == "column") {
    const int column = integer();
    std::vector<double> values(count());
    const int flags = integer();
    values.resize(series->column(column, {values.data(), values.size()}, holes_of(flags), rows_of(flags)));
    out << values.size();
    print(out, values);
  } else if (call == "gaps") {
    const auto gaps = series->gaps();
    out << gaps.size();
    for (const cshm_gap& gap : gaps) out << ' ' << gap.start_ms << ' ' << gap.end_ms << ' ' << gap.is_hole;
  } else if (call == "view") {
    view = series->view(count());
    out << view->size();
  } else if (call == "view_columns") {
    out << view->complete();
    for (int column = 0; column < CSHM_COLUMNS; ++column) print(out, view->column(column));
  } else if (call == "view_valid") {
    out << view->valid();
  } else if (call == "view_check") {
    view->check();
    out << 0;
  } else if (call == "view_close") {
    view.reset();
    out << 0;
  } else if (call == "wait_open") {
    const auto after_ms = static_cast<std::int64_t>(number());
    const auto open_ms = series->wait_open(after_ms, number());
    out << open_ms;
  } else if (call == "wait_closed") {
    const auto open_ms = static_cast<std::int64_t>(number());
    const double quorum = number();
    const auto closed = feed->wait_closed(open_ms, quorum, number());
    out << closed.open_ms << " |";
    for (const int missing : closed.missing) out << ' ' << missing;
  } else if (call == "interrupted_wait") {
    const std::chrono::duration<double> after(number());
    std::thread thread([after] {
      std::this_thread::sleep_for(after);
      feed->interrupt();
    });
    try {
      out << series->wait_open();
    } catch (const candleshm::wait_timeout&) {
      thread.join();
      throw;
    }
    thread.join();
  } else if (call == "last") {
    const auto values = feed->last(integer());
    out << values.size();
    print(out, values);
  } else if (call == "panel") {
    const int column = integer();
    const std::size_t n = count();
    const auto panel = feed->panel(column, n, integer() != 0);
    out << panel.size();
    for (const std::int64_t open_ms : panel.open_ms()) out << ' ' << open_ms;
    for (std::size_t place = 0; place < panel.symbols(); ++place) print(out, panel.of(place));
  } else {
    out << "no such call: " << call;
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::ostringstream out;
    try {
      obey(words, out);
      std::cout << out.str() << std::endl;
    } catch (const candleshm::error& error) {
      std::cout << error.code() << ' ' << error.name() << ' ' << error.what() << std::endl;
    }
  }
}
