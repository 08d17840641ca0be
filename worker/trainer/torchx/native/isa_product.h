// Matrix products on packed panels; the idea of packing and of a tile held in registers is that of Goto and van de Geijn,
// "Anatomy of high-performance matrix multiplication" (ACM TOMS 34, 2008).
//
// Included by kernels.cc in a namespace of its own for each type, with TX_PAIRS 1 for bfloat16, else 0. A unit is 32 bits: one
// float, or two bfloat16 that are multiplied and summed by one instruction.

#if TX_PAIRS
using Value = Bf16;
constexpr int64_t kPer = 2;
#else
using Value = float;
constexpr int64_t kPer = 1;
#endif

inline __mmask16 lanes(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

// 16 units of a row of n values from at on.
inline __m512i row_units(const Value *row, int64_t at, int64_t n) {
#if TX_PAIRS
  int64_t left = n - at;
  __mmask32 mask = left >= 32 ? 0xffffffffu : left <= 0 ? 0 : (1u << left) - 1;
  return _mm512_maskz_loadu_epi16(mask, row + at);
#else
  return _mm512_maskz_loadu_epi32(lanes(n - at), row + at);
#endif
}

// 16 columns of one row, or of two rows as pairs. b is NULL where the second row is missing.
inline __m512i pair_units(const Value *a, const Value *b, int64_t n) {
#if TX_PAIRS
  __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), a));
  if (!b) return low;
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), b)), 16));
#else
  return _mm512_maskz_loadu_epi32(lanes(n), a);
#endif
}

#if TX_PAIRS
inline __m512i row_units(const float *row, int64_t at, int64_t n) {
  __m512 low = _mm512_maskz_loadu_ps(lanes(n - at), row + at), high = _mm512_maskz_loadu_ps(lanes(n - at - 16), row + at + 16);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

inline __m512i pair_units(const float *a, const float *b, int64_t n) {
  __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes(n), a)));
  if (!b) return low;
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes(n), b))), 16));
}
#endif

inline void transpose(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

template <typename S>
void pack_rows(const S *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out) {
  int64_t units = (n + kPer - 1) / kPer;
  for (int64_t at = 0; at < width; at += 16) {
    __mmask16 some = lanes(width - at);
    for (int64_t u = 0; u < units; u += 16) {
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = at + i < rows ? row_units(x + (at + i) * stride, u * kPer, n) : _mm512_setzero_si512();
      transpose(r);
      int64_t last = units - u;
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        if (i < last) _mm512_mask_storeu_epi32(out + (u + i) * width + at, some, r[i]);
    }
  }
}

template <typename S>
void pack_pairs(const S *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out) {
  constexpr int64_t ahead = 32;
  for (int64_t i = 0; i < rows; i += kPer, out += width) {
    const S *a = x + i * stride, *b = i + 1 < rows ? a + stride : nullptr;
    if (i + ahead < rows)  // rows far apart: no prefetcher of the CPU's sees where this goes
      for (int64_t r = 0; r < kPer; r++)
        for (int64_t at = 0; at < n; at += 64 / sizeof(S)) _mm_prefetch(reinterpret_cast<const char *>(a + (ahead + r) * stride + at), _MM_HINT_T1);
    for (int64_t at = 0; at < width; at += 16)
      _mm512_mask_storeu_epi32(out + at, lanes(width - at), pair_units(a + at, b ? b + at : nullptr, n - at));
  }
}

inline __m512 fused(__m512 acc, __m512i a, __m512i b) {
#if TX_PAIRS
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#else
  return _mm512_fmadd_ps((__m512)a, (__m512)b, acc);
#endif
}

inline void put(float *to, __m512 v, __mmask16 some) { _mm512_mask_storeu_ps(to, some, v); }

#if TX_PAIRS
inline void put(Bf16 *to, __m512 v, __mmask16 some) { _mm256_mask_storeu_epi16(to, some, (__m256i)_mm512_cvtneps_pbh(v)); }
#endif

template <int R, typename O>
void tile(const Stretch *s, int64_t count, O *out, int64_t stride, int64_t rows, int64_t columns, const float *start, bool add) {
  __m512 acc[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i++) {
    const int32_t *a = s[i].a, *b = s[i].b;
    for (const int32_t *end = b + 32 * s[i].units; b != end; a += R, b += 32) {
      __m512i left = _mm512_loadu_si512(b), right = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        __m512i v = _mm512_set1_epi32(a[r]);
        acc[r][0] = fused(acc[r][0], v, left);
        acc[r][1] = fused(acc[r][1], v, right);
      }
    }
  }
  __mmask16 first = lanes(columns), second = lanes(columns - 16);
  if (start) {
    __m512 left = _mm512_maskz_loadu_ps(first, start), right = _mm512_maskz_loadu_ps(second, start + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) acc[r][0] = _mm512_add_ps(acc[r][0], left), acc[r][1] = _mm512_add_ps(acc[r][1], right);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    if (r >= rows) break;
    O *to = out + r * stride;
    if constexpr (std::is_same_v<O, float>) {
      if (add) {
        acc[r][0] = _mm512_add_ps(acc[r][0], _mm512_maskz_loadu_ps(first, to));
        acc[r][1] = _mm512_add_ps(acc[r][1], _mm512_maskz_loadu_ps(second, to + 16));
      }
    }
    put(to, acc[r][0], first);
    put(to + 16, acc[r][1], second);
  }
}

template <typename O>
void product(int64_t height, const Stretch *s, int64_t count, O *out, int64_t stride, int64_t rows, int64_t columns, const float *start, bool add) {
  switch (height) {
#define TX_TILE(R) \
  case R: return tile<R>(s, count, out, stride, rows, columns, start, add);
    TX_TILE(1) TX_TILE(2) TX_TILE(3) TX_TILE(4) TX_TILE(5) TX_TILE(6) TX_TILE(7) TX_TILE(8) TX_TILE(9) TX_TILE(10) TX_TILE(11) TX_TILE(12)
#undef TX_TILE
  }
}

static const Products<Value> products_table = {pack_rows<Value>, pack_pairs<Value>, pack_rows<float>, pack_pairs<float>, product<Value>, product<float>};
#undef TX_PAIRS
