/* torchx: what the trainer needs of libtorch and gotorch lacks.
 *
 * A tensor is an at::Tensor*, the same pointer gotorch's Tensor.T points at.
 * Every call that can fail returns NULL or an error text made with malloc, to
 * be released with tx_free_text: no C++ exception crosses this header. Results
 * come through the last arguments and belong to the caller (tx_free).
 * Calls that work "in place" keep the tensor's identity, so that optimisers,
 * autograd and named parameters go on seeing the same tensor.
 *
 * Gradient mode, autocast and the thread count are state of the calling
 * thread: the caller stays on one operating system thread.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *tx_tensor;
typedef char *tx_error;

/* --- library ------------------------------------------------------------- */
const char *tx_version(void); /* "1.13.1", static */
void tx_free_text(char *text);
tx_error tx_init(void);             /* allocator; once, before the first tensor */
void tx_memory(uint64_t *live, uint64_t *peak); /* bytes of tensors on the CPU made since tx_init: now, and at most */
void tx_memory_from_here(void);     /* the peak is that from here on */
tx_error tx_set_threads(int n);     /* of the calling thread and the pools it starts */
tx_error tx_hands(int64_t *hands);  /* how many threads share a loop of ours, called from here */
int tx_has_bf16(void);              /* 1 if this CPU multiplies bf16 in hardware */
tx_error tx_device_ready(const char *device); /* "cpu", "cuda:0": an error says why it cannot be used */
tx_error tx_synchronize(const char *device);
tx_error tx_deterministic(int on);  /* refuse or replace kernels whose result varies from run to run */

/* --- modes of the calling thread ------------------------------------------ */
void tx_grad_mode(int on, int *before);
tx_error tx_autocast(const char *device, int bf16, int on); /* off also drops the cached casts */

/* --- random state ---------------------------------------------------------- */
tx_error tx_seed(uint64_t seed);                             /* CPU and every GPU */
tx_error tx_rng_get(const char *device, tx_tensor *state);   /* uint8, opaque */
tx_error tx_rng_set(const char *device, tx_tensor state);

/* --- tensors --------------------------------------------------------------- */
void tx_free(tx_tensor t);
tx_error tx_from_raw(const void *data, int dtype, const int64_t *shape, int dims, tx_tensor *out); /* copies */
tx_error tx_to_raw(tx_tensor t, void *out, size_t bytes);          /* contiguous order, from any device and layout */
tx_error tx_fill_raw(tx_tensor t, const void *data, size_t bytes); /* in place, contiguous order in, layout and device kept */
tx_error tx_info(tx_tensor t, int *dtype, int *dims, int64_t shape[8]);
tx_error tx_is_channels_last(tx_tensor t, int *yes);
tx_error tx_move(tx_tensor t, const char *device, int channels_last); /* in place; channels_last touches 4-d tensors */
tx_error tx_requires_grad(tx_tensor t, int on);
tx_error tx_zeros_like(tx_tensor t, tx_tensor *out);
tx_error tx_item(tx_tensor t, double *out);

/* --- operations ------------------------------------------------------------ */
/* uint8 [N,H,W,C] on the host -> float [N,C,H,W] on the device: x*scale[c]+shift[c] */
tx_error tx_images(const void *pixels, int64_t n, int64_t h, int64_t w, int64_t c, const float *scale, const float *shift,
                   const char *device, int channels_last, tx_tensor *out);
tx_error tx_labels(const int64_t *labels, int64_t n, const char *device, tx_tensor *out);
tx_error tx_softmax(tx_tensor t, int64_t dim, tx_tensor *out);
tx_error tx_dropout(tx_tensor t, double p, int training, tx_tensor *out);
/* mean cross entropy in float32, whatever the logits' type; weights [classes] or NULL: the mean is then weighted */
tx_error tx_cross_entropy(tx_tensor logits, tx_tensor labels, tx_tensor weights, double smoothing, tx_tensor *out);
/* tally[0] += loss*n, tally[1] += correct answers, tally[2] += n; tally is float64 [3] */
tx_error tx_tally(tx_tensor tally, tx_tensor logits, tx_tensor labels, tx_tensor loss);

