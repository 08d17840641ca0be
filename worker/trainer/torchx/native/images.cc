// Batches of images: from bytes on the host to normalised floats on the device, changed on the way.
//
// One block of memory holds everything a batch needs, so that one copy, from pinned memory and without waiting, brings it
// to a GPU. There, changes are operators over the whole batch. On the CPU an image passes through loops that keep it in the
// cache: the same arithmetic in a fraction of the time (BENCHMARKS.md).
#include <ATen/Parallel.h>
#if defined(WITH_CUDA)
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>

#include <map>
#endif

#include "native/common.h"

using namespace torchx;

namespace {

// Where things lie in the block, in bytes; torchx.h describes it.
struct Block {
  int64_t n, size;
  int64_t floats() const { return 16 * n; }
  int64_t warp() const { return floats() + 4 * 6; }
  int64_t colour() const { return warp() + 4 * 7 * n; }
  int64_t pixels() const { return colour() + 4 * 4 * n; }
  int64_t bytes() const { return pixels() + n * size * size * 3; }
};

// Two versions of a loop, chosen by the CPU at load time, that agree in every bit (no fused multiply-add).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TX_LOOP __attribute__((target_clones("avx2", "default"), optimize("O3", "fp-contract=off")))
#else
#define TX_LOOP
#endif

enum { kBrightness, kContrast, kSaturation, kHue };

inline float unit(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
inline float grey(float r, float g, float b) { return 0.2989f * r + 0.587f * g + 0.114f * b; }
inline float blend(float a, float b, float f) { return unit(f * a + (1 - f) * b); }

// torchvision's adjust_hue: to HSV, turned, and back.
inline void turn(float *px, float by) {
  float r = px[0], g = px[1], b = px[2];
  float high = std::max(r, std::max(g, b)), low = std::min(r, std::min(g, b));
  float span = high - low;
  if (span == 0) return;  // grey has no hue
  float h;
  if (high == r)
    h = (g - b) / span;
  else if (high == g)
    h = 2 + (b - r) / span;
  else
    h = 4 + (r - g) / span;
  h = h / 6 + by;
  h = 6 * (h < 0 ? h + 1 : h >= 1 ? h - 1 : h);
  // Each colour is a trapezoid over the circle, a third of it apart.
  const float shift[3] = {5, 3, 1};
  for (int c = 0; c < 3; c++) {
    float k = h + shift[c];
    if (k >= 6) k -= 6;
    px[c] = unit(high - span * unit(std::min(k, 4 - k)));
  }
}

// Changes the colours of one image of interleaved pixels in 0..1.
TX_LOOP void recolour(float *image, int64_t count, const float *f, const int32_t *order) {
  for (int i = 0; i < 4; i++) {
    float by = f[order[i]];
    switch (order[i]) {
      case kBrightness:
        if (by == 1) break;
        for (int64_t p = 0; p < 3 * count; p++) image[p] = unit(by * image[p]);
        break;
      case kContrast: {
        if (by == 1) break;
        double sum = 0;
        for (int64_t p = 0; p < count; p++) sum += grey(image[3 * p], image[3 * p + 1], image[3 * p + 2]);
        float mean = static_cast<float>(sum / count);
        for (int64_t p = 0; p < 3 * count; p++) image[p] = blend(image[p], mean, by);
        break;
      }
      case kSaturation:
        if (by == 1) break;
        for (int64_t p = 0; p < count; p++) {
          float *x = image + 3 * p;
          float g = grey(x[0], x[1], x[2]);
          for (int c = 0; c < 3; c++) x[c] = blend(x[c], g, by);
        }
        break;
      case kHue:
        if (by == 0) break;
        for (int64_t p = 0; p < count; p++) turn(image + 3 * p, by);
        break;
    }
  }
}

// The same on [N,3,H,W] with operators, on any device; f is [N,4] there.
at::Tensor recolour(at::Tensor x, const at::Tensor &f, const int32_t *order) {
  auto mix = [](const at::Tensor &a, const at::Tensor &b, const at::Tensor &by) { return (by * a + (1 - by) * b).clamp_(0, 1); };
  auto luma = [](const at::Tensor &a) { return 0.2989 * a.narrow(1, 0, 1) + 0.587 * a.narrow(1, 1, 1) + 0.114 * a.narrow(1, 2, 1); };
  for (int i = 0; i < 4; i++) {
    auto by = f.select(1, order[i]).view({-1, 1, 1, 1});
    switch (order[i]) {
      case kBrightness: x = (x * by).clamp_(0, 1); break;
      case kContrast: x = mix(x, luma(x).mean({1, 2, 3}, /*keepdim=*/true), by); break;
      case kSaturation: x = mix(x, luma(x), by); break;
      case kHue: {
        auto r = x.narrow(1, 0, 1), g = x.narrow(1, 1, 1), b = x.narrow(1, 2, 1);
        auto high = x.amax(1, true), span = high - x.amin(1, true);
        auto safe = at::where(span == 0, at::ones_like(span), span);
        auto h = at::where(high == r, (g - b) / safe, at::where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe));
        h = h / 6 + by;
        h = (h - h.floor()) * 6;
        std::vector<at::Tensor> rgb;
        for (double shift : {5., 3., 1.}) {
          auto k = at::fmod(h + shift, 6);
          rgb.push_back((high - span * at::minimum(k, 4 - k).clamp_(0, 1)).clamp_(0, 1));
        }
        x = at::cat(rgb, 1);
        break;
      }
    }
  }
  return x;
}

// Crop, mirror and turn [N,3,S,S] in one sampling. Going backwards from a pixel of the result: turn back, mirror back, into
// the part that was taken. Clamping to the part makes this the same as stretching the part by itself.
at::Tensor warp(const at::Tensor &x, const at::Tensor &w) {
  auto s = x.size(3);
  double side = static_cast<double>(s);
  auto column = [&](int k) { return w.select(1, k).view({-1, 1, 1}); };
  auto left = column(0), top = column(1), width = column(2), height = column(3), mirrored = column(4), cos = column(5), sin = column(6);
  auto t = at::arange(s, x.options()) - (side - 1) / 2;
  auto u = t.view({1, 1, s}), v = t.view({1, s, 1});
  auto sx = u * cos - v * sin, sy = u * sin + v * cos;
  // Outside the turned frame is black, with the soft edge that bilinear sampling of zeros gives.
  auto inside = ((side + 1) / 2 - sx.abs()).clamp_(0, 1) * ((side + 1) / 2 - sy.abs()).clamp_(0, 1);
  auto into = [&](const at::Tensor &p, const at::Tensor &from, const at::Tensor &extent) {
    auto at = at::minimum(((p + side / 2) * (extent / side) - 0.5).clamp_min_(0), extent - 1) + from;
    return (2 * at + 1) / side - 1;
  };
  auto grid = at::stack({into(sx * mirrored, left, width), into(sy, top, height)}, 3);
  return at::grid_sampler_2d(x, grid, /*bilinear*/ 0, /*zeros*/ 0, /*align_corners=*/false).mul_(inside.unsqueeze(1));
}

// The same for one image, from interleaved bytes to interleaved floats in 0..1.
TX_LOOP void warp(const uint8_t *from, float *to, int64_t s, const float *w) {
  const float left = w[0], top = w[1], width = w[2], height = w[3], mirrored = w[4], cos = w[5], sin = w[6];
  const float half = s / 2.f, middle = (s - 1) / 2.f, across = width / s, down = height / s;
  for (int64_t y = 0; y < s; y++) {
    for (int64_t x = 0; x < s; x++, to += 3) {
      float u = x - middle, v = y - middle;
      float sx = u * cos - v * sin, sy = u * sin + v * cos;
      float inside = unit(half + 0.5f - std::abs(sx)) * unit(half + 0.5f - std::abs(sy));
      to[0] = to[1] = to[2] = 0;
      if (inside == 0) continue;
      float tx = std::min(std::max((sx * mirrored + half) * across - 0.5f, 0.f), width - 1) + left;
      float ty = std::min(std::max((sy + half) * down - 0.5f, 0.f), height - 1) + top;
      int64_t x0 = static_cast<int64_t>(tx), y0 = static_cast<int64_t>(ty);
      if (tx < x0) x0--;
      if (ty < y0) y0--;
      float fx = tx - x0, fy = ty - y0;
      inside /= 255;
      float a = (1 - fx) * (1 - fy) * inside, b = fx * (1 - fy) * inside, c = (1 - fx) * fy * inside, d = fx * fy * inside;
      const uint8_t *p = from + (y0 * s + x0) * 3;
      if (x0 >= 0 && y0 >= 0 && x0 + 1 < s && y0 + 1 < s) {
        const uint8_t *q = p + 3 * s;
        for (int k = 0; k < 3; k++) to[k] = a * p[k] + b * p[k + 3] + c * q[k] + d * q[k + 3];
        continue;
      }
      auto add = [&](int64_t dx, int64_t dy, float weight) {  // black outside the image
        if (weight == 0 || x0 + dx < 0 || x0 + dx >= s || y0 + dy < 0 || y0 + dy >= s) return;
        for (int k = 0; k < 3; k++) to[k] += weight * from[((y0 + dy) * s + x0 + dx) * 3 + k];
      };
      add(0, 0, a), add(1, 0, b), add(0, 1, c), add(1, 1, d);
    }
  }
}

// One block to the device. On a GPU the copy runs beside the arithmetic of the batch before.
at::Tensor upload(const at::Tensor &block, const torch::Device &d) {
#if defined(WITH_CUDA)
  if (d.is_cuda()) {
    auto main = c10::cuda::getCurrentCUDAStream(d.has_index() ? d.index() : -1);
    static thread_local std::map<int, c10::cuda::CUDAStream> streams;  // one a device: freed memory stays with its stream
    auto beside = streams.emplace(main.device_index(), c10::cuda::getStreamFromPool(false, main.device_index())).first->second;
    at::Tensor there;
    at::cuda::CUDAEvent copied;
    {
      c10::cuda::CUDAStreamGuard on(beside);
      there = block.to(d, at::kByte, /*non_blocking=*/true);
      copied.record(beside);
    }
    copied.block(main);
    there.record_stream(main.unwrap());
    return there;
  }
#endif
  return block.to(d, at::kByte, /*non_blocking=*/true);
}

}  // namespace

