// Squeeze and excitation of one image: rows of c channels, one factor a channel. Included once for each instruction
// set (kernels.cc).

template <typename T>
void scale_apply(const T *x, const float *s, T *y, int64_t rows, int64_t c) {
  for (int64_t i = 0; i < rows * c; i += c)
    channels(c, [&](int64_t k, auto at) TX_BODY { at.put(y + i + k, at.get(x + i + k) * at.get(s + k)); });
}

template <typename T>
void scale_back(const T *dy, const T *x, const float *s, T *dx, float *ds, int64_t rows, int64_t c) {
  channels(c, [&](int64_t k, auto at) TX_BODY {
    Lanes sum = at.get(ds + k), by = at.get(s + k);
    for (int64_t i = k; i < k + rows * c; i += c) {
      Lanes d = at.get(dy + i);
      sum += d * at.get(x + i);
      at.put(dx + i, d * by);
    }
    at.put(ds + k, sum);
  });
}

template <typename T>
void row_sums(const T *x, float *sum, int64_t rows, int64_t c) {
  channels(c, [&](int64_t k, auto at) TX_BODY {
    Lanes s = at.get(sum + k);
    for (int64_t i = k; i < k + rows * c; i += c) s += at.get(x + i);
    at.put(sum + k, s);
  });
}

template <typename T>
void row_add(const T *x, const float *p, T *y, int64_t rows, int64_t c) {
  for (int64_t i = 0; i < rows * c; i += c)
    channels(c, [&](int64_t k, auto at) TX_BODY { at.put(y + i + k, at.get(x + i + k) + at.get(p + k)); });
}
