/* flux/convert/quantise.c: tensors of a stream in another type.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/quantise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "flux/convert/workers.h"
#include "flux/error.h"

/* Room for any float in JSON, "-1.2345678901234567e-05": the length of a quant_state is
 * announced before its offset is known. */
#define OFFSET_LENGTH 23
/* Between it and 464 e4m3 rounds down to it. */
#define E4M3_TOO_LARGE 464.0f

struct _FluxQuantise {
  FluxWorkers *workers;
  FluxStoredKind kind;
  fx_dtype dtype;
  GPtrArray *infos, *skipped;
};

static gboolean
is_4bit (const FluxQuantise *self)
{
  return self->kind == FLUX_STORED_NF4 || self->kind == FLUX_STORED_NF4_DOUBLE;
}

static gboolean
is_float (fx_dtype d)
{
  return d == FX_F32 || d == FX_BF16 || d == FX_F16;
}

gboolean
flux_quantise_changes (FluxQuantise *self, const FluxTensorInfo *info)
{
  if (self->kind == FLUX_STORED_FLOAT && self->dtype != FX_E4M3)
    return is_float (info->dtype) && info->dtype != self->dtype;
  return flux_tensor_info_is_linear (info) &&
         (!is_4bit (self) || info->dims[1] % FX_NF4_BLOCK == 0);
}

/* ---- what becomes of a tensor ---- */

/* JSON as Python writes it. */
static void
append_float (GString *s, double v)
{
  char text[G_ASCII_DTOSTR_BUF_SIZE];

  for (int digits = 1; digits <= 17; digits++) {
    char format[8];

    g_snprintf (format, sizeof format, "%%.%dg", digits);
    g_ascii_formatd (text, sizeof text, format, v);
    if (g_ascii_strtod (text, NULL) == v)
      break;
  }
  g_string_append (s, text);
  if (strpbrk (text, ".e") == NULL)
    g_string_append (s, ".0");
}

/* What bitsandbytes' QuantState.as_dict (packed=True) makes of what is no tensor; with
 * an offset, spaces at the end make it as long as with any other. */
static GBytes *
quant_state (const FluxQuantise *self, const FluxTensorInfo *info, float offset)
{
  const char *dtype = info->dtype == FX_BF16  ? "bfloat16"
                      : info->dtype == FX_F16 ? "float16"
                                              : "float32";
  GString *s = g_string_new (NULL);
  gsize length;

  g_string_append_printf (s,
      "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"dtype\": \"%s\", "
      "\"shape\": [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]",
      FX_NF4_BLOCK, dtype, info->dims[0], info->dims[1]);
  length = s->len + 1;
  if (self->kind == FLUX_STORED_NF4_DOUBLE) {
    g_string_append_printf (s,
        ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": ",
        FX_ABSMAX_BLOCK);
    length = s->len + OFFSET_LENGTH + 1;
    append_float (s, offset);
  }
  g_string_append_c (s, '}');
  while (s->len < length)
    g_string_append_c (s, ' ');
  return g_string_free_to_bytes (s);
}

static void
add_part (FluxQuantised *parts, guint *n, const FluxTensorInfo *of, const char *suffix,
    fx_dtype dtype, guint n_dims, gint64 rows, gint64 cols)
{
  const gint64 dims[2] = {rows, cols};
  g_autofree char *name = g_strconcat (of->name, suffix, NULL);

  parts[(*n)++].info = flux_tensor_info_new (name, dtype, n_dims, dims);
}

