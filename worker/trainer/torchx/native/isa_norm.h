// Batch normalisation of [rows, c], channels side by side, with what follows it. Included once for each instruction
// set (kernels.cc).

constexpr int64_t kStretch = 64;  // rows added up in float before their sum goes into a double

TX_IN void add_up(double *sum, Lanes v, int64_t left) {
  for (int64_t i = 0; i < (left < kLanes ? left : kLanes); i++) sum[i] += v[i];
}

// sum[k] += x - pivot, square[k] += (x - pivot)^2 over rows.
template <typename T>
void norm_sums(const T *x, int64_t rows, int64_t c, const float *pivot, double *sum, double *square) {
  for (int64_t from = 0; from < rows; from += kStretch) {
    int64_t n = rows - from < kStretch ? rows - from : kStretch;
    const T *base = x + from * c;
    auto columns = [&](int64_t k, auto width, auto at) TX_BODY {
      constexpr int64_t W = decltype(width)::value;
      Lanes s[W] = {}, q[W] = {}, p[W];
      for (int64_t b = 0; b < W; b++) p[b] = at.get(pivot + k + b * kLanes);
      const T *row = base + k;
      for (int64_t r = 0; r < n; r++, row += c)
        for (int64_t b = 0; b < W; b++) {
          Lanes v = at.get(row + b * kLanes) - p[b];
          s[b] += v;
          q[b] += v * v;
        }
      for (int64_t b = 0; b < W; b++) {
        add_up(sum + k + b * kLanes, s[b], c - k - b * kLanes);
        add_up(square + k + b * kLanes, q[b], c - k - b * kLanes);
      }
    };
    int64_t k = 0;
    for (; k + 4 * kLanes <= c; k += 4 * kLanes) columns(k, Count<4>{}, All{});
    for (; k + kLanes <= c; k += kLanes) columns(k, Count<1>{}, All{});
    if (k < c) columns(k, Count<1>{}, Part{c - k});
  }
}

// y = act(x*scale + shift + other); other may be null.
template <typename T, int A, bool Other>
void norm_apply_as(const T *x, const T *other, T *y, int64_t rows, int64_t c, const float *scale, const float *shift) {
  for (int64_t i = 0; i < rows * c; i += c)
    channels(c, [&](int64_t k, auto at) TX_BODY {
      Lanes z = at.get(x + i + k) * at.get(scale + k) + at.get(shift + k);
      if constexpr (Other) z += at.get(other + i + k);
      at.put(y + i + k, act<A>(z));
    });
}

// One pass of backward: dz = dy * act'(x*scale + shift), or where y is given (ReLU after a sum) dz = dy unless y <= 0. dz
// is written if asked for: where the second pass would pay for the derivative again, or a sum's other part wants it.
// sum += factor * dz, product += factor * dz * (x - mean).
template <typename T, int A, bool FromOutput, bool Write>
void norm_back_sums_as(const T *dy, const T *x, const T *y, T *dz, int64_t rows, int64_t c, const NormRows &o, double *sum,
                       double *product) {
  for (int64_t from = 0; from < rows; from += kStretch) {
    int64_t n = rows - from < kStretch ? rows - from : kStretch;
    auto columns = [&](int64_t k, auto width, auto at) TX_BODY {
      constexpr int64_t W = decltype(width)::value;
      Lanes s[W] = {}, q[W] = {}, mean[W], scale[W], shift[W];
      for (int64_t b = 0; b < W; b++) {
        mean[b] = at.get(o.mean + k + b * kLanes);
        scale[b] = at.get(o.scale + k + b * kLanes);
        shift[b] = at.get(o.shift + k + b * kLanes);
      }
      for (int64_t r = 0, row = from * c + k; r < n; r++, row += c)
        for (int64_t b = 0; b < W; b++) {
          int64_t i = row + b * kLanes;
          Lanes v = at.get(x + i), d = at.get(dy + i);
          if constexpr (FromOutput) d = through<kReLU>(at.get(y + i), d);
          else if constexpr (A != kNone) d = through<A>(v * scale[b] + shift[b], d);
          if constexpr (Write) at.put(dz + i, d);
          d *= o.factor;
          s[b] += d;
          q[b] += d * (v - mean[b]);
        }
      for (int64_t b = 0; b < W; b++) {
        add_up(sum + k + b * kLanes, s[b], c - k - b * kLanes);
        add_up(product + k + b * kLanes, q[b], c - k - b * kLanes);
      }
    };
    int64_t k = 0;
    for (; k + 2 * kLanes <= c; k += 2 * kLanes) columns(k, Count<2>{}, All{});
    for (; k + kLanes <= c; k += kLanes) columns(k, Count<1>{}, All{});
    if (k < c) columns(k, Count<1>{}, Part{c - k});
  }
}

// dx = factor*dz*a + (x - mean)*b + d, with dz = dy * act' again unless dy is dz already (A == kNone).
template <typename T, int A>
void norm_back_apply_as(const T *dy, const T *x, T *dx, int64_t rows, int64_t c, const NormRows &o) {
  for (int64_t i = 0; i < rows * c; i += c)
    channels(c, [&](int64_t k, auto at) TX_BODY {
      Lanes v = at.get(x + i + k), d = at.get(dy + i + k);
      if constexpr (A != kNone) d = through<A>(v * at.get(o.scale + k) + at.get(o.shift + k), d);
      d *= o.factor;
      at.put(dx + i + k, d * at.get(o.a + k) + (v - at.get(o.mean + k)) * at.get(o.b + k) + at.get(o.d + k));
    });
}

template <typename T>
void norm_apply(int a, const T *x, const T *other, T *y, int64_t rows, int64_t c, const float *scale, const float *shift) {
  with_activation(a, [&](auto as) TX_BODY {
    if (other) norm_apply_as<T, decltype(as)::value, true>(x, other, y, rows, c, scale, shift);
    else norm_apply_as<T, decltype(as)::value, false>(x, other, y, rows, c, scale, shift);
  });
}

template <typename T>
void norm_back_sums(int a, const T *dy, const T *x, const T *y, T *dz, int64_t rows, int64_t c, const NormRows &o, double *sum,
                    double *product) {
  if (y) {
    if (dz) norm_back_sums_as<T, kNone, true, true>(dy, x, y, dz, rows, c, o, sum, product);
    else norm_back_sums_as<T, kNone, true, false>(dy, x, y, dz, rows, c, o, sum, product);
    return;
  }
  with_activation(a, [&](auto as) TX_BODY {
    if (dz) norm_back_sums_as<T, decltype(as)::value, false, true>(dy, x, y, dz, rows, c, o, sum, product);
    else norm_back_sums_as<T, decltype(as)::value, false, false>(dy, x, y, dz, rows, c, o, sum, product);
  });
}

template <typename T>
void norm_back_apply(int a, const T *dy, const T *x, T *dx, int64_t rows, int64_t c, const NormRows &o) {
  with_activation(a, [&](auto as) TX_BODY { norm_back_apply_as<T, decltype(as)::value>(dy, x, dx, rows, c, o); });
}
