// What the three NEON kernel files share. The including file has set PG_NEON_DOT and PG_NEON_I8MM as far as it has
// them.
#include "cpu/kernels/arm/simd_neon.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#define PG_OWN_TILE
#define PG_TOKEN_FENCE PG_FENCE
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/arm/tile_neon.inl.h"
#include "cpu/kernels/arm/blocks_neon.inl.h"
#include "cpu/kernels/arm/tiles8_neon.inl.h"
#include "cpu/kernels/arm/unpack8_neon.inl.h"
#include "cpu/kernels/arm/rows8_neon.inl.h"
#include "cpu/kernels/common/rows8.inl.h"
