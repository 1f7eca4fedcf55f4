// Threads that share the work of one, part by part.
//
// One thread leads: it hands out rounds of parts, takes part in each, and goes on when all parts
// of a round are done. Others help: they take parts while there are any. Whoever is free takes the
// next part, so a helper that comes late, or never, costs nothing but its help; what a part does
// must not depend on who does it, or when.
#pragma once

#include <atomic>
#include <cstdint>

namespace closeby {

class Team {
  public:
    using Work = void (*)(const void* context, int64_t part);

    // The leader: calls work(context, part) for all parts, 0 <= parts < 2^32, then returns.
    void run(Work work, const void* context, int64_t parts);
    // A helper: returns when the leader has ended.
    void help();
    // The leader: no more rounds. What contexts point to may go at once.
    void end() { ended_.store(true, std::memory_order_release); }

  private:
    // Takes a part of the round that is on and does it; false where none is left.
    bool take();

    // Round in the upper half, parts that nobody has taken yet in the lower. Only the leader begins
    // a round, when all parts of the one before are done, so who takes a part by comparing and
    // exchanging has read the work of that very round.
    std::atomic<uint64_t> ticket_{0};
    std::atomic<Work> work_{nullptr};
    std::atomic<const void*> context_{nullptr};
    std::atomic<int64_t> done_{0};
    std::atomic<bool> ended_{false};
};

}  // namespace closeby
