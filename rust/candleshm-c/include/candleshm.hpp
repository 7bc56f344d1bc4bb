// candleshm.hpp - candleshm.h for C++17: handles that free themselves, spans, exceptions.
//
//   candleshm::feed feed("candleshm-spot-1m", 60.0);
//   candleshm::series btc = feed["BTCUSDT"];
//   candleshm::candles rows = btc.candles(100, candleshm::holes::drop, candleshm::closed_only);
//   double mean = std::accumulate(rows.close().begin(), rows.close().end(), 0.0) / rows.size();
//
// Every function throws candleshm::error where the function of C returns an error. What the functions do stands in
// candleshm.h. Objects can be moved, not copied; const ones may be used by several threads at once.
#ifndef CANDLESHM_HPP
#define CANDLESHM_HPP
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "candleshm.h"

namespace candleshm {

using row = std::array<double, CSHM_COLUMNS>;

/// A failed call: `code()` is one of `CSHM_*`, `what()` the message.
class error : public std::runtime_error {
 public:
  error(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  int code() const noexcept { return code_; }
  const char* name() const noexcept { return cshm_error_name(code_); }

 private:
  int code_;
};

/// `CSHM_STALE`.
class stale_data : public error {
  using error::error;
};

/// `CSHM_TIMEOUT`: a wait was in vain, or interrupted.
class wait_timeout : public error {
  using error::error;
};

/// `CSHM_OVERWRITTEN`: discard what was computed of the view.
class overwritten_view : public error {
  using error::error;
};

namespace detail {
/// A number that an object which was moved from has no more of.
class count {
 public:
  count(std::size_t value = 0) noexcept : value_(value) {}
  count(const count&) = default;
  count& operator=(const count&) = default;
  count(count&& other) noexcept : value_(std::exchange(other.value_, 0)) {}
  count& operator=(count&& other) noexcept {
    value_ = std::exchange(other.value_, 0);
    return *this;
  }
  operator std::size_t() const noexcept { return value_; }

 private:
  std::size_t value_;
};


[[noreturn]] inline void fail(int code) {
  const std::string message = cshm_last_message();
  switch (code) {
    case CSHM_STALE:
      throw stale_data(code, message);
    case CSHM_TIMEOUT:
      throw wait_timeout(code, message);
    case CSHM_OVERWRITTEN:
      throw overwritten_view(code, message);
    default:
      throw error(code, message);
  }
}

inline std::int64_t checked(std::int64_t answer) {
  if (answer < 0) fail(static_cast<int>(answer));
  return answer;
}

template <auto Free>
struct free_with {
  template <typename T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};

}  // namespace detail

/// Some values in a row that somebody else owns. C++20's std::span is made of it where one is expected.
template <typename T>
class span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using iterator = T*;

