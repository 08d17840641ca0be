// The loops of isa_*.h, compiled for AVX-512, for AVX2 and plainly; the CPU chooses at the first call.
#include "native/kernels.h"

#include <cstdlib>
#include <string_view>
#include <type_traits>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define TX_LOOPS(T)                                                                                                   \
  Loops<T> {                                                                                                          \
    norm_sums<T>, norm_apply<T>, norm_back_sums<T>, norm_back_apply<T>, plane_sums<T>, plane_apply<T>,                \
        plane_back_sums<T>, plane_back_apply<T>, depthwise<T>, depthwise_back<T>, depthwise_weight<T>, max_pool<T>,   \
        max_pool_back<T>, scale_apply<T>, scale_back<T>, row_sums<T>, row_add<T>                                      \
  }

namespace torchx {

namespace plain {
#include "native/isa_lanes.h"
#include "native/isa_norm.h"
#include "native/isa_planes.h"
#include "native/isa_depthwise.h"
#include "native/isa_pool.h"
#include "native/isa_scale.h"
#include "native/isa_sum.h"
#undef TX_IN
#undef TX_METHOD
#undef TX_BODY
static const Kernels table = {"plain", TX_LOOPS(float), TX_LOOPS(Bf16), add};
}  // namespace plain

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TX_WIDE 1

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#include "native/isa_lanes.h"
#include "native/isa_norm.h"
#include "native/isa_planes.h"
#include "native/isa_depthwise.h"
#include "native/isa_pool.h"
#include "native/isa_scale.h"
#include "native/isa_sum.h"
#undef TX_IN
#undef TX_METHOD
#undef TX_BODY
static const Kernels table = {"avx2", TX_LOOPS(float), TX_LOOPS(Bf16), add};
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#include "native/isa_lanes.h"
#include "native/isa_norm.h"
#include "native/isa_planes.h"
#include "native/isa_depthwise.h"
#include "native/isa_pool.h"
#include "native/isa_scale.h"
#include "native/isa_sum.h"
#undef TX_IN
#undef TX_METHOD
#undef TX_BODY
static const Kernels table = {"avx512", TX_LOOPS(float), TX_LOOPS(Bf16), add};
}  // namespace avx512
namespace floats {
#define TX_PAIRS 0
#include "native/isa_product.h"
}  // namespace floats
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")
namespace pairs {
#define TX_PAIRS 1
#include "native/isa_product.h"
}  // namespace pairs
#pragma GCC pop_options
#endif

const Kernels &kernels() {
#ifdef TX_WIDE
  static const Kernels &chosen = [&]() -> const Kernels & {
    __builtin_cpu_init();
    // libtorch's own variable, so that one word holds both halves back: default, avx2, avx512.
    const char *most = getenv("ATEN_CPU_CAPABILITY");
    std::string_view upto = most ? most : "avx512";
    if (upto == "default") return plain::table;
    if (upto != "avx2" && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      return avx512::table;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::table;
    return plain::table;
  }();
  return chosen;
#else
  return plain::table;
#endif
}

template <>
const Loops<float> &loops<float>() { return kernels().f32; }

template <>
const Loops<Bf16> &loops<Bf16>() { return kernels().bf16; }

template <>
const Products<float> *products<float>() {
#ifdef TX_WIDE
  static const bool fits = kernels().f32.norm_sums == avx512::table.f32.norm_sums;
  return fits ? &floats::products_table : nullptr;
#else
  return nullptr;
#endif
}

template <>
const Products<Bf16> *products<Bf16>() {
#ifdef TX_WIDE
  static const bool fits = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);  // AMX-BF16
    return products<float>() && __builtin_cpu_supports("avx512bf16") && !tiles;
  }();
  return fits ? &pairs::products_table : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace torchx
