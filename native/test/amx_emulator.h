#pragma once
// AMX's instructions in plain C, for tables that machines without AMX can run: eight tiles a thread, refusing what the
// processor would refuse. Between PG_ISA_BEGIN and PG_ISA_END, before tiles8_amx.inl.h.

struct EmulatedTiles {
  bool configured;
  int rows[8], rowBytes[8];
  uint8_t bytes[8][16][64];
};
static thread_local EmulatedTiles emulatedTiles;

static void tileCheck(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "AMX emulator: %s\n", what);
  abort();
}

static void tileConfigure(const void* config) {
  uint8_t c[64];
  memcpy(c, config, sizeof c);
  EmulatedTiles& all = emulatedTiles;
  tileCheck(c[0] == 1 && c[1] == 0, "palette 1, from row 0 on");
  for (int i = 2; i < 16; ++i) tileCheck(c[i] == 0, "reserved bytes are zero");
  memset(&all, 0, sizeof all);
  for (int n = 0; n < 16; ++n) {
    const int rows = c[48 + n], rowBytes = c[16 + 2 * n] | c[17 + 2 * n] << 8;
    tileCheck(n < 8 ? rows <= 16 && rowBytes <= 64 && (rows > 0) == (rowBytes > 0) : rows == 0 && rowBytes == 0,
              "eight tiles of 16 rows of 64 bytes");
    if (n < 8) all.rows[n] = rows, all.rowBytes[n] = rowBytes;
  }
  all.configured = true;
}

static void tileRelease() { memset(&emulatedTiles, 0, sizeof emulatedTiles); }

static void tileUse(int n) {
  tileCheck(emulatedTiles.configured && emulatedTiles.rows[n] > 0, "a tile that is not configured");
}

static void tileZero(int n) {
  tileUse(n);
  memset(emulatedTiles.bytes[n], 0, sizeof emulatedTiles.bytes[n]);
}

static void tileLoad(int n, const void* from, long stride) {
  tileZero(n);
  for (int r = 0; r < emulatedTiles.rows[n]; ++r)
    memcpy(emulatedTiles.bytes[n][r], (const uint8_t*)from + r * stride, size_t(emulatedTiles.rowBytes[n]));
}

static void tileStore(int n, void* to, long stride) {
  tileUse(n);
  for (int r = 0; r < emulatedTiles.rows[n]; ++r)
    memcpy((uint8_t*)to + r * stride, emulatedTiles.bytes[n][r], size_t(emulatedTiles.rowBytes[n]));
}

static void tileMultiply(int c, int a, int b) {
  tileUse(c), tileUse(a), tileUse(b);
  EmulatedTiles& all = emulatedTiles;
  tileCheck(all.rows[a] == all.rows[c] && all.rowBytes[b] == all.rowBytes[c] && all.rows[b] == all.rowBytes[a] / 4,
            "shapes that do not fit");
  for (int m = 0; m < all.rows[c]; ++m)
    for (int n = 0; n < all.rowBytes[c] / 4; ++n) {
      int32_t sum;
      memcpy(&sum, all.bytes[c][m] + 4 * n, 4);
      for (int i = 0; i < all.rowBytes[a]; ++i)
        sum += int8_t(all.bytes[a][m][i]) * int8_t(all.bytes[b][i / 4][4 * n + i % 4]);
      memcpy(all.bytes[c][m] + 4 * n, &sum, 4);
    }
}

#define PG_TILE_CONFIGURE(config) tileConfigure(config)
#define PG_TILE_RELEASE() tileRelease()
#define PG_TILE_ZERO(n) tileZero(n)
#define PG_TILE_LOAD(n, from, stride) tileLoad(n, from, stride)
#define PG_TILE_STORE(n, to, stride) tileStore(n, to, stride)
#define PG_TILE_MULTIPLY(c, a, b) tileMultiply(c, a, b)
