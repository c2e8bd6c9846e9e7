/* flux/files/weights-fill.c: converting and quantising one tensor, piece by piece.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A piece is about a million elements, so a layer of any size needs some 5 MiB of host
 * memory a core (and its absmax values, which are quantised only when all are known). */
#include "flux/files/weights-fill.h"

#include <string.h>

#include "flux/error.h"

enum { PIECE = 1 << 20 /* elements; a multiple of 64 */, MAX_THREADS = 16 };

static gboolean
upload (FluxLoader *self, const fx_weight *w, void *dst, gconstpointer src, gsize bytes,
    const char *name, GError **error)
{
  g_autofree char *what = NULL;
  fx_backend *b =
      w->home == FX_HOME_HOST ? self->host_arena->backend : self->arena->backend;
  int status = fx_upload (b, dst, src, bytes);

  if (status == FX_OK)
    return TRUE;
  what = g_strdup_printf (
      "Tensor '%s' of '%s'", name, flux_safetensors_get_path (self->file));
  flux_error_from_fx (error, status, what);
  return FALSE;
}

/* ---- what a weight becomes ---- */

static gboolean
same_map (const FluxStored *a, const FluxStored *b)
{
  return memcmp (a->nested_map->data, b->nested_map->data, 256 * sizeof (float)) == 0;
}

/* Do blocks of 256 absmax values end where the parts end? */
static gboolean
absmax_blocks_align (const FluxStored *parts, guint n)
{
  for (guint i = 0; i + 1 < n; i++)
    if (parts[i].n * parts[i].k / FX_NF4_BLOCK % FX_ABSMAX_BLOCK != 0)
      return FALSE;
  return TRUE;
}

gboolean
flux_weight_choose (
    FluxLoader *self, const FluxStored *parts, guint n, fx_weight *w, GError **error)
{
  gboolean is_4bit = TRUE, is_double = TRUE, is_int8 = TRUE, is_float = TRUE;
  gboolean same_dtype = TRUE;

  for (guint i = 0; i < n; i++) {
    FluxStoredKind kind = parts[i].kind;
    is_float = is_float && kind == FLUX_STORED_FLOAT;
    is_int8 = is_int8 && kind == FLUX_STORED_INT8;
    is_4bit = is_4bit && (kind == FLUX_STORED_NF4 || kind == FLUX_STORED_NF4_DOUBLE);
    is_double =
        is_double && kind == FLUX_STORED_NF4_DOUBLE && same_map (&parts[0], &parts[i]);
    same_dtype = same_dtype && parts[i].dtype == parts[0].dtype;
  }
  w->qtype = FX_Q_NONE;
  w->dtype = self->compute;
  w->rounds_inputs = FALSE;
  if (self->keep_dtype && is_float && same_dtype)
    w->dtype = parts[0].dtype;
  if ((self->qtype == FX_Q_FP8 || (self->qtype == FX_Q_INT8 && self->rounds_inputs)) &&
      w->n % 16 == 0 && w->k % 16 == 0) {
    w->qtype = self->qtype;
    w->rounds_inputs = TRUE;
    w->dtype = parts[0].dtype;
    return TRUE;
  }
  if (self->qtype == FX_Q_NONE || self->qtype == FX_Q_FP8 || !same_dtype ||
      !(is_float || is_4bit || is_int8))
    return TRUE;
  if (is_int8)
    w->qtype = FX_Q_INT8;
  else if (is_4bit)
    w->qtype = is_double ? FX_Q_NF4_DOUBLE : FX_Q_NF4;
  else if (self->qtype == FX_Q_INT8 || w->k % FX_NF4_BLOCK == 0)
    w->qtype = self->qtype;
  if (w->qtype == FX_Q_NF4_DOUBLE && !absmax_blocks_align (parts, n))
    w->qtype = FX_Q_NF4;
  if (w->qtype != FX_Q_NONE)
    w->dtype = parts[0].dtype;
  return TRUE;
}

/* ---- floats ---- */

/* One scale a row, a byte an element? */
static gboolean
is_rows (const fx_weight *w)
{
  return w->qtype == FX_Q_INT8 || w->qtype == FX_Q_FP8;
}

