/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Quantisers: bit-equal with bitsandbytes. */
#include "golden.h"

/* x as fp32, from whatever type the golden file has; n elements. */
static float *
load_x (const golden *g, int j, size_t *n)
{
  static const fx_dtype dtypes[] = {
      [1] = FX_BF16, [2] = FX_F16, [0] = FX_F32, [3] = FX_F32, [9] = FX_F32};
  size_t bytes = 0;
  const void *p = golden_getf (g, &bytes, "nf4.%d.x", j);
  void *aligned;
  float *x;

  if (p == NULL)
    return NULL;
  *n = bytes / fx_dtype_size (dtypes[j]);
  x = g_new (float, *n);
  aligned = g_memdup2 (p, bytes);
  test_ok (fx_convert (x, FX_F32, aligned, dtypes[j], *n));
  g_free (aligned);
  return x;
}

/* What the weight's own type keeps of the dequantised values. */
static void
check_dequant (const golden *g, int j, const char *kind, const float *out, size_t n)
{
  static const fx_dtype dtypes[] = {
      [1] = FX_BF16, [2] = FX_F16, [0] = FX_F32, [3] = FX_F32, [9] = FX_F32};
  size_t bytes = 0;
  const void *want = golden_getf (g, &bytes, "nf4.%d.%s.dequant", j, kind);
  void *rounded = g_malloc (n * 4);

  test_ok (fx_convert (rounded, dtypes[j], out, FX_F32, n));
  g_assert_cmpmem (rounded, n * fx_dtype_size (dtypes[j]), want, bytes);
  g_free (rounded);
}

static void
check_nested (const golden *g, int j, const float *absmax, size_t blocks,
    const uint8_t *packed, size_t n)
{
  size_t bytes = 0, blocks2 = (blocks + 255) / 256;
  uint8_t *codes = g_new (uint8_t, blocks);
  float *absmax2 = g_new (float, blocks2), *offset2 = g_new (float, blocks2),
        *restored = g_new (float, blocks), *out = g_new (float, n), offset, want_offset;
  const void *want = golden_getf (g, &bytes, "nf4.%d.nested.absmax", j);

  if (want == NULL)
    goto out;
  fx_absmax_quantize (absmax, blocks, codes, absmax2, &offset);
  g_assert_cmpmem (codes, blocks, want, bytes);
  memcpy (&want_offset, golden_getf (g, NULL, "nf4.%d.nested.offset", j), 4);
  g_assert_cmpfloat (fabsf (offset - want_offset), <=,
      nextafterf (fabsf (offset), INFINITY) - fabsf (offset));
  want = golden_getf (g, &bytes, "nf4.%d.nested.state2_absmax", j);
  for (size_t i = 0; i < blocks2; i++) { /* an ulp of the offset moves it as much */
    float w;
    memcpy (&w, (const char *)want + 4 * i, 4);
    g_assert_cmpfloat (
        fabsf (absmax2[i] - w), <=, 2 * fabsf (offset - want_offset) + 1e-7f * w);
    offset2[i] = want_offset;
    absmax2[i] = w;
  }
  fx_absmax_dequantize (codes, absmax2, offset2, blocks, restored);
  fx_nf4_dequantize (packed, restored, n, out);
  check_dequant (g, j, "nested", out, n);
out:
  g_free (codes);
  g_free (absmax2);
  g_free (offset2);
  g_free (restored);
  g_free (out);
}

static void
check_nf4 (const golden *g)
{
  static const int groups[] = {0, 1, 2, 3, 9};
  int found = 0;
  size_t bytes = 0;
  const void *want = golden_get (g, "nf4.code", &bytes);

  g_assert_cmpmem (fx_nf4_code, sizeof fx_nf4_code, want, bytes);
  for (guint i = 0; i < G_N_ELEMENTS (groups); i++) {
    int j = groups[i];
    size_t n = 0;
    float *x = load_x (g, j, &n), *absmax, *out;
    uint8_t *packed;
    if (x == NULL)
      continue;
    absmax = g_new (float, n / 64);
    packed = g_new (uint8_t, n / 2);
    out = g_new (float, n);
    fx_nf4_quantize (x, n, packed, absmax);
    want = golden_getf (g, &bytes, "nf4.%d.plain.packed", j);
    g_assert_cmpmem (packed, n / 2, want, bytes);
    want = golden_getf (g, &bytes, "nf4.%d.plain.absmax", j);
    g_assert_cmpmem (absmax, n / 64 * 4, want, bytes);
    fx_nf4_dequantize (packed, absmax, n, out);
    check_dequant (g, j, "plain", out, n);
    check_nested (g, j, absmax, n / 64, packed, n);
    found++;
    g_free (x);
    g_free (absmax);
    g_free (packed);
    g_free (out);
  }
  g_assert_cmpint (found, >=, 2);
}

static void
check_maps (const golden *g)
{
  size_t bytes = 0;
  const void *want = golden_get (g, "adam8.map_signed", &bytes);

  g_assert_cmpmem (fx_dynamic_map (true), 1024, want, bytes);
  want = golden_get (g, "adam8.map_unsigned", &bytes);
  g_assert_cmpmem (fx_dynamic_map (false), 1024, want, bytes);
}

static void
check_all (const golden *g)
{
  check_maps (g);
  check_nf4 (g);
}

static void
test_checked_in (void)
{
  golden_checked_in (check_all);
}

static void
test_shared (void)
{
  golden_shared (check_all);
}