static guint
list_4bit (const FluxQuantise *self, const FluxTensorInfo *info, FluxQuantised *parts)
{
  const gint64 elements = (gint64)info->n_elements, blocks = elements / FX_NF4_BLOCK;
  const gboolean nested = self->kind == FLUX_STORED_NF4_DOUBLE;
  g_autoptr (GBytes) state = quant_state (self, info, 0);
  guint n = 0;

  add_part (parts, &n, info, "", FX_U8, 2, elements / 2, 1);
  add_part (parts, &n, info, ".absmax", nested ? FX_U8 : FX_F32, 1, blocks, 0);
  add_part (parts, &n, info, ".quant_map", FX_F32, 1, 16, 0);
  if (nested) {
    add_part (parts, &n, info, ".nested_absmax", FX_F32, 1,
        (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK, 0);
    add_part (parts, &n, info, ".nested_quant_map", FX_F32, 1, 256, 0);
  }
  add_part (parts, &n, info, ".quant_state.bitsandbytes__nf4", FX_U8, 1,
      (gint64)g_bytes_get_size (state), 0);
  return n;
}

static guint
list_int8 (const FluxTensorInfo *info, FluxQuantised *parts)
{
  FluxTensorInfo layer = *info;
  g_autofree char *prefix =
      g_strndup (info->name, strlen (info->name) - strlen (".weight"));
  guint n = 0;

  layer.name = prefix;
  add_part (parts, &n, info, "", FX_I8, 2, info->dims[0], info->dims[1]);
  add_part (parts, &n, &layer, ".SCB", FX_F32, 1, info->dims[0], 0);
  add_part (parts, &n, &layer, ".weight_format", FX_U8, 0, 0, 0);
  return n;
}

/* The parts of a tensor that changes, without their bytes. */
static guint
list_parts (const FluxQuantise *self, const FluxTensorInfo *info, FluxQuantised *parts)
{
  memset (parts, 0, FLUX_QUANTISED_PARTS * sizeof *parts);
  if (is_4bit (self))
    return list_4bit (self, info, parts);
  if (self->kind == FLUX_STORED_INT8)
    return list_int8 (info, parts);
  parts[0].info =
      flux_tensor_info_new (info->name, self->dtype, info->n_dims, info->dims);
  return 1;
}

static FluxTensorInfo *
copy_info (const FluxTensorInfo *info)
{
  return flux_tensor_info_new (info->name, info->dtype, info->n_dims, info->dims);
}

static void
plan (FluxQuantise *self, GPtrArray *infos)
{
  for (guint i = 0; i < infos->len; i++) {
    const FluxTensorInfo *info = infos->pdata[i];
    FluxQuantised parts[FLUX_QUANTISED_PARTS] = {{NULL}};
    guint n = 1;

    if (flux_quantise_changes (self, info))
      n = list_parts (self, info, parts);
    else
      parts[0].info = copy_info (info);
    for (guint j = 0; j < n; j++)
      g_ptr_array_add (self->infos, parts[j].info);
    if (is_4bit (self) && flux_tensor_info_is_linear (info) && n == 1)
      g_ptr_array_add (self->skipped,
          g_strndup (info->name, strlen (info->name) - strlen (".weight")));
  }
}

FluxQuantise *
flux_quantise_new (FluxStoredKind kind, fx_dtype dtype, GPtrArray *infos, GError **error)
{
  g_autoptr (FluxQuantise) self = g_new0 (FluxQuantise, 1);

  self->kind = kind;
  self->dtype = dtype;
  self->infos = flux_tensor_infos_new ();
  self->skipped = g_ptr_array_new_with_free_func (g_free);
  self->workers = flux_workers_new (error);
  if (self->workers == NULL)
    return NULL;
  plan (self, infos);
  return g_steal_pointer (&self);
}

void
flux_quantise_free (FluxQuantise *self)
{
  g_clear_pointer (&self->workers, flux_workers_free);
  g_ptr_array_unref (self->infos);
  g_ptr_array_unref (self->skipped);
  g_free (self);
}

GPtrArray *
flux_quantise_get_infos (FluxQuantise *self)
{
  return self->infos;
}

GPtrArray *
flux_quantise_get_skipped (FluxQuantise *self)
{
  return self->skipped;
}

/* ---- data ---- */

typedef struct {
  const FluxQuantise *self;
  const FluxTensorInfo *info;
  const char *from;
  char *to;
  float *absmax; /* of blocks or rows */
} Job;

static int
convert_piece (const FluxPiece *piece, gpointer data)
{
  const Job *job = data;
  const gsize n = (gsize)piece->count, first = (gsize)piece->first;
  const fx_dtype dtype = job->self->dtype;
  const gsize row = job->info->n_dims == 2 ? (gsize)job->info->dims[1] : 1;

  FX_TRY (fx_convert (piece->values, FX_F32,
      job->from + first * fx_dtype_size (job->info->dtype), job->info->dtype, n));
  if (!fx_all_finite (piece->values, n))
    return FLUX_PIECE_NOT_FINITE;
  switch (job->self->kind) {
    case FLUX_STORED_NF4:
    case FLUX_STORED_NF4_DOUBLE:
      fx_nf4_quantize (piece->values, n, (guint8 *)job->to + first / 2,
          job->absmax + first / FX_NF4_BLOCK);
      return FX_OK;
    case FLUX_STORED_INT8:
      fx_int8_quantize (piece->values, n / row, row, (gint8 *)job->to + first,
          job->absmax + first / row);
      return FX_OK;
    case FLUX_STORED_FLOAT:
    default:
      break;
  }
  for (gsize i = 0; dtype == FX_E4M3 && i < n; i++) {
    if (!(fabsf (piece->values[i]) < E4M3_TOO_LARGE))
      return FLUX_PIECE_TOO_LARGE;
  }
  return fx_convert (
      job->to + first * fx_dtype_size (dtype), dtype, piece->values, FX_F32, n);
}

/* absmax, or in its place the codes and scales of double quantisation; takes absmax. */
static void
fill_4bit (
    FluxQuantise *self, const FluxTensorInfo *info, FluxQuantised *parts, float *absmax)
{
  const gsize blocks = info->n_elements / FX_NF4_BLOCK;
  const gsize nested = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  float offset = 0;
  guint n = 1;

  if (self->kind == FLUX_STORED_NF4_DOUBLE) {
    guint8 *codes = g_malloc (blocks);
    float *scales = g_new (float, nested);

    fx_absmax_quantize (absmax, blocks, codes, scales, &offset);
    free (absmax);
    parts[n++].bytes = g_bytes_new_take (codes, blocks);
    parts[n++].bytes = g_bytes_new_static (fx_nf4_code, sizeof fx_nf4_code);
    parts[n++].bytes = g_bytes_new_take (scales, nested * sizeof *scales);
    parts[n++].bytes = g_bytes_new_static (fx_dynamic_map (true), 256 * sizeof (float));
  } else {
    parts[n++].bytes =
        g_bytes_new_with_free_func (absmax, blocks * sizeof *absmax, free, absmax);
    parts[n++].bytes = g_bytes_new_static (fx_nf4_code, sizeof fx_nf4_code);
  }
  parts[n].bytes = quant_state (self, info, offset);
}

static void
fill (FluxQuantise *self, const FluxTensorInfo *info, FluxQuantised *parts, char *to,
    float *absmax)
{
  parts[0].bytes = g_bytes_new_with_free_func (to, parts[0].info->n_bytes, free, to);
  if (is_4bit (self)) {
    fill_4bit (self, info, parts, absmax);
  } else if (self->kind == FLUX_STORED_INT8) {
    parts[1].bytes =
        g_bytes_new_with_free_func (absmax, parts[1].info->n_bytes, free, absmax);
    parts[2].bytes = g_bytes_new_static ("", 1); /* 0: rows */
  } else {
    free (absmax);
  }
}

guint
flux_quantise_run (FluxQuantise *self, const FluxTensorInfo *info, gconstpointer data,
    FluxQuantised parts[FLUX_QUANTISED_PARTS], GError **error)
{
  Job job = {.self = self, .info = info, .from = data};
  const guint n = list_parts (self, info, parts);
  gsize n_absmax = 0;

  if (is_4bit (self))
    n_absmax = info->n_elements / FX_NF4_BLOCK;
  else if (self->kind == FLUX_STORED_INT8)
    n_absmax = (gsize)info->dims[0];
  job.to = flux_workers_alloc (info->name, parts[0].info->n_bytes, error);
  if (job.to != NULL)
    job.absmax = flux_workers_alloc (info->name, n_absmax * sizeof (float), error);
  if (job.absmax != NULL &&
      flux_workers_run (self->workers, info, convert_piece, &job, error)) {
    fill (self, info, parts, job.to, job.absmax);
    return n;
  }
  free (job.to);
  free (job.absmax);
  for (guint i = 0; i < n; i++)
    flux_quantised_clear (&parts[i]);
  return 0;
}

void
flux_quantised_clear (FluxQuantised *part)
{
  g_clear_pointer (&part->info, flux_tensor_info_free);
  g_clear_pointer (&part->bytes, g_bytes_unref);
}
