// Batch normalisation of [images, c, area], a channel's values side by side (PyTorch's layout): the loops of isa_norm.h
// with one number a plane. Included once for each instruction set (kernels.cc).

TX_IN double total(Lanes v) {
  double t = 0;
  for (int64_t i = 0; i < kLanes; i++) t += v[i];
  return t;
}

template <typename T>
void plane_sums(const T *x, int64_t images, int64_t c, int64_t area, const float *pivot, double *sum, double *square) {
  static const float ones[kLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (int64_t plane = 0; plane < images * c; plane++, x += area) {
    int64_t k = plane % c;
    Lanes s = {}, q = {};
    channels(area, [&](int64_t i, auto at) TX_BODY {
      Lanes v = at.get(x + i) - pivot[k] * at.get(ones);  // lanes beyond the end stay zero
      s += v;
      q += v * v;
    });
    sum[k] += total(s);
    square[k] += total(q);
  }
}

template <typename T, int A, bool Other>
void plane_apply_as(const T *x, const T *other, T *y, int64_t images, int64_t c, int64_t area, const float *scale, const float *shift) {
  for (int64_t plane = 0; plane < images * c; plane++) {
    float by = scale[plane % c], plus = shift[plane % c];
    int64_t from = plane * area;
    channels(area, [&](int64_t i, auto at) TX_BODY {
      Lanes z = at.get(x + from + i) * by + plus;
      if constexpr (Other) z += at.get(other + from + i);
      at.put(y + from + i, act<A>(z));
    });
  }
}

template <typename T, int A, bool FromOutput, bool Write>
void plane_back_sums_as(const T *dy, const T *x, const T *y, T *dz, int64_t images, int64_t c, int64_t area, const NormRows &o,
                        double *sum, double *product) {
  for (int64_t plane = 0; plane < images * c; plane++) {
    int64_t k = plane % c, from = plane * area;
    float mean = o.mean[k], scale = o.scale[k], shift = o.shift[k];
    Lanes s = {}, q = {};
    channels(area, [&](int64_t at0, auto at) TX_BODY {
      int64_t i = from + at0;
      Lanes v = at.get(x + i), d = at.get(dy + i);  // zero beyond the end, and so are both terms
      if constexpr (FromOutput) d = through<kReLU>(at.get(y + i), d);
      else if constexpr (A != kNone) d = through<A>(v * scale + shift, d);
      if constexpr (Write) at.put(dz + i, d);
      d *= o.factor;
      s += d;
      q += d * (v - mean);
    });
    sum[k] += total(s);
    product[k] += total(q);
  }
}

template <typename T, int A>
void plane_back_apply_as(const T *dy, const T *x, T *dx, int64_t images, int64_t c, int64_t area, const NormRows &o) {
  for (int64_t plane = 0; plane < images * c; plane++) {
    int64_t k = plane % c, from = plane * area;
    float mean = o.mean[k], scale = o.scale[k], shift = o.shift[k], a = o.a[k], b = o.b[k], e = o.d[k];
    channels(area, [&](int64_t at0, auto at) TX_BODY {
      int64_t i = from + at0;
      Lanes v = at.get(x + i), d = at.get(dy + i);
      if constexpr (A != kNone) d = through<A>(v * scale + shift, d);
      d *= o.factor;
      at.put(dx + i, d * a + (v - mean) * b + e);
    });
  }
}

template <typename T>
void plane_apply(int a, const T *x, const T *other, T *y, int64_t images, int64_t c, int64_t area, const float *scale,
                 const float *shift) {
  with_activation(a, [&](auto as) TX_BODY {
    if (other) plane_apply_as<T, decltype(as)::value, true>(x, other, y, images, c, area, scale, shift);
    else plane_apply_as<T, decltype(as)::value, false>(x, other, y, images, c, area, scale, shift);
  });
}

template <typename T>
void plane_back_sums(int a, const T *dy, const T *x, const T *y, T *dz, int64_t images, int64_t c, int64_t area, const NormRows &o,
                     double *sum, double *product) {
  if (y) return plane_back_sums_as<T, kNone, true, true>(dy, x, y, dz, images, c, area, o, sum, product);
  with_activation(a, [&](auto as) TX_BODY {
    if (dz) plane_back_sums_as<T, decltype(as)::value, false, true>(dy, x, y, dz, images, c, area, o, sum, product);
    else plane_back_sums_as<T, decltype(as)::value, false, false>(dy, x, y, dz, images, c, area, o, sum, product);
  });
}

template <typename T>
void plane_back_apply(int a, const T *dy, const T *x, T *dx, int64_t images, int64_t c, int64_t area, const NormRows &o) {
  with_activation(a, [&](auto as) TX_BODY { plane_back_apply_as<T, decltype(as)::value>(dy, x, dx, images, c, area, o); });
}
