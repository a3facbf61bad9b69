// What the three NEON kernel files share. The including file has set PG_NEON_DOT, PG_NEON_I8MM and PG_NEON_TILE8.
#include "cpu/simd_neon.h"
#include "cpu/vector_kernels.h"
#include "cpu/vector_tiles.h"
#if defined(PG_NEON_DOT)
#include "cpu/tiles8_neon.h"
#endif
#include "cpu/rows8_neon.h"
#include "cpu/rows8.h"