/* Elements a piece: whole rows where a row shares a scale. */
static gint64
piece_of (const FluxStored *part, const fx_weight *w)
{
  if (part->kind == FLUX_STORED_INT8 || is_rows (w))
    return MAX (1, PIECE / part->k) * part->k;
  return PIECE;
}

static gboolean
fill_floats (FluxLoader *self, const fx_weight *w, gint64 row, const FluxStored *part,
    GError **error)
{
  gint64 elements = part->n * part->k, piece = MIN (piece_of (part, w), elements);
  gsize size = fx_dtype_size (w->dtype);
  guint8 *dst = (guint8 *)w->data + (gsize)(row * w->k) * size;
  const char *name = part->weight->name;
  g_autofree float *values = NULL;
  g_autofree guint8 *converted = NULL;

  if (part->kind == FLUX_STORED_FLOAT && part->weight->dtype == w->dtype)
    return upload (self, w, dst, part->weight->data, (gsize)elements * size, name, error);
  values = g_new (float, (gsize)piece);
  if (w->dtype != FX_F32)
    converted = g_malloc ((gsize)piece * size);
  for (gint64 i = 0; i < elements; i += piece) {
    gint64 count = MIN (piece, elements - i);
    int status = FX_OK;
    flux_stored_read (part, i, count, values);
    if (converted != NULL)
      status = fx_convert (converted, w->dtype, values, FX_F32, (gsize)count);
    if (status != FX_OK) {
      flux_error_from_fx (error, status, name);
      return FALSE;
    }
    if (!upload (self, w, dst + (gsize)i * size,
            converted != NULL ? (gconstpointer)converted : values, (gsize)count * size,
            name, error))
      return FALSE;
  }
  return TRUE;
}

gboolean
flux_upload_floats (
    FluxLoader *self, void *dst, fx_dtype dtype, const FluxTensor *t, GError **error)
{
  gint64 n = (gint64)t->n_elements;
  FluxStored part = {
      .kind = FLUX_STORED_FLOAT, .n = 1, .k = n, .dtype = t->dtype, .weight = t};
  fx_weight w = {.n = 1, .k = n, .qtype = FX_Q_NONE, .dtype = dtype, .data = dst};

  return fill_floats (self, &w, 0, &part, error);
}

