// What the three NEON kernel files share. The including file has set PG_NEON_DOT and PG_NEON_I8MM as far as it has them.
#include "cpu/simd_neon.h"
#include "cpu/vector_kernels.h"
#define PG_OWN_TILE
#define PG_TOKEN_FENCE PG_FENCE
#include "cpu/vector_tiles.h"
#include "cpu/tile_neon.h"
#include "cpu/blocks_neon.h"
#include "cpu/tiles8_neon.h"
#include "cpu/unpack8_neon.h"
#include "cpu/rows8_neon.h"
#include "cpu/rows8.h"
