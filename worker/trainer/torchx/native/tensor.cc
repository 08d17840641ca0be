// Tensors from and to raw memory, layout and device in place, and the few operations gotorch lacks.
#include "native/common.h"

using namespace torchx;

extern "C" {

void tx_free(tx_tensor t) { delete static_cast<at::Tensor *>(t); }

tx_error tx_from_raw(const void *data, int dtype, const int64_t *shape, int dims, tx_tensor *out) {
  return guard([&] {
    at::IntArrayRef sizes(shape, dims);
    auto t = torch::empty(sizes, static_cast<at::ScalarType>(dtype));
    if (t.nbytes() > 0) memcpy(t.data_ptr(), data, t.nbytes());
    give(out, std::move(t));
  });
}

tx_error tx_to_raw(tx_tensor t, void *out, size_t bytes) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto c = in(t).detach().to(at::kCPU).contiguous();
    TORCH_CHECK(c.nbytes() == bytes, "tensor has ", c.nbytes(), " bytes, not ", bytes);
    if (bytes > 0) memcpy(out, c.data_ptr(), bytes);
  });
}

tx_error tx_fill_raw(tx_tensor t, const void *data, size_t bytes) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto &x = in(t);
    TORCH_CHECK(x.nbytes() == bytes, "tensor has ", x.nbytes(), " bytes, not ", bytes);
    if (bytes == 0) return;
    auto source = torch::from_blob(const_cast<void *>(data), x.sizes(), x.options().device(at::kCPU).requires_grad(false));
    x.detach().copy_(source);
  });
}

tx_error tx_info(tx_tensor t, int *dtype, int *dims, int64_t shape[8]) {
  return guard([&] {
    auto &x = in(t);
    TORCH_CHECK(x.dim() <= 8, "tensor has ", x.dim(), " dimensions; torchx knows up to 8");
    *dtype = static_cast<int>(x.scalar_type());
    *dims = static_cast<int>(x.dim());
    for (int64_t i = 0; i < x.dim(); i++) shape[i] = x.size(i);
  });
}

tx_error tx_is_channels_last(tx_tensor t, int *yes) {
  return guard([&] { *yes = in(t).dim() == 4 && in(t).is_contiguous(at::MemoryFormat::ChannelsLast); });
}

tx_error tx_move(tx_tensor t, const char *device, int channels_last) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto &x = in(t);
    auto format = channels_last && x.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    x.set_data(x.detach().to(torch::Device(device)).contiguous(format));
  });
}

tx_error tx_requires_grad(tx_tensor t, int on) {
  return guard([&] { in(t).requires_grad_(on != 0); });
}

tx_error tx_zeros_like(tx_tensor t, tx_tensor *out) {
  return guard([&] { give(out, torch::zeros_like(in(t).detach())); });
}

tx_error tx_item(tx_tensor t, double *out) {
  return guard([&] { *out = in(t).item().toDouble(); });
}

tx_error tx_images(const void *pixels, int64_t n, int64_t h, int64_t w, int64_t c, const float *scale, const float *shift,
                   const char *device, int channels_last, tx_tensor *out) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    torch::Device d(device);
    auto raw = torch::from_blob(const_cast<void *>(pixels), {n, h, w, c}, at::kByte);
    // Bytes travel to the device, a quarter of what floats would. [N,H,W,C] seen as [N,C,H,W] is channels_last.
    auto x = raw.to(d, at::kFloat);
    x.mul_(torch::from_blob(const_cast<float *>(scale), {c}, at::kFloat).to(d));
    x.add_(torch::from_blob(const_cast<float *>(shift), {c}, at::kFloat).to(d));
    x = x.permute({0, 3, 1, 2});
    give(out, channels_last ? x : x.contiguous());
  });
}

tx_error tx_labels(const int64_t *labels, int64_t n, const char *device, tx_tensor *out) {
  return guard([&] {
    give(out, torch::from_blob(const_cast<int64_t *>(labels), {n}, at::kLong).clone().to(torch::Device(device)));
  });
}

tx_error tx_softmax(tx_tensor t, int64_t dim, tx_tensor *out) {
  return guard([&] { give(out, torch::softmax(in(t), dim)); });
}

tx_error tx_dropout(tx_tensor t, double p, int training, tx_tensor *out) {
  return guard([&] { give(out, torch::dropout(in(t), p, training != 0)); });
}

tx_error tx_cross_entropy(tx_tensor logits, tx_tensor labels, tx_tensor weights, double smoothing, tx_tensor *out) {
  return guard([&] {
    c10::optional<at::Tensor> w;
    if (weights) w = in(weights);
    give(out, at::cross_entropy_loss(in(logits).to(at::kFloat), in(labels), w, at::Reduction::Mean, -100, smoothing));
  });
}

tx_error tx_tally(tx_tensor tally, tx_tensor logits, tx_tensor labels, tx_tensor loss) {
  return guard([&] {
    torch::NoGradGuard no_grad;
    auto n = in(labels).size(0);
    auto right = in(logits).detach().argmax(1).eq(in(labels)).sum();
    auto total = in(loss).detach().to(at::kDouble) * static_cast<double>(n);
    in(tally).add_(torch::stack({total, right.to(at::kDouble), torch::full_like(total, static_cast<double>(n))}));
  });
}

}  // extern "C"
