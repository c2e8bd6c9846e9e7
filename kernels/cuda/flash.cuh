/* kernels/cuda/flash.cuh: pieces of attention on tensor cores. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * mma.sync m16n8k16 (sm_80 and newer), or for fp16 on sm_75 twice m16n8k8. Tiles of HD
 * columns stand in shared memory in rows of HD / 8 chunks of 16 bytes; chunk c of row r
 * is at c ^ (r & 7), so that ldmatrix meets no bank twice. Fragments (g = lane / 4, t =
 * lane % 4): A holds rows g and g + 8, columns 2t.. and 2t + 8..; B holds column g of the
 * product, depths 2t.. and 2t + 8..; C holds (g, 2t..) and (g + 8, 2t..). */
#pragma once

#include "kernels/cuda/common.cuh"

#define LOG2E 1.4426950408889634f

/* What sm_75 has not. Without cp.async tiles are copied through registers; without bf16
 * products the host never launches these kernels. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FLASH_ASM(...) asm volatile(__VA_ARGS__)
#else
#define FLASH_ASM(...)
#endif

typedef struct {
  const void *q, *k, *v, *d_o;
  int64_t ldq, ldk, ldv, lddo;
  int n_q, n_k;
  float scale;
  const float *lse, *delta; /* [heads, n_q] */
} flash_args;

/* exp2, without exp2f's care for results under 2^-126, which become 0. */
static __device__ __forceinline__ float
power2 (float x)
{
  float y;

  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

static __device__ __forceinline__ uint32_t
shared_address (const void *p)
{
  return (uint32_t)__cvta_generic_to_shared (p);
}

static __device__ __forceinline__ void
ldmatrix (uint32_t (&r)[4], uint32_t address)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
static __device__ __forceinline__ void
ldmatrix_trans (uint32_t (&r)[4], uint32_t address)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

template <typename T>
static __device__ __forceinline__ void
mma (float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void
mma<bf16> (float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
  FLASH_ASM ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
             "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void
mma<f16> (float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  /* Depths 2t.. of both halves of the fragments, then 2t + 8... */
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
               "{%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
               "{%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
  FLASH_ASM ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
             "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint32_t
pack2 (bf16, float a, float b)
{
  __nv_bfloat162 v = __floats2bfloat162_rn (a, b);

  return *reinterpret_cast<uint32_t *> (&v);
}
static __device__ __forceinline__ uint32_t
pack2 (f16, float a, float b)
{
  __half2 v = __floats2half2_rn (a, b);

  return *reinterpret_cast<uint32_t *> (&v);
}

/* Byte offset of chunk `chunk` of row `row` in a tile. */
template <int HD>
static __device__ __forceinline__ uint32_t
at (int row, int chunk)
{
  return (uint32_t)(row * (HD / 8) + (chunk ^ (row & 7))) * 16;
}

/* Starts copying rows [first, first + ROWS) of a head into a tile; rows from n on become
 * 0. */
template <typename T, int HD, int ROWS, int THREADS>
static __device__ __forceinline__ void
fetch (uint32_t tile, const T *m, int64_t ld, int first, int n)
{
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * (HD / 8); i += THREADS) {
    const int row = i / (HD / 8), chunk = i % (HD / 8);
    const bool inside = first + row < n;
    const T *src = m + (inside ? (int64_t)(first + row) * ld + chunk * 8 : 0);

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    const uint4 v =
        inside ? *reinterpret_cast<const uint4 *> (src) : make_uint4 (0, 0, 0, 0);

    asm volatile(
        "st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(tile + at<HD> (row, chunk)),
        "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
        : "memory");
#endif
    FLASH_ASM (
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(tile + at<HD> (row, chunk)),
        "l"(src), "r"(inside ? 16 : 0));
  }
}
static __device__ __forceinline__ void
fetch_commit (void)
{
  FLASH_ASM ("cp.async.commit_group;");
}
template <int PENDING>
static __device__ __forceinline__ void
fetch_wait (void)
{
  FLASH_ASM ("cp.async.wait_group %0;" ::"n"(PENDING));
}

/* c [16 x 8 N] += A (16 rows of tile a from row0) times the transpose of N * 8 rows of
 * tile b. */
template <typename T, int HD, int N>
static __device__ __forceinline__ void
product_nt (float (&c)[N][4], uint32_t a, int row0, uint32_t b)
{
  const int lane = threadIdx.x & 31;

#pragma unroll
  for (int k = 0; k < HD / 16; k++) {
    uint32_t fa[4];

    ldmatrix (fa, a + at<HD> (row0 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t fb[4];

      ldmatrix (fb, b + at<HD> (n * 8 + (lane & 7) + ((lane >> 4) << 3),
                            2 * k + ((lane >> 3) & 1)));
      mma<T> (c[n], fa, fb[0], fb[1]);
      mma<T> (c[n + 1], fa, fb[2], fb[3]);
    }
  }
}

/* c [16 x HD] += P [16 x 8 N], held as the accumulators of a product, times tile b [8 N,
 * HD]. */
template <typename T, int HD, int N>
static __device__ __forceinline__ void
product_nn (float (&c)[HD / 8][4], const float (&p)[N][4], uint32_t b)
{
  const int lane = threadIdx.x & 31;

#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    const uint32_t fa[4] = {pack2 (T (), p[2 * k][0], p[2 * k][1]),
        pack2 (T (), p[2 * k][2], p[2 * k][3]),
        pack2 (T (), p[2 * k + 1][0], p[2 * k + 1][1]),
        pack2 (T (), p[2 * k + 1][2], p[2 * k + 1][3])};

#pragma unroll
    for (int n = 0; n < HD / 8; n += 2) {
      uint32_t fb[4];

      ldmatrix_trans (fb, b + at<HD> (k * 16 + (lane & 15), n + (lane >> 4)));
      mma<T> (c[n], fa, fb[0], fb[1]);
      mma<T> (c[n + 1], fa, fb[2], fb[3]);
    }
  }
}

/* Rows row0 + g and row0 + g + 8 of an accumulator [16 x HD], each times its factor. */
template <typename T, int HD>
static __device__ __forceinline__ void
put (T *out, int64_t ld, int row0, int n, const float (&c)[HD / 8][4], float f0, float f1)
{
  const int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;

#pragma unroll
  for (int i = 0; i < HD / 8; i++) {
    if (row0 + g < n)
      *reinterpret_cast<uint32_t *> (out + (int64_t)(row0 + g) * ld + i * 8 + 2 * t) =
          pack2 (T (), c[i][0] * f0, c[i][1] * f0);
    if (row0 + g + 8 < n)
      *reinterpret_cast<uint32_t *> (out + (int64_t)(row0 + g + 8) * ld + i * 8 + 2 * t) =
          pack2 (T (), c[i][2] * f1, c[i][3] * f1);
  }
}
