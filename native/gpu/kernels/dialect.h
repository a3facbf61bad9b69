#pragma once
// The words in which our kernels are written once, for CUDA, for Metal and for the emulator of both. A kernel:
//
//   KERNEL(maxThreads, name, (Args, const float* x, float* y)) {    found by name; a: its Args; then its buffers
//     TG_ARRAY(float, partial, 32);                                  an array that the group shares
//     const Place at = PLACE;                                        which thread this is
//
// Metal wants to know of every pointer and reference where it leads; CUDA finds out by itself:
//   GLOBAL   the device's memory      SHARED  a group's, of TG_ARRAY      LOCAL  the thread's own
//   ARGS     of a kernel's arguments  CONSTANT  what the compiler knows: constexpr, outside of functions
//
// For Metal's sake kernels have no lambdas, no `if constexpr` and no null pointers: which of its optional buffers are
// there, a kernel's args say. Besides these words there are C's functions on floats, and
//   groupBarrier(), groupBarrierGlobal() (for GLOBAL memory, too), warpBarrier(), shuffleXor(value, bits)
//   asFloat, asBits, halfToFloat, floatToHalf, packHalves, subtractHalves, multiplyHalves, load16, loadShared16
//   matrixRow, matrixPair, kPairBit, matrixColumns, multiplyAdd16: see matrix.h
#ifdef __METAL_VERSION__
#include "gpu/metal/dialect_metal.h"
#else
#include "gpu/cuda/dialect_cuda.h"
#endif