/* Mean error of normal weights: bitsandbytes' own tests expect 0.072798 +- 0.000074 of
 * block 64; 7 standard deviations either way. */
static void
test_nf4_error (void)
{
  enum { N = 1 << 18 };
  float *x = g_new (float, N), *out = g_new (float, N), *absmax = g_new (float, N / 64);
  uint8_t *packed = g_new (uint8_t, N / 2);
  double error = 0;

  fx_philox_normal (3, 0, 0, 0, x, N);
  fx_nf4_quantize (x, N, packed, absmax);
  fx_nf4_dequantize (packed, absmax, N, out);
  for (int i = 0; i < N; i++)
    error += fabs ((double)x[i] - out[i]) / N;
  g_assert_cmpfloat (error, <, 0.072798 + 7 * 0.000074);
  g_assert_cmpfloat (error, >, 0.072798 - 7 * 0.000074);
  g_free (x);
  g_free (out);
  g_free (absmax);
  g_free (packed);
}

static void
test_int8 (void)
{
  const float x[8] = {1, -2, 0.5f, 0, 0, 0, 0, 0};
  int8_t q[8];
  float absmax[2];

  fx_int8_quantize (x, 2, 4, q, absmax);
  g_assert_cmpfloat (absmax[0], ==, 2);
  g_assert_cmpfloat (absmax[1], ==, 0);
  g_assert_cmpint (q[0], ==, 64); /* 63.5, to even */
  g_assert_cmpint (q[1], ==, -127);
  g_assert_cmpint (q[2], ==, 32);
  for (int i = 4; i < 8; i++)
    g_assert_cmpint (q[i], ==, 0);
}

/* Every value of each 8- and 16-bit type survives the way to fp32 and back. */
static void
test_dtypes (void)
{
  static const struct {
    fx_dtype d;
    int bits;
  } types[] = {{FX_BF16, 16}, {FX_F16, 16}, {FX_E4M3, 8}, {FX_E5M2, 8}};

  for (guint t = 0; t < G_N_ELEMENTS (types); t++)
    for (uint32_t i = 0; i < 1u << types[t].bits; i++) {
      uint16_t in = (uint16_t)i, out = 0;
      float f;
      test_ok (fx_convert (&f, FX_F32, &in, types[t].d, 1));
      test_ok (fx_convert (&out, types[t].d, &f, FX_F32, 1));
      if (!isnan (f))
        g_assert_cmphex (out, ==, in);
    }
  g_assert_cmphex (fx_f32_to_bf16 (1.00390625f), ==, 0x3f80); /* a tie, to even */
  g_assert_cmphex (fx_f32_to_bf16 (1.01171875f), ==, 0x3f82);
  g_assert_cmphex (fx_f32_to_f16 (65519.99f), ==, 0x7bff);
  g_assert_cmphex (fx_f32_to_f16 (65520.0f), ==, 0x7c00);
  g_assert_cmphex (fx_f32_to_f16 (0x1p-25f), ==, 0);
  g_assert_cmphex (fx_f32_to_f16 (0x1.000002p-25f), ==, 1);
  g_assert_true (isnan (fx_bf16_to_f32 (fx_f32_to_bf16 (NAN))));
  g_assert_true (isnan (fx_f16_to_f32 (fx_f32_to_f16 (NAN))));
  g_assert_cmpint (
      fx_convert (&(float){0}, FX_F32, &(int){0}, FX_I32, 1), ==, FX_ERR_SHAPE);
}

/* Between neighbours every 8-bit value goes to the nearer one. */
static void
test_fp8_rounding (void)
{
  for (int type = 0; type < 2; type++) {
    fx_dtype d = type ? FX_E5M2 : FX_E4M3;
    int last = type ? 0x7b : 0x7e;
    for (int i = 0; i < last; i++) {
      uint8_t low = (uint8_t)i, high = (uint8_t)(i + 1), got;
      float a, b, middle, x;
      fx_convert (&a, FX_F32, &low, d, 1);
      fx_convert (&b, FX_F32, &high, d, 1);
      middle = (a + b) / 2;
      fx_convert (&got, d, &middle, FX_F32, 1);
      g_assert_cmpint (got, ==, i % 2 ? high : low);
      x = nextafterf (middle, 0);
      fx_convert (&got, d, &x, FX_F32, 1);
      g_assert_cmpint (got, ==, low);
      x = nextafterf (middle, 1e9f);
      fx_convert (&got, d, &x, FX_F32, 1);
      g_assert_cmpint (got, ==, high);
    }
  }
}

static void
test_finite (void)
{
  static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
  float x[37];

  for (int i = 0; i < 37; i++)
    x[i] = i % 2 == 0 ? FLT_MAX : -FLT_MIN / 4;
  g_assert_true (fx_all_finite (x, 37));
  g_assert_true (fx_all_finite (x, 0));
  for (int i = 0; i < 37; i++) {
    float kept = x[i];
    x[i] = bad[i % 4];
    g_assert_false (fx_all_finite (x, 37));
    x[i] = kept;
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/quantise/bitsandbytes", test_checked_in);
  g_test_add_func ("/quantise/bitsandbytes/golden", test_shared);
  g_test_add_func ("/quantise/nf4-error", test_nf4_error);
  g_test_add_func ("/quantise/int8-rows", test_int8);
  g_test_add_func ("/quantise/dtypes-round-trip", test_dtypes);
  g_test_add_func ("/quantise/fp8-rounding", test_fp8_rounding);
  g_test_add_func ("/quantise/finite", test_finite);
  return g_test_run ();
}
