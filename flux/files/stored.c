/* flux/files/stored.c: float, bitsandbytes 4-bit and LLM.int8 weights of a file.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/files/stored.h"

#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"

/* A quant_state is some eighty bytes. */
enum { MAX_QUANT_STATE = 4096 };

gboolean
flux_tensor_is_float (const FluxTensor *t)
{
  return t->dtype == FX_F32 || t->dtype == FX_BF16 || t->dtype == FX_F16;
}

void
flux_tensor_read (const FluxTensor *t, gint64 first, gint64 count, float *out)
{
  gsize size = fx_dtype_size (t->dtype);
  const guint8 *src = (const guint8 *)t->data + (gsize)first * size;

  if (t->dtype == FX_F32) {
    memcpy (out, src, (gsize)count * size);
    return;
  }
  if (t->dtype == FX_E4M3) {
    fx_convert (out, FX_F32, src, FX_E4M3, (gsize)count);
    return;
  }
  for (gint64 i = 0; i < count; i++) {
    guint16 v;
    memcpy (&v, src + 2 * i, 2);
    out[i] = t->dtype == FX_BF16 ? fx_bf16_to_f32 (v) : fx_f16_to_f32 (v);
  }
}

static gboolean
wrong (GError **error, FluxSafetensors *file, const char *name, const char *what)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT, "Tensor '%s' of '%s' %s.", name,
      flux_safetensors_get_path (file), what);
  return FALSE;
}

/* A part of a quantised weight: WEIGHT + suffix, of this type and number of elements. */
static const FluxTensor *
part (FluxSafetensors *file, const char *name, fx_dtype dtype, gint64 n, GError **error)
{
  const FluxTensor *t = flux_safetensors_lookup (file, name);
  g_autofree char *what = NULL;

  if (t == NULL)
    what = g_strdup ("is missing, and its weight cannot be read without it");
  else if (t->dtype != dtype || t->n_elements != (gsize)n)
    what = g_strdup_printf ("has %" G_GSIZE_FORMAT
                            " values of type %s, not %" G_GINT64_FORMAT " of type %s",
        t->n_elements, fx_dtype_name (t->dtype), n, fx_dtype_name (dtype));
  if (what == NULL)
    return t;
  wrong (error, file, name, what);
  return NULL;
}

static gboolean
parse_dtype (const char *name, fx_dtype *dtype)
{
  if (strcmp (name, "bfloat16") == 0)
    *dtype = FX_BF16;
  else if (strcmp (name, "float16") == 0)
    *dtype = FX_F16;
  else if (strcmp (name, "float32") == 0)
    *dtype = FX_F32;
  else
    return FALSE;
  return TRUE;
}

/* The JSON of double quantisation: nested_blocksize, nested_dtype, nested_offset. */
static gboolean
read_nested_state (FluxStored *self, FluxConfigJson *json, FluxSafetensors *file,
    const char *state, GError **error)
{
  const char *dtype;
  double offset;
  int block;

  if (!flux_config_json_int (json, "nested_blocksize", 1, G_MAXINT, &block, error) ||
      !flux_config_json_number (
          json, "nested_offset", -G_MAXFLOAT, G_MAXFLOAT, &offset, error) ||
      (dtype = flux_config_json_string (json, "nested_dtype", error)) == NULL)
    return FALSE;
  if (block != FX_ABSMAX_BLOCK || strcmp (dtype, "float32") != 0)
    return wrong (error, file, state,
        "describes a double quantisation other than blocks of 256 in float32");
  self->nested_offset = (float)offset;
  return TRUE;
}

static gboolean
read_quant_state (FluxStored *self, const FluxTensor *state, FluxSafetensors *file,
    gboolean nested, GError **error)
{
  g_autoptr (FluxConfigJson) json = NULL;
  g_autofree char *where = NULL;
  const char *type, *dtype;
  gint64 shape[2];
  guint n = 2;
  int block;

  if (state->dtype != FX_U8 || state->n_bytes > MAX_QUANT_STATE)
    return wrong (error, file, state->name, "is not a bitsandbytes quant_state");
  where = g_strdup_printf (
      "Tensor '%s' of '%s'", state->name, flux_safetensors_get_path (file));
  json = flux_config_json_parse (state->data, state->n_bytes, where, error);
  if (json == NULL)
    return FALSE;
  if ((type = flux_config_json_string (json, "quant_type", error)) == NULL ||
      (dtype = flux_config_json_string (json, "dtype", error)) == NULL ||
      !flux_config_json_int (json, "blocksize", 1, G_MAXINT, &block, error) ||
      !flux_config_json_ints (json, "shape", 1, G_MAXINT64, shape, &n, error))
    return FALSE;
  if (strcmp (type, "nf4") != 0)
    return wrong (error, file, state->name, "has a quant_type other than nf4");
  if (block != FX_NF4_BLOCK)
    return wrong (error, file, state->name, "has a block size other than 64");
  if (!parse_dtype (dtype, &self->dtype))
    return wrong (
        error, file, state->name, "has a dtype other than bfloat16, float16 and float32");
  if (n != 2 || shape[0] != self->n || shape[1] != self->k) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Tensor '%s' of '%s' has the shape %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT
        ", but this model needs %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT ".",
        self->weight->name, flux_safetensors_get_path (file), shape[0],
        n > 1 ? shape[1] : 1, self->n, self->k);
    return FALSE;
  }
  return !nested || read_nested_state (self, json, file, state->name, error);
}

