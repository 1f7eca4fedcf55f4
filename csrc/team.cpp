#include "team.hpp"

#include <thread>

namespace closeby {

namespace {

constexpr uint64_t kLeft = 0xffffffff;
// So often it looks again before it offers its core to others: about two microseconds.
constexpr int kLooks = 64;

void pause(int& looked) {
    if (++looked % kLooks == 0) {
        std::this_thread::yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

bool Team::take() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while ((ticket & kLeft) != 0) {
        const Work work = work_.load(std::memory_order_relaxed);
        const void* context = context_.load(std::memory_order_relaxed);
        if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire)) {
            work(context, static_cast<int64_t>((ticket & kLeft) - 1));
            done_.fetch_add(1, std::memory_order_release);
            return true;
        }
    }
    return false;
}

void Team::run(Work work, const void* context, int64_t parts) {
    const uint64_t round = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    work_.store(work, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    ticket_.store(round << 32 | static_cast<uint64_t>(parts), std::memory_order_release);
    while (take()) {
    }
    for (int looked = 0; done_.load(std::memory_order_acquire) != parts;) pause(looked);
}

void Team::help() {
    for (int looked = 0; !ended_.load(std::memory_order_acquire);) {
        if (!take()) pause(looked);
    }
}

}  // namespace closeby
