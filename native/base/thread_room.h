#pragma once

namespace pg {

// How many of `want` more threads the system gives this process now. It is tried: limits of users, cgroups and memory
// are many, and none can be asked for what is left. Threads called `idle` wait for work and count as given.
// Takes no thread from anybody for longer than that takes: microseconds each.
int threadRoom(int want, const char* idle);

// Whether another thread's stack has room in the address space, and something beside it. A thread that takes the last
// of it leaves none for thread-local data, for which glibc ends the process.
bool roomForThread();

}  // namespace pg
