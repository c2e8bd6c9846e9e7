/* kernels/cuda/tensor-map.cu: matrices as the copy engine sees them.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernels/cuda/wgmma.cuh"

typedef CUresult (*encode_func) (CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
    CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
    CUtensorMapFloatOOBfill);

/* The module links no libcuda: the runtime knows where it is. */
static int
find_encode (fx_cuda *c)
{
  cudaDriverEntryPointQueryResult found;

  if (c->encode_tensor_map != NULL)
    return FX_OK;
  FXC_TRY (c, cudaGetDriverEntryPointByVersion ("cuTensorMapEncodeTiled",
                  &c->encode_tensor_map, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || c->encode_tensor_map == NULL)
    return c->error (
        FX_ERR_DEVICE, "cuda: the driver has no cuTensorMapEncodeTiled: it is too old");
  return FX_OK;
}

int
fxc_tensor_map (fx_cuda *c, CUtensorMap *map, fx_mat m)
{
  const cuuint64_t size[2] = {(cuuint64_t)m.cols, (cuuint64_t)m.rows};
  const cuuint64_t stride[1] = {(cuuint64_t)m.ld * 2};
  const cuuint32_t box[2] = {PANEL, 64}, step[2] = {1, 1};
  CUresult e;

  FX_TRY (find_encode (c));
  e = ((encode_func)c->encode_tensor_map) (map,
      m.dtype == FX_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                         : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      2, m.p, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return e == CUDA_SUCCESS
             ? FX_OK
             : c->error (FX_ERR_DEVICE, "cuda: no tensor map of %lld x %lld: error %d",
                   (long long)m.rows, (long long)m.cols, (int)e);
}
