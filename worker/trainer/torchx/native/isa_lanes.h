// Sixteen floats at a time, in the compiler's vector extension: it becomes one register with AVX-512, two with AVX2,
// four otherwise. Included once for each instruction set, inside a namespace (kernels.cc): no include guard, no
// includes, everything inlined.

#define TX_IN static inline __attribute__((always_inline))
#define TX_METHOD inline __attribute__((always_inline))
#define TX_BODY __attribute__((always_inline))  // after a lambda's parameters

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

constexpr int64_t kLanes = 16;

TX_IN Lanes splat(float v) { return v - Lanes{}; }

TX_IN Lanes load(const float *p) {
  Lanes v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

TX_IN void store(float *p, Lanes v) { __builtin_memcpy(p, &v, sizeof v); }

TX_IN Lanes widen(Halves h) { return (Lanes)(__builtin_convertvector(h, Words) << 16); }

// To the nearest bfloat16, ties to even; a NaN stays one.
TX_IN Halves narrow(Lanes v) {
  Words u = (Words)v;
  Words r = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  r = v == v ? r : (Words{} + 0x7fc0);
  return __builtin_convertvector(r, Halves);
}

TX_IN Lanes load(const Bf16 *p) {
  Halves h;
  __builtin_memcpy(&h, p, sizeof h);
  return widen(h);
}

TX_IN void store(Bf16 *p, Lanes v) {
  Halves h = narrow(v);
  __builtin_memcpy(p, &h, sizeof h);
}

// The first n of sixteen; the others are zero.
TX_IN Lanes load(const float *p, int64_t n) {
  Lanes v = {};
  __builtin_memcpy(&v, p, n * sizeof(float));
  return v;
}

TX_IN void store(float *p, Lanes v, int64_t n) { __builtin_memcpy(p, &v, n * sizeof(float)); }

TX_IN Lanes load(const Bf16 *p, int64_t n) {
  Halves h = {};
  __builtin_memcpy(&h, p, n * sizeof(Bf16));
  return widen(h);
}

TX_IN void store(Bf16 *p, Lanes v, int64_t n) {
  Halves h = narrow(v);
  __builtin_memcpy(p, &h, n * sizeof(Bf16));
}

// v held below or above a bound. A comparison with NaN is false, so the bound stands first: a NaN in v stays one. The other
// way round it would become the bound, and a network that broke down would go on looking well.
TX_IN Lanes at_most(float bound, Lanes v) { return splat(bound) < v ? splat(bound) : v; }
TX_IN Lanes at_least(float bound, Lanes v) { return splat(bound) > v ? splat(bound) : v; }

// exp within 2 units in the last place; below -87 it stays at the end, which no logistic function tells apart, and above 88
// it is infinite, so that a logistic function of minus infinity is 0.
TX_IN Lanes exponential(Lanes v) {
  Lanes x = at_least(-87.f, at_most(88.f, v));
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  Lanes n = (x * 1.44269504f + magic) - magic;
  Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Lanes p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  p = (Lanes)((Ints)p + (__builtin_convertvector(n, Ints) << 23));
  return v > splat(88.f) ? splat(__builtin_inff()) : p;
}

TX_IN Lanes logistic(Lanes x) { return 1.f / (1.f + exponential(-x)); }

// act is an activation at z, and through what reaches z of a gradient d behind it, as libtorch has them: NaN stays NaN, and
// where the activation is flat nothing passes, of an infinite gradient neither (a product with 0 would be NaN).
template <int A>
TX_IN Lanes act(Lanes z) {
  if constexpr (A == kReLU) return at_least(0, z);
  if constexpr (A == kReLU6) return at_most(6, at_least(0, z));
  if constexpr (A == kSiLU) return z * logistic(z);
  if constexpr (A == kHardSwish) return z * at_most(6, at_least(0, z + 3.f)) / 6.f;
  return z;
}

template <int A>
TX_IN Lanes through(Lanes z, Lanes d) {
  const Lanes zero = {};
  if constexpr (A == kReLU) return z <= zero ? zero : d;
  if constexpr (A == kReLU6) return z > zero ? (z < splat(6) ? d : zero) : zero;
  if constexpr (A == kSiLU) {
    Lanes s = logistic(z);
    return d * (s * (1.f + z * (1.f - s)));
  }
  if constexpr (A == kHardSwish) return z < splat(-3) ? zero : (z > splat(3) ? d : d * (z / 3.f + 0.5f));
  return d;
}

// All sixteen lanes, or the first n: how a stretch of channels is read and written.
struct All {
  template <typename T>
  TX_METHOD Lanes get(const T *p) const { return load(p); }
  template <typename T>
  TX_METHOD void put(T *p, Lanes v) const { store(p, v); }
};

struct Part {
  int64_t n;
  template <typename T>
  TX_METHOD Lanes get(const T *p) const { return load(p, n); }
  template <typename T>
  TX_METHOD void put(T *p, Lanes v) const { store(p, v, n); }
};

// Calls f(first channel, All or Part) over c channels.
template <typename F>
TX_IN void channels(int64_t c, F f) {
  int64_t k = 0;
  for (; k + kLanes <= c; k += kLanes) f(k, All{});
  if (k < c) f(k, Part{c - k});
}

// Calls f with an activation as a constant.
template <typename F>
TX_IN void with_activation(int a, F f) {
  switch (a) {
    case kReLU: return f(Count<kReLU>{});
    case kReLU6: return f(Count<kReLU6>{});
    case kSiLU: return f(Count<kSiLU>{});
    case kHardSwish: return f(Count<kHardSwish>{});
    default: return f(Count<kNone>{});
  }
}
