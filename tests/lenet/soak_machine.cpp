// A machine with a clock that jumps and a slow disk, for one process:
// LD_PRELOAD=soak_machine.so CLOCK_OFFSET=FILE command.
// To the time of day are added the seconds, an int64, that FILE holds at that moment; whoever
// writes to FILE makes the clock jump. As on a real machine, the monotonic clock goes on
// undisturbed. fsync takes the milliseconds that a hard disk needs and a tmpfs does not, so that a
// signal can meet a save at any of its stages.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>

static int64_t offset() {
    static const volatile int64_t* const seconds = [] {
        const int file = open(std::getenv("CLOCK_OFFSET"), O_RDONLY);
        void* const shared = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        return shared == MAP_FAILED ? (std::abort(), nullptr) : static_cast<int64_t*>(shared);
    }();
    return *seconds;
}

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
    const long status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += offset();
    }
    return static_cast<int>(status);
}

extern "C" time_t time(time_t* result) noexcept {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return result == nullptr ? now.tv_sec : (*result = now.tv_sec);
}

extern "C" int fsync(int file) {
    usleep(4000);
    return static_cast<int>(syscall(SYS_fsync, file));
}