gboolean
flux_upload_conv (FluxLoader *self, const fx_weight *w, const FluxTensor *t, gint64 in,
    gint64 area, GError **error)
{
  gsize row_bytes = (gsize)w->k * fx_dtype_size (w->dtype);
  gint64 rows = CLAMP (PIECE / w->k, 1, w->n);
  g_autofree float *values = g_new (float, (gsize)w->k);
  g_autofree float *turned = g_new (float, (gsize)(rows * w->k));
  g_autofree guint8 *converted = g_malloc ((gsize)rows * row_bytes);

  for (gint64 first = 0; first < w->n; first += rows) {
    gint64 count = MIN (rows, w->n - first);
    int status;
    for (gint64 r = 0; r < count; r++) {
      flux_tensor_read (t, (first + r) * w->k, w->k, values);
      for (gint64 c = 0; c < in; c++)
        for (gint64 i = 0; i < area; i++)
          turned[r * w->k + i * in + c] = values[c * area + i];
    }
    status = fx_convert (converted, w->dtype, turned, FX_F32, (gsize)(count * w->k));
    if (status != FX_OK) {
      flux_error_from_fx (error, status, t->name);
      return FALSE;
    }
    if (!upload (self, w, (guint8 *)w->data + (gsize)first * row_bytes, converted,
            (gsize)count * row_bytes, t->name, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- quantising ---- */

typedef struct {
  const FluxStored *part;
  fx_qtype qtype; /* NF4, INT8 or FP8 */
  gint64 first, count;
  float *values, *absmax; /* absmax of this piece */
  void *codes;
} Piece;

static gpointer
quantise_piece (gpointer data)
{
  Piece *p = data;
  gint64 k = p->part->k;

  flux_stored_read (p->part, p->first, p->count, p->values);
  if (p->qtype == FX_Q_INT8)
    fx_int8_quantize (p->values, (gsize)(p->count / k), (gsize)k, p->codes, p->absmax);
  else if (p->qtype == FX_Q_FP8)
    fx_fp8_quantize (p->values, (gsize)(p->count / k), (gsize)k, p->codes, p->absmax);
  else
    fx_nf4_quantize (p->values, (gsize)p->count, p->codes, p->absmax);
  return NULL;
}

/* Pieces do not depend on each other: one thread each, the last here. Without a thread
 * the work is done here too. */
static void
quantise_pieces (Piece *pieces, guint n)
{
  GThread *threads[MAX_THREADS];

  for (guint i = 0; i + 1 < n; i++) {
    threads[i] = g_thread_try_new ("flux-quantise", quantise_piece, &pieces[i], NULL);
    if (threads[i] == NULL)
      quantise_piece (&pieces[i]);
  }
  quantise_piece (&pieces[n - 1]);
  for (guint i = 0; i + 1 < n; i++)
    if (threads[i] != NULL)
      g_thread_join (threads[i]);
}

/* Quantises a part: its codes go to dst on the backend, its absmax values (one a
 * block of 64 or a row) to the host array. */
static gboolean
quantise_part (FluxLoader *self, const fx_weight *w, const FluxStored *part, guint8 *dst,
    float *absmax, GError **error)
{
  gint64 elements = part->n * part->k, piece = MIN (piece_of (part, w), elements);
  gint64 share = is_rows (w) ? part->k : FX_NF4_BLOCK;
  gint64 per_byte = is_rows (w) ? 1 : 2;
  guint n =
      (guint)CLAMP (MIN ((elements + piece - 1) / piece, (gint64)g_get_num_processors ()),
          1, MAX_THREADS);
  g_autofree float *values = g_new (float, n *(gsize)piece);
  g_autofree guint8 *codes = g_malloc (n * (gsize)(piece / per_byte));
  Piece pieces[MAX_THREADS];

  for (gint64 i = 0; i < elements; i += n * piece) {
    guint used = 0;
    for (gint64 at = i; used < n && at < elements; at += piece, used++)
      pieces[used] = (Piece){.part = part,
          .qtype = is_rows (w) ? w->qtype : FX_Q_NF4,
          .first = at,
          .count = MIN (piece, elements - at),
          .values = values + used * piece,
          .absmax = absmax + at / share,
          .codes = codes + used * (piece / per_byte)};
    quantise_pieces (pieces, used);
    for (guint j = 0; j < used; j++)
      if (!upload (self, w, dst + pieces[j].first / per_byte, pieces[j].codes,
              (gsize)(pieces[j].count / per_byte), part->weight->name, error))
        return FALSE;
  }
  return TRUE;
}

/* ---- 4 bits ---- */

/* The absmax values of one part, from block `first` of w on. */
static gboolean
fill_absmax (FluxLoader *self, const fx_weight *w, gint64 first, const FluxStored *part,
    const float *absmax, gint64 blocks, GError **error)
{
  gsize nested = (gsize)((blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK);
  const char *name = part->weight->name;
  g_autofree guint8 *codes = NULL;
  g_autofree float *scales = NULL, *offsets = NULL;
  float offset;

  if (w->qtype == FX_Q_NF4 && self->qtype != FX_Q_NF4_DOUBLE)
    return upload (
        self, w, w->absmax + first, absmax, (gsize)blocks * sizeof (float), name, error);
  codes = g_new (guint8, (gsize)blocks);
  scales = g_new (float, nested);
  offsets = g_new (float, nested);
  fx_absmax_quantize (absmax, (gsize)blocks, codes, scales, &offset);
  for (gsize i = 0; i < nested; i++)
    offsets[i] = offset;
  if (w->qtype == FX_Q_NF4) {
    g_autofree float *decoded = g_new (float, (gsize)blocks);
    fx_absmax_dequantize (codes, scales, offsets, (gsize)blocks, decoded);
    return upload (
        self, w, w->absmax + first, decoded, (gsize)blocks * sizeof (float), name, error);
  }
  first /= FX_ABSMAX_BLOCK;
  return upload (self, w, w->absmax_q + first * FX_ABSMAX_BLOCK, codes, (gsize)blocks,
             name, error) &&
         upload (
             self, w, w->absmax2 + first, scales, nested * sizeof (float), name, error) &&
         upload (self, w, w->offset2 + first, offsets, nested * sizeof (float), name,
             error) &&
         upload (self, w, (void *)w->code8, fx_dynamic_map (true), 256 * sizeof (float),
             name, error);
}

static gboolean
fill_quantised_4bit (FluxLoader *self, const fx_weight *w, gint64 row,
    const FluxStored *part, GError **error)
{
  gint64 first = row * w->k, blocks = part->n * part->k / FX_NF4_BLOCK;
  g_autofree float *absmax = g_new (float, (gsize)blocks);

  return quantise_part (self, w, part, (guint8 *)w->data + first / 2, absmax, error) &&
         fill_absmax (self, w, first / FX_NF4_BLOCK, part, absmax, blocks, error);
}

static gboolean
fill_stored_4bit (FluxLoader *self, const fx_weight *w, gint64 row,
    const FluxStored *part, GError **error)
{
  gint64 elements = part->n * part->k, first = row * w->k / FX_NF4_BLOCK;
  gint64 blocks = elements / FX_NF4_BLOCK;
  gint64 nested = (blocks + FX_ABSMAX_BLOCK - 1) / FX_ABSMAX_BLOCK;
  const char *name = part->weight->name;
  g_autofree float *values = NULL;

  if (!upload (self, w, (guint8 *)w->data + row * w->k / 2, part->weight->data,
          (gsize)elements / 2, name, error))
    return FALSE;
  if (w->qtype == FX_Q_NF4) {
    values = g_new (float, (gsize)blocks);
    flux_stored_absmax (part, 0, blocks, values);
    return upload (
        self, w, w->absmax + first, values, (gsize)blocks * sizeof (float), name, error);
  }
  values = g_new (float, (gsize)nested);
  for (gint64 i = 0; i < nested; i++)
    values[i] = part->nested_offset;
  first /= FX_ABSMAX_BLOCK;
  return upload (self, w, w->absmax_q + first * FX_ABSMAX_BLOCK, part->absmax->data,
             (gsize)blocks, name, error) &&
         upload (self, w, w->absmax2 + first, part->nested_absmax->data,
             (gsize)nested * sizeof (float), name, error) &&
         upload (self, w, w->offset2 + first, values, (gsize)nested * sizeof (float),
             name, error) &&
         upload (self, w, (void *)w->code8, part->nested_map->data, 256 * sizeof (float),
             name, error);
}

/* ---- 8 bits ---- */

static gboolean
fill_rows (FluxLoader *self, const fx_weight *w, gint64 row, const FluxStored *part,
    GError **error)
{
  const char *name = part->weight->name;
  guint8 *dst = (guint8 *)w->data + row * w->k;
  g_autofree float *absmax = NULL;

  if (part->kind == FLUX_STORED_INT8 && w->qtype == FX_Q_INT8)
    return upload (
               self, w, dst, part->weight->data, part->weight->n_bytes, name, error) &&
           upload (self, w, w->absmax + row, part->absmax->data, part->absmax->n_bytes,
               name, error);
  absmax = g_new (float, (gsize)part->n);
  return quantise_part (self, w, part, dst, absmax, error) &&
         upload (self, w, w->absmax + row, absmax, (gsize)part->n * sizeof (float), name,
             error);
}

gboolean
flux_weight_fill (FluxLoader *self, const fx_weight *w, gint64 row,
    const FluxStored *part, GError **error)
{
  switch (w->qtype) {
    case FX_Q_NF4:
    case FX_Q_NF4_DOUBLE:
      if (part->kind == FLUX_STORED_FLOAT)
        return fill_quantised_4bit (self, w, row, part, error);
      return fill_stored_4bit (self, w, row, part, error);
    case FX_Q_INT8:
    case FX_Q_FP8:
      return fill_rows (self, w, row, part, error);
    default:
      return fill_floats (self, w, row, part, error);
  }
}
