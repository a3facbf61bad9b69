#pragma once

namespace pg {

// How many of `want` more threads the system gives this process now. It is tried: limits of users, cgroups and memory
// are many, and none can be asked for what is left. Threads called `idle` wait for work and count as given.
// Takes no thread from anybody for longer than that takes: microseconds each.
int threadRoom(int want, const char* idle);

}  // namespace pg
