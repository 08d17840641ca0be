// Sums of gradients. An addition of floats has one result whatever the instruction set. Included once for each
// instruction set (kernels.cc).

// out = a + b; out may be either of them.
static void add(const float *a, const float *b, float *out, int64_t n) {
  channels(n, [&](int64_t k, auto at) TX_BODY { at.put(out + k, at.get(a + k) + at.get(b + k)); });
}