/* --- images: batches on their way to the device --------------------------------- */
/* A block of host memory (pinned if asked), for n images of size x size: int64 labels [n], int64 others [n],
 * float scale [3], shift [3], warp [n][7] (left, top, width, height of the part taken; -1 mirrored or 1; cos, sin),
 * colour [n][4] (factors of brightness, contrast, saturation; turn of hue), uint8 pixels [n][size][size][3]. */
enum { TX_WARP = 1, TX_COLOUR = 2 };
tx_error tx_block(int64_t n, int64_t size, int pinned, tx_tensor *out, void **data);
/* -> float [n,3,size,size], byte*scale + shift, and both rows of labels; order: of the four colour changes */
tx_error tx_block_images(tx_tensor block, int64_t n, int64_t size, int changes, const int32_t *order, const char *device,
                         int channels_last, tx_tensor *out, tx_tensor *labels, tx_tensor *others);
/* in place: image i takes the box of image i-1 */
tx_error tx_cut_mix(tx_tensor images, int64_t x1, int64_t y1, int64_t x2, int64_t y2);

/* --- layers that gotorch lacks ---------------------------------------------- */
enum { TX_NONE, TX_RELU, TX_RELU6, TX_SILU, TX_HARDSWISH, TX_HARDSIGMOID }; /* relu6 and hardsigmoid in place */
tx_error tx_activate(tx_tensor t, int kind, tx_tensor *out); /* not TX_NONE, TX_RELU */
/* a factor for each row of a batch, float [n]: 0 with probability p, else 1/(1-p) */
tx_error tx_depth_factors(tx_tensor t, double p, tx_tensor *out);

/* --- kernels of ours --------------------------------------------------------- */
/* Each call gives NULL where its kernel is off or does not take these tensors: then gotorch's function is the way. */
enum { TX_DENSE, TX_DEPTHWISE, TX_NORM, TX_MAX_POOL, TX_SQUEEZE, TX_OPTIMIZER, TX_AUGMENT }; /* as common/kernels lists them */
void tx_use_kernels(uint32_t on); /* bit TX_*: 1 is on; at first all are. Of the process. */
const char *tx_instructions(void); /* that our loops are compiled for on this CPU: avx512, avx2, plain */
/* [n,c,h,w], square kernels; bias may be NULL */
tx_error tx_convolve(tx_tensor t, tx_tensor weight, tx_tensor bias, int64_t stride, int64_t padding, int64_t groups, tx_tensor *out);
/* follow(norm(t)*factor[n] + other): batch normalisation of [n,c,h,w] and what comes after it; other [n,c,h,w] and
 * factor, float [n], may be NULL; follow up to TX_HARDSWISH. Training moves the running statistics. */
tx_error tx_norm(tx_tensor t, tx_tensor weight, tx_tensor bias, tx_tensor mean, tx_tensor var, tx_tensor other, tx_tensor factor,
                 int training, double momentum, double eps, int follow, tx_tensor *out);
tx_error tx_max_pool(tx_tensor t, int64_t kernel, int64_t stride, int64_t padding, tx_tensor *out); /* square windows */
/* pooled [n,c,1,1], and the input for those who use it as well: one sum in backward */
tx_error tx_pool_beside(tx_tensor t, tx_tensor *pooled, tx_tensor *same);
tx_error tx_scale_channels(tx_tensor t, tx_tensor factors, tx_tensor *out); /* t * factors[n,c,1,1] */

/* --- gradients and optimisers ---------------------------------------------- */
tx_error tx_backward(tx_tensor loss);
tx_error tx_grad(tx_tensor t, tx_tensor *out); /* of a leaf; *out NULL when there is none */
tx_error tx_grad_of(tx_tensor score, tx_tensor at, tx_tensor *out); /* d score / d at, at need not be a leaf */
tx_error tx_drop_grads(tx_tensor *params, int n);
tx_error tx_backward_scaled(tx_tensor loss, double by); /* gradients of loss*by */
/* Parameters without a gradient are left as they are. */
tx_error tx_sgd_step(tx_tensor *params, tx_tensor *momenta /* NULL when momentum is 0 */, int n, double lr, double momentum,
                     int nesterov, double weight_decay);
