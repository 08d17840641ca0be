// Maximum pooling of one image, channels side by side. Included once for each instruction set (kernels.cc).

typedef uint8_t Bytes __attribute__((vector_size(16)));

TX_IN Ints places(const uint8_t *p, int64_t n) {
  Bytes b = {};
  __builtin_memcpy(&b, p, n);
  return __builtin_convertvector(b, Ints);
}

// Rows [from, to) of the output; where is the place of the maximum in its window, the first of equals; a NaN is
// the maximum, the last of them.
template <typename T>
void max_pool(const Window &g, const T *x, T *y, uint8_t *where, int64_t from, int64_t to) {
  for (int64_t oy = from; oy < to; oy++)
    for (int64_t ox = 0; ox < g.ow; ox++) {
      int64_t top = oy * g.stride - g.padding, left = ox * g.stride - g.padding, out = (oy * g.ow + ox) * g.c;
      int64_t inside = (top < 0 ? -top : 0) * g.kernel + (left < 0 ? -left : 0);  // the first place that is not padding
      channels(g.c, [&](int64_t k, auto at) TX_BODY {
        Lanes best = splat(-__builtin_inff());
        Ints place = Ints{} + static_cast<int32_t>(inside);  // of a window that holds nothing above minus infinity
        for (int64_t ky = 0; ky < g.kernel; ky++) {
          if (top + ky < 0 || top + ky >= g.h) continue;
          for (int64_t kx = 0; kx < g.kernel; kx++) {
            if (left + kx < 0 || left + kx >= g.w) continue;
            Lanes v = at.get(x + ((top + ky) * g.w + left + kx) * g.c + k);
            Ints now = Ints{} + static_cast<int32_t>(ky * g.kernel + kx);
            auto more = (v > best) | (v != v);
            best = more ? v : best;
            place = more ? now : place;
          }
        }
        at.put(y + out + k, best);
        Bytes b = __builtin_convertvector(place, Bytes);
        __builtin_memcpy(where + out + k, &b, g.c - k < kLanes ? g.c - k : kLanes);
      });
    }
}

// Rows [from, to) of the input's gradient: each place gathers from the windows it was the maximum of.
template <typename T>
void max_pool_back(const Window &g, const T *dy, const uint8_t *where, T *dx, int64_t from, int64_t to) {
  for (int64_t y = from; y < to; y++)
    for (int64_t x = 0; x < g.w; x++)
      channels(g.c, [&](int64_t k, auto at) TX_BODY {
        int64_t left = g.c - k < kLanes ? g.c - k : kLanes;
        Lanes sum = {};
        for (int64_t ky = (y + g.padding) % g.stride; ky < g.kernel; ky += g.stride) {
          int64_t oy = (y + g.padding - ky) / g.stride;
          if (y + g.padding < ky || oy >= g.oh) continue;
          for (int64_t kx = (x + g.padding) % g.stride; kx < g.kernel; kx += g.stride) {
            int64_t ox = (x + g.padding - kx) / g.stride, i = (oy * g.ow + ox) * g.c + k;
            if (x + g.padding < kx || ox >= g.ow) continue;
            Lanes d = at.get(dy + i);
            sum += places(where + i, left) == static_cast<int32_t>(ky * g.kernel + kx) ? d : Lanes{};
          }
        }
        at.put(dx + (y * g.w + x) * g.c + k, sum);
      });
}