  constexpr span() noexcept = default;
  constexpr span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t place) const noexcept { return data_[place]; }
  constexpr T& front() const noexcept { return data_[0]; }
  constexpr T& back() const noexcept { return data_[size_ - 1]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// What becomes of slots without a row.
enum class holes { drop = CSHM_HOLES_DROP, nan = CSHM_HOLES_NAN, raise = CSHM_HOLES_RAISE };

/// Which rows: those that may still change as well, or final ones only.
enum class rows { all = 0, closed_only = CSHM_CLOSED_ONLY };
inline constexpr rows closed_only = rows::closed_only;

/// A private copy of rows, oldest first, and their states, of one moment. `fill` uses the memory again.
class candles {
 public:
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// A column, such as `CSHM_CLOSE`.
  span<const double> column(int column) const {
    if (column < 0 || column >= CSHM_COLUMNS) throw error(CSHM_ARGUMENT, "a column must be 0 to 11");
    return {values_.data() + static_cast<std::size_t>(column) * stride_, size_};
  }
  span<const double> open_time_ms() const { return column(CSHM_OPEN_TIME_MS); }
  span<const double> open() const { return column(CSHM_OPEN); }
  span<const double> high() const { return column(CSHM_HIGH); }
  span<const double> low() const { return column(CSHM_LOW); }
  span<const double> close() const { return column(CSHM_CLOSE); }
  span<const double> volume() const { return column(CSHM_VOLUME); }

  /// `CSHM_LIVE`, `CSHM_FINAL`, ...: one for each row.
  span<const std::uint8_t> states() const noexcept { return {states_.data(), size_}; }

 private:
  friend class series;
  std::vector<double> values_;
  std::vector<std::uint8_t> states_;
  detail::count stride_;
  detail::count size_;
};

/// The newest final rows in place. Call `check` after computing, and discard the result where it throws.
class view {
 public:
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  span<const double> column(int column) const {
    const double* values = cshm_view_column(handle_.get(), column);
    if (values == nullptr) detail::fail(CSHM_ARGUMENT);
    return {values, size_};
  }
  span<const double> close() const { return column(CSHM_CLOSE); }
  bool complete() const { return detail::checked(cshm_view_complete(handle_.get())) != 0; }
  bool valid() const { return detail::checked(cshm_view_valid(handle_.get())) != 0; }
  void check() const { detail::checked(cshm_view_check(handle_.get())); }

 private:
  friend class series;
  view(cshm_view* handle, std::size_t size) noexcept : handle_(handle), size_(size) {}
  std::unique_ptr<cshm_view, detail::free_with<cshm_view_close>> handle_;
  detail::count size_;
};

/// The candles of one symbol. It stays usable when its feed is gone.
class series {
 public:
  double last_close() const {
    double value;
    detail::checked(cshm_last_close(handle_.get(), &value));
    return value;
  }

  /// The newest row, and its state where `state` is given.
  row live(int* state = nullptr) const {
    row newest;
    detail::checked(cshm_live(handle_.get(), newest.data(), state));
    return newest;
  }

  /// Seconds since the exchange confirmed the series; infinite before that.
  double age() const {
    double seconds;
    detail::checked(cshm_age(handle_.get(), &seconds));
    return seconds;
  }

  std::optional<std::int64_t> last_open_ms() const {
    const std::int64_t open_ms = detail::checked(cshm_last_open_ms(handle_.get()));
    return open_ms == 0 ? std::nullopt : std::optional(open_ms);
  }

  std::int64_t revision() const { return detail::checked(cshm_revision(handle_.get())); }

  /// The newest n slots, with their states.
  candleshm::candles candles(std::size_t n, holes slots = holes::drop, rows which = rows::all) const {
    candleshm::candles copy;
    fill(copy, n, slots, which);
    return copy;
  }

  /// As `candles`, into memory that is used again.
  void fill(candleshm::candles& copy, std::size_t n, holes slots = holes::drop, rows which = rows::all) const {
    copy.size_ = 0;
    copy.stride_ = n;
    copy.values_.resize(n * CSHM_COLUMNS);
    copy.states_.resize(n);
    const int flags = static_cast<int>(slots) | static_cast<int>(which);
    copy.size_ = static_cast<std::size_t>(detail::checked(
        cshm_candles(handle_.get(), n, flags, copy.values_.data(), n, copy.states_.data())));
  }

  /// Fills `values` with the newest values of a column; returns how many.
  std::size_t column(int column, span<double> values, holes slots = holes::drop, rows which = rows::all) const {
    const int flags = static_cast<int>(slots) | static_cast<int>(which);
    return static_cast<std::size_t>(
        detail::checked(cshm_column(handle_.get(), column, values.size(), flags, values.data())));
  }

  std::vector<cshm_gap> gaps() const {
    std::vector<cshm_gap> found;
    for (;;) {
      const auto count = static_cast<std::size_t>(
          detail::checked(cshm_gaps(handle_.get(), found.data(), found.size())));
      if (count <= found.size()) {
        found.resize(count);
        return found;
      }
      found.resize(count);
    }
  }

  candleshm::view view(std::size_t n) const {
    cshm_view* handle = nullptr;
    const std::int64_t size = detail::checked(cshm_view_open(handle_.get(), n, &handle));
    return {handle, static_cast<std::size_t>(size)};
  }

  /// Sleeps until a candle newer than that of `after_open_ms` opens (0: than the newest), at most `timeout_s` seconds.
  std::int64_t wait_open(std::int64_t after_open_ms = 0, double timeout_s = -1.0) const {
    return detail::checked(cshm_wait_open(handle_.get(), after_open_ms, timeout_s));
  }

 private:
  friend class feed;
  explicit series(cshm_series* handle) noexcept : handle_(handle) {}
  std::unique_ptr<cshm_series, detail::free_with<cshm_series_free>> handle_;
};

/// A candle that closed: its open time, and for each place whether that symbol does not have it final.
struct closed {
  std::int64_t open_ms;
  std::vector<std::uint8_t> missing;
};

/// The newest n values of a column of every symbol, aligned.
class panel {
 public:
  std::size_t size() const noexcept { return open_ms_.size(); }
  std::size_t symbols() const noexcept { return symbols_; }
  span<const double> of(std::size_t place) const {
    if (place >= symbols_) throw error(CSHM_ARGUMENT, "no symbol has this place");
    return {values_.data() + place * stride_, size()};
  }
  span<const std::int64_t> open_ms() const noexcept { return {open_ms_.data(), size()}; }

 private:
  friend class feed;
  std::vector<double> values_;
  std::vector<std::int64_t> open_ms_;
  std::size_t stride_ = 0;
  std::size_t symbols_ = 0;
};

/// An attached block, and its successors under the same name.
class feed {
 public:
  explicit feed(const std::string& name, double max_age_s = 0.0) {
    cshm_feed* handle = nullptr;
    detail::checked(cshm_attach(name.c_str(), max_age_s, &handle));
    handle_.reset(handle);
    symbols_ = static_cast<std::size_t>(detail::checked(cshm_symbol_count(handle)));
  }

  series operator[](const std::string& symbol) const {
    cshm_series* handle = nullptr;
    detail::checked(cshm_series_of(handle_.get(), symbol.c_str(), &handle));
    return series(handle);
  }

  cshm_health health() const {
    cshm_health found{};
    found.size = sizeof found;
    detail::checked(cshm_get_health(handle_.get(), &found));
    return found;
  }

  /// The symbols in their places, as they are now: `wait_closed`, `last` and `panel` speak of these from here on.
  /// Not while another thread uses one of them.
  std::vector<std::string> symbols() {
    symbols_ = static_cast<std::size_t>(detail::checked(cshm_symbol_count(handle_.get())));
    std::vector<std::string> names(symbols_);
    char name[CSHM_SYMBOL_BYTES];
    for (std::size_t place = 0; place < symbols_; ++place) {
      detail::checked(cshm_symbol_name(handle_.get(), place, name));
      names[place] = name;
    }
    return names;
  }

  /// Sleeps until the candle of `open_ms` (0: the next one) closes for the part `quorum` of the symbols.
  closed wait_closed(std::int64_t open_ms = 0, double quorum = 1.0, double timeout_s = -1.0) const {
    closed found{0, std::vector<std::uint8_t>(symbols_)};
    found.open_ms =
        detail::checked(cshm_wait_closed(handle_.get(), open_ms, quorum, timeout_s, found.missing.data()));
    return found;
  }

  /// Ends all waits of the feed and its series that are under way; any thread may call it.
  void interrupt() const noexcept { cshm_interrupt(handle_.get()); }

  /// The newest value of a column of every symbol; NaN where there is none.
  std::vector<double> last(int column) const {
    std::vector<double> values(symbols_, std::nan(""));
    detail::checked(cshm_last(handle_.get(), column, values.data(), values.size()));
    return values;
  }

  candleshm::panel panel(int column, std::size_t n, bool live = false) const {
    candleshm::panel found;
    found.symbols_ = symbols_;
    found.stride_ = n;
    found.values_.resize(symbols_ * n);
    found.open_ms_.resize(n);
    found.open_ms_.resize(static_cast<std::size_t>(detail::checked(
        cshm_panel(handle_.get(), column, n, live ? 1 : 0, found.values_.data(), found.open_ms_.data()))));
    return found;
  }

 private:
  std::unique_ptr<cshm_feed, detail::free_with<cshm_detach>> handle_;
  std::size_t symbols_ = 0;
};

/// The blocks of this machine that can be read.
inline std::vector<std::string> names() {
  std::string text(1, '\0');
  for (;;) {
    const auto bytes = static_cast<std::size_t>(detail::checked(cshm_names(text.data(), text.size())));
    if (bytes <= text.size()) break;
    text.assign(bytes, '\0');
  }
  std::vector<std::string> found;
  for (std::size_t from = 0, end; (end = text.find('\n', from)) != std::string::npos; from = end + 1) {
    found.push_back(text.substr(from, end - from));
  }
  return found;
}

}  // namespace candleshm
#endif
