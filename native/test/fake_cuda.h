#pragma once
// A driver library without a card, for tests: its memory is the host's, it counts what it is asked and can be told to
// refuse. Kernels that the emulator has run there, with the checks of a real driver: are the parameters those of the
// module's text, does the launch keep to its limits. Others are only noted.
//
// FAKE_CUDA="memory=1048576 lostAfter=100" sets what it shows, for programs that cannot reach this struct; it is read
// whenever somebody counts the devices. FAKE_CUDA_LOG names a file that the library writes to when it is loaded.
#include <cstddef>
#include <string>
#include <vector>

struct FakeCuda {
  // what it shows
  int version = 12040, devices = 1, major = 8, minor = 9;
  size_t memory = size_t(64) << 20;
  // what it refuses, as CUDA's results; 0: nothing
  int init = 0, retain = 0, hostMemory = 0, module = 0, capture = 0, update = 0, instantiate = 0;
  int failure = 0;  // of the context: what every call says until it is reset
  long lostAfter = -1;  // launches until the context fails; -1: never
  // what it was asked
  size_t used = 0;
  int retained = 0, resets = 0, streams = 0, modules = 0, pinned = 0, events = 0, graphs = 0, graphLaunches = 0;
  int updates = 0, pushed = 0, calls = 0;
  std::vector<std::string> kernels;   // that ran, in their order
  std::vector<unsigned> args;         // the first word of each one's
  std::vector<std::string> images;    // that modules were made of
  unsigned sharedMemory = 0;          // that the last kernel was allowed
};

extern "C" FakeCuda* fakeCuda();
