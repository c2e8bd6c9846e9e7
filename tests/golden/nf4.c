/* tests/golden/nf4.c: bitsandbytes' 4-bit quantisation. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * nf4.code; nf4.J.x and what quantize_4bit (block 64) makes of it: .plain.{packed,
 * absmax,dequant}, .nested.{packed,absmax,offset,state2_absmax,state2_code,dequant}. */
#include "tests/golden/parity.h"

#include <math.h>
#include <string.h>

static const FluxTensor *
part (Parity *p, const char *index, const char *name, fx_dtype dtype, gsize n)
{
  const FluxTensor *t = parity_find (p, "nf4.%s.%s", index, name);

  return t != NULL && t->dtype == dtype && t->n_elements == n ? t : NULL;
}

static void
equal (Parity *p, const char *index, const char *name, const FluxTensor *want,
    gconstpointer got)
{
  g_autofree char *group = g_strdup_printf ("nf4.%s.%s", index, name);

  if (want == NULL)
    parity_skip (p, group, "absent, or of another type or length");
  else
    parity_equal (p, group, got, want->data, want->n_bytes);
}

/* Dequantised values, rounded to the type of x as the reference does. */
static void
compare_values (Parity *p, const char *index, const char *name, fx_dtype dtype,
    const float *values, gsize n)
{
  const FluxTensor *want = part (p, index, name, dtype, n);
  g_autofree void *got = g_malloc (n * fx_dtype_size (dtype));

  fx_convert (got, dtype, values, FX_F32, n);
  equal (p, index, name, want, got);
}

/* ulps between two floats of the same sign. */
static double
ulps (float a, float b)
{
  return a == b ? 0
                : fabs ((double)a - (double)b) /
                      ((double)nextafterf (fmaxf (fabsf (a), fabsf (b)), INFINITY) -
                          (double)fmaxf (fabsf (a), fabsf (b)));
}

static void
compare_offset (Parity *p, const char *index, const FluxTensor *want, float got)
{
  g_autofree char *group = g_strdup_printf ("nf4.%s.nested.offset", index);
  float value;

  if (want == NULL || !flux_tensor_to_f32 (want, &value, NULL))
    parity_skip (p, group, "absent, or of another type or length");
  else
    parity_value (p, group, "ulp", ulps (got, value), 1, FALSE);
}

/* Restores the values from the codes of the golden data, so that this says something even
 * where quantising differs. */
static void
compare_nested_dequant (Parity *p, const char *index, fx_dtype dtype, gsize n)
{
  gsize blocks = (n + FX_NF4_BLOCK - 1) / FX_NF4_BLOCK;
  gsize groups = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  const FluxTensor *packed = part (p, index, "nested.packed", FX_U8, (n + 1) / 2);
  const FluxTensor *codes = part (p, index, "nested.absmax", FX_U8, blocks);
  const FluxTensor *absmax2 = part (p, index, "nested.state2_absmax", FX_F32, groups);
  const FluxTensor *offset = part (p, index, "nested.offset", FX_F32, 1);
  g_autofree float *absmax = g_new (float, blocks), *values = g_new (float, n);
  g_autofree float *scales = g_new (float, groups), *offsets = g_new (float, groups);

  if (packed == NULL || codes == NULL || absmax2 == NULL || offset == NULL) {
    parity_skip (p, index, "the double quantisation is incomplete");
    return;
  }
  memcpy (scales, absmax2->data, groups * sizeof (float));
  for (gsize i = 0; i < groups; i++)
    memcpy (&offsets[i], offset->data, sizeof (float));
  fx_absmax_dequantize (codes->data, scales, offsets, blocks, absmax);
  fx_nf4_dequantize (packed->data, absmax, n, values);
  compare_values (p, index, "nested.dequant", dtype, values, n);
}

static void
compare_nested (Parity *p, const char *index, const guint8 *packed, const float *absmax,
    fx_dtype dtype, gsize n)
{
  gsize blocks = (n + FX_NF4_BLOCK - 1) / FX_NF4_BLOCK;
  gsize groups = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  g_autofree guint8 *codes = g_new (guint8, blocks);
  g_autofree float *absmax2 = g_new (float, groups);
  const FluxTensor *want = part (p, index, "nested.offset", FX_F32, 1);
  float offset;

  fx_absmax_quantize (absmax, blocks, codes, absmax2, &offset);
  equal (p, index, "nested.packed", part (p, index, "nested.packed", FX_U8, (n + 1) / 2),
      packed);
  equal (
      p, index, "nested.absmax", part (p, index, "nested.absmax", FX_U8, blocks), codes);
  equal (p, index, "nested.state2_absmax",
      part (p, index, "nested.state2_absmax", FX_F32, groups), absmax2);
  equal (p, index, "nested.state2_code",
      part (p, index, "nested.state2_code", FX_F32, 256), fx_dynamic_map (true));
  compare_offset (p, index, want, offset);
  compare_nested_dequant (p, index, dtype, n);
}

static void
compare_one (Parity *p, const char *index)
{
  const FluxTensor *x = parity_find (p, "nf4.%s.x", index);
  gsize n = 0, blocks;
  g_autofree float *values = parity_floats (p, &n, "nf4.%s.x", index);
  g_autofree guint8 *packed = NULL;
  g_autofree float *absmax = NULL;
  g_autofree char *nested = g_strdup_printf ("nf4.%s.nested.", index);
  g_auto (GStrv) nested_names = parity_names (p, nested);

  if (values == NULL || n == 0) {
    parity_skip (p, nested, "there is no x");
    return;
  }
  blocks = (n + FX_NF4_BLOCK - 1) / FX_NF4_BLOCK;
  packed = g_new0 (guint8, (n + 1) / 2);
  absmax = g_new0 (float, blocks);
  fx_nf4_quantize (values, n, packed, absmax);
  equal (p, index, "plain.packed", part (p, index, "plain.packed", FX_U8, (n + 1) / 2),
      packed);
  equal (
      p, index, "plain.absmax", part (p, index, "plain.absmax", FX_F32, blocks), absmax);
  fx_nf4_dequantize (packed, absmax, n, values);
  compare_values (p, index, "plain.dequant", x->dtype, values, n);
  if (nested_names[0] != NULL)
    compare_nested (p, index, packed, absmax, x->dtype, n);
}

void
parity_nf4 (Parity *p)
{
  g_auto (GStrv) indices = parity_indices (p, "nf4.");
  const FluxTensor *code = parity_find (p, "nf4.code");

  if (code != NULL && code->dtype == FX_F32 && code->n_elements == 16)
    parity_equal (p, "nf4.code", fx_nf4_code, code->data, code->n_bytes);
  for (guint i = 0; indices[i] != NULL; i++) {
    if (strcmp (indices[i], "code") != 0)
      compare_one (p, indices[i]);
  }
}
