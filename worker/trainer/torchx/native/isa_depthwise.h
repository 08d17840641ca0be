// Depthwise convolutions of one image, channels side by side. Included once for each instruction set (kernels.cc).
//
// An output pixel gathers a few input pixels ("taps"); the loop over channels inside runs along memory. The same
// gathering serves backward: an input pixel's gradient gathers the output pixels it went into.

struct Tap {
  int64_t from, weight;  // offsets of a pixel and of a row of weights, in elements
};

// N neighbours in a row with the same taps, each pixel step apart from the one before.
template <typename T, int N>
TX_IN void gather(const T *x, const float *weight, T *y, int64_t c, int64_t step, const Tap *taps, int n) {
  channels(c, [&](int64_t k, auto at) TX_BODY {
    Lanes acc[N] = {};
    for (int t = 0; t < n; t++) {
      Lanes w = at.get(weight + taps[t].weight + k);
      const T *p = x + taps[t].from + k;
      for (int i = 0; i < N; i++) acc[i] += at.get(p + i * step) * w;
    }
    for (int i = 0; i < N; i++) at.put(y + i * c + k, acc[i]);
  });
}

template <typename T>
void depthwise(const Window &g, const T *x, const float *weight, T *y, int64_t from, int64_t to) {
  constexpr int N = 4;
  Tap taps[64];
  for (int64_t oy = from; oy < to; oy++) {
    int64_t top = oy * g.stride - g.padding;
    auto choose = [&](int64_t ox) {
      int n = 0;
      int64_t left = ox * g.stride - g.padding;
      for (int64_t ky = 0; ky < g.kernel; ky++) {
        if (top + ky < 0 || top + ky >= g.h) continue;
        for (int64_t kx = 0; kx < g.kernel; kx++) {
          if (left + kx < 0 || left + kx >= g.w) continue;
          taps[n++] = {((top + ky) * g.w + left + kx) * g.c, (ky * g.kernel + kx) * g.c};
        }
      }
      return n;
    };
    T *row = y + oy * g.ow * g.c;
    for (int64_t ox = 0; ox < g.ow;) {
      int n = choose(ox);
      bool inside = ox * g.stride >= g.padding && (ox + N - 1) * g.stride - g.padding + g.kernel <= g.w && ox + N <= g.ow;
      if (inside) {
        gather<T, N>(x, weight, row + ox * g.c, g.c, g.stride * g.c, taps, n);
        ox += N;
      } else {
        gather<T, 1>(x, weight, row + ox * g.c, g.c, 0, taps, n);
        ox++;
      }
    }
  }
}

template <typename T>
void depthwise_back(const Window &g, const T *dy, const float *weight, T *dx, int64_t from, int64_t to) {
  constexpr int N = 4;
  Tap taps[64];
  for (int64_t y = from; y < to; y++) {
    auto choose = [&](int64_t x) {
      int n = 0;
      for (int64_t ky = 0; ky < g.kernel; ky++) {
        int64_t oy = y + g.padding - ky;
        if (oy < 0 || oy % g.stride || oy / g.stride >= g.oh) continue;
        for (int64_t kx = 0; kx < g.kernel; kx++) {
          int64_t ox = x + g.padding - kx;
          if (ox < 0 || ox % g.stride || ox / g.stride >= g.ow) continue;
          taps[n++] = {(oy / g.stride * g.ow + ox / g.stride) * g.c, (ky * g.kernel + kx) * g.c};
        }
      }
      return n;
    };
    T *row = dx + y * g.w * g.c;
    for (int64_t x = 0; x < g.w;) {
      int n = choose(x);
      bool inside = g.stride == 1 && x + g.padding >= g.kernel - 1 && x + N - 1 + g.padding < g.ow && x + N <= g.w;
      if (inside) {
        gather<T, N>(dy, weight, row + x * g.c, g.c, g.c, taps, n);
        x += N;
      } else {
        gather<T, 1>(dy, weight, row + x * g.c, g.c, 0, taps, n);
        x++;
      }
    }
  }
}

// One row of kernel K against one row of the output: K sums stay in registers while the row goes by.
template <typename T, int K, typename At>
TX_IN void weight_row(const Window &g, const T *x, const T *dy, float *dweight, int64_t k, At at) {
  Lanes acc[K];
  for (int i = 0; i < K; i++) acc[i] = at.get(dweight + i * g.c + k);
  for (int64_t ox = 0; ox < g.ow; ox++) {
    int64_t left = ox * g.stride - g.padding;
    Lanes d = at.get(dy + ox * g.c + k);
    const T *p = x + left * g.c + k;
    if (left >= 0 && left + K <= g.w) {
      for (int i = 0; i < K; i++) acc[i] += d * at.get(p + i * g.c);
    } else {
      for (int i = 0; i < K; i++)
        if (left + i >= 0 && left + i < g.w) acc[i] += d * at.get(p + i * g.c);
    }
  }
  for (int i = 0; i < K; i++) at.put(dweight + i * g.c + k, acc[i]);
}

template <typename T, int K>
void depthwise_weight_as(const Window &g, const T *x, const T *dy, float *dweight) {
  channels(g.c, [&](int64_t k, auto at) TX_BODY {
    for (int64_t oy = 0; oy < g.oh; oy++)
      for (int64_t ky = 0; ky < K; ky++) {
        int64_t y = oy * g.stride - g.padding + ky;
        if (y < 0 || y >= g.h) continue;
        weight_row<T, K>(g, x + y * g.w * g.c, dy + oy * g.ow * g.c, dweight + ky * K * g.c, k, at);
      }
  });
}

template <typename T>
void depthwise_weight(const Window &g, const T *x, const T *dy, float *dweight) {
  switch (g.kernel) {
    case 3: return depthwise_weight_as<T, 3>(g, x, dy, dweight);
    case 5: return depthwise_weight_as<T, 5>(g, x, dy, dweight);
    case 7: return depthwise_weight_as<T, 7>(g, x, dy, dweight);
  }
}