/* Float maps may have been written by other hands: close is close enough to be NF4, and
 * then the exact values are used. */
static gboolean
check_nf4_map (FluxSafetensors *file, const FluxTensor *map, GError **error)
{
  float values[16];

  flux_tensor_read (map, 0, 16, values);
  for (int i = 0; i < 16; i++)
    if (!(fabsf (values[i] - fx_nf4_code[i]) <= 1e-6f))
      return wrong (error, file, map->name, "is not the NF4 code");
  return TRUE;
}

static gboolean
find_4bit (
    FluxStored *self, FluxSafetensors *file, const FluxTensor *state, GError **error)
{
  const char *name = self->weight->name;
  g_autofree char *absmax = g_strconcat (name, ".absmax", NULL);
  g_autofree char *map = g_strconcat (name, ".quant_map", NULL);
  g_autofree char *nested_absmax = g_strconcat (name, ".nested_absmax", NULL);
  g_autofree char *nested_map = g_strconcat (name, ".nested_quant_map", NULL);
  gboolean nested = flux_safetensors_lookup (file, nested_absmax) != NULL;
  gint64 elements = self->n * self->k, blocks = elements / FX_NF4_BLOCK;
  const FluxTensor *quant_map;

  self->kind = nested ? FLUX_STORED_NF4_DOUBLE : FLUX_STORED_NF4;
  if (!read_quant_state (self, state, file, nested, error))
    return FALSE;
  /* bitsandbytes quantises the flat tensor; here a block must not straddle rows. */
  if (self->k % FX_NF4_BLOCK != 0)
    return wrong (error, file, name, "is in 4 bits with rows that are no multiple of 64");
  /* bnb_4bit_quant_storage may be any type; the bytes are the same. */
  if (self->weight->n_bytes != (gsize)(elements / 2))
    return wrong (error, file, name, "is not as long as its quant_state says");
  self->absmax = part (file, absmax, nested ? FX_U8 : FX_F32, blocks, error);
  if (self->absmax == NULL)
    return FALSE;
  quant_map = part (file, map, FX_F32, 16, error);
  if (quant_map == NULL || !check_nf4_map (file, quant_map, error))
    return FALSE;
  if (!nested)
    return TRUE;
  self->nested_absmax = part (file, nested_absmax, FX_F32,
      (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK, error);
  if (self->nested_absmax == NULL)
    return FALSE;
  self->nested_map = part (file, nested_map, FX_F32, 256, error);
  return self->nested_map != NULL;
}

static gboolean
find_int8 (FluxStored *self, FluxSafetensors *file, const char *prefix, GError **error)
{
  g_autofree char *scb = g_strconcat (prefix, ".SCB", NULL);
  const FluxTensor *t = self->weight;

  self->kind = FLUX_STORED_INT8;
  self->dtype = FX_F32;
  if (t->n_dims != 2 || t->dims[0] != self->n || t->dims[1] != self->k) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
        "Tensor '%s' of '%s' does not have the shape %" G_GINT64_FORMAT
        " x %" G_GINT64_FORMAT " that this model needs.",
        t->name, flux_safetensors_get_path (file), self->n, self->k);
    return FALSE;
  }
  self->absmax = part (file, scb, FX_F32, self->n, error);
  return self->absmax != NULL;
}

/* 8-bit floats are read when they have no scales: a value times a scale that is not known
 * of would be a wrong weight. */
static gboolean
find_floats (FluxStored *self, FluxSafetensors *file, const char *prefix, GError **error)
{
  static const char *const scales[] = {
      ".scale_weight", ".weight_scale", ".weight_scale_inv"};
  const FluxTensor *t = self->weight;
  g_autofree char *what = NULL;

  for (guint i = 0; t->dtype == FX_E4M3 && i < G_N_ELEMENTS (scales); i++) {
    g_autofree char *name = g_strconcat (prefix, scales[i], NULL);

    if (flux_safetensors_lookup (file, name) != NULL)
      return wrong (error, file, name,
          "is a scale of 8-bit floats, which are read without scales only");
  }
  if (t->dtype == FX_E4M3 || flux_tensor_is_float (t)) {
    self->dtype = t->dtype == FX_E4M3 ? FX_BF16 : t->dtype;
    return TRUE;
  }
  what = g_strdup_printf ("has type %s without a bitsandbytes quant_state; weights are "
                          "read as F32, BF16, F16, F8_E4M3, bitsandbytes nf4 or int8",
      fx_dtype_name (t->dtype));
  return wrong (error, file, t->name, what);
}

