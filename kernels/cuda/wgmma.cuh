/* kernels/cuda/wgmma.cuh: sm_90a's matrix products, copies and barriers.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tiles in shared memory are panels of 64 columns (128 bytes a row), written by the
 * tensor copy engine with its 128-byte swizzle: 16-byte chunk c of row r lies at c ^ (r &
 * 7). A panel starts at a multiple of 1024 bytes. Such a tile serves a product in two
 * ways (PTX ISA 9, "Matrix descriptor"): its rows along m or n and its columns along k
 * ("K-major"), or its rows along k and its columns along n ("MN-major"). Accumulators and
 * A operands in registers lie as those of mma.sync m16n8k16, warp w of the four having
 * rows 16 w. */
#pragma once

#include <cuda.h>

#include "kernels/cuda/flash.cuh"

/* The rest of the file is empty for every other architecture, where the host never
 * launches what uses it. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SM90A 1
#define SM90_ASM(...) asm volatile(__VA_ARGS__)
#else
#define SM90A 0
#define SM90_ASM(...)
#endif

#define PANEL 64 /* columns */

/* ---- barriers and copies ---- */

static __device__ __forceinline__ void
barrier_init (uint32_t bar, int count)
{
  SM90_ASM ("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
static __device__ __forceinline__ void
barrier_arrive (uint32_t bar)
{
  SM90_ASM ("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
static __device__ __forceinline__ void
barrier_expect (uint32_t bar, int bytes)
{
  SM90_ASM (
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
      : "memory");
}
/* Until the phase with this parity is over. */
static __device__ __forceinline__ void
barrier_wait (uint32_t bar, int parity)
{
  SM90_ASM ("{\n"
            ".reg .pred done;\n"
            "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
            "@!done bra again;\n"
            "}" ::"r"(bar),
            "r"(parity)
            : "memory");
}

/* 64 columns from `column` of 64 rows from `row`; rows beyond the matrix become 0. */
static __device__ __forceinline__ void
copy_box (uint32_t dst, const CUtensorMap *map, int column, int row, uint32_t bar)
{
  SM90_ASM ("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
            "[%0], [%1, {%3, %4}], [%2];" ::"r"(dst),
            "l"(map), "r"(bar), "r"(column), "r"(row)
            : "memory");
}
/* A head's ROWS rows from `row`, 128 columns: two panels. */
template <int ROWS>
static __device__ __forceinline__ void
copy_tile (uint32_t dst, const CUtensorMap *map, int head, int row, uint32_t bar)
{
#pragma unroll
  for (int panel = 0; panel < 2; panel++) {
#pragma unroll
    for (int r = 0; r < ROWS; r += 64)
      copy_box (
          dst + (panel * ROWS + r) * 128, map, head * 128 + panel * PANEL, row + r, bar);
  }
}

/* ---- products ---- */

/* Eight rows are 1024 bytes; panel_bytes: from one panel to the next, for MN-major. */
static __device__ __forceinline__ uint64_t
descriptor (uint32_t address, uint32_t panel_bytes)
{
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(panel_bytes >> 4) << 16 |
         (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ void
products_begin (void)
{
  SM90_ASM ("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void
products_commit (void)
{
  SM90_ASM ("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING>
static __device__ __forceinline__ void
products_wait (void)
{
  SM90_ASM ("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#if SM90A
#define ACC4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define ACC16(n) ACC4 (n), ACC4 (n + 1), ACC4 (n + 2), ACC4 (n + 3)
#define NAMES32                                                                          \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,"   \
  "%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES64                                                                          \
  NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50" \
          ",%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* d [64 x 8 N] = or += A B^T, both K-major in shared memory, 16 deep. */
#define DEFINE_SS(T, NAME, N, COLUMNS, NAMES, A, B, KEEP, ...)                           \
  static __device__ __forceinline__ void product_ss (                                    \
      T, float (&d)[N][4], uint64_t a, uint64_t b, int keep)                             \
  {                                                                                      \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP ", 0;\n"                       \
                 "wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." NAME "." NAME    \
                 " {" NAMES "}, " A ", " B ", p, 1, 1, 0, 0;\n}"                         \
                 : __VA_ARGS__                                                           \
                 : "l"(a), "l"(b), "r"(keep));                                           \
  }
DEFINE_SS (bf16, "bf16", 8, "64", NAMES32, "%32", "%33", "%34", ACC16 (0), ACC16 (4))
DEFINE_SS (f16, "f16", 8, "64", NAMES32, "%32", "%33", "%34", ACC16 (0), ACC16 (4))
DEFINE_SS (bf16, "bf16", 16, "128", NAMES64, "%64", "%65", "%66", ACC16 (0), ACC16 (4),
    ACC16 (8), ACC16 (12))
DEFINE_SS (f16, "f16", 16, "128", NAMES64, "%64", "%65", "%66", ACC16 (0), ACC16 (4),
    ACC16 (8), ACC16 (12))

/* d [64 x 128] += A B, A in registers, B MN-major, 16 deep. */
#define DEFINE_RS(T, NAME)                                                               \
  static __device__ __forceinline__ void product_rs (                                    \
      T, float (&d)[16][4], const uint32_t (&a)[4], uint64_t b)                          \
  {                                                                                      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME            \
                 " {" NAMES64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"                   \
                 : ACC16 (0), ACC16 (4), ACC16 (8), ACC16 (12)                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                  \
  }
DEFINE_RS (bf16, "bf16")
DEFINE_RS (f16, "f16")
#else
template <typename T, int N>
static __device__ __forceinline__ void
product_ss (T, float (&)[N][4], uint64_t, uint64_t, int)
{
}
template <typename T>
static __device__ __forceinline__ void
product_rs (T, float (&)[16][4], const uint32_t (&)[4], uint64_t)
{
}
#endif

/* d = 64 rows of tile a (A_ROWS rows, from a's address on) times the transpose of 8 N
 * rows of tile b, over 128 columns. */
template <typename T, int A_ROWS, int N>
static __device__ __forceinline__ void
scores (float (&d)[N][4], uint32_t a, uint32_t b)
{
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const uint32_t inside = (k & 3) * 32;

    product_ss (T (), d, descriptor (a + (k >> 2) * A_ROWS * 128 + inside, 16),
        descriptor (b + (k >> 2) * N * 8 * 128 + inside, 16), k > 0);
  }
}

/* The accumulators of a product, rounded, as A operands of the next. */
template <typename T, int N>
static __device__ __forceinline__ void
as_operand (uint32_t (&a)[N / 2][4], const float (&p)[N][4])
{
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    a[k][0] = pack2 (T (), p[2 * k][0], p[2 * k][1]);
    a[k][1] = pack2 (T (), p[2 * k][2], p[2 * k][3]);
    a[k][2] = pack2 (T (), p[2 * k + 1][0], p[2 * k + 1][1]);
    a[k][3] = pack2 (T (), p[2 * k + 1][2], p[2 * k + 1][3]);
  }
}

/* d [64 x 128] += a [64 x 16 K] times tile b [16 K, 128]. */
template <typename T, int K>
static __device__ __forceinline__ void
weighted_sum (float (&d)[16][4], const uint32_t (&a)[K][4], uint32_t b)
{
#pragma unroll
  for (int k = 0; k < K; k++)
    product_rs (T (), d, a[k], descriptor (b + k * 16 * 128, K * 16 * 128));
}

/* Registers of a warp group from here on. */
template <int N>
static __device__ __forceinline__ void
registers_up (void)
{
  SM90_ASM ("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
static __device__ __forceinline__ void
registers_down (void)
{
  SM90_ASM ("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* For the copy engine: boxes of 64 rows and 64 columns of m. */
int fxc_tensor_map (fx_cuda *c, CUtensorMap *map, fx_mat m);
