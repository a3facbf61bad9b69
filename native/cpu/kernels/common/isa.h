#pragma once
// PG_ISA_BEGIN("avx2,fma") ... PG_ISA_END: functions between the two are compiled for these instruction sets, without
// per-file compiler flags (which gyp cannot give). MSVC needs neither.
//
// What stands between them must have internal linkage: a weak symbol (an inline function, a template) compiled for a
// newer machine may be the copy that the linker keeps for the whole program. So kernel files include C headers only,
// hold static functions and export one table; scripts/check-symbols looks at the objects.
#define PG_PRAGMA(x) _Pragma(#x)

#if defined(__clang__)
#define PG_ISA_BEGIN(isa) PG_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define PG_ISA_END _Pragma("clang attribute pop")
#elif defined(__GNUC__)
#define PG_ISA_BEGIN(isa) _Pragma("GCC push_options") PG_PRAGMA(GCC target(isa))
#define PG_ISA_END _Pragma("GCC pop_options")
#else
#define PG_ISA_BEGIN(isa)
#define PG_ISA_END
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define PG_INLINE static __forceinline
#else
#define PG_INLINE static inline __attribute__((always_inline))
#endif

// Unrolls the next loop fully: accumulators in arrays stay in registers.
#if defined(__clang__)
#define PG_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define PG_UNROLL _Pragma("GCC unroll 32")
#else
#define PG_UNROLL
#endif

// Compilers older than gcc 11, clang 12 (Apple's 13) and Visual Studio 2022 do not know AVX-VNNI and leave its table
// out.
#if defined(__x86_64__) || defined(_M_X64)
#if defined(__apple_build_version__) ? __clang_major__ >= 13 \
: defined(__clang__)                 ? __clang_major__ >= 12 \
: defined(__GNUC__)                  ? __GNUC__ >= 11        \
                                     : _MSC_VER >= 1930
#define PG_HAS_AVXVNNI 1
#endif
#endif

// AMX where its registers can be asked for and the compiler knows it.
#if defined(__x86_64__) && defined(__linux__)
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define PG_HAS_AMX 1
#endif
#endif

// Keeps the next loop a loop.
#if defined(__clang__)
#define PG_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define PG_ROLLED _Pragma("GCC unroll 1")
#else
#define PG_ROLLED
#endif

// Memory is up to date here: what lies in it is not kept in registers across.
#if defined(__GNUC__) || defined(__clang__)
#define PG_FENCE __asm__ volatile("" ::: "memory");
#else
#define PG_FENCE
#endif

// How gcc and clang spell the arm extensions.
#if defined(__clang__)
#define PG_TARGET_DOTPROD "dotprod"
#define PG_TARGET_I8MM "dotprod,i8mm"
#else
#define PG_TARGET_DOTPROD "arch=armv8.2-a+dotprod"
#define PG_TARGET_I8MM "arch=armv8.2-a+dotprod+i8mm"
#endif