gboolean
flux_stored_find (FluxSafetensors *file, const char *prefix, gint64 n, gint64 k,
    FluxStored *out, GError **error)
{
  FluxStored self = {.kind = FLUX_STORED_FLOAT, .n = n, .k = k};
  g_autofree char *name = g_strconcat (prefix, ".weight", NULL);
  g_autofree char *nf4 = g_strconcat (name, ".quant_state.bitsandbytes__nf4", NULL);
  g_autofree char *fp4 = g_strconcat (name, ".quant_state.bitsandbytes__fp4", NULL);
  const FluxTensor *state = flux_safetensors_lookup (file, nf4);

  self.weight = flux_safetensors_lookup (file, name);
  if (self.weight != NULL && flux_safetensors_lookup (file, fp4) != NULL)
    return wrong (error, file, name, "is in bitsandbytes' fp4; only nf4 can be read");
  if (self.weight != NULL && state != NULL) {
    if (!find_4bit (&self, file, state, error))
      return FALSE;
  } else if (self.weight != NULL && self.weight->dtype == FX_I8) {
    if (!find_int8 (&self, file, prefix, error))
      return FALSE;
  } else {
    /* Missing or of another shape: the error is made there. */
    if (self.weight == NULL || self.weight->dtype == FX_E4M3 ||
        flux_tensor_is_float (self.weight)) {
      self.weight = flux_safetensors_require (file, name, error, 2, n, k);
      if (self.weight == NULL)
        return FALSE;
    }
    if (!find_floats (&self, file, prefix, error))
      return FALSE;
  }
  *out = self;
  return TRUE;
}

void
flux_stored_absmax (const FluxStored *self, gint64 first, gint64 count, float *out)
{
  const guint8 *codes = self->absmax->data;
  float map[256];

  if (self->kind == FLUX_STORED_NF4) {
    flux_tensor_read (self->absmax, first, count, out);
    return;
  }
  flux_tensor_read (self->nested_map, 0, 256, map);
  for (gint64 i = 0; i < count; i++) {
    float scale;
    flux_tensor_read (self->nested_absmax, (first + i) / FX_ABSMAX_BLOCK, 1, &scale);
    /* Rounded twice, as two kernels of bitsandbytes do. */
    out[i] = map[codes[first + i]] * scale;
    out[i] += self->nested_offset;
  }
}

static void
read_4bit (const FluxStored *self, gint64 first, gint64 count, float *out)
{
  const guint8 *packed = (const guint8 *)self->weight->data + first / 2;
  float absmax[FX_ABSMAX_BLOCK];

  while (count > 0) {
    gint64 blocks = MIN (count / FX_NF4_BLOCK, FX_ABSMAX_BLOCK);
    gsize elements = (gsize)blocks * FX_NF4_BLOCK;
    flux_stored_absmax (self, first / FX_NF4_BLOCK, blocks, absmax);
    fx_nf4_dequantize (packed, absmax, elements, out);
    packed += elements / 2;
    out += elements;
    first += (gint64)elements;
    count -= (gint64)elements;
  }
}

static void
read_int8 (const FluxStored *self, gint64 first, gint64 count, float *out)
{
  const gint8 *q = (const gint8 *)self->weight->data + first;

  for (gint64 i = 0; i < count; i += self->k) {
    float absmax;
    flux_tensor_read (self->absmax, (first + i) / self->k, 1, &absmax);
    for (gint64 j = 0; j < self->k; j++)
      out[i + j] = (float)q[i + j] * absmax * 7.874015718698502e-3f; /* 1 / 127 */
  }
}

void
flux_stored_read (const FluxStored *self, gint64 first, gint64 count, float *out)
{
  if (self->kind == FLUX_STORED_FLOAT) {
    flux_tensor_read (self->weight, first, count, out);
    return;
  }
  if (self->kind == FLUX_STORED_INT8) {
    read_int8 (self, first, count, out);
    return;
  }
  read_4bit (self, first, count, out);
  for (gint64 i = 0; i < count && self->dtype != FX_F32; i++)
    out[i] = self->dtype == FX_BF16 ? fx_bf16_to_f32 (fx_f32_to_bf16 (out[i]))
                                    : fx_f16_to_f32 (fx_f32_to_f16 (out[i]));
}
