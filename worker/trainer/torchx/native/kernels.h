// Loops over raw memory, written once and compiled for several instruction sets; kernels() is the table for this CPU.
//
// Tensors are rows of c channels side by side (channels_last, [n*h*w, c]) unless said otherwise. T is float or Bf16; all arithmetic is in
// float, sums that run over many rows end in double. Callers split rows or images among threads.
#pragma once
#include <cstdint>

namespace torchx {

enum { kNone, kReLU, kReLU6, kSiLU, kHardSwish };  // what follows a normalisation; TX_NONE.. of torchx.h

struct Bf16 {
  uint16_t bits;
};

template <int64_t N>
struct Count {
  static constexpr int64_t value = N;
};

// Per-channel numbers of a normalisation's backward; see isa_norm.h.
struct NormRows {
  const float *mean, *scale, *shift, *a, *b, *d;
  float factor;
};

// A square window that goes over one image [h, w, c] and makes [oh, ow, c].
struct Window {
  int64_t c, h, w, oh, ow, kernel, stride, padding;
};

template <typename T>
struct Loops {
  void (*norm_sums)(const T *x, int64_t rows, int64_t c, const float *pivot, double *sum, double *square);
  void (*norm_apply)(int act, const T *x, const T *other, T *y, int64_t rows, int64_t c, const float *scale, const float *shift);
  void (*norm_back_sums)(int act, const T *dy, const T *x, const T *y, T *dz, int64_t rows, int64_t c, const NormRows &o,
                         double *sum, double *product);
  void (*norm_back_apply)(int act, const T *dy, const T *x, T *dx, int64_t rows, int64_t c, const NormRows &o);
  // The same for [images, c, area].
  void (*plane_sums)(const T *x, int64_t images, int64_t c, int64_t area, const float *pivot, double *sum, double *square);
  void (*plane_apply)(int act, const T *x, const T *other, T *y, int64_t images, int64_t c, int64_t area, const float *scale,
                      const float *shift);
  void (*plane_back_sums)(int act, const T *dy, const T *x, const T *y, T *dz, int64_t images, int64_t c, int64_t area,
                          const NormRows &o, double *sum, double *product);
  void (*plane_back_apply)(int act, const T *dy, const T *x, T *dx, int64_t images, int64_t c, int64_t area, const NormRows &o);
  // Depthwise convolutions, weights [kernel*kernel, c]. Rows [from, to) of the output, or of the input's gradient.
  void (*depthwise)(const Window &g, const T *x, const float *weight, T *y, int64_t from, int64_t to);
  void (*depthwise_back)(const Window &g, const T *dy, const float *weight, T *dx, int64_t from, int64_t to);
  void (*depthwise_weight)(const Window &g, const T *x, const T *dy, float *dweight); // += over one image
  void (*max_pool)(const Window &g, const T *x, T *y, uint8_t *where, int64_t from, int64_t to);
  void (*max_pool_back)(const Window &g, const T *dy, const uint8_t *where, T *dx, int64_t from, int64_t to);
  // Squeeze and excitation over one image of rows: y = x*s; dx = dy*s, ds += dy*x; sum += x; y = x + p.
  void (*scale_apply)(const T *x, const float *s, T *y, int64_t rows, int64_t c);
  void (*scale_back)(const T *dy, const T *x, const float *s, T *dx, float *ds, int64_t rows, int64_t c);
  void (*row_sums)(const T *x, float *sum, int64_t rows, int64_t c);
  void (*row_add)(const T *x, const float *p, T *y, int64_t rows, int64_t c);
};

// Part of a product's inner dimension: units of 32 bits (a float, or two bfloat16) of a left panel [units, height] and a right
// panel [units, 32].
struct Stretch {
  const int32_t *a, *b;
  int64_t units;
};

// Matrix products of T with sums in float. Packing takes values (T) or weights (float) and fills up with zeros.
template <typename T>
struct Products {
  static constexpr int64_t per = 4 / sizeof(T);       // values in a unit
  static constexpr int64_t columns = 32, tallest = 12;  // of a tile
  // rows of n values, stride apart -> [units of n, width], rows <= width
  void (*pack_rows)(const T *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out);
  // rows of n <= width values -> [units of rows, width]
  void (*pack_pairs)(const T *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out);
  void (*pack_weight_rows)(const float *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out);
  void (*pack_weight_pairs)(const float *x, int64_t stride, int64_t rows, int64_t n, int64_t width, int32_t *out);
  // out[rows <= height, columns <= 32] = the stretches' products summed + start[columns], or, add, that is added to float.
  void (*values)(int64_t height, const Stretch *s, int64_t count, T *out, int64_t stride, int64_t rows, int64_t columns,
                 const float *start, bool add);
  void (*floats)(int64_t height, const Stretch *s, int64_t count, float *out, int64_t stride, int64_t rows, int64_t columns,
                 const float *start, bool add);
};

// NULL where this CPU lacks the instructions (AVX-512, for Bf16 also AVX512-BF16), and for Bf16 where it has better ones that
// oneDNN uses (AMX).
template <typename T>
const Products<T> *products();

struct Kernels {
  const char *name;
  Loops<float> f32;
  Loops<Bf16> bf16;
  void (*add)(const float *a, const float *b, float *out, int64_t n);  // out = a + b; out may be either
};

const Kernels &kernels();

template <typename T>
const Loops<T> &loops();

}  // namespace torchx