tx_error tx_adam_step(tx_tensor *params, tx_tensor *first, tx_tensor *second, int n, int64_t step /* from 1 */, double lr,
                      double beta1, double beta2, double eps, double weight_decay, int decoupled /* AdamW */);
tx_error tx_rmsprop_step(tx_tensor *params, tx_tensor *squares, tx_tensor *momenta /* NULL when momentum is 0 */, int n, double lr,
                         double alpha, double eps, double momentum, double weight_decay);
tx_error tx_clip_grads(tx_tensor *params, int n, double max_norm);              /* norm of all gradients together */
tx_error tx_unscale_grads(tx_tensor *params, int n, double by, int *finite);    /* multiplies; 0 if any is inf or nan */
tx_error tx_mix(tx_tensor a, tx_tensor b, double share, tx_tensor *out);        /* share*a + (1-share)*b */
tx_error tx_average(tx_tensor *averages, tx_tensor *values, int n, double decay); /* a = decay*a + (1-decay)*v */
tx_error tx_copy(tx_tensor *to, tx_tensor *from, int n);
tx_error tx_swap(tx_tensor *a, tx_tensor *b, int n); /* storage changes hands, tensors keep their identity */

/* --- buckets: gradients summed over shards, in memory that other processes map --------------- */
/* See native/buckets.h. One thread at a time, but for wait, stop and end. */
typedef void *tx_buckets;
/* params: trained leaves in the order of registration; statistics: float32 */
tx_error tx_buckets_new(tx_tensor *params, int n, tx_tensor *statistics, int m, int64_t bucket_bytes, tx_buckets *out);
/* In floats: a bucket is starts[i] to starts[i+1] of a slot; the segment is own slots of sums and one of the owner's results. */
void tx_buckets_layout(tx_buckets b, int *count, const int64_t **starts, int64_t *slot, int *own);
void tx_buckets_use(tx_buckets b, void *segment); /* zeros; must outlive b */
tx_error tx_buckets_begin(tx_buckets b, int64_t from, int64_t to, int64_t present);
tx_error tx_buckets_arm(tx_buckets b, int64_t shard, double weight);
tx_error tx_buckets_done(tx_buckets b);
tx_error tx_buckets_apply(tx_buckets b);
tx_error tx_buckets_drop(tx_buckets b);
tx_error tx_buckets_result(tx_buckets b, float **result); /* a slot, laid out as the others */
/* waits for the next complete bucket; -1: stopped. Calls are numbered from 1. */
tx_error tx_buckets_wait(tx_buckets b, int64_t call, int *bucket);
void tx_buckets_stop(tx_buckets b, int64_t call); /* ends the calls up to that one, also one that comes later */
void tx_buckets_end(tx_buckets b);                /* ends all */
void tx_buckets_free(tx_buckets b);               /* when no call waits */
/* in[to] += in[from] for each pair of program, then out = in[0]; in stays as it is */
tx_error tx_sum(float *out, const float *const *in, int inputs, const int32_t *program, int merges, int64_t n);

/* --- NCCL: sums moved between the devices of a group's members ------------------------------- */
/* See native/nccl.h. A library is opened by the path of its file, empty: where the system has it; it stays open. */
typedef void *tx_nccl;
typedef void *tx_meeting;
tx_error tx_nccl_open(const char *path, tx_nccl *out, char **version, char **found);
tx_error tx_nccl_id(tx_nccl library, char *id /* 128 bytes */);
/* returns before the others have come */
tx_error tx_meeting_new(tx_nccl library, const char *id, int rank, int members, const char *device, tx_meeting *out);
void tx_meeting_abort(tx_meeting m, const char *why); /* by any thread; what is under way ends soon after */
void tx_meeting_free(tx_meeting m);                   /* when no exchange is under way */
/* A bucket's sums over all members; see Buckets::exchange. done 0: stopped, by tx_buckets_stop. */
tx_error tx_buckets_exchange(tx_buckets b, tx_meeting m, int bucket, int64_t call, int rank, int members, const int32_t *first,
                             const int64_t *cuts, const int32_t *program, int merges, int *done);
/* a name that no other device in the world has; an error where it has none */
tx_error tx_device_identity(const char *device, char **name);

#ifdef __cplusplus
}
#endif