extern "C" {

tx_error tx_block(int64_t n, int64_t size, int pinned, tx_tensor *out, void **data) {
  return guard([&] {
    Block b{n, size};
    auto t = at::empty({b.bytes()}, at::TensorOptions().dtype(at::kByte).pinned_memory(pinned != 0));
    *data = t.data_ptr();
    give(out, std::move(t));
  });
}

tx_error tx_block_images(tx_tensor block, int64_t n, int64_t size, int changes, const int32_t *order, const char *device,
                         int channels_last, tx_tensor *out, tx_tensor *labels, tx_tensor *others) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    Block b{n, size};
    torch::Device d(device);
    TORCH_CHECK(in(block).nbytes() == static_cast<size_t>(b.bytes()), "torchx: a block of ", in(block).nbytes(), " bytes for ", n, " images of ", size);
    auto there = upload(in(block), d);
    auto part = [&](int64_t from, int64_t bytes, at::ScalarType type) {
      auto p = there.narrow(0, from, bytes).view(type);
      return d.is_cpu() && type == at::kLong ? p.clone() : p;  // small, and the block goes sooner
    };
    auto y = part(0, 8 * n, at::kLong), y2 = part(8 * n, 8 * n, at::kLong);
    auto pixels = there.narrow(0, b.pixels(), n * size * size * 3).view({n, size, size, 3});
    auto shades = part(b.floats(), 4 * 6, at::kFloat);
    auto warps = part(b.warp(), 4 * 7 * n, at::kFloat).view({n, 7});
    auto factors = part(b.colour(), 4 * 4 * n, at::kFloat).view({n, 4});
    bool coloured = changes & TX_COLOUR, warped = changes & TX_WARP;

    at::Tensor x;  // [N,S,S,3]
    if (d.is_cpu() && kernel_on(TX_AUGMENT)) {
      x = at::empty({n, size, size, 3}, at::kFloat);
      auto count = size * size;
      const auto *bytes = static_cast<const uint8_t *>(pixels.data_ptr());
      const auto *w = static_cast<const float *>(warps.data_ptr());
      const auto *f = static_cast<const float *>(factors.data_ptr());
      const auto *s = static_cast<const float *>(shades.data_ptr());
      auto *to = static_cast<float *>(x.data_ptr());
      float units[256], shade[3][256];  // a byte in 0..1; a byte normalised
      for (int v = 0; v < 256; v++) {
        units[v] = v / 255.f;
        for (int c = 0; c < 3; c++) shade[c][v] = v * s[c] + s[3 + c];
      }
      at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          const uint8_t *from = bytes + i * count * 3;
          float *image = to + i * count * 3;
          if (!warped && !coloured) {
            for (int64_t p = 0; p < 3 * count; p += 3)
              for (int c = 0; c < 3; c++) image[p + c] = shade[c][from[p + c]];
            continue;
          }
          if (warped)
            warp(from, image, size, w + 7 * i);
          else
            for (int64_t p = 0; p < 3 * count; p++) image[p] = units[from[p]];
          if (coloured) recolour(image, count, f + 4 * i, order);
          for (int64_t p = 0; p < 3 * count; p += 3)
            for (int c = 0; c < 3; c++) image[p + c] = image[p + c] * (255 * s[c]) + s[3 + c];
        }
      });
    } else if (warped || coloured) {
      x = pixels.to(at::kFloat).div_(255).permute({0, 3, 1, 2});
      if (warped) x = warp(x, warps);
      if (coloured) x = recolour(x, factors, order);
      x = x.permute({0, 2, 3, 1}).contiguous();
      x.mul_(shades.narrow(0, 0, 3) * 255).add_(shades.narrow(0, 3, 3));
    } else {
      x = pixels.to(at::kFloat).mul_(shades.narrow(0, 0, 3)).add_(shades.narrow(0, 3, 3));
    }
    x = x.permute({0, 3, 1, 2});  // [N,S,S,3] seen so is channels_last
    give(out, channels_last ? x : x.contiguous());
    give(labels, y);
    give(others, y2);
  });
}

tx_error tx_cut_mix(tx_tensor images, int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto box = in(images).slice(2, y1, y2).slice(3, x1, x2);
    if (box.numel() > 0) box.copy_(box.roll(1, 0));
  });
}

}  // extern "C"
