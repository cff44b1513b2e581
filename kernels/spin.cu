// Keeps the GPU busy for a while, so that the launches behind it are all queued when it ends.
// shapes: none
// threads: one
// idea: work of a known length
// limits: needs a GPU's global timer; on the emulator, which has none, it ends at once
extern "C" __global__ void spin(unsigned long long nanoseconds) {
#ifndef CONV_KERNEL_LAB_EMULATOR
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < nanoseconds);
#endif
}
