// What is left of objects that were moved from: `moved NAME`.
#include <cstdio>
#include <utility>

#include "candleshm.hpp"

int main(int, char** words) {
  candleshm::feed feed(words[1]);
  auto btc = feed["BTCUSDT"];
  auto rows = btc.candles(5);
  auto view = btc.view(5);
  auto other_rows = std::move(rows);
  auto other_view = std::move(view);
  std::printf("%zu %zu, %zu %zu\n", rows.size(), other_rows.size(), view.size(), other_view.size());
  return rows.empty() && rows.close().size() == 0 ? 0 : 1;
}
